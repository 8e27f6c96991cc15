"""Where images come from: folders, the archives of two public data sets, the demo's pictures."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from realign_utils import patches
from realign_utils.errors import UserError, unknown
from realign_utils.image_archives import unpacked, unpickled
from realign_utils.progress import track

SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
"""What counts as an image in a folder, as for torchvision; case does not matter."""

Reader = Callable[[int], Image.Image]


@dataclass(frozen=True)
class Catalogue:
    """All images of a source, none decoded yet.

    Parameters
    ----------
    dataset_name : str
        The challenge's, or our own, name of the data set.
    identifiers, labels : sequence of str, length n
        In an order that does not depend on the file system.
    open : callable
        From the indices of chosen images to their SHA-256 and a reader of the i-th chosen one.
    border : int
        Pixels that the reader cuts off each side.
    drawn : bool
        Whether these images are a sample already, to be taken as they come.
    """

    dataset_name: str
    identifiers: Sequence[str]
    labels: Sequence[str]
    open: Callable[[Sequence[int]], tuple[list[str], Reader]]
    border: int = 0
    drawn: bool = False


@dataclass(frozen=True)
class _Pixels:
    """Reader of small images held in memory, shape (n, height, width, 3)."""

    pixels: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])


@dataclass(frozen=True)
class _Files:
    """Reader of files, each verified again whenever it is read."""

    paths: Sequence[Path]
    sha256: Sequence[str]
    border: int

    def __call__(self, index: int) -> Image.Image:
        path = self.paths[index]
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != self.sha256[index]:
                raise UserError(f"image {path} has changed since it was listed: run again")
            image = Image.open(BytesIO(data)).convert("RGB")
        except UserError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly anything on broken data
            raise _broken(path, error) from error
        edge = self.border
        return image.crop((edge, edge, image.width - edge, image.height - edge)) if edge else image


def _broken(path: Path, error: Exception) -> UserError:
    reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else error
    return UserError(f"broken image {path}: {' '.join(str(reason).split())}")


def of_patches(options: Mapping[str, Any]) -> Catalogue:
    """The demo's patches, by `realign_utils.patches.cut`."""
    if options["split"] not in patches.CELLS:
        raise unknown("split of patches", options["split"], patches.CELLS)
    classes = list(patches.PICTURES) if options["classes"] == "all" else options["classes"]
    for label in classes:
        if label not in patches.PICTURES:
            raise unknown("picture", label, patches.PICTURES)
    if options["number"] is None:
        raise UserError("patches have no end: give their number")
    most, cells = patches.CELLS[options["split"]], options["cells"]
    if cells is not None and not 1 <= cells <= most:
        raise UserError(f"{cells} cells of each picture; 1 to {most} are allowed")
    identifiers, labels, pixels = patches.cut(
        options["split"],
        classes,
        options["number"],
        options["seed"],
        options["resolution"],
        cells,
    )
    return replace(_of_pixels("patches", identifiers, labels, pixels), drawn=True)


def of_imagefolder(options: Mapping[str, Any]) -> Catalogue:
    """A folder of images, flat or by class, nested at will; the class is the folder's name.

    The two data sets of the challenge get the challenge's identifiers.
    """
    root, dataset_name, border = Path(options["path"]), options["dataset_name"], options["border"]
    if not root.is_dir():
        raise UserError(f"no folder {root}: set path to the folder that holds the images")
    relative = _listing(root, root)
    labels = ["" if path.parent == Path() else path.parent.as_posix() for path in relative]
    identifiers = [path.as_posix() for path in relative]
    if dataset_name == "imagenet_val":
        identifiers = [path.name for path in relative]
    elif dataset_name == "objectnet":
        labels = [path.absolute().parent.name for path in (root / path for path in relative)]
        identifiers = [
            f"objectnet-1.0/images/{label}/{path.name}"
            for label, path in zip(labels, relative, strict=True)
        ]
        border = 1 if border is None else border
    return _of_files(dataset_name, root, relative, identifiers, labels, border or 0)


def of_imagenette(options: Mapping[str, Any]) -> Catalogue:
    """Imagenette in torchvision's layout; the identifier is the path inside the archive."""
    if options["size"] not in ("full", "320px", "160px"):
        raise unknown("size of Imagenette", options["size"], ("full", "320px", "160px"))
    root = unpacked(options["size"], Path(options["root"]), options["download"])
    part = root / ("train" if options["train"] else "val")
    if not part.is_dir():
        raise UserError(f"{root} has no folder {part.name}: delete it, to have it unpacked again")
    relative = _listing(part, root)
    identifiers = [path.as_posix() for path in relative]
    labels = [path.parent.name for path in relative]
    return _of_files(root.name, root, relative, identifiers, labels, 0)


def of_cifar100(options: Mapping[str, Any]) -> Catalogue:
    """CIFAR-100 in torchvision's layout; the identifier is ``test/00042``."""
    root = unpacked("cifar100", Path(options["root"]), options["download"])
    part = "train" if options["train"] else "test"
    batch, names = unpickled(root / part), unpickled(root / "meta")["fine_label_names"]
    pixels = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = [names[i] for i in batch["fine_labels"]]
    classes = names if options["classes"] == "all" else options["classes"]
    for label in classes:
        if label not in names:
            raise unknown("class of CIFAR-100", label, names)
    kept = [index for index, label in enumerate(labels) if label in classes]
    identifiers = [f"{part}/{index:05d}" for index in kept]
    return _of_pixels("cifar100", identifiers, [labels[index] for index in kept], pixels[kept])


CATALOGUES: dict[str, Callable[[Mapping[str, Any]], Catalogue]] = {
    "patches": of_patches,
    "cifar100": of_cifar100,
    "imagenette": of_imagenette,
    "imagefolder": of_imagefolder,
}


def _of_pixels(
    dataset_name: str, identifiers: Sequence[str], labels: Sequence[str], pixels: np.ndarray
) -> Catalogue:
    def open_pixels(chosen: Sequence[int]) -> tuple[list[str], Reader]:
        kept = np.ascontiguousarray(pixels[list(chosen)])
        return [hashlib.sha256(image).hexdigest() for image in kept], _Pixels(kept)

    return Catalogue(dataset_name, identifiers, labels, open_pixels)


def _of_files(
    dataset_name: str,
    root: Path,
    relative: Sequence[Path],
    identifiers: Sequence[str],
    labels: Sequence[str],
    border: int,
) -> Catalogue:
    def open_files(chosen: Sequence[int]) -> tuple[list[str], Reader]:
        paths = [root / relative[index] for index in chosen]
        with ThreadPoolExecutor() as pool:
            checked = pool.map(_sha256_of_image, paths)
            found = list(track(checked, f"checking {dataset_name}", total=len(paths)))
        broken = [each for each in found if isinstance(each, UserError)]
        if broken:
            raise _all_broken(broken, len(paths))
        sha256 = [str(each) for each in found]
        # Absolute, since other processes, which may read them too, have other working directories.
        absolute = tuple(path.absolute() for path in paths)
        return sha256, _Files(absolute, tuple(sha256), border)

    return Catalogue(dataset_name, identifiers, labels, open_files, border)


def _all_broken(broken: Sequence[UserError], of: int) -> UserError:
    """One line on all broken images, so that they can be mended at once."""
    if len(broken) == 1:
        return broken[0]
    named = sorted(str(error).removeprefix("broken image ") for error in broken)[:3]
    more = [f"and {len(broken) - 3} more"] if len(broken) > 3 else []
    return UserError(f"{len(broken)} of {of} images are broken: {'; '.join(named + more)}")


def _sha256_of_image(path: Path) -> str | UserError:
    """Hash of a file that is found to be a whole image, more cheaply than by decoding it fully.

    A broken one gives the error, so that the others are checked all the same.
    """
    try:
        data = path.read_bytes()
        image = Image.open(BytesIO(data))
        if image.format == "PNG":
            image.verify()  # the checksum of every chunk
        else:
            image.draft("RGB", (1, 1))  # JPEG: reads all of the data, computes an eighth
            image.load()
    except Exception as error:  # Pillow's decoders raise nearly anything on broken data
        return _broken(path, error)
    return hashlib.sha256(data).hexdigest()


def _listing(folder: Path, root: Path) -> list[Path]:
    """Images under a folder, relative to the root, sorted; no link may lead out of the root."""
    real = root.resolve()

    def walk(inside: str) -> Iterator[str]:
        for entry in os.scandir(inside):
            if entry.name.startswith("."):  # macOS leaves ._name.jpg beside name.jpg
                continue
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(real):
                raise UserError(f"{entry.path} is a link out of {root}: put the file itself there")
            if entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in SUFFIXES and not entry.is_dir():
                yield os.path.relpath(entry.path, root)

    try:
        return sorted((Path(path) for path in walk(str(folder))), key=Path.as_posix)
    except OSError as error:
        raise UserError(f"cannot list {error.filename}: {error.strerror}") from error
