"""Feature files: named by all that they were made of, written as features come, read verified."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL
import safetensors
import timm
import torch
import torchvision

from realign_utils.architectures import architecture_of, interpolation_of
from realign_utils.errors import UserError
from realign_utils.pixels import Preprocessing
from realign_utils.settings import Settings
from realign_utils.store import key_of
from realign_utils.tensor_files import open_rows, write_rows

FORMAT = 2
"""Part of every key: to be raised when a change of this package changes the features."""

_MAPPED = 1 << 26
"""Bytes from which a matrix is mapped, not read: each mapping holds one of a process's files."""


class UselessFeatures(Exception):
    """Features that cannot be compared; the message says why."""


def preprocessing_of(row: pd.Series, settings: Settings) -> Preprocessing:
    """What is done to an image for a model before normalisation."""
    chosen = settings.interpolation
    chosen = interpolation_of(row) if chosen == "timm" else chosen
    return Preprocessing(int(row["resize"]), int(row["crop"]), chosen)


def ingredients_of(
    row: pd.Series, weights_sha256: str, images: Any, device: torch.device, settings: Settings
) -> dict[str, Any]:
    """All that a feature matrix is made of.

    The batch size is no ingredient, nor is the device where the arithmetic is plain float32: they
    change nothing beyond rounding.

    Parameters
    ----------
    row : pandas.Series
        Of `realign_utils.registry`.
    weights_sha256 : str
        Of the checkpoint's bytes.
    images : ImageSet
        Its `content_hash` counts.
    device : torch.device
        Where the forward passes are made.
    settings : Settings
        The rest.

    Returns
    -------
    dict
        JSON-serialisable.
    """
    architecture, arguments = architecture_of(row)
    preprocessing = preprocessing_of(row, settings)
    return {
        "format": FORMAT,
        "model": str(row.name),
        "architecture": architecture,
        "arguments": arguments,
        "weights_sha256": weights_sha256,
        "layer": row["layer"],
        "token_pooling": settings.token_pooling,
        "resize": preprocessing.resize,
        "crop": preprocessing.crop,
        "interpolation": preprocessing.interpolation,
        "mean": [float(value) for value in row["mean"]],
        "std": [float(value) for value in row["std"]],
        "dtype": settings.dtype,
        "channels_last": settings.channels_last,
        "compile": settings.compile,
        "kernels": "any" if settings.exact else device.type,  # what is traded differs by device
        "images": images.content_hash,
        "pillow": PIL.__version__,
        "timm": timm.__version__,
        "torchvision": torchvision.__version__.partition("+")[0],  # it resizes
        "torch": torch.__version__.partition("+")[0],  # without the build for a device
    }


def file_of(ingredients: Mapping[str, Any]) -> str:
    """Name of the file for these ingredients, relative to the store."""
    key = key_of(ingredients)
    return f"features/{key[:2]}/{key}.safetensors"


def write_features(
    store: Path,
    ingredients: Mapping[str, Any],
    number: int,
    parts: Iterable[np.ndarray],
    device: str,
) -> tuple[int, int]:
    """Write the features of all images, as they come.

    Parameters
    ----------
    store : path
        The store's folder.
    ingredients : mapping
        From `ingredients_of`.
    number : int
        Of images.
    parts : iterable of numpy.ndarray
        float32, shape (b, d), in the order of the images.
    device : str
        Noted beside the features: cpu, cuda or mps.

    Returns
    -------
    tuple of int
        Images, dimensions.

    Raises
    ------
    UselessFeatures
        If some are not finite, or all images have the same; no file is left.
    UserError
        If the file cannot be written.
    """
    note = {"ingredients": ingredients, "device": device}
    return write_rows(store / file_of(ingredients), "features", number, _useful(parts), note)


def _useful(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass features on; raise at the end if they are of no use."""
    first, bad, number, differ = None, 0, 0, False
    for part in parts:
        first = part[0].copy() if first is None else first
        bad += int((~np.isfinite(part).all(axis=1)).sum())
        differ = differ or not (part == first).all()
        number += len(part)
        yield part
    if bad:
        raise UselessFeatures(f"not finite for {bad} of {number} images")
    if number > 1 and not differ:
        raise UselessFeatures("the same for every image")


def shape_of_features(store: Path, file: str) -> tuple[int, int] | None:
    """Images and dimensions of a feature file that is verified whole; None for any other."""
    found = open_rows(Path(store, file), "features")
    return None if found is None else found.shape


def read_features(store: str | os.PathLike[str], file: str) -> np.ndarray:
    """Read a feature matrix and verify it.

    Parameters
    ----------
    store : path
        The store's folder.
    file : str
        As in the index of an `Extraction`.

    Returns
    -------
    numpy.ndarray
        Shape (n, d), float32, a row an image in the order of the image set. A large one is mapped:
        its parts are read from the file when they are used.

    Raises
    ------
    UserError
        If the file is missing, or its content is not what was written.
    """
    path = Path(store, file)
    found = open_rows(path, "features")
    if found is None:
        wrong = "is damaged" if path.exists() else "is missing"
        raise UserError(f"feature file {path} {wrong}: run 1_extract again")
    features = found.rows()
    return features if features.nbytes > _MAPPED else np.array(features)


def images_of(store: str | os.PathLike[str], file: str) -> str:
    """Hash of the images, in their order, whose features a file of the store holds.

    Parameters
    ----------
    store, file
        As of `read_features`, which verifies what is read here.

    Returns
    -------
    str
        The `ImageSet.content_hash`: equal for two models that saw the same images in one order.

    Raises
    ------
    UserError
        If there is no such feature file.
    """
    try:
        with safetensors.safe_open(Path(store, file), "numpy") as opened:
            return json.loads(opened.metadata()["realign"])["ingredients"]["images"]
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
        raise UserError(f"{Path(store, file)} is no feature file: run 1_extract again") from None
