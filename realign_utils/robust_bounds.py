"""Upper bounds for objectives over several matrices, each proved on one matrix.

The worst of several means, and a lower confidence limit, are the least of many weighted sums of the
means. So the best of any *one* weighted sum bounds them from above, and a certificate for one
matrix, that combination, proves the bound. It is taken for the combination whose best is lowest; a
gap may remain that no combination closes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog, minimize

from realign_utils.certificate import Certificate, certify, with_set
from realign_utils.robust import RobustSelection, means_of
from realign_utils.search import select
from realign_utils.swaps import candidate_matrix

_CUTS = 100
"""Sets that may be tried against the combination before the last one is taken."""


@dataclass(frozen=True)
class RobustProof:
    """An upper bound on the objective of every set.

    Attributes
    ----------
    upper_bound : float
        No k-set of the candidates within the limits has a higher objective.
    weights : ndarray of shape (p,)
        Of the combination of the matrices on which that was proved.
    combined : ndarray of shape (n, n)
        That combination, with a zero diagonal.
    certificate : Certificate
        Of the selected set on `combined`. The set's mean there may lie above its objective.
    """

    upper_bound: float
    weights: np.ndarray
    combined: np.ndarray
    certificate: Certificate


def certify_worst(
    matrices: Sequence[object], selection: RobustSelection, *, time_limit: float = 60
) -> RobustProof:
    """Bound the best possible worst mean: it is at most any weighted mean of the means.

    Parameters
    ----------
    matrices : sequence of p array-likes or tensors of shape (n, n)
    selection : RobustSelection
        For `worst`.
    time_limit : float
        Seconds for combinations and certificate.

    Returns
    -------
    RobustProof
        With weights of sum 1.
    """
    return _certify(matrices, selection, _hardest_weights, time_limit)


def certify_lower_limit(
    matrices: Sequence[object],
    selection: RobustSelection,
    reach: float,
    *,
    time_limit: float = 60,
) -> RobustProof:
    """Bound the best possible lower confidence limit.

    The standard deviation of d means z is the largest of u'(z - mean z) / sqrt(d - 1) over all
    vectors u of length 1. So the limit is at most the estimate less `reach` times that for any u,
    which is a weighted sum of the means.

    Parameters
    ----------
    matrices : sequence of p array-likes or tensors of shape (n, n)
        The estimate, then the resampled matrices.
    selection : RobustSelection
        For `lower_limit(reach)`.
    reach : float
    time_limit : float
        Seconds for combinations and certificate.

    Returns
    -------
    RobustProof
        The first weight is 1; the others sum to 0.
    """
    return _certify(matrices, selection, lambda known: _hardest_direction(known, reach), time_limit)


def _certify(
    matrices: Sequence[object],
    selection: RobustSelection,
    hardest: Callable[[np.ndarray], tuple[np.ndarray, float]],
    time_limit: float,
) -> RobustProof:
    """Cutting planes: the hardest combination for the sets known, then the best set for that."""
    k = len(selection.indices)
    stack = np.array([candidate_matrix(matrix, k, None)[0] for matrix in matrices])
    options = {"candidates": selection.candidates, "limits": selection.limits, "restarts": 100}
    deadline, known = time.monotonic() + time_limit, [np.array(selection.means)]
    for _ in range(_CUTS):
        weights, level = hardest(np.array(known))
        combined = np.tensordot(weights, stack, 1)
        best = select(combined, k, **options)
        if best.score <= level + 1e-7 * np.abs(stack).max() or time.monotonic() > deadline:
            break
        known.append(means_of(stack, best.indices))
    certificate = certify(combined, best, time_limit=max(deadline - time.monotonic(), 0.0))
    return RobustProof(
        upper_bound=certificate.upper_bound,
        weights=weights,
        combined=combined,
        certificate=with_set(combined, certificate, selection.indices),
    )


def _hardest_weights(known: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights, of sum 1, for which the best of the known sets, (s, p), scores lowest."""
    s, p = known.shape
    found = linprog(
        np.append(np.zeros(p), 1.0),
        A_ub=np.column_stack([known, -np.ones(s)]),
        b_ub=np.zeros(s),
        A_eq=[[1.0] * p + [0.0]],
        b_eq=[1.0],
        bounds=[(0, 1)] * p + [(None, None)],
    )
    weights = np.maximum(found.x[:p], 0.0)
    return weights / weights.sum(), float(found.x[p])


def _hardest_direction(known: np.ndarray, reach: float) -> tuple[np.ndarray, float]:
    """The same for the lower limit: by duality the direction of the mixture of sets that is best.

    Of a mixture with shares q of the known sets the limit is q'm - reach |q'Z|, m the sets' estimates
    and Z their centred and scaled means on the resampled matrices.
    """
    estimates, spread = known[:, 0], known[:, 1:] - known[:, 1:].mean(axis=1, keepdims=True)
    spread /= np.sqrt(spread.shape[1] - 1)
    shares = np.full(len(known), 1 / len(known))
    if len(known) > 1:
        found = minimize(
            lambda q: reach * np.linalg.norm(q @ spread) - q @ estimates,
            shares,
            bounds=[(0, 1)] * len(known),
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
            options={"ftol": 1e-12},
        )
        shares = np.maximum(found.x, 0.0) / np.maximum(found.x, 0.0).sum()
    direction = shares @ spread
    # Shorter than 1 by more than rounding: a longer vector would not give a bound.
    direction /= max(np.linalg.norm(direction) * (1 + 1e-12), 1e-300)
    direction -= direction.mean()
    weights = np.append(1.0, -reach * direction / np.sqrt(spread.shape[1] - 1))
    return weights, float((known @ weights).max())
