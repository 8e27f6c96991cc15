"""Thousands of sets at once: scores, statistics, and errors that know what the sets share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from similarities import cka_like, mean
from worlds import resampled, symmetric

from realign_utils.calibration_sets import (
    BY_POOL,
    RATIOS,
    by_pool_table,
    family_ratio_table,
    judge_of,
    judges_of,
    pair_groups,
    set_score_table,
)
from realign_utils.comparison import Comparison
from realign_utils.proxy_quality import QUALITY, contrast, image_facts, proxy_quality_table
from realign_utils.set_samples import (
    composed_sets,
    homogeneity,
    optimised_sets,
    random_sets_of,
    scores_of_sets,
)
from realign_utils.set_statistics import (
    Part,
    estimate,
    kendall,
    ratio,
    score_sets,
    slope,
    spearman,
    together,
)

EVERYONE = list(range(16))
NAMES = [f"m{place}" for place in EVERYONE]


def test_scores_of_many_sets_are_the_means_of_their_pairs_one_by_one() -> None:
    matrices = np.stack([cka_like(12, seed) for seed in (1, 2, 3)])
    sets = random_sets_of(range(12), 4, 30, 0)
    scores = scores_of_sets(matrices, sets)
    assert scores.shape == (3, len(sets))
    expected = [[mean(matrix, tuple(rows)) for rows in sets] for matrix in matrices]
    assert scores == pytest.approx(np.array(expected))


def test_a_set_with_an_unknown_pair_has_no_score_and_others_keep_theirs() -> None:
    matrix = cka_like(8, 1)
    unknown = matrix.copy()
    unknown[2, 5] = unknown[5, 2] = np.nan
    sets = np.array(list(combinations(range(8), 3)))
    found, whole = scores_of_sets(unknown, sets), scores_of_sets(matrix, sets)
    both = np.isin(sets, [2, 5]).sum(axis=1) == 2
    assert np.isnan(found[both]).all()
    assert found[~both] == pytest.approx(whole[~both])


@pytest.mark.parametrize("kind", ["random", "optimised", "composed"])
def test_sets_are_different_ascending_of_the_rows_and_the_same_for_one_seed(kind: str) -> None:
    draw = {
        "random": lambda seed: random_sets_of([1, 3, 4, 7, 8, 9], 3, 50, seed),
        "optimised": lambda seed: optimised_sets(
            cka_like(10, 1)[None], [1, 3, 4, 7, 8, 9], 3, 50, seed
        ),
        "composed": lambda seed: composed_sets(["a"] * 5 + ["b"] * 5, 3, 50, seed),
    }[kind]
    sets = draw(0)
    assert len(np.unique(sets, axis=0)) == len(sets) > 5
    assert (np.diff(sets, axis=1) > 0).all()
    assert kind == "composed" or np.isin(sets, [1, 3, 4, 7, 8, 9]).all()
    assert np.array_equal(sets, draw(0))


def test_optimised_sets_reach_from_the_best_down_to_half_replaced_ones() -> None:
    matrix = cka_like(16, 2)
    sets = optimised_sets(matrix[None], EVERYONE, 4, 300, 0)
    scores, every = scores_of_sets(matrix, sets), np.array(list(combinations(EVERYONE, 4)))
    best = scores_of_sets(matrix, every)
    assert scores.max() == pytest.approx(best.max())
    assert scores.mean() > np.quantile(best, 0.75)
    assert scores.min() < np.quantile(best, 0.9)


def test_composed_sets_are_of_one_group_and_of_mixtures() -> None:
    groups = ["a"] * 10 + ["b"] * 10
    shares = homogeneity(composed_sets(groups, 5, 500, 0), groups)
    assert shares.max() == 1
    assert shares.min() == pytest.approx(0.4)  # three of one and two of the other
    assert 0.1 < np.mean(shares == 1) < 0.7


def two_worlds(seed: int, noise: float, models: int = 16) -> tuple:
    truth = cka_like(models, seed)
    other = truth + symmetric(np.random.default_rng(seed), models, noise)[0]
    return resampled(truth, 0.01, seed), resampled(other, 0.01, seed + 1000)


def test_a_proxy_that_is_the_judge_ranks_rightly_and_a_noisy_one_less() -> None:
    sets = random_sets_of(EVERYONE, 4, 400, 0)
    values = []
    for noise in (0.0, 0.1, 0.5):
        scores = [score_sets(one, sets) for one in two_worlds(1, noise)]
        values.append(estimate(spearman, scores, sets, back=np.tanh).row("value")["value"])
    assert values[0] > 0.95
    assert values[0] > values[1] > values[2]


def test_the_interval_of_images_covers_the_correlation_without_errors() -> None:
    covered = 0
    truth, sets = cka_like(16, 3), random_sets_of(EVERYONE, 4, 200, 0)
    real = truth + symmetric(np.random.default_rng(9), 16, 0.1)[0]
    target = np.tanh(
        spearman([scores_of_sets(m, sets) for m in (truth, real)], np.arange(len(sets)))
    )
    for seed in range(100):
        drawn = resampled(truth, 0.01, seed), resampled(real, 0.01, seed + 500)
        one = estimate(spearman, [score_sets(d, sets) for d in drawn], sets, back=np.tanh)
        low, high = one.interval(models=False)
        covered += low <= target <= high
    assert 0.88 <= covered / 100 <= 1


def test_the_interval_of_models_is_far_wider_than_that_of_so_many_independent_sets() -> None:
    sets = random_sets_of(EVERYONE, 4, 1000, 0)
    scores = [score_sets(one, sets) for one in two_worlds(2, 0.1)]
    one = estimate(spearman, scores, sets, back=np.tanh)
    assert one.models.error > 2 / np.sqrt(len(sets) - 3)


def test_the_interval_of_models_covers_the_slope_among_all_models() -> None:
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        own, other = rng.normal(0, 0.1, (2, 16))
        x = np.add.outer(own, own)
        y = 0.5 * x + np.add.outer(other, other) * 0.3
        sets = random_sets_of(EVERYONE, 3, 300, 0)
        scores = [score_sets(resampled(m, 1e-6, 0, draws=20), sets) for m in (x, y)]
        low, high = estimate(slope, scores, sets).interval()
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 100 <= 1


def test_where_one_model_is_in_all_sets_the_error_from_models_is_not_known() -> None:
    sets = np.array([[0, *rest] for rest in combinations(range(1, 10), 3)])
    scores = [score_sets(one, sets) for one in two_worlds(3, 0.1)]
    one = estimate(spearman, scores, sets, back=np.tanh)
    assert np.isnan(one.interval()).all()
    assert np.isfinite(one.interval(models=False)).all()


def test_a_model_unlike_all_others_is_named_as_the_most_influential() -> None:
    matrices = []
    for seed in (1, 2):
        matrix = 0.7 + symmetric(np.random.default_rng(seed), 16, 0.05)[0]
        matrix[5, :] = matrix[:, 5] = 0.1
        matrices.append(resampled(matrix, 0.001, seed))
    sets = random_sets_of(EVERYONE, 4, 500, 0)
    one = estimate(spearman, [score_sets(m, sets) for m in matrices], sets, back=np.tanh)
    name, without = one.influence(NAMES)
    assert name == "m5"
    assert abs(without) < 0.4 < one.row("value")["value"]


def test_errors_of_several_causes_have_the_freedom_of_the_larger() -> None:
    assert together([Part(1.0, 10), Part(1e-6, 3)]).freedom == pytest.approx(10, rel=1e-3)
    assert together([Part(3.0, 5), Part(4.0, 5)]).error == pytest.approx(5)
    assert 5 < together([Part(1.0, 5), Part(1.0, 5)]).freedom <= 10
    assert np.isnan(together([Part(1.0, 5), Part(np.nan, 5)]).error)


def test_scores_that_were_drawn_alike_are_resampled_together() -> None:
    """The same images, stored twice: their difference has no error from images, apart it has."""
    truth, sets = cka_like(16, 1), random_sets_of(EVERYONE, 4, 100, 0)
    one = replace(resampled(truth, 0.02, 1), drawn="x")
    scores = [score_sets(each, sets) for each in (one, one, replace(one, drawn="y"))]

    def gap(values: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
        return (values[0] - values[1]).mean(-1)

    assert estimate(gap, scores[:2], sets).images.error == pytest.approx(0, abs=1e-12)
    assert estimate(gap, scores[1:], sets).images.error > 1e-3


def test_statistics_of_many_draws_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    x, y, kept = rng.random((3, 50)), rng.random(50), np.arange(50)
    for statistic in (spearman, kendall, slope, ratio):
        together = statistic([x, y], kept)
        assert together == pytest.approx([float(statistic([row, y], kept)) for row in x])


def test_the_table_by_pool_has_all_measures_of_both_kinds_and_leaves_small_pools_out() -> None:
    compared = dict(zip(["proxy", "evaluation"], two_worlds(4, 0.05), strict=True))
    pools = {"all models": EVERYONE, "few": [1, 2, 3, 4], "half": list(range(8))}
    table = by_pool_table(compared, pools, NAMES, ["proxy"], 4)
    assert list(table.columns) == BY_POOL
    assert set(table["pool"]) == {"all models", "half"}
    assert table.groupby(["pool", "kind"])["measure"].nunique().eq(4).all()
    assert table["value"].between(table["images_low"], table["images_high"]).all()
    points = set_score_table(compared, pools, "proxy", "evaluation", 4, most=20)
    assert points.groupby(["pool", "kind"]).size().max() == 20


def test_without_an_evaluation_each_proxy_judges_the_others_and_one_alone_none() -> None:
    assert judges_of(["a", "b"], ["a", "b"]) == [("a", "b"), ("b", "a")]
    assert judge_of(["a", "b", "evaluation"], ["a", "b"], "a") == "evaluation"
    assert judge_of(["a"], ["a"], "a") is None
    assert by_pool_table({"a": two_worlds(5, 0.1)[0]}, {"all": EVERYONE}, NAMES, ["a"], 4).empty


def test_a_ratio_is_that_of_the_mean_of_the_pairs_of_a_group() -> None:
    proxy, real = two_worlds(6, 0.05)
    mechanisms = ["convolution"] * 8 + ["attention"] * 8
    compared = {"proxy": proxy, "evaluation": real}
    table = family_ratio_table(compared, ["proxy"], mechanisms, {"few": [0, 1], "some": [1, 2, 9]})
    assert list(table.columns) == RATIOS
    found = table.set_index("group")
    assert "few" not in found.index  # one pair
    means = [mean(one.estimate.numpy(), tuple(range(8))) for one in (real, proxy)]
    assert found.loc["convolution", "ratio"] == pytest.approx(means[0] / means[1])
    assert found.loc["convolution – attention", "pairs"] == 64
    assert (found["low"] <= found["images_low"] + 1e-12).all()


def test_the_groups_of_pairs_are_all_pairs_once() -> None:
    mechanisms = ["a"] * 4 + ["b"] * 5 + ["c"] * 3
    groups = pair_groups(mechanisms, {})
    parts = [pairs for (kind, _), pairs in groups.items() if kind != "all"]
    assert sum(map(len, parts)) == len(groups["all", "all pairs"]) == 66


def test_sets_of_images_are_contrasted_only_where_they_differ_in_one_thing() -> None:
    rows = {
        "a": (4, 19, 250, 76),
        "b": (32, 19, 250, 76),
        "c": (32, 2, 250, 76),
        "d": (32, 10, 500, 40),
        "e": (16, 19, 250, 76),
        "f": (32, 2, 250, 8),
    }
    facts = pd.DataFrame.from_dict(
        rows, orient="index", columns=["resolution", "classes", "images", "groups"]
    )
    assert contrast(facts, "resolution") == (["a"], ["b"])
    assert contrast(facts, "classes") == (["c"], ["b"])
    assert contrast(facts.loc[["a", "d"]], "resolution") is None


def test_two_sets_of_unlike_numbers_of_independent_groups_do_not_differ_in_classes_alone() -> None:
    facts = pd.DataFrame(
        {"resolution": 32.0, "classes": [2, 19], "images": 250, "groups": [8, 76]}, ["few", "many"]
    )
    assert contrast(facts, "classes") is None
    assert contrast(facts.assign(groups=8), "classes") == (["few"], ["many"])


def test_several_choices_of_the_classes_at_both_ends_go_before_a_wider_range() -> None:
    rows = {
        "a": (2, 8),
        "b": (2, 8),
        "c": (8, 8),
        "d": (8, 8),
        "e": (4, 8),
        "f": (1, 70),
        "g": (50, 70),
    }
    facts = pd.DataFrame.from_dict(rows, orient="index", columns=["classes", "groups"])
    facts = facts.assign(resolution=32.0, images=160)
    assert contrast(facts, "classes") == (["a", "b"], ["c", "d"])


def test_facts_of_images_come_from_their_source_and_their_labels() -> None:
    sources = {
        "p": {"kind": "patches", "resolution": 8},
        "c": {"kind": "cifar100"},
        "i": {"kind": "imagenette", "size": "320px"},
        "f": {"kind": "imagefolder"},
    }
    same = {name: ["x", "y", "x"] for name in sources}
    facts = image_facts(sources, same, same)
    assert facts["resolution"].tolist()[:3] == [8, 32, 320]
    assert np.isnan(facts.loc["f", "resolution"])
    assert facts["classes"].tolist() == [2] * 4
    assert facts["groups"].tolist() == [2] * 4
    assert set(facts) < set(QUALITY)


def test_of_equal_proxies_none_is_called_behind_the_one_that_came_out_highest() -> None:
    """Twelve proxies with errors of one size: by single intervals some would seem behind."""
    sets, wrong = composed_sets(["x"] * 8 + ["y"] * 8, 4, 150, 0), 0
    truth = cka_like(16, 3)
    for seed in range(6):
        resamples = {f"p{i}": resampled(truth, 0.15, 100 * seed + i) for i in range(12)}
        resamples["judge"] = resampled(truth, 0.001, 99)
        names = tuple(map(str, EVERYONE))
        compared = {n: Comparison(names, "biased", r, None, {}, {}) for n, r in resamples.items()}
        facts = pd.DataFrame(
            {"resolution": 8.0, "classes": 2, "images": 500, "groups": 500},
            [f"p{i}" for i in range(12)],
        )
        table = proxy_quality_table(compared, facts, [*facts.index], "judge", sets, restarts=2)
        wrong += (table["behind_p"] <= 0.05).any()
        assert table["behind_p"].between(0, 1).all()
    assert wrong <= 1
