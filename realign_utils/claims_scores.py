"""Real scores of submissions, and differences with intervals as evidence on a claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import comparable
from realign_utils.claims_evidence import Difference, Evidence, Study
from realign_utils.intervals import paired_calls
from realign_utils.set_statistics import Estimate, estimate, score_sets, together
from realign_utils.uncertainty import Resamples

ENDS = ["difference", "low", "high", "degrees"]


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

    def lead(self, first: str, second: str) -> Difference:
        """How far the first is ahead of the second in real score."""
        if not self.study.evaluation:
            gap = float(self.table["judge"][first] - self.table["judge"][second])
            return Difference(gap, gap, gap, exact=True)
        rows = self.study.of("submission_differences.csv")
        rows = rows[rows["images"] == "evaluation"].set_index(["first", "second"])
        if (first, second) in rows.index:
            return Difference(*rows.loc[(first, second), ENDS])
        gap, low, high, degrees = rows.loc[(second, first), ENDS]
        return Difference(-gap, -high, -low, degrees)


def gap(first: pd.Series, second: pd.Series) -> Difference:
    """First − second, two means with intervals from different images."""
    value = float(first["mean"] - second["mean"])
    reach = float(np.hypot(first["high"] - first["mean"], second["high"] - second["mean"]))
    degrees = min(each.get("degrees", inf) for each in (first, second))
    return Difference(value, value - reach, value + reach, degrees)


def weakest(differences: Iterable[Difference], why: str, **rest: Any) -> Evidence:
    """Evidence on "all these are above a number": the smallest is shown, all are judged.

    Parameters
    ----------
    differences : iterable of Difference
        At least one.
    why : str
    **rest
        Of `Evidence`.
    """
    differences = list(differences)
    least = min(differences, key=lambda each: each.value)
    ends = {"low": least.low, "high": least.high}
    return Evidence(least.value, why, comparisons=differences, **ends, **rest)


def difference_over_models(
    resamples: Resamples, first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]
) -> Difference:
    """Mean CKA of some pairs of models less that of others, over other images and other models."""
    pairs, border = np.array([*first, *second]), len(first)

    def statistic(values: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
        ours = kept < border
        if ours.all() or not ours.any():
            return np.array(np.nan)
        return values[0][..., ours].mean(-1) - values[0][..., ~ours].mean(-1)

    return as_difference(estimate(statistic, [score_sets(resamples, pairs)], pairs, least=2))


def as_difference(one: Estimate) -> Difference:
    """A statistic with its interval over other images and other models."""
    degrees = together([one.images, one.models]).freedom
    return Difference(one.back(one.value), *one.interval(), degrees)
