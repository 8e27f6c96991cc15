"""How far a set may be from the best: a bound, and where it closes a proof, that anyone can check.

`certify` solves: branch and bound on the doubly non-negative relaxation (`branch_and_bound`,
`relaxation`). What it leaves behind, a `Certificate`, is a tree of decisions with multipliers for
each leaf. `check_certificate` solves nothing: it walks the tree, and accepts only what one Cholesky
factorisation per leaf proves (`bounds`) on the matrix that it is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from realign_utils.bounds import Dual, Problem, inherit, only_set, problem_after, proves, row_bound
from realign_utils.branch_and_bound import Leaf, Proof, tolerance
from realign_utils.errors import UserError
from realign_utils.limits import Limit, Loads, forbidden, loads_of
from realign_utils.outliers import raised, without_outliers
from realign_utils.swaps import candidate_matrix, mean_over_pairs

if TYPE_CHECKING:
    from realign_utils.search import Selection


@dataclass(frozen=True)
class Certificate:
    """What is proved of a set.

    Attributes
    ----------
    indices : tuple of int, length k
        The set: rows of the whole matrix, ascending.
    score : float
        Its mean similarity over pairs.
    upper_bound : float
        No k-set of the candidates within the limits has a higher mean.
    tolerance : float
        Difference of means up to which sets count as equally good: 1e-9 times the score or a
        typical similarity, whichever is larger.
    best : tuple of int, length k
        The best set met on the way: `indices`, unless that was not the best.
    candidates : tuple of int
        Rows that might be chosen: of those asked for, all that the limits do not forbid.
    limits : tuple of Limit
    nodes : int
        Parts of the search tree in which the relaxation was solved.
    leaves, duals
        The proof: see `Leaf` and `Dual`; their rows are counted within the candidates.
    floor : float
        The proof is about the matrix with every lower entry lifted to this (`outliers.raised`).
    """

    indices: tuple[int, ...]
    score: float
    upper_bound: float
    tolerance: float
    best: tuple[int, ...]
    candidates: tuple[int, ...] = field(repr=False)
    limits: tuple[Limit, ...] = field(repr=False)
    nodes: int
    leaves: tuple[Leaf, ...] = field(repr=False)
    duals: tuple[Dual, ...] = field(repr=False)
    floor: float = -np.inf

    @property
    def gap(self) -> float:
        """How much better another set can be at most, relative to the score; 0 if `optimal`."""
        if self.optimal:
            return 0.0
        return (self.upper_bound - self.score) / abs(self.score) if self.score else np.inf

    @property
    def optimal(self) -> bool:
        """Whether it is proved that no set is better by more than `tolerance`."""
        return self.upper_bound - self.score <= self.tolerance


def certify(
    similarity: object,
    selection: Selection | Sequence[int],
    *,
    time_limit: float = 60,
    show: Callable[[str], object] | None = None,
) -> Certificate:
    """Bound the best mean similarity, and prove a selection optimal where it is.

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
        The matrix on which the set was selected.
    selection : Selection or sequence of int
        The set. A selection brings its candidates and limits; else all rows count, without limits.
    time_limit : float
        Seconds after which the bound that was reached is returned: valid, but not tight. The time
        is looked at between eigenvalue projections (2 ms at n = 141, seconds at n = 3,000).
    show : callable, optional
        Gets a line of progress after each node.

    Returns
    -------
    Certificate
        ``.upper_bound``, ``.gap`` and ``.optimal``, with all that is needed to check them.

    Raises
    ------
    UserError
        If the matrix or the selection is not valid.
    """
    deadline = time.monotonic() + require_time(time_limit)
    indices = tuple(sorted(int(row) for row in getattr(selection, "indices", selection)))
    limits = tuple(getattr(selection, "limits", ()))
    candidates = np.array(getattr(selection, "candidates", range(len(similarity))), dtype=int)
    candidates = candidates[~forbidden(limits, len(similarity))[candidates]]
    matrix, pool = candidate_matrix(similarity, len(indices), candidates)
    loads = loads_of(limits, pool, len(similarity))
    places = _places(indices, pool, loads)
    lifted, improved, floor = without_outliers(matrix, places[None], loads)
    proof = Proof(lifted, improved[0], loads, deadline)
    with _few_threads(len(matrix)):
        for line in proof.run():
            if show:
                show(line)
    pairs = len(indices) * (len(indices) - 1)
    score = float(mean_over_pairs(matrix, places[None])[0])
    return Certificate(
        indices=indices,
        score=score,
        # Up by its last digits: a check adds the same numbers in another order.
        upper_bound=proof.level / pairs + 1e-13 * abs(proof.level / pairs),
        tolerance=tolerance(matrix, score),
        best=tuple(pool[proof.best].tolist()),
        candidates=tuple(pool.tolist()),
        limits=limits,
        nodes=proof.nodes,
        leaves=tuple(proof.leaves),
        duals=tuple(proof.duals),
        floor=floor,
    )


def require_time(seconds: float) -> float:
    """The seconds, if they are a time limit.

    Raises
    ------
    UserError
        If they are negative or no number.
    """
    if not seconds >= 0:
        raise UserError(f"the time limit must be at least 0 seconds, not {seconds}")
    return seconds


def with_set(similarity: object, certificate: Certificate, indices: Sequence[int]) -> Certificate:
    """The same proof beside another set of the same size: its bound holds for every set.

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
        The certificate's matrix.
    certificate : Certificate
    indices : sequence of int, length k
        A set of the candidates within the limits, e.g. the certificate's `best`.

    Returns
    -------
    Certificate
        With the score of that set, and its tolerance.

    Raises
    ------
    UserError
        If it is no such set.
    """
    rows = tuple(sorted(int(row) for row in indices))
    matrix, pool = candidate_matrix(similarity, len(rows), certificate.candidates)
    if len(rows) != len(certificate.indices):
        raise UserError(f"a set of {len(rows)}, but the proof is for {len(certificate.indices)}")
    places = _places(rows, pool, loads_of(certificate.limits, pool, len(similarity)))
    score = float(mean_over_pairs(matrix, places[None])[0])
    return replace(certificate, indices=rows, score=score, tolerance=tolerance(matrix, score))


def check_certificate(similarity: object, certificate: Certificate) -> None:
    """Check a certificate against the matrix, without solving anything.

    Nothing in the certificate is believed: the score is computed anew, the leaves must cover all
    k-sets of the candidates, and for each leaf one Cholesky factorisation must prove the bound.

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
    certificate : Certificate
        From `certify` or `certificate_files.load_certificate`.

    Raises
    ------
    UserError
        If anything does not hold; says what.
    """
    k = len(certificate.indices)
    matrix, pool = candidate_matrix(similarity, k, certificate.candidates)
    loads = loads_of(certificate.limits, pool, len(similarity))
    places = _places(certificate.indices, pool, loads)
    score = float(mean_over_pairs(matrix, places[None])[0])
    allowed = tolerance(matrix, score)
    if not abs(score - certificate.score) <= 1e-3 * allowed:
        raise _refused(f"its set scores {score!r} on this matrix, not {certificate.score!r}")
    if not 0 <= certificate.tolerance <= allowed * (1 + 1e-9):
        raise _refused(f"it claims a tolerance of {certificate.tolerance!r}")
    if not covers([leaf.path for leaf in certificate.leaves], len(pool)):
        raise _refused("its leaves do not cover all sets")
    matrix = raised(matrix, certificate.floor)
    level = certificate.upper_bound * k * (k - 1)
    origins: dict[tuple[int, ...], Problem] = {}
    with _few_threads(len(matrix)):
        for number, leaf in enumerate(certificate.leaves, 1):
            if not _holds(matrix, k, loads, leaf, certificate.duals, level, origins):
                raise _refused(
                    f"leaf {number} of {len(certificate.leaves)} does not prove the upper bound "
                    f"{certificate.upper_bound!r} on this matrix"
                )


def covers(paths: Sequence[tuple[int, ...]], n: int) -> bool:
    """Whether paths of decisions are exactly the leaves of a binary tree, so that no set escapes.

    All of them start with the same row, some with it in and some with it out; and so on in both
    parts, with a row that was not yet decided.

    Parameters
    ----------
    paths : sequence of tuple of int
        See `Leaf`.
    n : int
        Rows are less than this.

    Returns
    -------
    bool
    """
    stack = [(list(paths), 0, frozenset())]
    while stack:
        part, depth, decided = stack.pop()
        if len(part) == 1 and len(part[0]) == depth:
            continue
        if not part or any(len(path) <= depth for path in part):
            return False
        row = max(part[0][depth], ~part[0][depth])
        if row >= n or row in decided or {path[depth] for path in part} != {row, ~row}:
            return False
        for decision in (row, ~row):
            branch = [path for path in part if path[depth] == decision]
            stack.append((branch, depth + 1, decided | {row}))
    return True


def _holds(
    matrix: np.ndarray,
    k: int,
    loads: Loads,
    leaf: Leaf,
    duals: Sequence[Dual],
    level: float,
    origins: dict[tuple[int, ...], Problem],
) -> bool:
    """Whether the leaf's multipliers prove the level for all sets of its part of the tree."""
    problem = problem_after(matrix, k, loads, leaf.path)
    rows = only_set(problem)
    if rows is not None:
        return not len(rows) or matrix[np.ix_(rows, rows)].sum() + problem.rounding <= level
    if row_bound(problem) <= level:
        return True
    start = leaf.path[: leaf.depth]
    if leaf.dual is None or leaf.dual not in range(len(duals)) or leaf.depth < 0:
        return False
    if start not in origins:
        origins[start] = problem_after(matrix, k, loads, start)
    dual, n = duals[leaf.dual], len(origins[start].rows)
    shapes = (dual.y.shape, dual.nonnegative.shape, dual.prices.shape)
    if shapes != ((n,), (n, n), loads.most.shape):
        return False
    return proves(problem, inherit(dual, origins[start], problem), level)


def _places(indices: Sequence[int], pool: np.ndarray, loads: Loads) -> np.ndarray:
    """Where the rows of a set stand among the candidates."""
    missing = sorted({*indices} - {*pool.tolist()})
    if missing:
        raise UserError(f"row {missing[0]} of the selection is not among the candidates")
    if len({*indices}) < len(indices):
        raise UserError("the selection holds a row twice")
    places = np.searchsorted(pool, indices)
    if loads.excess(places[None])[0] > 0:
        raise UserError("the selection does not keep its limits")
    return places


def _few_threads(n: int) -> AbstractContextManager:
    """One thread for small matrices: more do not help, and on a busy machine cost a hundredfold."""
    return threadpool_limits(1 if n <= 500 else None, user_api="blas")


def _refused(reason: str) -> UserError:
    return UserError(f"certificate refused: {reason}")
