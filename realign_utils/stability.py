"""How firm a choice is: other images, sets that are as good, other proxies."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity
from realign_utils.limits import Limit, Loads, forbidden, loads_of
from realign_utils.outliers import typical
from realign_utils.progress import track
from realign_utils.robust import select_robust
from realign_utils.search import Selection, select
from realign_utils.swaps import (
    IMPROVEMENT,
    NO_LIMITS,
    candidate_matrix,
    mean_over_pairs,
    preference,
)

HALVES = 30
"""Pairs of halves of the judge's images over which a regret is averaged."""


@dataclass(frozen=True)
class EquallyGood:
    """Sets whose mean reaches a threshold.

    Attributes
    ----------
    count : int
        How many were met, the best included: by single swaps from the best on, and from the sets
        that a search for ones unlike it found. There are at least so many.
    complete : bool
        Whether all that can be reached by such swaps were met; if not, there are more than `count`.
        Even then others may exist to which no swaps lead.
    farthest : tuple of int, length k
        Of the sets found, the one that has fewest models of the best.
    farthest_score : float
    shared : int
        Models that it has in common with the best.
    """

    count: int
    complete: bool
    farthest: tuple[int, ...]
    farthest_score: float
    shared: int


def membership(
    matrices: Sequence[object],
    k: int,
    *,
    restarts: int = 20,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
    limits: Sequence[Limit] = (),
) -> np.ndarray:
    """How often each model is in the best set, over matrices of resampled images.

    Parameters
    ----------
    matrices : sequence of array-likes or tensors of shape (n, n), or of p of them
        E.g. `objectives.plausible`. Where each is several, the set best on the worst of them counts.
    k : int
    restarts, seed : int
        Of the search on each matrix.
    candidates : sequence of int, optional
    limits : sequence of Limit

    Returns
    -------
    ndarray of shape (n,)
        Shares between 0 and 1; their sum is k.
    """
    several = np.ndim(matrices[0]) == 3
    search, counts = select_robust if several else select, np.zeros(np.shape(matrices[0])[-1])
    options = {"restarts": restarts, "seed": seed, "candidates": candidates, "limits": limits}
    for matrix in track(matrices, "best sets of resampled images", len(matrices)):
        chosen = search(matrix, k, **options)
        counts[list(chosen.indices)] += 1
    return counts / len(matrices)


def equally_good(
    similarity: object, selection: Selection, threshold: float, *, limit: int = 10_000
) -> EquallyGood:
    """Sets whose mean is not below a threshold, e.g. the lower end of the best mean's interval.

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
    selection : Selection
        The best set; its candidates are searched, and its limits kept.
    threshold : float
        At most the selection's score.
    limit : int
        Sets after which counting stops.

    Returns
    -------
    EquallyGood
    """
    k = len(selection.indices)
    asked = np.array(selection.candidates)
    asked = asked[~forbidden(selection.limits, len(similarity))[asked]]
    matrix, pool = candidate_matrix(similarity, k, asked)
    limits = [
        replace(limit, weights=tuple(np.take(limit.weights, pool))) for limit in selection.limits
    ]
    loads = loads_of(limits, range(len(pool)), len(pool)) if limits else NO_LIMITS
    best = tuple(np.searchsorted(pool, selection.indices).tolist())
    least = threshold * k * (k - 1) - IMPROVEMENT * k * k * max(abs(threshold), typical(matrix))
    unlike = [rows for rows in _unlike(matrix, best, least, limits) if rows != best]
    seen, queue = {best, *unlike}, deque(dict.fromkeys([best, *unlike]))
    while queue and len(seen) < limit:
        for rows in _neighbours(matrix, queue.popleft(), least, loads):
            if rows not in seen and len(seen) < limit:
                seen.add(rows)
                queue.append(rows)
    farthest = min(seen, key=lambda rows: (len({*rows} & {*best}), rows))
    return EquallyGood(
        count=len(seen),
        complete=not queue and len(seen) < limit,
        farthest=tuple(pool[list(farthest)].tolist()),
        farthest_score=float(mean_over_pairs(matrix, np.array([farthest]))[0]),
        shared=len({*farthest} & {*best}),
    )


def _neighbours(
    matrix: np.ndarray, rows: tuple[int, ...], least: float, loads: Loads
) -> list[tuple[int, ...]]:
    """Sets one swap away whose sum over ordered pairs is at least `least`."""
    members = np.array(rows)
    others = np.setdiff1d(np.arange(len(matrix)), members)
    support = matrix[members].sum(axis=0)
    change = support[others] - support[members][:, None] - matrix[np.ix_(members, others)]
    if len(loads.most):
        change += preference(members[None], loads, 1.0)[0][:, others]
    good = np.argwhere(support[members].sum() + 2 * change >= least)
    return [tuple(sorted({*rows} - {rows[i]} | {int(others[j])})) for i, j in good]


def _unlike(
    matrix: np.ndarray, best: tuple[int, ...], least: float, limits: Sequence[Limit]
) -> list[tuple[int, ...]]:
    """Sets that reach `least` with few models of the best: each of those is made to cost something.

    A cost c of each model of the best set, spread over its k - 1 pairs, makes the search trade
    similarity for difference; c is doubled, then halved in on where sets no longer reach `least`.
    """
    k, inside = len(best), np.isin(np.arange(len(matrix)), best).astype(float)
    found, low, high = [], 0.0, np.inf
    cost = 1e-3 * float(np.abs(matrix).max())
    for _ in range(30):
        costs = cost * (inside[:, None] + inside) / (2 * (k - 1))
        rows = select(matrix - costs, k, restarts=50, limits=limits).indices
        if matrix[np.ix_(rows, rows)].sum() >= least:
            found.append(rows)
            low = cost
        else:
            high = cost
        cost = 2 * cost if np.isinf(high) else (low + high) / 2
    return found


def regret_table(
    choices: Mapping[str, Sequence[int]],
    judges: Mapping[str, np.ndarray],
    halves: Mapping[str, np.ndarray | None],
    *,
    own: Mapping[str, Collection[str]] | None = None,
    restarts: int = 200,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
) -> pd.DataFrame:
    """What choosing on one set of images costs when judged on another.

    The judge's best set is not chosen and scored on the same images, which would let it win by
    chance among equals: it is chosen on a random half of the judge's images, and on the other half
    both sets are scored; that for many halves, averaged.

    Parameters
    ----------
    choices : mapping of str to sequence of int, each of length k
        The set chosen on each set of images, or in any other way.
    judges : mapping of str to array of shape (n, n)
        Similarity on the images on which the sets are judged.
    halves : mapping of str to array of shape (draws, 2, n, n), or None
        On two halves of each judge's images that share none (`Comparison.halves`). Draws on which
        a model's CKA is undefined are left out; without any, the regret is NaN.
    own : mapping of str to collection of str, optional
        By choice: the judges on whose images it was made. There the regret is NaN: the set knows
        the very half on which it would be scored.
    restarts, seed : int
        Of the search for the best set of each judge.
    candidates : sequence of int, optional
        Rows that might be chosen; all by default.

    Returns
    -------
    pandas.DataFrame
        Columns chosen_on, judged_on, score (of the chosen set), best (that a set chosen on the
        judge itself would reach), shared (models that both sets have), optimistic (best less score:
        too large by what the best owes to chance), regret (across halves; below 0 where the chosen
        set is better than one that half of the judge's images would choose; NaN as said above).
    """
    options = {"restarts": restarts, "seed": seed, "candidates": candidates}
    size, rows = len(next(iter(choices.values()))), []
    for judge, matrix in judges.items():
        best = select(matrix, size, **options)
        options_of_half = options | {"restarts": min(restarts, 20)}
        drawn = [] if halves[judge] is None else [d for d in halves[judge] if np.isfinite(d).all()]
        others = [there for _, there in drawn]
        chosen_here = [select(here, size, **options_of_half).indices for here, _ in drawn]
        ideals = [mean_similarity(*pair) for pair in zip(others, chosen_here, strict=True)]
        for name, chosen in choices.items():
            score = mean_similarity(matrix, chosen)
            most = max(best.score, score)  # the search may miss the best by rounding, or at all
            reached = [mean_similarity(there, chosen) for there in others]
            known = others and judge not in (own or {}).get(name, ())
            regret = np.mean(ideals) - np.mean(reached) if known else np.nan
            shared = len({*chosen} & {*best.indices})
            rows.append((name, judge, score, most, shared, most - score, float(regret)))
    columns = ["chosen_on", "judged_on", "score", "best", "shared", "optimistic", "regret"]
    order = {name: place for place, name in enumerate(choices)}
    rows.sort(key=lambda row: order[row[0]])
    return pd.DataFrame(rows, columns=columns)
