"""How firm a choice is: other images, sets that are as good, other proxies, other pools."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from realign_utils.certificate import certify
from realign_utils.progress import track
from realign_utils.search import Selection, select
from realign_utils.swaps import candidate_matrix, mean_over_pairs


@dataclass(frozen=True)
class EquallyGood:
    """Sets whose mean reaches a threshold.

    Attributes
    ----------
    count : int
        How many were met, the best included: by single swaps from the best on, and by the search
        for a set unlike it.
    complete : bool
        Whether all that can be reached by such swaps were met; if not, there are more than `count`.
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
) -> np.ndarray:
    """How often each model is in the best set, over matrices of resampled images.

    Parameters
    ----------
    matrices : sequence of array-likes or tensors of shape (n, n)
        E.g. `uncertainty.Resamples.matrices`.
    k : int
    restarts, seed : int
        Of the search on each matrix.
    candidates : sequence of int, optional

    Returns
    -------
    ndarray of shape (n,)
        Shares between 0 and 1; their sum is k.
    """
    counts = np.zeros(len(matrices[0]))
    for matrix in track(matrices, "best sets of resampled images", len(matrices)):
        chosen = select(matrix, k, restarts=restarts, seed=seed, candidates=candidates)
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
        The best set; its candidates are searched.
    threshold : float
        At most the selection's score.
    limit : int
        Sets after which counting stops.

    Returns
    -------
    EquallyGood
    """
    k = len(selection.indices)
    matrix, pool = candidate_matrix(similarity, k, selection.candidates)
    best = tuple(np.searchsorted(pool, selection.indices).tolist())
    least = threshold * k * (k - 1) - 1e-12 * np.abs(matrix).max()
    seen, queue = {best}, deque([best])
    while queue and len(seen) < limit:
        for rows in _neighbours(matrix, queue.popleft(), least):
            if rows not in seen and len(seen) < limit:
                seen.add(rows)
                queue.append(rows)
    found = [*seen, *_unlike(matrix, best, least)]
    farthest = min(found, key=lambda rows: (len({*rows} & {*best}), rows))
    return EquallyGood(
        count=len({*found}),
        complete=not queue and len(seen) < limit,
        farthest=tuple(pool[list(farthest)].tolist()),
        farthest_score=float(mean_over_pairs(matrix, np.array([farthest]))[0]),
        shared=len({*farthest} & {*best}),
    )


def _neighbours(matrix: np.ndarray, rows: tuple[int, ...], least: float) -> list[tuple[int, ...]]:
    """Sets one swap away whose sum over ordered pairs is at least `least`."""
    members = np.array(rows)
    others = np.setdiff1d(np.arange(len(matrix)), members)
    support = matrix[members].sum(axis=0)
    change = support[others] - support[members][:, None] - matrix[np.ix_(members, others)]
    good = np.argwhere(support[members].sum() + 2 * change >= least)
    return [tuple(sorted({*rows} - {rows[i]} | {int(others[j])})) for i, j in good]


def _unlike(matrix: np.ndarray, best: tuple[int, ...], least: float) -> list[tuple[int, ...]]:
    """Sets that reach `least` with few models of the best: each of those is made to cost something.

    A cost c of each model of the best set, spread over its k - 1 pairs, makes the search trade
    similarity for difference; c is doubled, then halved in on where sets no longer reach `least`.
    """
    k, inside = len(best), np.isin(np.arange(len(matrix)), best).astype(float)
    found, low, high = [], 0.0, np.inf
    cost = 1e-3 * float(np.abs(matrix).max())
    for _ in range(30):
        costs = cost * (inside[:, None] + inside) / (2 * (k - 1))
        rows = select(matrix - costs, k, restarts=50).indices
        if matrix[np.ix_(rows, rows)].sum() >= least:
            found.append(rows)
            low = cost
        else:
            high = cost
        cost = 2 * cost if np.isinf(high) else (low + high) / 2
    return found


def regret_table(
    proxies: Mapping[str, np.ndarray],
    judges: Mapping[str, np.ndarray],
    k: int,
    *,
    restarts: int = 200,
    seed: int = 0,
    candidates: Sequence[int] | None = None,
) -> pd.DataFrame:
    """What choosing on one set of images costs when judged on another.

    Parameters
    ----------
    proxies, judges : mapping of str to array of shape (n, n)
        Similarity on the images on which models are chosen, and on those on which they are judged,
        of the same models in the same order.
    k : int
    restarts, seed : int
        Of the search.
    candidates : sequence of int, optional

    Returns
    -------
    pandas.DataFrame
        Columns chosen_on, judged_on, score (of the chosen set), best (that a set chosen on the
        judge itself would reach), regret (best less score), shared (models that both sets have).
    """
    options = {"restarts": restarts, "seed": seed, "candidates": candidates}
    ideal = {name: select(matrix, k, **options) for name, matrix in judges.items()}
    rows = []
    for proxy, matrix in proxies.items():
        chosen = np.array(select(matrix, k, **options).indices)
        for judge, best in ideal.items():
            on_judge, _ = candidate_matrix(judges[judge], k, None)
            score = float(mean_over_pairs(on_judge, chosen[None])[0])
            shared = len({*chosen.tolist()} & {*best.indices})
            rows.append((proxy, judge, score, best.score, best.score - score, shared))
    return pd.DataFrame(
        rows, columns=["chosen_on", "judged_on", "score", "best", "regret", "shared"]
    )


def pool_table(
    similarity: object,
    pools: Mapping[str, Sequence[int]],
    k: int,
    *,
    restarts: int = 500,
    seed: int = 0,
    time_limit: float = 10,
) -> pd.DataFrame:
    """The best of each pool, with its bound: does one mechanism or family agree more than a mixture?

    Parameters
    ----------
    similarity : array-like or tensor of shape (n, n)
    pools : mapping of str to sequence of int
        Rows of each pool; a pool of fewer than `k` is left out.
    k : int
    restarts, seed : int
        Of the search.
    time_limit : float
        Seconds for each certificate.

    Returns
    -------
    pandas.DataFrame
        Columns pool, candidates, score, upper_bound, optimal, agreeing_restarts (share), models
        (rows, space-separated).
    """
    rows = []
    for pool, members in track(pools.items(), "pools", len(pools)):
        if len(members) < k:
            continue
        chosen = select(similarity, k, restarts=restarts, seed=seed, candidates=members)
        proof = certify(similarity, chosen, time_limit=time_limit)
        agreeing = chosen.hits / restarts if restarts else np.nan
        listed = " ".join(map(str, chosen.indices))
        row = (pool, len(members), chosen.score, proof.upper_bound, proof.optimal, agreeing, listed)
        rows.append(row)
    columns = ["pool", "candidates", "score", "upper_bound", "optimal", "agreeing_restarts"]
    return pd.DataFrame(rows, columns=[*columns, "models"])
