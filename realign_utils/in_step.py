"""Do the files that the notebooks left belong together?

A notebook that is run alone replaces its own files and no later ones. All files hold the scores of
the submissions, and a score can be computed anew from the matrix and the set: where it comes out
otherwise, the file is of other sets or other matrices than those that are there now.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import pair_values
from realign_utils.errors import UserError
from realign_utils.matrices import read_matrix
from realign_utils.results import COLUMNS, read_table

ROUNDING = 1e-6
"""Another device may compute a matrix so much otherwise."""

PRINTED = 1e-3
"""The figures' own files hold three digits."""


def require_choice(runs: str | Path, k: int, submissions: Mapping[str, Mapping[str, Any]]) -> None:
    """Stop where `3_select` was run with another k, other pools or other submissions.

    Parameters
    ----------
    runs : path
        The folder of a profile's results.
    k : int
    submissions : mapping
        The parameters.

    Raises
    ------
    UserError
        One line that names the submission, what was chosen, and what the parameter says.
    """
    table = read_table(Path(runs) / "submissions.csv", "3_select", index="submission")
    if set(table.index) != set(submissions):
        raise UserError(
            f"submissions.csv holds {', '.join(table.index)}, but the submissions are "
            f"{', '.join(submissions)}: run 3_select again with these"
        )
    for name, submission in submissions.items():
        row, pool = table.loc[name], submission.get("pool") or "fixed list"
        if row["pool"] != pool:
            raise UserError(
                f"submissions.csv: {name} was chosen from {row['pool']}, but its pool is {pool}: "
                "run 3_select again with this pool"
            )
        if submission.get("pool") and row["models"] != k:
            raise UserError(
                f"submissions.csv: {name} was chosen with {row['models']} models, but k is {k}: "
                "run 3_select again with this k"
            )


def require_reference(runs: str | Path, reference_proxy: str) -> None:
    """Stop where `4_calibrate` was run with another reference proxy.

    Raises
    ------
    UserError
        One line that names both.
    """
    table = read_table(Path(runs) / "calibration.csv", "4_calibrate")
    there = set(table["reference_proxy"]) if "reference_proxy" in table else {"not recorded"}
    if there != {reference_proxy}:
        raise UserError(
            f"calibration.csv: the reference proxy is {', '.join(sorted(there))}, not "
            f"{reference_proxy}: run 4_calibrate again with this reference_proxy"
        )


def require_in_step(
    runs: str | Path,
    estimator: str,
    *,
    last: str = "4_calibrate",
    figures: str | Path | None = None,
    proxies: Collection[str] | None = None,
) -> None:
    """Stop where a file is of other sets or matrices than those that are there now.

    Parameters
    ----------
    runs : path
        The folder of a profile's results.
    estimator : {"biased", "debiased"}
        Of the scores.
    last : {"3_select", "4_calibrate"}
        The last notebook whose files are compared.
    figures : path, optional
        The folder of the figures, to compare them too.
    proxies : collection of str, optional
        The parameter, to be compared with the sets of images that there are scores on.

    Raises
    ------
    UserError
        One line: the file, the submission, both scores or what is missing, and the notebook to run
        again.
    """
    now = _Now(Path(runs), estimator)
    for score in _scores(now, last, figures, proxies):
        models, matrix = now.members(score.submission), f"cka/{score.images}_{estimator}.csv"
        lacking = [model for model in models if model not in now.matrix(score.images)[0]]
        if lacking:
            raise UserError(
                f"{score.submission} holds {lacking[0]}, which {matrix} has not: run 3_select again"
            )
        value = now.mean(score.submission, score.images)
        if not np.isclose(score.value, value, rtol=0, atol=score.digits, equal_nan=True):
            raise UserError(
                f"{score.file} is not of the sets and matrices that are there now "
                f"({score.submission} on {score.images}: {score.value:.6g}, but its {len(models)} "
                f"models have {value:.6g} in {matrix}): run {score.notebook} again"
            )


@dataclass(frozen=True)
class _Score:
    """The mean of a submission on a set of images, as a file has it."""

    notebook: str
    file: str
    submission: str
    images: str
    value: float
    digits: float = ROUNDING


class _Now:
    """The sets and matrices that are there now, each read once."""

    def __init__(self, runs: Path, estimator: str) -> None:
        self.runs, self.estimator = runs, estimator
        self._matrices: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        self._members: dict[str, list[str]] = {}

    @cached_property
    def submissions(self) -> pd.DataFrame:
        return read_table(self.runs / "submissions.csv", "3_select", index="submission")

    def members(self, submission: str) -> list[str]:
        if submission not in self._members:
            table = read_table(self.runs / "submissions" / f"{submission}.csv", "3_select")
            self._members[submission] = table["model"].tolist()
        return self._members[submission]

    def matrix(self, images: str) -> tuple[tuple[str, ...], np.ndarray]:
        if images not in self._matrices:
            self._matrices[images] = read_matrix(self._path(images))
        return self._matrices[images]

    def require_matrix(self, images: str, file: str, notebook: str) -> None:
        if not self._path(images).is_file():
            raise UserError(
                f"{file} has scores on {images}, but cka/{self._path(images).name} is missing: run "
                f"2_cka again, or {notebook} where {images} is no more among the images"
            )

    def _path(self, images: str) -> Path:
        return self.runs / "cka" / f"{images}_{self.estimator}.csv"

    def mean(self, submission: str, images: str) -> float:
        names, similarity = self.matrix(images)
        values = pair_values(similarity, [names.index(m) for m in self.members(submission)])
        return float(values.mean()) if len(values) else float("nan")


def _images_of(table: pd.DataFrame) -> list[str]:
    """The columns that are sets of images."""
    return [name for name in table.columns if name not in COLUMNS]


def _scores(
    now: _Now, last: str, figures: str | Path | None, proxies: Collection[str] | None
) -> Iterator[_Score]:
    """All that files have, in the order of the notebooks, so that the first to run again is named."""
    notebook, file, known = "3_select", "submissions.csv", list(now.submissions.index)
    there = _images_of(now.submissions)
    if proxies is not None and set(there) != set(proxies):
        raise UserError(
            f"{file} has scores on {', '.join(there)}, but the proxies are {', '.join(proxies)}: "
            f"run {notebook} again with these"
        )
    yield from _of_columns(now, now.submissions, notebook, file)
    if last == "3_select":
        return
    notebook, file = "4_calibrate", "calibration.csv"
    table = read_table(now.runs / file, notebook, index="submission")
    if set(table.index) != set(known):
        raise UserError(
            f"{file} holds {', '.join(table.index)}, but 3_select chose {', '.join(known)}: "
            f"run {notebook} again"
        )
    images = _images_of(table)
    if set(images) - {"evaluation"} != set(there):
        raise UserError(
            f"{file} has scores on {', '.join(images)}, but submissions.csv on {', '.join(there)}: "
            f"run {notebook} again"
        )
    yield from _of_columns(now, table, notebook, file)
    yield from _of_rows(now, "submission_intervals.csv", "images", "mean", images)
    judged = there if len(images) > 1 else []  # a proxy alone has nothing to predict
    yield from _of_rows(now, "predictions.csv", "proxy", "score", judged)  # among the last written
    if figures is not None:
        yield from _of_figure(now, Path(figures) / "overview.json", images)


def _of_columns(now: _Now, table: pd.DataFrame, notebook: str, file: str) -> Iterator[_Score]:
    for images in _images_of(table):
        now.require_matrix(images, file, notebook)
        for name, value in table[images].items():
            yield _Score(notebook, file, str(name), images, value)


def _of_rows(
    now: _Now, file: str, column: str, value: str, images: Collection[str]
) -> Iterator[_Score]:
    table = read_table(now.runs / file, "4_calibrate")
    if "estimator" in table:
        table = table[table["estimator"] == now.estimator]
    rows = table.to_dict("records")
    scores = [
        _Score("4_calibrate", file, row["submission"], row[column], row[value]) for row in rows
    ]
    return _complete(now, scores, "4_calibrate", file, images)


def _of_figure(now: _Now, path: Path, images: Collection[str]) -> Iterator[_Score]:
    """The figure of all submissions on all images: what it answers to a pointer."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run 5_figures first")
    scores = []
    for panel in json.loads(path.read_text(encoding="utf-8")):
        submission, _, shown = panel["title"].partition(" on ")
        values = np.array(panel["values"], dtype=np.float64)
        value = float(pair_values(values, range(len(values))).mean())
        scores.append(_Score("5_figures", path.name, submission, shown, value, PRINTED))
    return _complete(now, scores, "5_figures", path.name, images)


def _complete(
    now: _Now, scores: list[_Score], notebook: str, file: str, images: Collection[str]
) -> Iterator[_Score]:
    """The scores, where they are those of all submissions on all these images and of no other."""
    found = {(score.submission, score.images): None for score in scores}  # in their order
    wanted = dict.fromkeys(product(now.submissions.index, images))
    for submission, name in [pair for pair in found if pair not in wanted]:
        raise UserError(
            f"{file} has {submission} on {name}, which is no more: run {notebook} again"
        )
    for submission, name in [pair for pair in wanted if pair not in found]:
        raise UserError(f"{file} has nothing of {submission} on {name}: run {notebook} again")
    yield from scores
