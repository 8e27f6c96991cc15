"""Where labels go so that none lies on another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from scipy.optimize import linear_sum_assignment

from realign_utils.figure_style import FAINT

_DIRECTIONS = [(1, 0), (0, 1), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]
_DISTANCES = (6, 9, 13, 20)  # points between a point and the edge of its label


def beside(axes: Axes, points: np.ndarray, labels: Sequence[str]) -> None:
    """Write the labels in a column right of the axes, each joined to its point by a thin line.

    Of all ways to give the points to the places the one of least total length is taken: its lines
    do not cross (two that cross could be exchanged for two that are shorter).

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        With its final limits.
    points : numpy.ndarray, shape (p, 2)
        In data coordinates.
    labels : sequence of str, length p
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    places = np.linspace(top, bottom, len(labels) + 2)[1:-1]
    column = right + 0.06 * (right - left)
    lengths = np.hypot(points[:, :1] - column, points[:, 1:] - places[None])
    line = {"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 1, "shrinkB": 0}
    for point, place in zip(*linear_sum_assignment(lengths), strict=True):
        axes.annotate(
            labels[point],
            points[point],
            xytext=(column, places[place]),
            va="center",
            annotation_clip=False,
            arrowprops=line | {"relpos": (0, 0.5)},
            zorder=3,
        )
    axes.set(xlim=(left, right), ylim=(bottom, top))


def near(
    axes: Axes,
    points: np.ndarray,
    labels: Sequence[str],
    *,
    obstacles: np.ndarray,
    optional: bool = False,
    **style: object,
) -> None:
    """Write each label close to its point, off the labels before it and off the obstacles.

    The figure's layout is fixed from here on, since the places depend on it.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Complete but for the labels.
    points : numpy.ndarray, shape (p, 2)
        In data coordinates.
    labels : sequence of str, length p
        The important ones first.
    obstacles : numpy.ndarray, shape (q, 2)
        Points that no label should cover, where that can be had.
    optional : bool
        Whether a label is left out where it would lie on another or on more than two obstacles.
    **style
        Text properties.
    """
    style = {"path_effects": [withStroke(linewidth=1.5, foreground="white")]} | style
    figure = axes.get_figure()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    scale = figure.dpi / 72
    frame, blocked = axes.get_window_extent(), axes.transData.transform(obstacles)
    taken: list[Bbox] = []
    for label, point in zip(labels, points, strict=True):
        text = axes.annotate(
            label, point, xytext=(0, 0), textcoords="offset points", ha="center", va="center",
            **style,
        )  # fmt: skip
        box = text.get_window_extent()
        places = []
        for offset in _offsets(box.width / scale, box.height / scale):
            moved = box.translated(*np.multiply(offset, scale))
            places.append((_clashes(moved, frame, taken), _covered(moved, blocked), offset, moved))
        clashes, covered, offset, moved = min(places, key=lambda place: place[:2])
        if optional and (clashes or covered > 2):
            text.remove()
            continue
        text.set_position(offset)
        taken.append(moved)


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Places of a label's centre around its point, in points, the nearest first."""
    return [
        (x * (distance + width / 2), y * (distance + height / 2))
        for distance in _DISTANCES
        for x, y in _DIRECTIONS
    ]


def _clashes(box: Bbox, frame: Bbox, taken: Sequence[Bbox]) -> int:
    outside = not (frame.contains(*box.min) and frame.contains(*box.max))
    return outside + sum(box.overlaps(other) for other in taken)


def _covered(box: Bbox, points: np.ndarray) -> int:
    (left, bottom), (right, top) = box.padded(5).get_points()
    x, y = points.T
    return int(((x > left) & (x < right) & (y > bottom) & (y < top)).sum())
