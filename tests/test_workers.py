"""workers.py, cluster.py: many processes give the same files, whichever of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import distributed
import pandas as pd
import pytest
import torch
from small_models import (
    SMALL,
    BrokenImages,
    DeadlyImages,
    FakeImages,
    SlowImages,
    contents,
    save_weights,
    several,
)

from realign_utils import cluster as cluster_module
from realign_utils import workers as workers_module
from realign_utils.errors import UserError
from realign_utils.extraction import INDEX
from realign_utils.features import Extraction, extract
from realign_utils.settings import Settings, device_of_arithmetic, devices_of
from realign_utils.workers import largest_first

MODELS = several(5)
SPREAD = [
    {"device": "cpu,cpu"},
    pytest.param({"cluster": "local:2"}, marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_weights(MODELS, tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(workers_module, "threads_each", lambda _: 1)  # for equal bytes


def run(weights: Path, store: Path, images: FakeImages | None = None, **options) -> Extraction:
    sets = {"a": images or FakeImages(), "b": FakeImages(seed=1)}
    registry = options.pop("registry", MODELS)
    return extract(registry, sets, store=store, weights_dir=weights, batch_size=4, **options)


@pytest.mark.parametrize("spread", SPREAD, ids=str)
def test_many_processes_give_the_same_files_and_table(weights, tmp_path, spread):
    alone = run(weights, tmp_path / "alone")
    together = run(weights, tmp_path / "together", **spread)
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    pd.testing.assert_frame_equal(
        together.index.drop(columns="seconds"), alone.index.drop(columns="seconds")
    )


@pytest.mark.parametrize("spread", SPREAD, ids=str)
def test_what_a_killed_process_had_in_hand_is_done_elsewhere(weights, tmp_path, spread):
    (tmp_path / "deaths").mkdir()
    images = DeadlyImages(folder=str(tmp_path / "deaths"), times=1)
    done = run(weights, tmp_path / "store", images, **spread)
    assert len(list((tmp_path / "deaths").iterdir())) == 1
    assert done.failures.empty
    assert list(done.index["model"]) == 2 * list(MODELS.index)


@pytest.mark.parametrize("spread", SPREAD, ids=str)
def test_a_model_that_kills_its_process_again_and_again_is_a_failure(weights, tmp_path, spread):
    (tmp_path / "deaths").mkdir()
    images = DeadlyImages(folder=str(tmp_path / "deaths"), times=1000)
    done = run(weights, tmp_path / "store", images, registry=MODELS[:1], **spread)
    assert set(done.failures["stage"]) == {"worker"}
    assert done.failures["reason"].str.contains("processes died|workers died").all()


@pytest.mark.parametrize("spread", SPREAD, ids=str)
def test_a_model_that_fails_is_a_row_whoever_computes_it(weights, tmp_path, spread):
    registry = pd.concat([MODELS[:2], MODELS[:1].set_axis(["missing"])])
    done = run(weights, tmp_path, BrokenImages(), registry=registry, **spread)
    assert list(done.failures["stage"]) == ["images", "images", "weights", "weights"]
    assert list(done.index["images"]) == ["b", "b"]


class FakeWorker:
    """Computes in this process; dies as told, when its turn comes to a model."""

    killers: tuple[str, ...] = ()
    broken: tuple[int, ...] = ()  # places of devices that have failed

    def __init__(self, place: int, devices: list[torch.device]) -> None:
        self.place, self.useful, self.device, self.threads = place, False, "cpu", 1
        self.waiting, self.process = [], types.SimpleNamespace(returncode=0, terminate=str)

    def send(self, message) -> None:
        self.waiting.append(message)

    def receive(self):
        job = self.waiting.pop(0)
        if isinstance(job, tuple):
            return "ready"
        if self.place in self.broken or job.row.name in self.killers:
            broken = self.place in self.broken
            self.process.returncode = workers_module.DEVICE_LOST if broken else -signal.SIGKILL
            raise workers_module._Lost
        job.ingredients.clear()
        job.index.append(dict.fromkeys(INDEX, 0) | {"images": "a", "model": job.row.name})
        return job

    def end(self) -> str:
        return "by SIGKILL"


def run_faked(monkeypatch, weights, tmp_path, places: int, **attributes) -> Extraction:
    monkeypatch.setattr(workers_module, "_Worker", type("Fake", (FakeWorker,), attributes))
    return run(weights, tmp_path, device=",".join(["cpu"] * places))


@pytest.mark.parametrize("places", [2, 3])
@pytest.mark.parametrize("killer", MODELS.index)
def test_no_model_suffers_for_another(weights, tmp_path, monkeypatch, killer, places):
    done = run_faked(monkeypatch, weights, tmp_path, places, killers=(killer,))
    assert set(done.failures["model"]) == {killer}
    assert set(done.index["model"]) == set(MODELS.index) - {killer}


def test_a_failed_device_is_left_out_and_no_model_blamed(weights, tmp_path, monkeypatch):
    done = run_faked(monkeypatch, weights, tmp_path, 2, broken=(0,))
    assert done.failures.empty
    assert set(done.index["model"]) == set(MODELS.index)


def test_a_device_without_work_waits_for_what_another_may_give_back(monkeypatch):
    served, finished = [], Event()

    def serve(work, place):
        if place == 0:  # takes one model, and fails only when the other device has nothing left
            row = work.rows.popleft()
            finished.wait(10)
            work.failed.add(place)
            work.rows.append(row)
        while place and work.rows:
            served.append(work.rows.popleft().name)
        finished.set()

    monkeypatch.setattr(workers_module._Work, "_serve_one_process", serve)
    cpu = [torch.device("cpu")] * 2
    work = workers_module._Work(MODELS, {}, Settings(store="nowhere"), cpu)
    threads = [Thread(target=work.serve, args=(place,), daemon=True) for place in (0, 1)]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(10)
    assert sorted(served) == sorted(MODELS.index)


def test_where_every_device_has_failed_one_line_says_so(weights, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="every device has failed"):
        run_faked(monkeypatch, weights, tmp_path, 2, broken=(0, 1))


def test_a_process_that_cannot_start_is_an_error_at_once(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended at its start, with exit code 1"):
        run(weights, tmp_path, device="cpu,cpu")


def test_a_run_that_is_stopped_leaves_no_process_and_no_temporary_file(weights, tmp_path):
    devices = [torch.device("cpu")] * 2
    settings, sets = Settings(tmp_path, weights, batch_size=1), {"a": SlowImages(number=40)}
    jobs = workers_module.extract_by_workers(MODELS, sets, settings, devices)
    watch = Thread(target=lambda: next(jobs, None), daemon=True)
    watch.start()
    while not list(tmp_path.glob("features/*/.*.tmp*")):
        time.sleep(0.01)
    watch.join()
    jobs.close()
    assert not list(tmp_path.rglob(".*.tmp*"))
    children = subprocess.run(
        ["ps", "--ppid", str(os.getpid()), "-o", "args="], text=True, stdout=-1
    )
    assert "realign_utils.workers" not in children.stdout


@pytest.mark.parametrize(
    ("visible", "index", "expected"),
    [(None, 2, "2"), ("5,7", 1, "7"), ("GPU-a, GPU-b", 1, "GPU-b")],
)
def test_a_process_sees_the_device_that_is_meant(monkeypatch, visible, index, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert workers_module._visible(index) == expected


def test_where_all_is_cached_no_process_is_started(weights, tmp_path, monkeypatch):
    run(weights, tmp_path)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    assert run(weights, tmp_path, device="cpu,cpu").index["cached"].all()


@pytest.mark.parametrize("spread", SPREAD, ids=str)
def test_a_store_that_cannot_be_written_is_one_line(weights, tmp_path, spread):
    (tmp_path / "features").write_text("in the way")
    with pytest.raises(UserError, match="cannot write") as caught:
        run(weights, tmp_path, **spread)
    assert "\n" not in str(caught.value)


def test_the_largest_model_comes_first():
    order = [row.name for row in largest_first(MODELS)]
    assert order == ["m2", "m1", "m4", "m0", "m3"]
    assert [row.name for row in largest_first(SMALL)] == list(SMALL.index)


def test_a_gpu_each_is_what_auto_means(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(device) for device in devices_of("auto")] == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of("cuda") == devices_of("auto")


@pytest.mark.parametrize(
    ("names", "one"),
    [("cuda:1, cuda:2", "cuda:1"), ("auto", "auto"), ("mps", "cpu"), ("cpu", "cpu")],
)
def test_similarities_are_computed_on_one_device_that_has_float64(names, one):
    assert device_of_arithmetic(names) == one


def test_devices_of_two_kinds_are_refused():
    with pytest.raises(UserError, match="of one kind"):
        devices_of("cpu,meta")


def test_a_cluster_that_does_not_answer_is_one_line(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "ANSWER", 1.0)
    with pytest.raises(UserError, match="no scheduler answers") as caught:
        run(weights, tmp_path, cluster="tcp://127.0.0.1:9")
    assert "\n" not in str(caught.value)


def test_without_the_optional_package_the_line_says_what_to_install(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"pip install 'realign-utils\[cluster\]'"):
        run(weights, tmp_path, cluster="local:2")


@pytest.mark.slow
def test_a_worker_with_another_version_is_refused(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "version", lambda _: "0.0")
    with pytest.raises(UserError, match=r"worker .* has realign-utils .*, not 0.0"):
        run(weights, tmp_path, cluster="local:1")


def test_a_store_that_the_workers_do_not_share_is_told(weights, tmp_path, monkeypatch):
    job = cluster_module.Job(MODELS.iloc[0], index=[{"file": "features/00/elsewhere"}])
    monkeypatch.setattr(cluster_module, "PATIENCE", 0.0)
    with pytest.raises(UserError, match="a folder that all machines share"):
        cluster_module._await_files(job, cluster_module.Settings(tmp_path))


@pytest.mark.slow
def test_a_cluster_that_loses_all_workers_is_one_line(cluster, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "PATIENCE", 8.0)
    address, workers = address_of(cluster), cluster[1]
    with distributed.Client(address) as client:
        client.wait_for_workers(2, timeout=60)
    store = tmp_path / "store"

    def kill_all() -> None:
        while not list(store.glob("features/*/*")):
            time.sleep(0.02)
        for worker in workers:
            os.killpg(worker.pid, signal.SIGKILL)

    Thread(target=kill_all, daemon=True).start()
    with pytest.raises(UserError, match="no workers any more"):
        run(weights, store, SlowImages(number=60), cluster=address)


def address_of(cluster) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if cluster[0].exists() and cluster[0].stat().st_size:
            break
        time.sleep(0.1)
    return json.loads(cluster[0].read_text())["address"]


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, each a process of its own: address, processes of the workers."""
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = []

    def start(program: str, *options: str) -> subprocess.Popen:
        command = [sys.executable, "-m", f"distributed.cli.{program}", "--scheduler-file", file]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(
            subprocess.Popen([*command, *options], env=environment, start_new_session=True, **quiet)
        )
        return started[-1]

    start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    workers = [start("dask_worker", "--nthreads", "2", "--no-dashboard") for _ in range(2)]
    yield file, workers
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_cluster_survives_the_loss_of_a_worker_in_mid_run(cluster, weights, tmp_path):
    address, workers, store = address_of(cluster), cluster[1], tmp_path / "store"

    def kill_one() -> None:
        while not list(store.glob("features/*/[!.]*")):
            time.sleep(0.02)
        os.killpg(workers[0].pid, signal.SIGKILL)

    with distributed.Client(address) as client:
        client.wait_for_workers(2, timeout=60)
    Thread(target=kill_one, daemon=True).start()
    done = run(weights, store, SlowImages(), cluster=address)
    assert workers[0].poll() == -signal.SIGKILL
    assert done.failures.empty
    assert len(done.index) == 2 * len(MODELS)
    alone = tmp_path / "alone"
    run(weights, alone, SlowImages())
    assert {k: v for k, v in contents(store).items() if "/." not in k} == contents(alone)
