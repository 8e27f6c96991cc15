"""The chance level of CKA: what is left of it when one model's images are shuffled.

No shuffling is done: mean and variance over all permutations are known in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from realign_utils.cka import GramStack, GramSums, check_estimator, hsic


@dataclass(frozen=True)
class Chance:
    """CKA of models whose images are shuffled against each other: exact moments over all shuffles.

    Attributes
    ----------
    mean, standard_deviation : torch.Tensor
        (m, m), float64; the diagonal is that of a model against its own shuffled copy.
    """

    mean: torch.Tensor
    standard_deviation: torch.Tensor


def chance(sums: GramSums | GramStack, *, estimator: str = "biased") -> Chance:
    """What CKA is when the correspondence of images is shuffled: the level of unrelated models.

    For symmetric A, B with zero row sums (the centred Gram matrices; for the
    debiased estimator the U-centred ones, of zero diagonal) mean and variance of Σ A_ij B_π(i)π(j)
    over all n! permutations π are known (Kazi-Aoual et al. 1995, for the RV coefficient, which is
    biased linear CKA). The mean is tr A tr B / (n−1): 0 for the debiased estimator; for the biased
    one near 1 where the features have more dimensions than there are images.

    Parameters
    ----------
    sums : GramSums or GramStack
        Of any number of images.
    estimator : {"biased", "debiased"}
        Of HSIC.

    Returns
    -------
    Chance
    """
    check_estimator(estimator)
    sums = sums.sums() if isinstance(sums, GramStack) else sums
    n = sums.diagonal.shape[1]
    own = hsic(sums, estimator).diagonal()
    trace = fourth = torch.zeros_like(own)
    if estimator == "biased":
        rows = sums.row_sums + sums.diagonal
        centred = sums.diagonal - 2 / n * rows + rows.sum(1, keepdim=True) / n**2
        trace, fourth = centred.sum(1), centred.square().sum(1)
    square = own * ((n - 1) ** 2 if estimator == "biased" else n * (n - 3))
    first = (n - 1) * square - trace**2
    second = n * (n + 1) * fourth - (n - 1) * (trace**2 + 2 * square)
    variance = 2 * torch.outer(first, first) / ((n - 1) ** 2 * (n + 1) * (n - 2))
    variance += torch.outer(second, second) / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    norms = torch.outer(square, square).sqrt()
    mean = torch.outer(trace, trace) / (n - 1)
    return Chance((mean / norms).cpu(), (variance.sqrt() / norms).cpu())
