"""Images decoded, resized and cropped once for all models that share a preprocessing."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
import torch
from PIL.Image import Image
from timm.data.transforms import str_to_interp_mode
from torchvision.transforms import functional

from realign_utils.errors import UserError
from realign_utils.store import key_of
from realign_utils.tensor_files import open_rows, write_rows

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
Item = TypeVar("Item")
Result = TypeVar("Result")
ReadPixels = Callable[[int, int], np.ndarray]
"""From a first and a last + 1 image to their pixels, uint8, shape (images, crop, crop, 3)."""


class UnreadableImage(Exception):
    """An image that cannot be decoded; the message names it."""


@dataclass(frozen=True)
class Preprocessing:
    """The part of a preprocessing that is done on images, before normalisation.

    Parameters
    ----------
    resize : int
        Pixels of the shorter side after the resize, as the registry has it. timm computes
        ``floor(crop / crop_pct)``, up to one pixel less; the registry's number is the
        challenge's. The aspect ratio is kept for every model, as the challenge does, also for
        the one (``dm_nfnet_f0``) that timm itself would squash.
    crop : int
        Pixels a side of the centre crop.
    interpolation : str
        Of the resize: one of `INTERPOLATIONS`.
    """

    resize: int
    crop: int
    interpolation: str

    def __call__(self, image: Image) -> np.ndarray:
        """Pixels of an RGB image: uint8, shape (crop, crop, 3)."""
        mode = str_to_interp_mode(self.interpolation)
        resized = functional.resize(image, self.resize, interpolation=mode)
        return np.asarray(functional.center_crop(resized, self.crop))


def cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # a batch system may give fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def normalise(
    pixels: torch.Tensor,
    mean: Sequence[float] | torch.Tensor,
    std: Sequence[float] | torch.Tensor,
    device: str | torch.device,
) -> torch.Tensor:
    """Network input from pixels, computed on the device as torchvision computes it.

    Parameters
    ----------
    pixels : torch.Tensor
        uint8, shape (b, h, w, 3), on the CPU.
    mean, std : sequence of 3 floats, or torch.Tensor
        Of the channels, for values from 0 to 1. Tensors on the device, shape (3,), spare a copy
        that would wait for all work before it.
    device : str or torch.device
        Where to compute.

    Returns
    -------
    torch.Tensor
        float32, shape (b, 3, h, w), on the device.
    """
    moved = pixels.to(device, non_blocking=True)
    images = moved.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    shift, scale = (torch.as_tensor(v, device=device).view(3, 1, 1) for v in (mean, std))
    return images.div_(255).sub_(shift).div_(scale)


def open_pixels(images: Any, preprocessing: Preprocessing, store: Path, keep: bool) -> ReadPixels:
    """Open the pixels of an image set under a preprocessing.

    Parameters
    ----------
    images : ImageSet
        Its `read` is called from several threads.
    preprocessing : Preprocessing
        Resize, crop, interpolation.
    store : path
        Folder of content-addressed files.
    keep : bool
        Whether a missing file of pixels is to be made, because more than one model needs it;
        otherwise images are decoded when they are asked for. A damaged file is named and replaced.

    Returns
    -------
    callable
        From (start, stop) to uint8 pixels; only these are held in memory.

    Raises
    ------
    UnreadableImage
        Also by the callable, if an image cannot be decoded.
    UserError
        If the file cannot be written.
    """
    ingredients = {**asdict(preprocessing), "images": images.content_hash, "format": 2}
    ingredients["pillow"] = PIL.__version__
    key = key_of(ingredients)
    path = store / "pixels" / key[:2] / f"{key}.safetensors"
    file = open_rows(path, "pixels")
    if file is None:
        if path.exists():
            logging.getLogger(__name__).warning("%s is damaged: decoding the images again", path)
        if not keep:
            return lambda start, stop: _decode(images, preprocessing, range(start, stop))
        note = {"ingredients": ingredients}
        write_rows(path, "pixels", len(images), _decoded(images, preprocessing), note)
        file = open_rows(path, "pixels")
    if file is None:
        raise UserError(f"{path} was written and cannot be read back: check the disk")
    # Mapped for these images only, so that a process never holds the whole file.
    return lambda start, stop: np.array(file.rows(start, stop))


def _decoded(images: Any, preprocessing: Preprocessing) -> Iterator[np.ndarray]:
    for start in range(0, len(images), 64):
        yield _decode(images, preprocessing, range(start, min(start + 64, len(images))))


def _decode(images: Any, preprocessing: Preprocessing, indices: Iterable[int]) -> np.ndarray:
    def one(index: int) -> np.ndarray:
        try:
            return preprocessing(images.read(index))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UnreadableImage(f"image {images.identifiers[index]}: {reason}") from error

    with ThreadPoolExecutor(cores()) as pool:
        return np.stack(list(pool.map(one, indices)))


def one_ahead(compute: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``compute(item)`` in order, the next one computed in a thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for item in items:
            ready, pending = pending, pool.submit(compute, item)
            if ready is not None:
                yield ready.result()
                del ready  # or its result would live on while the next one is in use
        if pending is not None:
            yield pending.result()
