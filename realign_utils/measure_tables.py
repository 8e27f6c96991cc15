"""Sets of models by other measures than CKA: their means, and the order that each measure gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity, rank_agreement


def measure_table(
    similarities: Mapping[str, Mapping[str, np.ndarray]], images: str
) -> pd.DataFrame:
    """Mean similarity of sets of models by several measures.

    Parameters
    ----------
    similarities : mapping of str to mapping of str to numpy.ndarray
        By measure, then by submission: (k, k), similarity of its models.
    images : str
        Name of the set of images.

    Returns
    -------
    pandas.DataFrame
        Columns images, measure, submission, mean.
    """
    rows = [
        (images, measure, name, mean_similarity(matrix, range(len(matrix))))
        for measure, matrices in similarities.items()
        for name, matrix in matrices.items()
    ]
    return pd.DataFrame(rows, columns=["images", "measure", "submission", "mean"])


def order_of(means: pd.Series) -> str:
    """Names by descending value, such as ``S4 > S1 > S2``."""
    return " > ".join(means.sort_values(ascending=False, kind="stable").index)


def by_measure(intervals: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """The order of the submissions by every measure, CKA's two estimators first.

    Parameters
    ----------
    intervals, measures : pandas.DataFrame
        As `mean_intervals` and `measure_table` give them.

    Returns
    -------
    pandas.DataFrame
        Columns images, measure, one for each submission, order, and agreement: share of the pairs
        of submissions that stand as by biased CKA.
    """
    cka = intervals.assign(measure=intervals["estimator"] + " CKA")
    columns = ["images", "measure", "submission", "mean"]
    table = pd.concat([cka[columns], measures[columns]])
    rows = []
    for images, part in table.groupby("images", sort=False):
        wide = part.pivot(index="measure", columns="submission", values="mean")
        wide = wide.loc[part["measure"].unique(), part["submission"].unique()]
        for measure, means in wide.iterrows():
            agreement = rank_agreement(means, wide.loc["biased CKA"])
            ends = {"order": order_of(means), "agreement": agreement}
            rows.append({"images": images, "measure": measure, **means, **ends})
    return pd.DataFrame(rows)
