"""What to expect of a set of models not seen before, and whether the interval is honest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from worlds import symmetric

from realign_utils.calibration_results import prediction_sentence, predictions_shown
from realign_utils.prediction import (
    PREDICTED,
    PREDICTORS,
    QUALITY,
    World,
    coverage,
    divide,
    errors_on_others,
    prediction_tables,
    reach_of,
)

MECHANISMS = np.repeat(["attention", "convolution", "hybrid"], 13)


def matrices(seed: int, *, bonus: float = 0.0, models: int = 39) -> tuple[np.ndarray, np.ndarray]:
    """A proxy, and a judge on whose images each model is off by something of its own."""
    rng = np.random.default_rng(seed)
    quality, off = rng.normal(0, 0.05, models), rng.normal(0, 0.02, models)
    proxy = 0.6 + np.add.outer(quality, quality) + symmetric(rng, models, 0.02)[0]
    alike = np.equal.outer(MECHANISMS[:models], MECHANISMS[:models])
    return proxy, 0.9 * proxy + np.add.outer(off, off) + bonus * alike


def test_parts_are_disjoint_hold_all_and_have_like_numbers_of_each_mechanism() -> None:
    parts = divide(np.arange(39), MECHANISMS, 3, 0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(39))
    for part in parts:
        assert {*np.unique(MECHANISMS[part], return_counts=True)[1].tolist()} <= {4, 5}


@pytest.mark.parametrize("seed", [0, 1])
def test_the_interval_covers_sets_of_models_that_were_set_aside(seed: int) -> None:
    world = World(*matrices(seed), MECHANISMS, 8)
    found = coverage(world, splits=10, inner=6, seed=seed)
    assert found.loc["proxy", "coverage"] > 0.9


def test_the_usual_interval_of_a_regression_is_too_narrow_for_other_models() -> None:
    world = World(*matrices(3), MECHANISMS, 8)
    everything = np.arange(39)
    sets = world.sets(everything, 0)
    inside = world.errors(world.fit(sets, "proxy"), sets, "proxy")
    unseen = errors_on_others(world, everything, splits=10, seed=0)["proxy"]
    assert reach_of(unseen) > 1.2 * reach_of(inside)


def test_a_proxy_that_tells_nothing_is_worth_nothing_and_a_good_one_much() -> None:
    proxy, judge = matrices(4)
    useless = 0.5 + symmetric(np.random.default_rng(5), 39, 0.05)[0]
    everything, worth = np.arange(39), {}
    for name, one in {"good": proxy, "useless": useless}.items():
        errors = errors_on_others(World(one, judge, MECHANISMS, 8), everything, splits=8, seed=0)
        worth[name] = np.sqrt(np.mean(errors["proxy"] ** 2) / np.mean(errors["nothing"] ** 2))
    assert worth["good"] < 0.7
    assert worth["useless"] > 0.9


def test_homogeneity_is_used_where_it_helps() -> None:
    world = World(*matrices(6, bonus=0.1), MECHANISMS, 8)
    errors = errors_on_others(world, np.arange(39), splits=8, seed=0)
    assert np.mean(errors["proxy and homogeneity"] ** 2) < 0.7 * np.mean(errors["proxy"] ** 2)


def test_homogeneity_alone_is_a_predictor_and_stands_beside_the_proxy() -> None:
    proxy = 0.5 + symmetric(np.random.default_rng(5), 39, 0.05)[0]
    judge = 0.5 + 0.3 * np.equal.outer(MECHANISMS, MECHANISMS)
    given = {"p": proxy, "evaluation": judge}
    quality = prediction_tables(given, ["p"], MECHANISMS, {"S": range(8)}, splits=6)[0]
    rows = quality.set_index("predictors")
    assert rows.loc["homogeneity", "over_proxy_high"] < 0
    assert rows.loc["homogeneity", "of_homogeneity"] == pytest.approx(0.3)
    assert np.isnan(rows.loc["homogeneity", "slope"])
    assert rows.loc["proxy", "over_proxy"] == 0
    gap = rows.loc["homogeneity", "error"] - rows.loc["proxy", "error"]
    assert rows.loc["homogeneity", "over_proxy"] == pytest.approx(gap)


def test_a_submission_is_expected_by_sets_of_other_models_alone() -> None:
    proxy, judge = matrices(7)
    changed = judge.copy()
    changed[:8, :8] -= 0.3  # its own pairs only
    tables = [
        prediction_tables(
            {"p": proxy, "evaluation": j}, ["p"], MECHANISMS, {"S": range(8)}, splits=4
        )[1]
        for j in (judge, changed)
    ]
    assert list(tables[0].columns) == PREDICTED
    rows = [table.iloc[0] for table in tables]
    assert rows[0]["predicted"] == pytest.approx(rows[1]["predicted"])
    assert rows[0]["inside"]
    assert not rows[1]["inside"]


def test_too_few_models_give_no_interval_and_say_so() -> None:
    proxy, judge = matrices(8, models=10)
    given = {"p": proxy, "evaluation": judge}
    quality, predictions = prediction_tables(given, ["p"], MECHANISMS[:10], {"S": range(4)})
    assert list(quality.columns) == QUALITY
    assert quality["predictors"].tolist() == list(PREDICTORS)
    assert quality["reach"].isna().all()
    assert predictions[["low", "inside"]].isna().all(axis=None)
    assert predictions_shown(predictions)["inside"].tolist() == [""]
    assert "too few models" in prediction_sentence(quality, predictions, "p")


def test_where_too_few_models_can_be_set_aside_the_interval_stands_without_its_coverage() -> None:
    proxy, judge = matrices(8, models=14)
    given = {"p": proxy, "evaluation": judge}
    tables = prediction_tables(given, ["p"], MECHANISMS[:14], {"S": range(4)}, splits=4)
    assert tables[0]["reach"].notna().all()
    assert tables[0]["coverage"].isna().all()
    text = prediction_sentence(*tables, "p")
    assert "how many it holds is not known" in text
    assert "nan" not in text


def test_without_a_judge_there_is_nothing_to_predict() -> None:
    tables = prediction_tables({"p": matrices(9)[0]}, ["p"], MECHANISMS, {"S": range(4)})
    assert all(table.empty for table in tables)
    assert "too few models" in prediction_sentence(pd.DataFrame(columns=QUALITY), tables[1], "p")
