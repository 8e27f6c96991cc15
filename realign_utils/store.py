"""Files that are either whole or absent, and names made of what a file's content depends on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from realign_utils.errors import UserError


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Write a file so that its name never stands for a partial content.

    ``write`` gets a unique temporary name in the same folder; the file is then synced, renamed,
    and its folder synced. No lock is taken: two writers of one name both succeed, and the name
    holds the whole content of one of them, on network file systems too.

    Parameters
    ----------
    path : path
        The final name; missing folders are made.
    write : callable
        Gets the temporary path and writes the content there.

    Returns
    -------
    pathlib.Path
        The final name.

    Raises
    ------
    UserError
        If the folder cannot be written or the disk is full; what stood under the name stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        publish(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None
    return path


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its final name, in one step and lastingly: sync, rename, sync."""
    _sync(temporary)
    os.replace(temporary, path)
    _sync(path.parent)


def sweep(folder: str | os.PathLike[str], *, older_than: float = 86_400.0) -> list[Path]:
    """Delete the temporary files that killed runs left.

    Nothing else tells a dead run's file from a living one's than its age; a living one is written
    to at least once a day.

    Parameters
    ----------
    folder : path
        Searched at any depth; it need not exist.
    older_than : float
        Seconds since the last write.

    Returns
    -------
    list of pathlib.Path
        What was deleted.
    """
    deleted = []
    for path in Path(folder).rglob(".*.tmp*"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > older_than:
                path.unlink()
                deleted.append(path)
        except OSError:  # another run was quicker, or it is not ours to delete
            continue
    return deleted


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write UTF-8 text by `write_atomically`."""
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write indented JSON by `write_atomically`; keys keep their order.

    JSON knows neither NaN nor infinity; both become null.
    """
    text = json.dumps(_nullified(value), indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def _nullified(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _nullified(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_nullified(part) for part in value]
    return value


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def key_of(ingredients: Mapping[str, Any]) -> str:
    """Name for a content: the SHA-256 of all that it was made of.

    Parameters
    ----------
    ingredients : mapping
        JSON-serialisable; the order of keys does not matter.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    ValueError
        If an ingredient is None: with a part unknown, nothing may be cached.
    """
    missing = [name for name, value in ingredients.items() if value is None]
    if missing:
        raise ValueError(f"no key without the ingredient(s) {', '.join(missing)}")
    canonical = json.dumps(ingredients, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
