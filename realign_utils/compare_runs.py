"""What differs between two runs: which numbers, by how much, and why.

Everything is read from the files that runs leave (`run_files`); nothing is computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.errors import UserError
from realign_utils.run_files import Run
from realign_utils.run_reasons import changed, reasons

ROUNDING = 1e-9
"""A number that changes by less has not changed."""

COLUMNS = 3
"""Columns of a table whose change is told."""

_REASONS = {"run.json", "parameters.yaml", "features.csv", "device.csv"}  # told as such
_SCORES = ["images", "estimator", "submission"]


def set_differences(
    first: Mapping[str, Sequence[str]], second: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Submissions with other members; columns submission, shared, only in first, only in second."""
    rows = []
    for name in dict.fromkeys([*first, *second]):
        one, other = set(first.get(name, ())), set(second.get(name, ()))
        if one != other:
            alone = (", ".join(sorted(part)) or "none" for part in (one - other, other - one))
            rows.append((name, len(one & other), *alone))
    return pd.DataFrame(rows, columns=["submission", "shared", "only in first", "only in second"])


def score_differences(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Scores that changed, the largest change in standard errors first.

    Parameters
    ----------
    first, second : pandas.DataFrame
        ``submission_intervals.csv``: images, estimator, submission, mean, standard_error.

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, submission, first, second, change, standard errors (the change
        over the first run's standard error; NaN for a score that one run has alone).
    """
    columns = ["mean", "standard_error"]
    one, other = (table.set_index(_SCORES)[columns] for table in (first, second))
    table = one.join(other["mean"].rename("second"), how="outer").rename(columns={"mean": "first"})
    table["change"] = table["second"] - table["first"]
    table["standard errors"] = table["change"] / table.pop("standard_error")
    known = table[["first", "second"]].notna().any(axis=1)
    moved = table[known & ~(table["change"].abs() <= ROUNDING)]
    order = moved["standard errors"].abs().sort_values(ascending=False, kind="stable").index
    return moved.loc[order].reset_index()


def matrix_difference(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Any]:
    """How two labelled matrices differ over the pairs of models that both have.

    Returns
    -------
    dict
        models (in both), largest (absolute change of a cell), pair (which), mean (change).
    """
    one, other = (table.set_index(table.columns[0]) for table in (first, second))
    both = [name for name in one.index if name in other.index and name in one.columns]
    change = other.loc[both, both].to_numpy(float) - one.loc[both, both].to_numpy(float)
    pairs = np.argwhere(np.triu(np.ones_like(change, dtype=bool), 1))
    values = change[tuple(pairs.T)]
    if not np.isfinite(values).any():
        return {"models": len(both), "largest": float("nan"), "pair": "", "mean": float("nan")}
    place = int(np.nanargmax(np.abs(values)))
    pair = " and ".join(both[i] for i in pairs[place])
    return {"models": len(both), "largest": float(abs(values[place])), "pair": pair,
            "mean": float(np.nanmean(values))}  # fmt: skip


def table_difference(first: pd.DataFrame, second: pd.DataFrame) -> str | None:
    """How two tables differ, in words; None where no cell does but for rounding."""
    if list(first.columns) != list(second.columns) or len(first) != len(second):
        shapes = (f"{len(t)} rows of {len(t.columns)} columns" for t in (first, second))
        return " against ".join(shapes)
    told = []
    for name in first.columns:
        one, other = first[name], second[name]
        if one.dtype.kind in "iuf" and other.dtype.kind in "iuf":
            change = np.abs(other.to_numpy(float) - one.to_numpy(float))
            moved = int((~(change <= ROUNDING) & ~(one.isna() & other.isna()).to_numpy()).sum())
            more = (
                f", by up to {np.nanmax(change):.3g}" if moved and np.isfinite(change).any() else ""
            )
        else:
            moved, more = int((one.astype(str) != other.astype(str)).sum()), ""
        told += [f"{name}: {moved} of {len(first)}{more}"] if moved else []
    more = f"; and {len(told) - COLUMNS} more columns" if len(told) > COLUMNS else ""
    return "; ".join(told[:COLUMNS]) + more or None


def verdict_differences(first: pd.DataFrame, second: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Rows of two scorecards whose verdict changed: name (the first column), first, second."""
    if "verdict" not in first.columns or "verdict" not in second.columns:
        return []
    one, other = (
        dict(zip(t.iloc[:, 0].astype(str), t["verdict"], strict=True)) for t in (first, second)
    )
    return [(key, *pair) for key, pair in changed(one, other)]


@dataclass(frozen=True)
class RunDifference:
    """All that differs between two runs.

    Attributes
    ----------
    why : pandas.DataFrame
        From `reasons`.
    sets, scores : pandas.DataFrame
        From `set_differences` and `score_differences`.
    verdicts : list of (file and row, first, second)
    matrices : pandas.DataFrame
        Columns matrix, models, largest, pair, mean; only those that changed, the largest first.
    tables : list of (file, how)
    equal : list of str
        Files of numbers that are the same in both.
    """

    why: pd.DataFrame
    sets: pd.DataFrame
    scores: pd.DataFrame
    verdicts: list[tuple[str, str, str]]
    matrices: pd.DataFrame
    tables: list[tuple[str, str]]
    equal: list[str]

    @property
    def differ(self) -> bool:
        """Whether any number or set does."""
        return bool(len(self.sets) or len(self.scores) or len(self.matrices) or self.tables)


def compare_runs(first: Run, second: Run) -> RunDifference:
    """Compare two runs, the most important first."""
    one, other = first.tables, second.tables
    shared = [name for name in one if name in other]
    sets = set_differences(_members(one), _members(other))
    scores = score_differences(_intervals(first), _intervals(second))
    told_apart = (
        {*sets["submission"], "submission_intervals"} if len(scores) else {*sets["submission"]}
    )
    told, verdicts, matrices, equal = [], [], [], []
    for name in dict.fromkeys([*first.hashes, *second.hashes]):
        if name in _REASONS or name.startswith("images/"):
            continue
        if Path(name).stem in told_apart:
            continue
        if first.hashes.get(name) == second.hashes.get(name):
            equal.append(name)
        elif name not in first.hashes or name not in second.hashes:
            told.append((name, f"only in {'first' if name in first.hashes else 'second'}"))
        elif name not in shared:
            told.append((name, "other bytes"))
        elif _is_matrix(one[name]) and _is_matrix(other[name]):
            matrices.append({"matrix": name} | matrix_difference(one[name], other[name]))
        else:
            how = table_difference(one[name], other[name])
            (told.append((name, how)) if how else equal.append(name))
            verdicts += [
                (f"{name}, {row}", *p) for row, *p in verdict_differences(one[name], other[name])
            ]
    moved = pd.DataFrame(matrices, columns=["matrix", "models", "largest", "pair", "mean"])
    same_models = np.array([len(one[m]) == len(other[m]) for m in moved["matrix"]], dtype=bool)
    still = (moved["largest"] <= ROUNDING) & same_models
    return RunDifference(
        why=reasons(first, second),
        sets=sets,
        scores=scores,
        verdicts=verdicts,
        matrices=moved[~still].sort_values("largest", ascending=False, kind="stable"),
        tables=told,
        equal=equal + list(moved["matrix"][still]),
    )


def _is_matrix(table: pd.DataFrame) -> bool:
    return table.shape[1] == len(table) + 1 and list(table.iloc[:, 0]) == list(table.columns[1:])


def _members(tables: Mapping[str, pd.DataFrame]) -> dict[str, Sequence[str]]:
    found = {n: t for n, t in tables.items() if n.startswith("submissions/") and "model" in t}
    return {Path(name).stem: list(table["model"]) for name, table in found.items()}


def _intervals(run: Run) -> pd.DataFrame:
    table = run.tables.get("submission_intervals.csv", pd.DataFrame())
    wanted = [*_SCORES, "mean", "standard_error"]
    if len(table) and not set(wanted) <= set(table.columns):
        raise UserError(f"{run.folder}/submission_intervals.csv is damaged: columns are missing")
    return table.reindex(columns=wanted)
