"""The three stages of the paper: equal to looking at every set, deterministic, within limits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from similarities import all_means, cka_like, mean, random_case

from realign_utils import limits as limits_module
from realign_utils import search, swaps
from realign_utils.certificate import certify, check_certificate
from realign_utils.errors import UserError
from realign_utils.limits import Limit, count_limit, exclude, forbidden, include
from realign_utils.matrices import read_matrix
from realign_utils.search import greedy, select
from realign_utils.swaps import improve_by_swaps

PUBLISHED = Path(__file__).parents[1] / "params" / "published"


@pytest.mark.parametrize("block", range(8))
def test_the_search_equals_brute_force_on_200_random_cases(block):
    for seed in range(25 * block, 25 * block + 25):
        matrix, k = random_case(seed)
        best = max(all_means(matrix, k).values())
        selection = select(matrix, k, restarts=30, seed=seed)
        assert selection.score == pytest.approx(best, rel=1e-12, abs=1e-15)
        assert selection.score == pytest.approx(
            mean(matrix, selection.indices), rel=1e-12, abs=1e-15
        )


def plain_greedy(matrix, k):
    """Stage 1 as the paper words it."""
    chosen = list(max(all_means(matrix, 2).items(), key=lambda item: item[1])[0])
    while len(chosen) < k:
        others = [row for row in range(len(matrix)) if row not in chosen]
        chosen.append(max(others, key=lambda row: mean(matrix, (*chosen, row))))
    return tuple(chosen)


@pytest.mark.parametrize("seed", [0, 1, 2, 5, 7, 8, 9])
def test_greedy_adds_what_raises_the_average_most(seed):
    matrix, k = random_case(seed)
    joined, trajectory = greedy(matrix, k)
    assert joined == plain_greedy(matrix, k)
    expected = [mean(matrix, joined[:size]) for size in range(2, k + 1)]
    assert trajectory == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_greedy_on_the_published_matrix_gives_the_known_trajectory():
    _, matrix = read_matrix(PUBLISHED / "s4_cifar100_cka_digitised.csv")
    known = [0.838, 0.836, 0.815, 0.807, 0.799, 0.795, 0.791, 0.787, 0.783, 0.779, 0.776]
    known += [0.774, 0.772, 0.770, 0.769, 0.766, 0.764, 0.762, 0.7606]
    trajectory = greedy(matrix, 20)[1]
    assert trajectory == pytest.approx(known, abs=5.2e-4)  # the file's own means, rounded twice
    assert trajectory[-1] == pytest.approx(0.7606, abs=5e-5)
    assert select(matrix, 20).trajectory == trajectory


@pytest.mark.parametrize("seed", range(5))
def test_no_single_swap_improves_the_result(seed):
    matrix = cka_like(40, seed)
    chosen = select(matrix, 8, restarts=1, seed=seed)
    for out in chosen.indices:
        for new in set(range(40)) - set(chosen.indices):
            swapped = (*(row for row in chosen.indices if row != out), new)
            assert mean(matrix, swapped) <= chosen.score + 1e-12


def test_the_stages_never_fall_behind_each_other():
    selection = select(cka_like(60, 3), 12, restarts=50)
    assert selection.trajectory[-1] <= selection.swapped_score <= selection.score
    assert 0 <= selection.hits <= selection.restarts == 50


def plain_swaps(matrix, rows):
    """Stage 2 as the paper words it: scan all pairs, make the best swap, repeat."""
    while True:
        swaps = {
            tuple(sorted({*rows} - {out} | {new})): None
            for out in sorted(rows)
            for new in set(range(len(matrix))) - {*rows}
        }
        best = max(swaps, key=lambda swapped: mean(matrix, swapped), default=rows)
        if mean(matrix, best) <= mean(matrix, rows):
            return tuple(sorted(rows))
        rows = best


def test_the_swap_stage_is_best_improvement_to_convergence():
    matrix = cka_like(12, 2)
    np.fill_diagonal(matrix, 0)
    sets = np.array([np.random.default_rng(seed).permutation(12)[:4] for seed in range(30)])
    swapped = improve_by_swaps(matrix, sets)
    assert [tuple(rows) for rows in swapped] == [plain_swaps(matrix, tuple(rows)) for rows in sets]
    assert len({*map(tuple, swapped)}) > 1


def test_2000_restarts_are_moved_together(monkeypatch):
    blocks, plain = [], swaps._swap_block
    monkeypatch.setattr(
        swaps,
        "_swap_block",
        lambda m, sets, loads: blocks.append(len(sets)) or plain(m, sets, loads),
    )
    select(cka_like(138, 0), 20, restarts=2000)
    assert sum(blocks) >= 2000
    assert len(blocks) <= 2000 / 50


def test_one_seed_gives_the_same_result():
    matrix = np.random.default_rng(4).standard_normal((50, 50))
    matrix += matrix.T
    assert select(matrix, 9, seed=5) == select(matrix, 9, seed=5)
    assert select(matrix, 9, seed=5).hits != select(matrix, 9, seed=6).hits


def test_of_equally_good_sets_the_lowest_rows_are_kept():
    """Rows 3 to 5 hold the best pair, so that greedy ends there; rows 0 to 2 are as good."""
    matrix = np.zeros((6, 6))
    for i, j, value in [(0, 1, 0.9), (0, 2, 0.9), (1, 2, 0.9), (3, 4, 1), (3, 5, 0.9), (4, 5, 0.8)]:
        matrix[i, j] = matrix[j, i] = value
    assert greedy(matrix, 3)[0] == (3, 4, 5)
    assert select(matrix, 3).indices == (0, 1, 2)


def test_the_order_of_the_rows_does_not_matter():
    matrix, order = cka_like(50, 6), np.random.default_rng(0).permutation(50)
    plain = select(matrix, 10)
    shuffled = select(matrix[np.ix_(order, order)], 10)
    assert sorted(order[list(shuffled.indices)]) == list(plain.indices)


def test_the_diagonal_is_never_looked_at():
    matrix = cka_like(30, 7)
    other = matrix.copy()
    np.fill_diagonal(other, np.random.default_rng(0).standard_normal(30) * 100)
    assert select(matrix, 6) == select(other, 6)


def test_only_candidates_are_chosen_and_named_by_their_rows():
    matrix = cka_like(30, 8)
    pool = [29, 3, 5, 8, 13, 21]
    selection = select(torch.from_numpy(matrix), 4, candidates=pool)
    among_pool = {rows: value for rows, value in all_means(matrix, 4).items() if {*rows} <= {*pool}}
    assert selection.indices == max(among_pool, key=among_pool.get)
    assert selection.candidates == tuple(sorted(pool))
    assert set(greedy(matrix, 6, candidates=pool)[0]) == set(pool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 1}, "k must be at least 2 and at most 5"),
        ({"k": 6}, "k must be at least 2 and at most 5"),
        ({"k": 3, "candidates": [0, 1]}, "at most 2"),
        ({"k": 2, "candidates": [0, 5]}, "candidate 5 is no row"),
        ({"k": 2, "candidates": [-1, 0]}, "candidate -1 is no row"),
        ({"k": 2, "candidates": [0, 0, 1]}, "twice"),
        ({"k": 2, "restarts": -1}, "restarts must be at least 0"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        select(np.eye(5), **arguments)


def random_limits(rng, n, k):
    family, capacity = rng.integers(0, 3, n), tuple((rng.random(n) * 10).tolist())
    limits = [
        count_limit(np.flatnonzero(family == 0), n, name="few", at_most=int(rng.integers(0, 3))),
        count_limit(np.flatnonzero(family == 1), n, name="some", at_least=int(rng.integers(0, 3))),
        Limit("capacity", capacity, at_most=float(k * rng.uniform(3, 7))),
    ]
    fixed = [include([int(rng.integers(n))], n), exclude([int(rng.integers(n))], n)]
    return limits[: rng.integers(1, 4)] + fixed[0] * int(rng.integers(2)) + fixed[1]


def keeps(limits, rows):
    return all(
        limit.at_least <= sum(limit.weights[row] for row in rows) <= limit.at_most
        for limit in limits
    )


@pytest.mark.parametrize("block", range(6))
def test_limits_are_kept_and_the_best_set_within_them_is_found(block):
    for seed in range(20 * block, 20 * block + 20):
        (matrix, k), rng = random_case(seed), np.random.default_rng(seed)
        limits = random_limits(rng, len(matrix), k)
        within = {rows: v for rows, v in all_means(matrix, k).items() if keeps(limits, rows)}
        if within:
            selection = select(matrix, k, restarts=40, limits=limits)
            assert keeps(limits, selection.indices)
            assert selection.score == pytest.approx(max(within.values()), rel=1e-12, abs=1e-15)
        else:
            with pytest.raises(UserError, match="can keep"):
                select(matrix, k, limits=limits)


def test_an_impossible_request_names_only_the_limits_that_conflict():
    limits = [
        count_limit([4, 5, 6], 8, name="at most 1 mixer", at_most=1),
        count_limit([0, 1, 2], 8, name="at least 2 CNNs", at_least=2),
        *exclude([0, 1], 8),
        *include([7], 8, names=list("abcdefgh")),
    ]
    with pytest.raises(UserError) as caught:
        select(np.eye(8), 4, limits=limits)
    assert str(caught.value) == (
        "no 4 of the 8 candidates can keep "
        "'at least 2 CNNs' and 'row 0 fixed out' and 'row 1 fixed out'"
    )


def test_a_limit_that_is_broken_by_a_millionth_is_broken():
    heavy = Limit("capacity", (1.0000005,) * 6, at_most=2)
    with pytest.raises(UserError, match="no 2 of the 6 candidates can keep 'capacity'"):
        select(np.eye(6), 2, limits=[heavy])
    light = Limit("capacity", (*(1.0000005,) * 8, 1.0, 1.0), at_most=2)
    assert select(np.eye(10), 2, limits=[light]).indices == (8, 9)


def test_that_time_did_not_suffice_is_not_called_a_contradiction(monkeypatch):
    stopped = SimpleNamespace(x=None, status=1)
    monkeypatch.setattr(limits_module, "milp", lambda *_, **__: stopped)
    with pytest.raises(UserError, match="were found within 20 s"):
        select(np.eye(6), 2, limits=exclude([0], 6))


def test_models_fixed_out_are_dropped_and_those_fixed_in_are_one_limit(monkeypatch):
    matrix, seen = cka_like(60, 1), []
    limits = [*exclude(range(40), 60), *include([41, 43, 45], 60)]
    plain = search.without_outliers
    monkeypatch.setattr(
        search,
        "without_outliers",
        lambda m, s, loads: seen.append((m, loads)) or plain(m, s, loads),
    )
    selection = select(matrix, 5, limits=limits)
    assert seen[0][0].shape == (20, 20)
    assert seen[0][1].weights.shape == (1, 20)
    assert selection.candidates == tuple(range(60))
    assert {41, 43, 45} <= {*selection.indices} <= {*range(40, 60)}
    certificate = certify(matrix, selection)
    assert certificate.candidates == tuple(range(40, 60))
    check_certificate(matrix, certificate)


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0])
def test_what_no_set_can_hold_is_forbidden(weight):
    limit = Limit("capacity", (weight, 1.0, 3.0), at_most=1.0)
    assert forbidden([limit], 3).tolist() == [weight > 1, False, True]
    assert not forbidden([Limit("either way", (-1.0, 1.0, 3.0), at_most=1.0)], 3).any()


def test_a_greedy_set_that_swaps_do_not_lead_within_limits_has_no_score():
    rng = np.random.default_rng(79)
    matrix = rng.random((8, 8))
    matrix += matrix.T
    ends = [{"at_most": 12}, {"at_least": 18}, {"at_most": 12}]
    limits = [
        Limit("abc"[i], tuple((rng.random(8) * 10).round(1).tolist()), **end)
        for i, end in enumerate(ends)
    ]
    selection = select(matrix, 3, limits=limits, restarts=20)
    assert keeps(limits, selection.indices)
    assert np.isnan(selection.swapped_score)
    assert np.isfinite([selection.score, *selection.trajectory]).all()


def test_a_limit_of_the_wrong_length_is_refused():
    with pytest.raises(UserError, match="needs 8 finite weights"):
        select(np.eye(8), 4, limits=[Limit("short", (1.0, 2.0), at_most=1)])
