"""The published archives of two data sets: downloaded, verified, unpacked, read."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import tarfile
import uuid
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from realign_utils.downloads import Tell, download
from realign_utils.errors import UserError
from realign_utils.store import write_atomically

IMAGENETTE = "https://s3.amazonaws.com/fast-ai-imageclas/"
ARCHIVES = {
    "cifar100": (
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
        "cifar-100-python",
    ),
    "full": (IMAGENETTE + "imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612", "imagenette2"),
    "320px": (
        IMAGENETTE + "imagenette2-320.tgz",
        "3df6f0d01a2c9592104656642f5e78a3",
        "imagenette2-320",
    ),
    "160px": (
        IMAGENETTE + "imagenette2-160.tgz",
        "e793b78cc4c9e9a4ccc0c1155377a412",
        "imagenette2-160",
    ),
}
"""Address, MD5, and the folder inside; the same as torchvision's."""

MEGABYTES = {"cifar100": 169, "full": 1557, "320px": 342, "160px": 99}
"""About how large they are, to be said where their host was not asked."""

CIFAR100_MD5 = {
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}


def is_here(archive: str, root: Path) -> bool:
    """Whether an archive, packed or unpacked, lies in a folder."""
    url, _, inside = ARCHIVES[archive]
    return (root / inside).is_dir() or (root / url.rpartition("/")[2]).is_file()


def unpacked(archive: str, root: Path, allowed: bool, tell: Tell | None = None) -> Path:
    """The folder of an unpacked archive; unpacks it, and downloads it where that is allowed.

    `tell` is told the bytes of a download as they come; by default a bar is shown.
    """
    url, md5, inside = ARCHIVES[archive]
    folder, packed = root / inside, root / url.rpartition("/")[2]
    if folder.is_dir():
        return folder
    if not packed.is_file():
        if not allowed:
            raise UserError(
                f"neither {folder} nor {packed} is there: set download: true, or fetch {url}"
            )
        write_atomically(packed, lambda temporary: _download(url, md5, temporary, tell))
    elif (found := _md5(packed)) != md5:
        raise UserError(f"{packed} is damaged (MD5 {found}, should be {md5}): delete it")
    temporary = root / f".{uuid.uuid4().hex}.tmp"
    try:
        with tarfile.open(packed) as tar:
            tar.extractall(temporary, filter="data")
        if not folder.is_dir():  # another run may have unpacked it meanwhile
            os.rename(temporary / inside, folder)
    except (OSError, tarfile.TarError, EOFError) as error:
        if not folder.is_dir():
            raise UserError(f"cannot unpack {packed}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _download(url: str, md5: str, path: Path, tell: Tell | None) -> None:
    download(url, path, tell)
    if (found := _md5(path)) != md5:
        raise UserError(f"the download of {url} is damaged (MD5 {found}, should be {md5})")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that can make NumPy arrays out of plain values, and calls nothing else."""

    # an array's own way of being rebuilt, under the name that it had when the files were made
    _allowed = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return self._allowed[module, name]


def unpickled(path: Path) -> dict[str, Any]:
    """One of the files of CIFAR-100, which its authors published as Python 2 pickles.

    The one exception to reading no pickle: there is no other form of it in torchvision's layout.
    The bytes must be the published ones, by their MD5, before they are read at all; and since MD5
    does not withstand an attacker, the reader calls nothing but what rebuilds an array.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: delete {path.parent} and run again") from error
    if hashlib.md5(data, usedforsecurity=False).hexdigest() != CIFAR100_MD5[path.name]:
        raise UserError(f"{path} is not CIFAR-100's (MD5): delete {path.parent} and run again")
    try:
        return _ArraysOnly(BytesIO(data), encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: {error}") from error
