"""Similarity matrices as pictures: one, two beside each other, or all submissions at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from realign_utils.embedding import order
from realign_utils.figure_style import (
    DOUBLE_COLUMN,
    INK,
    MISSING,
    NO_VALUE,
    OTHER,
    SIMILARITY_COLOURS,
    SIMILARITY_LABEL,
    Mark,
    axes_in_inches,
    fit,
    house_style,
    known_pairs,
    legend_below,
    legend_rows,
    number,
    shared_limits,
    shorten,
    widest_text,
)

_LINE_HEIGHT = 0.135  # inches that a line of the smallest text needs
_BAR_SPACE = 0.052  # of the groups' bar left of a matrix, as a share of the matrix


@dataclass(frozen=True)
class Panel:
    """A matrix to draw.

    Attributes
    ----------
    title : str
        What it is of; mean and minimum are added from the matrix.
    similarity : numpy.ndarray, shape (m, m)
        Symmetric, 1 = same; NaN where a pair is unknown.
    names : sequence of str, length m, optional
        The models, where they are known.
    """

    title: str
    similarity: np.ndarray
    names: Sequence[str] | None = None

    def ordered(self, title_inches: float) -> Panel:
        """The matrix in the order of hierarchical clustering, its title set in lines."""
        indices = order(self.similarity)
        names = None if self.names is None else [self.names[i] for i in indices]
        return Panel(
            fit(self.title, title_inches), self.similarity[np.ix_(indices, indices)], names
        )


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
    looks = _legend_marks([panel], marks)
    names_width = widest_text(panel.names) + 0.35
    width = min(DOUBLE_COLUMN - names_width - 0.95, 4.5)
    # Square cells, unless so many lines of names need more height.
    height = max(width / (1 + _BAR_SPACE), _LINE_HEIGHT * size)
    foot = 0.35 + 0.17 * legend_rows(len(looks))
    left = (DOUBLE_COLUMN - 0.75 - names_width - width) / 2 + names_width
    panel = panel.ordered(title_inches=DOUBLE_COLUMN - left)
    top = _title_height([panel])
    figure = Figure(figsize=(DOUBLE_COLUMN, top + height + foot))
    axes = axes_in_inches(figure, left, top, width, height)
    mesh = _draw(axes, panel, marks, shared_limits([panel.similarity]))
    axes.set(aspect="auto", xlim=(-_BAR_SPACE * size, size))
    labels = [f"{name}  {place}" for place, name in enumerate(panel.names, 1)]
    axes.set_yticks(np.arange(size) + 0.5, labels)
    bar = axes_in_inches(figure, left + width + 0.15, top, 0.11, height)
    _label(figure.colorbar(mesh, cax=bar))
    legend_below(figure, looks, loc="lower center")
    return figure


@house_style()
def heatmaps(panels: Sequence[Panel], marks: Mapping[str, Mark] | None = None) -> Figure:
    """Draw matrices beside each other on one colour scale (the paper's Figure 3).

    Parameters
    ----------
    panels : sequence of Panel
        Two, as a rule. The models are numbered in the order of clustering and named below.
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
    side = width / (1 + _BAR_SPACE)
    rows = max((-(-len(panel.names) // 2) for panel in panels if panel.names), default=0)
    key = _LINE_HEIGHT * rows + 0.1
    looks = _legend_marks(panels, marks)
    top = _title_height(panels)
    height = top + side + key + 0.85 + 0.17 * legend_rows(len(looks))
    figure = Figure(figsize=(DOUBLE_COLUMN, height))
    for index, panel in enumerate(panels):
        left = index * pitch + 0.3
        axes = axes_in_inches(figure, left, top, width, side)
        mesh = _draw(axes, panel, marks, limits)
        axes.set_xlim(-_BAR_SPACE * len(panel.similarity), len(panel.similarity))
        axes.set_yticks(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()])
        _name_key(
            axes_in_inches(figure, left - 0.25, top + side + 0.25, pitch - 0.05, key), panel, rows
        )
    bar = axes_in_inches(figure, 0.3, top + side + key + 0.35, DOUBLE_COLUMN - 0.6, 0.1)
    _label(figure.colorbar(mesh, cax=bar, orientation="horizontal"))
    legend_below(figure, looks, loc="lower center")
    return figure


@house_style()
def overview(submissions: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw every submission on every image set, small, on one colour scale.

    Parameters
    ----------
    submissions : mapping of str to (mapping of str to numpy.ndarray, shape (k, k))
        ``submissions["S1"]["cifar100"]`` is a matrix; each column of the picture is a submission
        in one order of models, that of its first image set.

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
            mesh = _draw_cells(axes, matrix, limits, gap=0.0)
            axes.set(xticks=[], yticks=[], xlim=(0, len(matrix)))
            axes.set_xlabel(f"mean {number(_mean(matrix))}")
        column[0].set_title(name, loc="center", weight="bold")
    for axes, images in zip(grid[:, 0], image_sets, strict=True):
        axes.set_ylabel(images)
    _label(figure.colorbar(mesh, ax=list(grid.flat), aspect=35, pad=0.02))
    return figure


def _title_height(panels: Sequence[Panel]) -> float:
    """Inches for the titles and the line of facts below them."""
    return 0.32 + 0.16 * max(panel.title.count("\n") + 1 for panel in panels)


def _draw(
    axes: Axes,
    panel: Panel,
    marks: Mapping[str, Mark] | None,
    limits: tuple[float, float],
) -> QuadMesh:
    """Cells, group bar, column numbers and the title with what the data say."""
    size = len(panel.similarity)
    mesh = _draw_cells(axes, panel.similarity, limits)
    step = 1 if size <= 24 else 5
    numbers = np.arange(size)[::step]
    axes.set_xticks(numbers + 0.5, [str(number + 1) for number in numbers])
    axes.tick_params(length=0, pad=2)
    if marks and panel.names:
        _group_bar(axes, [marks.get(name, OTHER) for name in panel.names])
    axes.set_title(f"{panel.title}\n{_facts(panel)}", linespacing=1.35)
    if size <= 12:
        _cell_values(axes, panel.similarity, mesh)
    return mesh


def _draw_cells(
    axes: Axes, similarity: np.ndarray, limits: tuple[float, float], gap: float = 0.3
) -> QuadMesh:
    """Coloured cells; the diagonal is left grey, an unknown pair is hatched."""
    size = len(similarity)
    shown = np.where(np.eye(size, dtype=bool), np.nan, similarity)
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(shown),
        cmap=SIMILARITY_COLOURS,
        norm=Normalize(*limits),
        edgecolors="white" if gap else "none",
        linewidth=gap,
        rasterized=not gap,  # vector cells without a gap show seams, and weigh much
    )
    for row, column in zip(*np.nonzero(~np.isfinite(shown)), strict=True):
        hatch = None if row == column else NO_VALUE.hatch
        axes.add_patch(
            Rectangle(
                (column, row),
                1,
                1,
                facecolor=MISSING,
                edgecolor="white",
                lw=gap,
                hatch=hatch,
            )
        )
    axes.set(aspect="equal", xlim=(0, size), ylim=(size, 0))
    axes.spines[:].set_visible(False)
    return mesh


def _group_bar(axes: Axes, marks: Sequence[Mark]) -> None:
    """A bar left of the rows: colour, and the marker for those who do not see the colour."""
    size = len(marks)
    left = -_BAR_SPACE * size
    width = -0.77 * left
    for row, mark in enumerate(marks):
        axes.add_patch(Rectangle((left, row), width, 1, facecolor=mark.colour, edgecolor="white"))
        axes.plot(left + width / 2, row + 0.5, mark.marker, color="white", mec=INK, mew=0.5, ms=3.5)
    axes.set_xlim(left, size)


def _cell_values(axes: Axes, similarity: np.ndarray, mesh: QuadMesh) -> None:
    for row, column in zip(*np.nonzero(~np.eye(len(similarity), dtype=bool)), strict=True):
        value = similarity[row, column]
        if np.isfinite(value):
            bright = mesh.norm(value) > 0.6
            axes.text(
                column + 0.5,
                row + 0.5,
                number(value, 2),
                ha="center",
                va="center",
                color=INK if bright else "white",
            )


def _facts(panel: Panel) -> str:
    """Mean and minimum over the pairs, and which pair has the minimum."""
    values = known_pairs(panel.similarity)
    if not len(values):
        return "no pair is known"
    text = f"mean {number(values.mean())}, minimum {number(values.min())}"
    if not panel.names:
        return text
    upper = np.triu(np.ones_like(panel.similarity, dtype=bool), 1)
    lowest = np.nanargmin(np.where(upper, panel.similarity, np.nan))
    row, column = np.unravel_index(lowest, panel.similarity.shape)
    return f"{text} (models {row + 1} and {column + 1})"


def _mean(similarity: np.ndarray) -> float:
    values = known_pairs(similarity)
    return float(values.mean()) if len(values) else float("nan")


def _name_key(axes: Axes, panel: Panel, rows: int) -> None:
    """The numbered names in two columns."""
    axes.set_axis_off()
    names = shorten(panel.names, longest=22) if panel.names else []
    axes.set(xlim=(0, 2), ylim=(rows or 1, 0))
    for index, name in enumerate(names):
        column, row = divmod(index, rows)
        axes.text(column + 0.11, row + 0.5, str(index + 1), ha="right", va="center")
        axes.text(column + 0.16, row + 0.5, name, va="center")
    if not names:
        axes.text(0.04, 0.5, "The models of this set are not known.", va="center", style="italic")


def _label(bar: Colorbar) -> None:
    bar.set_label(SIMILARITY_LABEL)
    bar.outline.set_visible(False)


def _legend_marks(panels: Sequence[Panel], marks: Mapping[str, Mark] | None) -> list[Mark]:
    """Groups of the drawn models, and hatching where a pair is unknown."""
    names = [name for panel in panels for name in panel.names or ()]
    shown = [marks.get(name, OTHER) for name in names] if marks else []
    unknown = any(np.isnan(panel.similarity).any() for panel in panels)
    return list(dict.fromkeys(shown + [NO_VALUE] * unknown))
