"""Many sets of k models at once: drawn in several ways, and scored by matrix products.

The sum over the pairs of a set is a quadratic form of its 0/1 indicator, so thousands of sets on
hundreds of matrices are a few matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from realign_utils.swaps import improve_by_swaps

_MATRICES = 20
"""Resampled proxies on each of which sets are optimised: what other images might have led to."""
_STARTS = 10
"""Random sets on each of them from which the swaps start."""
_LEAST_EVEN = 0.5
"""Of the Dirichlet distribution of the mechanisms' shares: below 1 many sets are nearly of one."""


def indicators(sets: np.ndarray, models: int) -> np.ndarray:
    """Which models each set holds: from places, (s, k), to 0 or 1, (s, models), float64."""
    inside = np.zeros((len(sets), models))
    np.put_along_axis(inside, np.asarray(sets, dtype=int), 1.0, axis=1)
    return inside


def scores_of_sets(matrices: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Mean over the pairs of each of many sets, on each of many matrices.

    Parameters
    ----------
    matrices : array-like, shape (..., m, m)
        Symmetric; the diagonal has no part in it. Unknown pairs are NaN.
    sets : numpy.ndarray of int, shape (s, k)
        Places of different models.

    Returns
    -------
    numpy.ndarray, shape (..., s)
        float64; NaN where a set holds an unknown pair.
    """
    stack = np.asarray(matrices, dtype=np.float64)
    if sets.shape[1] == 2:
        return stack[..., sets[:, 0], sets[:, 1]]
    *leading, m, _ = stack.shape
    inside, size = indicators(sets, m), sets.shape[1]
    scores = np.empty((int(np.prod(leading)), len(sets)))
    for row, matrix in zip(scores, stack.reshape(-1, m, m), strict=True):
        unknown = np.isnan(matrix)
        np.fill_diagonal(unknown, False)
        known = np.where(unknown, 0.0, matrix)
        np.fill_diagonal(known, 0.0)
        row[:] = np.einsum("sm,sm->s", inside @ known, inside) / (size * (size - 1))
        if unknown.any():
            row[np.einsum("sm,sm->s", inside @ unknown, inside) > 0] = np.nan
    return scores.reshape(*leading, len(sets))


def random_sets_of(rows: Sequence[int], k: int, number: int, seed: int) -> np.ndarray:
    """Different sets of k of the given rows, all equally likely.

    Parameters
    ----------
    rows : sequence of int
    k : int
    number : int
        Of draws; sets that are drawn again are left out.
    seed : int

    Returns
    -------
    numpy.ndarray of int, shape (number or fewer, k)
        Each row ascending.
    """
    drawn = np.random.default_rng(seed).random((number, len(rows))).argsort(axis=1)[:, :k]
    return _different(np.asarray(rows)[drawn])


def optimised_sets(
    matrices: np.ndarray, rows: Sequence[int], k: int, number: int, seed: int
) -> np.ndarray:
    """Sets near the best: where swaps end on resampled matrices, and such with some models replaced.

    Swaps from random sets end in few places, and in the same ones on much the same matrices. So
    they start on many matrices that other images might have given, and of each end up to half of
    the models are replaced by random ones of the rows: the sets then reach from the top of the
    range down to where random ones lie.

    Parameters
    ----------
    matrices : numpy.ndarray, shape (draws, m, m)
        E.g. `objectives.plausible`; the first 20 are used.
    rows : sequence of int
        That may be chosen.
    k : int
    number, seed : int
        As of `random_sets_of`.

    Returns
    -------
    numpy.ndarray of int, shape (number or fewer, k)
    """
    rng, rows = np.random.default_rng(seed), np.asarray(rows)
    ends = []
    for matrix in matrices[:_MATRICES]:
        block = np.array(matrix[np.ix_(rows, rows)])
        np.fill_diagonal(block, 0.0)
        starts = rng.random((_STARTS, len(rows))).argsort(axis=1)[:, :k]
        ends.append(improve_by_swaps(block, starts))
    best = np.unique(np.concatenate(ends), axis=0)
    chosen = best[rng.integers(len(best), size=number)]
    # Who has the k largest keys stays or joins: all but `replaced` members have a key above 1.
    replaced = rng.integers(0, min(k // 2, len(rows) - k) + 1, size=number)
    keys = rng.random((number, len(rows)))
    order = np.argsort(np.argsort(rng.random((number, k)), axis=1), axis=1)
    kept = np.where(order < replaced[:, None], -1.0, 2.0)
    np.put_along_axis(keys, chosen, kept, axis=1)
    return _different(rows[np.argsort(-keys, axis=1)[:, :k]])


def composed_sets(groups: Sequence[object], k: int, number: int, seed: int) -> np.ndarray:
    """Sets of very different composition: from nearly all of one group to mixtures of all.

    Each set draws the shares of the groups first (a Dirichlet distribution), then models by them.
    Where a group has fewer models than its share asks for, others fill up.

    Parameters
    ----------
    groups : sequence, length m
        Of each model, e.g. its mechanism.
    k : int
    number, seed : int
        As of `random_sets_of`.

    Returns
    -------
    numpy.ndarray of int, shape (number or fewer, k)
    """
    rng = np.random.default_rng(seed)
    names, place, counts = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    shares = rng.dirichlet(np.full(len(names), _LEAST_EVEN), number)
    weights = np.log(np.maximum(shares, 1e-300) / counts)
    keys = weights[:, place] + rng.gumbel(size=(number, len(place)))  # Gumbel: without replacement
    return _different(np.argsort(-keys, axis=1)[:, :k])


def homogeneity(sets: np.ndarray, groups: Sequence[object]) -> np.ndarray:
    """Share of each set's pairs whose two models are of one group, (s, k) -> (s,)."""
    of = np.unique(np.asarray(groups), return_inverse=True)[1][sets]
    k = sets.shape[1]
    return ((of[:, :, None] == of[:, None, :]).sum(axis=(1, 2)) - k) / (k * (k - 1))


def _different(sets: np.ndarray) -> np.ndarray:
    """Each set once, ascending, in the order of first appearance."""
    ordered = np.sort(sets, axis=1)
    _, first = np.unique(ordered, axis=0, return_index=True)
    return ordered[np.sort(first)]
