"""The search for large matrices: never worse than its start, right where the best is known."""

from __future__ import annotations

import time

import numpy as np
import pytest
from similarities import all_means, cka_like, mean, random_case

from realign_utils.long_search import search_longer
from realign_utils.search import select


def test_the_best_set_of_small_cases_is_found():
    for seed in range(8):
        matrix, k = random_case(seed)
        rows, score = search_longer(matrix, k, time_limit=0.6, seed=seed)
        assert score == pytest.approx(max(all_means(matrix, k).values()), rel=1e-12, abs=1e-15)
        assert score == pytest.approx(mean(matrix, rows), rel=1e-12, abs=1e-15)


def test_more_is_found_than_by_a_few_restarts_on_noise():
    matrix = np.random.default_rng(0).random((300, 300))
    matrix += matrix.T
    few = select(matrix, 40, restarts=3)
    assert search_longer(matrix, 40, time_limit=2, start=few.indices)[1] > few.score


def test_the_result_is_never_worse_than_the_start_even_without_time():
    matrix = cka_like(60, 1)
    start = select(matrix, 10)
    rows, score = search_longer(matrix, 10, time_limit=0, start=start.indices)
    assert score >= start.score
    assert len({*rows}) == 10


def test_candidates_and_the_time_limit_are_kept():
    matrix, started = cka_like(400, 2), time.monotonic()
    rows, _ = search_longer(matrix, 20, time_limit=0.5, candidates=range(0, 400, 2))
    assert {row % 2 for row in rows} == {0}
    assert time.monotonic() - started < 30
