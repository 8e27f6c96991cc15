"""What a run left, read back for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from realign_utils.calibrate import comparable
from realign_utils.errors import UserError
from realign_utils.published import CONVERGED

FLAT_FROM, FLAT_WITHIN = CONVERGED / 20, 0.002
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
        dropped=_read(runs / "zoo" / "dropped.csv", "0_zoo") if (runs / "zoo").is_dir() else _EMPTY,
        device=", ".join(_read(runs / "device.csv", "1_extract")["device"]),
        record=json.loads((runs / "run.json").read_text()) if (runs / "run.json").is_file() else {},
    )


_EMPTY = pd.DataFrame(columns=["model", "accuracy", "reason"])


def _read(path: Path, notebook: str, index: str | None = None) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is missing: run {notebook} first")
    try:
        return pd.read_csv(path, index_col=index)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


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


def findings(
    results: Results, *, reference_proxy: str, proxies: list[str], highlight: str, contrast: str
) -> pd.DataFrame:
    """What the paper found, beside what this run found.

    Parameters
    ----------
    results : Results
        Of the run.
    reference_proxy : str
        The proxy that stands for CIFAR-100 (the other for Imagenette).
    proxies : list of str
        All proxies.
    highlight, contrast : str
        The submissions that stand for the paper's S4 and S1.

    Returns
    -------
    pandas.DataFrame
        Columns place, finding (of the paper), here (this run's numbers), verdict (holds, does not
        hold, not testable). Only scores of the very sets that were submitted are compared.
    """
    table = comparable(results.calibration)
    others = [proxy for proxy in proxies if proxy != reference_proxy]
    rows = [row for other in others for row in _on_proxies(table, results, reference_proxy, other)]
    rows += _on_submissions(table, results.submissions["mechanisms"], highlight, contrast)
    rows += _on_trajectories(results, highlight)
    return pd.DataFrame(rows, columns=FINDING)


def _verdict(testable: bool, holds: bool) -> str:
    if not testable:
        return "not testable"
    return "holds" if holds else "does not hold"


def _on_proxies(table: pd.DataFrame, results: Results, reference: str, other: str) -> list[tuple]:
    inflated = (table[other] > table["judge"]).sum()
    wide = results.families.pivot(index="family", columns="images", values="mean")
    wide = wide.dropna(subset=[reference, other])
    higher = (wide[other] > wide[reference]).sum()
    agreement = results.agreement
    return [
        (
            "section 1, insight 1",
            f"The coarse proxy ({other}) overestimates the real score",
            f"above it for {inflated} of {len(table)} submissions",
            _verdict(len(table) > 0, inflated == len(table)),
        ),
        (
            "Figure 4",
            f"{other} inflates CKA over {reference} in every family",
            f"in {higher} of {len(wide)} families",
            _verdict(len(wide) > 0, higher == len(wide)),
        ),
        (
            "section 1, insight 2",
            f"{reference} ranks the submissions better than {other}",
            f"pairs in the right order: {agreement[reference]:.2f} against {agreement[other]:.2f}"
            if len(table) > 1
            else f"{len(table)} submissions can be compared",
            _verdict(len(table) > 1, agreement[reference] > agreement[other]),
        ),
    ]


def _on_submissions(
    table: pd.DataFrame, mechanisms: pd.Series, highlight: str, contrast: str
) -> list[tuple]:
    scores = table["judge"]
    rest = scores.drop(index=[contrast], errors="ignore")
    testable = {highlight, contrast} <= set(scores.index)
    above = list(rest.index[rest > scores[contrast]]) if testable else []
    best = f"best is {scores.idxmax()}, {scores.max():.4f}" if len(scores) else "no real score"
    return [
        (
            "section 1, insight 4",
            f"{highlight} has the best real score of all",
            f"{highlight} {scores[highlight]:.4f}; {best}" if testable else best,
            _verdict(testable, len(scores) > 0 and scores.idxmax() == highlight),
        ),
        (
            "section 1, insight 3",
            f"Homogeneous sets score higher than the diverse {contrast}",
            f"{', '.join(above) or 'none'} of {', '.join(rest.index) or 'none'} do; the models of "
            f"{contrast} are of {mechanisms[contrast]} mechanism(s)",
            _verdict(testable and mechanisms[contrast] > 1, len(above) == len(rest)),
        ),
    ]


def _on_trajectories(results: Results, highlight: str) -> list[tuple]:
    table = results.trajectories
    greedy = table[(table["submission"] == highlight) & (table["stage"] == "greedy")]
    if greedy.empty:
        return []
    values, last = greedy.set_index("size")["mean_similarity"], int(greedy["size"].max())
    first = max(2, round(FLAT_FROM * last))
    fall = values[first] - values[last]
    return [
        (
            "Figure 7",
            f"The greedy trajectory of {highlight} is flat from {FLAT_FROM:.0%} of the models on",
            f"falls by {fall:.4f} from {first} to {last} models (flat: up to {FLAT_WITHIN})",
            _verdict(first < last, abs(fall) <= FLAT_WITHIN),
        )
    ]
