"""One set for several matrices, against all sets of small cases."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from similarities import cka_like, mean, random_case

from realign_utils import robust, robust_bounds
from realign_utils.certificate import check_certificate
from realign_utils.errors import UserError
from realign_utils.limits import count_limit, exclude, include
from realign_utils.robust import lower_limit, select_robust, worst
from realign_utils.robust_bounds import certify_lower_limit, certify_worst
from realign_utils.search import select


def small_stack(seed, p=3):
    n = len(random_case(seed)[0])
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((p, n, n))
    return stack + stack.transpose(0, 2, 1), random_case(seed)[1]


def best_of_all(stack, k, objective, keeps=lambda rows: True):
    sets = [rows for rows in combinations(range(stack.shape[1]), k) if keeps(rows)]
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
        proof = certify_worst(stack, found)
        assert proof.upper_bound >= best_of_all(stack, k, worst) - 1e-12
        assert proof.weights.sum() == pytest.approx(1)
        assert proof.certificate.indices == found.indices
        check_certificate(proof.combined, proof.certificate)


def test_the_bound_on_the_lower_limit_is_never_below_the_best():
    for seed in range(25):
        stack, k = small_stack(seed, p=6)
        found = select_robust(stack, k, objective=lower_limit(2.0), seed=seed)
        proof = certify_lower_limit(stack, found, 2.0)
        assert proof.upper_bound >= best_of_all(stack, k, lower_limit(2.0)) - 1e-12
        assert proof.weights[0] == 1
        check_certificate(proof.combined, proof.certificate)


def test_the_bound_on_the_lower_limit_is_close_where_matrices_are_resampled():
    rng = np.random.default_rng(0)
    noise = 0.01 * rng.standard_normal((20, 40, 40))
    stack = cka_like(40, 1) + np.concatenate([np.zeros((1, 40, 40)), noise + noise.swapaxes(1, 2)])
    found = select_robust(stack, 8, objective=lower_limit(2.0))
    bound = certify_lower_limit(stack, found, 2.0).upper_bound
    assert found.score <= bound <= found.score + 1e-3
    assert bound < select(stack[0], 8).score  # lower than the plain mean, which bounds it as well


def test_limits_are_kept_and_no_allowed_set_is_better():
    for seed in range(8):
        stack = small_stack(8 * seed + 1)[0]
        n = len(stack[0])
        if n < 6:
            continue
        limits = [*include([0], n), *exclude([1], n)]
        limits.append(count_limit([2, 3, 4], n, name="at most 1 of three", at_most=1))
        found = select_robust(stack, 3, limits=limits)
        best = best_of_all(
            stack, 3, worst, lambda s: 0 in s and 1 not in s and len({*s} & {2, 3, 4}) < 2
        )
        assert found.score == pytest.approx(best)
        assert certify_worst(stack, found).upper_bound >= best - 1e-12


def test_cuts_end_with_the_time_and_the_bound_still_holds(monkeypatch):
    stack, searches = [cka_like(40, seed) for seed in (1, 2, 3)], []
    found = select_robust(stack, 8)
    plain = robust_bounds.select
    monkeypatch.setattr(
        robust_bounds, "select", lambda *a, **o: searches.append(0) or plain(*a, **o)
    )
    proof = certify_worst(stack, found, time_limit=0)
    assert len(searches) == 1
    assert proof.upper_bound >= found.score
    check_certificate(proof.combined, proof.certificate)


def test_only_starts_that_keep_the_limits_count_as_restarts(monkeypatch):
    monkeypatch.setattr(robust, "random_sets", lambda *_: np.array([[0, 1, 2], [1, 2, 3]]))
    found = select_robust([cka_like(10, 1)], 3, restarts=50, limits=exclude([9], 10))
    assert found.restarts == 2
    assert found.hits <= 2


def test_the_bound_on_the_worst_mean_is_close_for_two_proxies():
    stack = [cka_like(40, 1), cka_like(40, 2)]
    found = select_robust(stack, 8)
    bound = certify_worst(stack, found).upper_bound
    assert found.score <= bound <= 1.01 * found.score
    for matrix in stack:
        assert found.score <= select(matrix, 8).score


def test_candidates_are_kept_and_matrices_of_one_size_required():
    stack = [cka_like(20, 1), cka_like(20, 2)]
    found = select_robust(stack, 4, candidates=[1, 3, 5, 7, 9, 11])
    assert {*found.indices} <= {1, 3, 5, 7, 9, 11}
    assert certify_worst(stack, found).upper_bound >= found.score
    with pytest.raises(UserError, match="differ in size"):
        select_robust([np.eye(4), np.eye(5)], 2)
    with pytest.raises(UserError, match="no matrix"):
        select_robust([], 2)
