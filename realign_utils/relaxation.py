"""Good multipliers for the bound of `bounds`: the doubly non-negative relaxation, solved.

With X = xx' the value x'Cx of a k-set is linear in X. The relaxation lets X be any positive
semidefinite, elementwise non-negative matrix with X1 = k diag X, trace X = k and W diag X <= b for
the limits. (With a border, Y = [1 x'; x X], this is the same set: X1 = kx makes the border a
combination of the other columns.) Nothing here has to be right for a bound to hold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg

from realign_utils.bounds import Dual, Problem, largest_eigenvalue

_STEP = 1.618
"""Step length of the multipliers: below the golden ratio the method is known to converge."""
_REBALANCE = 40
"""Steps after which the penalty is looked at."""


@dataclass(frozen=True)
class Iterate:
    """Where the solver stands.

    Attributes
    ----------
    dual : Dual
    primal : ndarray of shape (n, n)
        The relaxed solution X / k.
    room : ndarray of shape (m,)
        What X / k leaves of each limit.
    penalty : float
    """

    dual: Dual
    primal: np.ndarray
    room: np.ndarray
    penalty: float

    def shares(self, size: int) -> np.ndarray:
        """The diagonal of X: how much of each model the relaxed solution chooses."""
        return size * self.primal.diagonal()

    def restricted(self, parent: Problem, child: Problem, dual: Dual) -> Iterate:
        """Where to start on a problem with more decisions."""
        kept = np.isin(parent.rows, child.rows)
        primal = self.primal[np.ix_(kept, kept)]
        return replace(self, dual=dual, primal=primal / max(primal.trace(), 1e-9))


@dataclass(frozen=True)
class _Equations:
    """The equations on X as a linear map, X1 - k diag X and V diag X, with V = [1'; W].

    `inverse` is that of the map times its adjoint, with 1 added for each limit's own room.
    """

    k: int
    diagonal: np.ndarray
    inverse: np.ndarray

    def gather(self, matrix: np.ndarray) -> np.ndarray:
        """The map, (n, n) -> (n + 1 + m,)."""
        entries = matrix.diagonal()
        return np.concatenate([matrix.sum(axis=1) - self.k * entries, self.diagonal @ entries])

    def spread(self, multipliers: np.ndarray) -> np.ndarray:
        """Its adjoint, (n + 1 + m,) -> (n, n)."""
        n = self.diagonal.shape[1]
        y = multipliers[:n]
        spread = (y[:, None] + y) / 2
        spread[np.diag_indices(n)] += multipliers[n:] @ self.diagonal - self.k * y
        return spread


def start(problem: Problem) -> Iterate:
    """A first iterate: M = 0, the y that leaves least of the matrix, the mean over all k-sets.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Iterate
    """
    n, k, m = len(problem.rows), problem.size, len(problem.loads.most)
    primal = np.full((n, n), (k - 1) / (n - 1) / n)
    np.fill_diagonal(primal, 1 / n)
    dual = Dual(_centre(problem)[:n], np.zeros((n, n)), np.zeros(m), 0.0)
    return Iterate(_with_top(problem, dual), primal, np.zeros(m), 1.0)


def tighten(problem: Problem, iterate: Iterate, steps: int, deadline: float) -> Iterate:
    """Improve the multipliers by an alternating direction method on the dual problem.

    The dual is to make t small where tI - S = Z is positive semidefinite (see `bounds`). Z (by an
    eigenvalue projection), the room of the limits, M, and, before and after M, y, t and the prices
    (in closed form) are improved in turn, with X as multiplier of the equation: Sun, Toh & Yang
    2015. C is first freed of its part along A*(y) and I, which adds the same to all sets, and
    scaled to norm 1.

    Parameters
    ----------
    problem : Problem
    iterate : Iterate
        Of this problem.
    steps : int
        Eigenvalue projections to make.
    deadline : float
        Of `time.monotonic`; the method stops there.

    Returns
    -------
    Iterate
    """
    n, m, k = len(problem.rows), len(problem.loads.most), problem.size
    equations = _equations(k, np.vstack([np.ones(n), problem.loads.weights]))
    right = np.concatenate([np.zeros(n), [1.0], problem.loads.most / k])
    centre = np.append(_centre(problem), np.zeros(m))
    cost = equations.spread(centre) - problem.quadratic
    scale = float(np.linalg.norm(cost)) or 1.0
    cost /= scale
    v = (centre - [*iterate.dual.y, iterate.dual.top, *iterate.dual.prices]) / scale
    nonnegative, primal = iterate.dual.nonnegative / scale, iterate.primal
    room, penalty = iterate.room, iterate.penalty
    for step in range(1, steps + 1):
        semidefinite = _positive_part(cost - equations.spread(v) - nonnegative - primal / penalty)
        worth = np.maximum(-v[n + 1 :] - room / penalty, 0.0)
        for update_nonnegative in (True, False):
            rest = equations.gather(primal / penalty + semidefinite + nonnegative - cost)
            rest[n + 1 :] += room / penalty + worth
            v = equations.inverse @ (right / penalty - rest)
            if update_nonnegative:
                left = cost - equations.spread(v) - semidefinite
                nonnegative = np.maximum(left - primal / penalty, 0.0)
        residual = equations.spread(v) + semidefinite + nonnegative - cost
        primal = primal + _STEP * penalty * residual
        room = room + _STEP * penalty * (v[n + 1 :] + worth)
        if step % _REBALANCE == 0:
            broken = equations.gather(primal) - right
            broken[n + 1 :] += room
            penalty *= _rebalance(broken, primal, residual)
        if time.monotonic() > deadline:
            break
    np.fill_diagonal(nonnegative, 0.0)
    found = centre - scale * v
    dual = Dual(found[:n], scale * nonnegative, np.maximum(found[n + 1 :], 0.0), 0.0)
    return Iterate(_with_top(problem, dual), primal, room, penalty)


def _equations(k: int, diagonal: np.ndarray) -> _Equations:
    n = diagonal.shape[1]
    gram = np.zeros((n + len(diagonal),) * 2)
    gram[:n, :n] = 0.5 + (n / 2 + k * (k - 2)) * np.eye(n)
    gram[n:, :n] = (1 - k) * diagonal
    gram[:n, n:] = gram[n:, :n].T
    gram[n:, n:] = diagonal @ diagonal.T
    limits = np.arange(n + 1, len(gram))
    gram[limits, limits] += 1.0
    return _Equations(k, diagonal, np.linalg.inv(gram))


def _centre(problem: Problem) -> np.ndarray:
    """The (y, t) for which A*(y) + tI comes nearest to the matrix."""
    equations = _equations(problem.size, np.ones((1, len(problem.rows))))
    return equations.inverse @ equations.gather(problem.quadratic)


def _with_top(problem: Problem, dual: Dual) -> Dual:
    return replace(dual, top=largest_eigenvalue(problem, dual))


def _positive_part(matrix: np.ndarray) -> np.ndarray:
    """Projection on the positive semidefinite matrices, from the smaller part of the spectrum."""
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    zero = int(np.searchsorted(values, 0.0))
    if zero < len(values) / 2:
        return matrix - (vectors[:, :zero] * values[:zero]) @ vectors[:, :zero].T
    return (vectors[:, zero:] * values[zero:]) @ vectors[:, zero:].T


def _rebalance(broken: np.ndarray, primal: np.ndarray, residual: np.ndarray) -> float:
    """Factor for the penalty that keeps the violations of primal and dual alike."""
    violation = np.linalg.norm(broken) + np.linalg.norm(np.minimum(primal, 0.0))
    ratio = violation / max(2 * float(np.linalg.norm(residual)), 1e-300)
    return 1 / 1.4 if ratio > 3 else 1.4 if ratio < 1 / 3 else 1.0
