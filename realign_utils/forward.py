"""Forward passes over many images: batches that fit the memory, the device never waiting."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from realign_utils.models import LayerOutput
from realign_utils.pixels import ReadPixels, normalise, one_ahead
from realign_utils.settings import PLAIN, Settings, autocast, name_of_device
from realign_utils.store import key_of, write_json

_WEEK = 7 * 86_400.0


@dataclass(frozen=True)
class _OnItsWay:
    """Features of a batch, perhaps still being computed; the device has its next work already."""

    features: torch.Tensor
    copied: torch.cuda.Event | None

    def arrived(self) -> np.ndarray:
        if self.copied is not None:
            self.copied.synchronize()
        return self.features.numpy()


class ForwardPasses:
    """A model's forward passes on one device.

    Parameters
    ----------
    model : LayerOutput
        On any device; it is moved when it is first used.
    mean, std : sequence of 3 floats
        Of the normalisation.
    device : torch.device
        Where to compute.
    settings : Settings
        Batch size, arithmetic, pooling.
    batch_size : int
        To begin with.
    """

    def __init__(
        self,
        model: LayerOutput,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        settings: Settings,
        batch_size: int,
    ) -> None:
        self.mean, self.std = (torch.tensor(value, device=device) for value in (mean, std))
        self.device, self.settings, self.batch_size = device, settings, batch_size
        self.layout = torch.channels_last if settings.channels_last else torch.contiguous_format
        self.model = model.to(device, memory_format=self.layout)
        if settings.compile:
            self.model.compile()

    def features(self, read: ReadPixels, number: int) -> Iterator[np.ndarray]:
        """Features of all images in order, the next images read while these are computed.

        The batch that is given out was computed while the next one was being sent to the device.

        Parameters
        ----------
        read : callable
            From `realign_utils.pixels.open_pixels`.
        number : int
            Of images.

        Yields
        ------
        numpy.ndarray
            Shape (b, d), float32.

        Raises
        ------
        MemoryError
            If one image alone is too much.
        """
        step = self.settings.batch_size

        def chunk(start: int) -> torch.Tensor:
            pixels = torch.from_numpy(read(start, min(start + step, number)))
            return pixels.pin_memory() if self.device.type == "cuda" else pixels

        before = None
        for pixels in one_ahead(chunk, range(0, number, step)):
            done = 0
            while done < len(pixels):
                part = self._start(pixels[done : done + self.batch_size])
                if part is None:
                    self.batch_size //= 2
                    continue
                done += len(part.features)
                if before is not None:
                    yield before.arrived()
                before = part
        yield before.arrived()

    def _start(self, pixels: torch.Tensor) -> _OnItsWay | None:
        """Send a batch to the device; None if memory is too small for it, unless it is one image."""
        try:
            with torch.inference_mode(), autocast(self.device, self.settings.dtype):
                images = normalise(pixels, self.mean, self.std, self.device)
                images = images.contiguous(memory_format=self.layout)
                pooling = self.settings.token_pooling
                features = self.model.features(images, token_pooling=pooling)
                return self._send_back(features)
        except Exception as error:
            if not _out_of_memory(error):
                raise
            if self.batch_size == 1:
                raise MemoryError("one image alone is too much for the memory") from error
        gc.collect()
        torch.cuda.empty_cache()
        return None

    def _send_back(self, features: torch.Tensor) -> _OnItsWay:
        if self.device.type != "cuda":
            return _OnItsWay(features.cpu(), None)
        copied = torch.cuda.Event(blocking=True)  # whoever waits for it does not spin
        kept = features.to("cpu", non_blocking=True)  # into pinned memory, behind the forward pass
        copied.record(torch.cuda.current_stream(self.device))
        return _OnItsWay(kept, copied)


def _out_of_memory(error: Exception) -> bool:
    text = str(error).lower()  # the CPU's allocator and cuDNN raise plain RuntimeErrors
    words = ("out of memory", "allocate memory", "alloc_failed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        word in text for word in words
    )


class BatchSizes:
    """Batch sizes that worked where the asked one was too large, kept in the store.

    Only a hint: without it, or with a wrong one, the same features come out, but for rounding.
    After a week it is forgotten, since the memory may have been another's when it was learnt.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self.settings, self.device = settings, device

    def of(self, model: str, crop: int) -> int:
        """The size to begin with."""
        asked, path = self.settings.batch_size, self._path(model, crop)
        try:
            known, age = int(path.read_text()), time.time() - path.stat().st_mtime
        except (OSError, ValueError):
            return asked
        return known if 1 <= known <= asked and age < _WEEK else asked

    def remember(self, model: str, crop: int, size: int) -> None:
        """Keep the size that worked, if the asked one did not."""
        if size < self.of(model, crop):
            write_json(self._path(model, crop), size)

    def _path(self, model: str, crop: int) -> Path:
        device = name_of_device(str(self.device))
        given: dict[str, Any] = {"model": model, "crop": crop, "device": device}
        arithmetic = {name: getattr(self.settings, name) for name in ("batch_size", *PLAIN)}
        return self.settings.store / "batch_sizes" / f"{key_of(given | arithmetic)}.json"
