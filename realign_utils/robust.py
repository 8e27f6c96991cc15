"""One set for several matrices: good on the worst proxy, or whatever images had been drawn.

`search.select` maximises one matrix, a weighted combination of proxies included. Here the set's
means on several matrices are first reduced to one number, the worst of them or a lower confidence
limit, and that is maximised by the same stages: best-improvement swaps from many starts.
How far from the best a set may be is told by `robust_bounds`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from realign_utils.errors import UserError
from realign_utils.limits import Limit, Loads, forbidden, loads_of, require_feasible
from realign_utils.outliers import typical
from realign_utils.search import select
from realign_utils.swaps import (
    IMPROVEMENT,
    NO_LIMITS,
    candidate_matrix,
    improve_by_swaps,
    mean_over_pairs,
    preference,
)

Objective = Callable[[np.ndarray], np.ndarray]
"""Reduces the means on p matrices, (p, ...), to what is maximised, (...)."""


@dataclass(frozen=True)
class RobustSelection:
    """The best set that was found for several matrices.

    Attributes
    ----------
    indices : tuple of int, length k
        Rows of the matrices, ascending.
    score : float
        The objective.
    means : tuple of float, length p
        Mean similarity over pairs on each matrix.
    restarts : int
        Random sets that were tried: fewer than asked for where some cannot be led within the limits.
    hits : int
        How many of them ended at `score`.
    candidates : tuple of int
        The pool that was asked for, ascending.
    limits : tuple of Limit
        Kept by `indices`.
    """

    indices: tuple[int, ...]
    score: float
    means: tuple[float, ...]
    restarts: int
    hits: int
    candidates: tuple[int, ...]
    limits: tuple[Limit, ...] = field(default=(), repr=False)


def worst(means: np.ndarray) -> np.ndarray:
    """The objective max-min: the mean on the matrix that likes the set least."""
    return means.min(axis=0)


def lower_limit(reach: float) -> Objective:
    """The objective "lower confidence limit", for an estimate followed by resampled matrices.

    Parameters
    ----------
    reach : float
        How many standard deviations of the resampled means the limit lies below the estimate, e.g.
        Student's quantile times the factor of `uncertainty`, equation (1).

    Returns
    -------
    callable
        An objective for which the first matrix is the estimate.
    """
    return lambda means: means[0] - reach * means[1:].std(axis=0, ddof=1)


def select_robust(
    matrices: Sequence[object],
    k: int,
    *,
    objective: Objective = worst,
    restarts: int = 50,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
    limits: Sequence[Limit] = (),
) -> RobustSelection:
    """Search for the k models for which an objective over several matrices is highest.

    Parameters
    ----------
    matrices : sequence of p array-likes or tensors of shape (n, n)
    k : int
    objective : callable
        `worst`, `lower_limit(...)` or any other function of the means.
    restarts : int
        Random sets from which the swaps start besides the best of each matrix (of the first 10).
    seed : int
    candidates : sequence of int, optional
    limits : sequence of Limit
        What the set must keep besides (`realign_utils.limits`).

    Returns
    -------
    RobustSelection
        No single swap improves it.

    Raises
    ------
    UserError
        As `search.select`.
    """
    stack, pool = _stack(matrices, k, candidates)
    asked, n = tuple(pool.tolist()), len(matrices[0])
    feasible = [pool[list(require_feasible(limits, k, pool, n))]] if limits else []
    if limits:
        stack, pool = _stack(matrices, k, pool[~forbidden(limits, n)[pool]])
    loads = loads_of(limits, pool, n) if limits else NO_LIMITS
    whole = [np.asarray(matrix, dtype=np.float64) for matrix in matrices]
    options = {"restarts": 20, "seed": seed, "candidates": pool.tolist(), "limits": limits}
    likely = [select(matrix, k, **options).indices for matrix in whole[:10]]
    likely.append(select(np.mean(whole, axis=0), k, **options).indices)
    first = [np.searchsorted(pool, rows) for rows in [*feasible, *likely]]
    starts = [*first, *random_sets(len(pool), k, loads, restarts, seed)]
    ends = [_swap(stack, np.sort(rows), objective, loads) for rows in starts]
    scores = np.array([float(objective(means_of(stack, rows))) for rows in ends])
    near = IMPROVEMENT * max(abs(scores.max()), typical(stack[0]))
    level = np.flatnonzero(scores >= scores.max() - near)
    best = ends[level[0]]
    return RobustSelection(
        indices=tuple(pool[best].tolist()),
        score=float(scores[level[0]]),
        means=tuple(means_of(stack, best).tolist()),
        restarts=len(starts) - len(first),
        hits=int((level >= len(first)).sum()),
        candidates=asked,
        limits=tuple(limits),
    )


def _stack(
    matrices: Sequence[object], k: int, candidates: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    prepared = [candidate_matrix(matrix, k, candidates) for matrix in matrices]
    if not prepared:
        raise UserError("no matrix is given")
    if len({matrix.shape for matrix, _ in prepared}) > 1:
        raise UserError("the matrices differ in size")
    return np.array([matrix for matrix, _ in prepared]), prepared[0][1]


def random_sets(n: int, k: int, loads: Loads, number: int, seed: int) -> np.ndarray:
    """Random k-sets of n rows that keep limits.

    Where there are limits, swaps on a random matrix lead each set to where it keeps them; sets that
    do not come so far are left out.

    Parameters
    ----------
    n, k : int
    loads : Loads
        On the n rows.
    number : int
        Sets to draw.
    seed : int

    Returns
    -------
    ndarray of int, shape (number or fewer, k)
    """
    rng = np.random.default_rng(seed)
    sets = rng.random((number, n)).argsort(axis=1)[:, :k]
    if not len(loads.most):
        return sets
    moved = []
    for rows in sets:
        noise = rng.random((n, n))
        moved.append(improve_by_swaps(noise + noise.T, rows[None], loads)[0])
    kept = [rows for rows in moved if loads.excess(rows[None])[0] == 0]
    return np.array(kept, dtype=int).reshape(-1, k)


def means_of(stack: np.ndarray, rows: Sequence[int] | np.ndarray) -> np.ndarray:
    """Mean similarity over the pairs of a set on each of p matrices, (p, n, n) -> (p,)."""
    rows = np.asarray(rows)
    return np.array([mean_over_pairs(matrix, rows[None])[0] for matrix in stack])


def _swap(
    stack: np.ndarray, rows: np.ndarray, objective: Objective, loads: Loads = NO_LIMITS
) -> np.ndarray:
    """Make the swap that raises the objective most until none does; the first of equal swaps."""
    k = len(rows)
    others = np.setdiff1d(np.arange(stack.shape[1]), rows)
    score, scale = objective(means_of(stack, rows)), typical(stack[0])
    while len(others):
        support = stack[:, rows].sum(axis=1)
        change = support[:, None, others] - support[:, rows, None] - stack[:, rows][:, :, others]
        sums = support[:, rows].sum(axis=1)[:, None, None] + 2 * change
        values = objective(sums / (k * (k - 1)))
        plain = values
        if len(loads.most):
            values = values + preference(rows[None], loads, 1.0)[0][:, others]
        best = np.unravel_index(values.argmax(), values.shape)
        swapped = np.sort(np.append(np.delete(rows, best[0]), others[best[1]]))
        after, bonus = objective(means_of(stack, swapped)), values[best] - plain[best]
        if not after + bonus > score + IMPROVEMENT * max(abs(score), scale):
            break
        rows, score = swapped, after
        others = np.setdiff1d(np.arange(stack.shape[1]), rows)
    return rows
