"""Stages 1 and 2 of the paper's search on plain arrays: joining greedily, and swapping.

Matrices here are symmetric with a zero diagonal, so that the sum over a block is the sum over its
ordered pairs. `Loads` are limits that a set must keep (`realign_utils.limits`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realign_utils.errors import UserError
from realign_utils.limits import Loads, cut
from realign_utils.matrices import check_matrix

IMPROVEMENT = 1e-12
"""A swap must raise the sum over pairs by more than this, relative to the entries that it changes."""

_BLOCK = 2**18
"""Numbers held at once: the block of sets whose swaps are looked at stays in the cache."""

NO_LIMITS = Loads(np.zeros((0, 0)), np.zeros(0))


def candidate_matrix(
    similarity: object, k: int, candidates: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates' similarities with a zero diagonal, and their rows in ascending order.

    Raises
    ------
    UserError
        If the matrix is not a similarity matrix, or the candidates or `k` do not fit it.
    """
    matrix = check_matrix(similarity)
    n = len(matrix)
    rows = range(n) if candidates is None else sorted(candidates)
    if wrong := [row for row in rows if not 0 <= row < n]:
        raise UserError(f"candidate {wrong[0]} is no row of a {n} x {n} matrix")
    pool = np.array(rows, dtype=int)
    if len(set(pool.tolist())) < len(pool):
        raise UserError("a candidate is given twice")
    if not 2 <= k <= len(pool):
        raise UserError(f"k must be at least 2 and at most {len(pool)} (the candidates), not {k}")
    matrix = matrix[np.ix_(pool, pool)]
    np.fill_diagonal(matrix, 0.0)
    return matrix, pool


def mean_over_pairs(matrix: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Mean similarity of each of many sets, (r, k) -> (r,)."""
    k = sets.shape[1]
    sums = [matrix[np.ix_(rows, rows)].sum() for rows in sets]
    return np.array(sums) / (k * (k - 1))


def join_greedily(matrix: np.ndarray, k: int, loads: Loads = NO_LIMITS) -> list[int]:
    """Stage 1: the most similar pair, then one by one what adds most to the set's average.

    A model that leaves a limit no chance, whatever joins later, is passed over; a set that breaks
    several limits together can still result.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
    k : int
    loads : Loads

    Returns
    -------
    list of int, length k
        In the order of joining; ties go to the lowest row.
    """
    rows, columns = np.triu_indices(len(matrix), 1)
    carried = loads.carried(rows) + loads.carried(columns)
    best = _best_addition(matrix[rows, columns], carried, k - 2, loads)
    joined = [int(rows[best]), int(columns[best])]
    contribution = matrix[joined].sum(axis=0)
    while len(joined) < k:
        others = np.setdiff1d(np.arange(len(matrix)), joined)
        carried = loads.carried(joined).sum(axis=1)[:, None] + loads.carried(others)
        best = _best_addition(contribution[others], carried, k - len(joined) - 1, loads)
        joined.append(int(others[best]))
        contribution += matrix[joined[-1]]
    return joined


def _best_addition(worth: np.ndarray, carried: np.ndarray, left: int, loads: Loads) -> int:
    """The first of most worth, unless even the lightest `left` models would break a limit then."""
    lightest = np.sort(loads.weights, axis=1)[:, :left].sum(axis=1)
    hopeless = (cut(carried + (lightest - loads.most)[:, None]) > 0).any(axis=0)
    return int(np.where(hopeless & ~hopeless.all(), -np.inf, worth).argmax())


def improve_by_swaps(matrix: np.ndarray, sets: np.ndarray, loads: Loads = NO_LIMITS) -> np.ndarray:
    """Stage 2 on many sets at once: make the best 1-swap until none improves.

    A set that breaks limits first moves towards keeping them, then to higher similarity.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
    sets : ndarray of int, shape (r, k)
    loads : Loads

    Returns
    -------
    ndarray of int, shape (r, k)
        Each row ascending.
    """
    sets = np.sort(sets, axis=1)
    block = max(1, _BLOCK // (sets.shape[1] * len(matrix)))
    for first in range(0, len(sets), block):
        _swap_block(matrix, sets[first : first + block], loads)
    return sets


def _swap_block(matrix: np.ndarray, sets: np.ndarray, loads: Loads) -> None:
    """In place: in every set, make the best of all k (n - k) swaps until none improves.

    With s(j) the similarity of j summed over the set, to put j in the place of i changes the sum
    over pairs by s(j) - m(i, j) - s(i). All r x k x n changes are looked at in each round; the
    first of equal swaps, by the lowest i and then the lowest j, is made.
    """
    active, members = np.arange(len(sets)), sets.copy()
    inside = np.zeros((len(sets), len(matrix)), dtype=bool)
    np.put_along_axis(inside, members, True, axis=1)
    while len(active):
        similarity = matrix[members]
        support = similarity.sum(
            axis=1
        )  # anew in each round: a large entry leaves no rounding behind
        entering = np.where(inside, -np.inf, support)
        leaving = np.take_along_axis(support, members, axis=1)
        change = entering[:, None, :] - similarity
        if len(loads.most):
            change += preference(members, loads, np.abs(matrix).max())
        best_per_member = change.max(axis=2) - leaving
        place = best_per_member.argmax(axis=1)
        row = np.arange(len(active))
        out, new = members[row, place], change[row, place].argmax(axis=1)
        changed = np.abs(similarity[row, :, out]) + np.abs(similarity[row, :, new])
        going = best_per_member[row, place] > IMPROVEMENT * changed.sum(axis=1)
        sets[active[~going]] = members[~going]
        row, out, new = row[going], out[going], new[going]
        members[row, place[going]] = new
        inside[row, out], inside[row, new] = False, True
        active, inside = active[going], inside[going]
        members = np.sort(members[going], axis=1)


def preference(members: np.ndarray, loads: Loads, largest: float) -> np.ndarray:
    """What limits add to the worth of each swap.

    Less excess outweighs any similarity; a swap that breaks limits no less than before is barred.

    Parameters
    ----------
    members : ndarray of int, shape (r, k)
    loads : Loads
    largest : float
        Largest similarity.

    Returns
    -------
    ndarray of shape (r, k, n)
        0 where a set that keeps the limits still keeps them; -inf where it no longer does.
    """
    r, k = members.shape
    after = np.zeros((r, k, loads.weights.shape[1]))
    for weights, most in zip(loads.weights, loads.most, strict=True):
        left = weights[members].sum(axis=1)[:, None] - weights[members]
        after += cut(left[:, :, None] + weights - most)
    before = loads.excess(members)[:, None, None]
    gain = (before - after) * (1e6 * k * (largest or 1.0))
    return np.where((after > 0) & (after >= before - 1e-9), -np.inf, gain)
