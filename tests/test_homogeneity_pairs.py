"""Homogeneity against capacity: an analysis that can say no, and does where it should."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from worlds import resampled, symmetric, world

from realign_utils.dyads import coefficient, mrqap, pair_places, with_constant
from realign_utils.homogeneity_pairs import (
    PAIRS,
    capacity_relations,
    holm,
    homogeneity_pairs_table,
    verdict_on_homogeneity,
)
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE


def analysed(seed: int, **causes: float) -> pd.DataFrame:
    """The analysis of a world, by what it is adjusted for."""
    truth, mechanisms, params = world(seed, **causes)
    compared = {"proxy": {"biased": resampled(truth, 0.01, seed)}}
    capacity = {"params_m": params, "dimension": np.ones(len(params)) + np.arange(len(params))}
    table = homogeneity_pairs_table(
        compared, {"mechanism": mechanisms}, capacity, reference_proxy="proxy", permutations=199
    )
    return table.set_index("adjusted_for")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_capacity_alone_makes_models_alike_the_analysis_says_so(seed: int) -> None:
    found = analysed(seed, by_kind=0.0, by_capacity=0.05)
    assert found.loc["nothing", "verdict"] == HOLDS  # within is above between, and surely
    assert found.loc["capacity", "verdict"] == FAILS
    assert abs(found.loc["capacity", "share_left"]) < 0.5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_homogeneity_makes_models_alike_the_analysis_says_so(seed: int) -> None:
    found = analysed(seed, by_kind=0.08, by_capacity=0.05)
    beside = found.loc["capacity"]
    assert beside["verdict"] == HOLDS
    assert beside["p"] <= 0.05
    assert beside["low"] < 0.08 < beside["high"]


def test_where_being_of_one_kind_makes_models_less_alike_the_analysis_says_so() -> None:
    beside = analysed(4, by_kind=-0.06, by_capacity=0.05).loc["capacity"]
    assert beside["high"] < 0
    assert beside["verdict"] == FAILS


def rate(causes: dict[str, float], worlds: int) -> float:
    """Share of worlds in which the coefficient beside capacity has p of 0.05 or less."""
    found = []
    for seed in range(worlds):
        similarity, mechanisms, params = world(seed, models=20, **causes)
        alike = np.equal.outer(mechanisms, mechanisms).astype(float)
        test = mrqap(similarity, alike, capacity_relations(params), permutations=99, seed=seed)
        found.append(test.p <= 0.05)
    return float(np.mean(found))


def test_the_permutation_test_errs_as_often_as_it_says() -> None:
    # three standard errors of a rate of 0.05 in 400 worlds are 0.033 (1,500 worlds gave 0.053)
    assert 0.017 <= rate({"by_kind": 0.0, "by_capacity": 0.05}, 400) <= 0.083


def test_the_permutation_test_finds_what_there_is() -> None:
    assert rate({"by_kind": 0.08, "by_capacity": 0.05}, 40) > 0.9


def test_the_coefficient_is_that_of_least_squares() -> None:
    rng, places = np.random.default_rng(0), pair_places(12)
    outcome, first, second, third = symmetric(rng, 12, 1.0, 4)[:, *places]
    rest = with_constant([second, third], len(outcome))
    whole = np.linalg.lstsq(np.column_stack([first, rest]), outcome, rcond=None)[0]
    assert coefficient(outcome, first, rest) == pytest.approx(whole[0])


def test_a_regressor_that_follows_from_the_others_has_no_coefficient() -> None:
    rng = np.random.default_rng(0)
    outcome, first = symmetric(rng, 10, 1.0, 2)
    found = mrqap(outcome, first, [2 * first + 1])
    assert np.isnan(found.coefficient)
    assert np.isnan(found.p)


def test_the_test_does_not_depend_on_the_order_of_the_models() -> None:
    similarity, mechanisms, params = world(5, by_kind=0.01, by_capacity=0.05)
    alike, order = (
        np.equal.outer(mechanisms, mechanisms) * 1.0,
        np.random.default_rng(1).permutation(40),
    )
    turned = np.ix_(order, order)
    one = mrqap(similarity, alike, capacity_relations(params))
    other = mrqap(similarity[turned], alike[turned], capacity_relations(params[order]))
    assert other.coefficient == pytest.approx(one.coefficient)
    assert other.partial == pytest.approx(one.partial)
    assert other.p == pytest.approx(one.p, abs=0.1)


def test_given_a_proxy_that_says_all_nothing_is_left_for_the_kind() -> None:
    truth, mechanisms, params = world(6, by_kind=0.08, by_capacity=0.05)
    compared = {
        n: {"biased": resampled(truth, 0.001, s)} for s, n in enumerate(["proxy", "evaluation"])
    }
    table = homogeneity_pairs_table(
        compared, {"mechanism": mechanisms}, {"params_m": params, "dimension": params ** 0.5 + 1},
        reference_proxy="proxy", permutations=99,
    )  # fmt: skip
    left = table[(table["given"] == "proxy") & (table["adjusted_for"] == "capacity")].iloc[0]
    assert list(table.columns) == PAIRS
    assert left["images"] == "evaluation"
    assert abs(left["difference"]) < 0.002


def test_kinds_without_a_pair_within_or_between_are_left_out() -> None:
    truth, _, params = world(7, models=10, by_kind=0.0, by_capacity=0.05)
    kinds = {"same": ["a"] * 10, "own": [f"f{i}" for i in range(10)]}
    compared = {"proxy": {"biased": resampled(truth, 0.01, 0)}}
    capacity = {"params_m": params, "dimension": params}
    table = homogeneity_pairs_table(compared, kinds, capacity, reference_proxy="proxy")
    assert table.empty
    assert list(table.columns) == PAIRS


@pytest.mark.parametrize(
    ("plain", "low", "high", "p", "expected"),
    [
        (0.1, 0.05, 0.15, 0.01, HOLDS),
        (0.1, 0.05, 0.15, 0.2, CLOSE),
        (0.1, -0.02, 0.04, 0.5, FAILS),
        (0.1, -0.02, 0.08, 0.5, CLOSE),
        (0.1, -0.2, -0.01, 0.01, FAILS),
        (-0.1, -0.2, 0.01, 0.2, CLOSE),
        (0.1, np.nan, np.nan, 0.2, UNTESTABLE),
    ],
)
def test_the_verdict_follows_from_interval_and_test(
    plain: float, low: float, high: float, p: float, expected: str
) -> None:
    assert verdict_on_homogeneity(plain, low, high, p) == expected


def test_holm_raises_each_level_by_the_tests_that_are_left() -> None:
    assert holm(np.array([0.04, 0.01, np.nan, 0.03])) == pytest.approx(
        [0.06, 0.03, np.nan, 0.06], nan_ok=True
    )
    assert holm(np.array([0.9, 0.8])).max() == 1


def test_a_verdict_stands_only_with_all_tests_of_its_table_considered() -> None:
    truth, mechanisms, params = world(1, models=20, by_kind=0.0, by_capacity=0.0)
    errors = symmetric(np.random.default_rng(0), 20, 0.05, 6)
    compared = {
        f"images {i}": {"biased": resampled(truth + error, 0.001, i)}
        for i, error in enumerate(errors)
    }
    capacity = {"params_m": params, "dimension": params + 1}
    options = {"reference_proxy": "images 0", "permutations": 199}
    table = homogeneity_pairs_table(compared, {"mechanism": mechanisms}, capacity, **options)
    key = [table["given"] != "", table["adjusted_for"]]
    assert (table["p_holm"] >= table["p"]).all()
    smallest = table.loc[table.groupby(key)["p"].idxmin()]
    counts = table.groupby(key)["p"].transform("size").loc[smallest.index]
    assert smallest["p_holm"].to_numpy() == pytest.approx(
        np.minimum(smallest["p"] * counts, 1).to_numpy()
    )
    assert (table.loc[table["p_holm"] > 0.05, "verdict"] != HOLDS).all()
