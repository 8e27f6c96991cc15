"""How a submission is filled: a pool searched on its proxies, or a fixed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity
from realign_utils.certificate import Certificate
from realign_utils.errors import UserError
from realign_utils.registry import choose
from realign_utils.search import Selection, certify, select


@dataclass(frozen=True)
class Chosen:
    """The models of one submission and how they were found.

    Attributes
    ----------
    models : tuple of str
        By decreasing mean similarity to the others of the set.
    missing : tuple of str
        Models of the fixed list, or of the pool, that have no features in this run.
    candidates : int
        Models that the search could choose from; for a fixed list its length.
    objective : numpy.ndarray, shape (m, m)
        The similarity that was maximised; for a fixed list that of the reference proxy.
    selection : Selection or None
        The search's result; None for a fixed list.
    certificate : Certificate or None
        What is proved of the set; None for a fixed list.
    """

    models: tuple[str, ...]
    missing: tuple[str, ...]
    candidates: int
    objective: np.ndarray
    selection: Selection | None = None
    certificate: Certificate | None = None


def members(registry: pd.DataFrame, which: str | list[str], models: Sequence[str]) -> list[int]:
    """Places, in a list of models, of those that a query or list chooses from the registry.

    Parameters
    ----------
    registry : pandas.DataFrame
        All models, those without features too.
    which : str or list of str
        As for `registry.choose`.
    models : sequence of str
        The models that have features.

    Returns
    -------
    list of int
        Ascending for a query, in the list's order for a list; a chosen model without features
        is left out.
    """
    place = {name: i for i, name in enumerate(models)}
    return [place[name] for name in choose(registry, which).index if name in place]


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
    models: Sequence[str],
    registry: pd.DataFrame,
    *,
    k: int,
    restarts: int,
    seed: int,
    pools: Mapping[str, str | list[str]],
    reference_proxy: str,
    proof_seconds: float = 60,
) -> Chosen:
    """Fill one submission: search its pool on its proxies, or take its fixed list.

    Where the proof meets a better set than the search did, that set is taken. Where fewer than
    `k` models of a pool have features, the search takes what there is.

    Parameters
    ----------
    submission : mapping
        ``pool`` and ``proxies``, or ``models`` (see `parameters.Submission`).
    matrices : mapping of str to numpy.ndarray, each of shape (m, m)
        Similarity of the models on each proxy.
    models : sequence of str, length m
        The models of the matrices, in their order.
    registry : pandas.DataFrame
        All models, those without features too.
    k, restarts, seed : int
        Of the search (section 2.3 of the paper).
    pools : mapping
        Pools by name.
    reference_proxy : str
        The proxy by which a fixed list is ordered.
    proof_seconds : float
        Time limit of the upper bound.

    Returns
    -------
    Chosen

    Raises
    ------
    UserError
        If fewer than two models of the pool or list have features.
    """
    which = submission.get("models") or pools[submission["pool"]]
    wanted = which if submission.get("models") else list(choose(registry, which).index)
    rows = [models.index(name) for name in wanted if name in models]
    missing = tuple(name for name in wanted if name not in models)
    if len(rows) < 2:
        raise UserError(f"fewer than two models have features of: {', '.join(wanted)}")
    if submission.get("models"):
        objective = matrices[reference_proxy]
        return Chosen(_ordered(objective, rows, models), missing, len(wanted), objective)
    objective = combined_similarity(matrices, submission["proxies"])
    size = min(k, len(rows))
    selection = select(objective, size, restarts=restarts, seed=seed, candidates=rows)
    certificate = certify(objective, selection, time_limit=proof_seconds)
    if certificate.best != selection.indices:
        certificate = replace(
            certificate,
            indices=certificate.best,
            score=mean_similarity(objective, certificate.best),
        )
    best = _ordered(objective, certificate.indices, models)
    return Chosen(best, missing, len(rows), objective, selection, certificate)


def _ordered(objective: np.ndarray, rows: Sequence[int], models: Sequence[str]) -> tuple[str, ...]:
    """Names of a set's models by decreasing similarity to the others of the set."""
    block = objective[np.ix_(rows, rows)]
    order = np.argsort(np.diag(block) - block.sum(axis=1), kind="stable")
    return tuple(models[rows[i]] for i in order)


def summary_row(
    name: str,
    submission: Mapping[str, Any],
    chosen: Chosen,
    matrices: Mapping[str, np.ndarray],
    models: Sequence[str],
    registry: pd.DataFrame,
) -> dict[str, Any]:
    """One row on a submission: how it was found, how good it is, how good it could be.

    Parameters
    ----------
    name, submission
        Key and value of the parameter ``submissions``.
    chosen : Chosen
        What `choose_models` gave.
    matrices : mapping of str to numpy.ndarray, each of shape (m, m)
        Similarity on each proxy, for a column each.
    models : sequence of str, length m
        The models of the matrices, in their order.
    registry : pandas.DataFrame
        For the number of different mechanisms in the set.

    Returns
    -------
    dict
        Column names to values.
    """
    rows = [list(models).index(model) for model in chosen.models]
    row = {"submission": name, "title": submission["title"]}
    row["pool"] = submission.get("pool") or "fixed list"
    row |= {"candidates": chosen.candidates, "models": len(rows)}
    row["mechanisms"] = registry.loc[list(chosen.models), "mechanism"].nunique()
    row["objective"] = mean_similarity(chosen.objective, rows)
    if chosen.certificate:
        row["upper_bound"] = chosen.certificate.upper_bound
        row["proved_optimal"] = chosen.certificate.optimal
        row["agreeing_restarts"] = chosen.selection.hits / chosen.selection.restarts
    row |= {proxy: mean_similarity(matrix, rows) for proxy, matrix in matrices.items()}
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
