"""The paper's findings beside a run's, each with a verdict that respects the error of the scores."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from realign_utils.calibrate import comparable
from realign_utils.intervals import (
    FAILS,
    HOLDS,
    UNTESTABLE,
    apart,
    paired_calls,
    ranks_better,
    verdict,
)
from realign_utils.published import CONVERGED
from realign_utils.results import Results

FLAT_FROM, FLAT_WITHIN = CONVERGED / 20, 0.002
"""The paper's Figure 7: no change from model 12 of 20 on, to the precision that it could show."""
FINDING = ["place", "finding", "here", "verdict"]


def findings(
    results: Results,
    *,
    reference_proxy: str,
    proxies: list[str],
    estimator: str,
    highlight: str,
    contrast: str,
) -> pd.DataFrame:
    """What the paper found, beside what this run found.

    A comparison of scores holds only if the 95 % interval of the difference excludes zero
    (`realign_utils.intervals`). The portal's scores have no interval and are taken as they are.

    Parameters
    ----------
    results : Results
        Of the run.
    reference_proxy : str
        The proxy that stands for CIFAR-100 (the other for Imagenette).
    proxies : list of str
        All proxies.
    estimator : {"biased", "debiased"}
        Of the scores.
    highlight, contrast : str
        The submissions that stand for the paper's S4 and S1.

    Returns
    -------
    pandas.DataFrame
        Columns place, finding (of the paper), here (this run's numbers), verdict (one of
        `realign_utils.intervals.VERDICTS`). Only scores of the very sets that were submitted are
        compared.
    """
    table = comparable(results.calibration)
    chosen = (
        frame[frame["estimator"] == estimator] for frame in (results.intervals, results.differences)
    )
    scores = _Scores(table, *chosen)
    others = [proxy for proxy in proxies if proxy != reference_proxy]
    rows = [row for other in others for row in _on_proxies(scores, results, reference_proxy, other)]
    rows += _on_submissions(scores, results.submissions["mechanisms"], highlight, contrast)
    rows += _on_trajectories(results, highlight)
    return pd.DataFrame(rows, columns=FINDING)


@dataclass(frozen=True)
class _Scores:
    """The comparable submissions, and what is known of how sure their scores are."""

    table: pd.DataFrame
    intervals: pd.DataFrame
    differences: pd.DataFrame

    @property
    def held_out(self) -> bool:
        return "evaluation" in self.table

    def on(self, images: str) -> pd.DataFrame:
        """Mean, low and high by submission, on a set of images."""
        rows = self.intervals[self.intervals["images"] == images]
        return rows.set_index("submission").loc[self.table.index, ["mean", "low", "high"]]

    def judged(self) -> pd.DataFrame:
        """The same of the real scores."""
        if self.held_out:
            return self.on("evaluation")
        exact = self.table["judge"]
        return pd.DataFrame({"mean": exact, "low": exact, "high": exact})

    def calls(self, images: str) -> dict[tuple[str, str], int]:
        """Which of two submissions is surely higher on a set of images."""
        rows = self.differences[self.differences["images"] == images]
        return paired_calls(rows, list(self.table.index))

    def lead(self, first: str, second: str) -> str:
        """How far the first is ahead of the second on the held-out images, as text."""
        if not self.held_out:
            return ""
        rows = self.differences[self.differences["images"] == "evaluation"]
        rows = rows.set_index(["first", "second"])[["difference", "low", "high"]]
        if (first, second) in rows.index:
            gap, low, high = rows.loc[(first, second)]
        else:
            gap, high, low = -rows.loc[(second, first)]
        return f"; lead over {second} {gap:.4f} (95 %: {low:.4f} to {high:.4f})"

    def judged_calls(self) -> dict[tuple[str, str], int]:
        if self.held_out:
            return self.calls("evaluation")
        judge = self.table["judge"]
        return {
            (a, b): int(judge[a] > judge[b]) - int(judge[a] < judge[b])
            for a in judge.index
            for b in judge.index
            if a != b
        }


def _on_proxies(scores: _Scores, results: Results, reference: str, other: str) -> list[tuple]:
    table, proxy, judged = scores.table, scores.on(other), scores.judged()
    inflated = [apart(proxy.loc[name], judged.loc[name]) for name in table.index]
    coarse, fine = (_families(results, images) for images in (other, reference))
    both = [family for family in coarse.index if family in fine.index]
    higher = [apart(coarse.loc[family], fine.loc[family]) for family in both]
    above = (coarse.loc[both, "mean"] > fine.loc[both, "mean"]).sum()
    agreement = results.agreement
    ranked = ranks_better(scores.calls(reference), scores.calls(other), scores.judged_calls())
    return [
        (
            "section 1, insight 1",
            f"The coarse proxy ({other}) overestimates the real score",
            f"above it for {(table[other] > table['judge']).sum()} of {len(table)} submissions, "
            f"surely for {inflated.count(1)}",
            verdict(inflated),
        ),
        (
            "Figure 4",
            f"{other} inflates CKA over {reference} in every family",
            f"in {above} of {len(both)} families, surely in {higher.count(1)}",
            verdict(higher),
        ),
        (
            "section 1, insight 2",
            f"{reference} ranks the submissions better than {other}",
            f"pairs in the right order: {agreement[reference]:.2f} against {agreement[other]:.2f}"
            if len(table) > 1
            else f"{len(table)} submissions can be compared",
            ranked if len(table) > 1 else UNTESTABLE,
        ),
    ]


def _families(results: Results, images: str) -> pd.DataFrame:
    """Mean of each family that has pairs, and its interval for other images: mean, low, high."""
    rows = results.families[results.families["images"] == images].dropna(subset=["mean"])
    rows = rows.set_index("family")[["mean", "images_low", "images_high"]]
    return rows.set_axis(["mean", "low", "high"], axis=1)


def _on_submissions(
    scores: _Scores, mechanisms: pd.Series, highlight: str, contrast: str
) -> list[tuple]:
    judge, calls = scores.table["judge"], scores.judged_calls()
    testable = {highlight, contrast} <= set(judge.index)
    rivals = [name for name in judge.index if name != highlight] if testable else []
    rest = [name for name in judge.index if name != contrast] if testable else []
    best = f"best is {judge.idxmax()}, {judge.max():.4f}" if len(judge) else "no real score"
    nearest = max(rivals, key=lambda name: judge[name], default=None)
    lead = f"{highlight} {judge[highlight]:.4f}; " if testable else ""
    above = [name for name in rest if calls[name, contrast] > 0]
    diverse = testable and mechanisms[contrast] > 1
    return [
        (
            "section 1, insight 4",
            f"{highlight} has the best real score of all",
            f"{lead}{best}{scores.lead(highlight, nearest) if nearest else ''}",
            verdict(calls[highlight, name] for name in rivals),
        ),
        (
            "section 1, insight 3",
            f"Homogeneous sets score higher than the diverse {contrast}",
            f"surely {', '.join(above) or 'none'} of {', '.join(rest) or 'none'} do; the models of "
            f"{contrast} are of {mechanisms[contrast]} mechanism(s)",
            verdict(calls[name, contrast] for name in rest) if diverse else UNTESTABLE,
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
            (HOLDS if abs(fall) <= FLAT_WITHIN else FAILS) if first < last else UNTESTABLE,
        )
    ]
