"""A comparison of all pairs of models as files: labelled CSVs, and the resampled values."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import safetensors.numpy
import torch

from realign_utils.chance import Chance
from realign_utils.comparison import Comparison
from realign_utils.errors import UserError
from realign_utils.matrices import read_matrix, write_matrix
from realign_utils.store import write_atomically, write_text
from realign_utils.uncertainty import Resamples

RESAMPLES = "_resamples.safetensors"


def write_comparison(folder: str | os.PathLike[str], images: str, comparison: Comparison) -> None:
    """Write a comparison as `<images>_<estimator>` and an ending that says what.

    Parameters
    ----------
    folder : path
    images : str
        Name of the set of images.
    comparison : Comparison
        Labelled square CSVs: ``.csv`` the similarity; ``_standard_error``, ``_lower`` and
        ``_upper`` of its 95 % interval; ``_chance`` and ``_chance_deviation``, mean and standard
        deviation of what unrelated models have. ``_resamples.safetensors``: the upper triangles
        on subsets of the images, without each image or group, and on halves, (subsets, pairs) in
        float32, of which `read_comparison` makes the interval of any other number.
    """
    stem, names = Path(folder) / f"{images}_{comparison.estimator}", comparison.names
    write_matrix(f"{stem}.csv", names, comparison.similarity)
    tables = {
        "standard_error": comparison.resamples.standard_error,
        "lower": comparison.resamples.low,
        "upper": comparison.resamples.high,
        "chance": comparison.chance.mean,
        "chance_deviation": comparison.chance.standard_deviation,
    }
    for ending, values in tables.items():
        frame = pd.DataFrame(values.numpy(), names, names)
        write_text(f"{stem}_{ending}.csv", frame.to_csv(index_label="model"))
    _write_resamples(Path(f"{stem}{RESAMPLES}"), comparison)


def _write_resamples(path: Path, comparison: Comparison) -> None:
    """One tensor and one note: safetensors writes several in an order that changes from run to run."""
    main, curve, left_out = comparison.resamples, comparison.curve, comparison.jackknife
    pairs = np.triu_indices(len(comparison.names), 1)
    blocks = [main.matrices, *curve.values()]
    blocks += [level[None] for level in comparison.curve_chance.values()]
    blocks += [left_out.matrices] if left_out else []
    blocks += [] if comparison.halves is None else [comparison.halves.flatten(0, 1)]
    # C order: safetensors writes the bytes as they lie, and indexing leaves them transposed
    rows = torch.cat(blocks).numpy()[:, *pairs].astype(np.float32, order="C")
    note = {
        "models": comparison.names,
        "images": main.n,
        "level": main.level,
        "groups": main.groups,
        "resamples": [main.size, len(main.matrices)],
        "curve": [[size, len(matrices)] for size, matrices in curve.items()],
        "jackknife": [left_out.size, len(left_out.matrices)] if left_out else None,
        "halves": 0 if comparison.halves is None else len(comparison.halves),
        "drawn": main.drawn,
    }
    data = safetensors.numpy.save({"values": rows}, {"realign": json.dumps(note)})
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def read_comparison(folder: str | os.PathLike[str], images: str, estimator: str) -> Comparison:
    """Read what `write_comparison` wrote.

    Raises
    ------
    UserError
        If a file is missing or damaged, or belongs to other models than the matrix.
    """
    stem = Path(folder) / f"{images}_{estimator}"
    path = Path(f"{stem}{RESAMPLES}")
    names, similarity = read_matrix(f"{stem}.csv")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            note, rows = json.loads(file.metadata()["realign"]), file.get_tensor("values")
        of_models, (size, draws), curve = note["models"], note["resamples"], note["curve"]
        groups = tuple(note["groups"]) if note.get("groups") else None
        sizes, left_out = [size for size, _ in curve], note["jackknife"] or [0, 0]
        lengths = [draws, *(length for _, length in curve), *(1 for _ in curve), left_out[1]]
        lengths.append(2 * note["halves"])
        main, *parts, without, halves = _square(rows, len(of_models)).split(lengths)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError):
        wrong = "is damaged" if path.exists() else "is missing"
        raise UserError(f"{path} {wrong}: run 2_cka again") from None
    if tuple(of_models) != names:
        raise UserError(f"{path} is of other models than {stem}.csv: run 2_cka again")
    of_all = {"n": note["images"], "level": note["level"]}
    estimate = torch.from_numpy(similarity)
    each_group = (left_out[1] - 1, left_out[1]) if groups else None
    return Comparison(
        names=names,
        estimator=estimator,
        resamples=Resamples(estimate, main, size, groups=groups, drawn=note["drawn"], **of_all),
        chance=Chance(_read(f"{stem}_chance.csv"), _read(f"{stem}_chance_deviation.csv")),
        curve=dict(zip(sizes, parts[: len(sizes)], strict=True)),
        curve_chance={n: part[0] for n, part in zip(sizes, parts[len(sizes) :], strict=True)},
        jackknife=Resamples(estimate, without, left_out[0], groups=each_group, **of_all)
        if len(without)
        else None,
        halves=halves.unflatten(0, (-1, 2)) if len(halves) else None,
    )


def _square(rows: np.ndarray, m: int) -> torch.Tensor:
    """Upper triangles, (draws, pairs), as symmetric matrices of diagonal 1, (draws, m, m)."""
    upper = np.triu_indices(m, 1)
    matrices = np.tile(np.eye(m), (len(rows), 1, 1))
    matrices[:, *upper] = rows
    matrices[:, upper[1], upper[0]] = rows
    return torch.from_numpy(matrices)


def _read(path: str) -> torch.Tensor:
    if not Path(path).is_file():
        raise UserError(f"{path} is missing: run 2_cka again")
    frame = pd.read_csv(path, index_col=0)
    return torch.from_numpy(frame.to_numpy(dtype=np.float64))
