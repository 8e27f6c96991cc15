from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from realign_utils.comparison import compare
from realign_utils.intervals import (
    CLOSE,
    FAILS,
    HOLDS,
    UNTESTABLE,
    against_images,
    apart,
    by_measure,
    call,
    lead_sentence,
    leads,
    learning_curves,
    mean_intervals,
    measure_table,
    order_of,
    paired_calls,
    paired_differences,
    ranks_better,
    steady_from,
    verdict,
    with_image_intervals,
)

SETS = {"S1": ["a", "b"], "S2": ["c", "d", "e"], "S3": ["a", "b", "c"]}


@pytest.fixture(name="comparisons", scope="module")
def some_comparisons():
    """Models a and b see alike, c to e less so; two sets of images."""
    result = {}
    for place, images in enumerate(("one", "two")):
        generator = np.random.default_rng(place)
        latent = generator.normal(size=(80, 6))
        features = [
            latent @ generator.normal(size=(6, 30)) + noise * generator.normal(size=(80, 30))
            for noise in (0.5, 0.5, 2, 2, 2)
        ]
        result[images] = compare(features, names=list("abcde"), resamples=40, sizes=[20, 40])
    return result


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0, 0.1, 0), (np.nan, np.nan, 0)],
)
def test_a_sign_is_called_only_if_the_interval_excludes_zero(low, high, sign):
    assert call(low, high) == sign


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], UNTESTABLE),
        ([1, 1], HOLDS),
        ([1, 0], CLOSE),
        ([1, -1], FAILS),
        ([0, -1], FAILS),
        ([0], CLOSE),
    ],
)
def test_a_statement_on_several_differences_holds_only_if_all_are_sure(calls, expected):
    assert verdict(calls) == expected


def test_means_are_those_of_the_pairs_with_their_interval(comparisons):
    table = mean_intervals(comparisons, SETS)
    row = table[(table["images"] == "two") & (table["submission"] == "S1")].iloc[0]
    pair = comparisons["two"]["biased"]
    assert row["mean"] == pytest.approx(pair.similarity[0, 1].item())
    assert row["low"] == pytest.approx(pair.resamples.low[0, 1].item())
    assert row["chance"] == pytest.approx(pair.chance.mean[0, 1].item())
    assert len(table) == 2 * 2 * 3


def test_differences_name_the_surely_higher_set(comparisons):
    table = paired_differences(comparisons, SETS).set_index(
        ["images", "estimator", "first", "second"]
    )
    row = table.loc[("one", "biased", "S1", "S2")]
    assert row["higher"] == "S1"
    assert 0 < row["low"] < row["difference"] < row["high"]


def test_a_set_against_itself_is_too_close_to_call(comparisons):
    table = paired_differences(comparisons, {"S1": ["a", "b"], "again": ["b", "a"]})
    assert (table["higher"] == CLOSE).all()


def test_calls_go_both_ways_and_only_among_the_named(comparisons):
    table = paired_differences(comparisons, SETS)
    table = table[(table["images"] == "one") & (table["estimator"] == "biased")]
    calls = paired_calls(table, ["S1", "S2"])
    assert calls == {("S1", "S2"): 1, ("S2", "S1"): -1}


@pytest.mark.parametrize(("gap", "sign"), [(0.13, 0), (0.15, 1), (-0.15, -1)])
def test_independent_intervals_are_combined_as_independent(gap, sign):
    first = pd.Series({"mean": 0.5 + gap, "low": 0.4 + gap, "high": 0.6 + gap})
    second = pd.Series({"mean": 0.5, "low": 0.4, "high": 0.6})
    assert apart(first, second) == sign  # reach: 0.1 √2


def test_an_exact_value_has_no_reach():
    exact = pd.Series({"mean": 0.5, "low": 0.5, "high": 0.5})
    assert apart(exact + 1e-6, exact) == 1
    assert apart(exact, exact) == 0


def signs(a, b, c):
    """Of the pairs (1, 2), (1, 3), (2, 3)."""
    return {("1", "2"): a, ("1", "3"): b, ("2", "3"): c}


@pytest.mark.parametrize(
    ("reference", "other", "real", "expected"),
    [
        ((1, 1, 1), (1, 1, -1), (1, 1, 1), HOLDS),
        ((1, 1, -1), (1, 1, 1), (1, 1, 1), FAILS),
        ((1, 1, 1), (1, 1, 1), (1, -1, 1), FAILS),  # not better: alike
        ((1, 1, 1), (1, 1, 1), (0, 0, 0), FAILS),  # alike whatever the truth
        ((1, 1, 1), (1, 1, -1), (1, 1, 0), CLOSE),
        ((1, 1, 0), (1, 1, -1), (1, 1, 1), CLOSE),
        ((1, 1, 1), (-1, -1, 0), (1, 1, 1), HOLDS),
    ],
)
def test_a_proxy_ranks_better_only_if_no_unsure_sign_can_turn_it(reference, other, real, expected):
    assert ranks_better(signs(*reference), signs(*other), signs(*real)) == expected


def test_leads_follow_the_order_and_are_never_negative(comparisons):
    means, gaps = mean_intervals(comparisons, SETS), paired_differences(comparisons, SETS)
    kind = "debiased"
    table = leads(means[means["estimator"] == kind], gaps[gaps["estimator"] == kind])
    assert len(table) == 2 * 2
    assert (table["lead"] >= 0).all()
    assert ((table["low"] < table["lead"]) & (table["lead"] < table["high"])).all()
    one = table[table["images"] == "one"]
    assert list(one["submission"]) == ["S1", "S3"]
    assert list(one["ahead of"]) == ["S3", "S2"]
    assert (one["verdict"] == "sure").all()


def test_an_unsure_lead_says_so(comparisons):
    sets = {"S1": ["c", "d"], "S2": ["d", "e"]}
    means, gaps = mean_intervals(comparisons, sets), paired_differences(comparisons, sets)
    table = leads(means[means["estimator"] == "biased"], gaps[gaps["estimator"] == "biased"])
    unsure = table[table["low"] < 0]
    assert len(unsure)
    assert (unsure["verdict"] == CLOSE).all()


def test_one_submission_has_no_lead_and_the_first_of_several_is_named(comparisons):
    texts = []
    for sets in ({"S1": ["a", "b"]}, SETS):
        means, gaps = mean_intervals(comparisons, sets), paired_differences(comparisons, sets)
        means, gaps = (table[table["estimator"] == "biased"] for table in (means, gaps))
        texts.append(lead_sentence(leads(means, gaps), means, "one"))
    assert texts[0] == "On *one* there is one submission only, and so no lead."
    assert texts[1].startswith("On *one*, S1 is ahead of S3 by ")
    assert "Of the 4 leads" in texts[1]


def test_few_and_many_images_stand_side_by_side(comparisons):
    curves = learning_curves(comparisons, SETS)
    table = against_images(curves, "one", [20, 500])
    assert list(table["n"].unique()) == [20, 80]
    many = table[(table["submission"] == "S2") & (table["n"] == 80)].iloc[0]
    models = SETS["S2"]
    assert many["biased"] == pytest.approx(comparisons["one"]["biased"].mean(models).estimate)
    assert many["debiased"] == pytest.approx(comparisons["one"]["debiased"].mean(models).estimate)


@pytest.mark.parametrize(("low", "number"), [(0.5, 40), (-0.5, None)])
def test_a_sure_order_is_steady_from_the_last_change_on(low, number):
    rows = [
        ("p", "biased", n, name, mean)
        for n, means in {10: (1, 2), 20: (2, 1), 40: (1, 2), 80: (3, 4)}.items()
        for name, mean in zip(("S1", "S2"), means, strict=True)
    ]
    curves = pd.DataFrame(rows, columns=["images", "estimator", "n", "submission", "mean"])
    gap = ("p", "biased", "S2", "S1", low, 1.5)
    gaps = pd.DataFrame([gap], columns=["images", "estimator", "first", "second", "low", "high"])
    assert steady_from(curves, gaps, "p", "biased") == number


def test_measures_are_set_beside_both_estimators_of_cka(comparisons):
    matrices = {name: np.full((2, 2), place / 10) for place, name in enumerate(SETS)}
    measures = measure_table({"RSA": matrices}, "one")
    intervals = mean_intervals({"one": comparisons["one"]}, SETS)
    table = by_measure(intervals, measures).set_index("measure")
    assert list(table.index) == ["biased CKA", "debiased CKA", "RSA"]
    assert table.loc["RSA", "order"] == "S3 > S2 > S1"
    assert table.loc["biased CKA", "agreement"] == 1
    assert table.loc["RSA", "agreement"] == pytest.approx(1 / 3)  # CKA: S1 > S3 > S2


def test_an_order_is_by_descending_value():
    assert order_of(pd.Series({"S1": 0.2, "S2": 0.3, "S3": 0.1})) == "S2 > S1 > S3"


def test_families_get_the_interval_of_other_images(comparisons):
    families = pd.DataFrame({"family": ["pair", "lone"], "images": ["one", "one"]})
    biased = comparisons["one"]["biased"]
    table = with_image_intervals(families, {"one": biased}, {"pair": [0, 1], "lone": [2]})
    assert table["images_low"][0] == pytest.approx(biased.mean(["a", "b"]).low)
    assert table["images_high"].isna().tolist() == [False, True]
