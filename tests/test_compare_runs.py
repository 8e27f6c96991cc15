"""What is said to differ between two runs is what was changed, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from realign_utils import cli
from realign_utils.compare_runs import compare_runs, matrix_difference, score_differences
from realign_utils.compare_text import as_data, lines_of
from realign_utils.errors import UserError
from realign_utils.matrices import write_matrix
from realign_utils.run_files import read_run

NAMES = list("abcde")


def make_run(folder: Path, *, shift: float = 0.0, members: str = "abc", k: int = 3) -> Path:
    """A run of five models: one matrix, one submission, one set of images."""
    similarity = np.full((5, 5), 0.8) + 0.2 * np.eye(5)
    similarity[0, 1] = similarity[1, 0] = 0.9 + shift
    write_matrix(folder / "cka" / "proxy_biased.csv", NAMES, similarity)
    rows = [("proxy", "biased", "S1", 0.83 + shift / 3, 0.01)]
    columns = ["images", "estimator", "submission", "mean", "standard_error"]
    write(folder / "submission_intervals.csv", pd.DataFrame(rows, columns=columns))
    write(folder / "submissions" / "S1.csv", pd.DataFrame({"model": list(members)}))
    features = {"images": "proxy", "model": NAMES, "file": [f"{n}.safetensors" for n in NAMES]}
    write(
        folder / "features.csv",
        pd.DataFrame(features).assign(seconds=len(str(folder)) * np.arange(5)),
    )
    write(folder / "images" / "proxy.csv", pd.DataFrame({"sha256": ["1", "2", "3"]}))
    write(folder / "regret.csv", pd.DataFrame({"way": ["one"], "regret": [0.1 + shift]}))
    parameters = {"profile": folder.name, "runs": str(folder), "k": k, "zoo": {"epochs": k}}
    (folder / "parameters.yaml").write_text(yaml.safe_dump(parameters))
    record = {"commit": "c0", "packages": {"torch": "2.0"}, "started": folder.name}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def write(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def command(*arguments: object) -> int:
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def test_equal_runs_differ_in_nothing_and_exit_with_0(tmp_path: Path, capsys) -> None:
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    assert command("compare", *runs) == 0
    told = capsys.readouterr().out
    assert told.startswith("no number differs\n")
    assert "why" not in told


def test_a_change_that_nothing_on_record_explains_is_told_as_such(tmp_path: Path, capsys) -> None:
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two", shift=0.03)
    assert command("compare", *runs) == 1
    assert "why: nothing on record explains a change" in capsys.readouterr().out


def test_every_change_is_told_with_its_size_and_its_reason(tmp_path: Path, capsys) -> None:
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two", shift=0.03, members="abd", k=4)
    assert command("compare", *runs, "--json", tmp_path / "d.json") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "what differs: sets 1, scores 1, matrices 1, other files 1"
    assert "  S1: 2 models in both; only in the first: c; only in the second: d" in lines
    told = "S1 on proxy (biased): 0.8300 -> 0.8400 (+0.0100, +1.00 standard errors)"
    assert f"  {told}" in lines
    assert "  cka/proxy_biased.csv: up to 0.03 (a and b), +0.003 on average" in lines
    assert "  regret.csv: regret: 1 of 1, by up to 0.03" in lines
    assert {"  parameter k: 3 -> 4", "  parameter zoo.epochs: 3 -> 4"} <= set(lines)
    assert lines.index("scores:") < lines.index("matrices:") < lines.index("why:")
    assert json.loads((tmp_path / "d.json").read_text())["scores"][0]["change"] == pytest.approx(
        0.01
    )


def test_places_and_names_of_a_run_explain_nothing(tmp_path: Path) -> None:
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    assert not len(compare_runs(*map(read_run, runs)).why)


def altered(tmp_path: Path, path: str, old: str, new: str) -> list[str]:
    """What is told where one text of one file differs between two runs."""
    one = make_run(tmp_path / "one")
    two = Path(shutil.copytree(one, tmp_path / "two"))
    text = (two / path).read_text()
    assert old in text
    (two / path).write_text(text.replace(old, new))
    return lines_of(compare_runs(read_run(one), read_run(two)))


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        ("run.json", '"2.0"', '"2.1"', "version torch: 2.0 -> 2.1"),
        ("run.json", "c0", "c1", "code commit: c0 -> c1"),
        ("images/proxy.csv", "3", "4", "images proxy: 3 images -> 3 images, 2 of them the first's"),
        ("images/proxy.csv", "2\n3", "3\n2", "3 of them the first's, in another order"),
        ("features.csv", "e,e.", "f,e.", "models only in one run: e -> f"),
        ("features.csv", "e.safe", "x.safe",
         "models features on proxy:  -> 1 of 5 made of other ingredients"),
    ],
)  # fmt: skip
def test_a_reason_alone_is_told_and_no_number_differs(tmp_path, path, old, new, told) -> None:
    lines = altered(tmp_path, path, old, new)
    assert lines[0] == "no number differs"
    assert any(told in line for line in lines[lines.index("differs on record:") :])


def test_a_verdict_that_turns_is_told(tmp_path: Path) -> None:
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    for folder, verdict in zip(runs, ("holds", "does not hold"), strict=True):
        write(folder / "scorecard.csv", pd.DataFrame({"claim": ["c1"], "verdict": [verdict]}))
    assert "  scorecard.csv, c1: holds -> does not hold" in lines_of(
        compare_runs(*map(read_run, runs))
    )


def test_rounding_is_no_change() -> None:
    columns = ["images", "estimator", "submission", "mean", "standard_error"]
    one = pd.DataFrame(
        [("p", "biased", "S1", 0.5, 0.1), ("p", "biased", "S2", np.nan, np.nan)], columns=columns
    )
    assert not len(score_differences(one, one.assign(mean=one["mean"] + 1e-12)))
    assert len(score_differences(one, one.assign(mean=one["mean"] + 1e-6))) == 1


def test_matrices_are_compared_over_the_models_that_both_have() -> None:
    one = pd.DataFrame(
        [["a", 1, 0.5, 0.2], ["b", 0.5, 1, 0.3], ["c", 0.2, 0.3, 1]], columns=["model", *"abc"]
    )
    other = pd.DataFrame([["c", 1, 0.1], ["a", 0.1, 1]], columns=["model", *"ca"])
    found = matrix_difference(one, other)
    assert (found["models"], found["pair"]) == (2, "a and c")
    assert found["largest"] == pytest.approx(0.1)


def test_a_file_of_one_run_only_is_named_and_data_say_the_same(tmp_path: Path) -> None:
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    (runs[0] / "regret.csv").unlink()
    found = compare_runs(*map(read_run, runs))
    assert found.tables == [("regret.csv", "only in second")]
    assert json.loads(json.dumps(as_data(found)))["differ"] is True


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [("run.json", None, "holds no run: run.json is missing"), ("run.json", "{", "is damaged"),
     ("parameters.yaml", "- 1", "is damaged"), ("regret.csv", '"a,b', "regret.csv is damaged"),
     ("submission_intervals.csv", "images\nproxy\n", "submission_intervals.csv is damaged")],
)  # fmt: skip
def test_a_missing_or_damaged_run_is_one_line(tmp_path, capsys, path, content, told) -> None:
    runs = make_run(tmp_path / "one"), make_run(tmp_path / "two")
    (runs[1] / path).unlink() if content is None else (runs[1] / path).write_text(content)
    assert command("compare", *runs) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_what_is_neither_folder_nor_profile_is_told(tmp_path: Path, capsys) -> None:
    assert command("compare", tmp_path / "absent", "demo") == 2
    assert "no such folder of results" in capsys.readouterr().err
    assert command("compare", "demoo", "demo") == 2
    assert "did you mean 'demo'?" in capsys.readouterr().err


def test_a_run_of_no_matrix_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one")
    (run / "failures.csv").write_text("")
    assert read_run(run).tables["failures.csv"].empty
    with pytest.raises(UserError, match="holds no run"):
        read_run(tmp_path)
