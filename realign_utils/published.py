"""What the paper states, against what its own pictures and tables say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from realign_utils.calibrate import pair_values
from realign_utils.search import greedy

CONVERGED = 12
"""The model by which Figure 7's caption has the greedy mean converged."""


def quantities(s4: np.ndarray, s1: np.ndarray, portal: pd.DataFrame) -> dict[str, float]:
    """Compute the paper's quantities from its own matrices and table.

    Parameters
    ----------
    s4, s1 : numpy.ndarray, each of shape (20, 20)
        The matrices of Figures 2 and 3, digitised to ±0.002 a cell.
    portal : pandas.DataFrame
        The table of section 3.1, indexed by submission.

    Returns
    -------
    dict of str to float
        By the column ``quantity`` of ``params/claims.csv``.
    """
    everything = range(len(s4))
    pairs = pair_values(s4, everything)
    averages = (s4.sum(axis=0) - np.diag(s4)) / (len(s4) - 1)
    trajectory = greedy(s4, len(s4))[1]
    return {
        "s4_mean": float(pairs.mean()),
        "s1_mean": float(pair_values(s1, range(len(s1))).mean()),
        "s4_minimum": float(pairs.min()),
        "s4_lowest_average": float(averages.min()),
        "s4_highest_average": float(averages.max()),
        "s4_fall_after_12": trajectory[CONVERGED - 2] - trajectory[-1],
        "s1_ratio": float(portal["real"]["S1"] / portal["cifar100"]["S1"]),
    }


def settle(claims: pd.DataFrame, values: dict[str, float]) -> pd.DataFrame:
    """Set each claim beside what was computed, with a verdict.

    Parameters
    ----------
    claims : pandas.DataFrame
        Columns quantity, claim, place, relation (equal, at least, at most), published, tolerance.
    values : dict of str to float
        As `quantities` gives them.

    Returns
    -------
    pandas.DataFrame
        Columns claim, place, relation, published, computed, tolerance, verdict.
    """
    table = claims[["claim", "place", "relation", "published", "tolerance"]].copy()
    table.insert(4, "computed", [values[quantity] for quantity in claims["quantity"]])
    excess, allowed = table["computed"] - table["published"], table["tolerance"] + 1e-12
    holds = {"equal": excess.abs() <= allowed, "at least": excess >= -allowed}
    holds["at most"] = excess <= allowed
    agrees = [holds[relation][i] for i, relation in enumerate(table["relation"])]
    table["verdict"] = np.where(agrees, "holds", "does not hold")
    return table
