"""The demo's images: colour patches cut from photographs that ship inside two Python packages.

The class of a patch is its picture. Every picture is divided into a grid of cells, and every cell
belongs to one split, so that no pixel is shared between training, the proxies and the evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import count

import numpy as np
from PIL import Image

from realign_utils.errors import UserError

PICTURES: dict[str, tuple[str, str]] = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "brick": ("skimage", "data/brick.png"),
    "camera": ("skimage", "data/camera.png"),
    "cell": ("skimage", "data/cell.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "clock": ("skimage", "data/clock_motion.png"),
    "coffee": ("skimage", "data/coffee.png"),
    "coins": ("skimage", "data/coins.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grass": ("skimage", "data/grass.png"),
    "gravel": ("skimage", "data/gravel.png"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "ihc": ("skimage", "data/ihc.png"),
    "moon": ("skimage", "data/moon.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "page": ("skimage", "data/page.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
"""Class name to (package, file inside it): the files lie in the wheels, nothing is downloaded."""

GRID = 6
"""Cells along each side of a picture."""

CELLS = {"train": 20, "validation": 4, "proxy_low": 4, "proxy_full": 4, "evaluation": 4}
"""How many of a picture's 36 cells each split owns; ``validation`` measures the zoo's accuracy."""

SMALLEST_CROP = 0.5
"""A patch is a square of this fraction of the cell's shorter side, up to all of it."""


def cells_of(picture: str, split: str) -> list[tuple[int, int]]:
    """The cells of one picture that belong to one split.

    Which cells they are depends on the picture's name alone, never on a seed: two image sets
    with different seeds are still disjoint when their splits differ.

    Parameters
    ----------
    picture : str
        A key of `PICTURES`.
    split : str
        A key of `CELLS`.

    Returns
    -------
    list of (int, int)
        Row and column of each cell in the grid of `GRID` × `GRID`.
    """
    cells = [(row, column) for row in range(GRID) for column in range(GRID)]
    cells.sort(key=lambda cell: hashlib.sha256(f"{picture}/{cell}".encode()).digest())
    start = sum(CELLS[earlier] for earlier in list(CELLS)[: list(CELLS).index(split)])
    return cells[start : start + CELLS[split]]


def box_of(picture: str, split: str, seed: int, index: int) -> tuple[int, int, int, int]:
    """Where in its picture a patch lies.

    Each patch is a function of these arguments alone, so that a larger set with the same seed
    begins with the smaller one.

    Returns
    -------
    (int, int, int, int)
        Left, upper, right and lower edge in pixels: a square inside one cell of the split.
    """
    (row, column), *draws = _cell_and_draws(picture, split, seed, index)
    width, height = _picture(picture).size
    left, right = column * width // GRID, (column + 1) * width // GRID
    upper, lower = row * height // GRID, (row + 1) * height // GRID
    shorter = min(right - left, lower - upper)
    side = round(shorter * (SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[0]))
    left += int(draws[1] * (right - left - side + 1))
    upper += int(draws[2] * (lower - upper - side + 1))
    return left, upper, left + side, upper + side


def cell_of(identifier: str) -> str:
    """The cell in which a patch of that identifier lies, as ``<picture>/<row>/<column>``."""
    split, seed, picture, index = identifier.split("/")
    (row, column), *_ = _cell_and_draws(picture, split, int(seed.removeprefix("seed")), int(index))
    return f"{picture}/{row}/{column}"


def _cell_and_draws(picture: str, split: str, seed: int, index: int) -> tuple:
    """The cell of a patch, and three numbers from 0 to 1: its size and its place in the cell."""
    digest = hashlib.sha256(f"{seed}/{split}/{picture}/{index}".encode()).digest()
    draws = [int.from_bytes(digest[8 * i : 8 * i + 8], "big") / 2**64 for i in range(4)]
    cells = cells_of(picture, split)
    return cells[int(draws[0] * len(cells))], *draws[1:]


def indices_in(picture: str, split: str, seed: int, cells: int | None) -> Iterator[int]:
    """Indices of a picture's patches, ascending; with `cells`, of those in its first cells alone."""
    allowed = cells_of(picture, split)[:cells]
    return (i for i in count() if _cell_and_draws(picture, split, seed, i)[0] in allowed)


def cut(
    split: str,
    classes: Sequence[str],
    number: int,
    seed: int,
    resolution: int,
    cells: int | None = None,
) -> tuple[list[str], list[str], np.ndarray]:
    """Cut patches from the cells of one split, the classes taking turns.

    Parameters
    ----------
    split : str
        A key of `CELLS`.
    classes : sequence of str
        Keys of `PICTURES`.
    number : int
        How many patches; the classes' shares differ by one at most.
    seed : int
        Chooses the places.
    resolution : int
        Side of a patch in pixels. A low one keeps little detail; the models' own preprocessing
        scales it up again, as it does CIFAR-100's.
    cells : int, optional
        How many of a picture's cells are cut from: patches of one cell are no independent images,
        so that sets of few and of many classes may have as many. All by default.

    Returns
    -------
    identifiers : list of str
        ``<split>/seed<seed>/<picture>/<index>``.
    labels : list of str
        The pictures' names.
    pixels : numpy.ndarray of uint8, shape (number, resolution, resolution, 3)
        Red, green and blue.
    """
    identifiers, labels = [], []
    pixels = np.empty((number, resolution, resolution, 3), np.uint8)
    places = {picture: indices_in(picture, split, seed, cells) for picture in classes}
    for position in range(number):
        picture = classes[position % len(classes)]
        index = next(places[picture])
        box = box_of(picture, split, seed, index)
        # cropped first: resizing with a box would let the filter see across the cell's edge
        patch = (
            _picture(picture).crop(box).resize((resolution, resolution), Image.Resampling.BICUBIC)
        )
        pixels[position] = np.asarray(patch)
        identifiers.append(f"{split}/seed{seed}/{picture}/{index:05d}")
        labels.append(picture)
    return identifiers, labels, pixels


@cache
def _picture(name: str) -> Image.Image:
    package, path = PICTURES[name]
    try:
        with files(package).joinpath(path).open("rb") as file:
            return Image.open(file).convert("RGB")
    except OSError as error:
        raise UserError(
            f"the picture {name!r} is missing: {package} has no {path}; install the pinned versions"
        ) from error
