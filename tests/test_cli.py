"""The commands on a matrix and on submissions."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from realign_utils import cli, search, select_command
from realign_utils.certificate import certify
from realign_utils.certificate_files import save_certificate
from realign_utils.limits import count_limit
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


def changed(path: Path, row: int, cell: int, text: str) -> None:
    """Put a text into a cell of a CSV; row 0 is the header."""
    table = [line.split(",") for line in path.read_text().splitlines()]
    table[row][cell] = text
    path.write_text("\n".join(",".join(cells) for cells in table))


BAD_MATRICES = {
    "asymmetric": (
        (1, 2, "0.99"),
        "not symmetric: a, b is 0.99 but b, a is 0.269787 (they differ by 0.72)",
    ),
    "nan": ((1, 2, "nan"), "1 not finite, first nan at a, b"),
    "empty cell": ((1, 2, ""), "1 not finite, first nan at a, b"),
    "infinite": ((1, 2, "inf"), "1 not finite, first inf at a, b"),
    "text": ((1, 2, "high"), "'high' at a, b is not a number"),
    "repeated label": ((0, 2, "a"), "labels do not match: column 2 is 'a', row 2 is 'b'"),
    "other label": ((3, 0, "z"), "labels do not match: column 3 is 'c', row 3 is 'z'"),
}


@pytest.mark.parametrize("kind", BAD_MATRICES)
def test_a_matrix_that_is_none_is_one_line_and_writes_nothing(tmp_path, capsys, kind) -> None:
    path = write_matrix(tmp_path / "m.csv", list("abcdef"), similarity())
    cell, told = BAD_MATRICES[kind]
    changed(path, *cell)
    assert run("select", path, "-k", 3, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    "options",
    [["-o", "m"], ["-o", "./m"], ["--save-certificate", "m.csv"], ["--pool", "p.csv", "-o", "p"],
     ["-o", "x", "--save-certificate", "x.json"]],
)  # fmt: skip
def test_nothing_that_is_read_or_written_is_overwritten(
    tmp_path, capsys, monkeypatch, options
) -> None:
    monkeypatch.chdir(tmp_path)
    write_matrix("m.csv", list("abcdef"), similarity())
    Path("p.csv").write_text("a\nb\nc\n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert run("select", "m.csv", "-k", 3, *options) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_gap_relative_to_a_score_of_0_is_null_in_json(tmp_path) -> None:
    cycle = [[float({(i - j) % 5} <= {0, 1, 4}) for i in range(5)] for j in range(5)]
    path = write_matrix(tmp_path / "m.csv", list("abcde"), 3 * np.array(cycle) - 2)
    assert (
        run("select", path, "-k", 3, "--certify", "--time-limit", 1e-9, "-o", tmp_path / "x") == 0
    )
    text = (tmp_path / "x.json").read_text()
    result = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert result["mean_similarity"] == 0
    assert result["gap"] is None


def test_a_label_that_repeats_in_both_directions_is_told(tmp_path, capsys) -> None:
    path = write_matrix(tmp_path / "m.csv", list("abcdef"), similarity())
    changed(path, 0, 2, "a")
    changed(path, 2, 0, "a")
    assert run("select", path, "-k", 3) == 2
    assert "label 'a' is repeated" in capsys.readouterr().err


@pytest.mark.parametrize(("lines", "told"), [(4, "must be square, but has 3 rows and 6 columns"),
                                             (1, "has a header but no values"), (0, "is empty")])  # fmt: skip
def test_a_matrix_that_is_not_square_is_told(tmp_path, capsys, lines, told) -> None:
    path = write_matrix(tmp_path / "m.csv", list("abcdef"), similarity())
    path.write_text("\n".join(path.read_text().splitlines()[:lines]))
    assert run("select", path, "-k", 3) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("k", [-1, 0, 1, 7])
def test_a_k_that_does_not_fit_is_told(tmp_path, capsys, k) -> None:
    path = write_matrix(tmp_path / "m.csv", list("abcdef"), similarity())
    assert run("select", path, "-k", k) == 2
    told = f"k must be at least 2 and at most 6 (the candidates), not {k}"
    assert capsys.readouterr().err == f"realign: {told}\n"


def test_a_diagonal_that_is_not_1_is_ignored_and_said(tmp_path, capsys) -> None:
    scores = []
    for diagonal in (1.0, 7.0):
        matrix = similarity()
        np.fill_diagonal(matrix, diagonal)
        path = write_matrix(tmp_path / "m.csv", list("abcdef"), matrix)
        assert run("select", path, "-k", 3, "-o", tmp_path / "out") == 0
        scores.append(json.loads((tmp_path / "out.json").read_text())["mean_similarity"])
    assert scores[0] == scores[1]
    assert "the diagonal is not 1 (a: 7); it is ignored" in capsys.readouterr().err


def test_items_are_fixed_in_and_out_and_a_pool_is_kept(tmp_path, capsys) -> None:
    path = write_matrix(tmp_path / "m.csv", list("abcdef"), similarity())
    (tmp_path / "pool.txt").write_text("a\nb\nc\n\nd\n")
    options = ["--pool", tmp_path / "pool.txt", "--include", "a", "--exclude", "b"]
    assert run("select", path, "-k", 3, *options, "-o", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["models"] == ["a", "c", "d"]
    assert result["candidates"] == 4
    assert run("select", path, "-k", 3, *options, "--exclude", "c") == 2
    told = "no 3 of the 4 candidates can keep 'b fixed out' and 'c fixed out'"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--include", "g"], "--include: unknown item 'g'"),
        (["--include", "a", "--exclude", "a"], "'a fixed in' and 'a fixed out'"),
        (["--exclude", "a", "--exclude", "a"], "--exclude: 'a' is given twice"),
        (["--time-limit", "nan", "--certify"], "the time limit must be at least 0 seconds"),
        (["--pool", "nowhere.txt"], "--pool: cannot read nowhere.txt"),
    ],
)
def test_a_wish_that_cannot_be_is_told(tmp_path, capsys, options, told) -> None:
    path = write_matrix(tmp_path / "m.csv", list("abcdef"), similarity())
    assert run("select", path, "-k", 3, *options) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_saved_certificate_is_checked_and_refused_on_another_matrix(tmp_path, capsys) -> None:
    proof = tmp_path / "proof.safetensors"
    assert run("select", S4, "-k", 5, "--save-certificate", proof, "-o", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert run("check-certificate", proof, S4) == 0
    out = capsys.readouterr().out
    assert f"above {result['upper_bound']!r}" in out
    assert f"its set: {', '.join(result['models'])}" in out
    other = write_matrix(tmp_path / "m.csv", [str(i) for i in range(1, 21)], similarity(20))
    assert run("check-certificate", proof, other) == 2
    assert "certificate refused: its set scores" in capsys.readouterr().err
    assert run("check-certificate", S4, S4) == 2
    assert "not a certificate, or damaged" in capsys.readouterr().err


def forged(tmp_path: Path, **changes: object) -> Path:
    """A certificate of the best 3 of 8 with parts of its record changed."""
    matrix, path = similarity(8), tmp_path / "forged.safetensors"
    certificate = certify(matrix, search.select(matrix, 3))
    return save_certificate(path, replace(certificate, **changes))


def test_what_a_limit_does_is_told_whatever_its_name_says(tmp_path, capsys) -> None:
    matrix = write_matrix(tmp_path / "m.csv", list("abcdefgh"), similarity(8))
    best = search.select(similarity(8), 3).indices
    limit = count_limit(best[:1], 8, name="nothing at all", at_most=0)
    others = [row for row in range(8) if row != best[1]]
    worse = search.select(similarity(8), 3, candidates=others, limits=[limit])
    proof = save_certificate(tmp_path / "p.safetensors", certify(similarity(8), worse))
    assert run("check-certificate", proof, matrix) == 0
    out = capsys.readouterr().out
    first, second = ("abcdefgh"[row] for row in best[:2])
    assert f"limit 'nothing at all': at most 0, counting {first}\n" in out
    left_out = next(line for line in out.splitlines() if line.startswith("left out"))
    assert second in left_out.split(": ")[1].split(", ")
    assert "optimal within these limits and candidates: True" in out


@pytest.mark.parametrize(
    "changes",
    [{"candidates": (0, 1, 2, 10**30)}, {"score": 10**400}, {"indices": (0, 1, 10**30)}],
)
def test_numbers_beyond_all_bounds_in_a_certificate_are_one_line(tmp_path, capsys, changes) -> None:
    matrix = write_matrix(tmp_path / "m.csv", list("abcdefgh"), similarity(8))
    assert run("check-certificate", forged(tmp_path, **changes), matrix) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_better_set_that_the_proof_meets_is_the_one_that_is_written(tmp_path, monkeypatch):
    path = write_matrix(tmp_path / "m.csv", list("abcdefgh"), similarity(8))
    best = search.select(similarity(8), 3)
    poor = next(s for s in combinations(range(8), 3) if s != best.indices)
    monkeypatch.setattr(
        select_command, "search_within", lambda *_, **__: replace(best, indices=poor)
    )
    assert run("select", path, "-k", 3, "--certify", "-o", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["models"] == ["abcdefgh"[row] for row in best.indices]
    assert result["mean_similarity"] == pytest.approx(best.score)


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
