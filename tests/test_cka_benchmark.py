"""The benchmark of CKA runs, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from realign_utils.cka import plan

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "cka.py"


def test_the_benchmark_prints_its_table_and_every_error_is_small_enough():
    options = [
        "--models",
        "6",
        "--images",
        "60",
        "--large",
        "400",
        "--resamples",
        "4",
        "--repeats",
        "1",
    ]
    done = subprocess.run(
        [sys.executable, SCRIPT, *options], capture_output=True, text=True, cwd=SCRIPT.parents[1]
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    errors = [line for line in lines if line.startswith("| error")]
    assert len(errors) == 6
    assert all(line.endswith("| yes |") for line in errors), errors
    assert sum("resamples of all pairs" in line for line in lines) == 1


def test_the_case_in_feature_space_takes_that_route():
    assert plan(500, [5, 6, 7, 8]).route == "features"
