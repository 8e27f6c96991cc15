"""Regression over pairs of models, whose rows are not independent: every model is in many pairs.

The test of a coefficient is the multiple regression quadratic assignment procedure with double
semi-partialing (Dekker, Krackhardt & Snijders 2007, "Sensitivity of MRQAP tests to collinearity and
autocorrelation conditions", Psychometrika 72): the regressor's residuals on the other regressors
are permuted by exchanging *models*, rows and columns together, so that what pairs share by sharing
a model stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 999
"""Of the test: the smallest p-value is 0.001."""


@dataclass(frozen=True)
class Dyadic:
    """One coefficient of a regression over pairs of models.

    Attributes
    ----------
    coefficient : float
    partial : float
        Partial correlation of the outcome with the regressor, given the other regressors.
    p : float
        Two-sided, by permutation; NaN where the regressor is constant or follows from the others.
    """

    coefficient: float
    partial: float
    p: float


def pair_places(models: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pairs of models, (p,) each."""
    return np.triu_indices(models, 1)


def with_constant(columns: Sequence[np.ndarray], pairs: int) -> np.ndarray:
    """Regressors as a design matrix, a column of ones first."""
    return np.column_stack([np.ones(pairs), *columns])


def residuals(values: np.ndarray, design: np.ndarray) -> np.ndarray:
    """What of the values, (..., p), the design, (p, q), leaves unexplained by least squares."""
    basis, upper = np.linalg.qr(design)
    scale = np.abs(np.diag(upper))
    basis = basis[:, scale > 1e-10 * scale.max()]
    return values - (values @ basis) @ basis.T


def coefficient(outcome: np.ndarray, regressor: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Coefficient of a regressor beside the others (Frisch, Waugh & Lovell): (..., p) to (...).

    Parameters
    ----------
    outcome : numpy.ndarray, shape (..., p)
    regressor : numpy.ndarray, shape (p,)
    others : numpy.ndarray, shape (p, q)
        The other columns of the design, the constant among them.
    """
    own = residuals(regressor, others)
    size = own @ own
    if size <= 1e-12 * max(regressor @ regressor, 1e-300):
        return np.full(outcome.shape[:-1], np.nan)
    return outcome @ own / size


def mrqap(
    outcome: np.ndarray,
    regressor: np.ndarray,
    others: Sequence[np.ndarray] = (),
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Dyadic:
    """Coefficient of a relation between models beside other relations, tested by permutation.

    Parameters
    ----------
    outcome, regressor : numpy.ndarray, shape (m, m)
        Symmetric; the diagonal has no part in it.
    others : sequence of numpy.ndarray, each (m, m)
        Rival explanations.
    permutations : int
    seed : int

    Returns
    -------
    Dyadic
    """
    m, places = len(outcome), pair_places(len(outcome))
    rest = with_constant([other[places] for other in others], len(places[0]))
    y, x = outcome[places], regressor[places]
    value = float(coefficient(y, x, rest))
    if np.isnan(value) or len(y) <= rest.shape[1] + 1:
        return Dyadic(value, np.nan, np.nan)
    left, own = residuals(y, rest), residuals(x, rest)
    observed = float(_correlations(own[None], left)[0])
    square, rng = np.zeros((m, m)), np.random.default_rng(seed)
    square[places] = own
    square += square.T
    order = np.array([rng.permutation(m) for _ in range(permutations)])
    permuted = square[order[:, places[0]], order[:, places[1]]]
    chance = _correlations(residuals(permuted, rest), left)
    # For equal degrees of freedom |t| and |partial correlation| rank alike.
    as_large = int((np.abs(chance) >= abs(observed) - 1e-12).sum())
    return Dyadic(value, observed, (1 + as_large) / (1 + permutations))


def _correlations(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Correlation of each row, (r, p), with the values; all have mean zero."""
    sizes = np.sqrt((rows * rows).sum(axis=1) * (values @ values))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sizes > 0, rows @ values / sizes, 0.0)
