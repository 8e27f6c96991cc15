"""The house style of the figures: sizes, colours and markers, names, and how they are saved."""

from __future__ import annotations

import json
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from realign_utils.pointer import answers
from realign_utils.store import write_atomically, write_text

SINGLE_COLUMN, DOUBLE_COLUMN = 3.3, 6.8
"""Widths in inches for which every size below is chosen."""

SMALLEST_TEXT = 7.0
"""No text is smaller than this, in points."""

SIMILARITY_LABEL = "linear CKA (similarity, 1 = same)"
SIMILARITY_COLOURS = "viridis"
INK, FAINT, MISSING = "#222222", "#8c8c8c", "#d9d9d9"

_HOUSE = {
    "font.family": "DejaVu Sans",
    "font.size": SMALLEST_TEXT,
    "axes.titlesize": 8.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "xtick.labelsize": SMALLEST_TEXT,
    "ytick.labelsize": SMALLEST_TEXT,
    "legend.fontsize": SMALLEST_TEXT,
    "figure.titlesize": 8.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "legend.handletextpad": 0.4,
    "legend.columnspacing": 1.2,
    "figure.constrained_layout.h_pad": 0.05,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "realign",
}

DASHED = (0, (4, 3))

# Okabe & Ito (2008), ordered so that neighbours differ in lightness as well as in hue.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000")
BLUE, VERMILION = _COLOURS[0], _COLOURS[5]
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_HATCHES = ("", "////", "....", "xxxx", "----", "++++", "\\\\\\\\", "oooo")

_UNDATED = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
}


@dataclass(frozen=True)
class Mark:
    """How one group of things is drawn: hue, shape and hatching all say the same."""

    label: str
    colour: str
    marker: str
    hatch: str = ""


OTHER = Mark("other", MISSING, "o")
"""The mark of models of no named group."""

NO_VALUE = Mark("no value", MISSING, "", "/////")
"""How a pair is drawn whose similarity is unknown."""


def house_style() -> AbstractContextManager[None]:
    """Context (or decorator) under which figures are drawn: matplotlib's defaults and ours.

    A user's own matplotlib settings have no say, so that equal data give equal files.
    """
    return style.context(["default", _HOUSE])


def marks_of(labels: Iterable[str], most: int = 8) -> dict[str, Mark]:
    """Give each label a colour, marker and hatching, in the order of first appearance.

    Parameters
    ----------
    labels : iterable of str
        Repeats are allowed.
    most : int
        Where there are more labels than this, the rarest share the mark `OTHER`: more than eight
        hues cannot be told apart.

    Returns
    -------
    dict of str to Mark
        In order of first appearance.
    """
    counts = Counter(labels)
    common = {label for label, _ in counts.most_common(most)}
    looks = zip(_COLOURS, _MARKERS, _HATCHES, strict=True)
    return {label: Mark(label, *next(looks)) if label in common else OTHER for label in counts}


def mark_models(groups: Mapping[str, str]) -> dict[str, Mark]:
    """Mark every model by its group; `groups` maps a model to its family or mechanism."""
    looks = marks_of(groups.values())
    return {model: looks[group] for model, group in groups.items()}


def point(mark: Mark) -> dict[str, object]:
    """Arguments of ``Axes.plot`` for a point drawn with this mark."""
    edge = {"markeredgecolor": INK, "markeredgewidth": 0.5}
    return {"linestyle": "", "marker": mark.marker, "color": mark.colour} | edge


def handle(mark: Mark, size: float = 5.0) -> Artist:
    """The mark as it stands in a legend."""
    if not mark.marker:
        return Patch(facecolor=mark.colour, edgecolor=FAINT, hatch=mark.hatch, label=mark.label)
    return Line2D([], [], **point(mark), markersize=size, label=mark.label)


def axes_in_inches(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place measured from the upper left corner."""
    across, down = figure.get_size_inches()
    box = (left / across, 1 - (top + height) / down, width / across, height / down)
    return figure.add_axes(box)


def widest_text(names: Sequence[str]) -> float:
    """Inches that the longest of the names takes as a label."""
    figure = Figure(dpi=100)
    return max(figure.text(0, 0, name).get_window_extent().width for name in names) / 100


def legend_below(figure: Figure, marks: Iterable[Mark], *others: Artist, loc: str) -> None:
    """A legend at the foot of the figure: the marks, the grey ones last, and other handles."""
    ordered = sorted(dict.fromkeys(marks), key=lambda mark: mark in (OTHER, NO_VALUE))
    handles = [*map(handle, ordered), *others]
    if handles:
        columns = -(-len(handles) // legend_rows(len(handles)))
        figure.legend(handles=handles, loc=loc, ncols=columns)


def legend_rows(handles: int) -> int:
    """Lines that a legend of this many handles takes across two columns."""
    return -(-handles // 5)


def shorten(names: Sequence[str], longest: int = 28) -> list[str]:
    """Names without the training tag after the dot, where they then still differ.

    Parameters
    ----------
    names : sequence of str
        Model names such as ``"resnetblur50.bt_in1k"``.
    longest : int
        Longer names lose their middle.

    Returns
    -------
    list of str
        In the same order, all different if `names` are.
    """
    stems = [name.split(".")[0] for name in names]
    repeated = {stem for stem, count in Counter(stems).items() if count > 1}
    kept = [name if stem in repeated else stem for name, stem in zip(names, stems, strict=True)]
    short = [_without_middle(name, longest) for name in kept]
    return short if len(set(short)) == len(set(kept)) else kept


def _without_middle(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    tail = (longest - 1) // 2
    return f"{name[: longest - 1 - tail]}…{name[-tail:]}"


def number(value: float, digits: int = 3) -> str:
    """A number as it is printed in a figure, with a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def fit(text: str, inches: float) -> str:
    """A title on one or two lines of this length; what they cannot hold is cut."""
    width = int(inches * 16.5)
    lines = textwrap.wrap(text, width, max_lines=2, placeholder=" …", break_on_hyphens=False)
    return "\n".join(lines)


def known_pairs(similarity: np.ndarray) -> np.ndarray:
    """Known similarities of the unordered pairs: the finite values above the diagonal, (p,)."""
    values = np.asarray(similarity, dtype=np.float64)[np.triu_indices(len(similarity), 1)]
    return values[np.isfinite(values)]


def shared_limits(similarities: Iterable[np.ndarray], step: float = 0.05) -> tuple[float, float]:
    """One colour scale for several matrices: the range of all pairs, rounded outwards to `step`.

    The diagonal has no part in it: it is 1 by definition and would use up half of the colours.
    """
    values = np.concatenate([known_pairs(matrix) for matrix in similarities])
    if not len(values):
        return 0.0, 1.0
    low, high = np.floor(values.min() / step) * step, np.ceil(values.max() / step) * step
    return float(low), float(high if high > low else low + step)


def save(figure: Figure, folder: str | os.PathLike[str], name: str) -> Path:
    """Write a figure as PNG (200 dpi), SVG and PDF, and as JSON what it answers to a pointer.

    Equal figures give equal bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    folder : path
        Made where missing.
    name : str
        File name without its ending.

    Returns
    -------
    pathlib.Path
        The files' common path without an ending.

    Raises
    ------
    UserError
        If the folder cannot be written.
    """
    stem = Path(folder) / name
    with house_style():
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # else each format lays out a little differently
    for kind, metadata in _UNDATED.items():
        write_atomically(f"{stem}.{kind}", _writer(figure, kind, metadata))
    answered = answers(figure)
    if answered:
        write_text(f"{stem}.json", json.dumps(answered, ensure_ascii=False, allow_nan=False))
    else:
        Path(f"{stem}.json").unlink(missing_ok=True)  # of an earlier figure of this name
    return stem


def _writer(figure: Figure, kind: str, metadata: Mapping[str, None]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with house_style():
            figure.savefig(path, format=kind, metadata=metadata)

    return write
