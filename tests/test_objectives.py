"""The three objectives, against all sets of small cases."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from similarities import cka_like

from realign_utils.cka import cka_matrix
from realign_utils.objectives import combined_similarity, maximise, plausible
from realign_utils.uncertainty import Resamples, resample

WEIGHTS = {"a": 1.0, "b": 3.0}
SHARES = np.linspace(0, 1, 21)


@pytest.fixture(scope="module")
def resamples() -> dict[str, Resamples]:
    """Twelve models' features of 40 images, on each of two proxies."""
    found = {}
    for seed, name in enumerate("ab"):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((40, 6))
        features = [shared + rng.uniform(0.2, 2) * rng.standard_normal((40, 6)) for _ in range(12)]
        found[name] = resample(features, draws=30, seed=seed)
    return found


def estimates(resamples):
    return {name: one.estimate.numpy() for name, one in resamples.items()}


def value(resamples, rows, objective):
    """The objective by its definition, from the intervals of `uncertainty`."""
    share = {name: weight / 4 for name, weight in WEIGHTS.items()}
    intervals = {name: one.of_mean(rows) for name, one in resamples.items()}
    if objective == "worst":
        return min(one.estimate for one in intervals.values())
    mean = sum(share[name] * one.estimate for name, one in intervals.items())
    if objective == "mean":
        return mean
    pairs = np.triu_indices(len(rows), 1)
    draws = [
        one.matrices.numpy()[:, rows][:, :, rows][:, *pairs].mean(1) for one in resamples.values()
    ]
    # resamples of 36 of the 40 images: √(36 / 4)
    spread = 3 * np.std(share["a"] * draws[0] + share["b"] * draws[1], ddof=1)
    one = intervals["a"]
    return mean - spread * (one.estimate - one.low) / one.standard_error


@pytest.mark.parametrize("objective", ["mean", "worst", "lower_limit"])
def test_the_best_of_all_sets_is_found_and_bounded(resamples, objective) -> None:
    found = maximise(estimates(resamples), WEIGHTS, 4, objective=objective, resamples=resamples)
    best = max(value(resamples, list(s), objective) for s in combinations(range(12), 4))
    assert found.score == pytest.approx(best, abs=1e-9)
    assert best - 1e-9 <= found.upper_bound
    if objective == "worst":  # no combination of the proxies gives a lower bound
        sets = [list(s) for s in combinations(range(12), 4)]
        means = np.array([[o.of_mean(s).estimate for s in sets] for o in resamples.values()])
        least = min((share * means[0] + (1 - share) * means[1]).max() for share in SHARES)
        assert found.upper_bound <= least + 1e-6
    else:
        assert found.upper_bound <= best + (1e-8 if objective == "mean" else 1e-3)
    assert found.optimal or objective != "mean"


def test_the_lower_limit_of_one_proxy_is_the_low_end_of_its_interval(resamples) -> None:
    one = {"a": resamples["a"]}
    found = maximise(estimates(one), {"a": 1.0}, 4, objective="lower_limit", resamples=one)
    assert found.score == pytest.approx(one["a"].of_mean(found.certificate.indices).low, abs=1e-9)


def test_plausible_matrices_lie_about_the_estimate_with_its_standard_error() -> None:
    rng = np.random.default_rng(1)
    features = [rng.standard_normal((60, 5)) for _ in range(4)]
    resamples = resample(features, size=20, draws=50)
    matrices = plausible(resamples)
    assert matrices.mean(axis=0) == pytest.approx(cka_matrix(features).numpy())
    error = resamples.standard_error.numpy()
    assert matrices.std(axis=0, ddof=1) == pytest.approx(error, abs=1e-12)


def test_plausible_matrices_stay_in_the_range_of_cka_where_one_image_decides_a_value() -> None:
    """0.13 without a few images, 0.67 with them: made as wide as the error, it would exceed 1."""
    estimate = torch.eye(3, dtype=torch.float64)
    drawn = torch.full((40, 3, 3), 0.13, dtype=torch.float64)
    drawn[:4] = 0.67
    resamples = Resamples(estimate + 0.14 * (1 - estimate), drawn, 450, 500)
    matrices = plausible(resamples)
    assert np.abs(matrices).max() <= 1
    assert matrices[4:, 0, 1] == pytest.approx(matrices[4, 0, 1])


def test_the_worst_proxy_is_better_served_by_the_objective_of_that_name() -> None:
    matrices = {"a": cka_like(30, 1), "b": cka_like(30, 2)}
    worst = maximise(matrices, {"a": 1.0, "b": 1.0}, 6, objective="worst")
    mean = maximise(matrices, {"a": 1.0, "b": 1.0}, 6)
    rows = list(mean.certificate.indices)
    of_mean = min(m[np.ix_(rows, rows)][np.triu_indices(6, 1)].mean() for m in matrices.values())
    assert worst.score > of_mean
    assert worst.upper_bound < mean.upper_bound


def test_the_combination_works_on_stacks_too() -> None:
    stacks = {"a": np.ones((2, 3, 3)), "b": np.zeros((2, 3, 3))}
    assert combined_similarity(stacks, WEIGHTS) == pytest.approx(np.full((2, 3, 3), 0.25))
