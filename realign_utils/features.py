"""Features of every model on every image set: computed once, kept under what made them."""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import PIL
import safetensors
import safetensors.numpy
import timm
import torch
from torch import nn

from realign_utils.errors import UserError, unknown
from realign_utils.models import (
    POOLINGS,
    NoNetwork,
    architecture_of,
    find_layer,
    find_weights,
    interpolation_of,
    load,
    penultimate,
)
from realign_utils.pixels import (
    INTERPOLATIONS,
    Preprocessing,
    ReadPixels,
    UnreadableImage,
    normalise,
    one_ahead,
    open_pixels,
)
from realign_utils.progress import track
from realign_utils.store import key_of, write_atomically

DTYPES = ("float32", "bfloat16", "float16")
FORMAT = 1
"""Part of every key: to be raised when a change of this package changes the features."""

INDEX = ["images", "model", "file", "n", "d", "seconds", "cached"]
FAILURES = ["images", "model", "stage", "reason"]


@dataclass(frozen=True)
class Extraction:
    """What an extraction left.

    Parameters
    ----------
    index : pandas.DataFrame
        A row a feature file: images, model, file (relative to the store), n, d, seconds (that
        this run spent on it), cached (whether an earlier run had computed it).
    failures : pandas.DataFrame
        A row a failure: images, model, stage (weights, key, build, layer, images, forward or
        features), reason (one line).
    """

    index: pd.DataFrame
    failures: pd.DataFrame


@dataclass(frozen=True)
class _Settings:
    store: Path
    weights_dir: str | os.PathLike[str] | None
    device: torch.device
    batch_size: int
    dtype: str
    token_pooling: str
    interpolation: str
    offline: Event = field(default_factory=Event)  # set once the network was found missing

    def __post_init__(self) -> None:
        for what, value, allowed in (
            ("dtype", self.dtype, DTYPES),
            ("token_pooling", self.token_pooling, POOLINGS),
            ("interpolation", self.interpolation, ("timm", *INTERPOLATIONS)),
        ):
            if value not in allowed:
                raise unknown(what, value, allowed)
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size} is not allowed: at least 1")


@dataclass
class _Job:
    """One model: what is known of it, what is still to compute, what came of it."""

    row: pd.Series
    batch_size: int
    ingredients: dict[str, dict[str, Any]]  # by image set, of what is still to compute
    module: nn.Module | None = None
    pixels: dict[str, ReadPixels] = field(default_factory=dict)
    index: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, images: str, shape: tuple[int, int], started: float, cached: bool) -> None:
        file = _file(self.ingredients.pop(images))
        seconds = round(time.perf_counter() - started, 3)
        values = (images, self.row.name, file, *shape, seconds, cached)
        self.index.append(dict(zip(INDEX, values, strict=True)))

    def fail(self, images: Iterable[str], stage: str, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, (UserError, UnreadableImage, _BadFeatures)):
            reason = f"{type(error).__name__}: {reason}"
        for name in list(images):
            self.ingredients.pop(name, None)
            values = (name, self.row.name, stage, reason)
            self.failures.append(dict(zip(FAILURES, values, strict=True)))


class _BadFeatures(Exception):
    pass


def extract(
    registry: pd.DataFrame,
    image_sets: Mapping[str, Any],
    *,
    store: str | os.PathLike[str],
    weights_dir: str | os.PathLike[str] | None = None,
    device: str = "auto",
    batch_size: int = 64,
    dtype: str = "float32",
    token_pooling: str = "mean",
    interpolation: str = "timm",
) -> Extraction:
    """Compute the penultimate features of all models on all image sets.

    Each feature matrix becomes a file of the store, named by all that it was made of; what an
    earlier run left there is verified and not computed again. The batch size is no ingredient,
    nor is the device in float32: they change nothing beyond rounding. A model that fails is a
    row of `failures`, and the others go on.

    Parameters
    ----------
    registry : pandas.DataFrame
        A row a model, from `realign_utils.registry`.
    image_sets : mapping of str to ImageSet
        From `realign_utils.images`.
    store : path
        Folder of content-addressed files; several runs may share it.
    weights_dir : path, optional
        Folder of checkpoints ``<model>.safetensors`` …; the hub by default.
    device : str
        auto, cpu, mps, cuda or cuda:N.
    batch_size : int
        Images in a forward pass; halved for a model for which memory is too small.
    dtype : {"float32", "bfloat16", "float16"}
        16-bit types by autocast; float32 is exact (no TF32). Features are kept in float32.
    token_pooling : {"mean", "cls", "flatten"}
        See `realign_utils.models.penultimate`.
    interpolation : str
        Of the resize; ``"timm"`` takes each model's own.

    Returns
    -------
    Extraction
        In the order of the image sets, then of the registry.

    Raises
    ------
    UserError
        If a setting is not allowed, or the store cannot be written (what was computed stays).
    """
    settings = _Settings(
        Path(store),
        weights_dir,
        _device(device),
        batch_size,
        dtype,
        token_pooling,
        interpolation,
    )
    pixels = _Pixels(image_sets, registry, settings)
    rows = [row for _, row in registry.iterrows()]
    prepared = one_ahead(lambda row: _prepare(row, image_sets, pixels, settings), rows)
    index, failures = [], []
    with _exact_float32(), closing(prepared) as jobs:
        for job in track(jobs, "features", total=len(rows)):
            for name in list(job.ingredients):
                _compute(job, name, len(image_sets[name]), settings)
            job.module = None  # before the model after the next is built
            torch.cuda.empty_cache()
            index += job.index
            failures += job.failures
    sets, models = list(image_sets), list(registry.index)
    tables = pd.DataFrame(index, columns=INDEX), pd.DataFrame(failures, columns=FAILURES)
    return Extraction(*(_ordered(table, sets, models) for table in tables))


def _ordered(table: pd.DataFrame, sets: list[str], models: list[str]) -> pd.DataFrame:
    order = table["images"].map(sets.index) * len(models) + table["model"].map(models.index)
    return table.loc[order.sort_values().index].reset_index(drop=True)


def name_of_device(device: str) -> str:
    """What a device is called: ``cpu``, or the name of the GPU."""
    found = _device(device)
    return torch.cuda.get_device_name(found) if found.type == "cuda" else found.type


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device {name!r} is not available: {reason}; allowed: auto, cpu"
        ) from error


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Full float32 in products and convolutions, by algorithms that repeat to the bit."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class _Pixels:
    """The image sets under each preprocessing, opened once."""

    def __init__(
        self, image_sets: Mapping[str, Any], registry: pd.DataFrame, settings: _Settings
    ) -> None:
        self.image_sets, self.settings = image_sets, settings
        self.uses = Counter(_preprocessing(row, settings) for _, row in registry.iterrows())
        self.opened: dict[tuple[str, Preprocessing], ReadPixels] = {}

    def open(self, name: str, row: pd.Series) -> ReadPixels:
        preprocessing = _preprocessing(row, self.settings)
        place = (name, preprocessing)
        if place not in self.opened:
            shared = self.uses[preprocessing] > 1
            images, store = self.image_sets[name], self.settings.store
            self.opened[place] = open_pixels(images, preprocessing, store, keep=shared)
        return self.opened[place]


def _prepare(
    row: pd.Series, image_sets: Mapping[str, Any], pixels: _Pixels, settings: _Settings
) -> _Job:
    """Find out what is still to compute for a model, and build it only if there is something."""
    job = _Job(row, settings.batch_size, {name: {} for name in image_sets})
    stage = "weights"
    try:
        online = not settings.offline.is_set()
        weights = find_weights(row, weights_dir=settings.weights_dir, online=online)
        stage = "key"
        for name, images in image_sets.items():
            job.ingredients[name] = _ingredients(row, weights.sha256, images, settings)
        files = {name: settings.store / _file(job.ingredients[name]) for name in image_sets}
        for name, path in files.items():
            started = time.perf_counter()
            features = _read_whole(path)
            if features is not None:
                job.keep(name, features.shape, started, cached=True)
            elif path.exists():
                log = logging.getLogger(__name__)
                log.warning("%s is damaged: computing the features of %s again", path, row.name)
        if job.ingredients:
            stage = "build"
            job.module = load(row, weights)
            stage = "layer"
            find_layer(job.module, row["layer"])
    except Exception as error:
        if isinstance(error, NoNetwork):
            settings.offline.set()  # each further attempt would take half a minute
        job.fail(job.ingredients, stage, error)
    for name in list(job.ingredients):
        try:
            job.pixels[name] = pixels.open(name, row)
        except UnreadableImage as error:
            job.fail([name], "images", error)
    return job


def _preprocessing(row: pd.Series, settings: _Settings) -> Preprocessing:
    chosen = settings.interpolation
    chosen = interpolation_of(row) if chosen == "timm" else chosen
    return Preprocessing(int(row["resize"]), int(row["crop"]), chosen)


def _ingredients(
    row: pd.Series, weights_sha256: str, images: Any, settings: _Settings
) -> dict[str, Any]:
    """All that a feature matrix is made of."""
    architecture, arguments = architecture_of(row)
    preprocessing = _preprocessing(row, settings)
    exact = settings.dtype == "float32"
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
        "autocast": "none" if exact else settings.device.type,  # its operations differ by device
        "images": images.content_hash,
        "pillow": PIL.__version__,
        "timm": timm.__version__,
        "torch": torch.__version__.partition("+")[0],  # without the build for a device
    }


def _file(ingredients: Mapping[str, Any]) -> str:
    key = key_of(ingredients)
    return f"features/{key[:2]}/{key}.safetensors"


def _compute(job: _Job, name: str, number: int, settings: _Settings) -> None:
    """Compute and write a model's features on one image set, or note why it failed."""
    started, stage = time.perf_counter(), "forward"
    try:
        features = _forward(job, job.pixels[name], number, settings)
        stage = "features"
        _check(features)
    except Exception as error:
        known = {UnreadableImage: "images", UserError: "layer"}
        return job.fail([name], known.get(type(error), stage), error)
    ingredients = job.ingredients[name]
    _write(settings.store / _file(ingredients), features, ingredients, settings.device)
    return job.keep(name, features.shape, started, cached=False)


def _forward(job: _Job, read: ReadPixels, number: int, settings: _Settings) -> np.ndarray:
    """Features (number, d) of all images, the next images read while these are computed."""
    module = job.module.to(settings.device)

    def chunk(start: int) -> tuple[int, torch.Tensor]:
        pixels = torch.from_numpy(read(start, min(start + settings.batch_size, number)))
        return start, pixels.pin_memory() if settings.device.type == "cuda" else pixels

    features = None
    for start, pixels in one_ahead(chunk, range(0, number, settings.batch_size)):
        done = 0
        while done < len(pixels):
            part = _attempt(job, module, pixels[done : done + job.batch_size], settings)
            if part is None:
                job.batch_size //= 2
                continue
            if features is None:
                features = np.empty((number, part.shape[1]), np.float32)
            features[start + done : start + done + len(part)] = part
            done += len(part)
    return features


def _attempt(
    job: _Job, module: nn.Module, pixels: torch.Tensor, settings: _Settings
) -> np.ndarray | None:
    """Features of one batch, None if memory is too small for it and one image is not the limit."""
    autocast = torch.autocast(
        settings.device.type,
        dtype=getattr(torch, settings.dtype),
        enabled=settings.dtype != "float32",
    )
    try:
        with torch.inference_mode(), autocast:
            images = normalise(pixels, job.row["mean"], job.row["std"], settings.device)
            pooling = settings.token_pooling
            features = penultimate(module, job.row["layer"], images, token_pooling=pooling)
            return features.cpu().numpy()
    except Exception as error:
        if not _out_of_memory(error):
            raise
        if job.batch_size == 1:
            raise MemoryError("one image alone is too much for the memory") from error
    gc.collect()
    torch.cuda.empty_cache()
    return None


def _out_of_memory(error: Exception) -> bool:
    text = str(error).lower()  # the CPU's allocator and cuDNN raise plain RuntimeErrors
    words = ("out of memory", "allocate memory", "alloc_failed")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        word in text for word in words
    )


def _check(features: np.ndarray) -> None:
    bad = int((~np.isfinite(features).all(axis=1)).sum())
    if bad:
        raise _BadFeatures(f"not finite for {bad} of {len(features)} images")
    if len(features) > 1 and (features == features[0]).all():
        raise _BadFeatures("the same for every image")


def _checksum(note: Mapping[str, Any], features: np.ndarray) -> str:
    shape = [features.dtype.str, *features.shape]
    digest = hashlib.sha256(json.dumps([note, shape], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(features).reshape(-1))
    return digest.hexdigest()


def _write(
    path: Path, features: np.ndarray, ingredients: Mapping[str, Any], device: torch.device
) -> None:
    note = {"ingredients": ingredients, "device": device.type}
    note["sha256"] = _checksum(note, features)
    # One entry only: safetensors writes several in an order that changes from run to run.
    metadata = {"realign": json.dumps(note, sort_keys=True)}
    data = safetensors.numpy.save({"features": features}, metadata)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def _read_whole(path: Path) -> np.ndarray | None:
    """The features in a file; None if there is none, or it is not as it was written."""
    if not path.exists():
        return None
    try:
        with safetensors.safe_open(path, "numpy") as file:
            note = json.loads(file.metadata()["realign"])
            features = file.get_tensor("features")
        promised = note.pop("sha256")
        whole = promised == _checksum(note, features) and key_of(note["ingredients"]) == path.stem
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return features if whole else None


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
        Shape (n, d), float32, a row an image in the order of the image set.

    Raises
    ------
    UserError
        If the file is missing, or its content is not what was written.
    """
    path = Path(store, file)
    features = _read_whole(path)
    if features is None:
        wrong = "is damaged" if path.exists() else "is missing"
        raise UserError(f"feature file {path} {wrong}: run 1_extract again")
    return features


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
