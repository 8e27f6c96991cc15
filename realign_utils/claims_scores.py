"""Real scores of submissions, and differences with intervals as evidence on a claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import comparable
from realign_utils.claims_evidence import Evidence, Study
from realign_utils.intervals import apart, call, paired_calls
from realign_utils.uncertainty import Interval


@dataclass(frozen=True)
class Scores:
    """The submissions whose real score is known, and how sure their scores are."""

    study: Study

    @property
    def table(self) -> pd.DataFrame:
        """By submission: mean on each set of images, and ``judge``, the real score."""
        return comparable(self.study.table("calibration.csv", "submission"))

    @property
    def file(self) -> str:
        """That holds the differences of real scores."""
        return "submission_differences.csv" if self.study.evaluation else "calibration.csv"

    def on(self, images: str) -> pd.DataFrame:
        """Mean, low, high and degrees of freedom by submission, on a set of images."""
        rows = self.study.of("submission_intervals.csv")
        rows = rows[rows["images"] == images].set_index("submission")
        return rows.loc[self.table.index, ["mean", "low", "high", "degrees"]]

    def real(self) -> pd.DataFrame:
        """The same of the real scores; the portal's, without interval, are taken as they are."""
        if self.study.evaluation:
            return self.on("evaluation")
        exact = self.table["judge"]
        return pd.DataFrame({"mean": exact, "low": exact, "high": exact})

    def calls(self, images: str) -> dict[tuple[str, str], float]:
        """Which of two submissions is surely higher on a set of images."""
        rows = self.study.of("submission_differences.csv")
        return paired_calls(rows[rows["images"] == images], list(self.table.index))

    def real_calls(self) -> dict[tuple[str, str], float]:
        """Which of two submissions surely has the higher real score."""
        if self.study.evaluation:
            return self.calls("evaluation")
        judge = self.table["judge"]
        pairs = [(a, b) for a in judge.index for b in judge.index if a != b]
        return {(a, b): int(np.sign(judge[a] - judge[b])) for a, b in pairs}

    def lead(self, first: str, second: str) -> tuple[float, float, float]:
        """How far the first is ahead of the second in real score: value, low, high."""
        if not self.study.evaluation:
            gap = float(self.table["judge"][first] - self.table["judge"][second])
            return gap, gap, gap
        rows = self.study.of("submission_differences.csv")
        rows = rows[rows["images"] == "evaluation"].set_index(["first", "second"])
        if (first, second) in rows.index:
            return tuple(rows.loc[(first, second), ["difference", "low", "high"]])
        gap, low, high = rows.loc[(second, first), ["difference", "low", "high"]]
        return -gap, -high, -low


def gap(first: pd.Series, second: pd.Series) -> tuple[float, float, float]:
    """First − second, two means with intervals from different images: value, low, high."""
    value = float(first["mean"] - second["mean"])
    reach = float(np.hypot(first["high"] - first["mean"], second["high"] - second["mean"]))
    return value, value - reach, value + reach


def gap_evidence(pairs: Iterable[tuple[pd.Series, pd.Series]], why: str, **rest: Any) -> Evidence:
    """Evidence on "each first is above its second", of means from different images."""
    pairs = list(pairs)
    return weakest([gap(*pair) for pair in pairs], why, calls=[apart(*p) for p in pairs], **rest)


def weakest(
    differences: Iterable[tuple[float, float, float]],
    why: str,
    *,
    calls: Sequence[float] | None = None,
    degrees: float = inf,
    **rest: Any,
) -> Evidence:
    """Evidence on "all these differences are positive": the smallest, and the calls on all.

    Parameters
    ----------
    differences : iterable of (value, low, high)
        At least one.
    why : str
    calls : sequence, optional
        Their signs; by default `realign_utils.intervals.call` of each interval.
    degrees : float
        Of freedom of their standard errors.
    **rest
        Of `Evidence`.
    """
    differences = list(differences)
    found = [call(low, high, degrees) for _, low, high in differences] if calls is None else calls
    value, low, high = min(differences)
    return Evidence(value, why, low=low, high=high, calls=found, **rest)


def ends(interval: Interval) -> tuple[float, float, float]:
    """Value, low and high of an interval."""
    return interval.estimate, interval.low, interval.high
