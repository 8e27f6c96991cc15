"""One set for several matrices, against all sets of small cases."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from similarities import cka_like, mean, random_case

from realign_utils.errors import UserError
from realign_utils.robust import certify_worst, lower_limit, select_robust, worst
from realign_utils.search import select


def small_stack(seed, p=3):
    n = len(random_case(seed)[0])
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((p, n, n))
    return stack + stack.transpose(0, 2, 1), random_case(seed)[1]


def best_of_all(stack, k, objective):
    sets = list(combinations(range(stack.shape[1]), k))
    means = np.array([[mean(matrix, rows) for rows in sets] for matrix in stack])
    return float(objective(means).max())


@pytest.mark.parametrize("objective", [worst, lower_limit(1.5)])
def test_the_best_set_for_several_matrices_is_found(objective):
    for seed in range(25):
        stack, k = small_stack(seed)
        found = select_robust(stack, k, objective=objective, seed=seed)
        assert found.score == pytest.approx(best_of_all(stack, k, objective), rel=1e-12, abs=1e-12)
        assert found.means == pytest.approx([mean(matrix, found.indices) for matrix in stack])


def test_one_matrix_is_the_plain_search():
    matrix = cka_like(30, 0)
    assert select_robust([matrix], 6).indices == select(matrix, 6).indices


def test_the_bound_on_the_worst_mean_is_never_below_the_best():
    for seed in range(25):
        stack, k = small_stack(seed, p=2)
        found = select_robust(stack, k, seed=seed)
        bound, weights, certificate = certify_worst(stack, found)
        assert bound >= best_of_all(stack, k, worst) - 1e-12
        assert weights.sum() == pytest.approx(1)
        assert certificate.optimal


def test_the_bound_on_the_worst_mean_is_close_for_two_proxies():
    stack = [cka_like(40, 1), cka_like(40, 2)]
    found = select_robust(stack, 8)
    bound, _, _ = certify_worst(stack, found)
    assert found.score <= bound <= 1.01 * found.score
    for matrix in stack:
        assert found.score <= select(matrix, 8).score


def test_candidates_are_kept_and_matrices_of_one_size_required():
    stack = [cka_like(20, 1), cka_like(20, 2)]
    found = select_robust(stack, 4, candidates=[1, 3, 5, 7, 9, 11])
    assert {*found.indices} <= {1, 3, 5, 7, 9, 11}
    assert certify_worst(stack, found)[0] >= found.score
    with pytest.raises(UserError, match="differ in size"):
        select_robust([np.eye(4), np.eye(5)], 2)
    with pytest.raises(UserError, match="no matrix"):
        select_robust([], 2)
