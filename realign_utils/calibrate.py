"""Proxy against evaluation: what a similarity on one set of images says about another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.stats import t as student


def pair_values(similarity: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Similarities of all pairs within a set.

    Parameters
    ----------
    similarity : numpy.ndarray, shape (m, m)
        Symmetric.
    indices : sequence of int, length k
        The members of the set.

    Returns
    -------
    numpy.ndarray, shape (k (k - 1) / 2,)
        float64, in the order (0, 1), (0, 2), …
    """
    rows = np.array(list(indices), dtype=int)
    block = np.asarray(similarity, dtype=np.float64)[np.ix_(rows, rows)]
    return block[np.triu_indices(len(block), 1)]


def mean_similarity(similarity: np.ndarray, indices: Sequence[int]) -> float:
    """Mean pairwise similarity of a set (the objective of section 2.1 of the paper)."""
    return float(pair_values(similarity, indices).mean())


def family_similarity(
    similarity: np.ndarray, families: Mapping[str, Sequence[int]]
) -> pd.DataFrame:
    """Mean similarity within each family (Figure 4 of the paper).

    Parameters
    ----------
    similarity : numpy.ndarray, shape (m, m)
        Symmetric.
    families : mapping of str to sequence of int
        Members of each family; a family of one has no pair and is NaN.

    Returns
    -------
    pandas.DataFrame
        Columns family, mean, models, pairs, low, high. The last two are the 95 % interval of the
        mean by the jackknife over models (Student's t, a degree of freedom fewer than models):
        pairs that share a model are not independent.
    """
    rows = []
    for family, members in families.items():
        values = pair_values(similarity, members)
        mean = mean_similarity(similarity, members) if len(values) else np.nan
        reach = student.ppf(0.975, max(len(members) - 1, 1))
        margin = reach * _jackknife_error(similarity, list(members))
        rows.append((family, mean, len(members), len(values), mean - margin, mean + margin))
    return pd.DataFrame(rows, columns=["family", "mean", "models", "pairs", "low", "high"])


def _jackknife_error(similarity: np.ndarray, members: list[int]) -> float:
    """Standard error of a set's mean similarity, leaving out one model at a time."""
    size = len(members)
    if size < 3:
        return float("nan")
    left_out = [mean_similarity(similarity, members[:i] + members[i + 1 :]) for i in range(size)]
    return float(np.sqrt((size - 1) / size * np.sum((left_out - np.mean(left_out)) ** 2)))


def calibration_table(
    scores: pd.DataFrame, real: Mapping[str, float], reference_proxy: str
) -> pd.DataFrame:
    """The table of section 3.1: proxy scores, real score, calibration ratio.

    Parameters
    ----------
    scores : pandas.DataFrame
        Indexed by submission, a column for each proxy: mean pairwise similarity.
    real : mapping of str to float
        Score of a submission on the evaluation; submissions without one get NaN.
    reference_proxy : str
        The column that the ratio divides by.

    Returns
    -------
    pandas.DataFrame
        `scores` with the columns real and ratio = real / reference proxy.
    """
    table = scores.copy()
    table["real"] = [float(real.get(name, np.nan)) for name in table.index]
    table["ratio"] = table["real"] / table[reference_proxy]
    return table


def comparable(calibration: pd.DataFrame) -> pd.DataFrame:
    """The submissions whose proxy and real scores belong to the same models.

    Parameters
    ----------
    calibration : pandas.DataFrame
        With the columns real and portal_set, and evaluation where there are held-out images.

    Returns
    -------
    pandas.DataFrame
        The rows with such a score, which is the column ``judge``: that on the held-out images, or
        else the portal's, for sets that are the very ones that the portal scored.
    """
    if "evaluation" in calibration:
        return calibration.assign(judge=calibration["evaluation"]).dropna(subset=["judge"])
    own = calibration[calibration["portal_set"].astype(bool)]
    return own.assign(judge=own["real"]).dropna(subset=["judge"])


def rank_agreement(proxy: Sequence[float], real: Sequence[float]) -> float:
    """Share of the pairs of submissions that a proxy orders as the evaluation does.

    Ties count one half. With four submissions there are six pairs: a coarse measure, as the paper's
    section 4.3 says.

    Parameters
    ----------
    proxy, real : sequence of float, length s
        Scores of the same submissions; NaN pairs are left out.

    Returns
    -------
    float
        Between 0 (reversed) and 1 (same order); NaN with fewer than two submissions.
    """
    known = [(p, r) for p, r in zip(proxy, real, strict=True) if np.isfinite(p) and np.isfinite(r)]
    signs = [
        np.sign(p1 - p2) * np.sign(r1 - r2)
        for i, (p1, r1) in enumerate(known)
        for p2, r2 in known[:i]
    ]
    return float(np.mean([(1 + sign) / 2 for sign in signs])) if signs else float("nan")
