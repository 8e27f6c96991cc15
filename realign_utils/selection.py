"""How a submission is filled: a pool searched on its proxies, or a fixed list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity
from realign_utils.certificate import Certificate
from realign_utils.errors import UserError
from realign_utils.registry import choose
from realign_utils.search import Selection, select


@dataclass(frozen=True)
class Chosen:
    """The models of one submission and how they were found.

    Attributes
    ----------
    models : tuple of str
        By decreasing mean similarity to the others of the set.
    missing : tuple of str
        Models of a fixed list that have no features in this run.
    candidates : int
        Models that the search could choose from; for a fixed list its length.
    objective : numpy.ndarray, shape (m, m)
        The similarity that was maximised; for a fixed list that of the reference proxy.
    selection : Selection or None
        The search's result; None for a fixed list.
    """

    models: tuple[str, ...]
    missing: tuple[str, ...]
    candidates: int
    objective: np.ndarray
    selection: Selection | None


def combined_similarity(
    matrices: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    """Weighted mean of similarity matrices: one proxy, or several combined.

    Parameters
    ----------
    matrices : mapping of str to numpy.ndarray, each of shape (m, m)
        A similarity matrix for each proxy.
    weights : mapping of str to float
        Not negative; their sum need not be 1.

    Returns
    -------
    numpy.ndarray, shape (m, m)
        float64.
    """
    total = sum(weights.values())
    return sum(weight / total * matrices[proxy] for proxy, weight in weights.items())


def choose_models(
    submission: Mapping[str, Any],
    matrices: Mapping[str, np.ndarray],
    registry: pd.DataFrame,
    *,
    k: int,
    restarts: int,
    seed: int,
    pools: Mapping[str, str | list[str]],
    reference_proxy: str,
) -> Chosen:
    """Fill one submission: search its pool on its proxies, or take its fixed list.

    Parameters
    ----------
    submission : mapping
        ``pool`` and ``proxies``, or ``models`` (see `parameters.Submission`).
    matrices : mapping of str to numpy.ndarray, each of shape (m, m)
        Similarity of the registry's models on each proxy.
    registry : pandas.DataFrame, m rows
        The models of the matrices, in their order.
    k, restarts, seed : int
        Of the search (section 2.3 of the paper).
    pools : mapping
        Pools by name.
    reference_proxy : str
        The proxy by which a fixed list is ordered.

    Returns
    -------
    Chosen

    Raises
    ------
    UserError
        If fewer than `k` models of the pool, or fewer than two of a list, have features.
    """
    names = list(registry.index)
    if submission.get("models"):
        listed = submission["models"]
        members = [names.index(name) for name in listed if name in names]
        if len(members) < 2:
            raise UserError(f"of the fixed list {', '.join(listed)} fewer than two have features")
        missing = tuple(name for name in listed if name not in names)
        objective, selection, candidates = matrices[reference_proxy], None, len(listed)
    else:
        pool = [names.index(name) for name in choose(registry, pools[submission["pool"]]).index]
        if len(pool) < k:
            raise UserError(
                f"pool {submission['pool']!r}: {len(pool)} models have features, k is {k}"
            )
        objective = combined_similarity(matrices, submission["proxies"])
        selection = select(objective, k, restarts=restarts, seed=seed, candidates=pool)
        members, missing, candidates = list(selection.indices), (), len(pool)
    contribution = objective[np.ix_(members, members)].sum(axis=1)
    order = np.argsort(-contribution, kind="stable")
    models = tuple(names[members[i]] for i in order)
    return Chosen(models, missing, candidates, objective, selection)


def summary_row(
    name: str,
    submission: Mapping[str, Any],
    chosen: Chosen,
    certificate: Certificate | None,
    matrices: Mapping[str, np.ndarray],
    registry: pd.DataFrame,
) -> dict[str, Any]:
    """One row on a submission: how it was found, how good it is, how good it could be.

    Parameters
    ----------
    name, submission
        Key and value of the parameter ``submissions``.
    chosen : Chosen
        What `choose_models` gave.
    certificate : Certificate or None
        Of a searched set.
    matrices : mapping of str to numpy.ndarray, each of shape (m, m)
        Similarity on each proxy, for a column each.
    registry : pandas.DataFrame, m rows
        The models of the matrices, in their order.

    Returns
    -------
    dict
        Column names to values.
    """
    members = [registry.index.get_loc(model) for model in chosen.models]
    row = {"submission": name, "title": submission["title"]}
    row["pool"] = submission.get("pool") or "fixed list"
    row |= {"candidates": chosen.candidates, "models": len(members)}
    row["objective"] = mean_similarity(chosen.objective, members)
    if certificate:
        row |= {"upper_bound": certificate.upper_bound, "proved_optimal": certificate.optimal}
    if chosen.selection:
        row["agreeing_restarts"] = chosen.selection.hits / chosen.selection.restarts
    row |= {proxy: mean_similarity(matrix, members) for proxy, matrix in matrices.items()}
    return row | {"missing": " ".join(chosen.missing)}


def trajectory_table(chosen: Mapping[str, Chosen]) -> pd.DataFrame:
    """Stage by stage: mean similarity of the greedy sets by size, then after swaps and restarts.

    Parameters
    ----------
    chosen : mapping of str to Chosen
        The searched submissions; fixed lists have no path and are left out.

    Returns
    -------
    pandas.DataFrame
        Columns submission, size, mean_similarity, stage (greedy, swaps, restarts).
    """
    rows = []
    for name, selection in ((n, c.selection) for n, c in chosen.items() if c.selection):
        rows += [(name, size, v, "greedy") for size, v in enumerate(selection.trajectory, 2)]
        size = len(selection.indices)
        rows.append((name, size, selection.swapped_score, "swaps"))
        rows.append((name, size, selection.score, "restarts"))
    return pd.DataFrame(rows, columns=["submission", "size", "mean_similarity", "stage"])
