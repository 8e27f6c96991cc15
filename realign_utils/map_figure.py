"""The models in the plane, with the submitted ones named (Figure 5)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from realign_utils import pointer
from realign_utils.embedding import Embedding
from realign_utils.figure_style import (
    DOUBLE_COLUMN,
    FAINT,
    INK,
    OTHER,
    Mark,
    fit,
    handle,
    house_style,
    legend_below,
    number,
    shorten,
    widest_text,
)
from realign_utils.labels import beside, near


@house_style()
def embedding_map(
    names: Sequence[str],
    embedding: Embedding,
    *,
    marks: Mapping[str, Mark],
    chosen: Sequence[str],
    title: str,
    families: Mapping[str, str] | None = None,
    resampled: np.ndarray | None = None,
    similarity: np.ndarray | None = None,
) -> Figure:
    """Draw the models in the plane, the chosen ones as stars (the paper's Figure 5).

    Parameters
    ----------
    names : sequence of str, length m
    embedding : Embedding
        Of the same models.
    marks : mapping of str to Mark
        Each model's group by colour and shape.
    chosen : sequence of str
        The submitted models, named in the enlarged part.
    title : str
        The stress is added from `embedding`.
    families : mapping of str to str, optional
        Each model's family; families of three and more are named where there is room.
    resampled : numpy.ndarray, shape (r, m, 2), optional
        Maps that other images might have given (`embedding.resampled_maps`), drawn as faint clouds.
    similarity : numpy.ndarray, shape (m, m), optional
        With it the pointer is told each model's nearest ones: on a map of some stress they need
        not lie nearest.

    Returns
    -------
    matplotlib.figure.Figure
        All models above, the surroundings of the chosen ones below with their names; two columns
        wide.
    """
    points = embedding.coordinates
    placed = np.isfinite(points).all(axis=1)
    stars = np.isin(names, list(chosen)) & placed
    heights = [3.1, max(2.1, 0.15 * stars.sum())]
    figure = Figure(figsize=(DOUBLE_COLUMN, sum(heights) + 1.7), layout="constrained")
    whole, part = figure.subplots(2, 1, height_ratios=heights)
    looks = [marks.get(name, OTHER) for name in names]
    for axes, size in ((whole, 3.5), (part, 4.5)):
        _points(axes, points, looks, stars, size, resampled)
        axes.set(aspect="equal", anchor="W", ylabel="dimension 2")
        axes.set_xlabel("dimension 1 (1 − linear CKA)")
        pointer.points(axes, points, names, _told(names, looks, stars, families, similarity))
    whole.set_title(f"{fit(title, 6)}\n{placed.sum()} models, stress {number(embedding.stress)}")
    labels = shorten(np.array(names)[stars].tolist())
    room = DOUBLE_COLUMN - 1.1 - widest_text(labels or [""])
    (left, right), (bottom, top) = _surroundings(points[stars], ratio=min(1.6, room / heights[1]))
    part.set(xlim=(left, right), ylim=(bottom, top))
    part.set_title(f"the submitted {stars.sum()} (stars), enlarged from the frame")
    size = (right - left, top - bottom)
    frame = Rectangle((left, bottom), *size, fill=False, ec=FAINT, lw=0.6, zorder=0)
    whole.add_patch(frame)
    beside(part, points[stars], labels)
    others = [handle(Mark("submitted, in its group's colour", "white", "*"), size=8)]
    if resampled is not None:
        cloud = f"where other images might put it ({len(resampled)} draws)"
        others.append(Line2D([], [], linestyle="", marker=".", color=FAINT, ms=2.5, label=cloud))
    legend_below(figure, looks, *others, loc="outside lower center")
    if families:
        named = [families.get(name, "") for name in np.array(names)[placed]]
        _name_families(whole, points[placed], named)
    return figure


def _told(
    names: Sequence[str],
    looks: Sequence[Mark],
    stars: np.ndarray,
    families: Mapping[str, str] | None,
    similarity: np.ndarray | None,
) -> list[list[str]]:
    """What the pointer is told of each model: group, family, whether submitted, nearest models."""
    told = []
    for row, (name, look) in enumerate(zip(names, looks, strict=True)):
        family = (families or {}).get(name, "")
        lines = [f"{look.label}{', family ' + family if family else ''}"]
        lines += ["submitted"] if stars[row] else []
        if similarity is not None:
            others = np.where(np.arange(len(names)) == row, np.nan, similarity[row])
            order = np.argsort(-np.nan_to_num(others, nan=-np.inf), kind="stable")[:3]
            near = [f"{names[i]} {number(others[i])}" for i in order if np.isfinite(others[i])]
            lines += [f"most alike (CKA): {', '.join(near)}"] if near else []
        told.append(lines)
    return told


def _points(
    axes: Axes,
    points: np.ndarray,
    looks: Sequence[Mark],
    stars: np.ndarray,
    size: float,
    resampled: np.ndarray | None,
) -> None:
    if resampled is not None:
        for index, look in enumerate(looks):
            cloud = resampled[:, index].T
            axes.plot(*cloud, ".", color=look.colour, ms=2.4, mew=0, alpha=0.4, zorder=1)
    for look in dict.fromkeys(looks):
        member = np.array([other == look for other in looks])
        plain, star = points[member & ~stars], points[member & stars]
        axes.plot(*plain.T, look.marker, color=look.colour, mec=INK, mew=0.3, ms=size, zorder=2)
        axes.plot(*star.T, "*", color=look.colour, mec=INK, mew=0.5, ms=2.1 * size, zorder=4)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def _surroundings(points: np.ndarray, ratio: float) -> np.ndarray:
    """Frame, ((left, right), (bottom, top)), of the points with a margin and a width / height."""
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = np.maximum(high - low, 1e-3) * 1.2
    half = np.array([max(width, height * ratio), max(height, width / ratio)]) / 2
    centre = (low + high) / 2
    return np.stack([centre - half, centre + half], axis=1)


def _name_families(axes: Axes, points: np.ndarray, families: Sequence[str], least: int = 3) -> None:
    large = [f for f, count in Counter(families).most_common() if f and count >= least]
    member = [np.array([family == other for other in families]) for family in large]
    centres = np.array([np.median(points[rows], axis=0) for rows in member]).reshape(-1, 2)
    halo = [withStroke(linewidth=3, foreground="white")]  # the frame may run below a name
    near(axes, centres, large, obstacles=points, optional=True, style="italic", path_effects=halo)
