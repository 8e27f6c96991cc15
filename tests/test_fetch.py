"""Weights and images brought from a hub on this machine, whole or not at all, and then used."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import re
import subprocess
import sys
import tarfile
import time
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import timm
import torch
import yaml
from hub import COMMIT, Hub, serving
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter
from safetensors.torch import save

from realign_utils import cli, fetch, image_archives, pipeline, profiles, weights
from realign_utils.models import build
from realign_utils.registry import choose, read_registry

ROOT = Path(__file__).parent.parent
TABLES = [ROOT / "params" / "registry.csv", ROOT / "params" / "test_models.csv"]
MODELS = ["test_resnet.r160_in1k", "test_vit.r160_in1k", "test_efficientnet.r160_in1k"]
TNT = "tnt_s_patch16_224"  # one of the three models whose weights lie elsewhere than on the hub
PATCHES = {"kind": "patches", "split": "proxy_low", "number": 8}


@pytest.fixture(scope="module")
def checkpoints() -> dict[str, bytes]:
    """Real checkpoints of three of timm's smallest models, with random weights."""
    rows = choose(read_registry(TABLES), MODELS).iterrows()
    return {name: save(build(row, pretrained=False).module.state_dict()) for name, row in rows}


@pytest.fixture
def hub(checkpoints, tmp_path, monkeypatch):
    """The hub, this process's client of it, and empty caches."""
    with serving() as server:
        for model, data in checkpoints.items():
            server.add(model, data)
        ask(monkeypatch, server.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        yield server


def ask(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Make an address the hub of this process."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def profile(tmp_path) -> Path:
    return write_profile(tmp_path)


def write_profile(folder: Path, **changes: object) -> Path:
    """A profile of the three models on the demo's patches."""
    submission = {"title": "all", "pool": "full", "proxies": {"patches": 1.0}}
    values = {
        "extends": "quick",
        "models": MODELS,
        "k": 2,
        "proxies": {"patches": PATCHES},
        "calibration_proxies": {},
        "reference_proxy": "patches",
        "pools": {"full": "all"},
        "submissions": {"S1": submission},
        "families": {"all": "all"},
        "highlight": "S1",
        "contrast": "S1",
        **changes,
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def realign(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, list[str]]:
    """Exit code, standard output, and the lines of the error output that are no bar."""
    try:
        cli.main([str(argument) for argument in arguments])
        code = 0
    except SystemExit as stop:
        code = stop.code
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("realign: ")]
    return code, shown.out, lines


def blobs(folder: Path) -> list[str]:
    """Names of the files of weights in the hub's cache, whole or not."""
    return sorted(path.name for path in folder.glob("hub/models--*/blobs/*"))


def shell(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run Python in a process of its own, with a home of its own for all weights."""
    environment = os.environ | {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1"} | variables
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)


EXTRACT = """
import sys
from realign_utils.features import extract
from realign_utils.images import load_images
from realign_utils.profiles import load
from realign_utils.registry import choose, read_registry

parameters, root = load(sys.argv[1])
registry = choose(read_registry(parameters.registry), parameters.models)
images = load_images(parameters.proxies["patches"].model_dump(), name="patches")
made = extract(registry, {"patches": images}, store=sys.argv[2])
print(list(made.index["model"]), made.failures.to_string())
"""


def test_what_was_fetched_is_extracted_without_a_network(checkpoints, profile, tmp_path):
    with serving() as server:
        for model, data in checkpoints.items():
            server.add(model, data)
        fetch_it = ("-m", "realign_utils.cli", "fetch", str(profile))
        done = shell(tmp_path, *fetch_it, HF_ENDPOINT=server.address)
        assert done.returncode == 0, done.stderr
        assert "small: 0 of 3 models are here; to download: weights of 3 models" in done.stdout
    sha256 = [hashlib.sha256(data).hexdigest() for data in checkpoints.values()]
    assert blobs(tmp_path) == sorted(sha256)
    pointers = tmp_path.glob(f"hub/models--timm--*/snapshots/{COMMIT}/model.safetensors")
    assert len(list(pointers)) == 3
    code = ("-c", EXTRACT, str(profile), str(tmp_path / "store"))
    extracted = shell(tmp_path, *code, HF_HUB_OFFLINE="1", HF_ENDPOINT=server.address)
    assert extracted.returncode == 0, extracted.stderr
    assert all(model in extracted.stdout for model in MODELS)
    assert "Empty DataFrame" in extracted.stdout  # of failures


def test_a_second_fetch_downloads_nothing(hub: Hub, profile, capsys):
    assert realign(capsys, "fetch", profile)[0] == 0
    hub.asked.clear()
    code, out, lines = realign(capsys, "fetch", profile)
    assert (code, out, lines) == (0, "small: 3 of 3 models are here; nothing to fetch\n", [])
    assert hub.asked == []


def test_a_dry_run_lists_what_is_missing_with_the_hubs_sizes(hub: Hub, profile, capsys):
    code, out, lines = realign(capsys, "fetch", profile, "--dry-run")
    sizes = {path: len(data) for path, data in hub.files.items()}
    listed = [
        f"  {m} {sizes[f'/timm/{m}/resolve/main/model.safetensors'] / 1e6:.1f} MB" for m in MODELS
    ]
    total = f"{sum(sizes.values()) / 1e6:.1f} MB"
    first = f"small: 0 of 3 models are here; to download: weights of 3 models {total}"
    assert (code, out.splitlines(), lines) == (1, [first, *listed], [])
    assert hub.downloads() == []


def test_flipped_bytes_are_refused_in_one_line_and_not_kept(hub: Hub, profile, tmp_path, capsys):
    path = f"/timm/{MODELS[1]}/resolve/main/model.safetensors"
    hub.faults[path] = "flipped"
    code, _, lines = realign(capsys, "fetch", profile)
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"realign: {MODELS[1]}: what 127.0.0.1:")
    assert "gave is not what it promised, so it was not kept: run again (SHA-256" in lines[0]
    assert len(blobs(tmp_path)) == 2
    del hub.faults[path]
    assert realign(capsys, "fetch", profile)[::2] == (0, [])


def test_a_file_damaged_in_the_cache_is_fetched_again(hub: Hub, profile, tmp_path, capsys):
    realign(capsys, "fetch", profile)
    blob = next(tmp_path.glob("hub/models--timm--test_vit*/blobs/*"))
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    code, out, _ = realign(capsys, "fetch", profile)
    assert (code, "2 of 3 models are here" in out) == (0, True)
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_what_cannot_be_had_is_a_line_each_and_the_rest_is_fetched(
    hub: Hub, profile, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's own attempts
    del hub.files[f"/timm/{MODELS[0]}/resolve/main/model.safetensors"]
    hub.faults[f"/timm/{MODELS[1]}/resolve/main/model.safetensors"] = "cut"
    code, _, lines = realign(capsys, "fetch", profile)
    assert (code, len(lines)) == (1, 2)
    assert f"{MODELS[0]}: no timm/{MODELS[0]} at 127.0.0.1" in lines[0]
    assert f"{MODELS[1]}: the download broke (RemoteProtocolError" in lines[1]
    assert len(blobs(tmp_path)) == 1


def test_a_connection_that_breaks_once_is_tried_again(hub: Hub, profile, capsys, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    path = f"/timm/{MODELS[1]}/resolve/main/model.safetensors"
    hub.faults[path] = "cut once"
    assert realign(capsys, "fetch", profile)[::2] == (0, [])
    assert hub.downloads().count(path) == 2


def test_a_fetch_killed_in_mid_file_is_completed_by_the_next(
    hub: Hub, profile, tmp_path, capsys, monkeypatch
):
    path = f"/timm/{MODELS[1]}/resolve/main/model.safetensors"
    hub.faults[path] = "stalled"
    command = [sys.executable, "-m", "realign_utils.cli", "fetch", str(profile)]
    places = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": hub.address}
    process = subprocess.Popen(
        command, env=os.environ | places, cwd=ROOT, stderr=subprocess.DEVNULL
    )
    while path not in hub.downloads():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    hub.faults.clear()
    code, out, lines = realign(capsys, "fetch", profile)
    assert (code, lines) == (0, [])
    assert "small: 1 of 3 models are here; to download: weights of 2 models" in out
    assert hub.downloads().count(f"/timm/{MODELS[0]}/resolve/main/model.safetensors") == 1


def test_a_full_disk_is_one_line(hub: Hub, profile, capsys, monkeypatch):
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    code, _, lines = realign(capsys, "fetch", profile)
    assert code == 1
    assert lines == [
        "realign: No space left on device: what was fetched stays; free some, run again"
    ]


def test_older_weights_are_found_beside_no_safetensors(hub: Hub, tmp_path, capsys, monkeypatch):
    model = MODELS[0]
    data = hub.files.pop(f"/timm/{model}/resolve/main/model.safetensors")
    hub.add(model, data, "pytorch_model.bin")
    profile = write_profile(tmp_path, models=[model, MODELS[1]])
    assert realign(capsys, "fetch", profile)[::2] == (0, [])
    assert hub.downloads()[0].endswith("pytorch_model.bin")


def test_a_hub_that_is_down_is_told_by_its_answer(hub: Hub, profile, capsys):
    hub.faults = dict.fromkeys(hub.files, "refused")
    code, _, lines = realign(capsys, "fetch", profile)
    assert (code, len(lines)) == (1, 3)
    assert all("answers 503: try again later" in line for line in lines)


def test_without_a_network_one_line_says_what_to_do(hub: Hub, profile, capsys, monkeypatch):
    ask(monkeypatch, "http://127.0.0.1:9")  # the port of nobody
    code, out, lines = realign(capsys, "fetch", profile)
    assert (code, len(lines)) == (1, 1)
    assert "weights of 3 models about 4.8 MB" in out
    assert lines[0].startswith("realign: 127.0.0.1:9 cannot be reached (")
    assert lines[0].endswith("connect and run again, or give weights_dir; downloads missing: 3")


def test_the_clients_own_offline_switch_is_named(hub: Hub, profile, capsys, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    code, _, lines = realign(capsys, "fetch", profile)
    assert (code, len(lines), hub.asked) == (1, 1, [])
    assert "(HF_HUB_OFFLINE is set)" in lines[0]


# --- weights and images at plain addresses


@pytest.fixture
def tnt(hub: Hub, tmp_path, monkeypatch) -> Path:
    """A profile with a model whose weights lie at a plain address, there by its own checksum."""
    data = BytesIO()
    torch.save({"head.bias": torch.arange(1000.0)}, data)
    digits = hashlib.sha256(data.getvalue()).hexdigest()[:8]
    hub.files[f"/tnt-{digits}.pth.tar"] = data.getvalue()
    theirs = timm.get_pretrained_cfg(TNT)
    ours = dataclasses.replace(theirs, url=f"{hub.address}/tnt-{digits}.pth.tar")
    real = timm.get_pretrained_cfg
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda n: ours if n == TNT else real(n))
    return write_profile(tmp_path, models=[TNT, MODELS[0]])


def test_weights_at_a_plain_address_come_into_torchs_cache(hub: Hub, tnt, tmp_path, capsys):
    code, _, lines = realign(capsys, "fetch", tnt)
    assert (code, lines) == (0, [])
    (path,) = (tmp_path / "torch" / "hub" / "checkpoints").iterdir()
    assert path.read_bytes() == hub.files[f"/{path.name}"]
    assert "2 of 2 models are here; nothing to fetch" in realign(capsys, "fetch", tnt)[1]


def test_an_address_that_refuses_to_tell_a_size_is_fetched(hub: Hub, tnt, capsys):
    hub.faults = {path: "unsized" for path in hub.files if path.startswith("/tnt")}
    code, out, lines = realign(capsys, "fetch", tnt)
    assert (code, lines) == (0, [])
    assert f"  {TNT} about 95.0 MB" in out.splitlines()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("flipped", "gave is not what it promised, so it was not kept"),
        ("cut", "the connection broke after"),
        ("refused", "(HTTP 503 Service Unavailable)"),
    ],
)
def test_weights_at_a_plain_address_are_whole_or_not_there(
    hub: Hub, tnt, tmp_path, capsys, fault, reason
):
    hub.faults = {path: fault for path in hub.files if path.startswith("/tnt")}
    code, _, lines = realign(capsys, "fetch", tnt)
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"realign: {TNT}: ")
    assert reason in lines[0]
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    assert not folder.is_dir() or not list(folder.iterdir())


@pytest.fixture
def imagenette(hub: Hub, tmp_path, monkeypatch) -> Path:
    """A profile whose images are an archive of the server."""
    _, _, inside = image_archives.ARCHIVES["160px"]
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo(f"{inside}/val/empty.JPEG"))
    hub.files["/imagenette2-160.tgz"] = packed.getvalue()
    md5 = hashlib.md5(packed.getvalue()).hexdigest()
    ours = (f"{hub.address}/imagenette2-160.tgz", md5, inside)
    monkeypatch.setitem(image_archives.ARCHIVES, "160px", ours)
    source = {"kind": "imagenette", "size": "160px", "root": str(tmp_path / "data")}
    sets = {"patches": PATCHES, "a": {**source, "download": True}, "b": {**source, "train": True}}
    return write_profile(tmp_path, proxies=sets)


def test_the_archives_of_images_are_fetched_and_unpacked(imagenette, tmp_path, capsys):
    allowed = ("-p", "proxies.b.download=true")
    code, out, lines = realign(capsys, "fetch", imagenette, *allowed)
    assert (code, lines) == (0, [])
    assert out.count("imagenette 0.0 MB") == 2  # in the first line and in the list
    assert (tmp_path / "data" / "imagenette2-160" / "val" / "empty.JPEG").is_file()
    assert "nothing to fetch" in realign(capsys, "fetch", imagenette, *allowed)[1]


def test_an_archive_that_may_not_be_downloaded_is_missing(imagenette, capsys):
    code, _, lines = realign(capsys, "fetch", imagenette, "-p", "proxies.a.download=false")
    assert code == 1
    assert "set download: true, or fetch" in lines[0]


# --- profiles without a hub; what a run says


def test_checkpoints_missing_in_a_folder_are_named(profile, tmp_path, capsys):
    (tmp_path / f"{MODELS[1]}.safetensors").touch()
    code, out, lines = realign(capsys, "fetch", profile, "-p", f"weights_dir={tmp_path}")
    told = "small: 1 of 3 models are here; what is missing cannot be fetched\n"
    assert (code, out) == (1, told)
    assert len(lines) == 1
    assert lines[0].endswith(f"of {MODELS[0]}, {MODELS[2]}")


def test_a_profile_that_trains_its_models_needs_nothing(capsys):
    shown = realign(capsys, "fetch", "demo")
    assert shown == (0, "demo: trains its own models; nothing to fetch\n", [])


@pytest.mark.parametrize("command", ["run", "fetch", "extract"])
def test_an_architecture_that_timm_has_not_stops_before_any_work(tmp_path, capsys, command):
    lines = (ROOT / "params" / "test_models.csv").read_text().splitlines()
    architectures = {"test_resnet.r160_in1k": "tset_resnet", "test_vit.r160_in1k": "hf-hub:a/vit"}
    rows = [f"{line},{architectures.get(line.split(',')[0], '')}" for line in lines[1:]]
    (tmp_path / "own.csv").write_text("\n".join([f"{lines[0]},architecture", *rows]))
    options = {"registry": str(tmp_path / "own.csv"), "weights_dir": str(tmp_path)}
    options |= {name: str(tmp_path / name) for name in ("runs", "figures", "store")}
    code, out, told = realign(capsys, command, write_profile(tmp_path, **options))
    assert (code, out) == (2, "")
    assert len(told) == 2
    assert "own.csv: model 'test_resnet.r160_in1k': unknown timm architecture" in told[0]
    assert "'tset_resnet'; did you mean 'test_resnet'?" in told[0]
    assert "'test_vit.r160_in1k': unknown timm architecture 'hf-hub:a/vit'" in told[1]
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("command", ["extract", "score", "check"])
def test_a_zoo_that_is_not_trained_yet_is_told(tmp_path, capsys, command):
    entry = tmp_path / "S1.json"
    entry.write_text('{"models": [{"model_name": "vit_width64_seed0", "layer_name": "fc_norm"}]}')
    (tmp_path / "new.yaml").write_text(f"extends: demo\nruns: {tmp_path}/runs")
    profile = str(tmp_path / "new.yaml")
    code, _, told = realign(
        capsys, command, *([profile] if command == "extract" else [entry, "--profile", profile])
    )
    assert (code, len(told)) == (2, 1)
    assert "zoo/registry.csv is missing: the zoo is not trained yet: realign run" in told[0]


def test_a_run_says_what_it_will_download_before_it_starts(hub: Hub, profile, capsys, monkeypatch):
    monkeypatch.setattr(pipeline, "run", lambda *_, **__: print("it starts"))
    monkeypatch.setattr(pipeline, "render_report", lambda *_: None)
    monkeypatch.setattr(pipeline, "summary", lambda *_: "")
    out = realign(capsys, "run", profile)[1].splitlines()
    assert out[0].startswith(
        "small: 0 of 3 models are here; to download: weights of 3 models about"
    )
    assert out[1] == "it starts"
    assert hub.asked == []
    realign(capsys, "fetch", profile)
    assert realign(capsys, "run", profile)[1].splitlines()[0] == "it starts"


def test_the_quick_profile_is_the_lightest_models_and_timms_test_models():
    parameters, _ = profiles.load("quick")
    registry = read_registry(TABLES)
    chosen = choose(registry, parameters.models)
    test_models = [name for name in timm.list_pretrained("test_*") if name.endswith("r160_in1k")]
    assert set(test_models) <= set(chosen.index) <= set(timm.list_pretrained())
    others = chosen.drop(test_models)
    assert len(others) == 28
    assert others["params_m"].max() < registry.drop(chosen.index)["params_m"].min()
    sources = [weights.origin_of(row) for _, row in chosen.iterrows()]
    assert all(source.repository == f"timm/{source.model}" for source in sources)


@pytest.mark.parametrize("profile", ["quick", "paper", "large"])
def test_the_sizes_that_a_profile_states_are_those_of_its_plan(profile, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    parameters, _ = profiles.load(profile)
    planned = fetch.plan(parameters, tmp_path_with_tables(tmp_path), ask=False)
    total = sum(item.bytes for item in planned.downloads) / 1e9
    readme = (ROOT / "README.md").read_text()
    stated = float(re.search(rf"\| `{profile}` \|.*~(\d+) GB", readme)[1])
    assert stated == pytest.approx(total, rel=0.1)


def tmp_path_with_tables(folder: Path) -> Path:
    """A project folder that holds the registry, and no images yet."""
    (folder / "params").symlink_to(ROOT / "params")
    return folder


def test_the_client_of_the_hubs_storage_tells_each_byte_once():
    """It reports twice: bytes that came over the network, and bytes that were written."""
    came = []
    report = SimpleNamespace(
        total_bytes=9,
        total_bytes_completed=7,
        total_transfer_bytes_completed=5,
        total_bytes_completion_rate=None,
        total_transfer_bytes_completion_rate=None,
    )
    options = {"reconstruction_desc": "", "total": 9, "log_level": 40}
    bar = weights._bar_that_tells(came.append)
    with XetDownloadProgressReporter(tqdm_class=bar, **options) as reporter:
        reporter.update_progress(report)
    assert came == [7]
