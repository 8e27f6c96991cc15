"""Extraction on several devices of one machine: a process each, the largest model first.

A thread of the parent serves each process: it looks up what is to be done, makes the pixels that
several models share, and hands out models ahead of time, so that one computes while the next is
loaded and the one after is looked up. What a killed process had in hand is done again, each model
alone, so that none suffers for another. Features come back through the store.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from threading import Condition, Event
from typing import Any

import pandas as pd
import torch

from realign_utils.errors import UserError
from realign_utils.extraction import DeviceLost, Extractor, Job
from realign_utils.settings import Settings, threads_each

AHEAD = 3
"""Models that a process has at a time: one computes, one is loaded, one waits to be."""

ATTEMPTS = 3
"""Processes that may die with a model in hand before the model is given up."""

DEVICE_LOST = 70
"""Exit code of a process whose device failed, which is no model's fault."""

GRACE = 5.0
"""Seconds in which a process that is to end can clean up."""


def largest_first(registry: pd.DataFrame) -> list[pd.Series]:
    """Rows of the registry, the model with the most parameters first."""
    if "params_m" in registry:
        registry = registry.sort_values("params_m", ascending=False, kind="stable")
    return [row for _, row in registry.iterrows()]


def extract_by_workers(
    registry: pd.DataFrame,
    image_sets: Mapping[str, Any],
    settings: Settings,
    devices: Sequence[torch.device],
) -> Iterator[Job]:
    """Extract all models, by a process for each device.

    Parameters
    ----------
    registry : pandas.DataFrame
        A row a model.
    image_sets : mapping of str to ImageSet
        Sent to each process once; they must be picklable.
    settings : Settings
        Of all models.
    devices : sequence of torch.device
        Of one kind. One may come several times.

    Yields
    ------
    Job
        A model that is done, in the order in which they end.

    Raises
    ------
    UserError
        If the store cannot be written.
    RuntimeError
        If a process ended by a fault of its program; the message holds its traceback.
    """
    work = _Work(registry, image_sets, settings, devices)
    with ThreadPoolExecutor(len(devices)) as pool:
        for place in range(len(devices)):
            pool.submit(work.serve, place)
        try:
            for _ in range(len(registry)):
                done = work.done.get()
                if isinstance(done, Exception):
                    raise done
                yield done
        finally:
            work.stop()


class _Work:
    """What is to be done, what is done, and the processes that do it."""

    def __init__(
        self,
        registry: pd.DataFrame,
        image_sets: Mapping[str, Any],
        settings: Settings,
        devices: Sequence[torch.device],
    ) -> None:
        self.given = registry, image_sets, settings
        self.devices = devices
        self.extractor = Extractor(registry, image_sets, settings, devices[0])
        self.rows = deque(largest_first(registry))
        self.deaths: Counter[str] = Counter()
        self.done: SimpleQueue[Job | Exception] = SimpleQueue()
        self.failed: set[int] = set()  # devices, by their place
        self.stopped = Event()
        self.processes: dict[int, _Worker] = {}
        self.serving, self.changed = 0, Condition()  # devices with a process, or starting one

    def serve(self, place: int) -> None:
        """Give one device work until none is left, or it has failed."""
        try:
            while place not in self.failed and self._begin():
                try:
                    self._serve_one_process(place)
                finally:
                    self._end()
            if len(self.failed) == len(self.devices):
                raise UserError("every device has failed: run again, what was done stays")
        except Exception as error:
            self.done.put(error)
            self.stop()

    def _begin(self) -> bool:
        """Wait for something to do: what another device has in hand may come back yet."""
        with self.changed:
            while not self.rows and self.serving and not self.stopped.is_set():
                self.changed.wait()
            begin = bool(self.rows) and not self.stopped.is_set()
            self.serving += begin
            return begin

    def _end(self) -> None:
        with self.changed:
            self.serving -= 1
            self.changed.notify_all()

    def _serve_one_process(self, place: int) -> None:
        """Start a process when there is something to compute, and serve it to its end."""
        in_hand: deque[Job] = deque()
        worker, more = None, True
        try:
            while more or in_hand:
                while more and len(in_hand) < AHEAD:
                    job = self._next(alone_too=not in_hand and not worker)
                    in_hand.extend([job] if job else [])
                    if job and worker is None:
                        worker = self._start(place)
                    if worker is not None:
                        worker.send(job)
                    more = job is not None
                    if more and self.deaths[str(job.row.name)]:  # alone: nothing comes after it
                        worker.send(None)
                        more = False
                if in_hand:
                    self.done.put(worker.receive())
                    in_hand.popleft()
                    worker.useful = True
        except _Lost:
            self._put_back(in_hand, worker, place)
        finally:
            if worker is not None:
                worker.end()

    def _start(self, place: int) -> _Worker:
        worker = self.processes[place] = _Worker(place, self.devices)
        if self.stopped.is_set():  # perhaps before this process was known
            worker.process.terminate()
            worker.end()
            raise _Lost
        try:
            worker.send((*self.given, worker.device, worker.threads))
            worker.receive()
        except _Lost:
            if self.stopped.is_set():
                raise
            how = worker.end()
            raise RuntimeError(f"a process of the extraction ended at its start, {how}") from None
        return worker

    def _next(self, *, alone_too: bool) -> Job | None:
        """The next model for which there is something to compute.

        One with which a process has died is to be alone in the next process.
        """
        while self.rows and not self.stopped.is_set():
            try:
                row = self.rows.popleft()
            except IndexError:  # another thread was quicker
                return None
            if self.deaths[str(row.name)] and not alone_too:
                self.rows.appendleft(row)
                return None
            job = self.extractor.look_up(row)
            if job.ingredients:
                self.extractor.open_pixels(job)  # once for all processes
            if job.ingredients:
                return job
            self.done.put(job)
        return None

    def _put_back(self, in_hand: deque[Job], worker: _Worker | None, place: int) -> None:
        if self.stopped.is_set():
            return
        how = worker.end()
        if worker.process.returncode == DEVICE_LOST and not worker.useful:
            self.failed.add(place)
        for job in in_hand:
            name = str(job.row.name)
            self.deaths[name] += worker.process.returncode != DEVICE_LOST
            if self.deaths[name] < ATTEMPTS:
                self.rows.append(job.row)
                continue
            left = self.extractor.look_up(job.row)  # some of it may have been done
            reason = f"{ATTEMPTS} processes died with it in hand, the last {how}"
            left.fail(left.ingredients, "worker", f"{reason}; too little memory?")
            self.done.put(left)

    def stop(self) -> None:
        """End all processes: what they have written stays."""
        self.stopped.set()
        with self.changed:
            self.changed.notify_all()
        for worker in list(self.processes.values()):
            worker.process.terminate()
        for worker in list(self.processes.values()):
            worker.end()


class _Lost(Exception):
    """The process at the other end is gone."""


class _Worker:
    """A process for one device, and the pipe to it."""

    def __init__(self, place: int, devices: Sequence[torch.device]) -> None:
        device, self.threads = devices[place], threads_each(len(devices))
        self.useful = False  # whether it has computed a model
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        if device.type == "cuda":  # it sees its own device only, and touches no other's memory
            environment["CUDA_VISIBLE_DEVICES"] = _visible(device.index or 0)
            device = torch.device("cuda", 0)
        else:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        self.pipe, theirs = Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "realign_utils.workers", str(theirs.fileno())],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self.device = str(device)

    def send(self, message: Any) -> None:
        try:
            self.pipe.send(message)
        except OSError as error:
            raise _Lost from error

    def receive(self) -> Job:
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise _Lost from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end(self) -> str:
        """Wait for the process to end, make it if it does not, and say how it did."""
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        code = self.process.wait()
        return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def _visible(index: int) -> str:
    """How the environment names a device that this process calls by its index."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index].strip() if visible else str(index)


def main(descriptor: str) -> None:
    """Compute what comes through the pipe, until None comes or the other end is gone."""
    pipe = Connection(int(descriptor))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files are deleted
    try:
        registry, image_sets, settings, device, threads = pipe.recv()
        torch.set_num_threads(threads)
        extractor = Extractor(registry, image_sets, settings, torch.device(device))
        pipe.send("ready")
        for job in extractor.compute(iter(pipe.recv, None)):
            pipe.send(job)
    except DeviceLost as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(DEVICE_LOST)  # at once: what the device has in hand would never end
    except UserError as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception:
        pipe.send(RuntimeError(f"a process of the extraction failed:\n{traceback.format_exc()}"))


if __name__ == "__main__":
    main(sys.argv[1])
