"""How firm a profile's submissions are when other images are drawn, in tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity
from realign_utils.objectives import Found, combined_similarity, maximise, plausible
from realign_utils.selection import Chosen
from realign_utils.stability import equally_good, membership
from realign_utils.uncertainty import Resamples

ALTERNATIVE = ["score", "low", "equally_good", "complete", "shared", "other_score"]
ALTERNATIVE += ["difference", "difference_low", "difference_high", "other_models"]


def membership_table(
    chosen: Mapping[str, Chosen],
    submissions: Mapping[str, Mapping[str, Any]],
    resamples: Mapping[str, Resamples],
    models: Sequence[str],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """How often each model is in the best set, if other images had been drawn.

    Parameters
    ----------
    chosen : mapping of str to Chosen
    submissions : mapping of str to mapping
        The parameter of that name.
    resamples : mapping of str to Resamples
        On each proxy.
    models : sequence of str
        The models of the matrices, in their order.
    seed : int
        Of the searches.

    Returns
    -------
    pandas.DataFrame
        Columns submission, model, in_set, share; a row for each model that is in the set or ever in
        the best one. Fixed lists are left out, and the objective lower_limit, which has the
        resampled images in it already.
    """
    several = {proxy: plausible(one) for proxy, one in resamples.items()}
    rows = []
    for name, one in chosen.items():
        objective = submissions[name].get("objective") or "mean"
        if not one.searched or objective == "lower_limit":
            continue
        weights, selection = submissions[name]["proxies"], one.found.selection
        worst = objective == "worst"
        shares = membership(
            np.stack([several[proxy] for proxy in weights], axis=1)
            if worst
            else combined_similarity(several, weights),
            len(selection.indices),
            restarts=5 if worst else 20,
            seed=seed,
            candidates=selection.candidates,
            limits=selection.limits,
        )
        rows += [
            (name, model, model in one.models, share)
            for model, share in zip(models, shares, strict=True)
            if share or model in one.models
        ]
    table = pd.DataFrame(rows, columns=["submission", "model", "in_set", "share"])
    return table.sort_values(["submission", "share"], ascending=[True, False], kind="stable")


def alternatives_table(
    chosen: Mapping[str, Chosen],
    submissions: Mapping[str, Mapping[str, Any]],
    resamples: Mapping[str, Resamples],
    models: Sequence[str],
) -> pd.DataFrame:
    """Sets that are as good as the submitted one, as far as the images can tell.

    Parameters
    ----------
    chosen, submissions, resamples, models
        As for `membership_table`.

    Returns
    -------
    pandas.DataFrame
        By submission whose objective is the mean: score, low (the lower end of its 95 % interval),
        equally_good (sets met whose mean is not below that), complete (whether those are all that
        swaps lead to), and of the one that differs most: shared (models in common), its score, the
        difference of the two with its own interval (difference_low, difference_high), and models.
        Both means move alike with the images, so the difference is known better than either.
    """
    several = {proxy: plausible(one) for proxy, one in resamples.items()}
    rows = []
    for name, one in chosen.items():
        if not one.searched or (submissions[name].get("objective") or "mean") != "mean":
            continue
        matrices = combined_similarity(several, submissions[name]["proxies"])
        # Of several proxies the one of which least is known decides how wide an interval is.
        quantile = max(resamples[proxy].quantile for proxy in submissions[name]["proxies"])
        rows.append({"submission": name} | _alternatives(one.found, matrices, models, quantile))
    return pd.DataFrame(rows, columns=["submission", *ALTERNATIVE])


def _alternatives(
    found: Found, matrices: np.ndarray, models: Sequence[str], quantile: float
) -> dict[str, Any]:
    best = found.certificate
    own = np.array([mean_similarity(matrix, best.indices) for matrix in matrices])
    low = found.score - quantile * own.std(ddof=1)
    good = equally_good(found.similarity, best, low)
    other = np.array([mean_similarity(matrix, good.farthest) for matrix in matrices])
    difference, error = found.score - good.farthest_score, (own - other).std(ddof=1)
    values = (found.score, low, good.count, good.complete, good.shared, good.farthest_score)
    reach = (difference, difference - quantile * error, difference + quantile * error)
    listed = " ".join(models[row] for row in good.farthest)
    return dict(zip(ALTERNATIVE, (*values, *reach, listed), strict=True))


def choices_table(
    matrices: Mapping[str, np.ndarray],
    resamples: Mapping[str, Resamples],
    models: Sequence[str],
    k: int,
    *,
    reference_proxy: str,
    restarts: int = 500,
    seed: int = 0,
    proof_seconds: float = 60,
) -> pd.DataFrame:
    """The best sets of all models by every objective, each with its bound.

    Parameters
    ----------
    matrices : mapping of str to numpy.ndarray, each of shape (m, m)
        Similarity on each proxy.
    resamples : mapping of str to Resamples
        On each proxy.
    models : sequence of str, length m
    k : int
    reference_proxy : str
        The proxy whose lower limit is maximised.
    restarts, seed, proof_seconds
        As in `objectives.maximise`.

    Returns
    -------
    pandas.DataFrame
        Columns chosen_on (a proxy, "mean of proxies", "worst proxy", "lower limit of ..."),
        objective, score, upper_bound, proved_optimal, models and images (whose images chose the
        set; both space-separated).
    """
    tasks = {proxy: ("mean", {proxy: 1.0}) for proxy in matrices}
    if len(matrices) > 1:
        tasks["mean of proxies"] = ("mean", dict.fromkeys(matrices, 1.0))
        tasks["worst proxy"] = ("worst", dict.fromkeys(matrices, 1.0))
    tasks[f"lower limit of {reference_proxy}"] = ("lower_limit", {reference_proxy: 1.0})
    options = {"restarts": restarts, "seed": seed, "proof_seconds": proof_seconds}
    rows = []
    for name, (objective, weights) in tasks.items():
        found = maximise(matrices, weights, k, objective=objective, resamples=resamples, **options)
        listed = " ".join(models[row] for row in found.certificate.indices)
        proved = (found.score, found.upper_bound, found.optimal)
        rows.append((name, objective, *proved, listed, " ".join(weights)))
    columns = ["chosen_on", "objective", "score", "upper_bound", "proved_optimal"]
    columns += ["models", "images"]
    return pd.DataFrame(rows, columns=columns)
