"""Labelled similarity matrices: read, checked, written. Any field's matrix will do."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from realign_utils.errors import UserError
from realign_utils.store import write_text

SYMMETRY_TOLERANCE = 1e-6
"""Largest difference between the two halves, relative to the largest entry, that is averaged away."""


def read_matrix(path: str | os.PathLike[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """Read a square similarity matrix from CSV.

    A labelled file has a header row and a first column that hold the same names in the same order
    (the corner may hold anything). A file of numbers alone is read too; its rows are named by
    their number, ``"1"``, ``"2"`` and so on.

    Parameters
    ----------
    path : path
        The CSV file.

    Returns
    -------
    names : tuple of str, length n
    matrix : ndarray of shape (n, n), float64
        Exactly symmetric; the diagonal is as in the file.

    Raises
    ------
    UserError
        If the file is missing or empty, has a cell that is not a number or not finite, or is not
        square, not symmetric, or has labels that repeat or differ between rows and columns.

    Warns
    -----
    UserWarning
        If the diagonal is not 1: no mean over pairs uses it.
    """
    rows = _read_rows(Path(path))
    names, cells = _split_labels(rows, path)
    matrix = np.array(
        [
            [_number(cell, names[i], names[j] if j < len(names) else str(j + 1), path)
             for j, cell in enumerate(row)]
            for i, row in enumerate(cells)
        ]
    )  # fmt: skip
    matrix = check_matrix(matrix, names, where=str(path))
    if not np.allclose(np.diag(matrix), 1.0, rtol=0, atol=1e-3):
        worst = int(np.abs(np.diag(matrix) - 1).argmax())
        warnings.warn(
            f"{path}: the diagonal is not 1 ({names[worst]}: {matrix[worst, worst]:g}); "
            "it is ignored, only pairs of different models count",
            stacklevel=2,
        )
    return names, matrix


def write_matrix(path: str | os.PathLike[str], names: Sequence[str], matrix: np.ndarray) -> Path:
    """Write a labelled square matrix as CSV from which `read_matrix` gets the same float64 back.

    Parameters
    ----------
    path : path
        The file; its folder is made.
    names : sequence of str, length n
        Written as header and as first column, headed ``model``.
    matrix : array of shape (n, n)

    Returns
    -------
    pathlib.Path
        The file.
    """
    matrix = check_matrix(matrix, names)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", *names])
    for name, row in zip(names, matrix, strict=True):
        writer.writerow([name, *map(repr, row.tolist())])
    return write_text(path, text.getvalue())


def check_matrix(
    matrix: object, names: Sequence[str] | None = None, *, where: str = "similarity matrix"
) -> np.ndarray:
    """Give a similarity matrix as an exactly symmetric float64 array, or say what is wrong.

    Parameters
    ----------
    matrix : array-like or tensor of shape (n, n)
    names : sequence of str, optional
        One distinct name for each row; used in messages.
    where : str
        What the matrix is called in messages.

    Returns
    -------
    ndarray of shape (n, n), float64
        The mean of the matrix and its transpose; a new array.

    Raises
    ------
    UserError
        In one line, with the place and the size of what is wrong.
    """
    matrix = _as_float64(matrix, where)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        shape = " x ".join(map(str, matrix.shape))
        raise UserError(f"{where}: must be square, but is {shape}")
    if not matrix.size:
        raise UserError(f"{where}: is empty")
    names = _check_names(names, len(matrix), where)
    if not np.isfinite(matrix).all():
        i, j = np.argwhere(~np.isfinite(matrix))[0]
        count = int((~np.isfinite(matrix)).sum())
        raise UserError(
            f"{where}: {count} not finite, first {matrix[i, j]} at {names[i]}, {names[j]}"
        )
    difference = np.abs(matrix - matrix.T)
    if difference.max() > SYMMETRY_TOLERANCE * np.abs(matrix).max():
        i, j = np.unravel_index(difference.argmax(), difference.shape)
        raise UserError(
            f"{where}: not symmetric: {names[i]}, {names[j]} is {matrix[i, j]:g} "
            f"but {names[j]}, {names[i]} is {matrix[j, i]:g} (they differ by {difference[i, j]:.3g})"
        )
    return matrix / 2 + matrix.T / 2


def _as_float64(matrix: object, where: str) -> np.ndarray:
    try:
        detached = matrix.detach().cpu() if hasattr(matrix, "detach") else matrix
        return np.asarray(detached, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: must be an array of numbers ({error})") from error


def _check_names(names: Sequence[str] | None, n: int, where: str) -> Sequence[str]:
    if names is None:
        return [str(row) for row in range(1, n + 1)]
    if len(names) != n:
        raise UserError(f"{where}: {len(names)} names for {n} rows")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(f"{where}: label {repeated[0]!r} is repeated")
    return names


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path} as CSV: {error}") from error
    if not rows:
        raise UserError(f"{path}: is empty")
    return rows


def _split_labels(
    rows: list[list[str]], path: str | os.PathLike[str]
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Names and cells. Unlabelled means: the header and the first column are numbers as well."""
    first = [cell.strip() for cell in rows[0]]
    if all(map(_is_number, first)):
        names, cells = [str(row) for row in range(1, len(rows) + 1)], rows
    else:
        names, cells = first[1:], [row[1:] for row in rows[1:]]
        _match_labels(names, [row[0].strip() for row in rows[1:]], path)
    for name, row in zip(names, cells, strict=True):
        if len(row) != len(names):
            raise UserError(
                f"{path}: row {name} has {len(row)} values, but there are {len(names)} names"
            )
    return tuple(names), cells


def _match_labels(header: list[str], column: list[str], path: str | os.PathLike[str]) -> None:
    if not header or not column:
        raise UserError(f"{path}: has a header but no values separated by commas")
    if len(header) != len(column):
        raise UserError(
            f"{path}: must be square, but has {len(column)} rows and {len(header)} columns"
        )
    for place, (of_column, of_row) in enumerate(zip(header, column, strict=True), 1):
        if of_column != of_row:
            raise UserError(
                f"{path}: labels do not match: column {place} is {of_column!r}, row {place} is {of_row!r}"
            )


def _number(cell: str, row: str, column: str, path: str | os.PathLike[str]) -> float:
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError as error:
        raise UserError(f"{path}: {cell!r} at {row}, {column} is not a number") from error


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
