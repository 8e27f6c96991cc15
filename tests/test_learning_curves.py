from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from realign_utils.comparison import compare
from realign_utils.learning_curves import (
    against_images,
    few_and_many_sentence,
    learning_curves,
    steady_from,
    steady_sentence,
)

SETS = {"S1": ["a", "b"], "S2": ["c", "d", "e"]}
COLUMNS = ["images", "estimator", "n", "submission", "mean"]


def make_comparison(n, sizes):
    """Five models on the first n of the same images."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(160, 6))
    features = [
        (latent @ generator.normal(size=(6, 30)) + noise * generator.normal(size=(160, 30)))[:n]
        for noise in (0.5, 0.5, 2, 2, 2)
    ]
    return compare(features, names=list("abcde"), resamples=40, sizes=sizes)


@pytest.fixture(name="comparisons", scope="module")
def some_comparisons():
    return {"one": make_comparison(80, [20, 40])}


@pytest.fixture(name="larger", scope="module")
def a_larger_set():
    return {"one": make_comparison(160, [20, 120])}


def test_few_and_many_images_stand_side_by_side(comparisons):
    curves = learning_curves(comparisons, SETS)
    table = against_images(curves, "one", [20, 500])
    assert list(table["n"].unique()) == [20, 80]
    many = table[(table["submission"] == "S2") & (table["n"] == 80)].iloc[0]
    models = SETS["S2"]
    assert many["biased"] == pytest.approx(comparisons["one"]["biased"].mean(models).estimate)
    assert many["debiased"] == pytest.approx(comparisons["one"]["debiased"].mean(models).estimate)


def test_a_larger_set_goes_on_where_the_proxy_s_own_images_end(comparisons, larger):
    own, longer = learning_curves(comparisons, SETS), learning_curves(comparisons, SETS, larger)
    part = longer[(longer["submission"] == "S2") & (longer["estimator"] == "debiased")]
    assert list(part["n"]) == [20, 40, 80, 120, 160]
    assert part["mean"].iloc[-1] == larger["one"]["debiased"].mean(SETS["S2"]).estimate
    pd.testing.assert_frame_equal(longer[longer["n"] <= 80].reset_index(drop=True), own)


def test_few_own_and_most_images_stand_side_by_side(comparisons, larger):
    curves = learning_curves(comparisons, SETS, larger)
    table = against_images(curves, "one", [20, 80])
    assert list(table["n"].unique()) == [20, 80, 160]
    text = few_and_many_sentence(table)
    wide = table.pivot(index="submission", columns="n", values="biased")
    moved = wide[160] - wide[80]
    assert f"From 80 to 160 images the biased scores change by {moved.min():+.4f} to" in text
    assert "At 160 images" in text


def test_of_one_number_of_images_only_its_own_errors_are_told(comparisons):
    curves = learning_curves(comparisons, SETS)
    text = few_and_many_sentence(against_images(curves, "one", []))
    assert text.startswith("At 80 images the biased estimate")


def make_curves(means, low, *, chosen=False):
    """Curves of two submissions, and the interval of S2's lead."""
    rows = [
        ("p", "biased", n, name, mean)
        for n, pair in means.items()
        for name, mean in zip(("S1", "S2"), pair, strict=True)
    ]
    columns = ["images", "estimator", "first", "second", "low", "high", "chosen_here"]
    gaps = [("p", "biased", "S2", "S1", low, 1.5, chosen)]
    return pd.DataFrame(rows, columns=COLUMNS), pd.DataFrame(gaps, columns=columns)


FALLING = {10: (1, 2), 20: (2, 1), 40: (1, 2), 80: (3, 4)}


@pytest.mark.parametrize(("low", "number"), [(0.5, 40), (-0.5, None), (np.nan, None)])
def test_a_sure_order_is_steady_from_the_last_change_on(low, number):
    assert steady_from(*make_curves(FALLING, low), "p", "biased") == number


def test_leads_of_sets_chosen_on_the_images_are_not_followed():
    curves, gaps = make_curves(FALLING, 0.5, chosen=True)
    assert steady_from(curves, gaps, "p", "biased") is None
    assert "no lead is sure (`p`, 0 sure)" in steady_sentence(curves, gaps, "biased")


def test_a_sure_lead_that_more_images_turn_is_told():
    curves, gaps = make_curves(FALLING | {160: (4, 3)}, 0.5)
    assert steady_from(curves, gaps, "p", "biased") is None
    assert "turned with the most images (`p`, 1 sure)" in steady_sentence(curves, gaps, "biased")
