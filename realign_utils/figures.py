"""The paper's figures from tables and arrays; matrices are drawn in `heatmaps`.

Nothing is computed here but where ink goes, and no number is typed: titles and labels are read
from what is drawn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from realign_utils import pointer
from realign_utils.calibration_figures import calibration_ratios, calibration_scatter
from realign_utils.figure_style import (
    BLUE,
    DASHED,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    MISSING,
    OTHER,
    SIMILARITY_LABEL,
    SINGLE_COLUMN,
    VERMILION,
    Mark,
    fit,
    house_style,
    legend_below,
    marks_of,
    number,
    point,
    save,
)
from realign_utils.heatmaps import Panel, heatmap, heatmaps, overview, registry_heatmap
from realign_utils.learning_curve_figure import learning_curves
from realign_utils.map_figure import embedding_map
from realign_utils.words import counted

NEAR = 0.01
"""The share of a mean similarity that still counts as near-optimal."""

__all__ = [
    "Panel",
    "average_similarity",
    "calibration_ratios",
    "calibration_scatter",
    "embedding_map",
    "family_bars",
    "heatmap",
    "heatmaps",
    "learning_curves",
    "overview",
    "registry_heatmap",
    "save",
    "trajectory",
]


@house_style()
def family_bars(table: pd.DataFrame, *, interval: str = "95 % interval") -> Figure:
    """Draw the mean similarity within each family on each image set (the paper's Figure 4).

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `family`, `images`, `mean`, `pairs` (how many pairs the mean is over), `low` and
        `high` (NaN where there is no interval); in the order to draw.
    interval : str
        What `low` and `high` are.

    Returns
    -------
    matplotlib.figure.Figure
        Bars from zero, since their length is what is compared; two columns wide.
    """
    families, images = table["family"].unique(), table["images"].unique()
    looks = marks_of(images)
    thick = 0.8 / len(images)
    height = 0.8 + 0.19 * len(families) * (len(images) + 0.7)
    figure = Figure(figsize=(DOUBLE_COLUMN, height), layout="constrained")
    axes = figure.add_subplot()
    for position, name in enumerate(images):
        rows = table[table["images"] == name].set_index("family").reindex(families)
        places = np.arange(len(families)) + (position - (len(images) - 1) / 2) * thick
        _bars(axes, places, 0.92 * thick, rows, looks[name], label=name)
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_yticks(np.arange(len(families)), [textwrap.fill(name, 22) for name in families])
    axes.tick_params(axis="y", length=0)
    lowest = np.nanmin([0.0, *table["mean"], *table["low"]])
    axes.set(xlim=(lowest, 1), ylim=(len(families) - 0.5, -0.5))
    axes.set_xlabel(f"mean over the pairs of a family: {SIMILARITY_LABEL}; line: {interval}")
    axes.spines["left"].set_visible(False)
    figure.legend(loc="outside upper left", ncols=min(len(images), 5))
    return figure


def _bars(
    axes: Axes, places: np.ndarray, thick: float, rows: pd.DataFrame, look: Mark, label: str
) -> None:
    """One image set's bars, with intervals, means and numbers of pairs."""
    axes.barh(
        places, rows["mean"], thick, label=label, color=look.colour, hatch=look.hatch,
        edgecolor="white", linewidth=0,
    )  # fmt: skip
    for colour, width in (("white", 3.0), (INK, 1.2)):
        axes.hlines(places, rows["low"], rows["high"], color=colour, linewidth=width)
    told = [
        [
            f"mean {number(row.mean)}"
            + (f", {number(row.low)} to {number(row.high)}" if np.isfinite(row.low) else ""),
            f"{row.pairs:.0f} pairs",
        ]
        for row in rows[["mean", "low", "high", "pairs"]].itertuples(index=False)
    ]
    at = np.column_stack([rows["mean"], places])
    pointer.points(axes, at, [f"{family} on {label}" for family in rows.index], told)
    for place, mean, pairs in zip(places, rows["mean"], rows["pairs"], strict=True):
        count = f"{pairs:.0f} pair{'' if pairs == 1 else 's'}"
        text = f"{number(mean)}  ({count})" if np.isfinite(mean) else "no pairs"
        _at_right(axes, place, text)


def _at_right(axes: Axes, place: float, text: str) -> None:
    """Text in a column right of the axes, at a height in data coordinates."""
    axes.annotate(
        text, (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
        textcoords="offset points", va="center_baseline", annotation_clip=False,
    )  # fmt: skip


@house_style()
def average_similarity(
    names: Sequence[str],
    similarity: np.ndarray,
    *,
    title: str,
    marks: Mapping[str, Mark] | None = None,
) -> Figure:
    """Draw each model's mean similarity to the others of the set (the paper's Figure 6).

    Parameters
    ----------
    names : sequence of str, length m
    similarity : numpy.ndarray, shape (m, m)
        NaN where a pair is unknown.
    title : str
    marks : mapping of str to Mark, optional
        Each model's group.

    Returns
    -------
    matplotlib.figure.Figure
        The means, sorted, each with the range of the similarities that it averages; two columns wide.
    """
    others = np.where(np.eye(len(names), dtype=bool), np.nan, similarity)
    table = pd.DataFrame(others, index=list(names)).T.agg(["mean", "min", "max"]).T
    table = table.sort_values("mean", ascending=False, kind="stable")
    figure = Figure(figsize=(DOUBLE_COLUMN, 1.2 + 0.16 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, row) in enumerate(table.iterrows()):
        look = (marks or {}).get(name, OTHER)
        axes.hlines(place, row["min"], row["max"], color=FAINT, linewidth=0.8)
        axes.plot(row["mean"], place, **point(look), ms=5.5)
        _at_right(axes, place, number(row["mean"]))
    ranges = zip(table["mean"], table["min"], table["max"], strict=True)
    told = [
        [f"mean {number(mean)}, from {number(low)} to {number(high)}"] for mean, low, high in ranges
    ]
    places = np.column_stack([table["mean"], np.arange(len(table))])
    pointer.points(axes, places, list(table.index), told)
    overall = np.nanmean(others)
    axes.axvline(overall, color=INK, linewidth=0.8, linestyle=DASHED, zorder=0)
    axes.set_yticks(np.arange(len(table)), table.index)
    axes.tick_params(axis="y", length=0)
    axes.set(ylim=(len(table) - 0.4, -0.6), xlabel=SIMILARITY_LABEL)
    axes.set_title(
        f"{fit(title, 5)}\nmean and range over the other {counted(len(table) - 1, 'model')}; "
        f"dashed: mean of all pairs, {number(overall)}"
    )
    axes.spines["left"].set_visible(False)
    if marks:
        looks = [marks.get(name, OTHER) for name in table.index]
        legend_below(figure, looks, loc="outside lower center")
    return figure


@house_style()
def trajectory(
    sizes: Sequence[int],
    mean_similarity: Sequence[float],
    *,
    title: str,
    final: float = np.nan,
    upper_bound: float = np.nan,
) -> Figure:
    """Draw how the mean similarity falls while the greedy stage adds models (Figure 7).

    Parameters
    ----------
    sizes : sequence of int
        Models in the set, ascending.
    mean_similarity : sequence of float
        Mean over the set's pairs at each size.
    title : str
    final : float
        Score of the full set after swaps and restarts; NaN where there was no search.
    upper_bound : float
        What no set of the full size can exceed; NaN where there is none.

    Returns
    -------
    matplotlib.figure.Figure
        One column wide. What "near-optimal" means is a band: within `NEAR` of the upper bound, or,
        without one, of the last mean, which says from where on the curve has levelled.
    """
    figure = Figure(figsize=(SINGLE_COLUMN, 2.7), layout="constrained")
    axes = figure.add_subplot()
    last, reached = sizes[-1], mean_similarity[-1]
    label = f"greedy: {number(reached, 4)} at {last} models"
    axes.plot(sizes, mean_similarity, "o-", color=BLUE, ms=3.5, label=label)
    told = [[f"mean CKA {number(value, 4)}"] for value in mean_similarity]
    places = np.column_stack([sizes, mean_similarity])
    pointer.points(axes, places, [f"{size} models" for size in sizes], told)
    if np.isfinite(final):
        label = f"after swaps and restarts: {number(final, 4)}"
        axes.axhline(final, color=VERMILION, linewidth=1, linestyle=DASHED, zorder=1)
        axes.plot(last, final, "D", color=VERMILION, ms=4.5, mec=INK, mew=0.5, label=label)
    if np.isfinite(upper_bound):
        label = f"upper bound at {last} models: {number(upper_bound, 4)}"
        axes.axhline(upper_bound, color=INK, linewidth=0.8, linestyle=":", label=label)
    _near_band(axes, sizes, mean_similarity, upper_bound)
    axes.set(xlabel="number of models", ylabel="mean pairwise linear CKA\n(similarity, 1 = same)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.12)
    axes.set_title(fit(title, 2.7))
    figure.legend(loc="outside lower center")
    return figure


def _near_band(
    axes: Axes, sizes: Sequence[int], means: Sequence[float], upper_bound: float
) -> None:
    """Shade what counts as near-optimal: just below the bound, or about the curve's own end."""
    if np.isfinite(upper_bound):
        low, high = (1 - NEAR) * upper_bound, upper_bound
        label = f"within {NEAR:.0%} of the bound".replace("%", " %")
    else:
        low, high = (1 - NEAR) * means[-1], (1 + NEAR) * means[-1]
        outside = [size for size, mean in zip(sizes, means, strict=True) if not low <= mean <= high]
        first = next((size for size in sizes if size > max(outside, default=0)), sizes[-1])
        label = f"within {NEAR:.0%} of the last mean: from {first} models on".replace("%", " %")
    axes.axhspan(low, high, color=MISSING, zorder=0, linewidth=0, label=label)
