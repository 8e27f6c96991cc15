"""Extraction on a Dask cluster: a task each model, the largest first; a lost worker's are done again.

Features come back through the store, which must be a folder that all machines share.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, nullcontext
from importlib.metadata import version
from threading import Lock
from typing import Any

import pandas as pd
import torch

from realign_utils.errors import UserError
from realign_utils.extraction import DeviceLost, Extractor, Job
from realign_utils.feature_files import FORMAT
from realign_utils.settings import Settings, devices_of, threads_each
from realign_utils.workers import largest_first

PACKAGES = ("realign-utils", "torch", "torchvision", "timm", "pillow")
"""What must be of one version on all machines, since features depend on it."""

ANSWER = 10.0
"""Seconds in which a scheduler must answer."""

PATIENCE = 60.0
"""Seconds to wait for a worker, or for a file to become visible on a network file system."""


def extract_on_cluster(
    registry: pd.DataFrame, image_sets: Mapping[str, Any], settings: Settings, address: str
) -> Iterator[Job]:
    """Extract all models on the workers of a Dask cluster.

    A worker computes one model at a time; with two threads it loads the next one meanwhile.

    Parameters
    ----------
    registry : pandas.DataFrame
        A row a model.
    image_sets : mapping of str to ImageSet
        Sent to each worker once; they must be picklable.
    settings : Settings
        Of all models; `device` is meant on each worker.
    address : str
        Of the scheduler, e.g. ``tcp://scheduler:8786``; ``local:N`` starts N workers here.

    Yields
    ------
    Job
        A model that is done, in the order in which they end.

    Raises
    ------
    UserError
        If `distributed` is not installed, no scheduler answers, it has no workers, a worker has
        other versions or another file system, or the store cannot be written.
    """
    with _client(address) as (client, local):
        given = (registry, image_sets, settings, _versions(), local)
        # A task, not data: it can be made again when all workers that have it are lost.
        shared = client.submit(Shared, *given, pure=False)
        rows = {}
        for place, row in enumerate(largest_first(registry)):
            future = client.submit(_extract, shared, row, pure=False, priority=-place)
            rows[future.key] = (future, row)
        yield from _results(client, rows, list(image_sets), settings)


def _results(
    client: Any, rows: dict[str, tuple[Any, pd.Series]], sets: list[str], settings: Settings
) -> Iterator[Job]:
    from distributed.scheduler import KilledWorker

    pending = {future for future, _ in rows.values()}
    while pending:
        done, pending = _some(client, pending)
        for future in done:
            error = future.exception()
            if isinstance(error, KilledWorker):
                job = Job(rows[future.key][1])
                job.fail(sets, "worker", "several workers died with it in hand; too little memory?")
            elif error is not None:
                raise error
            else:
                job = future.result()
                _await_files(job, settings)
            yield job


def _some(client: Any, pending: set[Any]) -> tuple[set[Any], set[Any]]:
    """What is done and what is not, as soon as something is; as long as there are workers."""
    import distributed

    while True:
        try:
            return distributed.wait(pending, timeout=PATIENCE, return_when="FIRST_COMPLETED")
        except (CancelledError, distributed.CancelledError) as error:
            raise UserError("the scheduler is lost: run again, what was done stays") from error
        except (TimeoutError, distributed.TimeoutError) as error:
            if not client.nthreads():
                lost = "the cluster has no workers any more: run again, what was done stays"
                raise UserError(lost) from error


def _await_files(job: Job, settings: Settings) -> None:
    """Wait until this machine sees what a worker wrote."""
    last = time.monotonic() + PATIENCE
    for entry in job.index:
        path = settings.store / entry["file"]
        while not path.is_file():
            if time.monotonic() > last:
                raise UserError(
                    f"a worker wrote {path}, which is not to be seen here: "
                    "store must be a folder that all machines share"
                )
            time.sleep(0.5)


@contextmanager
def _client(address: str) -> Iterator[tuple[Any, int]]:
    """A client of the cluster, and the number of workers where it is one of this machine only."""
    try:
        import distributed
    except ImportError as error:
        raise UserError(
            f"cluster {address!r} needs the package distributed: pip install 'realign-utils[cluster]'"
        ) from error
    local = re.fullmatch(r"local:(\d+)", address)
    number = int(local[1]) if local else 0
    if local:
        options = {"n_workers": number, "threads_per_worker": 2, "dashboard_address": None}
        # Without a limit of memory: it would be an equal share, and models are not equal.
        cluster = distributed.LocalCluster(processes=True, memory_limit=None, **options)
    with closing(cluster) if local else nullcontext():
        try:
            client = distributed.Client(cluster if local else address, timeout=ANSWER)
        except (OSError, TimeoutError, ValueError) as error:
            raise UserError(f"cluster {address!r}: no scheduler answers there") from error
        with client:
            try:
                client.wait_for_workers(1, timeout=PATIENCE)
            except TimeoutError as error:
                raise UserError(f"cluster {address!r} has no workers: start some") from error
            yield client, number


def _versions() -> dict[str, str]:
    found = {name: version(name).partition("+")[0] for name in PACKAGES}
    return {**found, "feature format": str(FORMAT)}


class Shared:
    """What all tasks of an extraction share on a worker; the engine is made when first needed.

    Parameters
    ----------
    registry, image_sets, settings
        As for `extract_on_cluster`.
    versions : mapping of str to str
        Of the packages, on the machine that asks.
    local : int
        Number of workers on this machine; 0 where others started them.
    """

    def __init__(
        self,
        registry: pd.DataFrame,
        image_sets: Mapping[str, Any],
        settings: Settings,
        versions: Mapping[str, str],
        local: int,
    ) -> None:
        self.given = registry, image_sets, settings, versions, local
        self.extractor: Extractor | None = None
        self.making, self.computing = Lock(), Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Shared, self.given

    def extract(self, row: pd.Series) -> Job:
        """Extract a model; while another computes, this one is loaded."""
        with self.making:
            self.extractor = self.extractor or self._make()
        prepared = self.extractor.prepare(self.extractor.look_up(row))
        with self.computing:
            [job] = self.extractor.run(ready for ready in [prepared])
            return job

    def _make(self) -> Extractor:
        from distributed import get_worker

        registry, image_sets, settings, versions, local = self.given
        worker, here = get_worker(), _versions()
        for name, wanted in versions.items():
            if here[name] != wanted:
                raise UserError(f"worker {worker.address} has {name} {here[name]}, not {wanted}")
        devices = devices_of(settings.device)
        if local:
            torch.set_num_threads(threads_each(local))
        place = worker.name if local and isinstance(worker.name, int) else 0
        device = devices[place % len(devices)]
        return Extractor(registry, image_sets, settings, device)


def _extract(shared: Shared, row: pd.Series) -> Job:
    try:
        return shared.extract(row)
    except DeviceLost:
        os._exit(1)  # the model is done again, elsewhere or by this worker started anew
