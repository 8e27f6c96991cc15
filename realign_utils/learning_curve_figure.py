"""Scores of the submissions against the number of images, with intervals and chance level."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from realign_utils import pointer
from realign_utils.figure_style import (
    DASHED,
    DOUBLE_COLUMN,
    INK,
    Mark,
    fit,
    house_style,
    legend_below,
    marks_of,
    number,
)

ACROSS = 3
"""Sets of images side by side."""


@house_style()
def learning_curves(table: pd.DataFrame) -> Figure:
    """Draw the mean CKA of each submission against the number of images.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `images`, `estimator` (biased or debiased), `submission`, `n`, `mean`, `low`,
        `high` and `chance`, as `realign_utils.intervals.learning_curves` gives them.

    Returns
    -------
    matplotlib.figure.Figure
        A column for each set of images, two columns of text wide: above, the biased estimate with
        its interval and the debiased one, dashed; below, the chance level of the biased one.
    """
    images = list(table["images"].unique())
    looks = marks_of(table["submission"].unique())
    across = min(len(images), ACROSS)
    down = -(-len(images) // across)
    figure = Figure(figsize=(DOUBLE_COLUMN, 0.6 + 3.5 * down), layout="constrained")
    heights = [2.4, 1] * down
    grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=heights, sharex="col")
    for axes in grid.flat:
        axes.set_visible(False)
    for place, name in enumerate(images):
        row, column = divmod(place, across)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        _values(upper, table[table["images"] == name], looks)
        _chance(lower, table[table["images"] == name], looks)
        upper.set_title(fit(name, DOUBLE_COLUMN / across - 0.5))
        if column == 0:
            upper.set_ylabel("mean pairwise linear CKA\n(similarity, 1 = same)")
            lower.set_ylabel("chance level\n(biased)")
    kinds = [
        Line2D([], [], color=INK, label="biased, 95 % interval"),
        Line2D([], [], color=INK, linestyle=DASHED, label="debiased"),
    ]
    legend_below(figure, looks.values(), *kinds, loc="outside lower center")
    return figure


def _values(axes: Axes, table: pd.DataFrame, looks: dict[str, Mark]) -> None:
    axes.set_visible(True)
    for (kind, name), curve in table.groupby(["estimator", "submission"], sort=False):
        look = looks[name]
        if kind == "debiased":
            axes.plot(curve["n"], curve["mean"], color=look.colour, linestyle=DASHED, linewidth=1)
            continue
        axes.fill_between(curve["n"], curve["low"], curve["high"], color=look.colour, alpha=0.15)
        axes.plot(curve["n"], curve["mean"], color=look.colour, marker=look.marker, ms=4)
        told = [
            [f"{row.n:,} images: {number(row.mean, 4)}", f"{number(row.low)} to {number(row.high)}"]
            for row in curve[["n", "mean", "low", "high"]].itertuples(index=False)
        ]
        pointer.points(axes, curve[["n", "mean"]].to_numpy(float), [name] * len(curve), told)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _chance(axes: Axes, table: pd.DataFrame, looks: dict[str, Mark]) -> None:
    axes.set_visible(True)
    biased = table[table["estimator"] == "biased"]
    for name, curve in biased.groupby("submission", sort=False):
        look = looks[name]
        axes.plot(curve["n"], curve["chance"], color=look.colour, marker=look.marker, ms=3)
    numbers = sorted(biased["n"].unique())
    axes.set(xscale="log", xlabel="number of images", ylim=(0, None))
    # every other number where they would touch, the last one always
    shown = numbers if len(numbers) < 6 else numbers[::-1][::2]
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
