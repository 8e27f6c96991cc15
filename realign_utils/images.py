"""Images in: one call for every source, and a manifest by which to ask for the same images again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from realign_utils.errors import UserError, unknown
from realign_utils.image_sources import CATALOGUES, SUFFIXES
from realign_utils.patches import cell_of
from realign_utils.store import key_of
from realign_utils.words import counted

SOURCES: dict[str, dict[str, Any]] = {
    "patches": {"split": ..., "classes": "all", "resolution": 32, "cells": None},
    "cifar100": {
        "root": "data",
        "download": False,
        "train": False,
        "classes": "all",
        "manifest": None,
    },
    "imagenette": {
        "root": "data",
        "download": False,
        "train": False,
        "size": "320px",
        "manifest": None,
    },
    "imagefolder": {"path": ..., "dataset_name": "images", "border": None, "manifest": None},
}
"""Kinds of images: their keys with defaults; ``...`` must be given. All have number and seed."""

_LEAST_IMAGES = 4  # for which the debiased CKA is defined
_LEAST_GROUPS = 5  # of which an interval is drawn


@dataclass(frozen=True)
class ImageSet:
    """An ordered set of images, decoded one at a time when they are asked for.

    Parameters
    ----------
    name : str
        What the set is called in file names and tables.
    dataset_names, identifiers, labels, sha256 : tuple of str, length n
        The challenge's two names of each image; its class ("" where there is none); the SHA-256
        of its file's bytes, or of its pixels where it is not a file of its own.
    content_hash : str
        Changes with any image, their order, or the border cut off: all that features depend on.
    """

    name: str
    dataset_names: tuple[str, ...]
    identifiers: tuple[str, ...]
    labels: tuple[str, ...]
    sha256: tuple[str, ...]
    content_hash: str
    reader: Callable[[int], Image.Image] = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.identifiers)

    def read(self, index: int) -> Image.Image:
        """Decode one image: RGB; from any thread or process. `UserError` if it has changed."""
        return self.reader(index)


def load_images(
    source: Mapping[str, Any], *, name: str, identifiers: Sequence[str] | None = None
) -> ImageSet:
    """Sample an image set, seeded and stratified, or ask for given images again.

    Each class gives as many images as any other, or all that it has. The sample depends on the
    seed and the images' identifiers alone, never on the order of the file system; a smaller
    sample with the same seed is the beginning of a larger one. Every image is hashed and checked
    here, so that a broken file is found before any features are computed.

    Parameters
    ----------
    source : mapping
        A flat mapping: ``kind``, ``number`` (None: all), ``seed`` (default 0) and

        - ``patches`` (the demo): ``split`` (train, validation, proxy_low, proxy_full, evaluation),
          ``classes`` ("all", or pictures' names), ``resolution`` (pixels a side, default 32),
          ``cells`` (of each picture, from which patches are cut; default all of the split's);
        - ``cifar100``: ``root``, ``download``, ``train``, ``classes`` ("all", or fine classes' names);
        - ``imagenette``: ``root``, ``download``, ``train``, ``size`` (full, 320px, 160px);
        - ``imagefolder``: ``path``, ``dataset_name``, ``border`` (pixels cut off each side; by
          default 1 for ``objectnet``, as its licence requires, otherwise 0);
        - all but ``patches``: ``manifest``, a CSV of `manifest`: those very images, verified by
          their hashes, instead of a sample.
    name : str
        The set's name.
    identifiers : sequence of str, optional
        Exactly these images in this order, e.g. of a manifest, instead of a sample.

    Returns
    -------
    ImageSet

    Raises
    ------
    UserError
        One line: an unknown key or image, a missing folder or archive, a damaged archive, a broken
        image, a link out of the folder, more images wanted than there are, no network.
    """
    options = _checked(source, name)
    wanted = None
    if options.get("manifest") and identifiers is None:
        wanted = _read_manifest(Path(options["manifest"]), name)
        identifiers = list(wanted)
    catalogue = CATALOGUES[options["kind"]](options)
    if not catalogue.identifiers and "path" in options:
        endings = ", ".join(sorted(SUFFIXES))
        raise UserError(
            f"{name}: no image in {options['path']}: none of its files ends in {endings}"
        )
    duplicates = [key for key, times in Counter(catalogue.identifiers).items() if times > 1]
    if duplicates:
        raise UserError(f"{name}: two images are called {duplicates[0]!r}")
    if identifiers is not None:
        chosen = _find(catalogue.identifiers, identifiers, name)
    elif catalogue.drawn:
        chosen = list(range(len(catalogue.identifiers)))
    else:
        listed = catalogue.identifiers, catalogue.labels
        chosen = sample(*listed, options["number"], options["seed"], name)
    sha256, reader = catalogue.open(chosen)
    for identifier, found in zip(identifiers or (), sha256, strict=False):
        if wanted and wanted[identifier] != found:
            raise UserError(f"{name}: {identifier} is not the image of {options['manifest']}")
    return ImageSet(
        name=name,
        dataset_names=(catalogue.dataset_name,) * len(chosen),
        identifiers=tuple(catalogue.identifiers[i] for i in chosen),
        labels=tuple(catalogue.labels[i] for i in chosen),
        sha256=tuple(sha256),
        content_hash=key_of({"sha256": list(sha256), "border": catalogue.border}),
        reader=reader,
    )


def first(images: ImageSet, number: int) -> ImageSet:
    """The first images of a set; the set itself where it has no more."""
    if len(images) <= number:
        return images
    listed = ("dataset_names", "identifiers", "labels", "sha256")
    shorter = {name: getattr(images, name)[:number] for name in listed}
    content_hash = key_of({"of": images.content_hash, "first": number})
    return replace(images, **shorter, content_hash=content_hash)


def manifest(images: ImageSet) -> pd.DataFrame:
    """The table by which the same images can be asked for again.

    Returns
    -------
    pandas.DataFrame
        Columns dataset_name, image_identifier (the challenge's), label, sha256; a row an image.
    """
    return pd.DataFrame(
        {
            "dataset_name": images.dataset_names,
            "image_identifier": images.identifiers,
            "label": images.labels,
            "sha256": images.sha256,
        }
    )


def groups_of(table: pd.DataFrame) -> list[str]:
    """The group of each image of a manifest: images that are no independent sample of each other.

    Patches of one cell of a photograph overlap, and are one group; any other image is its own.
    """
    pairs = zip(table["dataset_name"], table["image_identifier"], strict=True)
    return [cell_of(name) if kind == "patches" else f"{kind}/{name}" for kind, name in pairs]


def require_halves(images: ImageSet) -> None:
    """Stop where the images are too few for their halves to be compared (`2_cka`).

    Parameters
    ----------
    images : ImageSet

    Raises
    ------
    UserError
        If there are fewer than 5 groups of images, or half of the groups may hold fewer than 4
        images, the least for which the debiased CKA is defined.
    """
    sizes = sorted(Counter(groups_of(manifest(images))).values())
    if len(sizes) >= _LEAST_GROUPS and sum(sizes[: len(sizes) // 2]) >= _LEAST_IMAGES:
        return
    alone = len(sizes) == len(images)
    what = counted(len(images), "image") + ("" if alone else f" of {counted(len(sizes), 'place')}")
    needed = (
        f"{2 * _LEAST_IMAGES} are needed"
        if alone
        else f"{_LEAST_GROUPS} places are needed, and {_LEAST_IMAGES} images in any half of them"
    )
    raise UserError(f"{images.name}: {what}: too few; {needed}, since halves are compared")


def _read_manifest(path: Path, name: str) -> dict[str, str]:
    """SHA-256 of each image of a manifest by its identifier, in the manifest's order."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return dict(zip(table["image_identifier"], table["sha256"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        reason = f"has no column {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{name}: the manifest {path}: {' '.join(str(reason).split())}") from error


def mosaic(images: ImageSet, rows: int, columns: int, side: int = 32) -> np.ndarray:
    """The first rows × columns images in one picture, to be looked at.

    Returns
    -------
    numpy.ndarray of uint8, shape (rows * side, columns * side, 3)
        White where there are fewer images.
    """
    picture = np.full((rows * side, columns * side, 3), 255, np.uint8)
    for index in range(min(len(images), rows * columns)):
        top, left = index // columns * side, index % columns * side
        tile = images.read(index).resize((side, side), Image.Resampling.NEAREST)
        picture[top : top + side, left : left + side] = np.asarray(tile)
    return picture


def sample(
    identifiers: Sequence[str],
    labels: Sequence[str],
    number: int | None,
    seed: int,
    name: str = "images",
) -> list[int]:
    """Draw a stratified sample: the classes, in random order, take turns with random images.

    Parameters
    ----------
    identifiers, labels : sequence of str, length n
        The images, in any order, and their classes.
    number : int or None
        How many; None: all.
    seed : int
        Of the draw. It ranks names by their hash with the seed, so that neither the given order
        nor a library's version matters, and an image more or less does not reshuffle the others.
    name : str
        What the error calls the set.

    Returns
    -------
    list of int
        Indices into `identifiers`.

    Raises
    ------
    UserError
        If there are fewer than `number`, or none.
    """
    if not identifiers or (number or 0) > len(identifiers):
        raise UserError(
            f"{name}: number is {number}, but there are {len(identifiers)} images"
            if identifiers
            else f"{name}: there are no images"
        )

    def rank(text: str) -> bytes:
        return hashlib.sha256(f"{seed}/{text}".encode()).digest()

    turns: Counter[str] = Counter()
    keyed = []
    for index in sorted(range(len(identifiers)), key=lambda i: rank(identifiers[i])):
        keyed.append((turns[labels[index]], rank(labels[index]), index))
        turns[labels[index]] += 1
    return [index for _, _, index in sorted(keyed)][:number]


def _find(identifiers: Sequence[str], wanted: Sequence[str], name: str) -> list[int]:
    positions = {identifier: index for index, identifier in enumerate(identifiers)}
    for identifier in wanted:
        if identifier not in positions:
            nearest = get_close_matches(identifier, identifiers, n=1, cutoff=0)
            raise UserError(f"{name}: no image {identifier!r}; the nearest is {nearest[0]!r}")
    return [positions[identifier] for identifier in wanted]


def _checked(source: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind = source.get("kind")
    if kind not in SOURCES:
        raise unknown(f"kind of images for {name}:", kind, SOURCES)
    defaults = {"kind": kind, "number": None, "seed": 0, **SOURCES[kind]}
    for key in source:
        if key not in defaults:
            raise unknown(f"key of {name}:", key, defaults)
    options = {**defaults, **source}
    missing = [key for key, value in options.items() if value is ...]
    if missing:
        raise UserError(f"{name}: {missing[0]} must be given for images of kind {kind}")
    number = options["number"]
    if number is not None and (not isinstance(number, int) or number < 1):
        raise UserError(f"{name}: number is {number!r}; give a whole number above 0, or null")
    return options
