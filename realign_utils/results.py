"""What a run left, read back for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from realign_utils.errors import UserError

FLAT_FROM, FLAT_WITHIN = 12 / 20, 0.001
"""The paper's Figure 7: no change from model 12 of 20 on, to the precision that it could show."""


FINDING = ["place", "finding", "here", "verdict"]


@dataclass(frozen=True)
class Results:
    """The tables of a run.

    Attributes
    ----------
    submissions : pandas.DataFrame
        By submission: how it was found, objective, upper bound, mean on each proxy (`3_select`).
    calibration : pandas.DataFrame
        By submission: title, mean on each set of images, real, ratio (`4_calibrate`).
    agreement : pandas.Series
        By proxy: share of pairs of submissions in the evaluation's order (`4_calibrate`).
    families : pandas.DataFrame
        Columns family, images, mean, models, pairs, low, high (`4_calibrate`).
    trajectories : pandas.DataFrame
        Columns submission, size, mean_similarity, stage (`3_select`).
    tables : mapping of str to pandas.DataFrame
        By submission: the table of Appendix A (`3_select`).
    features : pandas.DataFrame
        A row for each feature file (`1_extract`).
    failures : pandas.DataFrame
        A row for each failure (`1_extract`).
    record : dict
        Of the run: commit, versions, durations (the pipeline).
    """

    submissions: pd.DataFrame
    calibration: pd.DataFrame
    agreement: pd.Series
    families: pd.DataFrame
    trajectories: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    features: pd.DataFrame
    failures: pd.DataFrame
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
    submissions = _read(runs / "submissions.csv", "3_select", index="submission")
    return Results(
        submissions=submissions,
        calibration=_read(runs / "calibration.csv", "4_calibrate", index="submission"),
        agreement=_read(runs / "rank_agreement.csv", "4_calibrate", index="proxy").iloc[:, 0],
        families=_read(runs / "family_similarity.csv", "4_calibrate"),
        trajectories=_read(runs / "selection" / "trajectories.csv", "3_select"),
        tables={
            name: _read(runs / "submissions" / f"{name}.csv", "3_select")
            for name in submissions.index
        },
        features=_read(runs / "features.csv", "1_extract"),
        failures=_read(runs / "failures.csv", "1_extract"),
        record=json.loads((runs / "run.json").read_text()) if (runs / "run.json").is_file() else {},
    )


def _read(path: Path, notebook: str, index: str | None = None) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing: run {notebook} first")
    try:
        return pd.read_csv(path, index_col=index)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def model_counts(results: Results) -> tuple[int, int]:
    """Models compared (features on every set of images), and models tried."""
    sets = results.features["images"].nunique()
    complete = int((results.features.groupby("model")["images"].nunique() == sets).sum())
    failed = results.failures["model"] if len(results.failures) else []
    return complete, len(set(results.features["model"]) | set(failed))


def provenance(results: Results, profile: str) -> pd.DataFrame:
    """How a run was made: commit, machine, versions, seed, models; columns what, value."""
    record, (compared, tried) = results.record, model_counts(results)
    facts = {
        "profile": profile,
        "commit": record["commit"] or "not in a git repository",
        "changed files": ", ".join(record["changed_files"]) or "none",
        "started": record["started"],
        "machine": record["machine"],
        "Python": record["python"],
        "packages": ", ".join(f"{name} {number}" for name, number in record["packages"].items()),
        "seed": record["seed"],
        "models": f"{compared} of {tried}",
    }
    return pd.DataFrame(facts.items(), columns=["what", "value"])


def findings(results: Results, *, reference_proxy: str, proxies: list[str]) -> pd.DataFrame:
    """What the paper found, beside what this run found.

    Parameters
    ----------
    results : Results
        With at least two submissions that have a real score.
    reference_proxy : str
        The proxy that stands for CIFAR-100 (the other for Imagenette).
    proxies : list of str
        All proxies.

    Returns
    -------
    pandas.DataFrame
        Columns place, finding (of the paper), here (this run's numbers), verdict.
    """
    table = results.calibration.dropna(subset=["real"])
    if table.empty:
        return pd.DataFrame(_on_trajectories(results), columns=FINDING)
    others = [proxy for proxy in proxies if proxy != reference_proxy]
    rows = [row for other in others for row in _on_proxies(table, results, reference_proxy, other)]
    rows += _on_submissions(table)
    rows += _on_trajectories(results)
    return pd.DataFrame(rows, columns=FINDING)


def _verdict(holds: bool) -> str:
    return "holds" if holds else "does not hold"


def _on_proxies(table: pd.DataFrame, results: Results, reference: str, other: str) -> list[tuple]:
    inflated = (table[other] > table["real"]).sum()
    wide = results.families.pivot(index="family", columns="images", values="mean")
    higher = (wide[other] > wide[reference]).sum()
    agreement = results.agreement
    return [
        (
            "1, 1",
            f"The coarse proxy ({other}) overestimates the real score",
            f"above it for {inflated} of {len(table)} submissions",
            _verdict(inflated == len(table)),
        ),
        (
            "Figure 4",
            f"{other} inflates CKA over {reference} in every family",
            f"in {higher} of {len(wide)} families",
            _verdict(higher == len(wide)),
        ),
        (
            "1, 2",
            f"{reference} ranks the submissions better than {other}",
            f"pairs in the right order: {agreement[reference]:.2f} against {agreement[other]:.2f}",
            _verdict(agreement[reference] > agreement[other]),
        ),
    ]


def _on_submissions(table: pd.DataFrame) -> list[tuple]:
    rows = []
    if {"S1", "S4"} <= set(table.index):
        rows.append(
            (
                "1, 4",
                "S4 has the best real score of all",
                f"S4 {table.real['S4']:.4f}, best {table.real.idxmax()} {table.real.max():.4f}",
                _verdict(table["real"].idxmax() == "S4"),
            )
        )
    homogeneous = [name for name in ("S2", "S3", "S4") if name in table.index]
    if "S1" in table.index and homogeneous:
        above = [name for name in homogeneous if table["real"][name] > table["real"]["S1"]]
        rows.append(
            (
                "1, 3",
                "Homogeneous sets score higher than the diverse S1",
                f"{', '.join(above) or 'none'} of {', '.join(homogeneous)} above S1",
                _verdict(len(above) == len(homogeneous)),
            )
        )
    return rows


def _on_trajectories(results: Results) -> list[tuple]:
    table = results.trajectories
    greedy = table[(table["submission"] == "S4") & (table["stage"] == "greedy")]
    if greedy.empty:
        return []
    values, last = greedy.set_index("size")["mean_similarity"], int(greedy["size"].max())
    first = max(2, round(FLAT_FROM * last))
    fall = values[first] - values[last]
    return [
        (
            "Figure 7",
            f"The greedy trajectory of S4 is flat from {FLAT_FROM:.0%} of the models on",
            f"falls by {fall:.4f} from {first} to {last} models",
            _verdict(abs(fall) < FLAT_WITHIN),
        )
    ]
