"""Features of every model on every image set: computed once, kept under what made them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from realign_utils.errors import UserError
from realign_utils.extraction import FAILURES, INDEX, Extractor, Job
from realign_utils.feature_files import images_of, read_features
from realign_utils.progress import track
from realign_utils.settings import Settings, devices_of, name_of_device
from realign_utils.store import sweep

__all__ = [
    "Extraction",
    "extract",
    "images_of",
    "name_of_device",
    "read_features",
    "require_two_models",
]


@dataclass(frozen=True)
class Extraction:
    """What an extraction left.

    Parameters
    ----------
    index : pandas.DataFrame
        A row a feature file: images, model, file (relative to the store), n, d, seconds (that
        this run spent on it), cached (whether an earlier run had computed it).
    failures : pandas.DataFrame
        A row a failure: images, model, stage (weights, key, build, layer, images, forward,
        features or worker), reason (one line).
    """

    index: pd.DataFrame
    failures: pd.DataFrame


def extract(
    registry: pd.DataFrame,
    image_sets: Mapping[str, Any],
    *,
    store: str | os.PathLike[str],
    weights_dir: str | os.PathLike[str] | None = None,
    device: str = "auto",
    cluster: str | None = None,
    batch_size: int = 64,
    dtype: str = "float32",
    channels_last: bool = False,
    compile: bool = False,
    token_pooling: str = "mean",
    interpolation: str = "timm",
) -> Extraction:
    """Compute the penultimate features of all models on all image sets.

    Each feature matrix becomes a file of the store, named by all that it was made of; what an
    earlier run left there is verified and not computed again. The batch size is no ingredient,
    nor is the device in plain float32: they change nothing beyond rounding. A model that fails is
    a row of `failures`, and the others go on.

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
        auto (all visible GPUs, else the CPU), cpu, mps, cuda, cuda:N, or several, separated by
        commas: one process each, the largest model first.
    cluster : str, optional
        Instead, a Dask cluster: the address of its scheduler, or ``local:N`` for N processes here.
    batch_size : int
        Images in a forward pass; halved for a model for which memory is too small. The size that
        worked is kept in the store.
    dtype : {"float32", "bfloat16", "float16"}
        16-bit types by autocast; float32 is exact (no TF32). Features are kept in float32.
    channels_last : bool
        Weights and images in the memory layout that tensor cores prefer.
    compile : bool
        Each model compiled by `torch.compile`, which takes a minute or so before it pays.
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
    settings = Settings(
        store,
        weights_dir,
        device,
        batch_size,
        dtype,
        channels_last,
        compile,
        token_pooling,
        interpolation,
    )
    devices = devices_of(device)
    sweep(settings.store)
    if cluster is not None:
        from realign_utils.cluster import extract_on_cluster  # the one use of an optional extra

        jobs = extract_on_cluster(registry, image_sets, settings, cluster)
    elif len(devices) > 1:
        from realign_utils.workers import extract_by_workers  # which starts from this module

        jobs = extract_by_workers(registry, image_sets, settings, devices)
    else:
        extractor = Extractor(registry, image_sets, settings, devices[0])
        jobs = extractor.extract(row for _, row in registry.iterrows())
    return _tables(track(jobs, "features", total=len(registry)), list(image_sets), registry)


def require_two_models(extraction: Extraction, failures: str | os.PathLike[str]) -> None:
    """Stop where fewer than two models have features on every set of images.

    Parameters
    ----------
    extraction : Extraction
    failures : path
        Where its failures are written, to be named.

    Raises
    ------
    UserError
        One line: how many are left of how many, and why the first of the others failed.
    """
    index, failed = extraction.index, extraction.failures.drop_duplicates("model")
    sets = pd.concat([index["images"], extraction.failures["images"]]).nunique()
    left = int((index.groupby("model")["images"].nunique() == sets).sum())
    if left > 1:
        return
    tried = len({*index["model"], *failed["model"]})
    named = [f"{row.model} ({row.stage}): {row.reason}" for row in failed[:3].itertuples()]
    named += [f"and {len(failed) - 3} more"] if len(failed) > 3 else []
    named += [f"all reasons: {failures}"] if named else []
    raise UserError(
        f"two models are needed to compare, but {left} of {tried} "
        f"{'has' if left == 1 else 'have'} features on all images; {'; '.join(named)}".rstrip("; ")
    )


def _tables(jobs: Iterable[Job], sets: list[str], registry: pd.DataFrame) -> Extraction:
    index, failures = [], []
    for job in jobs:
        index += job.index
        failures += job.failures
    models = list(registry.index)
    tables = pd.DataFrame(index, columns=INDEX), pd.DataFrame(failures, columns=FAILURES)
    return Extraction(*(_ordered(table, sets, models) for table in tables))


def _ordered(table: pd.DataFrame, sets: list[str], models: list[str]) -> pd.DataFrame:
    order = table["images"].map(sets.index) * len(models) + table["model"].map(models.index)
    return table.loc[order.sort_values().index].reset_index(drop=True)
