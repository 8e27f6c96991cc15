"""The search for large matrices: never worse than its start, right where the best is known."""

from __future__ import annotations

import time

import numpy as np
import pytest
from similarities import all_means, cka_like, mean, random_case

from realign_utils import long_search, objectives, select_command
from realign_utils.errors import UserError
from realign_utils.limits import count_limit, exclude
from realign_utils.long_search import search_longer, search_within
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


@pytest.mark.parametrize("start", [[0, 1, 2], [0, 0, 1, 2], [0, 1, 2, 9], [0, 1, 2, 30]])
def test_a_start_that_is_no_set_of_the_candidates_is_refused(start):
    with pytest.raises(UserError, match="4 different rows of the candidates"):
        search_longer(cka_like(20, 0), 4, start=start, candidates=range(9))


def test_only_candidates_are_chosen_and_the_search_ends_with_its_time():
    """An even row is the better one of each pair, so that all good sets leave the candidates."""
    matrix, started = cka_like(400, 2), time.monotonic()
    matrix[::2] += 1
    matrix[:, ::2] += 1
    assert {row % 2 for row in search_longer(matrix, 20, time_limit=0.5)[0]} == {0}
    rows, _ = search_longer(matrix, 20, time_limit=0.5, candidates=range(1, 400, 2))
    assert {row % 2 for row in rows} == {1}
    assert time.monotonic() - started < 30


def test_a_large_matrix_is_searched_longer_without_what_limits_forbid(monkeypatch):
    matrix = np.random.default_rng(1).random((200, 200))
    matrix += matrix.T
    monkeypatch.setattr(long_search, "LARGE", 200 * 30)
    monkeypatch.setattr(long_search, "_TELL", 0.1)
    lines, banned = [], exclude([0, 1], 200)
    three_stages = select(matrix, 30, restarts=0, limits=banned)
    found = search_within(matrix, 30, limits=banned, time_limit=2, show=lines.append)
    assert found.score > three_stages.score
    assert found.score == pytest.approx(mean(matrix, found.indices))
    assert not {0, 1} & {*found.indices}
    assert lines[0].endswith("s of the search left")
    assert search_within(matrix, 29).restarts == 500
    within = count_limit(range(100), 200, name="few", at_most=9)
    assert search_within(matrix, 30, limits=[within]).restarts == 10


@pytest.mark.parametrize("path", [objectives, select_command])
def test_profiles_and_the_command_search_by_size(path):
    assert path.search_within is search_within
