"""What a figure answers to a pointer: names and values of its cells and points, with their places.

A drawing function says what is where by `cells` and `points`; `figure_style.save` writes it beside
the picture, in fractions of the picture's width and height, for ``templates/pointer.js``. The
picture itself stays as it is, for paper and for readers without JavaScript.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

DIGITS = 3
"""Decimals of the values that are shown."""


class Answer(Artist):
    """An invisible part of some axes that knows what they show."""

    def __init__(self, record: Mapping[str, Any], places: np.ndarray) -> None:
        super().__init__()
        self.record, self.places = dict(record), np.asarray(places, dtype=np.float64)
        self.set_in_layout(False)

    def draw(self, renderer: RendererBase) -> None:
        """Leave no ink."""


def cells(
    axes: Axes,
    names: Sequence[str],
    values: np.ndarray,
    *,
    quantity: str,
    title: str = "",
    groups: Mapping[str, str] | None = None,
) -> None:
    """Let a matrix drawn from (0, 0) to (m, m) in data coordinates answer.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    names : sequence of str, length m
        Of the rows and columns, in the order drawn.
    values : numpy.ndarray, shape (m, m)
        NaN where unknown.
    quantity : str
        What the values are.
    title : str
        Which matrix, where a figure has several.
    groups : mapping of str to str, optional
        Each name's group.
    """
    shown = [[None if math.isnan(v) else round(float(v), DIGITS) for v in row] for row in values]
    record = {"kind": "cells", "title": title, "quantity": quantity, "names": list(names)}
    record |= {"groups": [(groups or {}).get(name, "") for name in names], "values": shown}
    size = len(names)
    axes.add_artist(Answer(record, np.array([[0, 0], [size, size]])))


def points(
    axes: Axes, places: np.ndarray, names: Sequence[str], lines: Sequence[Sequence[str]]
) -> None:
    """Let points answer.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    places : numpy.ndarray, shape (p, 2)
        In data coordinates; a point that is not finite or outside the axes does not answer.
    names : sequence of str, length p
    lines : sequence of (sequence of str), length p
        What is said below each name.
    """
    record = {"kind": "points", "names": list(names), "lines": [list(text) for text in lines]}
    axes.add_artist(Answer(record, places))


def answers(figure: Figure) -> list[dict[str, Any]]:
    """All that a drawn figure answers, as plain data; its layout must be final.

    Returns
    -------
    list of dict
        A dictionary for each matrix: `box` (left, top, width, height) in fractions of the figure.
        For each group of points: `at`, a pair (from left, from top) for each.
    """
    found = [artist for artist in figure.findobj(Answer) if artist.axes.get_visible()]
    return [_placed(artist, figure) for artist in found]


def _placed(artist: Answer, figure: Figure) -> dict[str, Any]:
    corner, size = figure.bbox.p0, figure.bbox.size
    shown = (artist.axes.transData.transform(artist.places) - corner) / size
    shown[:, 1] = 1 - shown[:, 1]
    if artist.record["kind"] == "cells":
        low, high = shown.min(axis=0), shown.max(axis=0)
        return artist.record | {"box": _rounded([*low, *(high - low)])}
    inside = artist.axes.viewLim.padded(1e-9).contains
    kept = [i for i, place in enumerate(artist.places) if inside(*place)]
    record = artist.record | {"at": [_rounded(shown[i]) for i in kept]}
    return record | {key: [artist.record[key][i] for i in kept] for key in ("names", "lines")}


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 5) for value in values]
