"""Linear CKA between all pairs of many models, from Gram matrices that are computed once a model.

Let X be a model's features on n images, its columns centred, and K = X Xᵀ its Gram matrix.

    CKA(K, L) = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L))

    biased    HSIC = Σ_ij K_ij L_ij / (n−1)²                     Kornblith et al. 2019, eq. 3
    debiased  HSIC = [Σ_i≠j K_ij L_ij + s(K) s(L) / ((n−1)(n−2)) − 2/(n−2) Σ_i r_i(K) r_i(L)]
                     / (n(n−3))                                   Song et al. 2012, eq. 5

with r_i(K) = Σ_j≠i K_ij and s(K) = Σ_i r_i(K). All are sums over pairs of images, so three sums
suffice for both estimators (`GramSums`); they are collected tile by tile of the Gram matrices, and
a subset of the images needs only its own pairs (`realign_utils.uncertainty`).

Numbers: features are centred and scaled in their own precision, multiplied in float32, summed in
float64. What the centring leaves of the mean, float32's rounding of it, is taken out of the sums
exactly. The result is that of a float64 computation to 1e-6, whatever the features' mean and scale,
also where one image is far from all others.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from realign_utils.errors import unknown_estimator
from realign_utils.grams import MEMORY, GramStack, GramSums, Plan, gram_stack, gram_sums, plan

__all__ = [
    "ESTIMATORS",
    "MEMORY",
    "GramStack",
    "GramSums",
    "Plan",
    "check_estimator",
    "cka_matrix",
    "cka_of_sums",
    "gram_stack",
    "gram_sums",
    "hsic",
    "plan",
    "undefined",
]

ESTIMATORS = ("biased", "debiased")
_ROUNDING = 1e-6  # an HSIC below this share of the sum that it is left of may be rounding


def cka_matrix(
    features: Sequence[Any] | GramSums | GramStack,
    *,
    estimator: str = "biased",
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
    device: str | torch.device | None = None,
    epsilon: float = 0.0,
    memory: int = MEMORY,
    tf32: bool = False,
) -> torch.Tensor:
    """Linear CKA between all pairs of models: a similarity, 1 = same up to rotation and scale.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i), or GramSums or GramStack
        One matrix a model: the same n images in the same order. NumPy arrays, memory-mapped ones
        too, and tensors, of one real type. Or what `gram_sums` or `gram_stack` made
        of them, so that both estimators come from one computation.
    estimator : {"biased", "debiased"}
        Of HSIC. A debiased value may be negative: less alike than unrelated models on average.
    names : sequence of str, optional
        The models' names for messages; ``model 0`` … if not given.
    identifiers : sequence, optional
        For each model the names of its images, one a row, or a string that stands for them all in
        their order, such as a hash: a model with other images, or another order, is an error.
    device : str or torch.device, optional
        Where to compute; by default where the features are; ``"auto"``: on a GPU if there is one.
    epsilon : float, optional
        Added to the denominator, with HSIC in the features' own units. The challenge's portal
        adds 1e-6 to biased HSIC.
    memory : int, optional
        Bytes to use beside the features; does not change the result.
    tf32 : bool, optional
        Let a GPU multiply with 10-bit mantissas: faster, error up to 1e-3.

    Returns
    -------
    torch.Tensor
        (m, m), float64, symmetric, diagonal 1 (where `epsilon` is 0), and positive semidefinite to
        rounding if biased. NaN in row and column of a model whose HSIC with itself is zero or not
        finite; a RuntimeWarning says why (`undefined`).

    Raises
    ------
    UserError
        Naming the model: not a matrix of real numbers, not as many images as the first model or
        fewer than 4, other images or another order by `identifiers`, NaN or infinite values,
        constant features, another type or device than the first model's, another's name. Or fewer
        than two models.
    """
    check_estimator(estimator)
    if isinstance(features, GramStack):
        features = features.sums()
    elif not isinstance(features, GramSums):
        features = gram_sums(
            features,
            names=names,
            identifiers=identifiers,
            device=device,
            memory=memory,
            tf32=tf32,
        )
    for name, reason in undefined(features, estimator).items():
        warnings.warn(f"CKA of {name} is NaN: {reason}", RuntimeWarning, stacklevel=2)
    return cka_of_sums(features, estimator, epsilon)


def check_estimator(estimator: str) -> None:
    """Refuse what is not among `ESTIMATORS`."""
    if estimator not in ESTIMATORS:
        raise unknown_estimator(estimator, ESTIMATORS)


def hsic(sums: GramSums, estimator: str) -> torch.Tensor:
    """HSIC of all pairs by the formulas above: (m, m), float64, of the scaled features.

    For the biased one the Gram matrices are centred here, H = I − 1/n: Σ_ij (HKH)_ij (HLH)_ij =
    Σ_ij K_ij L_ij − 2/n Σ_i g_i(K) g_i(L) + s(K) s(L) / n², with g_i and s the sums of full rows.
    """
    n = sums.diagonal.shape[-1]
    if estimator == "debiased":
        rows, totals = sums.row_sums, sums.row_sums.sum(-1, keepdim=True)
        means = totals @ totals.mT / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows @ rows.mT
        return (sums.products + means) / (n * (n - 3))
    rows = sums.row_sums + sums.diagonal
    totals = rows.sum(-1, keepdim=True)
    products = sums.products + sums.diagonal @ sums.diagonal.mT
    return (products - 2 / n * rows @ rows.mT + totals @ totals.mT / n**2) / (n - 1) ** 2


def cka_of_sums(sums: GramSums, estimator: str, epsilon: float = 0.0) -> torch.Tensor:
    """CKA of all pairs, (m, m) in float64; as `cka_matrix`, without its warnings."""
    values = hsic(sums, estimator)
    own = values.diagonal()
    root = torch.where(own > _negligible(sums, estimator), own, torch.nan).sqrt()
    norms = root[:, None] * root[None, :]
    if epsilon:
        units = (sums.scales[:, None] * sums.scales[None, :]) ** 2
        norms = norms + epsilon * units
    matrix = values / norms
    matrix = (matrix + matrix.T) / 2
    return matrix if epsilon else matrix.fill_diagonal_(0) + torch.diag(root / root)


def undefined(sums: GramSums, estimator: str) -> dict[str, str]:
    """The models of which CKA is NaN, each with the reason."""
    own, least = hsic(sums, estimator).diagonal(), _negligible(sums, estimator)
    reasons = {}
    for name, value, bound in zip(sums.names, own.tolist(), least.tolist(), strict=True):
        if not np.isfinite(value):
            reasons[name] = f"its HSIC with itself is {value}"
        elif not value > bound:
            reasons[name] = (
                "its HSIC with itself is below rounding: all images are equally far apart"
            )
    return reasons


def _negligible(sums: GramSums, estimator: str) -> torch.Tensor:
    """What rounding may leave of each model's HSIC with itself: a share of Σ K_ij² / n²."""
    n = sums.diagonal.shape[-1]
    squares = sums.products.diagonal()
    if estimator == "biased":
        squares = squares + sums.diagonal.square().sum(-1)
    return _ROUNDING * squares / n**2
