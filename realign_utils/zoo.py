"""The demo's models: small timm networks, trained here on patches of photographs.

Each model is a pure function of its row in `params/zoo.csv`, the images and the recipe: it is
trained in one thread, on its own random numbers, so that a second run gives the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch

from realign_utils import training
from realign_utils.architectures import architecture_of, interpolation_of
from realign_utils.errors import UserError
from realign_utils.images import ImageSet, load_images, sample
from realign_utils.progress import track
from realign_utils.store import key_of, sha256_of_file, write_atomically, write_text

VALIDATION_SHARE = 6
"""Accuracy is measured on a sixth as many patches as train, from cells of their own."""


def train(
    table: pd.DataFrame,
    source: Mapping[str, Any],
    *,
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    minimum_accuracy: float = 0.6,
    epochs: int | None = None,
    processes: int | None = None,
) -> pd.DataFrame:
    """Train the zoo, or take from the store what was trained before.

    Writes ``weights/<model>.safetensors`` and ``registry.csv`` (the models kept, in the schema of
    `realign_utils.registry`, with their accuracy), and ``dropped.csv`` (the others, and why).

    Parameters
    ----------
    table : pandas.DataFrame
        As `realign_utils.registry.read_registry` gives it, with the further columns ``epochs``,
        ``learning_rate`` (the peak), ``seed`` and ``channels_last`` (1 where the network's code
        works on that memory layout, which is the faster one for convolutions on a CPU).
    source : mapping
        The training images: of kind ``patches``, split ``train``. Accuracy is measured on patches
        of the split ``validation``, which nothing else uses.
    store : path
        Folder of results by key, shared by all profiles.
    out : path
        Folder of this profile's zoo.
    minimum_accuracy : float
        Models below it are dropped.
    epochs : int, optional
        For every model, instead of the table's.
    processes : int, optional
        How many models are trained at once, each in one thread; by default one a core.

    Returns
    -------
    pandas.DataFrame
        Indexed by model, in the order of the table: ``accuracy`` (fraction), ``seconds`` (of one
        processor), ``cached``, ``kept``, and ``reason`` where it was not kept. A failed training
        is a row too.

    Raises
    ------
    UserError
        If no model is kept, or a folder cannot be written.
    """
    count = max(source["number"] // VALIDATION_SHARE, 1)
    sets = [
        _shuffled(source, "training"),
        _shuffled({**source, "split": "validation", "number": count}, "validation"),
    ]
    classes = sorted(set(sets[0].labels))
    rows = [_complete(row, len(classes), epochs) for _, row in table.iterrows()]
    files = {row.name: _weights_file(Path(store), row, sets) for row in rows}
    records = {name: found for name, file in files.items() if (found := _recorded(file))}
    cached = set(records)
    tasks = [training.Task(row, files[row.name]) for row in rows if row.name not in cached]
    # the longest first, so that no core waits for one that was begun last
    tasks.sort(key=lambda task: -task.row["epochs"] * task.row["params_m"])
    lessons = [_lesson(images, classes) for images in sets]
    processes = min(processes or _cores(), max(len(tasks), 1))
    ended = training.train_each(tasks, *lessons, processes, Path(store) / "zoo")
    shown = track(ended, "training the zoo", len(tasks), together=processes)
    for name, record in shown if tasks else ():
        records[name] = record
    results = _results(rows, records, cached, minimum_accuracy)
    _publish(rows, results, files, Path(out))
    return results


def _shuffled(source: Mapping[str, Any], name: str) -> ImageSet:
    """The patches, in random order within their classes."""
    images = load_images(source, name=name)
    order = sample(images.identifiers, images.labels, None, source.get("seed", 0), name)
    return load_images(source, name=name, identifiers=[images.identifiers[i] for i in order])


def _lesson(images: ImageSet, classes: list[str]) -> training.Lesson:
    pixels = np.stack([np.asarray(images.read(index)) for index in range(len(images))])
    return training.Lesson(pixels, np.array([classes.index(label) for label in images.labels]))


def _complete(row: pd.Series, classes: int, epochs: int | None) -> pd.Series:
    """A row with all that its training depends on."""
    completed = row.copy()
    completed["arguments"] = {**architecture_of(row)[1], "num_classes": classes}
    completed["epochs"] = int(epochs or row["epochs"])
    return completed


def _key(row: pd.Series, sets: Iterable[ImageSet]) -> str:
    names = ["architecture", "arguments", "resize", "crop", "mean", "std"]
    names += ["epochs", "learning_rate", "seed", "channels_last"]
    ingredients = {name: np.asarray(row[name]).tolist() for name in names}
    ingredients |= {
        "interpolation": interpolation_of(row),
        "images": [[images.content_hash, *images.labels] for images in sets],
        "recipe": training.RECIPE,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
    return key_of(ingredients)


def _weights_file(store: Path, row: pd.Series, sets: Iterable[ImageSet]) -> Path:
    key = _key(row, sets)
    return store / "zoo" / key[:2] / f"{key}.safetensors"


def _recorded(weights: Path) -> dict[str, Any] | None:
    """The record of a finished training, if it and the weights are whole."""
    try:
        record = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        return record if sha256_of_file(weights) == record["weights_sha256"] else None
    except (OSError, ValueError, KeyError):
        return None


def _cores() -> int:
    """Cores that this process may use, which in a batch job are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _results(
    rows: list[pd.Series], records: Mapping[str, Mapping[str, Any]], cached: set[str], least: float
) -> pd.DataFrame:
    lines = []
    for row in rows:
        record = records[row.name]
        accuracy = record.get("accuracy", np.nan)
        reason = record.get("reason", "" if accuracy >= least else f"accuracy below {least}")
        lines.append(
            {
                "model": row.name,
                "accuracy": accuracy,
                "seconds": record.get("seconds", np.nan),
                "cached": row.name in cached,
                "kept": not reason,
                "reason": reason,
            }
        )
    return pd.DataFrame(lines).set_index("model")


def _publish(
    rows: list[pd.Series], results: pd.DataFrame, files: Mapping[str, Path], out: Path
) -> None:
    """Put the kept models' weights and the two tables into the profile's folder."""
    dropped = results.loc[~results["kept"], ["accuracy", "reason"]]
    write_text(out / "dropped.csv", dropped.to_csv())
    kept = [row for row in rows if results.loc[row.name, "kept"]]
    if not kept:
        raise UserError(f"no model of the zoo was kept: see {out / 'dropped.csv'}")
    for row in kept:
        target, trained = out / "weights" / f"{row.name}.safetensors", files[row.name]
        if not target.is_file() or sha256_of_file(target) != sha256_of_file(trained):
            write_atomically(target, lambda temporary, of=trained: shutil.copyfile(of, temporary))
    registry = pd.DataFrame(kept).rename_axis("model")
    registry["accuracy"] = results["accuracy"]
    registry["arguments"] = registry["arguments"].map(json.dumps)
    for column in ("mean", "std"):
        registry[column] = registry[column].map(lambda three: " ".join(map(str, three)))
    write_text(out / "registry.csv", registry.to_csv())
