from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
import pytest
import torch

from realign_utils.comparison import compare
from realign_utils.intervals import CLOSE, UNTESTABLE
from realign_utils.measure_tables import by_measure, measure_table, order_of
from realign_utils.score_intervals import (
    chosen_on,
    jackknife_sentence,
    jackknife_table,
    lead_sentence,
    leads,
    mean_intervals,
    paired_differences,
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


def tables(comparisons, sets=SETS, chosen=None, estimator="biased"):
    """Intervals and differences of one estimator."""
    found = (make(comparisons, sets, chosen) for make in (mean_intervals, paired_differences))
    return [table[table["estimator"] == estimator] for table in found]


def test_one_submission_has_no_lead_and_the_first_of_several_is_named(comparisons):
    texts = []
    for sets in ({"S1": ["a", "b"]}, SETS):
        means, gaps = tables(comparisons, sets)
        texts.append(lead_sentence(leads(means, gaps), means, "one"))
    assert texts[0] == "On *one* there is one submission only, and so no lead."
    assert texts[1].startswith("On *one*, S1 is ahead of S3 by ")
    assert "Of the 4 leads" in texts[1]
    assert "of the other 4, 4 are sure, where 0.2 would be by chance" in texts[1]


def test_a_set_was_chosen_on_the_proxies_that_it_weighs():
    submissions = {
        "S1": {"proxies": {"one": 1.0, "two": 0.0}},
        "S2": {"proxies": None},
        "S3": {"proxies": {"one": 0.5, "two": 0.5}},
        "S4": {},
    }
    assert chosen_on(submissions) == {"S1": {"one"}, "S2": set(), "S3": {"one", "two"}, "S4": set()}


def test_leads_of_sets_chosen_on_the_very_images_are_marked_and_not_counted(comparisons):
    means, gaps = tables(comparisons, chosen={"S1": {"one"}})
    marked = means.loc[means["chosen_here"], ["images", "submission"]].values.tolist()
    assert marked == [["one", "S1"]]
    table = leads(means, gaps)
    assert table["chosen here"].tolist() == [True, False, False, False]  # S1 > S3 > S2
    text = lead_sentence(table, means, "one")
    assert "which is sure, though one of them was chosen on these images" in text
    assert "1 have a set that was chosen on the very images; of the other 3, 3 are sure" in text


def without_spread(comparison):
    """The comparison with a standard error that is not known."""
    lost = torch.full_like(comparison.resamples.matrices, torch.nan)
    return replace(comparison, resamples=replace(comparison.resamples, matrices=lost))


def test_an_interval_that_is_not_known_is_not_testable_in_every_table(comparisons):
    unknown = {"one": {"biased": without_spread(comparisons["one"]["biased"])}}
    means, gaps = tables(unknown)
    assert (gaps["higher"] == UNTESTABLE).all()
    table = leads(means, gaps)
    assert (table["verdict"] == UNTESTABLE).all()
    assert "which is not testable" in lead_sentence(table, means, "one")
    assert ", 0 are sure, where 0 would be" in lead_sentence(table, means, "one")


def test_the_jackknife_stands_beside_the_resamples(comparisons):
    means = mean_intervals(comparisons, SETS)
    row = means[(means["images"] == "one") & (means["submission"] == "S2")].iloc[1]
    comparison = comparisons["one"]["debiased"]
    own = comparison.jackknife.of_mean([2, 3, 4]).standard_error
    assert (row["estimator"], row["jackknife"]) == ("debiased", own)
    table = jackknife_table(means).set_index(["images", "submission"])
    assert len(table) == 6
    ratio = own / comparison.mean(SETS["S2"]).standard_error
    assert table.loc[("one", "S2"), "debiased, ratio"] == pytest.approx(ratio)


def test_standard_errors_that_disagree_are_named():
    rows = [("p", "biased", "S1", 0.01, 0.011), ("p", "biased", "S2", 0.01, 0.014)]
    rows += [("p", "debiased", "S1", 0.01, 0.007), ("p", "debiased", "S2", 0.01, nan)]
    columns = ["images", "estimator", "submission", "standard_error", "jackknife"]
    text = jackknife_sentence(pd.DataFrame(rows, columns=columns))
    assert "are 0.70 to 1.40 times those" in text
    assert "S2 on *p* (biased, 1.40), S1 on *p* (debiased, 0.70). 1 are not known." in text
    assert "did not fit" in jackknife_sentence(pd.DataFrame(rows[3:], columns=columns))


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
