"""The paper's three-stage search for the k models of highest mean pairwise similarity.

Section 2.3 of the paper: (1) greedy from the best pair, (2) best-improvement 1-swap to
convergence, (3) the same local search from many random sets, of which the best is kept. All
restarts are moved at once. Nothing here knows of CKA: any symmetric similarity matrix will do, and
its diagonal is never used. How far from the best a set may be at most is told by `certify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from realign_utils.certificate import certify
from realign_utils.errors import UserError
from realign_utils.limits import Limit, forbidden, loads_of, require_feasible
from realign_utils.outliers import typical, without_outliers
from realign_utils.swaps import (
    IMPROVEMENT,
    NO_LIMITS,
    candidate_matrix,
    improve_by_swaps,
    join_greedily,
    mean_over_pairs,
)

__all__ = ["Selection", "certify", "greedy", "select"]


@dataclass(frozen=True)
class Selection:
    """The best set that the three stages found.

    Attributes
    ----------
    indices : tuple of int, length k
        Rows of the matrix, ascending.
    score : float
        Mean similarity over the k (k - 1) / 2 pairs.
    trajectory : tuple of float, length k - 1
        Stage 1: mean similarity after 2, 3, ..., k models.
    greedy : tuple of int, length k
        Stage 1: the models in the order in which they joined.
    swapped_score : float
        Stage 2: the mean that the swaps reach from the greedy set; NaN where they do not lead it
        within the limits.
    restarts : int
        Stage 3: random sets that were tried.
    hits : int
        How many of them ended at `score`; many of many is a good sign, though not a proof.
    candidates : tuple of int
        The pool that was asked for, ascending.
    limits : tuple of Limit
        Kept by `indices`.
    """

    indices: tuple[int, ...]
    score: float
    trajectory: tuple[float, ...]
    greedy: tuple[int, ...]
    swapped_score: float
    restarts: int
    hits: int
    candidates: tuple[int, ...]
    limits: tuple[Limit, ...] = field(default=(), repr=False)


def select(
    similarity: object,
    k: int,
    *,
    restarts: int = 500,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
    limits: Sequence[Limit] = (),
) -> Selection:
    """Search for the k models of highest mean pairwise similarity (paper, section 2.3).

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
        Symmetric; the diagonal is ignored.
    k : int
        Size of the set, 2 to the number of candidates.
    restarts : int
        Random sets from which the swap search starts besides the greedy set (the paper: 500 to
        2,000).
    seed : int
        Of the random sets; one seed gives one result.
    candidates : sequence of int, optional
        Rows that may be chosen; all by default.
    limits : sequence of Limit
        What the set must keep besides (`realign_utils.limits`).

    Returns
    -------
    Selection
        No single swap improves it. Of equally good sets the lexicographically lowest is kept.

    Raises
    ------
    UserError
        If the matrix is not a similarity matrix, `k`, `restarts` or `candidates` do not fit it, or
        no set keeps the limits (says which contradict each other).
    """
    matrix, pool = candidate_matrix(similarity, k, candidates)
    if restarts < 0:
        raise UserError(f"restarts must be at least 0, not {restarts}")
    asked, n = tuple(pool.tolist()), len(similarity)
    feasible = [pool[list(require_feasible(limits, k, pool, n))]] if limits else []
    if limits:
        matrix, pool = candidate_matrix(similarity, k, pool[~forbidden(limits, n)[pool]])
    loads = loads_of(limits, pool, n) if limits else NO_LIMITS
    joined = join_greedily(matrix, k, loads)
    first = [joined, *(np.searchsorted(pool, rows) for rows in feasible)]
    random_sets = np.random.default_rng(seed).random((restarts, len(pool))).argsort(axis=1)[:, :k]
    lifted, ends, _ = without_outliers(matrix, np.array(first), loads)
    ends = np.concatenate([ends, improve_by_swaps(lifted, random_sets, loads)])
    scores = mean_over_pairs(matrix, ends)
    scores[loads.excess(ends) > 0] = -np.inf
    near = IMPROVEMENT * max(abs(scores.max()), typical(matrix))
    level = np.flatnonzero(scores >= scores.max() - near)
    best = min(ends[row].tolist() for row in level)
    return Selection(
        indices=tuple(pool[best].tolist()),
        score=float(mean_over_pairs(matrix, np.array([best]))[0]),
        trajectory=_trajectory(matrix, joined),
        greedy=tuple(pool[joined].tolist()),
        swapped_score=float(scores[0]) if np.isfinite(scores[0]) else float("nan"),
        restarts=restarts,
        hits=int((level >= len(first)).sum()),
        candidates=asked,
        limits=tuple(limits),
    )


def greedy(
    similarity: object, k: int, *, candidates: Sequence[int] | None = None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Stage 1: start with the most similar pair, then add what contributes most to the average.

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
    k : int
    candidates : sequence of int, optional
        Rows that may be chosen; all by default.

    Returns
    -------
    joined : tuple of int, length k
        In the order of joining; ties go to the lowest row.
    trajectory : tuple of float, length k - 1
        Mean pairwise similarity after 2, 3, ..., k models (paper, Figure 7).
    """
    matrix, pool = candidate_matrix(similarity, k, candidates)
    joined = join_greedily(matrix, k)
    return tuple(pool[joined].tolist()), _trajectory(matrix, joined)


def _trajectory(matrix: np.ndarray, joined: Sequence[int]) -> tuple[float, ...]:
    sizes = range(2, len(joined) + 1)
    return tuple(float(mean_over_pairs(matrix, np.array([joined[:k]]))[0]) for k in sizes)
