"""Images decoded, resized and cropped once for all models that share a preprocessing."""

from __future__ import annotations

import hashlib
import json
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

from realign_utils.store import key_of, write_atomically

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


def normalise(
    pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float], device: str | torch.device
) -> torch.Tensor:
    """Network input from pixels, computed on the device as torchvision computes it.

    Parameters
    ----------
    pixels : torch.Tensor
        uint8, shape (b, h, w, 3), on the CPU.
    mean, std : sequence of 3 floats
        Of the channels, for values from 0 to 1.
    device : str or torch.device
        Where to compute.

    Returns
    -------
    torch.Tensor
        float32, shape (b, 3, h, w), on the device.
    """
    moved = pixels.to(device, non_blocking=True)
    images = moved.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    shift, scale = (torch.tensor(v, device=device).view(3, 1, 1) for v in (mean, std))
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
    ingredients = {**asdict(preprocessing), "images": images.content_hash, "format": 1}
    key = key_of({**ingredients, "pillow": PIL.__version__})
    path = store / "pixels" / key[:2] / f"{key}.safetensors"
    shape = (len(images), preprocessing.crop, preprocessing.crop, 3)
    if not (path.exists() and _whole(path, shape)):
        if path.exists():
            logging.getLogger(__name__).warning("%s is damaged: decoding the images again", path)
        if not keep:
            return lambda start, stop: _decode(images, preprocessing, range(start, stop))
        write_atomically(path, lambda temporary: _write(temporary, images, preprocessing, shape))
    offset, size = len(_header(shape, "0" * 64)), int(np.prod(shape[1:]))

    def read(start: int, stop: int) -> np.ndarray:
        # Mapped for these images only, so that a process never holds the whole file.
        part = (stop - start, *shape[1:])
        return np.array(np.memmap(path, np.uint8, "r", offset=offset + start * size, shape=part))

    return read


def _decode(images: Any, preprocessing: Preprocessing, indices: Iterable[int]) -> np.ndarray:
    def one(index: int) -> np.ndarray:
        try:
            return preprocessing(images.read(index))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UnreadableImage(f"image {images.identifiers[index]}: {reason}") from error

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(one, indices)))


def _header(shape: tuple[int, ...], sha256: str) -> bytes:
    """The header of a safetensors file with the one tensor ``pixels``."""
    size = int(np.prod(shape))
    tensor = {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {"sha256": sha256}, "pixels": tensor}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(path: Path, images: Any, preprocessing: Preprocessing, shape: tuple[int, ...]) -> None:
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        file.write(_header(shape, "0" * 64))
        for start in range(0, len(images), 64):
            stop = min(start + 64, len(images))
            part = _decode(images, preprocessing, range(start, stop))
            digest.update(part.reshape(-1))
            file.write(part)
        file.seek(0)
        file.write(_header(shape, digest.hexdigest()))


def _whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file of pixels is as it was written, header and all."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        header = file.read(len(_header(shape, "0" * 64)))
        while part := file.read(1 << 22):
            digest.update(part)
    return header == _header(shape, digest.hexdigest())


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
