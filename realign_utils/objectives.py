"""What a search maximises over several proxies, each with an upper bound on what it could reach.

Three objectives. The *mean*: the weighted mean of the proxies. The *worst*: the mean on that proxy
which likes the set least. The *lower limit*: the lower end of the 95 % interval of the weighted
mean, so that of two sets of equal mean the one is preferred whose mean depends less on the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from realign_utils.certificate import Certificate, certify, with_set
from realign_utils.limits import Limit
from realign_utils.long_search import search_within
from realign_utils.robust import RobustSelection, lower_limit, select_robust
from realign_utils.robust_bounds import RobustProof, certify_lower_limit, certify_worst
from realign_utils.search import Selection
from realign_utils.uncertainty import Resamples


@dataclass(frozen=True)
class Found:
    """A set, its objective, and what is proved of it.

    Attributes
    ----------
    selection : Selection or RobustSelection
        The search's result.
    score : float
        The set's objective.
    upper_bound : float
        No set that was allowed has a higher objective.
    similarity : ndarray of shape (n, n)
        The matrix on which that is proved: what was maximised, or for the worst proxy and the lower
        limit the combination of matrices whose best set bounds them.
    certificate : Certificate
        On that matrix; its set is the one that was found.
    """

    selection: Selection | RobustSelection
    score: float
    upper_bound: float
    similarity: np.ndarray
    certificate: Certificate

    @property
    def optimal(self) -> bool:
        """Whether no allowed set has an objective higher by more than the tolerance."""
        return self.upper_bound - self.score <= self.certificate.tolerance


def combined_similarity(
    matrices: Mapping[str, np.ndarray], weights: Mapping[str, float]
) -> np.ndarray:
    """Weighted mean of similarity matrices: one proxy, or several combined.

    Parameters
    ----------
    matrices : mapping of str to numpy.ndarray, each of shape (..., m, m)
        A similarity matrix, or several, for each proxy.
    weights : mapping of str to float
        Not negative; their sum need not be 1.

    Returns
    -------
    numpy.ndarray, shape (..., m, m)
        float64.
    """
    total = sum(weights.values())
    return sum(weight / total * matrices[proxy] for proxy, weight in weights.items())


def plausible(resamples: Resamples) -> np.ndarray:
    """Matrices that other images might have given: about the estimate, spread as it is uncertain.

    CKA on fewer images has another expectation (the biased estimator a higher one) and another
    spread. Both are put right (`uncertainty`, equation 1).

    Parameters
    ----------
    resamples : Resamples

    Returns
    -------
    ndarray of shape (draws, m, m), float64
        Their mean is the estimate, but for what is cut off at −1 and 1: where few images decide a
        value, its spread is lopsided, and made as wide as its error it would leave CKA's range.
    """
    matrices = resamples.matrices.numpy()
    spread = resamples.widening * (matrices - matrices.mean(axis=0))
    return np.clip(resamples.estimate.numpy() + spread, -1.0, 1.0)


def maximise(
    matrices: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    k: int,
    *,
    objective: str = "mean",
    candidates: Sequence[int] | None = None,
    limits: Sequence[Limit] = (),
    resamples: Mapping[str, Resamples] | None = None,
    restarts: int = 500,
    seed: int = 0,
    proof_seconds: float = 60,
    show: Callable[[str], object] | None = None,
) -> Found:
    """Search for the k models of highest objective, and bound it.

    Parameters
    ----------
    matrices : mapping of str to numpy.ndarray, each of shape (n, n)
        Similarity on each proxy.
    weights : mapping of str to float
        Of the proxies that count.
    k : int
    objective : {"mean", "worst", "lower_limit"}
    candidates : sequence of int, optional
        Rows that may be chosen; all by default.
    limits : sequence of Limit
    resamples : mapping of str to Resamples, optional
        On each proxy, drawn with different seeds; for ``lower_limit``.
    restarts, seed : int
        Of the search; ``lower_limit`` makes at most 50 restarts, for it looks at every resampled
        matrix at every swap.
    proof_seconds : float
        Time limit of the upper bound, and of the search where the matrix is large.
    show : callable, optional
        Gets lines of progress of search and proof of a mean.

    Returns
    -------
    Found
        Where the proof of the mean meets a better set than the search did, that set.
    """
    options = {"seed": seed, "candidates": candidates, "limits": limits}
    if objective == "mean":
        similarity = combined_similarity(matrices, weights)
        options |= {"restarts": restarts, "time_limit": proof_seconds, "show": show}
        selection = search_within(similarity, k, **options)
        certificate = certify(similarity, selection, time_limit=proof_seconds, show=show)
        certificate = with_set(similarity, certificate, certificate.best)
        if certificate.best != selection.indices:  # to which no restart led
            better = {"indices": certificate.best, "score": certificate.score, "hits": 0}
            selection = replace(selection, **better)
        score, bound = certificate.score, certificate.upper_bound
        return Found(selection, score, bound, similarity, certificate)
    if objective == "worst":
        stack = [matrices[proxy] for proxy in weights]
        chosen = select_robust(stack, k, restarts=restarts, **options)
        return _found(chosen, certify_worst(stack, chosen, time_limit=proof_seconds))
    stack, reach = _estimate_and_resamples(matrices, weights, resamples)
    options |= {"objective": lower_limit(reach), "restarts": min(restarts, 50)}
    chosen = select_robust(stack, k, **options)
    return _found(chosen, certify_lower_limit(stack, chosen, reach, time_limit=proof_seconds))


def judge_list(
    similarity: np.ndarray,
    rows: Sequence[int],
    *,
    restarts: int = 500,
    seed: int = 0,
    proof_seconds: float = 60,
    show: Callable[[str], object] | None = None,
) -> Found:
    """Bound what as many models of all could reach beside a set that was not searched.

    Parameters
    ----------
    similarity : numpy.ndarray, shape (n, n)
    rows : sequence of int, length k
        The set.
    restarts, seed, proof_seconds, show
        As in `maximise`.

    Returns
    -------
    Found
        With the score of the given set.
    """
    options = {"restarts": restarts, "seed": seed, "time_limit": proof_seconds, "show": show}
    selection = search_within(similarity, len(rows), **options)
    certificate = certify(similarity, selection, time_limit=proof_seconds, show=show)
    certificate = with_set(similarity, certificate, rows)
    score, bound = certificate.score, certificate.upper_bound
    return Found(selection, score, bound, similarity, certificate)


def _estimate_and_resamples(
    matrices: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    resamples: Mapping[str, Resamples] | None,
) -> tuple[list[np.ndarray], float]:
    """The weighted mean, plausible other ones, and how many of their deviations the limit is below."""
    several = {proxy: plausible(resamples[proxy]) for proxy in weights}
    first = next(resamples[proxy] for proxy in weights)
    whole = combined_similarity(matrices, weights)
    return [whole, *combined_similarity(several, weights)], first.quantile


def _found(selection: RobustSelection, proof: RobustProof) -> Found:
    return Found(selection, selection.score, proof.upper_bound, proof.combined, proof.certificate)
