"""Upper bounds on the best k-set that hold whatever the solver did.

The task is to choose 0/1 values x with sum k that maximise x'Cx. For every vector y, every matrix
M >= 0 and, where there are limits Ax <= b, every vector of prices u >= 0, every k-set has

    x'Cx <= x'Sx + u'b <= k lambda_max(S) + u'b,    S = C - Diag(A'u) + M - A*(y),

    A*(y) = (y1' + 1y')/2 - k Diag y,

for x'Mx >= 0, x'A*(y)x = (y'x)(1'x) - k y'x = 0, x'Diag(A'u)x = u'Ax <= u'b and x'x = k. Nothing
else is needed to believe a bound. `relaxation` finds good y, M and u; they are the multipliers of
the doubly non-negative relaxation. (Jansson, Chaykin & Keil 2007 bound
b'y + (k + 1) max(0, lambda_max) for its form with a border, Y = [1 x'; x X]; without the border
nothing has to be cut at zero.)

The eigenvalue is not trusted either: that it is at most t is concluded from a Cholesky
factorisation of tI - S that runs to its end, less what rounding can hide (Rump 2006, "Verification
of positive definiteness").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from realign_utils.limits import SLACK, Loads

_EPSILON = float(np.finfo(np.float64).eps)
_SMALLEST = 1e-290
"""Allowed where all else is zero, so that a matrix of zeros has a bound as well."""


@dataclass(frozen=True)
class Problem:
    """Choose `size` of `rows` to maximise ``constant + x' quadratic x`` within the limits.

    Some models are already chosen, others excluded. What the chosen ones add to each model stands
    on the diagonal of `quadratic`, for x_i x_i = x_i.

    Attributes
    ----------
    quadratic : ndarray of shape (n, n)
    size : int
        Models still to be chosen.
    constant : float
        Sum over the ordered pairs of chosen models.
    loads : Loads
        What the limits leave to the free rows.
    rows : ndarray of int, shape (n,)
        Rows of the whole matrix that are still free, ascending.
    chosen : tuple of int
        Rows of the whole matrix that are already in the set.
    rounding : float
        No set's sum over ordered pairs is farther than this from its value as computed here.
    """

    quadratic: np.ndarray
    size: int
    constant: float
    loads: Loads
    rows: np.ndarray
    chosen: tuple[int, ...]
    rounding: float


@dataclass(frozen=True)
class Dual:
    """Multipliers that give a bound.

    Attributes
    ----------
    y : ndarray of shape (n,)
    nonnegative : ndarray of shape (n, n)
        M; negative entries are read as 0.
    prices : ndarray of shape (m,)
        u, one for each limit; negative ones are read as 0.
    top : float
        Estimate of lambda_max(S); no bound relies on it.
    """

    y: np.ndarray
    nonnegative: np.ndarray
    prices: np.ndarray
    top: float


def problem_after(matrix: np.ndarray, k: int, loads: Loads, path: tuple[int, ...]) -> Problem:
    """What is left to choose after some decisions.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Symmetric, with a zero diagonal.
    k : int
    loads : Loads
        Limits on its rows.
    path : tuple of int
        Decisions: r for "row r is in", ~r = -r - 1 for "row r is out".

    Returns
    -------
    Problem
    """
    rows, chosen, left = _after(len(matrix), loads, path)
    quadratic = matrix[np.ix_(rows, rows)]
    np.fill_diagonal(quadratic, 2 * matrix[np.ix_(rows, chosen)].sum(axis=1))
    kept = np.sort(np.append(rows, chosen)).astype(int)
    largest = float(np.abs(matrix[np.ix_(kept, kept)]).max(initial=0.0))
    return Problem(
        quadratic=quadratic,
        size=k - len(chosen),
        constant=float(matrix[np.ix_(chosen, chosen)].sum()),
        loads=left,
        rows=rows,
        chosen=tuple(chosen),
        rounding=4 * k**3 * _EPSILON * largest,
    )


def leaves_no_set(n: int, k: int, loads: Loads, path: tuple[int, ...]) -> bool:
    """Whether limits or numbers leave no set after some decisions; looks at no similarity.

    Parameters
    ----------
    n : int
        Rows of the matrix.
    k, loads, path
        As for `problem_after`.
    """
    rows, chosen, left = _after(n, loads, path)
    return _hopeless(left, k - len(chosen), len(rows))


def _after(n: int, loads: Loads, path: tuple[int, ...]) -> tuple[np.ndarray, list[int], Loads]:
    """Rows that are free after some decisions, rows chosen, and what limits leave to the free."""
    chosen = sorted(row for row in path if row >= 0)
    free = np.ones(n, dtype=bool)
    free[[max(row, ~row) for row in path]] = False
    rows = np.flatnonzero(free)
    most = loads.most - loads.carried(chosen).sum(axis=1)
    return rows, chosen, Loads(loads.carried(rows), most)


def _hopeless(loads: Loads, size: int, left: int) -> bool:
    lightest = np.sort(loads.weights, axis=1)[:, : max(size, 0)].sum(axis=1)
    return not 0 <= size <= left or bool((lightest > loads.most + SLACK).any())


def only_set(problem: Problem) -> np.ndarray | None:
    """The best set's rows where there is hardly a choice; else None.

    That is where no set is left (then no rows), or where nothing, one model, or everything is left
    to choose.
    """
    left, size = len(problem.rows), problem.size
    if _hopeless(problem.loads, size, left):
        return np.array([], dtype=int)
    if size == 1:
        kept = (problem.loads.weights <= problem.loads.most[:, None] + SLACK).all(axis=0)
        worth = np.where(kept, problem.quadratic.diagonal(), -np.inf)
        best = problem.rows[[worth.argmax()]] if kept.any() else None
        return np.array([], dtype=int) if best is None else np.append(problem.chosen, best)
    if size in (0, left):
        return np.append(problem.chosen, problem.rows[: size or 0]).astype(int)
    return None


def proves(problem: Problem, dual: Dual | None, level: float) -> bool:
    """Whether the multipliers prove that no set's sum over ordered pairs exceeds `level`.

    Costs one Cholesky factorisation, and accounts for every rounding on the way.

    Parameters
    ----------
    problem : Problem
        Not one with an `only_set`.
    dual : Dual
        Anything of the right shape.
    level : float

    Returns
    -------
    bool
    """
    spent, rounding = _spent(problem, dual)
    slack, error = _slack(problem, dual, (level - rounding - spent) / problem.size)
    trace = slack.trace()
    if not (np.isfinite(slack).all() and trace > 0):
        return False
    slack[np.diag_indices(len(slack))] -= error + (len(slack) + 2) * _EPSILON * trace
    try:
        np.linalg.cholesky(slack)
    except np.linalg.LinAlgError:
        return False
    return True


def upper_bound(problem: Problem, dual: Dual) -> float:
    """The lowest level, nearly, that `proves` accepts.

    Parameters
    ----------
    problem : Problem
    dual : Dual

    Returns
    -------
    float
        A bound on the sum over ordered pairs; infinite if the multipliers are not finite.
    """
    spent, rounding = _spent(problem, dual)
    slack, error = _slack(problem, dual, 0.0)
    if not np.isfinite(slack).all():
        return float("inf")
    n = len(slack)
    top = largest_eigenvalue(problem, dual)
    allowance = error + n * _EPSILON * (n * abs(top) + abs(slack.trace())) + _SMALLEST
    while True:
        level = spent + rounding + problem.size * (top + allowance)
        if proves(problem, dual, level) or not np.isfinite(level):
            return float(level)
        allowance *= 2


def row_bound(problem: Problem) -> float:
    """A bound without multipliers: to each model its most similar others, and of those sums the best.

    Loose, but at hand at once where n is too large for `relaxation` to come far.
    """
    own, k = problem.quadratic.diagonal(), problem.size
    others = problem.quadratic - np.diag(np.full(len(own), np.inf))
    sums = own + np.partition(others, len(own) - k + 1, axis=1)[:, len(own) - k + 1 :].sum(axis=1)
    best = np.partition(sums, len(own) - k)[len(own) - k :].sum()
    return problem.constant + float(best) + 2 * problem.rounding


def largest_eigenvalue(problem: Problem, dual: Dual) -> float:
    """lambda_max(S), as computed."""
    slack, _ = _slack(problem, dual, 0.0)
    return -float(scipy.linalg.eigvalsh(slack, subset_by_index=[0, 0])[0])


def inherit(dual: Dual, parent: Problem, child: Problem) -> Dual:
    """Carry multipliers over to a problem with more decisions; the bound gets no worse.

    To exclude a model drops its row. To choose model i writes x = Tz with T = [1'/(k - 1); I] for
    what is left, z. T'(tI - S)T is positive semidefinite like tI - S, and again of the form
    t'I - S', apart from what M has in row i, which is not negative and can be left out.

    Parameters
    ----------
    dual : Dual
        Of `parent`; its `top` should be right.
    parent, child : Problem

    Returns
    -------
    Dual
        Of `child`.
    """
    if len(child.rows) == len(parent.rows):
        return dual
    added = sorted({*child.chosen} - {*parent.chosen})
    kept = np.flatnonzero(np.isin(parent.rows, [*child.rows, *added]))
    rows, y, top, size = parent.rows[kept], dual.y[kept], dual.top, parent.size
    nonnegative = dual.nonnegative[np.ix_(kept, kept)]
    priced = parent.quadratic - np.diag(np.maximum(dual.prices, 0.0) @ parent.loads.weights)
    priced = priced[np.ix_(kept, kept)]
    for row in added:
        i, rest = int(np.flatnonzero(rows == row)[0]), rows != row
        size -= 1
        shift = (top - priced[i, i]) / size
        y = ((size + 1) * y - 2 * (priced[i] + nonnegative[i]) + shift)[rest] / size
        top += shift
        moved = 2 * priced[i, rest]
        priced, nonnegative = (part[np.ix_(rest, rest)] for part in (priced, nonnegative))
        priced[np.diag_indices(len(priced))] += moved
        rows = rows[rest]
    return _push_down(child, Dual(y, nonnegative, dual.prices, top))


def _push_down(problem: Problem, dual: Dual) -> Dual:
    """Lower lambda_max by a multiple of 1 in y.

    With Z = tI - S, as large an s as leaves Z - s 11' positive semidefinite is s = 1 / 1'Z^-1 1; and
    s 11' = s A*(1) + s k I, so that t falls by s k.
    """
    slack, _ = _slack(problem, dual, dual.top)
    slack[np.diag_indices(len(slack))] += 1e-10 * abs(dual.top)
    try:
        factor = scipy.linalg.cho_factor(slack, check_finite=False)
    except np.linalg.LinAlgError:
        return dual
    ones = np.ones(len(slack))
    shift = 1 / (ones @ scipy.linalg.cho_solve(factor, ones, check_finite=False))
    return Dual(dual.y - shift, dual.nonnegative, dual.prices, dual.top - problem.size * shift)


def _spent(problem: Problem, dual: Dual) -> tuple[float, float]:
    """The part of the bound besides the eigenvalue, and how far rounding can put it wrong."""
    costs = np.maximum(dual.prices, 0.0) * (problem.loads.most + SLACK)
    return problem.constant + float(costs.sum()), problem.rounding + 4 * _EPSILON * (
        len(costs) + 1
    ) * float(np.abs(costs).sum())


def _slack(problem: Problem, dual: Dual, top: float) -> tuple[np.ndarray, float]:
    """``top I - S`` and a bound on the norm of its rounding error."""
    nonnegative = np.maximum((dual.nonnegative + dual.nonnegative.T) / 2, 0.0)
    priced = np.maximum(dual.prices, 0.0) @ problem.loads.weights
    weight = np.maximum(dual.prices, 0.0) @ np.abs(problem.loads.weights)
    slack = (dual.y[:, None] + dual.y) / 2 - problem.quadratic - nonnegative
    slack[np.diag_indices(len(slack))] += top + priced - problem.size * dual.y
    magnitude = np.abs(problem.quadratic) + nonnegative + np.abs(dual.y)[:, None] + np.abs(dual.y)
    magnitude[np.diag_indices(len(slack))] += problem.size * np.abs(dual.y) + abs(top)
    magnitude[np.diag_indices(len(slack))] += (len(dual.prices) + 1) * weight
    return slack, 4 * _EPSILON * float(np.linalg.norm(magnitude))
