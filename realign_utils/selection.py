"""How a submission is filled: a pool searched on its proxies, or a fixed list."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity
from realign_utils.certificate_files import save_certificate
from realign_utils.constraints import limits_of
from realign_utils.errors import UserError
from realign_utils.matrices import write_matrix
from realign_utils.objectives import Found, judge_list, maximise
from realign_utils.registry import choose
from realign_utils.search import Selection
from realign_utils.uncertainty import Resamples


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
        Models that the bound is over: the pool's; for a fixed list all.
    found : Found
        What was maximised and what is proved of it. For a fixed list: its mean on the reference
        proxy, and the bound on that of as many models of the whole registry.
    searched : bool
        False for a fixed list.
    """

    models: tuple[str, ...]
    missing: tuple[str, ...]
    candidates: int
    found: Found
    searched: bool = True


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
    resamples: Mapping[str, Resamples] | None = None,
) -> Chosen:
    """Fill one submission: search its pool for its objective, or take its fixed list.

    Where fewer than `k` models of a pool have features, the search takes what there is.

    Parameters
    ----------
    submission : mapping
        ``pool``, ``proxies``, ``objective`` and ``constraints``, or ``models`` (see
        `parameters.Submission`).
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
    resamples : mapping of str to Resamples, optional
        On each proxy; only the objective ``lower_limit`` needs them.

    Returns
    -------
    Chosen

    Raises
    ------
    UserError
        If fewer than two models of the pool or list have features, or no set of those that have
        keeps the constraints.
    """
    which = submission.get("models") or pools[submission["pool"]]
    wanted = which if submission.get("models") else list(choose(registry, which).index)
    rows = [models.index(name) for name in wanted if name in models]
    missing = tuple(name for name in wanted if name not in models)
    if len(rows) < 2:
        raise UserError(f"fewer than two models have features of: {', '.join(wanted)}")
    options = {"restarts": restarts, "seed": seed, "proof_seconds": proof_seconds}
    if submission.get("models"):
        found = judge_list(matrices[reference_proxy], rows, **options)
        ordered = _ordered(found.similarity, rows, models)
        return Chosen(ordered, missing, len(models), found, searched=False)
    found = maximise(
        matrices,
        submission["proxies"],
        min(k, len(rows)),
        objective=submission.get("objective", "mean"),
        candidates=rows,
        limits=limits_of(submission.get("constraints"), registry, models),
        resamples=resamples,
        **options,
    )
    best = _ordered(found.similarity, found.certificate.indices, models)
    return Chosen(best, missing, len(rows), found)


def _ordered(similarity: np.ndarray, rows: Sequence[int], models: Sequence[str]) -> tuple[str, ...]:
    """Names of a set's models by decreasing similarity to the others of the set."""
    block = similarity[np.ix_(rows, rows)]
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
    row["maximised"] = submission.get("objective") or "mean" if chosen.searched else "nothing"
    row |= {"objective": chosen.found.score, "upper_bound": chosen.found.upper_bound}
    row["proved_optimal"] = chosen.found.optimal
    if chosen.searched:
        selection = chosen.found.selection
        row["agreeing_restarts"] = selection.hits / max(selection.restarts, 1)
    row |= {proxy: mean_similarity(matrix, rows) for proxy, matrix in matrices.items()}
    return row | {"missing": " ".join(chosen.missing)}


def trajectory_table(chosen: Mapping[str, Chosen]) -> pd.DataFrame:
    """Stage by stage: mean similarity of the greedy sets by size, then after swaps and restarts.

    Parameters
    ----------
    chosen : mapping of str to Chosen
        Those without a greedy stage (fixed lists, objectives over several matrices) are left out.

    Returns
    -------
    pandas.DataFrame
        Columns submission, size, mean_similarity, stage (greedy, swaps, restarts). No number after
        swaps where they did not lead the greedy set within the constraints.
    """
    rows = []
    searched = {name: c.found.selection for name, c in chosen.items() if c.searched}
    for name, selection in searched.items():
        if not isinstance(selection, Selection):
            continue
        rows += [(name, size, v, "greedy") for size, v in enumerate(selection.trajectory, 2)]
        size = len(selection.indices)
        rows.append((name, size, selection.swapped_score, "swaps"))
        rows.append((name, size, selection.score, "restarts"))
    return pd.DataFrame(rows, columns=["submission", "size", "mean_similarity", "stage"])


def save_proof(stem: str | os.PathLike[str], chosen: Chosen, models: Sequence[str]) -> Path:
    """Write a submission's certificate, and beside it the matrix that it is about.

    Parameters
    ----------
    stem : path
        Without ending: of ``<stem>.safetensors`` and ``<stem>_matrix.csv``.
    chosen : Chosen
    models : sequence of str, length m
        The models of the matrices, in their order.

    Returns
    -------
    pathlib.Path
        Of the certificate, to be checked by ``realign check-certificate``.
    """
    similarity = chosen.found.similarity.copy()
    np.fill_diagonal(similarity, 1.0)  # a combination may lack it; no mean over pairs uses it
    write_matrix(f"{stem}_matrix.csv", models, similarity)
    return save_certificate(f"{stem}.safetensors", chosen.found.certificate)
