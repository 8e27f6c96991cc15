"""The difference of two runs as lines to read, and as data for machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from realign_utils.compare_runs import RunDifference
from realign_utils.words import counted

MOST = 12
"""Lines of one kind, at most; the JSON has all."""

UNEXPLAINED = (
    "why: nothing on record explains a change (a notebook that is run by itself leaves no record)"
)


def lines_of(found: RunDifference) -> list[str]:
    """What changed, the most important first, and why.

    Parameters
    ----------
    found : RunDifference

    Returns
    -------
    list of str
        Lines for a terminal.
    """
    lines = [_verdict(found)]
    lines += _part("sets", (_set(row) for _, row in found.sets.iterrows()))
    lines += _part("scores", (_score(row) for _, row in found.scores.iterrows()))
    lines += _part("verdicts", (f"{what}: {one} -> {other}" for what, one, other in found.verdicts))
    lines += _part("matrices", (_matrix(row) for row in found.matrices.itertuples(index=False)))
    lines += _part("other tables", (f"{name}: {how}" for name, how in found.tables))
    if found.differ or len(found.why):
        title = "why" if found.differ else "differs on record"
        lines += _part(title, (_reason(row) for row in found.why.itertuples(index=False)))
    return [*lines, f"equal: {counted(len(found.equal), 'file')} of numbers"]


def as_data(found: RunDifference) -> dict[str, Any]:
    """All of it as plain data, for JSON."""
    return {
        "differ": found.differ,
        "why": _records(found.why),
        "sets": _records(found.sets),
        "scores": _records(found.scores),
        "verdicts": [
            dict(zip(("what", "first", "second"), row, strict=True)) for row in found.verdicts
        ],
        "matrices": _records(found.matrices),
        "tables": [{"file": name, "how": how} for name, how in found.tables],
        "equal": found.equal,
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values."""
    return [
        dict(zip(table.columns, row, strict=True))
        for row in table.astype(object).to_numpy().tolist()
    ]


def _verdict(found: RunDifference) -> str:
    if not found.differ:
        return "no number differs"
    parts = {"sets": found.sets, "scores": found.scores, "matrices": found.matrices}
    counts = [
        f"{name} {len(rows)}" for name, rows in (parts | {"other files": found.tables}).items()
    ]
    return f"what differs: {', '.join(counts)}"


def _part(title: str, told: Iterable[str]) -> list[str]:
    lines = list(told)
    if not lines:
        return [UNEXPLAINED] if title == "why" else []
    more = [f"  ... and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return [f"{title}:", *(f"  {line}" for line in lines[:MOST]), *more]


def _reason(row: Any) -> str:
    return f"{row.kind} {row.what}: {_short(row.first)} -> {_short(row.second)}"


def _short(value: object, longest: int = 60) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _set(row: pd.Series) -> str:
    return (
        f"{row['submission']}: {counted(row['shared'], 'model')} in both; only in the first: "
        f"{row['only in first']}; only in the second: {row['only in second']}"
    )


def _score(row: pd.Series) -> str:
    name = f"{row['submission']} on {row['images']} ({row['estimator']})"
    if pd.isna(row["first"]) or pd.isna(row["second"]):
        return f"{name}: only in the {'second' if pd.isna(row['first']) else 'first'} run"
    errors = row["standard errors"]
    scaled = "" if pd.isna(errors) else f", {errors:+.2f} standard errors"
    return f"{name}: {row['first']:.4f} -> {row['second']:.4f} ({row['change']:+.4f}{scaled})"


def _matrix(row: Any) -> str:
    if pd.isna(row.largest):
        return f"{row.matrix}: no pair of models in common"
    return f"{row.matrix}: up to {row.largest:.4g} ({row.pair}), {row.mean:+.4g} on average"
