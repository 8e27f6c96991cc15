"""Certificates as files: one safetensors file, arrays for the multipliers and JSON for the rest."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from operator import index
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from realign_utils.bounds import Dual
from realign_utils.branch_and_bound import Leaf
from realign_utils.certificate import Certificate
from realign_utils.errors import UserError
from realign_utils.limits import Limit
from realign_utils.store import write_atomically

FORMAT = "realign certificate 1"
_DAMAGES = (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError)
_DAMAGES += (OverflowError, RecursionError)  # numbers, or nesting, beyond all bounds


def save_certificate(path: str | os.PathLike[str], certificate: Certificate) -> Path:
    """Write a certificate, whole or not at all.

    Parameters
    ----------
    path : path
    certificate : Certificate

    Returns
    -------
    pathlib.Path
        The file.
    """
    record = {"format": FORMAT} | asdict(replace(certificate, duals=()))
    arrays = {}
    for number, dual in enumerate(certificate.duals):
        arrays |= {f"{name}.{number}": np.asarray(value) for name, value in vars(dual).items()}
    metadata = {"certificate": json.dumps(record)}
    return write_atomically(path, lambda temporary: save_file(arrays, temporary, metadata))


def load_certificate(path: str | os.PathLike[str]) -> Certificate:
    """Read what `save_certificate` wrote.

    Reading proves nothing: give the result to `certificate.check_certificate`.

    Parameters
    ----------
    path : path

    Returns
    -------
    Certificate

    Raises
    ------
    UserError
        If the file is missing, damaged or no certificate.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            record = json.loads(file.metadata()["certificate"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if record.pop("format") != FORMAT:
            raise ValueError("another format")
        return _certificate(record, arrays)
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except _DAMAGES as error:
        raise UserError(f"{path}: not a certificate, or damaged ({error})") from error


def _certificate(record: dict, arrays: dict[str, np.ndarray]) -> Certificate:
    duals = []
    while f"y.{len(duals)}" in arrays:
        parts = (
            np.asarray(arrays[f"{name}.{len(duals)}"], dtype=np.float64)
            for name in ("y", "nonnegative", "prices")
        )
        duals.append(Dual(*parts, float(arrays[f"top.{len(duals)}"])))
    leaves = [
        Leaf(_rows(leaf["path"]), leaf["dual"] and index(leaf["dual"]), index(leaf["depth"]))
        for leaf in record["leaves"]
    ]
    limits = [
        Limit(
            str(limit["name"]),
            tuple(map(float, limit["weights"])),
            float(limit["at_least"]),
            float(limit["at_most"]),
        )
        for limit in record["limits"]
    ]
    return Certificate(
        **{name: float(record[name]) for name in ("score", "upper_bound", "tolerance")},
        **{name: _rows(record[name]) for name in ("indices", "best", "candidates")},
        limits=tuple(limits),
        nodes=index(record["nodes"]),
        leaves=tuple(leaves),
        duals=tuple(duals),
        floor=float(record.get("floor", "-inf")),
    )


def _rows(values: list[int]) -> tuple[int, ...]:
    return tuple(map(index, values))
