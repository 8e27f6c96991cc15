"""One model after another on one device: what is there already, what must be computed, what failed."""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pandas as pd
import torch

from realign_utils.errors import UserError
from realign_utils.feature_files import (
    UselessFeatures,
    file_of,
    ingredients_of,
    preprocessing_of,
    shape_of_features,
    write_features,
)
from realign_utils.forward import BatchSizes, ForwardPasses
from realign_utils.models import LayerOutput, load
from realign_utils.pixels import Preprocessing, ReadPixels, UnreadableImage, one_ahead, open_pixels
from realign_utils.settings import Settings, exact_float32
from realign_utils.weights import NoNetwork, Weights, find_weights, origin_of

INDEX = ["images", "model", "file", "n", "d", "seconds", "cached"]
FAILURES = ["images", "model", "stage", "reason"]


@dataclass
class Job:
    """One model: what is still to compute, by image set, and what came of the rest."""

    row: pd.Series
    weights: Weights | None = None
    stamp: tuple[int, ...] = ()  # of the checkpoint when it was hashed
    ingredients: dict[str, dict[str, Any]] = field(default_factory=dict)
    index: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def keep(self, images: str, shape: tuple[int, int], started: float, cached: bool) -> None:
        """Note that the features on an image set are there."""
        file = file_of(self.ingredients.pop(images))
        seconds = round(time.perf_counter() - started, 3)
        values = (images, self.row.name, file, *shape, seconds, cached)
        self.index.append(dict(zip(INDEX, values, strict=True)))

    def fail(self, images: Iterable[str], stage: str, error: Exception | str) -> None:
        """Note why there are no features on some image sets."""
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, (str, UserError, UnreadableImage, UselessFeatures)):
            reason = f"{type(error).__name__}: {reason}"
        for name in list(images):
            self.ingredients.pop(name, None)
            values = (name, self.row.name, stage, reason)
            self.failures.append(dict(zip(FAILURES, values, strict=True)))


Prepared = tuple[Job, LayerOutput | None, dict[str, ReadPixels]]
"""A model that is ready to compute, or has nothing to, and the pixels of its image sets."""


class Extractor:
    """What the models of an extraction share.

    Parameters
    ----------
    registry : pandas.DataFrame
        All models of the extraction, also those that are computed elsewhere.
    image_sets : mapping of str to ImageSet
        From `realign_utils.images`.
    settings : Settings
        Of all models.
    device : torch.device
        Where this process computes.
    """

    def __init__(
        self,
        registry: pd.DataFrame,
        image_sets: Mapping[str, Any],
        settings: Settings,
        device: torch.device,
    ) -> None:
        self.image_sets, self.settings, self.device = image_sets, settings, device
        self.batch_sizes = BatchSizes(settings, device)
        self._users = Counter(preprocessing_of(row, settings) for _, row in registry.iterrows())
        self._opened: dict[tuple[str, Preprocessing], ReadPixels] = {}
        self._opening: defaultdict[tuple[str, Preprocessing], Lock] = defaultdict(Lock)
        self._silences: Counter[str] = Counter()  # by host: questions in vain

    def extract(self, rows: Iterable[pd.Series]) -> Iterator[Job]:
        """Extract model after model, the next one loaded while this one computes."""
        return self.run(one_ahead(lambda row: self.prepare(self.look_up(row)), rows))

    def compute(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Compute what `look_up` found to be missing, the next model loaded meanwhile."""
        return self.run(one_ahead(self.prepare, jobs))

    def look_up(self, row: pd.Series) -> Job:
        """Find a model's weights, and what of its features is there already."""
        job, stage = Job(row), "weights"
        try:
            job.weights = self._find_weights(row)
            job.stamp = _stamp(job.weights)
            stage = "key"
            for name, images in self.image_sets.items():
                job.ingredients[name] = ingredients_of(
                    row, job.weights.sha256, images, self.device, self.settings
                )
            self._keep_what_is_there(job)
        except Exception as error:
            kept = {entry["images"] for entry in job.index}
            job.fail([name for name in self.image_sets if name not in kept], stage, error)
        return job

    def _find_weights(self, row: pd.Series) -> Weights:
        folder = self.settings.weights_dir
        host = "" if folder else origin_of(row).host
        try:
            # Each attempt takes half a minute; one in vain may be an accident, two are not.
            return find_weights(row, weights_dir=folder, online=self._silences[host] < 2)
        except NoNetwork:
            self._silences[host] += 1
            raise

    def _keep_what_is_there(self, job: Job) -> None:
        for name in list(job.ingredients):
            started, file = time.perf_counter(), file_of(job.ingredients[name])
            shape = shape_of_features(self.settings.store, file)
            path = self.settings.store / file
            if shape is not None:
                job.keep(name, shape, started, cached=True)
            elif path.exists():
                log = logging.getLogger(__name__)
                log.warning("%s is damaged: computing the features of %s again", path, job.row.name)

    def open_pixels(self, job: Job) -> dict[str, ReadPixels]:
        """The pixels of the image sets that a model has still to see, from any thread.

        A file of them is made where other models of the extraction need the same.
        """
        preprocessing, opened = preprocessing_of(job.row, self.settings), {}
        for name in list(job.ingredients):
            place, images = (name, preprocessing), self.image_sets[name]
            try:
                with self._opening[place]:
                    if place not in self._opened:
                        shared = self._users[preprocessing] > 1
                        read = open_pixels(images, preprocessing, self.settings.store, shared)
                        self._opened[place] = read
                opened[name] = self._opened[place]
            except UnreadableImage as error:
                job.fail([name], "images", error)
        return opened

    def prepare(self, job: Job) -> Prepared:
        """Build the model, if there is something to compute, and open the pixels."""
        model, stage = None, "build"
        try:
            if job.ingredients:
                module = load(job.row, job.weights)
                if _stamp(job.weights) != job.stamp:  # then its hash may be another's
                    raise UserError(f"{job.weights.path} has changed meanwhile: run again")
                stage = "layer"
                model = LayerOutput(module, job.row["layer"])
        except Exception as error:
            job.fail(job.ingredients, stage, error)
        return job, model, self.open_pixels(job)

    def run(self, prepared: Iterator[Prepared]) -> Iterator[Job]:
        """Compute what is missing of prepared models."""
        cuda = self.device.type == "cuda"
        here = torch.cuda.device(self.device) if cuda else nullcontext()
        with exact_float32(), here, closing(prepared):
            for job, model, pixels in prepared:
                self._clean_up()  # the model before is out of use only now
                if model is not None:
                    with model:
                        self._compute(job, model, pixels)
                del model
                yield job
            self._clean_up()

    def _clean_up(self) -> None:
        if self.settings.compile:
            torch.compiler.reset()  # what is compiled holds the model, and counts to a limit
            gc.collect()
        torch.cuda.empty_cache()

    def _compute(self, job: Job, model: LayerOutput, pixels: Mapping[str, ReadPixels]) -> None:
        """Compute and write a model's features on the image sets, or note why it failed."""
        name, crop = str(job.row.name), int(job.row["crop"])
        size = self.batch_sizes.of(name, crop)
        normalisation = job.row["mean"], job.row["std"]
        try:
            passes = ForwardPasses(model, *normalisation, self.device, self.settings, size)
        except Exception as error:
            _raise_if_lost(error)
            return job.fail(job.ingredients, "forward", error)
        for images in list(job.ingredients):
            self._compute_one(job, images, passes, pixels[images])
        if not job.failures:
            self.batch_sizes.remember(name, crop, passes.batch_size)
        return None

    def _compute_one(self, job: Job, name: str, passes: ForwardPasses, read: ReadPixels) -> None:
        started, number = time.perf_counter(), len(self.image_sets[name])
        parts = _told_apart(passes.features(read, number))
        store, kind = self.settings.store, self.device.type
        try:
            shape = write_features(store, job.ingredients[name], number, parts, kind)
        except _ForwardFailed as failed:
            known = {UnreadableImage: "images", UserError: "layer"}
            error = failed.__cause__
            _raise_if_lost(error)
            job.fail([name], known.get(type(error), "forward"), error)
        except UselessFeatures as error:
            job.fail([name], "features", error)
        else:
            job.keep(name, shape, started, cached=False)


class DeviceLost(UserError):
    """The device failed, not the model: nothing more can be computed by this process."""


def _raise_if_lost(error: BaseException) -> None:
    lost = isinstance(error, torch.AcceleratorError)
    if lost and not isinstance(error, torch.OutOfMemoryError):
        reason = str(error).splitlines()[0]
        raise DeviceLost(f"the device failed ({reason}): run again, what was done stays") from error


def _stamp(weights: Weights) -> tuple[int, ...]:
    """What changes when a file is written or replaced."""
    state = weights.path.stat()
    return state.st_mtime_ns, state.st_size, state.st_ino


class _ForwardFailed(Exception):
    """What a forward pass raised is its cause: not to be taken for a failure to write."""


def _told_apart(parts: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from parts
    except Exception as error:
        raise _ForwardFailed from error
