"""Scores of sets of models and their differences, with intervals, as tables; who leads, how surely."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.comparison import Comparison
from realign_utils.intervals import CLOSE, ERROR, UNTESTABLE, call

ENDS = ["standard_error", "low", "high", "degrees"]
AGREE = 1.3
"""Factor within which two standard errors of the same thing count as one."""


def chosen_on(submissions: Mapping[str, Mapping[str, Any]]) -> dict[str, set[str]]:
    """By submission: the proxies on whose images it was chosen; a fixed list was chosen on none.

    Parameters
    ----------
    submissions : mapping of str to mapping
        A profile's, each with its proxies' weights or None.
    """
    weights = {name: submission.get("proxies") or {} for name, submission in submissions.items()}
    return {
        name: {proxy for proxy, weight in each.items() if weight > 0}
        for name, each in weights.items()
    }


def mean_intervals(
    comparisons: Mapping[str, Mapping[str, Comparison]],
    sets: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Collection[str]] | None = None,
) -> pd.DataFrame:
    """Mean CKA of sets of models on sets of images, with interval and chance level.

    Parameters
    ----------
    comparisons : mapping of str to mapping of str to Comparison
        By set of images, then by estimator.
    sets : mapping of str to sequence of str
        Models of each submission.
    chosen : mapping of str to collection of str, optional
        By submission: the sets of images on which it was chosen (`chosen_on`).

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, submission, n, mean, standard_error, low, high, degrees (of
        freedom), jackknife (standard error by leaving out each image or group; NaN where the Gram
        matrices did not fit the memory), chance, chosen_here (whether the set was chosen on these
        images: the interval knows nothing of what the mean owes to that).
    """
    rows = []
    for images, estimators in comparisons.items():
        for estimator, comparison in estimators.items():
            n, degrees = comparison.resamples.n, comparison.resamples.degrees
            for name, models in sets.items():
                own = comparison.jackknife_error(models), comparison.mean_chance(models)
                here = images in (chosen or {}).get(name, ())
                ends = *astuple(comparison.mean(models)), degrees
                rows.append((images, estimator, name, n, *ends, *own, here))
    leading = ["images", "estimator", "submission", "n", "mean", *ENDS]
    return pd.DataFrame(rows, columns=[*leading, "jackknife", "chance", "chosen_here"])


def paired_differences(
    comparisons: Mapping[str, Mapping[str, Comparison]],
    sets: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Collection[str]] | None = None,
) -> pd.DataFrame:
    """Differences of the sets' means, two by two, on the same images.

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, first, second, difference (of first less second),
        standard_error, low, high, degrees (of freedom), higher (the surely higher one, `CLOSE`, or
        `UNTESTABLE`), chosen_here (whether one of the two was chosen on these images). Arguments as
        of `mean_intervals`.
    """
    rows = []
    for images, estimators in comparisons.items():
        on_these = {name for name, sources in (chosen or {}).items() if images in sources}
        for estimator, comparison in estimators.items():
            for first, second in combinations(sets, 2):
                gap = comparison.difference(sets[first], sets[second])
                names = {1: first, -1: second, 0: CLOSE}
                higher = names.get(call(gap.low, gap.high), UNTESTABLE)
                ends = *astuple(gap), comparison.resamples.degrees
                here = bool(on_these & {first, second})
                rows.append((images, estimator, first, second, *ends, higher, here))
    leading = ["images", "estimator", "first", "second", "difference", *ENDS]
    return pd.DataFrame(rows, columns=[*leading, "higher", "chosen_here"])


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
        chosen here (whether one of the two was chosen on these images, so that the interval knows
        nothing of what the lead owes to that), verdict (``sure``, `CLOSE`, or `UNTESTABLE`).
    """
    back = differences.rename(columns={"first": "second", "second": "first"})
    back = back.assign(difference=-back["difference"], low=-back["high"], high=-back["low"])
    both = pd.concat([differences, back]).set_index(["images", "first", "second"])
    columns = ["difference", "low", "high", "chosen_here"]
    rows = []
    for images, part in intervals.groupby("images", sort=False):
        order = part.sort_values("mean", ascending=False, kind="stable")["submission"]
        for first, second in pairwise(order):
            lead, low, high, chosen = both.loc[(images, first, second), columns]
            words = {1: "sure", 0: CLOSE, -1: CLOSE}
            sure = words.get(call(low, high), UNTESTABLE)
            rows.append((images, first, second, lead, low, high, chosen, sure))
    columns = ["images", "submission", "ahead of", "lead", "low", "high", "chosen here", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def lead_sentence(table: pd.DataFrame, intervals: pd.DataFrame, images: str) -> str:
    """Who is first on a set of images, and how surely; how many leads of all are sure.

    Leads between sets of which one was chosen on the very images are not counted as sure.

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
    chosen = ", though one of them was chosen on these images" if first["chosen here"] else ""
    counted = table[~table["chosen here"].astype(bool)]
    tested = counted[counted["verdict"] != UNTESTABLE]
    return (
        f"On *{images}*, {first['submission']} is ahead of {first['ahead of']} by "
        f"{first['lead']:.4f} ({first['low']:.4f} to {first['high']:.4f}), which is "
        f"{first['verdict']}{chosen}; the intervals of the two scores {own}. Of the {len(table)} "
        f"leads of [@tbl:leads], {len(table) - len(counted)} have a set that was chosen on the very "
        f"images; of the other {len(counted)}, {(tested['verdict'] == 'sure').sum()} are sure, where "
        f"{ERROR * len(tested):.2g} would be by chance if no two sets differed."
    )


def jackknife_table(intervals: pd.DataFrame) -> pd.DataFrame:
    """Both standard errors of each submission's mean, and their ratio.

    Parameters
    ----------
    intervals : pandas.DataFrame
        As `mean_intervals` gives them.

    Returns
    -------
    pandas.DataFrame
        Columns images, submission, and for each estimator "biased, resamples", "biased, jackknife"
        and "biased, ratio" (of the jackknife's to the resamples').
    """
    parts = []
    for estimator, part in intervals.groupby("estimator", sort=False):
        part = part.set_index(["images", "submission"])
        errors = part[["standard_error", "jackknife"]].set_axis(["resamples", "jackknife"], axis=1)
        errors["ratio"] = errors["jackknife"] / errors["resamples"]
        parts.append(errors.add_prefix(f"{estimator}, "))
    return pd.concat(parts, axis=1).reset_index()


def jackknife_sentence(intervals: pd.DataFrame) -> str:
    """Whether the jackknife confirms the standard errors: ratios, and which are beyond `AGREE`."""
    table = intervals.assign(ratio=intervals["jackknife"] / intervals["standard_error"])
    known = table.dropna(subset=["ratio"])
    if known.empty:
        return "There is no jackknife here: the Gram matrices did not fit the memory."
    beyond = known[(known["ratio"] > AGREE) | (known["ratio"] < 1 / AGREE)]
    where = [
        f"{row.submission} on *{row.images}* ({row.estimator}, {row.ratio:.2f})"
        for row in beyond.itertuples()
    ]
    missing = f" {len(table) - len(known)} are not known." if len(known) < len(table) else ""
    return (
        f"The jackknife's standard errors are {known['ratio'].min():.2f} to "
        f"{known['ratio'].max():.2f} times those of the resamples; beyond a factor of {AGREE} either "
        f"way: {', '.join(where) or 'none'}.{missing}"
    )
