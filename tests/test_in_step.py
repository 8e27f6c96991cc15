"""Files of two different choices of sets are never mixed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from realign_utils.errors import UserError
from realign_utils.in_step import require_choice, require_in_step, require_reference
from realign_utils.matrices import write_matrix
from realign_utils.results import read_table

NAMES = ("a", "b", "c", "d")
SUBMISSIONS = {"S1": {"pool": "full"}, "S2": {"models": ["c", "d"]}}
SETS = {"S1": ["a", "b", "c"], "S2": ["c", "d"]}
IMAGES = ("coarse", "evaluation")


def similarity(seed: int) -> np.ndarray:
    matrix = np.random.default_rng(seed).uniform(0.2, 0.9, (4, 4))
    matrix = (matrix + matrix.T) / 2
    np.fill_diagonal(matrix, 1)
    return matrix


def score(images: str, models: list[str]) -> float:
    matrix = similarity(IMAGES.index(images))
    rows = [NAMES.index(model) for model in models]
    return float(np.mean([matrix[i, j] for i in rows for j in rows if i < j]))


def select(runs: Path, sets: dict[str, list[str]]) -> None:
    """What `3_select` leaves."""
    rows = []
    for name, models in sets.items():
        pd.DataFrame({"model": models}).to_csv(runs / "submissions" / f"{name}.csv")
        pool = SUBMISSIONS[name].get("pool", "fixed list")
        row = {"submission": name, "pool": pool, "models": len(models)}
        rows.append(row | {"coarse": score("coarse", models)})
    pd.DataFrame(rows).to_csv(runs / "submissions.csv", index=False)


def calibrate(runs: Path, sets: dict[str, list[str]]) -> None:
    """What `4_calibrate` leaves."""
    table = pd.DataFrame({i: {n: score(i, m) for n, m in sets.items()} for i in IMAGES})
    means = table.rename_axis("submission").reset_index().melt("submission", var_name="images")
    means = means.rename(columns={"value": "mean"}).assign(estimator="biased")
    means.to_csv(runs / "submission_intervals.csv", index=False)
    predicted = means[means["images"] == "coarse"]
    predicted = predicted.rename(columns={"images": "proxy", "mean": "score"})
    predicted.to_csv(runs / "predictions.csv", index=False)
    table = table.assign(real=table["evaluation"], ratio=table["evaluation"] / table["coarse"])
    table["reference_proxy"] = "coarse"
    table.to_csv(runs / "calibration.csv", index_label="submission")


def draw(runs: Path, sets: dict[str, list[str]]) -> None:
    """What `5_figures` leaves."""
    panels = []
    for images in IMAGES:
        for name, models in sets.items():
            rows = [NAMES.index(model) for model in models]
            values = similarity(IMAGES.index(images))[np.ix_(rows, rows)].round(3)
            panel = {"title": f"{name} on {images}", "names": models, "values": values.tolist()}
            panels.append(panel)
    (runs / "overview.json").write_text(json.dumps(panels))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for folder in ("cka", "submissions"):
        (tmp_path / folder).mkdir()
    for seed, images in enumerate(IMAGES):
        write_matrix(tmp_path / "cka" / f"{images}_biased.csv", NAMES, similarity(seed))
    for leave in (select, calibrate, draw):
        leave(tmp_path, SETS)
    return tmp_path


def test_files_of_one_run_belong_together(runs: Path) -> None:
    require_choice(runs, 3, SUBMISSIONS)
    require_in_step(runs, "biased", figures=runs)
    require_reference(runs, "coarse")


OTHERS = {"S1": ["a", "b"], "S2": SETS["S2"]}


def test_other_sets_than_were_scored_are_told_with_the_notebook_to_run(runs: Path) -> None:
    select(runs, OTHERS)
    require_in_step(runs, "biased", last="3_select")
    told = r"calibration.csv is .*\(S1 on coarse: 0.\d+, but its 2 models .*run 4_calibrate again"
    with pytest.raises(UserError, match=told):
        require_in_step(runs, "biased")
    calibrate(runs, OTHERS)
    require_in_step(runs, "biased")
    with pytest.raises(UserError, match=r"overview.json is not .*: run 5_figures again"):
        require_in_step(runs, "biased", figures=runs)


def test_another_model_of_as_many_is_noticed(runs: Path) -> None:
    select(runs, SETS | {"S1": ["a", "b", "d"]})
    with pytest.raises(UserError, match="run 4_calibrate again"):
        require_in_step(runs, "biased")


@pytest.mark.parametrize("file", ["submission_intervals.csv", "predictions.csv"])
def test_a_calibration_that_was_broken_off_is_noticed(runs: Path, file: str) -> None:
    before = (runs / file).read_text()
    select(runs, OTHERS)
    calibrate(runs, OTHERS)
    (runs / file).write_text(before)
    with pytest.raises(UserError, match=f"{file} is not .*: run 4_calibrate again"):
        require_in_step(runs, "biased")


def test_other_matrices_ask_for_another_selection(runs: Path) -> None:
    write_matrix(runs / "cka" / "coarse_biased.csv", NAMES, similarity(7))
    with pytest.raises(UserError, match=r"submissions.csv is not .*: run 3_select again"):
        require_in_step(runs, "biased")
    write_matrix(runs / "cka" / "coarse_biased.csv", NAMES[:3], similarity(0)[:3, :3])
    with pytest.raises(UserError, match=r"S2 holds d, which cka/coarse_biased.csv has not"):
        require_in_step(runs, "biased")


def test_a_submission_more_or_less_is_named(runs: Path) -> None:
    select(runs, {"S1": SETS["S1"]})
    with pytest.raises(UserError, match=r"calibration.csv holds S1, S2, but 3_select chose S1: "):
        require_in_step(runs, "biased")
    with pytest.raises(
        UserError, match=r"submissions.csv holds S1, but the submissions are S1, S2"
    ):
        require_choice(runs, 3, SUBMISSIONS)
    calibrate(runs, {"S1": SETS["S1"]})
    with pytest.raises(UserError, match=r"overview.json has S2 on coarse, .*run 5_figures again"):
        require_in_step(runs, "biased", figures=runs)


def test_another_k_or_pool_than_the_parameters_say_is_told(runs: Path) -> None:
    with pytest.raises(UserError, match="S1 was chosen with 3 models, but k is 8: run 3_select"):
        require_choice(runs, 8, SUBMISSIONS)
    with pytest.raises(UserError, match="S1 was chosen from full, but its pool is cnn: run 3_sel"):
        require_choice(runs, 3, SUBMISSIONS | {"S1": {"pool": "cnn"}})


def test_another_reference_proxy_is_told_where_no_score_is_real(runs: Path) -> None:
    table = pd.read_csv(runs / "calibration.csv")
    table.assign(real=np.nan, ratio=np.nan).to_csv(runs / "calibration.csv", index=False)
    require_reference(runs, "coarse")
    with pytest.raises(UserError, match="proxy is coarse, not fine: run 4_calibrate again with"):
        require_reference(runs, "fine")
    table.drop(columns="reference_proxy").to_csv(runs / "calibration.csv", index=False)
    with pytest.raises(UserError, match="proxy is not recorded, not coarse: run 4_calibrate"):
        require_reference(runs, "coarse")


MORE = SETS | {"S3": ["a", "d"]}


def test_a_figure_without_a_submission_that_came_later_is_told(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SUBMISSIONS, "S3", {"pool": "full"})
    select(runs, MORE)
    calibrate(runs, MORE)
    require_in_step(runs, "biased")
    with pytest.raises(
        UserError, match=r"overview.json has nothing of S3 on coarse: run 5_figures"
    ):
        require_in_step(runs, "biased", figures=runs)


@pytest.mark.parametrize("file", ["submission_intervals.csv", "predictions.csv"])
def test_a_table_of_scores_without_a_submission_is_told(runs: Path, file: str) -> None:
    table = pd.read_csv(runs / file)
    table[table["submission"] != "S2"].to_csv(runs / file, index=False)
    with pytest.raises(UserError, match=f"{file} has nothing of S2 on coarse: run 4_calibrate"):
        require_in_step(runs, "biased")
    (runs / file).write_text("\n")
    with pytest.raises(UserError, match=f"{file} has nothing of S1 on coarse: run 4_calibrate"):
        require_in_step(runs, "biased")


def test_a_proxy_alone_predicts_nothing(runs: Path) -> None:
    for file, column in (("calibration.csv", None), ("submission_intervals.csv", "images")):
        table = pd.read_csv(runs / file)
        held_out = table[table[column] != "evaluation"] if column else table
        held_out.drop(columns="evaluation", errors="ignore").to_csv(runs / file, index=False)
    (runs / "predictions.csv").write_text("submission,proxy,score\n")
    require_in_step(runs, "biased")


def test_a_proxy_of_another_name_is_told_with_the_notebook_to_run(runs: Path) -> None:
    require_in_step(runs, "biased", proxies=["coarse"])
    told = "submissions.csv has scores on coarse, but the proxies are fine: run 3_select again"
    with pytest.raises(UserError, match=told):
        require_in_step(runs, "biased", proxies=["fine"])
    (runs / "cka" / "coarse_biased.csv").rename(runs / "cka" / "fine_biased.csv")
    told = "submissions.csv has scores on coarse, but cka/coarse_biased.csv is missing: run 2_cka"
    with pytest.raises(UserError, match=told):
        require_in_step(runs, "biased")
    table = pd.read_csv(runs / "submissions.csv").rename(columns={"coarse": "fine"})
    table.to_csv(runs / "submissions.csv", index=False)
    told = "calibration.csv has scores on coarse, evaluation, but submissions.csv on fine: run 4_c"
    with pytest.raises(UserError, match=told):
        require_in_step(runs, "biased")


def test_a_matrix_of_the_name_of_a_column_is_no_set_of_images(runs: Path) -> None:
    write_matrix(runs / "cka" / "models_biased.csv", NAMES, similarity(5))
    require_in_step(runs, "biased")


def test_names_that_look_like_numbers_or_like_nothing_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "submissions").mkdir()
    submissions = {"1": {"pool": "None"}, "NA": {"pool": "1"}, "nan": {"models": ["1", "null"]}}
    rows = [(name, each.get("pool", "fixed list"), 2) for name, each in submissions.items()]
    table = pd.DataFrame(rows, columns=["submission", "pool", "models"])
    table.to_csv(tmp_path / "submissions.csv", index=False)
    require_choice(tmp_path, 2, submissions)
    table = pd.DataFrame({"model": ["1", "null"], "params_m": [0.5, None]})
    table.to_csv(tmp_path / "submissions" / "1.csv", index=False)
    table = read_table(tmp_path / "submissions" / "1.csv", "3_select")
    assert table["model"].tolist() == ["1", "null"]
    assert table["params_m"].isna().tolist() == [False, True]
    (tmp_path / "proxy_quality.csv").write_text("proxy,images\n1,500\n")
    table = read_table(tmp_path / "proxy_quality.csv", "4_calibrate")
    assert table.loc[0].tolist() == ["1", 500]
