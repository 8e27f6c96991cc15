"""Proxy scores against real scores (section 3.1)."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from realign_utils import pointer
from realign_utils.figure_style import (
    DASHED,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    house_style,
    marks_of,
    number,
    point,
)
from realign_utils.labels import near


@house_style()
def calibration_scatter(
    table: pd.DataFrame,
    proxies: Sequence[str],
    *,
    real: str,
    intervals: pd.DataFrame | None = None,
) -> Figure:
    """Draw each submission's real score against its score on each proxy.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `submission`, `real` and one per proxy; a missing score is not drawn.
    proxies : sequence of str
        One panel each, on shared axes.
    real : str
        What the real score is, e.g. ``"portal"`` or ``"held-out images"``.
    intervals : pandas.DataFrame, optional
        Columns `submission`, `images` (a proxy or ``evaluation``), `low` and `high`: drawn as
        crosses where they are known. The portal's scores have none.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide.
    """
    (left, right), (bottom, top) = _score_limits(table, proxies, intervals)
    columns = min(len(proxies), 2)
    rows = -(-len(proxies) // columns)
    height = (DOUBLE_COLUMN / columns - 0.6) * (top - bottom) / (right - left) + 0.6
    figure = Figure(figsize=(DOUBLE_COLUMN, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(proxies) :]:
        axes.set_visible(False)
    looks = marks_of(table["submission"])
    for axes, proxy in zip(grid.flat, proxies, strict=False):
        axes.axline((left, left), slope=1, color=FAINT, linewidth=0.8, zorder=0)
        _crosses(axes, table, proxy, intervals)
        for row in table.to_dict("records"):
            look = looks[row["submission"]]
            axes.plot(row[proxy], row["real"], **point(look), ms=6)
        told = [
            [f"{proxy} {number(p)}", f"real {number(r)}"]
            for p, r in table[[proxy, "real"]].to_numpy()
        ]
        pointer.points(
            axes, table[[proxy, "real"]].to_numpy(float), list(table["submission"]), told
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.set(aspect="equal", xlim=(left, right), ylim=(bottom, top), xlabel=f"score on {proxy}")
    for axes in grid[:, 0]:
        axes.set_ylabel(f"real score ({real})")
    for axes, proxy in zip(grid.flat, proxies, strict=False):
        known = table.dropna(subset=[proxy, "real"])
        points = known[[proxy, "real"]].to_numpy(dtype=float)
        arms = [line for drawn in axes.collections for line in drawn.get_segments()]
        along = [np.linspace(*ends, 15) for ends in arms if len(ends) == 2]
        obstacles = np.concatenate([points, *along])
        near(axes, points, known["submission"].tolist(), obstacles=obstacles)
        _name_the_diagonal(axes)
    return figure


def _crosses(axes: Axes, table: pd.DataFrame, proxy: str, intervals: pd.DataFrame | None) -> None:
    """The intervals of both scores of each submission, where they are known."""
    if intervals is None:
        return
    known = intervals.set_index(["images", "submission"])[["low", "high"]]
    held_out = "evaluation" in table and np.allclose(
        table["evaluation"], table["real"], equal_nan=True
    )  # the portal's scores, of unknown images, have no interval
    style = {"color": FAINT, "linewidth": 0.9, "zorder": 1}
    for name, x, y in table[["submission", proxy, "real"]].itertuples(index=False):
        if (proxy, name) in known.index:
            axes.hlines(y, *known.loc[(proxy, name)], **style)
        if held_out and ("evaluation", name) in known.index:
            axes.vlines(x, *known.loc[("evaluation", name)], **style)


def _score_limits(
    table: pd.DataFrame, proxies: Sequence[str], intervals: pd.DataFrame | None
) -> np.ndarray:
    """Shared limits ((left, right), (bottom, top)) in steps of 0.05 with the line y = x in view."""
    scores = table[[*proxies, "real"]].to_numpy(dtype=float)
    if not np.isfinite(scores).any(axis=0)[-1]:
        return np.array([[0.0, 1.0], [0.0, 1.0]])
    ends = [] if intervals is None else intervals[["low", "high"]].to_numpy(dtype=float).ravel()
    ends = np.concatenate([scores.ravel(), ends])
    low, high = np.nanmin(ends) - 0.015, np.nanmax(ends) + 0.015
    top = max(np.nanmax(table["real"]) + 0.02, low + 0.4 * (high - low))
    steps = np.array([[low, high], [low, top]]) / 0.05
    return np.stack([np.floor(steps[:, 0]), np.ceil(steps[:, 1])], axis=1) * 0.05


def _name_the_diagonal(axes: Axes) -> None:
    """Write along the line y = x what it says."""
    start = max(axes.get_xlim()[0], axes.get_ylim()[0])
    axes.annotate(
        "real = proxy",
        (start, start),
        xytext=(7, 11),
        textcoords="offset points",
        rotation=45,
        rotation_mode="anchor",
        color=FAINT,
    )


@house_style()
def calibration_ratios(table: pd.DataFrame, proxies: Sequence[str]) -> Figure:
    """Draw the calibration ratio real / proxy of each submission on each proxy.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns `submission`, `title`, `real` and one per proxy; a missing score is not drawn.
    proxies : sequence of str

    Returns
    -------
    matplotlib.figure.Figure
        Dots about the line 1, at which a proxy tells the truth; two columns wide.
    """
    figure = Figure(
        figsize=(DOUBLE_COLUMN, 0.95 + (0.1 + 0.13 * len(proxies)) * len(table)),
        layout="constrained",
    )
    axes = figure.add_subplot()
    rows = np.arange(len(table))
    shifts = (np.arange(len(proxies)) - (len(proxies) - 1) / 2) * 0.75 / len(proxies)
    for (proxy, look), shift in zip(marks_of(proxies).items(), shifts, strict=True):
        ratios = table["real"].to_numpy(dtype=float) / table[proxy].to_numpy(dtype=float)
        axes.plot(ratios, rows + shift, **point(look), ms=6, label=proxy)
        for place, ratio in zip(rows + shift, ratios, strict=True):
            if np.isfinite(ratio):
                _value_at(axes, ratio, place)
    axes.axvline(1, color=INK, linewidth=0.8, linestyle=DASHED, zorder=0)
    labels = [
        f"{name}: {title}" for name, title in zip(table["submission"], table["title"], strict=True)
    ]
    axes.set_yticks(rows, [textwrap.fill(label, 42, break_on_hyphens=False) for label in labels])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.12)
    axes.set(ylim=(len(table) - 0.5, -0.5), xlabel="calibration ratio: real score / proxy score")
    figure.legend(loc="outside upper left", ncols=min(len(proxies), 5))
    return figure


def _value_at(axes: Axes, value: float, place: float) -> None:
    """The value on that side of its point that is away from the line at 1."""
    side = 1 if value >= 1 else -1
    axes.annotate(
        number(value), (value, place), xytext=(6 * side, 0), textcoords="offset points",
        va="center", ha="left" if side > 0 else "right",
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )  # fmt: skip
