"""Scores of sets of models against the number of images, and whether more images change them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import pandas as pd

from realign_utils.comparison import Comparison
from realign_utils.intervals import paired_calls


def learning_curves(
    comparisons: Mapping[str, Mapping[str, Comparison]],
    sets: Mapping[str, Sequence[str]],
    larger: Mapping[str, Mapping[str, Comparison]] | None = None,
) -> pd.DataFrame:
    """Learning curve of every set of models.

    Parameters
    ----------
    comparisons, sets
        As of `realign_utils.score_intervals.mean_intervals`.
    larger : mapping of str to mapping of str to Comparison, optional
        By set of images and estimator: a larger set that begins with these very images, from which
        the curve goes on beyond them.

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, submission, and those of `Comparison.learning_curve`.
    """
    curves = []
    for images, estimators in comparisons.items():
        for kind, comparison in estimators.items():
            for name, models in sets.items():
                curve = comparison.learning_curve(models)
                if images in (larger or {}):
                    beyond = larger[images][kind].learning_curve(models)
                    beyond = beyond[beyond["n"] > comparison.resamples.n]
                    curve = pd.concat([curve, beyond])
                curves.append(curve.assign(images=images, estimator=kind, submission=name))
    table = pd.concat(curves, ignore_index=True)
    leading = ["images", "estimator", "submission"]
    return table[[*leading, *(column for column in table.columns if column not in leading)]]


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


def few_and_many_sentence(table: pd.DataFrame) -> str:
    """What more images change: from the numbers of images before the last to the last.

    Parameters
    ----------
    table : pandas.DataFrame
        As `against_images` gives it.
    """
    by_number = dict(list(table.set_index("submission").groupby("n")))
    *fewer, last = by_number
    many = by_number[last]
    excess = (many["biased"] - many["debiased"]).max()
    reach = ((many["high"] - many["low"]) / 2).max()
    heavier = "sampling error outweighs the bias" if reach > excess else "bias outweighs it"
    text = (
        f"At {last:,} images the biased estimate is above the debiased one by {excess:.4f} at most, and "
        f"the intervals reach {reach:.4f} to either side at most: the {heavier}."
    )
    if not fewer:
        return text
    few, before = fewer[-1], by_number[fewer[-1]]
    moved = many[["biased", "debiased"]] - before.loc[many.index, ["biased", "debiased"]]
    inside = many["biased"].between(before["low"], before["high"])
    within = f"all {len(many)}" if inside.all() else f"{inside.sum()} of the {len(many)}"
    return (
        f"From {few:,} to {last:,} images the biased scores change by {moved['biased'].min():+.4f} to "
        f"{moved['biased'].max():+.4f} and the debiased ones by {moved['debiased'].min():+.4f} to "
        f"{moved['debiased'].max():+.4f}; {within} biased scores stay within "
        f"their interval at {few:,} images. {text}"
    )


def sure_leads(differences: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of submissions of which the first is surely higher, neither chosen on these images.

    Parameters
    ----------
    differences : pandas.DataFrame
        As `realign_utils.score_intervals.paired_differences` gives them, of one set of images and
        one estimator.
    """
    counted = differences[~differences["chosen_here"].astype(bool)]
    names = {*counted["first"], *counted["second"]}
    return [pair for pair, sign in paired_calls(counted, sorted(names)).items() if sign > 0]


def steady_from(
    curves: pd.DataFrame, differences: pd.DataFrame, images: str, estimator: str
) -> int | None:
    """The number of images from which on every sure lead is the right way round.

    Parameters
    ----------
    curves, differences : pandas.DataFrame
        As `learning_curves` and `paired_differences` give them. Only `sure_leads` count: the
        others' order is chance at any number, or owed to the choice.
    images : str
    estimator : {"biased", "debiased"}

    Returns
    -------
    int or None
        None where no lead is sure, or where the largest number of images turns one.
    """
    part, gaps = (
        t[(t["images"] == images) & (t["estimator"] == estimator)] for t in (curves, differences)
    )
    sure = sure_leads(gaps)
    means = part.pivot(index="n", columns="submission", values="mean").sort_index(ascending=False)
    right = [n for n, row in means.iterrows() if all(row[a] > row[b] for a, b in sure)]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(means.index, right, strict=False))
    steady = [int(n) for n, _ in same]
    return steady[-1] if sure and steady else None


def steady_sentence(curves: pd.DataFrame, differences: pd.DataFrame, estimator: str) -> str:
    """From how many images on the sure leads are the same way round, on each set of images."""
    parts = []
    for images in curves["images"].unique():
        gaps = differences[differences["images"] == images]
        count = len(sure_leads(gaps[gaps["estimator"] == estimator]))
        first = steady_from(curves, differences, images, estimator)
        found = (
            f"{first:,}" if first else "turned with the most images" if count else "no lead is sure"
        )
        parts.append(f"{found} (`{images}`, {count} sure)")
    return (
        "The sure leads among all pairs of submissions that were not chosen on the very images keep "
        f"their sign from so many images on: {', '.join(parts)}."
    )
