"""What a run left, read back for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from realign_utils.errors import UserError

COLUMNS = frozenset(
    (
        *("submission", "title", "pool", "candidates", "models", "mechanisms", "maximised"),
        *("objective", "upper_bound", "proved_optimal", "agreeing_restarts", "missing"),
        *("certificate", "real", "ratio", "portal_set", "reference_proxy"),
    )
)
"""Of `submissions.csv` and `calibration.csv`: every other column of theirs is a set of images."""

NAMES = (
    *("submission", "title", "pool", "model", "family", "first", "second"),
    *("images", "proxy", "reference_proxy", "chosen_on", "judged_on"),
)
"""Columns of names, which stay text where they look like a number or like nothing (``None``)."""

COUNTS = {"proxy_quality.csv": {"images"}}
"""Columns of that name which are none: the number of images."""


@dataclass(frozen=True)
class Results:
    """The tables of a run.

    Attributes
    ----------
    submissions : pandas.DataFrame
        By submission: how it was found, objective, upper bound, mean on each proxy (`3_select`).
    calibration : pandas.DataFrame
        By submission: title, mean on each set of images, real, ratio, reference_proxy
        (`4_calibrate`).
    agreement : pandas.Series
        By proxy: share of pairs of submissions in the evaluation's order (`4_calibrate`).
    families : pandas.DataFrame
        Columns family, images, mean, models, pairs, low, high, images_low, images_high
        (`4_calibrate`).
    intervals, differences, curves : pandas.DataFrame
        By set of images and estimator: each submission's mean, each two submissions' difference,
        with 95 % intervals, and the means against the number of images (`4_calibrate`).
    measures : pandas.DataFrame
        Columns images, measure, submission, mean: by other measures than CKA (`4_calibrate`).
    trajectories : pandas.DataFrame
        Columns submission, size, mean_similarity, stage (`3_select`).
    tables : mapping of str to pandas.DataFrame
        By submission: the table of Appendix A (`3_select`).
    features : pandas.DataFrame
        A row for each feature file (`1_extract`).
    failures : pandas.DataFrame
        A row for each failure (`1_extract`).
    dropped : pandas.DataFrame
        Models of the zoo that were not good enough, with the reason (`0_zoo`); else empty.
    device : str
        What computed the features (`1_extract`).
    record : dict
        Of the run: commit, versions, durations (the pipeline); empty without it.
    """

    submissions: pd.DataFrame
    calibration: pd.DataFrame
    agreement: pd.Series
    families: pd.DataFrame
    intervals: pd.DataFrame
    differences: pd.DataFrame
    curves: pd.DataFrame
    measures: pd.DataFrame
    trajectories: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    features: pd.DataFrame
    failures: pd.DataFrame
    dropped: pd.DataFrame
    device: str
    record: dict[str, Any]


def read_results(runs: str | Path) -> Results:
    """Read the tables that the notebooks left in a run's folder.

    Parameters
    ----------
    runs : path
        The folder of a profile's results.

    Returns
    -------
    Results

    Raises
    ------
    UserError
        If a file is missing: one line that names the notebook that writes it.
    """
    runs = Path(runs)
    submissions = read_table(runs / "submissions.csv", "3_select", index="submission")
    return Results(
        submissions=submissions,
        calibration=read_table(runs / "calibration.csv", "4_calibrate", index="submission"),
        agreement=read_table(runs / "rank_agreement.csv", "4_calibrate", index="proxy").iloc[:, 0],
        families=read_table(runs / "family_similarity.csv", "4_calibrate"),
        intervals=read_table(runs / "submission_intervals.csv", "4_calibrate"),
        differences=read_table(runs / "submission_differences.csv", "4_calibrate"),
        curves=read_table(runs / "learning_curve.csv", "4_calibrate"),
        measures=read_table(runs / "measures.csv", "4_calibrate"),
        trajectories=read_table(runs / "selection" / "trajectories.csv", "3_select"),
        tables={
            name: read_table(runs / "submissions" / f"{name}.csv", "3_select")
            for name in submissions.index
        },
        features=read_table(runs / "features.csv", "1_extract"),
        failures=read_table(runs / "failures.csv", "1_extract"),
        dropped=read_table(runs / "zoo" / "dropped.csv", "0_zoo")
        if (runs / "zoo").is_dir()
        else _EMPTY,
        device=", ".join(read_table(runs / "device.csv", "1_extract")["device"]),
        record=json.loads((runs / "run.json").read_text()) if (runs / "run.json").is_file() else {},
    )


_EMPTY = pd.DataFrame(columns=["model", "accuracy", "reason"])


def read_table(path: Path, notebook: str, index: str | None = None) -> pd.DataFrame:
    """A CSV of a run, its names as they are written; empty where it has no columns.

    Parameters
    ----------
    path : path
    notebook : str
        That writes it, to be named where it is missing.
    index : str, optional
        Column that becomes the index.

    Raises
    ------
    UserError
        If the file is missing.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: run {notebook} first")
    try:
        table = read_names(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return table.set_index(index) if index else table


def read_names(path: str | Path) -> pd.DataFrame:
    """A CSV whose columns of names stay text: ``1`` is no number, and ``None`` is not missing."""
    table = pd.read_csv(path)
    counts = COUNTS.get(Path(path).name, ())
    names = [name for name in NAMES if name in table and name not in counts]
    if names:
        table[names] = pd.read_csv(path, usecols=names, dtype=str, keep_default_na=False)[names]
    return table


def model_counts(results: Results) -> tuple[int, int]:
    """Models compared (features on every set of images), and models tried, dropped ones too."""
    sets = results.features["images"].nunique()
    complete = int((results.features.groupby("model")["images"].nunique() == sets).sum())
    failed = results.failures["model"] if len(results.failures) else []
    return complete, len({*results.features["model"], *failed, *results.dropped["model"]})


def provenance(results: Results, profile: str) -> pd.DataFrame:
    """How a run was made: commit, machine, versions, seed, models; columns what, value."""
    record, (compared, tried) = results.record, model_counts(results)
    packages = record.get("packages", {})
    facts = {
        "profile": profile,
        "commit": record.get("commit") or "not in a git repository",
        "changed files": ", ".join(record.get("changed_files", [])) or "none",
        "started": record.get("started", "notebook by notebook, by hand"),
        "machine": record.get("machine", "not recorded"),
        "device": results.device,
        "Python": record.get("python", "not recorded"),
        "packages": ", ".join(f"{name} {number}" for name, number in packages.items()),
        "overrides": ", ".join(record.get("overrides", [])) or "none",
        "seed": record.get("seed", "not recorded"),
        "models": f"{compared} of {tried}",
    }
    return pd.DataFrame(facts.items(), columns=["what", "value"])


def durations(results: Results) -> pd.DataFrame:
    """When and for how long each notebook ran last; columns notebook, ended, seconds."""
    entries = results.record.get("notebooks", {}).items()
    rows = [(name, entry["ended"], entry["seconds"]) for name, entry in entries]
    return pd.DataFrame(rows, columns=["notebook", "ended", "seconds"])
