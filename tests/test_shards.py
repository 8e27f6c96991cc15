"""shards.py and `realign extract`: parts that together are the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_models import contents, save_weights, several

from realign_utils.arithmetic import compare_arithmetic
from realign_utils.errors import UserError
from realign_utils.images import load_images
from realign_utils.profiles import load
from realign_utils.registry import read_registry
from realign_utils.shards import read_shard, shard_of

ROOT = Path(__file__).parents[1]
REGISTRY = read_registry(ROOT / "params/registry.csv")


@pytest.mark.parametrize("count", [1, 2, 7, 200])
def test_shards_are_the_registry_and_no_model_is_in_two(count):
    parts = [shard_of(REGISTRY, number, count) for number in range(1, count + 1)]
    together = pd.concat(parts).index
    assert len(together) == len(REGISTRY)
    assert set(together) == set(REGISTRY.index)


def test_shards_are_about_as_heavy_as_each_other():
    loads = sorted(shard_of(REGISTRY, number, 8)["params_m"].sum() for number in range(1, 9))
    assert loads[-1] == REGISTRY["params_m"].max()  # one model is heavier than an eighth of all
    assert loads[-2] <= 1.01 * loads[0]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "-1/3", "1/0", "1/3/5", ""])
def test_a_shard_that_is_none_is_one_line(text):
    with pytest.raises(UserError, match="i/n with i from 1 to n"):
        read_shard(text)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile of six models of one architecture on eight patches."""
    registry = several(6).assign(family="resnet", mechanism="convolution", params_m=range(1, 7))
    save_weights(registry, tmp_path / "weights")
    text = {name: [" ".join(map(str, v)) for v in registry[name]] for name in ("mean", "std")}
    registry.assign(arguments='{"num_classes": 5}', **text).to_csv(tmp_path / "registry.csv")
    patches = {"kind": "patches", "split": "proxy_full", "number": 8}
    values = {
        "extends": "demo",
        "zoo": None,
        "registry": str(tmp_path / "registry.csv"),
        "weights_dir": str(tmp_path / "weights"),
        "proxies": {"a": patches, "b": {**patches, "split": "proxy_low"}},
        "calibration_proxies": {},
        "larger": {},
        "reference_proxy": "a",
        "evaluation": None,
        "pools": {"full": "all"},
        "families": {"resnets": "all"},
        "k": 2,
        "submissions": {"S1": {"title": "any", "pool": "full", "proxies": {"a": 1.0}}},
        "highlight": "S1",
        "contrast": "S1",
        "runs": str(tmp_path / "runs"),
        "figures": str(tmp_path / "figures"),
        "store": str(tmp_path / "store"),
        "device": "cpu",
    }
    path = tmp_path / "six.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def realign(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "realign_utils.cli", *map(str, arguments)]


def outcome(*arguments: str | Path) -> subprocess.CompletedProcess:
    quiet = {"capture_output": True, "text": True, "cwd": ROOT}
    return subprocess.run(realign(*arguments), **quiet, check=False)


def test_shards_side_by_side_leave_what_one_run_leaves(profile, tmp_path):
    shards = [
        subprocess.Popen(realign("extract", profile, "--shard", f"{i}/3"), cwd=ROOT)
        for i in (1, 2, 3)
    ]
    assert [shard.wait() for shard in shards] == [0, 0, 0]
    again = outcome("extract", profile)
    assert again.stdout == "6 models, 12 feature files: 0 computed, 12 there already; failures: 0\n"
    outcome("extract", profile, "-p", f"store={tmp_path / 'alone'}")
    assert contents(tmp_path / "store") == contents(tmp_path / "alone")


def test_a_failed_model_is_a_line_and_the_others_are_there(profile, tmp_path):
    (tmp_path / "weights/m2.safetensors").unlink()
    done = outcome("extract", profile)
    assert done.returncode == 0
    first, *failed = done.stdout.splitlines()
    assert first == "5 models, 10 feature files: 10 computed, 0 there already; failures: 2"
    assert all("failed: m2" in line and "m2.safetensors" in line for line in failed)


def test_a_value_that_would_break_out_of_its_line_is_refused(profile):
    done = outcome("extract", profile, "--print-slurm", "-p", "title=a\nrm -rf x")
    assert done.returncode == 2
    assert "with a line break cannot be in a script" in done.stderr


def test_features_for_the_comparison_of_arithmetic_are_there_too(profile, tmp_path):
    outcome("extract", profile)
    store, before = tmp_path / "store", set(contents(tmp_path / "store"))
    parameters, _ = load(str(profile))
    images = load_images(parameters.proxies["a"].model_dump(), name="a")
    registry = read_registry(parameters.registry)
    options = {"store": store, "weights_dir": parameters.weights_dir, "device": "cpu"}
    compare_arithmetic(registry, images, parameters.arithmetic, used={}, **options)
    assert set(contents(store)) == before


def test_the_slurm_script_fetches_submits_itself_and_computes_all(profile, tmp_path):
    (tmp_path / "weights/m5.safetensors").unlink()  # what is missing stops no one
    script = tmp_path / "array.sbatch"
    script.write_text(outcome("extract", profile, "--print-slurm", "--tasks", "2").stdout)
    fake = tmp_path / "bin/sbatch"  # runs the array's tasks one after the other
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\nfor i in 1 2; do SLURM_ARRAY_TASK_ID=$i bash "$1" || exit; done')
    fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    counted = [line for line in done.stdout.splitlines() if "computed" in line]
    assert [line.split(" ")[0] for line in counted] == ["2", "3"]
    assert "10 there already" in outcome("extract", profile).stdout
