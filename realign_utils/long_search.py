"""A memetic search for large matrices (n to 3,000, k to 500), beyond the paper's three stages.

A population of sets is improved by tabu search, which goes on past local optima by forbidding, for
a while, to undo what it did; two good sets breed a third that keeps what they share. After Wu &
Hao 2013 ("A hybrid metaheuristic method for the maximum diversity problem"). At the size of the
registry the restarts of `search` already end at the best; this matters from some 500 rows on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from realign_utils.certificate import require_time
from realign_utils.errors import UserError
from realign_utils.limits import Limit, forbidden, loads_of
from realign_utils.outliers import typical, without_outliers
from realign_utils.search import Selection, select
from realign_utils.swaps import (
    IMPROVEMENT,
    NO_LIMITS,
    candidate_matrix,
    improve_by_swaps,
    join_greedily,
    mean_over_pairs,
)

LARGE = 50_000
"""Candidates times k from which `search_within` uses this search."""

_POPULATION = 10
_WIDTH = 12
"""Models on either side of a swap that are looked at in a step of the tabu search."""
_TELL = 2.0
"""Seconds between two lines of progress."""


def search_within(
    similarity: object,
    k: int,
    *,
    restarts: int = 500,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
    limits: Sequence[Limit] = (),
    time_limit: float = 60,
    show: Callable[[str], object] | None = None,
) -> Selection:
    """The search that suits the size: the paper's three stages, or for large matrices this one.

    From `LARGE` on, restarts would take hours: greedy and swaps are followed by `search_longer`,
    or, where limits remain that do more than forbid models, by at most 10 restarts.

    Parameters
    ----------
    similarity, k, restarts, seed, candidates, limits
        As for `search.select`.
    time_limit : float
        Seconds for `search_longer`.
    show : callable, optional
        Gets lines of progress.

    Returns
    -------
    Selection
        With `restarts` 0 and `hits` 0 where `search_longer` was used.

    Raises
    ------
    UserError
        As `search.select`.
    """
    n = len(similarity)
    pool = np.arange(n) if candidates is None else np.array(sorted(candidates))
    options = {"seed": seed, "candidates": candidates, "limits": limits}
    if len(pool) * k < LARGE:
        return select(similarity, k, restarts=restarts, **options)
    selection = select(similarity, k, restarts=0, **options)
    pool = pool[~forbidden(limits, n)[pool]]
    if len(loads_of(limits, pool, n).most):
        return select(similarity, k, restarts=min(restarts, 10), **options)
    rows, score = search_longer(
        similarity,
        k,
        time_limit=time_limit,
        seed=seed,
        candidates=pool.tolist(),
        start=selection.indices,
        show=show,
    )
    return replace(selection, indices=rows, score=score)


def search_longer(
    similarity: object,
    k: int,
    *,
    time_limit: float = 60,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
    start: Sequence[int] | None = None,
    show: Callable[[str], object] | None = None,
) -> tuple[tuple[int, ...], float]:
    """Search for the k models of highest mean pairwise similarity until time is up.

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
        Symmetric; the diagonal is ignored.
    k : int
        Size of the set.
    time_limit : float
        Seconds. The result depends on it, and so on the machine.
    seed : int
        Of the random choices.
    candidates : sequence of int, optional
        Rows that may be chosen; all by default.
    start : sequence of int, length k, optional
        A set to start from besides the greedy one; the result is never worse.
    show : callable, optional
        Gets a line of progress every few seconds.

    Returns
    -------
    indices : tuple of int, length k
        Ascending; no single swap improves the set.
    score : float
        Its mean similarity over pairs.

    Raises
    ------
    UserError
        If the matrix, `k`, `candidates` or `time_limit` do not fit, or `start` is no k-set of the
        candidates.
    """
    deadline = time.monotonic() + require_time(time_limit)
    plain, pool = candidate_matrix(similarity, k, candidates)
    first = [join_greedily(plain, k)]
    if start is not None:
        if len({*start} & {*pool.tolist()}) != k or len(start) != k:
            raise UserError(f"the start must be {k} different rows of the candidates")
        first.append(np.searchsorted(pool, sorted(start)).tolist())
    matrix, ends, _ = without_outliers(plain, np.array(first), NO_LIMITS)
    best = _evolve(matrix, [*ends], np.random.default_rng(seed), deadline, show)
    return tuple(pool[best].tolist()), float(mean_over_pairs(plain, best[None])[0])


def _evolve(
    matrix: np.ndarray,
    population: list[np.ndarray],
    rng: np.random.Generator,
    deadline: float,
    show: Callable[[str], object] | None,
) -> np.ndarray:
    """Breed and improve until time is up; the best set, which no swap improves."""
    k = len(population[0])
    tell = _Teller(deadline, k * (k - 1), show)
    while len(population) < _POPULATION and time.monotonic() < deadline:
        population.append(_tabu(matrix, rng.permutation(len(matrix))[:k], rng, deadline))
        tell(_sum(matrix, rows) for rows in population)
    values = [_sum(matrix, rows) for rows in population]
    while time.monotonic() < deadline and k < len(matrix):
        mother, father = rng.choice(len(population), 2, replace=len(population) < 2)
        child = _tabu(
            matrix, _breed(matrix, population[mother], population[father], rng), rng, deadline
        )
        value, worst = _sum(matrix, child), int(np.argmin(values))
        known = any((child == rows).all() for rows in population)
        if value > values[worst] and not known:
            population[worst], values[worst] = child, value
        tell(values)
    return improve_by_swaps(matrix, population[int(np.argmax(values))][None])[0]


class _Teller:
    """Shows the best value now and then, and the time left."""

    def __init__(self, deadline: float, pairs: int, show: Callable[[str], object] | None) -> None:
        self.deadline, self.pairs, self.show = deadline, pairs, show
        self.told = time.monotonic()

    def __call__(self, values: Iterable[float]) -> None:
        if self.show and time.monotonic() - self.told > _TELL:
            self.told = time.monotonic()
            left = max(self.deadline - self.told, 0.0)
            self.show(f"best {max(values) / self.pairs:.7f}, {left:.0f} s of the search left")


def _breed(
    matrix: np.ndarray, mother: np.ndarray, father: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """What both parents have, filled up by turns with what fits best from the one and the other."""
    child = np.intersect1d(mother, father)
    support = matrix[child].sum(axis=0)
    rest = [np.setdiff1d(parent, child) for parent in (mother, father)]
    turn = int(rng.integers(2))
    while len(child) < len(mother):
        place = int(support[rest[turn]].argmax())
        row = rest[turn][place]
        rest[turn] = np.delete(rest[turn], place)
        child, support, turn = np.append(child, row), support + matrix[row], 1 - turn
    return child


def _tabu(
    matrix: np.ndarray, rows: np.ndarray, rng: np.random.Generator, deadline: float
) -> np.ndarray:
    """The best set met on a walk that takes the best allowed swap, up or down, each time."""
    n, k = len(matrix), len(rows)
    inside = np.zeros(n, dtype=bool)
    inside[rows] = True
    support = matrix[inside].sum(axis=0)
    value = best_value = 0.0
    best, allowed_at = inside.copy(), np.zeros(n, dtype=int)
    width, tenure = min(_WIDTH, k, n - k), min(k, n - k) // 4
    step, improved_at, least = 0, 0, IMPROVEMENT * k * typical(matrix)
    while width and step - improved_at < 20 * max(k, 10):
        step += 1
        if step % 100 == 0 and time.monotonic() > deadline:
            break
        allowed = allowed_at <= step
        out = np.argpartition(np.where(inside & allowed, support, np.inf), width - 1)[:width]
        into = np.argpartition(np.where(~inside & allowed, -support, np.inf), width - 1)[:width]
        change = support[into] - support[out][:, None] - matrix[np.ix_(out, into)]
        change[~(inside & allowed)[out]] = -np.inf  # fewer than `width` are allowed
        change[:, ~(~inside & allowed)[into]] = -np.inf
        i, j = np.unravel_index(change.argmax(), change.shape)
        if change[i, j] == -np.inf:
            continue
        leaving, entering = out[i], into[j]
        inside[leaving], inside[entering] = False, True
        support += matrix[entering] - matrix[leaving]
        value += change[i, j]
        allowed_at[leaving] = step + 1 + tenure + rng.integers(1 + tenure)
        allowed_at[entering] = step + 1 + tenure // 2 + rng.integers(1 + tenure // 2)
        if value > best_value + least:
            best, best_value, improved_at = inside.copy(), value, step
    return np.flatnonzero(best)


def _sum(matrix: np.ndarray, rows: np.ndarray) -> float:
    return float(matrix[np.ix_(rows, rows)].sum())
