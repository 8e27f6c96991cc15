"""The paper's profile on stand-ins in the real formats: registry models, checkpoints, Imagenette."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import yaml
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent
MODELS = [
    "resnetblur50.bt_in1k",
    "densenet121.ra_in1k",
    "botnet26t_256.c1_in1k",
    "repvit_m0_9.dist_300e_in1k",
    "lcnet_050.ra2_in1k",
    "pvt_v2_b0.in1k",
    "mobilevitv2_050.cvnets_in1k",
    "levit_128.fb_dist_in1k",
]
SUBMISSIONS = {
    "S1": {"title": "full", "pool": "full", "proxies": {"imagenette": 1.0}, "portal": "S1"},
    "S2": {"title": "listed", "models": [MODELS[5], MODELS[6]], "portal": "S2"},
    "S4": {"title": "cnn", "pool": "cnn_and_light_hybrids", "proxies": {"cifar100": 1.0}},
}


def noise(path: Path, seed: int, side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((side, side)).save(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("paper")
    (folder / "weights").mkdir()
    for name in MODELS[:-1]:  # the last one's checkpoint is truncated
        save_file(timm.create_model(name).state_dict(), folder / "weights" / f"{name}.safetensors")
    (folder / "weights" / f"{MODELS[-1]}.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for index in range(12):
        label = f"n0{index % 2}"
        noise(folder / "imagenette2-320" / "val" / label / f"{index}.JPEG", index, 320)
        noise(folder / "small" / label / f"{index}.png", 100 + index, 32)
    sets = {
        "cifar100": {"kind": "imagefolder", "path": str(folder / "small"), "number": 10, "seed": 0},
        "imagenette": {"kind": "imagenette", "root": str(folder), "number": 10, "seed": 0},
    }
    values = {"extends": "paper", "models": MODELS, "proxies": sets, "k": 2, "restarts": 10}
    values |= {"weights_dir": str(folder / "weights"), "submissions": SUBMISSIONS}
    values |= {
        "calibration_proxies": {},
        "highlight": "S4",
        "families": {"all": "all", "hybrid": "mechanism == 'hybrid'"},
    }
    values |= {key: str(folder / key) for key in ("runs", "figures", "store")}
    (folder / "my.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "realign_utils.cli", "run", str(folder / "my.yaml")]
    return folder, subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_the_paper_s_code_runs_on_registry_models_and_real_formats(run) -> None:
    folder, done = run
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "runs" / "report.pdf").is_file()


@pytest.mark.slow
def test_a_truncated_checkpoint_is_a_row_and_the_others_go_on(run) -> None:
    folder, done = run
    failures = pd.read_csv(folder / "runs" / "failures.csv")
    assert set(failures["model"]) == {MODELS[-1]}
    assert "models: 7 of 8" in done.stdout
    assert f"failed: {MODELS[-1]}" in done.stdout


@pytest.mark.slow
def test_the_portal_s_scores_are_the_real_ones_where_they_exist(run) -> None:
    table = pd.read_csv(run[0] / "runs" / "calibration.csv", index_col="submission")
    assert table["real"]["S1"] == 0.68
    assert np.isnan(table["real"]["S4"])
