"""Do the files that the notebooks left belong together?

A notebook that is run alone replaces its own files and no later ones. All files hold the scores of
the submissions, and a score can be computed anew from the matrix and the set: where it comes out
otherwise, the file is of other sets or other matrices than those that are there now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import pair_values
from realign_utils.errors import UserError
from realign_utils.matrices import read_matrix
from realign_utils.results import read_table

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
            f"submissions.csv holds {', '.join(map(str, table.index))}, but the submissions are "
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
    table = read_table(Path(runs) / "calibration.csv", "4_calibrate", index="submission")
    ratio = table["real"] / table[reference_proxy] if reference_proxy in table else np.nan
    if not np.allclose(table["ratio"], ratio, atol=ROUNDING, equal_nan=True):
        raise UserError(
            f"calibration.csv: the ratio is not real / {reference_proxy}, the reference proxy: "
            "run 4_calibrate again with this reference_proxy"
        )


def require_in_step(
    runs: str | Path,
    estimator: str,
    *,
    last: str = "4_calibrate",
    figures: str | Path | None = None,
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

    Raises
    ------
    UserError
        One line: the file, the submission, both scores, and the notebook to run again.
    """
    now = _Now(Path(runs), estimator)
    for score in _scores(now, last, figures):
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

    def has(self, images: str) -> bool:
        return self._path(images).is_file()

    def _path(self, images: str) -> Path:
        return self.runs / "cka" / f"{images}_{self.estimator}.csv"

    def mean(self, submission: str, images: str) -> float:
        names, similarity = self.matrix(images)
        values = pair_values(similarity, [names.index(m) for m in self.members(submission)])
        return float(values.mean()) if len(values) else float("nan")

    def images_of(self, table: pd.DataFrame) -> list[str]:
        """The columns that are sets of images."""
        return [name for name in table.columns if self.has(name)]


def _scores(now: _Now, last: str, figures: str | Path | None) -> Iterator[_Score]:
    """All that files have, in the order of the notebooks, so that the first to run again is named."""
    yield from _of_columns(now, now.submissions, "3_select", "submissions.csv")
    if last == "3_select":
        return
    notebook, known = "4_calibrate", set(now.submissions.index)
    table = read_table(now.runs / "calibration.csv", notebook, index="submission")
    if set(table.index) != known:
        raise UserError(
            f"calibration.csv holds {', '.join(map(str, table.index))}, but 3_select chose "
            f"{', '.join(map(str, now.submissions.index))}: run {notebook} again"
        )
    yield from _of_columns(now, table, notebook, "calibration.csv")
    for file, images, value in (
        ("submission_intervals.csv", "images", "mean"),
        ("predictions.csv", "proxy", "score"),  # among the last that 4_calibrate writes
    ):
        table = read_table(now.runs / file, notebook)
        if "estimator" in table:
            table = table[table["estimator"] == now.estimator]
        for row in table.to_dict("records"):
            yield _Score(notebook, file, row["submission"], row[images], row[value])
    if figures is not None:
        yield from _of_figure(now, Path(figures) / "overview.json")


def _of_columns(now: _Now, table: pd.DataFrame, notebook: str, file: str) -> Iterator[_Score]:
    for images in now.images_of(table):
        for name, value in table[images].items():
            yield _Score(notebook, file, str(name), images, value)


def _of_figure(now: _Now, path: Path) -> Iterator[_Score]:
    """The figure of all submissions on all images: what it answers to a pointer."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run 5_figures first")
    for panel in json.loads(path.read_text(encoding="utf-8")):
        submission, _, images = panel["title"].partition(" on ")
        if submission not in now.submissions.index or not now.has(images):
            raise UserError(
                f"{path.name} shows {panel['title']}, which is no more: run 5_figures again"
            )
        values = np.array(panel["values"], dtype=np.float64)
        value = float(pair_values(values, range(len(values))).mean())
        yield _Score("5_figures", path.name, submission, images, value, PRINTED)
