"""The paper's four design principles for proxies (its section 4.2), each put to a test.

Each becomes a number that would be positive if the principle held, with a 95 % interval over other
images and other models, and the verdict that follows from it. What a profile has no images for is
not testable, and the table says what it would take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibration_sets import pair_groups
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE, call, verdict
from realign_utils.proxy_quality import contrast
from realign_utils.set_statistics import (
    Estimate,
    Part,
    estimate,
    ratio,
    score_sets,
    spearman,
    together,
)
from realign_utils.uncertainty import Resamples

COLUMNS = ["number", "principle", "test", "value", "low", "high", "verdict"]
PRINCIPLES = (
    "Match proxy resolution to model inductive bias: low resolution suppresses the alignment of "
    "attention, but not of convolutions.",
    "Match proxy class diversity to evaluation scope: few classes cannot reveal what many show.",
    "Restrict the pool by architecture: alignment within a kind transfers to other images.",
    "Report calibration ratios per architecture family.",
)
ALIKE = 0.01
"""Calibration ratios that surely differ by less count as the same."""
EVALUATION = "evaluation"
CONVOLUTION, ATTENTION = "convolution", "attention"


def principles_table(
    compared: Mapping[str, Resamples],
    facts: pd.DataFrame,
    mechanisms: Sequence[str],
    sets: np.ndarray,
    pairs: pd.DataFrame,
    *,
    reference_proxy: str,
    judge: str | None,
    estimator: str,
) -> pd.DataFrame:
    """Test of each principle.

    Parameters
    ----------
    compared : mapping of str to Resamples
        By set of images, of one estimator.
    facts : pandas.DataFrame
        From `proxy_quality.image_facts`, of all proxies, the calibration proxies among them.
    mechanisms : sequence of str
        Of each model.
    sets : numpy.ndarray of int, (s, k)
        Over which proxies are compared.
    pairs : pandas.DataFrame
        From `homogeneity_pairs.homogeneity_pairs_table`.
    reference_proxy, judge : str, str or None
        The proxy of the calibration ratio, and the set of images that judges, if there is one. Of
        class diversity only the evaluation can judge: it is the scope that is to be matched.
    estimator : str

    Returns
    -------
    pandas.DataFrame
        Columns number, principle, test (what was computed), value, low, high, verdict.
    """
    rows = [
        _resolution(compared, facts, mechanisms),
        _classes(compared, facts, sets, judge),
        _transfer(pairs, reference_proxy, judge, estimator),
        _ratios(compared, mechanisms, reference_proxy, judge),
    ]
    numbered = zip(range(1, 5), PRINCIPLES, rows, strict=True)
    return pd.DataFrame([(n, text, *row) for n, text, row in numbered], columns=COLUMNS)


def _untestable(why: str) -> tuple[Any, ...]:
    return why, np.nan, np.nan, np.nan, UNTESTABLE


def _tested(what: str, one: Estimate) -> tuple[Any, ...]:
    low, high = one.interval()
    if not np.isfinite([low, high]).all():
        return what, one.value, low, high, UNTESTABLE
    return what, one.value, low, high, verdict([call(low, high)])


def _resolution(
    compared: Mapping[str, Resamples], facts: pd.DataFrame, mechanisms: Sequence[str]
) -> tuple[Any, ...]:
    """What low resolution keeps of the CKA within convolutions, less what it keeps of attention's."""
    two, kinds = contrast(facts, "resolution"), _within(mechanisms)
    two = two and (two[0][0], two[1][0])
    if not two or kinds is None:
        return _untestable(
            "needs two sets of images that differ in resolution alone, and three pairs of models "
            f"of {CONVOLUTION} and of {ATTENTION}"
        )
    low, high = two
    what = (
        f"CKA on `{low}` / CKA on `{high}`: that of pairs of {CONVOLUTION}, less that of pairs of "
        f"{ATTENTION}"
    )
    return _tested(what, _difference_of_ratios(compared[high], compared[low], kinds))


def _classes(
    compared: Mapping[str, Resamples], facts: pd.DataFrame, sets: np.ndarray, judge: str | None
) -> tuple[Any, ...]:
    """Rank correlation with the evaluation: of proxies of most classes, less of those of fewest."""
    ends = contrast(facts, "classes")
    if not ends or judge != EVALUATION or min(map(len, ends)) < 2:
        return _untestable(
            "needs held-out images, and at two numbers of classes two random choices of the classes "
            "or more, of as many images in as many independent groups: one choice of few classes "
            "against one of many would confound how many they are with which they are"
        )
    few, many = ends
    counts = facts.loc[[many[0], few[0]], "classes"].astype(int).tolist()
    what = (
        f"rank correlation with `{judge}` (Fisher-transformed): average of {len(many)} random "
        f"choices of {counts[0]} classes, less that of {len(few)} of {counts[1]}, each "
        f"{facts.loc[few[0], 'images']} images of {facts.loc[few[0], 'groups']} independent groups"
    )
    return _tested(what, difference_of_levels(compared, many, few, judge, sets))


def difference_of_levels(
    compared: Mapping[str, Resamples],
    many: Sequence[str],
    few: Sequence[str],
    judge: str,
    sets: np.ndarray,
) -> Estimate:
    """Average rank correlation with the judge of some sets of images, less that of others.

    Parameters
    ----------
    compared : mapping of str to Resamples
    many, few : sequence of str
        Two or more random choices of classes at each of two levels.
    judge : str
    sets : numpy.ndarray of int, (s, k)

    Returns
    -------
    Estimate
        Of Fisher-transformed correlations. The error of images has that of the choice of the
        classes in it, from the spread over the choices; that holds part of what other images of the
        same classes would change, which is counted again: the interval errs on the safe side.
    """
    scores = [score_sets(compared[name], sets) for name in (*many, *few, judge)]

    def statistic(values: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
        each = [spearman([one, values[-1]], kept) for one in values[:-1]]
        above, below = each[: len(many)], each[len(many) :]
        return sum(above) / len(above) - sum(below) / len(below)

    one = estimate(statistic, scores, sets)
    everything = np.arange(len(sets))
    whole = [float(spearman([s.estimate, scores[-1].estimate], everything)) for s in scores[:-1]]
    choices = [
        Part(float(np.std(level, ddof=1)) / len(level) ** 0.5, len(level) - 1)
        for level in (whole[: len(many)], whole[len(many) :])
    ]
    return replace(one, images=together([one.images, *choices]))


def _transfer(
    pairs: pd.DataFrame, reference_proxy: str, judge: str | None, estimator: str
) -> tuple[Any, ...]:
    """What one mechanism adds to a pair's CKA on the judge, at equal CKA on the proxy."""
    here = pairs[
        (pairs["images"] == judge)
        & (pairs["estimator"] == estimator)
        & (pairs["grouping"] == "mechanism")
        & (pairs["given"] == reference_proxy)
        & (pairs["adjusted_for"] == "capacity")
    ]
    if here.empty:
        return _untestable("needs models of two mechanisms, and images to judge on")
    row = here.iloc[0]
    what = (
        f"CKA on `{judge}` of two models of one mechanism, less that of two of different ones, at "
        f"equal CKA on `{reference_proxy}` and equal capacities"
    )
    return what, row["difference"], row["low"], row["high"], row["verdict"]


def _ratios(
    compared: Mapping[str, Resamples], mechanisms: Sequence[str], proxy: str, judge: str | None
) -> tuple[Any, ...]:
    """Whether the ratios of the two kinds that the paper contrasts differ, either way."""
    kinds = _within(mechanisms)
    if kinds is None or judge is None:
        return _untestable(
            f"needs three pairs of models of {CONVOLUTION} and of {ATTENTION}, and images to judge on"
        )
    what = (
        f"calibration ratio `{judge}` / `{proxy}`: of pairs of {CONVOLUTION}, less that of pairs of "
        f"{ATTENTION}; it matters that they differ, not which is higher"
    )
    one = _difference_of_ratios(compared[proxy], compared[judge], kinds)
    low, high = one.interval()
    return what, one.value, low, high, differ(low, high)


def differ(low: float, high: float) -> str:
    """Verdict on "these two ratios differ": not if surely by less than 0.01, whatever the sign."""
    if not np.isfinite([low, high]).all():
        return UNTESTABLE
    if max(abs(low), abs(high)) < ALIKE:
        return FAILS
    return HOLDS if call(low, high) else CLOSE


def _within(mechanisms: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    groups = pair_groups(mechanisms, {})
    found = [groups.get(("within mechanism", name)) for name in (CONVOLUTION, ATTENTION)]
    return None if any(pairs is None for pairs in found) else (found[0], found[1])


def _difference_of_ratios(
    below: Resamples, above: Resamples, kinds: tuple[np.ndarray, np.ndarray]
) -> Estimate:
    """Ratio above / below of the first kind's mean CKA, less that of the second's."""
    pairs, border = np.concatenate(kinds), len(kinds[0])

    def statistic(values: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
        first = kept < border
        return ratio([v[..., first] for v in values], kept) - ratio(
            [v[..., ~first] for v in values], kept
        )

    scores = [score_sets(each, pairs) for each in (below, above)]
    return estimate(statistic, scores, pairs, least=2)
