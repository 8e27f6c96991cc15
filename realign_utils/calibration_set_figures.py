"""Thousands of sets on proxy and held-out images, and which proxy predicts best."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from realign_utils.figure_style import (
    BLUE,
    DASHED,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    VERMILION,
    Mark,
    fit,
    house_style,
    marks_of,
)
from realign_utils.proxy_quality import FACTS

KINDS = {"optimised": (BLUE, "sets near the proxy's best"), "random": (INK, "random sets")}
"""Colour and name of the two kinds of sets, the lower ones first."""
ACROSS = 4
"""Panels side by side."""


@house_style()
def set_scatter(
    points: pd.DataFrame,
    predictions: pd.DataFrame,
    quality: pd.DataFrame,
    *,
    proxy: str,
    judge: str,
) -> Figure:
    """Draw the held-out score of many sets against their proxy score, a panel for each pool.

    Parameters
    ----------
    points : pandas.DataFrame
        From `calibration_sets.set_score_table`.
    predictions, quality : pandas.DataFrame
        From `prediction.prediction_tables`. The submissions are drawn in the first panel, the line in
        the proxy score alone with the band that holds 95 % of sets of other models in all.
    proxy, judge : str
        Names of the two sets of images.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of text wide; all panels on the same axes.
    """
    submissions, lines = (
        table[(table["proxy"] == proxy) & (table["judged_on"] == judge)]
        for table in (predictions, quality[quality["predictors"] == "proxy"])
    )
    line = lines.iloc[0] if len(lines) else pd.Series(np.nan, ["intercept", "slope", "reach"])
    pools = list(dict.fromkeys(points["pool"]))
    across = min(len(pools), ACROSS) or 1
    down = -(-len(pools) // across) or 1
    figure = Figure(figsize=(DOUBLE_COLUMN, 0.9 + 1.9 * down), layout="constrained")
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    limits = _limits(points, submissions)
    looks = marks_of(submissions["submission"])
    for axes, pool in zip(grid.flat, pools, strict=False):
        _panel(axes, points[points["pool"] == pool], line, limits)
        axes.set_title(fit(pool, DOUBLE_COLUMN / across - 0.4))
    for axes in list(grid.flat)[len(pools) :]:
        axes.set_visible(False)
    for row in submissions.itertuples():
        look = looks[row.submission]
        grid[0, 0].plot(
            row.score, row.actual, look.marker, color=look.colour, mec=INK, mew=0.6, ms=6, zorder=4
        )
    for axes in grid.flat[max(0, len(pools) - across) : len(pools)]:  # the lowest of each column
        axes.set_xlabel(f"score on {proxy}")
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"score on {judge}")
    handles = [
        Line2D([], [], color=colour, marker="o", ms=3, linestyle="", label=label)
        for colour, label in KINDS.values()
    ]
    handles.append(Line2D([], [], color=FAINT, linewidth=0.8, linestyle=DASHED, label="equality"))
    handles.append(
        Patch(
            color=VERMILION, alpha=0.2, label="expected of a new set; 95 % of sets of other models"
        )
    )
    handles += [
        Line2D([], [], marker=look.marker, color=look.colour, mec=INK, linestyle="", label=name)
        for name, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _limits(points: pd.DataFrame, submissions: pd.DataFrame) -> np.ndarray:
    """((left, right), (bottom, top)) that hold all points."""
    x = np.concatenate([points["proxy_score"], submissions["score"]])
    y = np.concatenate([points["held_out_score"], submissions["actual"]])
    if not len(x):
        return np.array([[0.0, 1.0], [0.0, 1.0]])
    ends = np.array([[values.min(), values.max()] for values in (x, y)])
    return ends + 0.04 * np.array([-1, 1]) * (ends[:, 1:] - ends[:, :1])


def _panel(axes: Axes, points: pd.DataFrame, line: pd.Series, limits: np.ndarray) -> None:
    for kind, (colour, _) in KINDS.items():
        part = points[points["kind"] == kind]
        # thousands of points are an image in the vector formats, or their files would be huge
        axes.plot(
            part["proxy_score"], part["held_out_score"], "o", color=colour, ms=1.5, mew=0,
            alpha=0.35, rasterized=True, zorder=2,
        )  # fmt: skip
    x = limits[0]
    middle = line["intercept"] + line["slope"] * x
    axes.plot(x, middle, color=VERMILION, linewidth=1, zorder=3)
    if np.isfinite(line["reach"]):
        low, high = middle - line["reach"], middle + line["reach"]
        axes.fill_between(x, low, high, color=VERMILION, alpha=0.15, linewidth=0, zorder=1)
    axes.axline((x[0], x[0]), slope=1, color=FAINT, linewidth=0.8, linestyle=DASHED, zorder=1)
    axes.set(xlim=limits[0], ylim=limits[1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


@house_style()
def proxy_quality(table: pd.DataFrame) -> Figure:
    """Draw how well each proxy ranks sets: against resolution, classes and number of images.

    Parameters
    ----------
    table : pandas.DataFrame
        From `proxy_quality.proxy_quality_table`.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels with one vertical axis, two columns of text wide. The first two show the proxies
        that differ in that thing alone, the averages of each level joined. Intervals of 95 %: thick
        over other images, thin over other models as well.
    """
    panels = {"resolution": "pixels a side", "classes": "classes", "images": "images"}
    figure = Figure(figsize=(DOUBLE_COLUMN, 2.7), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True)
    for axes, (varied, label) in zip(row, panels.items(), strict=True):
        axes.set(xscale="log", xlabel=label)
        _against(axes, table, varied)
        axes.set_title({"images": "by number of images"}.get(varied, f"by {varied}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    judges = ", ".join(dict.fromkeys(table["judged_on"]))
    row[0].set_ylabel(fit(f"rank correlation with scores on {judges or 'held-out images'}", 1.8))
    handles, labels = row[-1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _against(axes: Axes, table: pd.DataFrame, varied: str) -> None:
    """One panel: series of rows that differ in one thing alone."""
    whole = table[table["role"] != "subset"]
    if varied == "images":
        looks = marks_of(table.loc[table["role"] == "proxy", "proxy"])
        series = [(table[table["proxy"] == name], look) for name, look in looks.items()]
    else:
        others = [name for name in FACTS if name != varied]
        groups = [rows for _, rows in whole.groupby(others) if rows[varied].nunique() > 1]
        series = [(rows, Mark("", INK, "o")) for rows in groups]
    for place, (rows, look) in enumerate(series):
        rows = rows.sort_values(varied)
        level = rows.groupby(varied)["spearman"]
        aside = level.cumcount() - (level.transform("size") - 1) / 2  # several choices at one level
        x = rows[varied] * 1.05 ** (place - (len(series) - 1) / 2 + aside)  # beside each other
        axes.vlines(x, rows["low"], rows["high"], color=look.colour, linewidth=0.7)
        axes.vlines(x, rows["images_low"], rows["images_high"], color=look.colour, linewidth=2)
        axes.plot(
            x, rows["spearman"], look.marker, color=look.colour, ms=4.5, mec=INK, mew=0.5,
        )  # fmt: skip
        middle = pd.DataFrame({"x": x, "y": rows["spearman"]}).groupby(rows[varied]).mean()
        axes.plot(middle["x"], middle["y"], color=look.colour, linewidth=1)
        axes.plot([], [], look.marker, ls="-", color=look.colour, label=look.label or None)
    places = sorted({value for rows, _ in series for value in rows[varied]})
    axes.xaxis.set_major_locator(FixedLocator(places))
    if not places:
        axes.text(0.5, 0.5, "no such proxies", transform=axes.transAxes, ha="center", color=FAINT)
