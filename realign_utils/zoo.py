"""The demo's models: small timm networks, trained here on patches of photographs.

Each model is a pure function of its row in `params/zoo.csv`, the images and `RECIPE`: it is
trained in one thread, on its own random numbers, so that a second run gives the same bytes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from realign_utils.errors import UserError
from realign_utils.images import ImageSet, load_images
from realign_utils.models import architecture_of, interpolation_of
from realign_utils.pixels import Preprocessing, normalise
from realign_utils.progress import track
from realign_utils.store import key_of, sha256_of_file, write_atomically, write_json, write_text

RECIPE = {"optimiser": "AdamW", "weight_decay": 0.05, "batch": 64, "warm_up": 0.25, "flip": 0.5}
"""What all models have in common: AdamW under a one-cycle schedule, and mirrored patches."""

VALIDATION_SHARE = 6
"""Accuracy is measured on a sixth as many patches as train, from cells of their own."""


@dataclass(frozen=True)
class _Lesson:
    """Patches with classes: uint8 (n, side, side, 3) and int64 (n,)."""

    pixels: np.ndarray
    targets: np.ndarray


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
        load_images(source, name="training"),
        load_images({**source, "split": "validation", "number": count}, name="validation"),
    ]
    classes = sorted(set(sets[0].labels))
    lessons = tuple(_lesson(images, classes) for images in sets)
    rows = [_complete(row, len(classes), epochs) for _, row in table.iterrows()]
    keys = {row.name: _key(row, sets) for row in rows}
    records = {
        name: record
        for name, key in keys.items()
        if (record := _recorded(Path(store), key)) is not None
    }
    cached = set(records)
    # the longest first, so that no core waits for one that was begun last
    tasks = sorted(
        ((row, Path(store), keys[row.name]) for row in rows if row.name not in cached),
        key=lambda task: -task[0]["epochs"] * task[0]["params_m"],
    )
    processes = processes or _cores()
    for name, record in track(_each(tasks, lessons, processes), "training the zoo", len(tasks)):
        records[name] = record
    results = _results(rows, records, cached, minimum_accuracy)
    _publish(rows, results, records, keys, Path(store), Path(out))
    return results


def _lesson(images: ImageSet, classes: list[str]) -> _Lesson:
    pixels = np.stack([np.asarray(images.read(index)) for index in range(len(images))])
    return _Lesson(pixels, np.array([classes.index(label) for label in images.labels]))


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
        "recipe": RECIPE,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
    return key_of(ingredients)


def _weights_file(store: Path, key: str) -> Path:
    return store / "zoo" / key[:2] / f"{key}.safetensors"


def _recorded(store: Path, key: str) -> dict[str, Any] | None:
    """The record of a finished training, if it and the weights are whole."""
    weights = _weights_file(store, key)
    try:
        record = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        return record if sha256_of_file(weights) == record["weights_sha256"] else None
    except (OSError, ValueError, KeyError):
        return None


def _each(
    tasks: list[tuple[pd.Series, Path, str]], lessons: tuple[_Lesson, ...], processes: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and record of each model as it is finished, from processes of their own."""
    unfinished = {task[0].name: task for task in tasks}
    with ProcessPoolExecutor(
        min(processes, len(tasks) or 1),
        mp_context=multiprocessing.get_context("spawn"),  # a forked torch may hang
        initializer=_prepare,
        initargs=(lessons,),
    ) as pool:
        futures: dict[Future, str] = {}
        # where a process is killed, all of the pool ends: whose fault it was, is found out below
        with suppress(BrokenProcessPool):
            for task in tasks:
                futures[pool.submit(_train_one, *task)] = task[0].name
        for future in as_completed(futures):
            with suppress(BrokenProcessPool):
                yield futures[future], _outcome(future)
                del unfinished[futures[future]]
    if len(tasks) == 1 and unfinished:
        yield tasks[0][0].name, {"reason": "training failed: its process was killed (memory?)"}
    else:
        for task in unfinished.values():
            yield from _each([task], lessons, 1)


def _outcome(future: Future) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:  # whatever timm and torch raise
        reason = " ".join(str(error).split())
        return {"reason": f"training failed: {type(error).__name__}: {reason}"}


def _cores() -> int:
    """Cores that this process may use, which in a batch job are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _prepare(lessons: tuple[_Lesson, ...]) -> None:
    """Make a new process ready: one thread, and the images at hand."""
    torch.set_num_threads(1)  # more threads than cores was seen 30 times slower
    global _lessons  # what a process was sent once, it can only keep so
    _lessons = lessons


def _train_one(row: pd.Series, store: Path, key: str) -> dict[str, Any]:
    """Train one model, save it, and return its record: in a process prepared for it."""
    started = time.process_time()
    training, validation = (_preprocessed(row, lesson) for lesson in _lessons)
    torch.manual_seed(int(row["seed"]))
    architecture, arguments = architecture_of(row)
    module = timm.create_model(architecture, pretrained=False, **arguments)
    _fit(module, row, *training)
    record = {
        "model": row.name,
        "accuracy": _accuracy(module, row, *validation),
        "seconds": round(time.process_time() - started, 2),
    }
    path = _weights_file(store, key)
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(state, temporary))
    record["weights_sha256"] = sha256_of_file(path)
    write_json(path.with_suffix(".json"), record)
    return record


def _preprocessed(row: pd.Series, lesson: _Lesson) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels as the extraction prepares them, uint8 (n, crop, crop, 3), and classes."""
    prepare = Preprocessing(int(row["resize"]), int(row["crop"]), interpolation_of(row))
    pixels = np.stack([prepare(Image.fromarray(image)) for image in lesson.pixels])
    return torch.from_numpy(pixels), torch.from_numpy(lesson.targets)


def _fit(
    module: torch.nn.Module, row: pd.Series, pixels: torch.Tensor, targets: torch.Tensor
) -> None:
    batch = min(RECIPE["batch"], len(pixels))
    batches = len(pixels) // batch
    optimiser = torch.optim.AdamW(module.parameters(), weight_decay=RECIPE["weight_decay"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=float(row["learning_rate"]),
        total_steps=row["epochs"] * batches,
        pct_start=RECIPE["warm_up"],
    )
    module.train()
    for _ in range(row["epochs"]):
        for chosen in torch.randperm(len(pixels))[: batches * batch].view(batches, batch):
            mirrored = torch.rand(batch).lt(RECIPE["flip"]).view(-1, 1, 1, 1)
            patches = torch.where(mirrored, pixels[chosen].flip(2), pixels[chosen])
            loss = cross_entropy(module(_input(patches, row)), targets[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    if not torch.isfinite(loss):
        raise ValueError("the loss is not finite")


def _accuracy(
    module: torch.nn.Module, row: pd.Series, pixels: torch.Tensor, targets: torch.Tensor
) -> float:
    module.eval()
    with torch.inference_mode():
        guesses = [module(_input(part, row)).argmax(1) for part in pixels.split(256)]
    return round(torch.cat(guesses).eq(targets).double().mean().item(), 4)


def _input(pixels: torch.Tensor, row: pd.Series) -> torch.Tensor:
    layout = torch.channels_last if row["channels_last"] else torch.contiguous_format
    return normalise(pixels, row["mean"], row["std"], "cpu").contiguous(memory_format=layout)


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
    rows: list[pd.Series],
    results: pd.DataFrame,
    records: Mapping[str, Mapping[str, Any]],
    keys: Mapping[str, str],
    store: Path,
    out: Path,
) -> None:
    """Put the kept models' weights and the two tables into the profile's folder."""
    dropped = results.loc[~results["kept"], ["accuracy", "reason"]]
    write_text(out / "dropped.csv", dropped.to_csv())
    kept = [row for row in rows if results.loc[row.name, "kept"]]
    if not kept:
        raise UserError(f"no model of the zoo was kept: see {out / 'dropped.csv'}")
    for row in kept:
        target = out / "weights" / f"{row.name}.safetensors"
        trained = _weights_file(store, keys[row.name])
        if not target.is_file() or sha256_of_file(target) != records[row.name]["weights_sha256"]:
            write_atomically(target, lambda temporary, of=trained: shutil.copyfile(of, temporary))
    registry = pd.DataFrame(kept).rename_axis("model")
    registry["accuracy"] = results["accuracy"]
    registry["arguments"] = registry["arguments"].map(json.dumps)
    for column in ("mean", "std"):
        registry[column] = registry[column].map(lambda three: " ".join(map(str, three)))
    write_text(out / "registry.csv", registry.to_csv())
