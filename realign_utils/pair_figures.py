"""Pairs of models within and between kinds, before and after their capacity is considered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from realign_utils.figure_style import (
    BLUE,
    DOUBLE_COLUMN,
    FAINT,
    INK,
    VERMILION,
    fit,
    house_style,
)

SIDES = {"within": (BLUE, "o"), "between": (VERMILION, "s")}
"""Colour and marker of pairs of one kind, and of two."""
STEPS = {
    "nothing": (INK, "o", "difference as it is"),
    "capacity": (BLUE, "s", "at equal parameters"),
    "capacity and dimension": (VERMILION, "^", "at equal parameters and feature dimension"),
}
"""Colour, marker and name of what the coefficient stands beside."""
_GROUPS = 6
"""Parts of equally many pairs whose averages are drawn."""


@house_style()
def pairs_and_capacity(
    similarity: np.ndarray,
    kinds: Sequence[str],
    params_m: Sequence[float],
    table: pd.DataFrame,
    *,
    images: str,
    estimator: str,
) -> Figure:
    """Draw the similarity of pairs against how far their sizes differ, and the coefficients.

    Parameters
    ----------
    similarity : numpy.ndarray, shape (m, m)
        On `images`.
    kinds : sequence of str, length m
        Mechanism of each model.
    params_m : sequence of float, length m
        Millions of parameters.
    table : pandas.DataFrame
        From `homogeneity_pairs.homogeneity_pairs_table`.
    images, estimator : str
        Of the upper panels; the lower ones show all sets of images, by this estimator.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns of text wide.
    """
    table = table.assign(
        given=table["given"].astype(object).where(table["given"].notna(), "")
    )  # an empty cell, read from a file
    here = table[(table["estimator"] == estimator) & (table["adjusted_for"].isin(STEPS))]
    cases = here[["grouping", "given", "images"]].drop_duplicates()
    ascending = [True, False]  # a grouping's sets of images side by side, those given a proxy below
    cases = cases.sort_values(["given", "grouping"], ascending=ascending, kind="stable")
    figure = Figure(figsize=(DOUBLE_COLUMN, 2.8 + 0.24 * len(cases)), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[2.1, 0.7 + 0.24 * len(cases)])
    logs = np.log10(np.asarray(params_m, dtype=float))
    distances = np.abs(np.subtract.outer(logs, logs))
    means = np.add.outer(logs, logs) / 2
    alike = np.equal.outer(np.asarray(kinds), np.asarray(kinds))
    row = upper.subplots(1, 2, sharey=True)
    for axes, across in zip(row, (distances, means), strict=True):
        _cloud(axes, similarity, alike, across)
    row[0].set(xlabel="ratio of parameters of the two, larger / smaller", ylabel=f"CKA on {images}")
    row[1].set(xlabel="mean parameters of the two, millions (geometric)")
    for axes in row:
        axes.xaxis.set_major_formatter(lambda value, _: f"{10**value:.2g}")
    parts = [
        Line2D([], [], color=colour, marker=marker, mec=INK, mew=0.5, label=f"{side} one mechanism")
        for side, (colour, marker) in SIDES.items()
    ]
    parts[1].set_label("of two mechanisms")
    upper.legend(handles=parts, loc="outside upper right", ncols=2)
    if len(cases):
        _forest(lower.subplots(), here, cases)
        marks = [
            Line2D([], [], color=colour, marker=marker, linestyle="", label=label)
            for colour, marker, label in STEPS.values()
        ]
        lower.legend(handles=marks, loc="outside lower center", ncols=3)
    return figure


def _cloud(axes: Axes, similarity: np.ndarray, alike: np.ndarray, across: np.ndarray) -> None:
    """All pairs as small points, and averages of equally many pairs of either kind."""
    upper = np.triu_indices(len(similarity), 1)
    for side, (colour, marker) in SIDES.items():
        mask = alike[upper] == (side == "within")
        x, y = across[upper][mask], similarity[upper][mask]
        axes.plot(x, y, marker, color=colour, ms=3, alpha=0.6, mew=0, rasterized=True)
        order = np.argsort(x, kind="stable")
        groups = [part for part in np.array_split(order, _GROUPS) if len(part)]
        middles = np.array([(x[part].mean(), y[part].mean()) for part in groups]).reshape(-1, 2)
        axes.plot(*middles.T, color=colour, marker=marker, mec=INK, mew=0.5, ms=5, zorder=3)


def _forest(axes: Axes, table: pd.DataFrame, cases: pd.DataFrame) -> None:
    """A line for each grouping and set of images: the coefficients with their intervals."""
    labels = []
    for place, case in enumerate(cases.itertuples(index=False)):
        same = (table["grouping"] == case.grouping) & (table["images"] == case.images)
        rows = table[same & (table["given"] == case.given)].set_index("adjusted_for")
        for shift, (step, (colour, marker, _)) in zip((-0.25, 0, 0.25), STEPS.items(), strict=True):
            one = rows.loc[step]
            axes.hlines(place + shift, one["low"], one["high"], color=colour, linewidth=1.2)
            axes.plot(one["difference"], place + shift, marker, color=colour, ms=4)
        given = f", given {fit(case.given, 1.5)}" if case.given else ""
        labels.append(f"{case.grouping}: {fit(case.images, 1.5)}{given}")
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_yticks(np.arange(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set(
        ylim=(len(labels) - 0.4, -0.6), xlabel="CKA within less between (95 %: images and models)"
    )
