"""How firm a selection is, in pictures: pools side by side, and other images, proxies, objectives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from realign_utils import pointer
from realign_utils.figure_style import (
    BLUE,
    DASHED,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    MISSING,
    VERMILION,
    fit,
    handle,
    house_style,
    marks_of,
    number,
    point,
)

KINDS = {"homogeneous": (BLUE, "o", -0.17), "mixed": (VERMILION, "s", 0.17)}
"""Colour, marker and place beside the line of the two kinds of sets."""


@house_style()
def pools(table: pd.DataFrame, versus: pd.DataFrame, images: Sequence[str]) -> Figure:
    """Draw the best set of each pool beside those of random pools, and equal sets against each other.

    Parameters
    ----------
    table : pandas.DataFrame
        From `ablation.judge_pools`, rows of random pools included.
    versus : pandas.DataFrame
        From `homogeneity.homogeneous_against_mixed`; may be empty.
    images : sequence of str
        The set of images on which the sets were chosen, then those on which they are judged: a
        panel each.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide.
    """
    named = table[table["kind"] != "random"].reset_index(drop=True)
    below = versus["mechanism"].nunique() if len(versus) else 0
    heights = [0.6 + 0.19 * len(named), 0.75 + 0.3 * below] if below else [0.6 + 0.19 * len(named)]
    figure = Figure(figsize=(DOUBLE_COLUMN, sum(heights) + 0.35), layout="constrained")
    grid = figure.subplots(
        len(heights), len(images), squeeze=False, height_ratios=heights, sharex="col", sharey="row"
    )
    for axes, name in zip(grid[0], images, strict=True):
        _pool_panel(axes, table, named, name, bounded=name == images[0])
        axes.set_title(f"{'chosen' if name == images[0] else 'judged'} on {fit(name, 2)}")
    labels = [
        f"{pool} ({count})" for pool, count in zip(named["pool"], named["candidates"], strict=True)
    ]
    grid[0, 0].set_yticks(np.arange(len(named)), labels)
    if below:
        _versus_panels(grid[1], versus, images)
    for axes in grid[-1]:
        axes.set_xlabel("mean CKA")
    parts = [handle(look) for look in marks_of(named["kind"]).values()]
    parts.append(Line2D([], [], color=INK, marker="|", linestyle="", label="upper bound"))
    parts.append(Patch(color=MISSING, label="random pools of the same size"))
    if below:
        parts += [
            Line2D([], [], color=colour, marker=marker, mec=INK, mew=0.5, label=f"{kind} sets")
            for kind, (colour, marker, _) in KINDS.items()
        ]
    figure.legend(handles=parts, loc="outside lower center", ncols=5)
    return figure


def _pool_panel(
    axes: Axes, table: pd.DataFrame, named: pd.DataFrame, images: str, *, bounded: bool
) -> None:
    """One set of images: a dot for each pool, and the range of the random pools behind it."""
    rows, looks = np.arange(len(named)), marks_of(named["kind"])
    drawn = table[table["kind"] == "random"].groupby("candidates")[images]
    drawn = drawn.agg(["min", "mean", "max"]).reindex(named["candidates"]).to_numpy()
    axes.hlines(rows, drawn[:, 0], drawn[:, 2], color=MISSING, linewidth=4, zorder=1)
    axes.plot(drawn[:, 1], rows, "|", color=FAINT, ms=6, zorder=2)
    for row, pool in named.iterrows():
        axes.plot(pool[images], row, **point(looks[pool["kind"]]), ms=5, zorder=3)
    told = [[f"best set {number(score, 4)} on {images}"] for score in named[images]]
    pointer.points(axes, np.column_stack([named[images], rows]), list(named["pool"]), told)
    if bounded:
        axes.plot(named["upper_bound"], rows, "|", color=INK, ms=8, mew=1, zorder=4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(named) - 0.5, -0.5)


def _versus_panels(row: np.ndarray, versus: pd.DataFrame, images: Sequence[str]) -> None:
    """Homogeneous and mixed sets of equal proxy mean: averages with the range of nine in ten."""
    mechanisms = list(dict.fromkeys(versus["mechanism"]))
    sizes = versus.drop_duplicates("mechanism").set_index("mechanism")
    for axes, name in zip(row, images, strict=True):
        here = versus[versus["judged_on"] == name].set_index("mechanism").reindex(mechanisms)
        for kind, (colour, marker, shift) in KINDS.items():
            places = np.arange(len(mechanisms)) + shift
            values = here[kind] if name != images[0] else sizes["level"]
            if name != images[0]:
                axes.hlines(places, here[f"{kind}_low"], here[f"{kind}_high"], color=colour)
            axes.plot(values, places, marker, color=colour, mec=INK, mew=0.5, ms=5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(mechanisms) - 0.5, -0.5)
    labels = [
        f"{m}, sets of {sizes.loc[m, 'size']}\n({sizes.loc[m, 'homogeneous_sets']} homogeneous, "
        f"{sizes.loc[m, 'mixed_sets']} mixed)"
        for m in mechanisms
    ]
    row[0].set_yticks(np.arange(len(mechanisms)), labels)
    row[0].set_title("equal here by design")
    for axes in row[1:]:
        axes.set_title("average, and nine in ten sets")


@house_style()
def firmness(shares: pd.DataFrame, regret: pd.DataFrame) -> Figure:
    """Draw how often each model is in the best set, and what each way of choosing costs.

    Parameters
    ----------
    shares : pandas.DataFrame
        From `firmness.membership_table`; may be empty.
    regret : pandas.DataFrame
        From `stability.regret_table`.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide: above a panel for each submission, below the regrets.
    """
    names = list(dict.fromkeys(shares["submission"]))
    ways = list(dict.fromkeys(regret["chosen_on"]))
    tall = 0.75 + 0.2 * len(ways)
    rows = -(-len(names) // 4)
    figure = Figure(figsize=(DOUBLE_COLUMN, 1.75 * rows + tall), layout="constrained")
    parts = figure.subfigures(
        1 + bool(names), 1, height_ratios=[1.75 * rows, tall][-1 - bool(names) :], squeeze=False
    )
    if names:
        grid = parts[0, 0].subplots(rows, min(len(names), 4), sharey=True, squeeze=False)
        for axes in grid.flat[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(grid.flat, names, strict=False):
            _share_panel(axes, shares[shares["submission"] == name], name)
        for axes in grid[:, 0]:
            axes.set_ylabel("share of best sets\nin which a model is")
        shown = [
            Line2D([], [], marker="o", linestyle="", ms=4, mec=BLUE, mfc=colour, label=label)
            for colour, label in ((BLUE, "in the set"), ("white", "not in it"))
        ]
        parts[0, 0].legend(handles=shown, loc="outside upper right", ncols=2)
    _regret_panel(parts[-1, 0], regret, ways)
    return figure


def _share_panel(axes: Axes, table: pd.DataFrame, name: str) -> None:
    ordered = table.sort_values("share", ascending=False, kind="stable").reset_index(drop=True)
    for inside, look in ((True, {"mfc": BLUE}), (False, {"mfc": "white"})):
        part = ordered[ordered["in_set"] == inside]
        axes.plot(part.index + 1, part["share"], "o", ms=4, mec=BLUE, **look)
    told = [
        [f"in {share:.0%} of the best sets", f"{'in' if inside else 'not in'} {name}"]
        for share, inside in zip(ordered["share"], ordered["in_set"], strict=True)
    ]
    places = np.column_stack([ordered.index + 1, ordered["share"]])
    pointer.points(axes, places, list(ordered["model"]), told)
    axes.axvline(
        ordered["in_set"].sum() + 0.5, color=FAINT, linewidth=0.8, linestyle=DASHED, zorder=0
    )
    axes.set(ylim=(-0.08, 1.08), xlabel="rank of the model by that share", title=name)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _regret_panel(figure: SubFigure, regret: pd.DataFrame, ways: Sequence[str]) -> None:
    axes = figure.subplots()
    looks = marks_of(regret["judged_on"])
    shifts = (np.arange(len(looks)) - (len(looks) - 1) / 2) * 0.7 / len(looks)
    for (judge, look), shift in zip(looks.items(), shifts, strict=True):
        values = regret[regret["judged_on"] == judge].set_index("chosen_on")["regret"]
        places = np.arange(len(ways)) + shift
        axes.plot(values.reindex(ways), places, **point(look), ms=5, label=judge)
    for place, way in enumerate(ways):
        most = regret.loc[regret["chosen_on"] == way, "regret"].max()
        if not np.isfinite(most):  # judged by none but the images that chose it
            continue
        axes.annotate(
            number(most, 4), (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", annotation_clip=False,
        )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.6)
    axes.set_yticks(np.arange(len(ways)), [f"chosen on {way}" for way in ways])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(
        ylim=(len(ways) - 0.3, -0.7),  # the outer marks stand clear of the axis
        xlabel="regret (at right: the most): what a set chosen on the judge's images has more",
    )
    figure.legend(loc="outside upper right", ncols=min(len(looks), 5), title="judged on")
