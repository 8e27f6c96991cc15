"""One set for several matrices: good on the worst proxy, or whatever images had been drawn.

`search.select` maximises one matrix, a weighted combination of proxies included. Here the set's
means on several matrices are first reduced to one number, the worst of them or a lower confidence
limit, and that is maximised by the same stages: best-improvement swaps from many starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from realign_utils.certificate import Certificate, certify
from realign_utils.errors import UserError
from realign_utils.search import select
from realign_utils.swaps import IMPROVEMENT, candidate_matrix, mean_over_pairs

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
    candidates : tuple of int
        The pool that was searched, ascending.
    """

    indices: tuple[int, ...]
    score: float
    means: tuple[float, ...]
    candidates: tuple[int, ...]


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

    Returns
    -------
    RobustSelection
        No single swap improves it.
    """
    stack, pool = _stack(matrices, k, candidates)
    rng = np.random.default_rng(seed)
    starts = [select(matrix, k, restarts=20, seed=seed).indices for matrix in stack[:10]]
    starts.append(select(stack.mean(axis=0), k, restarts=20, seed=seed).indices)
    starts += [rng.permutation(len(pool))[:k] for _ in range(restarts)]
    ends = [_swap(stack, np.sort(rows), objective) for rows in starts]
    scores = [float(objective(_means(stack, rows))) for rows in ends]
    best = ends[int(np.argmax(scores))]
    return RobustSelection(
        indices=tuple(pool[best].tolist()),
        score=max(scores),
        means=tuple(_means(stack, best).tolist()),
        candidates=tuple(pool.tolist()),
    )


def certify_worst(
    matrices: Sequence[object], selection: RobustSelection, *, time_limit: float = 60
) -> tuple[float, np.ndarray, Certificate]:
    """Bound the best possible worst mean.

    The worst of several means is at most any weighted mean of them, so that an upper bound for a
    weighted combination of the matrices is one for the worst. The weights are those for which the
    best combination known is lowest. A gap may remain that no weights close.

    Parameters
    ----------
    matrices : sequence of p array-likes or tensors of shape (n, n)
    selection : RobustSelection
        For `worst`.
    time_limit : float
        Seconds for the certificate.

    Returns
    -------
    upper_bound : float
        No k-set of the candidates has a higher worst mean.
    weights : ndarray of shape (p,)
    certificate : Certificate
        Of the best set for the weighted combination.
    """
    k = len(selection.indices)
    stack, pool = _stack(matrices, k, selection.candidates)
    known = [np.array(selection.means)]
    for _ in range(100):
        weights, level = _hardest_weights(np.array(known))
        combined = np.tensordot(weights, stack, 1)
        best = select(combined, k, restarts=100)
        if best.score <= level + 1e-7 * np.abs(stack).max():
            break
        known.append(_means(stack, np.array(best.indices)))
    whole = np.tensordot(weights, np.array([np.asarray(matrix) for matrix in matrices]), 1)
    rows = select(whole, k, restarts=100, candidates=pool.tolist())
    certificate = certify(whole, rows, time_limit=time_limit)
    return certificate.upper_bound, weights, certificate


def _hardest_weights(known: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights, of sum 1, for which the best of the known sets, (s, p), scores lowest."""
    s, p = known.shape
    found = linprog(
        np.append(np.zeros(p), 1.0),
        A_ub=np.column_stack([known, -np.ones(s)]),
        b_ub=np.zeros(s),
        A_eq=[[1.0] * p + [0.0]],
        b_eq=[1.0],
        bounds=[(0, 1)] * p + [(None, None)],
    )
    weights = np.maximum(found.x[:p], 0.0)
    return weights / weights.sum(), float(found.x[p])


def _stack(
    matrices: Sequence[object], k: int, candidates: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    prepared = [candidate_matrix(matrix, k, candidates) for matrix in matrices]
    if not prepared:
        raise UserError("no matrix is given")
    if len({matrix.shape for matrix, _ in prepared}) > 1:
        raise UserError("the matrices differ in size")
    return np.array([matrix for matrix, _ in prepared]), prepared[0][1]


def _means(stack: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.array([mean_over_pairs(matrix, rows[None])[0] for matrix in stack])


def _swap(stack: np.ndarray, rows: np.ndarray, objective: Objective) -> np.ndarray:
    """Make the swap that raises the objective most until none does; the first of equal swaps."""
    k = len(rows)
    others = np.setdiff1d(np.arange(stack.shape[1]), rows)
    threshold = IMPROVEMENT * np.abs(stack).max()
    while len(others):
        support = stack[:, rows].sum(axis=1)
        change = support[:, None, others] - support[:, rows, None] - stack[:, rows][:, :, others]
        sums = support[:, rows].sum(axis=1)[:, None, None] + 2 * change
        values = objective(sums / (k * (k - 1)))
        best = np.unravel_index(values.argmax(), values.shape)
        if values[best] <= objective(_means(stack, rows)) + threshold:
            break
        rows = np.sort(np.append(np.delete(rows, best[0]), others[best[1]]))
        others = np.setdiff1d(np.arange(stack.shape[1]), rows)
    return rows
