"""Safetensors files of one tensor: written a few rows at a time, verified whole when opened."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from realign_utils.store import key_of, write_atomically

DTYPES = {"F32": np.dtype("<f4"), "U8": np.dtype("u1")}
"""Element types of the files that are written here, by their names in the format."""

_UNKNOWN = "0" * 64
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class TensorFile:
    """A file that was found whole.

    Parameters
    ----------
    path : pathlib.Path
        Where it lies.
    note : mapping
        What was noted beside the tensor.
    shape : tuple of int
        Rows first.
    dtype : numpy.dtype
        Of the elements.
    offset : int
        Bytes before the first element.
    """

    path: Path
    note: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int

    def rows(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows of the tensor, mapped: read when they are used; what is written stays in memory."""
        stop = self.shape[0] if stop is None else stop
        first = self.offset + start * self.dtype.itemsize * math.prod(self.shape[1:])
        shape = (stop - start, *self.shape[1:])
        return np.memmap(self.path, self.dtype, "c", offset=first, shape=shape)


def write_rows(
    path: Path, name: str, number: int, parts: Iterable[np.ndarray], note: Mapping[str, Any]
) -> tuple[int, ...]:
    """Write a tensor as its rows come, by `realign_utils.store.write_atomically`.

    Memory holds one part at a time. The checksum covers the note, the shape and every element.

    Parameters
    ----------
    path : path
        The file's final name.
    name : str
        Of the tensor.
    number : int
        Of rows in all parts together.
    parts : iterable of numpy.ndarray
        At least one; each of shape (rows, ...), float32 or uint8, alike but for the rows.
    note : mapping
        Kept beside the tensor; JSON-serialisable. Its ``ingredients`` are all that the tensor was
        made of, whose key is the file's name.

    Returns
    -------
    tuple of int
        Shape of the tensor.

    Raises
    ------
    ValueError
        If the rows are not as many as promised; no file is left.
    UserError
        If the file cannot be written. What `parts` raises is passed on, unless it is an OSError.
    """
    written: list[tuple[int, ...]] = []
    write_atomically(
        path, lambda temporary: written.append(_write(temporary, name, number, parts, note))
    )
    return written[0]


def _write(
    path: Path, name: str, number: int, parts: Iterable[np.ndarray], note: Mapping[str, Any]
) -> tuple[int, ...]:
    shape, done, digest = None, 0, hashlib.sha256()
    with open(path, "wb") as file:
        for part in parts:
            if shape is None:
                shape, kind = (number, *part.shape[1:]), _kind(part.dtype)
                file.write(_header(name, kind, shape, note, _UNKNOWN))
                digest.update(_promise(name, kind, shape, note))
            elements = np.ascontiguousarray(part).reshape(-1)
            digest.update(elements)
            file.write(elements)
            done += len(part)
        if shape is None or done != number:
            raise ValueError(f"{done} rows came, {number} were promised")
        file.seek(0)
        file.write(_header(name, kind, shape, note, digest.hexdigest()))
    return shape


def open_rows(path: Path, name: str) -> TensorFile | None:
    """Open a file of `write_rows` if it is, to the last bit, as it was written under this name.

    Parameters
    ----------
    path : path
        The file.
    name : str
        Of the tensor.

    Returns
    -------
    TensorFile or None
        None if there is no such file or it is damaged.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _LONGEST_HEADER:
                return None
            text = json.loads(file.read(length))
            note = json.loads(text["__metadata__"]["realign"])
            del note["sha256"]
            kind, shape = text[name]["dtype"], tuple(text[name]["shape"])
            digest = hashlib.sha256(_promise(name, kind, shape, note))
            file.seek(8 + length)
            while part := file.read(1 << 22):
                digest.update(part)
            header = _header(name, kind, shape, note, digest.hexdigest())
            size = DTYPES[kind].itemsize * math.prod(shape)
            file.seek(0)
            whole = file.read(8 + length) == header and path.stat().st_size == len(header) + size
            if not whole or key_of(note["ingredients"]) != path.stem:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return TensorFile(path, note, shape, DTYPES[kind], len(header))


def _kind(dtype: np.dtype) -> str:
    return next(kind for kind, known in DTYPES.items() if known == dtype)


def _promise(name: str, kind: str, shape: tuple[int, ...], note: Mapping[str, Any]) -> bytes:
    """What the checksum covers before the elements."""
    return json.dumps([name, kind, shape, note], sort_keys=True).encode()


def _header(
    name: str, kind: str, shape: tuple[int, ...], note: Mapping[str, Any], sha256: str
) -> bytes:
    # One entry of metadata only: the format's own library orders several at random.
    metadata = {"realign": json.dumps({**note, "sha256": sha256}, sort_keys=True)}
    size = DTYPES[kind].itemsize * math.prod(shape)
    tensor = {"dtype": kind, "shape": shape, "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": metadata, name: tensor}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
