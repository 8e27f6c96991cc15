"""Proxy score against held-out score over thousands of sets, by pool, and by kind of architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd

from realign_utils.objectives import plausible
from realign_utils.progress import track
from realign_utils.registry import members
from realign_utils.set_samples import optimised_sets, random_sets_of
from realign_utils.set_statistics import (
    SetScores,
    estimate,
    kendall,
    ratio,
    score_sets,
    slope,
    spearman,
)
from realign_utils.uncertainty import Resamples

RANDOM, OPTIMISED = 2000, 1000
"""Sets that are drawn of each pool."""
_FEW = 500
"""Sets on which Kendall's correlation is computed, which is slow."""
FEWEST = 20
"""Sets of a pool below which nothing is computed."""
ENDS = ["low", "high", "images_low", "images_high"]
BY_POOL = ["pool", "models", "proxy", "judged_on", "kind", "sets", "measure", "value", *ENDS]
BY_POOL += ["influential", "without"]
RATIOS = ["proxy", "judged_on", "kind", "group", "models", "pairs", "ratio", *ENDS]


def judges_of(images: Sequence[str], proxies: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a proxy and what judges it: the evaluation, or else each other proxy."""
    if "evaluation" in images:
        return [(proxy, "evaluation") for proxy in proxies]
    return [(one, other) for one, other in product(proxies, proxies) if one != other]


def judge_of(images: Sequence[str], proxies: Sequence[str], reference_proxy: str) -> str | None:
    """What judges the reference proxy: the evaluation, or else the last other proxy, or nothing."""
    judges = [judge for proxy, judge in judges_of(images, proxies) if proxy == reference_proxy]
    return judges[-1] if judges else None


def places_of_pools(
    registry: pd.DataFrame, pools: Mapping[str, str | list[str]], models: Sequence[str]
) -> dict[str, list[int]]:
    """Places of each pool's models that have features, all models first, each pool once."""
    found = {"all models": list(range(len(models)))}
    for name, which in pools.items():
        rows = sorted(members(registry, which, models))
        if rows not in found.values():
            found[name] = rows
    return found


def sets_by_pool(
    proxy: Resamples, pools: Mapping[str, Sequence[int]], k: int, *, seed: int = 0
) -> dict[tuple[str, str], np.ndarray]:
    """Random and optimised sets of each pool.

    Parameters
    ----------
    proxy : Resamples
        On which sets are optimised.
    pools : mapping of str to sequence of int
        Places of each pool's models; pools of k models or fewer have no sets to compare.
    k : int
    seed : int

    Returns
    -------
    dict of (str, str) to numpy.ndarray of int, (s, k)
        By pool and kind, "random" or "optimised"; without those of fewer than 20 sets.
    """
    matrices, found = plausible(proxy), {}
    for pool, rows in pools.items():
        if len(rows) <= k:
            continue
        found[pool, "random"] = random_sets_of(rows, k, RANDOM, seed)
        found[pool, "optimised"] = optimised_sets(matrices, rows, k, OPTIMISED, seed)
    return {key: sets for key, sets in found.items() if len(sets) >= FEWEST}


def by_pool_table(
    compared: Mapping[str, Resamples],
    pools: Mapping[str, Sequence[int]],
    models: Sequence[str],
    proxies: Sequence[str],
    k: int,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """How well a proxy's scores tell the held-out ones, over sets of each pool.

    Parameters
    ----------
    compared : mapping of str to Resamples
        By set of images, the evaluation among them where there is one.
    pools : mapping of str to sequence of int
        Places of each pool's models.
    models : sequence of str
        Names of all models.
    proxies : sequence of str
    k : int
    seed : int

    Returns
    -------
    pandas.DataFrame
        Columns pool, models, proxy, judged_on, kind (random, optimised), sets, measure (spearman,
        kendall, slope, ratio), value, low and high (95 %, over other images and other models; NaN
        for optimised sets), images_low and images_high (over other images, for these models),
        influential (the model without which the value would change most) and without (that value).
    """
    rows = []
    cases = judges_of([*compared], proxies)
    for proxy, judge in track(cases, "sets of each pool", len(cases)):
        for (pool, kind), sets in sets_by_pool(compared[proxy], pools, k, seed=seed).items():
            scores = [score_sets(compared[name], sets) for name in (proxy, judge)]
            leading = (pool, len(pools[pool]), proxy, judge, kind, len(sets))
            rows += [leading + values for values in _measures(scores, sets, kind, models)]
    return pd.DataFrame(rows, columns=BY_POOL)


def _measures(
    scores: Sequence[SetScores], sets: np.ndarray, kind: str, models: Sequence[str]
) -> list[tuple[object, ...]]:
    # Which sets are near the best depends on every model: without one they would be others.
    least = FEWEST if kind == "random" else len(sets) + 1
    few = [
        SetScores(each.estimate[:_FEW], each.subsets[:, :_FEW], each.widening, each.freedom)
        for each in scores
    ]
    found = {
        "spearman": estimate(spearman, scores, sets, back=np.tanh, least=least),
        "kendall": estimate(kendall, few, sets[:_FEW], back=np.tanh, least=least),
        "slope": estimate(slope, scores, sets, least=least),
        "ratio": estimate(ratio, scores, sets, least=least),
    }
    return [(name, *one.row().values(), *one.influence(models)) for name, one in found.items()]


def set_score_table(
    compared: Mapping[str, Resamples],
    pools: Mapping[str, Sequence[int]],
    proxy: str,
    judge: str | None,
    k: int,
    *,
    seed: int = 0,
    most: int = 500,
) -> pd.DataFrame:
    """The scores behind `by_pool_table`, for a picture: at most so many sets of a pool and kind.

    Returns
    -------
    pandas.DataFrame
        Columns pool, kind, proxy_score, held_out_score.
    """
    parts, drawn = [], sets_by_pool(compared[proxy], pools, k, seed=seed) if judge else {}
    for (pool, kind), sets in drawn.items():
        shown = sets[:most]
        x, y = (score_sets(compared[name], shown).estimate for name in (proxy, judge))
        part = {"pool": pool, "kind": kind, "proxy_score": x, "held_out_score": y}
        parts.append(pd.DataFrame(part))
    columns = ["pool", "kind", "proxy_score", "held_out_score"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def family_ratio_table(
    compared: Mapping[str, Resamples],
    proxies: Sequence[str],
    mechanisms: Sequence[str],
    families: Mapping[str, Sequence[int]],
) -> pd.DataFrame:
    """Calibration ratio of the pairs within and between kinds of architecture.

    Parameters
    ----------
    compared : mapping of str to Resamples
        By set of images.
    proxies : sequence of str
    mechanisms : sequence of str, length m
        Of each model.
    families : mapping of str to sequence of int
        Places of each family's models.

    Returns
    -------
    pandas.DataFrame
        Columns proxy, judged_on, kind (all, within mechanism, between mechanisms, within family),
        group, models, pairs, ratio (mean held-out CKA of the pairs over that on the proxy), low,
        high, images_low, images_high, as in `by_pool_table`. Groups of fewer than 3 pairs are left
        out.
    """
    groups, rows = pair_groups(mechanisms, families), []
    for proxy, judge in judges_of([*compared], proxies):
        for (kind, group), pairs in groups.items():
            scores = [score_sets(compared[name], pairs) for name in (proxy, judge)]
            one = estimate(ratio, scores, pairs, least=1)
            leading = (proxy, judge, kind, group, len(np.unique(pairs)), len(pairs))
            rows.append((*leading, *one.row().values()))
    return pd.DataFrame(rows, columns=RATIOS)


def pair_groups(
    mechanisms: Sequence[str], families: Mapping[str, Sequence[int]]
) -> dict[tuple[str, str], np.ndarray]:
    """Pairs of models, (p, 2), by kind and group: within and between mechanisms, within families."""
    given, pairs = np.asarray(mechanisms), np.transpose(np.triu_indices(len(mechanisms), 1))
    first, second = given[pairs].T
    groups = {("all", "all pairs"): pairs}
    for name in dict.fromkeys(mechanisms):
        groups["within mechanism", name] = pairs[(first == name) & (second == name)]
    for one, other in combinations(dict.fromkeys(mechanisms), 2):
        both = ((first == one) & (second == other)) | ((first == other) & (second == one))
        groups["between mechanisms", f"{one} – {other}"] = pairs[both]
    for name, places in families.items():
        groups["within family", name] = pairs[np.isin(pairs, list(places)).all(axis=1)]
    return {key: found for key, found in groups.items() if len(found) >= 3}
