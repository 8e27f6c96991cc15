"""The tree that closes the gap which one relaxation leaves, and that leaves a proof behind.

Best node first. At each node the relaxation is solved a little further, then every model whose
other decision is proved to lead to nothing better is fixed, and so on until the node is settled or
the bound moves no more; then the most undecided model is branched on. Children start from their
parent's multipliers, which give them a bound no worse than the parent's before any work.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from realign_utils.bounds import (
    Dual,
    Problem,
    inherit,
    leaves_no_set,
    only_set,
    problem_after,
    proves,
    row_bound,
    upper_bound,
)
from realign_utils.limits import Loads
from realign_utils.outliers import typical
from realign_utils.relaxation import Iterate, start, tighten
from realign_utils.swaps import improve_by_swaps

TOLERANCE = 1e-9
"""Sets whose means differ by no more than this, relative to `tolerance`, count as equally good."""

_STEPS = 40
"""Steps of the solver between two attempts to prove or to fix."""
_ROUNDS = 30
"""Such attempts at one node before it is branched in any case."""
_STALLED = 0.85
"""A node is branched when a round leaves more than this part of its gap."""
_PATIENCE = 10
"""Models in a row that may fail to be fixed before the others are left alone."""


@dataclass(frozen=True)
class Leaf:
    """A part of all k-sets, and which multipliers bound it.

    Attributes
    ----------
    path : tuple of int
        The decisions that lead to it: r for "row r is in", ~r = -r - 1 for "row r is out".
    dual : int or None
        Number of the multipliers; None where hardly a set is left and the best of them is plain.
    depth : int
        The multipliers belong to the problem after the first `depth` decisions.
    """

    path: tuple[int, ...]
    dual: int | None
    depth: int


@dataclass(frozen=True)
class _Node:
    path: tuple[int, ...]
    problem: Problem
    iterate: Iterate | None
    bound: float


@dataclass
class Proof:
    """A proof in the making that no k-set is better than the best one known.

    Parameters
    ----------
    matrix : ndarray of shape (n, n)
        Symmetric, with a zero diagonal.
    best : ndarray of int, shape (k,)
        A set within the limits that no swap improves; replaced where a better one is met.
    loads : Loads
    deadline : float
        Of `time.monotonic`.

    Attributes
    ----------
    level : float
        After `run`: no k-set has a higher sum over ordered pairs.
    leaves, duals
        The proof of that.
    nodes : int
        Nodes at which the relaxation was solved.
    """

    matrix: np.ndarray
    best: np.ndarray
    loads: Loads
    deadline: float
    level: float = np.inf
    leaves: list[Leaf] = field(default_factory=list)
    duals: list[Dual] = field(default_factory=list)
    nodes: int = 0

    def __post_init__(self) -> None:
        self.k = len(self.best)
        self.value = _sum(self.matrix, self.best)
        pairs = self.k * (self.k - 1)
        self.spare = tolerance(self.matrix, self.value / pairs) * pairs / 4

    @property
    def target(self) -> float:
        """What a part of the tree must stay below to be settled; half of the tolerance is spare."""
        return self.value + 2 * self.spare

    def run(self) -> Iterator[str]:
        """Search until everything is settled or time is up; yields a line after each node."""
        queue: list[tuple[float, int, _Node]] = []
        pushed = 0
        children = self._root()
        while True:
            for node in children:
                pushed += 1
                heapq.heappush(queue, (-node.bound, pushed, node))
            if self.nodes:
                yield self._report(queue)
            if not queue or time.monotonic() > self.deadline:
                break
            children = self._treat(heapq.heappop(queue)[2])
        self.level = max([self.target, *(node.bound for _, _, node in queue)]) + self.spare
        for _, _, node in queue:
            self._close(node.path, node, len(node.path))

    def _root(self) -> list[_Node]:
        """The whole problem, less the decisions that the limits force."""
        path: tuple[int, ...] = ()
        for row in range(len(self.matrix)) if len(self.loads.most) else ():
            if time.monotonic() > self.deadline:
                break
            for decision in (row, ~row):
                if leaves_no_set(len(self.matrix), self.k, self.loads, (*path, decision)):
                    self._close((*path, decision), None, 0)
                    path = (*path, ~decision)
                    break
        if self._settle(path, None):
            return []
        problem = self._problem(path)
        iterate = start(problem)
        return [_Node(path, problem, iterate, _bound(problem, iterate.dual))]

    def _treat(self, node: _Node) -> list[_Node]:
        """Solve a node's relaxation; settle it, or give back what remains to be looked at."""
        self.nodes += 1
        for number in range(_ROUNDS):
            if self._settle(node.path, node):
                return []
            if time.monotonic() > self.deadline:
                return [node]
            tighter = self._tighten(node)
            if tighter.bound > node.bound and time.monotonic() > self.deadline:
                return [node]
            self._round(tighter)
            if self._settle(tighter.path, tighter):
                return []
            stalled = tighter.bound - self.value > _STALLED * (node.bound - self.value)
            free = len(node.problem.rows)
            node = self._fix(tighter)
            if number and stalled and len(node.problem.rows) > 0.9 * free:
                break
        return [] if self._settle(node.path, node) else self._branch(node)

    def _tighten(self, node: _Node) -> _Node:
        iterate = tighten(node.problem, node.iterate, _STEPS, self.deadline)
        return _Node(node.path, node.problem, iterate, _bound(node.problem, iterate.dual))

    def _round(self, node: _Node) -> None:
        """Try the set that the relaxed solution suggests."""
        order = np.argsort(-node.iterate.primal.diagonal(), kind="stable")
        likely = node.problem.rows[order[: node.problem.size]]
        self._meet(np.append(node.problem.chosen, likely).astype(int))

    def _meet(self, rows: np.ndarray) -> None:
        improved = improve_by_swaps(self.matrix, rows[None], self.loads)
        value = _sum(self.matrix, improved[0])
        if value > self.value + self.spare / 2 and self.loads.excess(improved)[0] == 0:
            self.best, self.value = improved[0], value

    def _fix(self, node: _Node) -> _Node:
        """Decide every model whose other decision is proved to lead to nothing better."""
        shares = node.iterate.shares(node.problem.size)
        resistance = node.iterate.dual.nonnegative @ shares
        out = [place for place in np.argsort(-resistance, kind="stable") if shares[place] < 0.5]
        into = [place for place in np.argsort(-shares, kind="stable") if shares[place] >= 0.5]
        path = node.path
        for decisions in ((~node.problem.rows[out]).tolist(), node.problem.rows[into].tolist()):
            failures = 0
            for decision in decisions:
                if self._settle((*path, ~decision), node):
                    path, failures = (*path, decision), 0
                else:
                    failures += 1
                if failures == _PATIENCE or time.monotonic() > self.deadline:
                    break
        return self._child(node, path)

    def _branch(self, node: _Node) -> list[_Node]:
        """Split at the model that the relaxed solution leaves most undecided."""
        shares = node.iterate.shares(node.problem.size)
        row = int(node.problem.rows[np.abs(shares - 0.5).argmin()])
        children = [self._child(node, (*node.path, decision)) for decision in (row, ~row)]
        return [child for child in children if not self._settle(child.path, child)]

    def _child(self, node: _Node, path: tuple[int, ...]) -> _Node:
        problem = self._problem(path)
        if path == node.path or only_set(problem) is not None:
            return _Node(path, problem, node.iterate, node.bound)
        dual = inherit(node.iterate.dual, node.problem, problem)
        iterate = node.iterate.restricted(node.problem, problem, dual)
        return _Node(path, problem, iterate, _bound(problem, dual))

    def _problem(self, path: tuple[int, ...]) -> Problem:
        return problem_after(self.matrix, self.k, self.loads, path)

    def _settle(self, path: tuple[int, ...], origin: _Node | None) -> bool:
        """Make the path a leaf if the multipliers of `origin` prove that nothing better is there.

        `origin` is a node on the way to the path, or None.
        """
        own = origin is not None and len(origin.path) == len(path)
        problem = origin.problem if own else self._problem(path)
        rows = only_set(problem)
        if rows is not None:
            if len(rows) and _sum(self.matrix, rows) > self.target:
                self._meet(rows)
            self._close(path, None, 0)
            return True
        if origin is None:
            return False
        dual = inherit(origin.iterate.dual, origin.problem, problem)
        if not proves(problem, dual, self.target):
            return False
        self._close(path, origin, len(origin.path))
        return True

    def _close(self, path: tuple[int, ...], origin: _Node | None, depth: int) -> None:
        if origin is None:
            self.leaves.append(Leaf(path, None, 0))
            return
        if not (self.duals and self.duals[-1] is origin.iterate.dual):
            self.duals.append(origin.iterate.dual)
        self.leaves.append(Leaf(path, len(self.duals) - 1, depth))

    def _report(self, queue: list[tuple[float, int, _Node]]) -> str:
        pairs = self.k * (self.k - 1)
        bound = max([self.target, *(node.bound for _, _, node in queue)])
        return (
            f"bound {bound / pairs:.7f}, best {self.value / pairs:.7f}, "
            f"{self.nodes} nodes done, {len(queue)} open"
        )


def _bound(problem: Problem, dual: Dual) -> float:
    return min(upper_bound(problem, dual), row_bound(problem))


def tolerance(matrix: np.ndarray, score: float) -> float:
    """Difference of means up to which sets count as equally good as one of this mean.

    Relative to the mean or to a typical similarity, whichever is larger.
    """
    return TOLERANCE * max(abs(score), typical(matrix))


def _sum(matrix: np.ndarray, rows: np.ndarray) -> float:
    return float(matrix[np.ix_(rows, rows)].sum())
