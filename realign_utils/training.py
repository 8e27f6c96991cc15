"""Training of small networks, each in one thread of a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from realign_utils.architectures import architecture_of, interpolation_of
from realign_utils.pixels import Preprocessing, normalise
from realign_utils.store import sha256_of_file, write_atomically, write_json

RECIPE = {"optimiser": "AdamW", "weight_decay": 0.05, "batch": 64, "warm_up": 0.25, "flip": 0.5}
"""What all models have in common: AdamW under a one-cycle schedule, and mirrored patches."""


@dataclass(frozen=True)
class Lesson:
    """Images with classes: uint8 (n, side, side, 3) and int64 (n,)."""

    pixels: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Task:
    """A model to train: a row of the zoo's table, and the file that its weights go to."""

    row: pd.Series
    weights: Path


def train_each(
    tasks: list[Task], training: Lesson, validation: Lesson, processes: int, folder: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Train models in processes of their own.

    Beside each file of weights, a JSON file of the same name records the training.

    Parameters
    ----------
    tasks : list of Task
        In the order in which they are begun.
    training, validation : Lesson
        What the models learn from, and what their accuracy is measured on.
    processes : int
        How many train at once.
    folder : Path
        Where the processes find the lessons, until all is done.

    Yields
    ------
    str, dict
        The model, in the order in which they end, and its record: ``accuracy`` (fraction),
        ``seconds`` (of one processor), ``weights_sha256``; or ``reason``, if its training failed.
    """
    # Named as what a killed run leaves, which a later one sweeps.
    lessons = [folder / f".{uuid.uuid4().hex}.tmp.npz" for _ in range(2)]
    try:
        for path, lesson in zip(lessons, (training, validation), strict=True):
            write_atomically(path, partial(_save, lesson))
        yield from _train_each(tasks, lessons, processes)
    finally:
        for path in lessons:
            path.unlink(missing_ok=True)


def _save(lesson: Lesson, path: Path) -> None:
    np.savez(path, pixels=lesson.pixels, targets=lesson.targets)


def _train_each(
    tasks: list[Task], lessons: list[Path], processes: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    unfinished = {task.row.name: task for task in tasks}
    with ProcessPoolExecutor(
        min(processes, len(tasks) or 1),
        mp_context=multiprocessing.get_context("spawn"),  # a forked torch may hang
        initializer=_prepare,
        # Files, not their content: a process must have read that before the next is started.
        initargs=lessons,
    ) as pool:
        futures: dict[Future, str] = {}
        try:
            # a killed process ends the whole pool: which task killed it, is found out below
            with suppress(BrokenProcessPool):
                for task in tasks:
                    futures[pool.submit(_train, task)] = task.row.name
            for future in as_completed(futures):
                with suppress(BrokenProcessPool):
                    yield futures[future], _outcome(future)
                    del unfinished[futures[future]]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # when interrupted, begin no other
    if len(tasks) == 1 and unfinished:
        yield tasks[0].row.name, {"reason": "training failed: its process was killed (memory?)"}
    else:
        for task in unfinished.values():
            yield from _train_each([task], lessons, 1)


def _outcome(future: Future) -> dict[str, Any]:
    try:
        return future.result()
    except BrokenProcessPool:
        raise
    except Exception as error:  # whatever timm and torch raise
        reason = " ".join(str(error).split())
        return {"reason": f"training failed: {type(error).__name__}: {reason}"}


def _prepare(*lessons: Path) -> None:
    """Make a new process ready: one thread, the images at hand, and an end with its parent's."""
    torch.set_num_threads(1)  # more threads than cores was seen 30 times slower
    global _lessons  # what a process was sent once, it can only keep so
    _lessons = [Lesson(**np.load(lesson, allow_pickle=False)) for lesson in lessons]
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _train(task: Task) -> dict[str, Any]:
    """Train one model, save it, and return its record: in a process prepared for it."""
    row, started = task.row, time.process_time()
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
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    write_atomically(task.weights, lambda temporary: save_file(state, temporary))
    record["weights_sha256"] = sha256_of_file(task.weights)
    write_json(task.weights.with_suffix(".json"), record)
    return record


def _preprocessed(row: pd.Series, lesson: Lesson) -> tuple[torch.Tensor, torch.Tensor]:
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
