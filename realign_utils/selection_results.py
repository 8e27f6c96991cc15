"""What a run found of pools, objectives and other images, read back and laid out for the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from realign_utils.ablation import beside_random_pools
from realign_utils.figure_style import number
from realign_utils.results import read_table

CONTESTED = (0.05, 0.95)
"""Shares of best sets between which a model's place counts as contested."""


@dataclass(frozen=True)
class SelectionResults:
    """Tables on how firm the selection is.

    Attributes
    ----------
    pools : pandas.DataFrame
        From `ablation.judge_pools` (`4_calibrate`).
    homogeneity : pandas.DataFrame
        From `homogeneity.homogeneous_against_mixed` (`4_calibrate`).
    choices : pandas.DataFrame
        From `firmness.choices_table` (`3_select`).
    membership : pandas.DataFrame
        From `firmness.membership_table` (`3_select`).
    alternatives : pandas.DataFrame
        From `firmness.alternatives_table` (`3_select`).
    regret : pandas.DataFrame
        From `stability.regret_table` (`4_calibrate`).
    """

    pools: pd.DataFrame
    homogeneity: pd.DataFrame
    choices: pd.DataFrame
    membership: pd.DataFrame
    alternatives: pd.DataFrame
    regret: pd.DataFrame


def read_selection(runs: str | Path) -> SelectionResults:
    """Read the tables that `3_select` and `4_calibrate` left in a run's folder.

    Raises
    ------
    UserError
        If a file is missing: one line that names the notebook that writes it.
    """
    runs = Path(runs)
    late = {
        name: read_table(runs / f"{name}.csv", "4_calibrate") for name in ("pools", "homogeneity")
    }
    early = {
        name: read_table(runs / "selection" / f"{name}.csv", "3_select")
        for name in ("choices", "membership", "alternatives")
    }
    return SelectionResults(**late, **early, regret=read_table(runs / "regret.csv", "4_calibrate"))


def pools_shown(pools: pd.DataFrame, reference_proxy: str, judge: str | None) -> pd.DataFrame:
    """The pools for a page: score and bound on the proxy, score of the judge, random ones beside.

    Parameters
    ----------
    pools : pandas.DataFrame
        Of `SelectionResults`.
    reference_proxy : str
        On which sets were chosen.
    judge : str or None
        The column that judges them, where there is one.

    Returns
    -------
    pandas.DataFrame
        Columns pool, candidates, upper bound, proved, and for either set of images the score, that
        of random pools of the same size, and how many of those it is above.
    """
    images = [reference_proxy, *([judge] if judge else [])]
    beside = beside_random_pools(pools, images)
    beside["proved_optimal"] = beside["proved_optimal"].astype(bool)
    columns = {"pool": "pool", "candidates": "candidates"}
    for name in images:
        columns |= {name: name, f"random_{name}": f"random, {name}"}
        beside[f"above_{name}"] = [
            f"{above} of {drawn}" if drawn else "–"
            for above, drawn in zip(beside[f"above_{name}"], beside["random_pools"], strict=True)
        ]
        columns |= {f"above_{name}": f"above, {name}"}
        if name == reference_proxy:
            columns |= {"upper_bound": "upper bound", "proved_optimal": "proved"}
    return beside[list(columns)].rename(columns=columns)


def homogeneity_shown(homogeneity: pd.DataFrame, judge: str | None) -> pd.DataFrame:
    """Homogeneous against mixed sets on one judge's images, for a page."""
    here = homogeneity[homogeneity["judged_on"] == judge]
    columns = {"mechanism": "mechanism", "size": "models", "level": "proxy score"}
    for kind in ("homogeneous", "mixed"):
        columns |= {f"{kind}_sets": f"{kind} sets", kind: f"{kind}, score"}
    columns |= {"difference": "difference", "by_quality": "without homogeneity"}
    columns |= {"by_quality_high": "at most", "in_favour": "in favour"}
    return here[[*columns]].rename(columns=columns).reset_index(drop=True)


def alternatives_shown(alternatives: pd.DataFrame) -> pd.DataFrame:
    """Sets within the best one's interval for a page: how many, and the one that differs most."""
    reach = zip(alternatives["difference_low"], alternatives["difference_high"], strict=True)
    counts = zip(alternatives["equally_good"], alternatives["complete"], strict=True)
    return pd.DataFrame(
        {
            "submission": alternatives["submission"],
            "score": alternatives["score"],
            "low end": alternatives["low"],
            "sets in the interval": [
                f"at least {count:,}" if all_ else f"over {count:,}" for count, all_ in counts
            ],
            "shared": alternatives["shared"],
            "score of the other": alternatives["other_score"],
            "difference": alternatives["difference"],
            "its interval": [f"{number(low, 4)} to {number(high, 4)}" for low, high in reach],
        }
    )


def contested(membership: pd.DataFrame, most: int = 10) -> pd.DataFrame:
    """The models of contested place, the most contested of each submission.

    Parameters
    ----------
    membership : pandas.DataFrame
        Of `SelectionResults`.
    most : int
        Rows for each submission.

    Returns
    -------
    pandas.DataFrame
        Columns submission, model, in the set, share; by submission and descending share.
    """
    between = membership[membership["share"].between(*CONTESTED)]
    nearest = (between["share"] - 0.5).abs().sort_values(kind="stable").index
    kept = between.loc[nearest].groupby("submission").head(most)
    kept = kept.sort_values(["submission", "share"], ascending=[True, False], kind="stable")
    words = {"in_set": "in the set"}
    return (
        kept.assign(in_set=kept["in_set"].astype(bool)).rename(columns=words).reset_index(drop=True)
    )


def firm_sentence(membership: pd.DataFrame) -> str:
    """How many models of each submission have a place that the images settle, and their rivals."""
    parts = []
    for name, rows in membership.groupby("submission", sort=False):
        inside = rows["in_set"].astype(bool)
        firm = int((rows.loc[inside, "share"] > CONTESTED[1]).sum())
        rivals = int((rows.loc[~inside, "share"] >= CONTESTED[0]).sum())
        parts.append(
            f"{firm} of the {inside.sum()} models of {name}, with {rivals} "
            f"{'other' if rivals == 1 else 'others'} contending"
        )
    return "; ".join(parts)


def pools_sentence(pools: pd.DataFrame, reference_proxy: str, judge: str | None) -> str:
    """Which pools are above all their random pools, where, how many would be by chance, and doubles.

    Parameters
    ----------
    pools, reference_proxy, judge
        As for `pools_shown`.

    Returns
    -------
    str
    """
    images = [reference_proxy, *([judge] if judge else [])]
    beside = beside_random_pools(pools, images).dropna(subset=[f"random_{reference_proxy}"])
    above = [beside[f"above_{name}"] == beside["random_pools"] for name in images]
    everywhere = above[0] & above[-1]
    parts = [f"Above all random pools of their size on {' and '.join(images)}: "]
    parts[0] += ", ".join(beside.loc[everywhere, "pool"]) or "none"
    if judge:
        only = ", ".join(beside.loc[above[0] & ~above[1], "pool"]) or "none"
        parts[0] += f"; on {reference_proxy} only: {only}"
    expected = (1 / (1 + beside["random_pools"])).sum()
    parts.append(
        f"By chance {number(expected, 1)} of the {len(beside)} pools would be above all of theirs on any "
        "one set of images"
    )
    named = pools[pools["kind"] != "random"]
    shared = [f"{', '.join(rows['pool'])}" for _, rows in named.groupby("models") if len(rows) > 1]
    parts += [
        f"One and the same set is the best of these pools, so they are one finding: {names}"
        for names in shared
    ]
    return ". ".join(parts) + "."


def regret_shown(regret: pd.DataFrame) -> pd.DataFrame:
    """Regrets as a grid: a row for each way of choosing, a column for each judge, and the most.

    Missing where the judge's images chose the set.
    """
    ways: Sequence[str] = list(dict.fromkeys(regret["chosen_on"]))
    judges = list(dict.fromkeys(regret["judged_on"]))
    wide = regret.pivot(index="chosen_on", columns="judged_on", values="regret")
    wide = wide.loc[ways, judges].rename_axis(columns=None)
    return wide.assign(**{"at most": wide.max(axis=1)}).rename_axis("chosen on").reset_index()
