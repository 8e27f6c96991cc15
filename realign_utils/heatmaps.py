"""Similarity matrices as pictures: one, two beside each other, all submissions, or all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from realign_utils.embedding import order
from realign_utils.figure_style import (
    DOUBLE_COLUMN,
    INK,
    OTHER,
    Mark,
    axes_in_inches,
    house_style,
    legend_below,
    legend_rows,
    number,
    shared_limits,
    widest_text,
)
from realign_utils.heatmap_parts import (
    BAR_SPACE,
    FEW,
    Panel,
    answer,
    draw_cells,
    draw_panel,
    facts,
    label_bar,
    legend_marks,
    mean_of,
    name_key,
    title_height,
)

__all__ = ["Panel", "heatmap", "heatmaps", "overview", "registry_heatmap"]

_LINE_HEIGHT = 0.135  # inches that a line of the smallest text needs
_MARKED = 60  # models, at most, whose groups are marked by shape too


@house_style()
def heatmap(panel: Panel, marks: Mapping[str, Mark] | None = None) -> Figure:
    """Draw one matrix, ordered by clustering, with its models' names (the paper's Figure 2).

    Parameters
    ----------
    panel : Panel
        With names.
    marks : mapping of str to Mark, optional
        Each model's group, for the colour bar beside the names.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide.
    """
    size = len(panel.similarity)
    looks = legend_marks([panel], marks)
    names_width = widest_text(panel.names) + 0.35
    width = min(DOUBLE_COLUMN - names_width - 0.95, 4.5)
    # Square cells, unless so many lines of names need more height.
    height = max(width / (1 + BAR_SPACE), _LINE_HEIGHT * size)
    foot = 0.35 + 0.17 * legend_rows(len(looks))
    left = (DOUBLE_COLUMN - 0.75 - names_width - width) / 2 + names_width
    panel = panel.ordered(title_inches=DOUBLE_COLUMN - left)
    top = title_height([panel])
    figure = Figure(figsize=(DOUBLE_COLUMN, top + height + foot))
    axes = axes_in_inches(figure, left, top, width, height)
    mesh = draw_panel(axes, panel, marks, shared_limits([panel.similarity]))
    axes.set(aspect="auto", xlim=(-BAR_SPACE * size, size))
    labels = [f"{name}  {place}" for place, name in enumerate(panel.names, 1)]
    axes.set_yticks(np.arange(size) + 0.5, labels)
    bar = axes_in_inches(figure, left + width + 0.15, top, 0.11, height)
    label_bar(figure.colorbar(mesh, cax=bar))
    legend_below(figure, looks, loc="lower center")
    return figure


@house_style()
def heatmaps(panels: Sequence[Panel], marks: Mapping[str, Mark] | None = None) -> Figure:
    """Draw matrices beside each other on one colour scale (the paper's Figure 3).

    Parameters
    ----------
    panels : sequence of Panel
        Two, as a rule. The models are numbered in the order of clustering and named below, in one
        column where they are few.
    marks : mapping of str to Mark, optional
        Each model's group, for the colour bars.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide.
    """
    pitch = DOUBLE_COLUMN / len(panels)
    panels = [panel.ordered(title_inches=pitch - 0.3) for panel in panels]
    limits = shared_limits(panel.similarity for panel in panels)
    width = pitch - 0.4
    side = width / (1 + BAR_SPACE)
    most = max((len(panel.names) for panel in panels if panel.names), default=0)
    rows = most if most <= FEW else -(-most // 2)
    key = _LINE_HEIGHT * rows + 0.1
    looks = legend_marks(panels, marks)
    top = title_height(panels)
    height = top + side + key + 0.85 + 0.17 * legend_rows(len(looks))
    figure = Figure(figsize=(DOUBLE_COLUMN, height))
    for index, panel in enumerate(panels):
        left = index * pitch + 0.3
        axes = axes_in_inches(figure, left, top, width, side)
        mesh = draw_panel(axes, panel, marks, limits)
        axes.set_xlim(-BAR_SPACE * len(panel.similarity), len(panel.similarity))
        axes.set_yticks(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()])
        name_key(
            axes_in_inches(figure, left - 0.25, top + side + 0.25, pitch - 0.05, key), panel, rows
        )
    bar = axes_in_inches(figure, 0.3, top + side + key + 0.35, DOUBLE_COLUMN - 0.6, 0.1)
    label_bar(figure.colorbar(mesh, cax=bar, orientation="horizontal"))
    legend_below(figure, looks, loc="lower center")
    return figure


@house_style()
def registry_heatmap(panel: Panel, marks: Mapping[str, Mark]) -> Figure:
    """Draw the matrix of all models, ordered by clustering, with bars of their groups.

    Parameters
    ----------
    panel : Panel
        With names, which are not written: the pointer tells them.
    marks : mapping of str to Mark
        Each model's group, for the bars left of the rows and above the columns.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide.
    """
    looks = legend_marks([panel], marks)
    side, left, thick = 5.2, 0.55, 0.14
    panel = panel.ordered(title_inches=side)
    top, size = title_height([panel]) + thick + 0.03, len(panel.similarity)
    figure = Figure(figsize=(DOUBLE_COLUMN, top + side + 0.25 + 0.17 * legend_rows(len(looks))))
    axes = axes_in_inches(figure, left, top, side, side)
    mesh = draw_cells(axes, panel.similarity, shared_limits([panel.similarity]), gap=0.0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(
        f"{panel.title}\n{size} models, {facts(Panel('', panel.similarity))}",
        linespacing=1.35,
        pad=15,
    )
    groups = [marks.get(name, OTHER) for name in panel.names]
    _strip(axes_in_inches(figure, left - thick - 0.03, top, thick, side), groups, upright=True)
    _strip(axes_in_inches(figure, left, top - thick - 0.03, side, thick), groups, upright=False)
    answer(axes, panel, marks)
    label_bar(
        figure.colorbar(mesh, cax=axes_in_inches(figure, left + side + 0.12, top, 0.11, side))
    )
    legend_below(figure, looks, loc="lower center")
    return figure


@house_style()
def overview(
    submissions: Mapping[str, Mapping[str, np.ndarray]],
    names: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """Draw every submission on every image set, small, on one colour scale.

    Parameters
    ----------
    submissions : mapping of str to (mapping of str to numpy.ndarray, shape (k, k))
        ``submissions["S1"]["cifar100"]`` is a matrix; each column of the picture is a submission
        in one order of models, that of its first image set.
    names : mapping of str to (sequence of str, length k), optional
        The models of each submission, for the pointer.

    Returns
    -------
    matplotlib.figure.Figure
        Two columns wide.
    """
    image_sets = list(next(iter(submissions.values())))
    limits = shared_limits(matrix for sets in submissions.values() for matrix in sets.values())
    side = (DOUBLE_COLUMN - 1.2) / max(len(submissions), 3)
    height = (side + 0.2) * len(image_sets) + 0.4
    figure = Figure(figsize=(DOUBLE_COLUMN, height), layout="constrained")
    grid = figure.subplots(len(image_sets), len(submissions), squeeze=False)
    for column, (name, matrices) in zip(grid.T, submissions.items(), strict=True):
        indices = order(matrices[image_sets[0]])
        for axes, images in zip(column, image_sets, strict=True):
            matrix = matrices[images][np.ix_(indices, indices)]
            mesh = draw_cells(axes, matrix, limits, gap=0.0)
            axes.set(xticks=[], yticks=[], xlim=(0, len(matrix)))
            axes.set_xlabel(f"mean {number(mean_of(matrix))}")
            if names:
                here = [names[name][i] for i in indices]
                answer(axes, Panel(f"{name} on {images}", matrix, here), None)
        column[0].set_title(name, loc="center", weight="bold")
    for axes, images in zip(grid[:, 0], image_sets, strict=True):
        axes.set_ylabel(images)
    label_bar(figure.colorbar(mesh, ax=list(grid.flat), aspect=35, pad=0.02))
    return figure


def _strip(axes: Axes, marks: Sequence[Mark], *, upright: bool) -> None:
    """A bar of the models' groups: colour, and the marker where there is room for it."""
    for place, mark in enumerate(marks):
        span = axes.axhspan if upright else axes.axvspan
        span(place, place + 1, facecolor=mark.colour, edgecolor="white", linewidth=0.2)
        at = (0.5, place + 0.5) if upright else (place + 0.5, 0.5)
        if len(marks) <= _MARKED:
            axes.plot(*at, mark.marker, color="white", mec=INK, mew=0.4, ms=3)
    ends = (0, len(marks))
    axes.set(xlim=(0, 1) if upright else ends, ylim=ends[::-1] if upright else (0, 1))
    axes.set_axis_off()
