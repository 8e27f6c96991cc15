"""The parts that pictures of similarity matrices are made of: cells, group bars, facts, keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from realign_utils import pointer
from realign_utils.embedding import order
from realign_utils.figure_style import (
    INK,
    MISSING,
    NO_VALUE,
    OTHER,
    SIMILARITY_COLOURS,
    SIMILARITY_LABEL,
    Mark,
    fit,
    known_pairs,
    number,
    shorten,
)

FEW = 12
"""Models whose values are written into the cells and whose names into one column."""

BAR_SPACE = 0.052
"""Of the groups' bar left of a matrix, as a share of the matrix."""


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


def title_height(panels: Sequence[Panel]) -> float:
    """Inches for the titles and the line of facts below them."""
    return 0.32 + 0.16 * max(panel.title.count("\n") + 1 for panel in panels)


def draw_panel(
    axes: Axes,
    panel: Panel,
    marks: Mapping[str, Mark] | None,
    limits: tuple[float, float],
) -> QuadMesh:
    """Cells, group bar, column numbers and the title with what the data say."""
    size = len(panel.similarity)
    mesh = draw_cells(axes, panel.similarity, limits)
    step = 1 if size <= 24 else 5
    numbers = np.arange(size)[::step]
    axes.set_xticks(numbers + 0.5, [str(number + 1) for number in numbers])
    axes.tick_params(length=0, pad=2)
    if marks and panel.names:
        group_bar(axes, [marks.get(name, OTHER) for name in panel.names])
    axes.set_title(f"{panel.title}\n{facts(panel)}", linespacing=1.35)
    if size <= FEW:
        _cell_values(axes, panel.similarity, mesh)
    answer(axes, panel, marks)
    return mesh


def answer(axes: Axes, panel: Panel, marks: Mapping[str, Mark] | None) -> None:
    """Let the cells tell the pointer which models they compare; without names, which rows."""
    names = panel.names or [f"model {place}" for place in range(1, len(panel.similarity) + 1)]
    groups = {name: mark.label for name, mark in (marks or {}).items()}
    title = " ".join(panel.title.split())
    pointer.cells(axes, names, panel.similarity, quantity="linear CKA", title=title, groups=groups)


def draw_cells(
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


def group_bar(axes: Axes, marks: Sequence[Mark]) -> None:
    """A bar left of the rows: colour, and the marker for those who do not see the colour."""
    size = len(marks)
    left = -BAR_SPACE * size
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


def facts(panel: Panel) -> str:
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


def mean_of(similarity: np.ndarray) -> float:
    values = known_pairs(similarity)
    return float(values.mean()) if len(values) else float("nan")


def name_key(axes: Axes, panel: Panel, rows: int) -> None:
    """The numbered names in one column or two."""
    axes.set_axis_off()
    longest = 22 if rows < len(panel.names or ()) else 44
    names = shorten(panel.names, longest=longest) if panel.names else []
    axes.set(xlim=(0, 2), ylim=(rows or 1, 0))
    for index, name in enumerate(names):
        column, row = divmod(index, rows)
        axes.text(column + 0.11, row + 0.5, str(index + 1), ha="right", va="center")
        axes.text(column + 0.16, row + 0.5, name, va="center")
    if not names:
        axes.text(0.04, 0.5, "The models of this set are not known.", va="center", style="italic")


def label_bar(bar: Colorbar) -> None:
    bar.set_label(SIMILARITY_LABEL)
    bar.outline.set_visible(False)


def legend_marks(panels: Sequence[Panel], marks: Mapping[str, Mark] | None) -> list[Mark]:
    """Groups of the drawn models, and hatching where a pair is unknown."""
    names = [name for panel in panels for name in panel.names or ()]
    shown = [marks.get(name, OTHER) for name in names] if marks else []
    unknown = any(np.isnan(panel.similarity).any() for panel in panels)
    return list(dict.fromkeys(shown + [NO_VALUE] * unknown))
