"""Progress with time left: a bar where a person looks on, one status file for the pipeline."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")

STATUS_VARIABLE = "REALIGN_STATUS"
"""Environment variable that names the file in which a running notebook tells its progress."""


def track(
    items: Iterable[Item], label: str, total: int | None = None, *, together: int = 0
) -> Iterator[Item]:
    """Iterate with a progress bar that shows the time left.

    Under the pipeline, which names a status file in the environment, no bar is drawn into the
    executed notebook; the pipeline reads the file and shows the progress itself.

    Parameters
    ----------
    items : iterable
        What to iterate over.
    label : str
        What is being done, e.g. ``"features on cifar100"``.
    total : int, optional
        Number of items where `items` has no length.
    together : int
        Processes that work at once and must start up first: the time until so many items are done
        tells nothing of the rest, and no time left is told before as many again are.

    Yields
    ------
    object
        The items, in order.
    """
    status = os.environ.get(STATUS_VARIABLE)
    if not status:
        yield from tqdm(items, desc=label, total=total, file=sys.stderr)
        return
    total = len(items) if total is None and hasattr(items, "__len__") else total
    started = time.monotonic()
    _tell(Path(status), label, 0, total, None)
    for done, item in enumerate(items, 1):
        yield item
        if done == together:
            started = time.monotonic()
        known = total and done >= max(2 * together, 1)
        each = (time.monotonic() - started) / (done - together) if known else 0
        _tell(Path(status), label, done, total, each * (total - done) if known else None)


def read_status(status: Path) -> str:
    """What a notebook last told of its progress, as one line; empty where there is none."""
    try:
        state = json.loads(status.read_text())
    except (OSError, ValueError):
        return ""
    of = f" of {state['total']}" if state["total"] else ""
    left = state["seconds_left"]
    time_left = f", {tqdm.format_interval(round(left))} left" if left else ""
    return f"{state['label']}: {state['done']}{of}{time_left}"


def _tell(status: Path, label: str, done: int, total: int | None, left: float | None) -> None:
    state = {"label": label, "done": done, "total": total, "seconds_left": left}
    temporary = status.with_suffix(".tmp")
    temporary.write_text(json.dumps(state))
    os.replace(temporary, status)
