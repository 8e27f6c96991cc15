"""What a set may hold: models fixed in or out, so many of a family, so much capacity in all.

Each is a `Limit` on the sum of some weight over the chosen models. Where limits contradict each
other or k, `require_feasible` names those that do.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from realign_utils.errors import UserError

SLACK = 1e-9
"""A limit counts as kept when it is exceeded by no more than this, relative to its weights."""


_INFEASIBLE = 2
"""What `milp` returns as status where it has proved that there is no set."""


@dataclass(frozen=True)
class Limit:
    """``at_least <= sum of the weights of the chosen models <= at_most``.

    Attributes
    ----------
    name : str
        For messages, e.g. ``"at most 3 of family vit"``.
    weights : tuple of float, length n
        One for each row of the matrix.
    at_least, at_most : float
        Infinite where there is no such end.
    """

    name: str
    weights: tuple[float, ...] = field(repr=False)
    at_least: float = -np.inf
    at_most: float = np.inf


def count_limit(
    rows: Iterable[int], n: int, *, name: str, at_least: float = -np.inf, at_most: float = np.inf
) -> Limit:
    """So many of some models, e.g. of a family.

    Parameters
    ----------
    rows : iterable of int
        The models that are counted.
    n : int
        Rows of the matrix.
    name : str
        How messages call it.
    at_least, at_most : float
        Ends of the count.

    Returns
    -------
    Limit
    """
    weights = np.zeros(n)
    weights[list(rows)] = 1.0
    return Limit(name, tuple(weights.tolist()), at_least, at_most)


def include(rows: Sequence[int], n: int, names: Sequence[str] | None = None) -> list[Limit]:
    """Models fixed in: a limit for each, so that a conflict names the model (or its row)."""
    named = [(row, names[row] if names else f"row {row}") for row in rows]
    return [count_limit([row], n, name=f"{name} fixed in", at_least=1) for row, name in named]


def exclude(rows: Sequence[int], n: int, names: Sequence[str] | None = None) -> list[Limit]:
    """Models fixed out: a limit for each."""
    named = [(row, names[row] if names else f"row {row}") for row in rows]
    return [count_limit([row], n, name=f"{name} fixed out", at_most=0) for row, name in named]


@dataclass(frozen=True)
class Loads:
    """All limits as ``weights @ x <= most``, each scaled to a largest weight of 1.

    Attributes
    ----------
    weights : ndarray of shape (m, n)
    most : ndarray of shape (m,)
    """

    weights: np.ndarray
    most: np.ndarray

    def excess(self, sets: np.ndarray) -> np.ndarray:
        """How far sets, (r, k), break the limits in all, (r,); 0 where all are kept."""
        return cut(self.carried(sets).sum(axis=2) - self.most[:, None]).sum(axis=0)

    def carried(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Weights of some rows, of shape (m, *rows.shape)."""
        return self.weights[:, rows] if len(self.most) else np.zeros((0, *np.shape(rows)))


def cut(excess: np.ndarray) -> np.ndarray:
    """Excess over limits, with what may be rounding set to 0."""
    return np.where(excess > SLACK, excess, 0.0)


def forbidden(limits: Sequence[Limit], n: int) -> np.ndarray:
    """Rows that no set can hold, because they alone exceed a limit without negative weights.

    Parameters
    ----------
    limits : sequence of Limit
    n : int
        Rows of the matrix.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    out = np.zeros(n, dtype=bool)
    for limit in limits:
        weights = _weights(limit, n)
        if (weights >= 0).all():
            out |= weights > limit.at_most + SLACK * (weights.max() or 1.0)
    return out


def loads_of(limits: Sequence[Limit], rows: Sequence[int], n: int) -> Loads:
    """The limits on some rows of a matrix of n rows, as `Loads`.

    Models that are fixed in make one limit together, and what none of the rows can break makes
    none: every limit costs time at every swap.

    Raises
    ------
    UserError
        If a limit has not one weight for each row of the matrix.
    """
    rows = np.array(rows, dtype=int)
    weights, most, fixed = [np.zeros((0, len(rows)))], [], np.zeros(n)
    for limit in limits:
        values = _weights(limit, n)
        scale = float(np.abs(values).max()) or 1.0
        if np.count_nonzero(values) == 1 and values.max() == limit.at_least > 0:
            fixed[values.argmax()] = 1.0
            if limit.at_most >= limit.at_least:
                continue
        for sign, end in ((1.0, limit.at_most), (-1.0, -limit.at_least)):
            if np.isfinite(end) and (values[rows].any() or end < 0):
                weights.append(sign * values[None, rows] / scale)
                most.append(end / scale)
    if fixed.any():
        weights.append(-fixed[None, rows])
        most.append(-fixed.sum())
    return Loads(np.concatenate(weights), np.array(most, dtype=np.float64))


def _weights(limit: Limit, n: int) -> np.ndarray:
    values = np.array(limit.weights, dtype=np.float64)
    if values.shape != (n,) or not np.isfinite(values).all():
        raise UserError(f"limit {limit.name!r}: needs {n} finite weights, one for each row")
    return values


def require_feasible(
    limits: Sequence[Limit], k: int, pool: Sequence[int], n: int, *, time_limit: float = 20
) -> tuple[int, ...]:
    """Find a k-set of the pool within all limits, or say which limits contradict each other.

    Parameters
    ----------
    limits : sequence of Limit
    k : int
    pool : sequence of int
        Rows that may be chosen.
    n : int
        Rows of the matrix.
    time_limit : float
        Seconds for it all.

    Returns
    -------
    tuple of int, length k
        Places within the pool.

    Raises
    ------
    UserError
        Names a smallest group of limits that no k-set can keep together (where time allows to make
        it small); or says that none was found in time.
    """
    deadline = time.monotonic() + time_limit
    found = _any_set(limits, k, pool, n, deadline)
    if found is None:
        raise UserError(f"no {k} models that keep the limits were found within {time_limit:g} s")
    if found:
        return found
    conflict = list(limits)
    for limit in limits:
        others = [other for other in conflict if other is not limit]
        if _any_set(others, k, pool, n, deadline) == ():
            conflict = others
    names = " and ".join(repr(limit.name) for limit in conflict)
    raise UserError(f"no {k} of the {len(pool)} candidates can keep {names}")


def _any_set(
    limits: Sequence[Limit], k: int, pool: Sequence[int], n: int, deadline: float
) -> tuple[int, ...] | None:
    """A set within the limits, () where there is none, None where time did not suffice.

    The solver lets a limit be broken by a millionth; such a set is forbidden, and another sought.
    """
    loads = loads_of(limits, pool, n)
    constraints = [LinearConstraint(np.ones((1, len(pool))), k, k)]
    if len(loads.most):
        constraints.append(LinearConstraint(loads.weights, -np.inf, loads.most))
    while True:
        found = milp(
            np.zeros(len(pool)),
            constraints=constraints,
            integrality=np.ones(len(pool)),
            bounds=Bounds(0, 1),
            options={"time_limit": max(deadline - time.monotonic(), 0.01)},
        )
        if found.x is None:
            return () if found.status == _INFEASIBLE else None
        chosen = np.flatnonzero(found.x > 0.5)
        if loads.excess(chosen[None])[0] == 0:
            return tuple(chosen.tolist())
        constraints.append(LinearConstraint((found.x > 0.5)[None].astype(float), -np.inf, k - 1))
