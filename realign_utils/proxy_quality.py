"""Which proxy tells best what held-out images will say: by resolution, classes, number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.comparison import Comparison
from realign_utils.search import select
from realign_utils.set_samples import scores_of_sets
from realign_utils.set_statistics import (
    Estimate,
    Part,
    SetScores,
    estimate,
    score_sets,
    spearman,
    together,
)

ENDS = ["low", "high", "images_low", "images_high"]
FACTS = ["resolution", "classes", "images", "groups"]
"""What distinguishes sets of images; to differ in one alone is to have the others in common."""
QUALITY = ["proxy", "role", "resolution", "classes", "images", "groups", "judged_on", "sets"]
QUALITY += ["spearman"]
QUALITY += [
    *ENDS,
    "influential",
    "without",
    "behind",
    "behind_low",
    "behind_high",
    "behind_p",
    "chosen_score",
    "best_score",
]
_ENOUGH = 20
"""Subsets of a size whose spread is worth taking."""


def image_facts(
    sources: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, Sequence[str]],
    groups: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """What distinguishes sets of images: pixels a side as stored, classes, images, groups of them.

    Parameters
    ----------
    sources : mapping of str to mapping
        Of the profile.
    labels : mapping of str to sequence of str
        Class of each image, from the manifests.
    groups : mapping of str to sequence of str
        Group of each image (`images.groups_of`): groups, not images, are independent of each other.

    Returns
    -------
    pandas.DataFrame
        By set of images: resolution (NaN where images differ in size), classes, images, groups.
    """
    sizes = {"160px": 160, "320px": 320}
    rows = {
        name: {
            "resolution": {
                "patches": source.get("resolution"),
                "cifar100": 32,
                "imagenette": sizes.get(source.get("size")),
            }.get(source["kind"]),
            "classes": pd.Series(labels[name]).nunique(dropna=False),
            "images": len(labels[name]),
            "groups": len({*groups[name]}),
        }
        for name, source in sources.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype({"resolution": float})


def contrast(facts: pd.DataFrame, varied: str) -> tuple[list[str], list[str]] | None:
    """The sets of images that differ most in one thing and in nothing else.

    Parameters
    ----------
    facts : pandas.DataFrame
        From `image_facts`.
    varied : {"resolution", "classes"}

    Returns
    -------
    (list of str, list of str) or None
        Those at a low level and those at a high one, of sets that are alike otherwise: levels with
        two sets or more each, if there are such, and of these the farthest apart. None where no two
        sets differ in that alone.
    """
    others = [name for name in FACTS if name != varied]
    best, most = None, (0, 1.0)
    for _, group in facts.dropna(subset=[varied]).groupby(others, dropna=True):
        at = {level: [*rows.index] for level, rows in group.groupby(varied)}  # ascending
        for low, high in combinations(at, 2):
            worth = min(len(at[low]), len(at[high]), 2), high / low
            if worth > most:
                best, most = (at[low], at[high]), worth
    return best


def proxy_quality_table(
    compared: Mapping[str, Comparison],
    facts: pd.DataFrame,
    proxies: Sequence[str],
    judge: str | None,
    sets: np.ndarray,
    *,
    restarts: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of each proxy's scores with the held-out ones, over the same sets.

    Parameters
    ----------
    compared : mapping of str to Comparison
        By set of images, the judge among them.
    facts : pandas.DataFrame
        From `image_facts`; its rows are the proxies that are compared.
    proxies : sequence of str
        Those on which sets may be chosen; the others are calibration proxies.
    judge : str or None
        Not judged by itself; without one the table is empty.
    sets : numpy.ndarray of int, (s, k)
        Not chosen by any of the proxies.
    restarts, seed : int
        Of the search on each proxy.

    Returns
    -------
    pandas.DataFrame
        Columns proxy, role (proxy, calibration proxy, subset), resolution, classes, images, groups,
        judged_on, sets, spearman, low, high (other images and models), images_low, images_high
        (other images), influential (the model without which the correlation would change most) and
        without (the correlation then), behind (the highest correlation of its role less this one,
        both Fisher-transformed) with behind_low and behind_high and behind_p (least level at which it
        is surely behind, with all of its role considered), chosen_score (held-out score of
        the k models that this proxy would choose) and best_score (the best that the judge would
        choose itself). The subsets are fewer images of `proxies`, without all these from
        influential on.
    """
    if judge is None:
        return pd.DataFrame(columns=QUALITY)
    facts = facts.drop(index=judge, errors="ignore")
    real = score_sets(compared[judge].resamples, sets)
    scores = {name: score_sets(compared[name].resamples, sets) for name in facts.index}
    found = {n: estimate(spearman, [s, real], sets, back=np.tanh) for n, s in scores.items()}
    roles = {n: "proxy" if n in proxies else "calibration proxy" for n in facts.index}
    options = {"restarts": restarts, "seed": seed}
    held_out = compared[judge].similarity.numpy()
    best = select(held_out, sets.shape[1], **options).score
    rows = []
    for name, one in found.items():
        same = [other for other in found if roles[other] == roles[name]]
        leader = max(same, key=lambda other: found[other].value)
        behind = _behind([scores[leader], scores[name], real], sets, len(same) - 1)
        chosen = select(compared[name].similarity.numpy(), sets.shape[1], **options).indices
        reached = float(scores_of_sets(held_out, np.array([chosen]))[0])
        leading = (name, roles[name], *facts.loc[name], judge, len(sets))
        known = (*one.row().values(), *one.influence(compared[judge].names))
        rows.append((*leading, *known, *behind, reached, best))
    for name in facts.index.intersection(list(proxies)):
        rows += _fewer_images(
            compared[name], real.estimate, found[name], facts.loc[name], sets, judge
        )
    table = pd.DataFrame(rows, columns=QUALITY)
    return table.astype({"classes": int, "images": int})


def _behind(
    scores: Sequence[SetScores], sets: np.ndarray, rivals: int
) -> tuple[float, float, float, float]:
    """The difference from the leader with its interval, and its level by Hsu's comparison.

    The leader is whoever came out highest. To call wrongly that one is behind *some* other, the truly
    best must be called behind one of its rivals: so each level counts as often as there are rivals,
    which makes all calls right together (Hsu 1996, Multiple Comparisons, with Bonferroni's bound).
    """
    if scores[0] is scores[1]:
        return 0.0, 0.0, 0.0, 1.0
    found = difference_of_correlations(*scores, sets)
    return (found.value, *found.interval(), min(1.0, rivals * found.p))


def _difference(scores: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Fisher transform of the first's rank correlation with the last score, less the second's."""
    first, second, real = scores
    return spearman([first, real], kept) - spearman([second, real], kept)


def difference_of_correlations(
    first: SetScores, second: SetScores, real: SetScores, sets: np.ndarray
) -> Estimate:
    """By how much the first proxy ranks sets more like the judge than the second does.

    On Fisher's scale, on which errors of correlations are symmetric also near 1.
    """
    return estimate(_difference, [first, second, real], sets)


def _fewer_images(
    comparison: Comparison,
    real: np.ndarray,
    whole: Estimate,
    facts: pd.Series,
    sets: np.ndarray,
    judge: str,
) -> list[tuple[object, ...]]:
    """The same for fewer images: the average of many samples, and the interval of one of them."""
    n, rows = comparison.resamples.n, []
    for size, matrices in comparison.curve.items():
        if 2 * size > n or len(matrices) < _ENOUGH:
            continue
        values = spearman([scores_of_sets(matrices.numpy(), sets), real], np.arange(len(sets)))
        # A sample of a part varies less about all of it than about the images that there might be.
        # The error with all images is added for the judge's part in it; so it errs on the safe side.
        own = Part(float(values.std(ddof=1)) / np.sqrt(1 - size / n), len(values) - 1)
        error = together([own, whole.images])
        one = Estimate(float(values.mean()), error, whole.models, np.tanh)
        leading = (str(facts.name), "subset", facts["resolution"], facts["classes"], size, np.nan)
        rows.append((*leading, judge, len(sets), *one.row().values(), *[np.nan] * 8))
    return rows
