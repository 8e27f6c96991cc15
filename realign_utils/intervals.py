"""Scores of sets of models with their intervals, and which differences are more than chance.

A comparison *holds* only if the 95 % interval of the difference excludes zero. Sets that are
compared on the same images are compared pairwise: what an image adds to both cancels, so two scores
can differ surely though their own intervals overlap. Scores on different images are independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise, product, takewhile

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity, rank_agreement
from realign_utils.comparison import Comparison

HOLDS, FAILS, CLOSE, UNTESTABLE = "holds", "does not hold", "too close to call", "not testable"
VERDICTS = [HOLDS, FAILS, CLOSE, UNTESTABLE]


def call(low: float, high: float) -> int:
    """Sign of a difference with this interval: 1, −1, or 0 where it may be either (or is NaN)."""
    return int(low > 0) - int(high < 0)


def verdict(calls: Iterable[int]) -> str:
    """Whether a statement "all these differences are positive" holds.

    It holds if all are surely positive, fails if one is surely negative, and is too close to call
    otherwise. That *all* intervals must exclude zero keeps the error of "holds" at that of one.
    """
    calls = list(calls)
    if not calls:
        return UNTESTABLE
    if min(calls) < 0:
        return FAILS
    return HOLDS if min(calls) > 0 else CLOSE


def mean_intervals(
    comparisons: Mapping[str, Mapping[str, Comparison]], sets: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Mean CKA of sets of models on sets of images, with interval and chance level.

    Parameters
    ----------
    comparisons : mapping of str to mapping of str to Comparison
        By set of images, then by estimator.
    sets : mapping of str to sequence of str
        Models of each submission.

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, submission, n, mean, standard_error, low, high, chance.
    """
    rows = []
    for images, estimators in comparisons.items():
        for estimator, comparison in estimators.items():
            for name, models in sets.items():
                whole = comparison.mean(models)
                values = (whole.estimate, whole.standard_error, whole.low, whole.high)
                level = comparison.mean_chance(models)
                rows.append((images, estimator, name, comparison.resamples.n, *values, level))
    columns = ["images", "estimator", "submission", "n", "mean", "standard_error", "low", "high"]
    return pd.DataFrame(rows, columns=[*columns, "chance"])


def paired_differences(
    comparisons: Mapping[str, Mapping[str, Comparison]], sets: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Differences of the sets' means, two by two, on the same images.

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, first, second, difference (of first less second),
        standard_error, low, high, higher (the surely higher one, or `CLOSE`). Arguments as of
        `mean_intervals`.
    """
    rows = []
    for images, estimators in comparisons.items():
        for estimator, comparison in estimators.items():
            for first, second in combinations(sets, 2):
                gap = comparison.difference(sets[first], sets[second])
                higher = {1: first, -1: second, 0: CLOSE}[call(gap.low, gap.high)]
                higher = UNTESTABLE if np.isnan(gap.low) else higher
                values = (gap.estimate, gap.standard_error, gap.low, gap.high, higher)
                rows.append((images, estimator, first, second, *values))
    columns = ["images", "estimator", "first", "second", "difference", "standard_error", "low"]
    return pd.DataFrame(rows, columns=[*columns, "high", "higher"])


def learning_curves(
    comparisons: Mapping[str, Mapping[str, Comparison]], sets: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Learning curve of every set of models; arguments as of `mean_intervals`.

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, submission, and those of `Comparison.learning_curve`.
    """
    curves = [
        comparison.learning_curve(models).assign(images=images, estimator=kind, submission=name)
        for images, estimators in comparisons.items()
        for kind, comparison in estimators.items()
        for name, models in sets.items()
    ]
    table = pd.concat(curves, ignore_index=True)
    leading = ["images", "estimator", "submission"]
    return table[[*leading, *(column for column in table.columns if column not in leading)]]


def with_image_intervals(
    families: pd.DataFrame,
    comparisons: Mapping[str, Comparison],
    members: Mapping[str, Sequence[int]],
) -> pd.DataFrame:
    """Add to a table of families how sure their means are for other images of the same kind.

    Parameters
    ----------
    families : pandas.DataFrame
        Columns family and images, as of `realign_utils.calibrate.family_similarity`.
    comparisons : mapping of str to Comparison
        By set of images.
    members : mapping of str to sequence of int
        Places of each family's models.

    Returns
    -------
    pandas.DataFrame
        With the columns images_low and images_high; NaN for a family without a pair.
    """
    ends = []
    for family, images in zip(families["family"], families["images"], strict=True):
        places = members[family]
        if len(places) < 2:
            ends.append((np.nan, np.nan))
            continue
        whole = comparisons[images].resamples.of_mean(places)
        ends.append((whole.low, whole.high))
    low, high = zip(*ends, strict=True)
    return families.assign(images_low=low, images_high=high)


def paired_calls(differences: pd.DataFrame, names: Sequence[str]) -> dict[tuple[str, str], int]:
    """By (first, second): the sign of each difference, in both directions."""
    calls = {}
    for row in differences.itertuples():
        if row.first in names and row.second in names:
            sign = call(row.low, row.high)
            calls[row.first, row.second], calls[row.second, row.first] = sign, -sign
    return calls


def apart(first: pd.Series, second: pd.Series) -> int:
    """Sign of first − second, two means with intervals from different images, by `call`.

    Parameters
    ----------
    first, second : pandas.Series
        With mean, low and high; an exact value has both ends at its mean.
    """
    gap = first["mean"] - second["mean"]
    reach = np.hypot(first["high"] - first["mean"], second["high"] - second["mean"])
    return call(gap - reach, gap + reach)


def ranks_better(
    reference: Mapping[tuple[str, str], int],
    other: Mapping[tuple[str, str], int],
    real: Mapping[tuple[str, str], int],
) -> str:
    """Verdict on "the reference proxy orders more pairs of submissions rightly than the other".

    Parameters
    ----------
    reference, other, real : mapping of (str, str) to int
        Surely known signs of the differences between submissions, by `paired_calls`. A sign that
        is not known may be either one; the verdict stands only if none of them can turn it.
    """
    least = most = 0
    names = sorted({name for pair in real for name in pair})
    for pair in combinations(names, 2):
        signs = ([known[pair]] if known[pair] else (1, -1) for known in (reference, other, real))
        possible = [
            int(ours == true) - int(theirs == true) for ours, theirs, true in product(*signs)
        ]
        least, most = least + min(possible), most + max(possible)
    return HOLDS if least > 0 else FAILS if most <= 0 else CLOSE


def measure_table(
    similarities: Mapping[str, Mapping[str, np.ndarray]], images: str
) -> pd.DataFrame:
    """Mean similarity of sets of models by several measures.

    Parameters
    ----------
    similarities : mapping of str to mapping of str to numpy.ndarray
        By measure, then by submission: (k, k), similarity of its models.
    images : str
        Name of the set of images.

    Returns
    -------
    pandas.DataFrame
        Columns images, measure, submission, mean.
    """
    rows = [
        (images, measure, name, mean_similarity(matrix, range(len(matrix))))
        for measure, matrices in similarities.items()
        for name, matrix in matrices.items()
    ]
    return pd.DataFrame(rows, columns=["images", "measure", "submission", "mean"])


def order_of(means: pd.Series) -> str:
    """Names by descending value, such as ``S4 > S1 > S2``."""
    return " > ".join(means.sort_values(ascending=False, kind="stable").index)


def by_measure(intervals: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """The order of the submissions by every measure, CKA's two estimators first.

    Parameters
    ----------
    intervals, measures : pandas.DataFrame
        As `mean_intervals` and `measure_table` give them.

    Returns
    -------
    pandas.DataFrame
        Columns images, measure, one for each submission, order, and agreement: share of the pairs
        of submissions that stand as by biased CKA.
    """
    cka = intervals.assign(measure=intervals["estimator"] + " CKA")
    columns = ["images", "measure", "submission", "mean"]
    table = pd.concat([cka[columns], measures[columns]])
    rows = []
    for images, part in table.groupby("images", sort=False):
        wide = part.pivot(index="measure", columns="submission", values="mean")
        wide = wide.loc[part["measure"].unique(), part["submission"].unique()]
        for measure, means in wide.iterrows():
            agreement = rank_agreement(means, wide.loc["biased CKA"])
            ends = {"order": order_of(means), "agreement": agreement}
            rows.append({"images": images, "measure": measure, **means, **ends})
    return pd.DataFrame(rows)


def leads(intervals: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """How far each submission is ahead of the next, on each set of images.

    Parameters
    ----------
    intervals, differences : pandas.DataFrame
        As `mean_intervals` and `paired_differences` give them, of one estimator.

    Returns
    -------
    pandas.DataFrame
        Columns images, submission, ahead of, lead, low, high (the 95 % interval of the lead),
        verdict (``sure``, or `CLOSE`).
    """
    back = differences.rename(columns={"first": "second", "second": "first"})
    back = back.assign(difference=-back["difference"], low=-back["high"], high=-back["low"])
    both = pd.concat([differences, back]).set_index(["images", "first", "second"])
    rows = []
    for images, part in intervals.groupby("images", sort=False):
        order = part.sort_values("mean", ascending=False, kind="stable")["submission"]
        for first, second in pairwise(order):
            lead, low, high = both.loc[(images, first, second), ["difference", "low", "high"]]
            sure = UNTESTABLE if np.isnan(low) else "sure" if call(low, high) > 0 else CLOSE
            rows.append((images, first, second, lead, low, high, sure))
    columns = ["images", "submission", "ahead of", "lead", "low", "high", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def lead_sentence(table: pd.DataFrame, intervals: pd.DataFrame, images: str) -> str:
    """Who is first on a set of images, and how surely, in a sentence or two.

    Parameters
    ----------
    table : pandas.DataFrame
        As `leads` gives it; empty where there is one submission only.
    intervals : pandas.DataFrame
        As of `mean_intervals`, of one estimator.
    images : str
    """
    here = table[table["images"] == images]
    if here.empty:
        return f"On *{images}* there is one submission only, and so no lead."
    first, ends = here.iloc[0], intervals[intervals["images"] == images].set_index("submission")
    of_first, of_next = ends.loc[first["submission"]], ends.loc[first["ahead of"]]
    own = "overlap" if of_first["low"] < of_next["high"] else "do not overlap"
    return (
        f"On *{images}*, {first['submission']} is ahead of {first['ahead of']} by "
        f"{first['lead']:.4f} ({first['low']:.4f} to {first['high']:.4f}), which is "
        f"{first['verdict']}; the intervals of the two scores {own}. Of the {len(table)} leads of "
        f"[@tbl:leads], {(table['verdict'] == 'sure').sum()} are sure."
    )


def against_images(curves: pd.DataFrame, images: str, numbers: Sequence[int]) -> pd.DataFrame:
    """CKA, its chance level and the debiased value side by side, for few images and for many.

    Parameters
    ----------
    curves : pandas.DataFrame
        As `learning_curves` gives them.
    images : str
        The set of images.
    numbers : sequence of int
        Numbers of images to show, where the curve has them; all images always are.

    Returns
    -------
    pandas.DataFrame
        Columns submission, n, biased, low, high, chance, debiased.
    """
    part = curves[curves["images"] == images]
    kept = part[part["n"].isin([*numbers, part["n"].max()])]
    debiased = kept[kept["estimator"] == "debiased"][["submission", "n", "mean"]]
    biased = kept[kept["estimator"] == "biased"]
    biased = biased[["submission", "n", "mean", "low", "high", "chance"]]
    both = biased.merge(debiased, on=["submission", "n"], suffixes=("", "_debiased"))
    return both.rename(columns={"mean": "biased", "mean_debiased": "debiased"})


def steady_from(
    curves: pd.DataFrame, differences: pd.DataFrame, images: str, estimator: str
) -> int | None:
    """The number of images from which on every sure lead is the right way round.

    Parameters
    ----------
    curves, differences : pandas.DataFrame
        As `learning_curves` and `paired_differences` give them. Only two submissions of which one
        is surely higher with all images count: the others' order is chance at any number.
    images : str
    estimator : {"biased", "debiased"}

    Returns
    -------
    int or None
        None where no lead is sure.
    """
    chosen = (
        t[(t["images"] == images) & (t["estimator"] == estimator)] for t in (curves, differences)
    )
    part, gaps = chosen
    calls = paired_calls(gaps, list(part["submission"].unique()))
    sure = [pair for pair, sign in calls.items() if sign > 0]
    if not sure:
        return None
    means = part.pivot(index="n", columns="submission", values="mean").sort_index(ascending=False)
    right = [n for n, row in means.iterrows() if all(row[a] > row[b] for a, b in sure)]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(means.index, right, strict=False))
    return int([n for n, _ in same][-1])
