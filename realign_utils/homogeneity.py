"""Do sets of one mechanism keep their alignment elsewhere better than mixed ones that look as good?

A set with a higher score on the proxy should have a higher one elsewhere too, whatever it is made
of. So homogeneous and mixed sets are compared at *equal proxy score*.

That alone would favour the thesis wherever the models of one mechanism merely score higher: the sets
of the others have to be picked by the proxy, chance included, to come up to them, and fall back
elsewhere. So the comparison is repeated with the names of the mechanisms exchanged among models of
like proxy quality. What is left of the difference then is not homogeneity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from realign_utils.ablation import Pool, has_sets, mixing_limits
from realign_utils.calibrate import mean_similarity
from realign_utils.limits import Loads, loads_of
from realign_utils.progress import track
from realign_utils.robust import random_sets
from realign_utils.swaps import NO_LIMITS, mean_over_pairs, preference

WITHIN = 5e-3
"""Sets count as equal on the proxy when their means differ from the common level by no more."""
COLUMNS = ["mechanism", "size", "judged_on", "level"]
COLUMNS += [
    f"{kind}{part}" for kind in ("homogeneous", "mixed") for part in ("_sets", "", "_low", "_high")
]
COLUMNS += ["difference", "by_quality", "by_quality_low", "by_quality_high", "in_favour"]
PERMUTATIONS = 39
"""So many, that the difference exceeds all of them by chance once in 40 times."""
_LIKE = 4
"""Models in a row, by their quality on the proxy, among which the names are exchanged."""
_FEWER = 40
"""Starts for either kind after an exchange."""
FEWEST = 6
"""Models that a mechanism must have to be compared."""


def homogeneous_against_mixed(
    similarity: np.ndarray,
    judges: Mapping[str, np.ndarray],
    mechanisms: Sequence[str],
    k: int,
    *,
    sets: int = 200,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """At equal score on the proxy, do sets of one mechanism score higher elsewhere than mixed ones?

    Of either kind many sets are drawn whose proxy mean is the same: the upper quartile of random
    sets of the kind that scores lower, or the median of the other kind if that is higher.

    Parameters
    ----------
    similarity : numpy.ndarray, shape (n, n)
        On the proxy.
    judges : mapping of str to numpy.ndarray, each of shape (n, n)
        Where the sets are judged.
    mechanisms : sequence of str, length n
        Of each model. A set is mixed if no mechanism has more than half of it. Those of fewer than
        `FEWEST` models are left out.
    k : int
        Size of the sets, or half of a mechanism's models where those are fewer than 2 k: else there
        would be hardly any sets of it.
    sets : int
        Random starts for either kind; sets that come out equal count once.
    permutations : int
        Exchanges of mechanisms among models of like proxy quality.
    seed : int

    Returns
    -------
    pandas.DataFrame
        Columns mechanism, size, judged_on, level, and for either kind (homogeneous, mixed) the number of
        sets (`<kind>_sets`), their mean, and the 5th and 95th percentile (`<kind>_low`,
        `<kind>_high`); difference of the means; by_quality, the mean of that difference after the
        exchanges, with the lowest and highest of them (`by_quality_low`, `by_quality_high`);
        in_favour, whether the difference is above them all. Empty where there is one mechanism only.
    """
    given, rows, quality = np.array(mechanisms), [], _quality(similarity)
    exchanged = [_exchange(given, quality, seed + number) for number in range(permutations)]
    for mechanism in track([*dict.fromkeys(mechanisms)], "homogeneous against mixed"):
        size = min(k, int((given == mechanism).sum()) // 2)
        pools = _pools(given, mechanism, size)
        if len(pools[0].rows) < FEWEST or not has_sets(pools[1], size):
            continue
        level = _common_level(similarity, pools, size, seed)
        drawn = [_sets_at(similarity, pool, size, level, sets, seed) for pool in pools]
        renamed = [
            [_sets_at(similarity, pool, size, level, _FEWER, seed) for pool in there]
            for there in (_pools(names, mechanism, size) for names in exchanged)
        ]
        for judge, matrix in judges.items():
            row = {"mechanism": mechanism, "size": size, "judged_on": judge, "level": level}
            for kind, found in zip(("homogeneous", "mixed"), drawn, strict=True):
                row |= _spread(kind, [mean_similarity(matrix, members) for members in found])
            row["difference"] = row["homogeneous"] - row["mixed"]
            rows.append(row | _by_quality(row["difference"], matrix, renamed))
    return pd.DataFrame(rows, columns=COLUMNS)


def _pools(mechanisms: np.ndarray, mechanism: str, size: int) -> tuple[Pool, Pool]:
    """All models of a mechanism, and all models of which no more than half may be of one."""
    alone = tuple(np.flatnonzero(mechanisms == mechanism).tolist())
    limits = mixing_limits(mechanisms.tolist(), size)
    everything = tuple(range(len(mechanisms)))
    return Pool(mechanism, "mechanism", alone), Pool("mixed", "mixed", everything, limits)


def _quality(similarity: np.ndarray) -> np.ndarray:
    """How much a model adds to the mean of any set: its mean similarity to all others."""
    return similarity.sum(axis=1) - similarity.diagonal()


def _exchange(mechanisms: np.ndarray, quality: np.ndarray, seed: int) -> np.ndarray:
    """Mechanisms with their names exchanged at random among models that are next in quality.

    The groups of like models begin elsewhere each time, so that no border between them stands.
    """
    rng, renamed = np.random.default_rng(seed), mechanisms.copy()
    order = np.argsort(quality, kind="stable")
    for group in np.split(order, range(int(rng.integers(1, _LIKE + 1)), len(order), _LIKE)):
        renamed[group] = rng.permutation(mechanisms[group])
    return renamed


def _by_quality(
    difference: float, judge: np.ndarray, renamed: Sequence[Sequence[Sequence[Sequence[int]]]]
) -> dict[str, float | bool]:
    """What differences are without homogeneity, and whether the one that was found is above them."""
    without = [
        np.mean([mean_similarity(judge, rows) for rows in homogeneous])
        - np.mean([mean_similarity(judge, rows) for rows in mixed])
        for homogeneous, mixed in renamed
        if len(homogeneous) and len(mixed)
    ]
    enough = len(without) > len(renamed) / 2
    values = (np.mean(without), min(without), max(without)) if enough else (np.nan,) * 3
    names = ("by_quality", "by_quality_low", "by_quality_high")
    return dict(zip(names, values, strict=True)) | {"in_favour": bool(difference > values[2])}


def _spread(kind: str, values: Sequence[float]) -> dict[str, float]:
    low, mean, high = (
        (np.percentile(values, 5), np.mean(values), np.percentile(values, 95))
        if len(values)
        else (np.nan,) * 3
    )
    return {f"{kind}_sets": len(values), kind: mean, f"{kind}_low": low, f"{kind}_high": high}


def _common_level(similarity: np.ndarray, pools: Sequence[Pool], k: int, seed: int) -> float:
    quartiles = []
    for pool in pools:
        drawn = np.array(pool.rows)[random_sets(len(pool.rows), k, _loads(pool), 500, seed)]
        means = [mean_similarity(similarity, rows) for rows in drawn]
        quartiles.append(np.percentile(means, [50, 75]))
    low, high = np.transpose(quartiles)
    return float(max(min(high), max(low)))


def _loads(pool: Pool) -> Loads:
    if not pool.limits:
        return NO_LIMITS
    return loads_of(pool.limits, pool.rows, len(pool.limits[0].weights))


def _sets_at(
    similarity: np.ndarray, pool: Pool, k: int, level: float, sets: int, seed: int
) -> list[tuple[int, ...]]:
    """Different sets of a pool whose mean is `level`: random ones, moved there by swaps."""
    rows, loads = np.array(pool.rows), _loads(pool)
    matrix = similarity[np.ix_(rows, rows)].copy()
    np.fill_diagonal(matrix, 0.0)
    target, found = level * k * (k - 1), set()
    for members in random_sets(len(rows), k, loads, sets, seed):
        members = _towards(matrix, np.sort(members), target, loads)
        if abs(mean_over_pairs(matrix, members[None])[0] - level) <= WITHIN:
            found.add(tuple(rows[members].tolist()))
    return sorted(found)


def _towards(matrix: np.ndarray, members: np.ndarray, target: float, loads: Loads) -> np.ndarray:
    """Make the swap after which the sum over ordered pairs is nearest to a target, until near enough.

    Going on to the nearest would lead many starts to the same set.
    """
    near = WITHIN * len(members) * (len(members) - 1)
    while abs(matrix[np.ix_(members, members)].sum() - target) > near:
        others = np.setdiff1d(np.arange(len(matrix)), members)
        support = matrix[members].sum(axis=0)
        total = support[members].sum()
        change = support[others] - support[members][:, None] - matrix[np.ix_(members, others)]
        distance = np.abs(total + 2 * change - target)
        if len(loads.most):
            distance -= preference(members[None], loads, 1.0)[0][:, others]
        i, j = np.unravel_index(distance.argmin(), distance.shape)
        if not distance[i, j] < abs(total - target):
            return members
        members = np.sort(np.append(np.delete(members, i), others[j]))
    return members
