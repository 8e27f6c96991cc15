"""The commands on a matrix and on submissions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from realign_utils import cli
from realign_utils.matrices import write_matrix

ROOT = Path(__file__).parent.parent
S4 = ROOT / "params" / "published" / "s4_cifar100_cka_digitised.csv"


def run(*arguments: object) -> int:
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def test_select_writes_csv_and_json_and_the_bound(tmp_path: Path, capsys) -> None:
    assert run("select", S4, "-k", 5, "--certify", "-o", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["optimal"] is True
    assert result["upper_bound"] >= result["mean_similarity"]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 6
    assert "optimal: True" in capsys.readouterr().out


def similarity(size: int = 6) -> np.ndarray:
    half = np.triu(np.random.default_rng(0).random((size, size)), 1)
    return half + half.T + np.eye(size)


@pytest.mark.parametrize("kind", ["asymmetric", "nan", "missing", "text", "k"])
def test_a_matrix_that_is_none_is_one_line_and_writes_nothing(tmp_path, capsys, kind) -> None:
    path = write_matrix(tmp_path / "m.csv", list("abcdef"), similarity())
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    changes = {"asymmetric": "0.99", "nan": "nan", "text": "high"}
    cells[2] = changes.get(kind, cells[2])
    path.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]))
    if kind == "missing":
        path.unlink()
    assert run("select", path, "-k", 9 if kind == "k" else 3, "-o", tmp_path / "out") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


def test_check_tells_every_fault(tmp_path: Path, capsys) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"models": [{"model_name": "vgg11"}] * 2}))
    assert run("check", tmp_path / "x.json") == 2
    error = capsys.readouterr().err
    assert "2 models; exactly 20 are required" in error
    assert "did you mean 'vgg11.tv_in1k'" in error


@pytest.mark.parametrize(
    "arguments", [["selct"], ["select"], ["run", "--frm", "x"], ["check", "nowhere.json"]]
)
def test_a_wrong_command_line_is_one_line(capsys, arguments) -> None:
    assert run(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_no_command_shows_the_help(capsys) -> None:
    assert run() == 0
    assert "select" in capsys.readouterr().out
