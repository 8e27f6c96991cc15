"""Submissions under other images: tables and what the report says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from similarities import mean

from realign_utils.errors import UserError
from realign_utils.firmness import alternatives_table, choices_table, membership_table
from realign_utils.registry import read_registry
from realign_utils.search import select
from realign_utils.selection import choose_models
from realign_utils.selection_results import (
    alternatives_shown,
    contested,
    firm_sentence,
    read_selection,
    regret_shown,
)
from realign_utils.uncertainty import Resamples, resample

KNOWN = read_registry(Path(__file__).parent.parent / "params" / "registry.csv")
MODELS = list(KNOWN.index[:14])
BOTH = {"title": "t", "pool": "full", "proxies": {"a": 1.0, "b": 1.0}}
SUBMISSIONS = {
    "mean": BOTH,
    "worst": BOTH | {"objective": "worst"},
    "low": BOTH | {"objective": "lower_limit"},
    "list": {"title": "t", "models": MODELS[:4]},
}


@pytest.fixture(scope="module")
def resamples() -> dict[str, Resamples]:
    found = {}
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((50, 6))
        noise = rng.uniform(0.3, 1.5, 14)
        features = [shared + each * rng.standard_normal((50, 6)) for each in noise]
        found[name] = resample(features, draws=25, seed=seed)
    return found


@pytest.fixture(scope="module")
def chosen(resamples):
    matrices = {name: one.estimate.numpy() for name, one in resamples.items()}
    options = {"k": 4, "restarts": 50, "seed": 0, "pools": {"full": "all"}, "reference_proxy": "a"}
    return {
        name: choose_models(one, matrices, MODELS, KNOWN, resamples=resamples, **options)
        for name, one in SUBMISSIONS.items()
    }


def test_shares_sum_to_the_size_of_the_set(chosen, resamples) -> None:
    table = membership_table(chosen, SUBMISSIONS, resamples, MODELS)
    assert table.groupby("submission")["share"].sum().to_dict() == pytest.approx(
        {"mean": 4, "worst": 4}
    )
    own = table[(table["submission"] == "mean") & table["in_set"]]
    assert set(own["model"]) == set(chosen["mean"].models)


def test_the_interval_of_the_best_mean_is_that_of_the_resamples(chosen, resamples) -> None:
    one = {"alone": BOTH | {"proxies": {"a": 1.0}}}
    matrices = {"a": resamples["a"].estimate.numpy()}
    options = {"k": 4, "restarts": 50, "seed": 0, "pools": {"full": "all"}, "reference_proxy": "a"}
    found = {"alone": choose_models(one["alone"], matrices, MODELS, KNOWN, **options)}
    row = alternatives_table(found, one, resamples, MODELS).iloc[0]
    interval = resamples["a"].of_mean([MODELS.index(model) for model in found["alone"].models])
    assert row["low"] == pytest.approx(interval.low)
    other = [MODELS.index(model) for model in row["other_models"].split()]
    assert row["other_score"] == pytest.approx(mean(matrices["a"], other))
    assert row["other_score"] >= row["low"]
    best = found["alone"].found.certificate.indices
    gap = resamples["a"].of(lambda m: _mean(m, best) - _mean(m, other))
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((gap.low, gap.high))


def _mean(matrices, rows):
    rows = list(rows)
    pairs = np.triu_indices(len(rows), 1)
    return matrices[..., rows, :][..., rows][..., pairs[0], pairs[1]].mean(-1)


def test_only_searched_means_have_alternatives(chosen, resamples) -> None:
    table = alternatives_table(chosen, SUBMISSIONS, resamples, MODELS)
    assert table["submission"].tolist() == ["mean"]
    shown = alternatives_shown(table)["sets in the interval"][0]
    assert shown == f"at least {table['equally_good'][0]}"
    fixed = {"list": chosen["list"]}
    assert alternatives_shown(alternatives_table(fixed, SUBMISSIONS, resamples, MODELS)).empty


def test_every_objective_has_its_choice_and_its_bound(resamples) -> None:
    matrices = {name: one.estimate.numpy() for name, one in resamples.items()}
    table = choices_table(matrices, resamples, MODELS, 4, reference_proxy="a", restarts=50)
    named = table.set_index("chosen_on")
    assert list(named.index) == ["a", "b", "mean of proxies", "worst proxy", "lower limit of a"]
    gap = named["upper_bound"] - named["score"]
    assert (gap >= 0).all()
    assert gap.drop("worst proxy").max() < 1e-8
    assert named["proved_optimal"].drop("worst proxy").all()
    assert named["upper_bound"]["worst proxy"] <= named["upper_bound"]["mean of proxies"] + 1e-6
    assert named["score"]["a"] == pytest.approx(select(matrices["a"], 4).score)
    assert named["score"]["lower limit of a"] < named["score"]["a"]


def test_contested_are_the_places_that_the_images_do_not_settle() -> None:
    rows = [
        ("S", f"m{i}", i < 4, share) for i, share in enumerate((1, 0.96, 0.9, 0.6, 0.4, 0.1, 0.04))
    ]
    table = pd.DataFrame(rows, columns=["submission", "model", "in_set", "share"])
    assert contested(table)["model"].tolist() == ["m2", "m3", "m4", "m5"]
    assert contested(table, most=2)["model"].tolist() == ["m3", "m4"]
    assert firm_sentence(table) == "2 of the 4 models of S, with 2 others contending"
    one = table.drop(index=5)
    assert firm_sentence(one).endswith("with 1 other contending")


def test_the_regrets_of_a_row_end_with_the_largest() -> None:
    rows = [("x", "a", 0.0), ("x", "b", 0.2), ("y", "a", 0.1), ("y", "b", 0.0)]
    table = regret_shown(pd.DataFrame(rows, columns=["chosen_on", "judged_on", "regret"]))
    assert table.columns.tolist() == ["chosen on", "a", "b", "at most"]
    assert table["at most"].tolist() == [0.2, 0.1]


def test_a_missing_table_names_the_notebook_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pools\.csv is missing: run 4_calibrate first"):
        read_selection(tmp_path)
