"""How sure is a CKA value: resampled images, a jackknife, the chance level, a learning curve.

The images are a sample, so every CKA value is an estimate. A subset of the images needs only its
own pairs (i, j) of the Gram stack, so nothing is computed anew from the features while the stack
fits the memory.

Why not the plain bootstrap: drawing images with replacement puts pairs of equal images off the
diagonal of every Gram matrix, where they look like structure that all models share; CKA then rises
with the number of duplicates. Images are drawn without replacement instead (m-out-of-n, Politis &
Romano 1994). For a statistic with error ~ 1/√n, subsets of s of the n images spread around the
value of all n with variance σ²(1/s − 1/n), and the value of all n around its expectation with σ²/n:

    standard error = (standard deviation over the subsets) · √(s / (n − s))            (1)

which for s = n/2 is the spread itself (the delete-half jackknife, Shao & Wu 1989).

The interval is about the estimator's own expectation with n images. For the debiased estimator
that is, to O(1/n), the population's CKA; for the biased one it is higher (compare `chance`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from realign_utils.cka import (
    ESTIMATORS,
    MEMORY,
    GramStack,
    GramSums,
    cka_matrix,
    cka_of_sums,
    float32_products,
    gram_stack,
    gram_sums,
    hsic,
    inner_products,
)
from realign_utils.errors import UserError, unknown

LARGE = 1000
"""Images in a resample, by default, where the Gram stack does not fit the memory."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its standard error and the ends of its confidence interval."""

    estimate: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """CKA of subsets of the images, and what they say of the value of all images.

    Attributes
    ----------
    estimate : torch.Tensor
        (m, m), float64: CKA on all n images.
    matrices : torch.Tensor
        (draws, m, m), float64: CKA on each subset.
    size, n : int
        Images in a subset, and in all.
    level : float
        Of the intervals, e.g. 0.95.
    """

    estimate: torch.Tensor
    matrices: torch.Tensor
    size: int
    n: int
    level: float = 0.95

    @property
    def standard_error(self) -> torch.Tensor:
        """(m, m), by equation (1)."""
        return self._standard_error(self.matrices)

    @property
    def low(self) -> torch.Tensor:
        """(m, m), lower ends of the intervals: estimate − t · standard error."""
        return self.estimate - self._quantile * self.standard_error

    @property
    def high(self) -> torch.Tensor:
        """(m, m), upper ends; one may exceed 1 where CKA is nearly 1."""
        return self.estimate + self._quantile * self.standard_error

    def of(self, statistic: Callable[[torch.Tensor], torch.Tensor]) -> Interval:
        """Interval of any number computed from the matrix, e.g. the difference of two set means.

        Parameters
        ----------
        statistic : callable
            From (..., m, m) to (...).
        """
        value = float(statistic(self.estimate))
        error = float(self._standard_error(statistic(self.matrices)))
        reach = self._quantile * error
        return Interval(value, error, value - reach, value + reach)

    def of_mean(self, members: Sequence[int]) -> Interval:
        """Interval of the mean over the pairs of a set of models, given by their places."""
        return self.of(lambda matrices: mean_of_pairs(matrices, members))

    @property
    def _quantile(self) -> float:
        return float(student.ppf((1 + self.level) / 2, len(self.matrices) - 1))

    def _standard_error(self, values: torch.Tensor) -> torch.Tensor:
        return values.std(0) * (self.size / (self.n - self.size)) ** 0.5


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


@dataclass(frozen=True)
class LearningCurve:
    """A set's mean CKA against the number of images.

    Attributes
    ----------
    sizes : tuple of int
        Numbers of images.
    means, standard_errors : torch.Tensor
        (len(sizes),), float64: average over the draws, and the standard error that one sample of
        so many new images would have.
    """

    sizes: tuple[int, ...]
    means: torch.Tensor
    standard_errors: torch.Tensor


def mean_of_pairs(matrices: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
    """Mean over the pairs of different models of a set: from (..., m, m) to (...)."""
    places = torch.as_tensor(list(members))
    if len(places) < 2:
        raise UserError(f"mean over the pairs of {len(places)} model; a set needs two or more")
    rows, columns = torch.triu_indices(len(places), len(places), 1)
    return matrices[..., places[rows], places[columns]].mean(-1)


def draw_subsets(n: int, size: int, draws: int, seed: int) -> torch.Tensor:
    """Random subsets of the images: (draws, size), each sorted and without repetition."""
    if not 4 <= size < n:
        raise UserError(f"resamples of {size} images; from 4 to {n - 1} of the {n} are possible")
    if draws < 2:
        raise UserError(f"{draws} resamples; two or more are needed")
    generator = np.random.default_rng(seed)
    subsets = [np.sort(generator.choice(n, size, replace=False)) for _ in range(draws)]
    return torch.from_numpy(np.stack(subsets))


def resample(
    features: Sequence[Any] | GramStack,
    *,
    size: int | None = None,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.95,
    estimator: str = "biased",
    names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    memory: int = MEMORY,
) -> Resamples:
    """CKA of all pairs on random subsets of the images, without replacement.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i), or GramStack
        As in `realign_utils.cka.cka_matrix`. Where the Gram stack and its copy (8 m n² bytes) do
        not fit `memory`, each subset is computed from its features.
    size : int, optional
        Images in a subset: by default n/2, or `LARGE` where the stack does not fit.
    draws : int, optional
        Number of subsets; the standard error has a relative error of about 1/√(2 draws).
    seed : int, optional
        Equal seeds give equal subsets.
    level : float, optional
        Of the intervals.
    estimator, names, device, memory
        As in `cka_matrix`.

    Returns
    -------
    Resamples
        On the CPU.

    Raises
    ------
    UserError
        As `cka_matrix`; or if `size`, `draws` or `level` is impossible.
    """
    if not 0 < level < 1:
        raise UserError(f"level {level} of the intervals; between 0 and 1 is allowed")
    keywords = {"names": names, "device": device}
    stack = _stack_if_it_fits(features, memory, **keywords)
    if stack is not None:
        n = stack.diagonal.shape[1]
        subsets = draw_subsets(n, n // 2 if size is None else size, draws, seed)
        estimate = cka_matrix(stack, estimator=estimator)
        matrices = _from_stack(stack, subsets, estimator)
    else:
        n = len(features[0])
        subsets = draw_subsets(n, min(n // 2, LARGE) if size is None else size, draws, seed)
        keywords["memory"] = memory
        estimate = cka_matrix(features, estimator=estimator, **keywords)
        sums = (gram_sums(features, images=subset, **keywords) for subset in subsets)
        matrices = torch.stack([cka_of_sums(part, estimator).cpu() for part in sums])
    return Resamples(estimate.cpu(), matrices, subsets.shape[1], n, level)


def _stack_if_it_fits(
    features: Sequence[Any] | GramStack,
    memory: int,
    *,
    names: Sequence[str] | None,
    device: str | torch.device | None,
) -> GramStack | None:
    if isinstance(features, GramStack):
        return features
    if len(features) and 8 * len(features) * len(features[0]) ** 2 > memory:
        return None
    return gram_stack(features, names=names, device=device)


def _from_stack(stack: GramStack, subsets: torch.Tensor, estimator: str) -> torch.Tensor:
    """CKA on each subset from its pairs of images: (draws, m, m), float64, on the CPU."""
    m, n = stack.diagonal.shape
    subsets = subsets.to(stack.grams.device)
    # The entries of all models for a pair of images side by side: a pair is one contiguous read.
    pairs = stack.grams.flatten(1).T.contiguous()
    inside = torch.zeros(len(subsets), n, device=pairs.device).scatter_(1, subsets, 1.0)
    upper = torch.triu_indices(subsets.shape[1], subsets.shape[1], 1, device=pairs.device)
    matrices = []
    with float32_products(tf32=False):
        row_sums = (inside @ pairs.view(n, n * m)).view(-1, n, m)
        for subset, rows in zip(subsets, row_sums, strict=True):
            chosen = pairs[subset[upper[0]] * n + subset[upper[1]]]
            sums = GramSums(
                names=stack.names,
                products=2 * inner_products(chosen.T),
                row_sums=rows[subset].T.double(),
                diagonal=stack.diagonal[:, subset],
                scales=stack.scales,
            )
            matrices.append(cka_of_sums(sums, estimator).cpu())
    return torch.stack(matrices)


def jackknife(
    features: Sequence[Any] | GramStack,
    *,
    level: float = 0.95,
    estimator: str = "biased",
    names: Sequence[str] | None = None,
    device: str | torch.device | None = None,
) -> Resamples:
    """CKA of all pairs without each image in turn: a check of `resample` without chance in it.

    Equation (1) with all n subsets of s = n − 1 images is Tukey's jackknife. An image is taken out
    of the sums over all, so the whole costs about two products of the stack.

    Parameters
    ----------
    features, level, estimator, names, device
        As in `resample`; the Gram stack must fit the memory.

    Returns
    -------
    Resamples
        With n subsets of n − 1 images, in the images' order; on the CPU.
    """
    stack = features
    if not isinstance(features, GramStack):
        stack = gram_stack(features, names=names, device=device)
    n = stack.diagonal.shape[1]
    if n < 5:
        raise UserError(f"jackknife of {n} images; it needs 5 or more")
    total, matrices = stack.sums(), []
    estimate = cka_matrix(total, estimator=estimator).cpu()
    for image in range(n):
        others = [other for other in range(n) if other != image]
        row = stack.grams[:, image].double()
        sums = GramSums(
            names=stack.names,
            products=total.products - 2 * row @ row.T,
            row_sums=(total.row_sums - row)[:, others],
            diagonal=total.diagonal[:, others],
            scales=stack.scales,
        )
        matrices.append(cka_of_sums(sums, estimator).cpu())
    return Resamples(estimate, torch.stack(matrices), n - 1, n, level)


def chance(sums: GramSums | GramStack, *, estimator: str = "biased") -> Chance:
    """What CKA is when the correspondence of images is shuffled: the level of unrelated models.

    No shuffling is done: for symmetric A, B with zero row sums (the centred Gram matrices; for the
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
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
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


def learning_curve(
    features: Sequence[Any] | GramStack,
    members: Sequence[int],
    sizes: Sequence[int],
    *,
    draws: int = 50,
    seed: int = 0,
    estimator: str = "biased",
    device: str | torch.device | None = None,
    memory: int = MEMORY,
) -> LearningCurve:
    """Mean CKA of a set of models against the number of images.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i), or GramStack
        As in `resample`.
    members : sequence of int
        Places of the set's models.
    sizes : sequence of int
        Numbers of images, from 4 to n.
    draws, seed, estimator, device, memory
        As in `resample`; the draws are for each size.

    Returns
    -------
    LearningCurve
    """
    if isinstance(features, GramStack):
        chosen = features.choose(members)
    else:
        chosen = [features[place] for place in members]
    chosen = _stack_if_it_fits(chosen, memory, names=None, device=device) or chosen
    n = chosen.diagonal.shape[1] if isinstance(chosen, GramStack) else len(chosen[0])
    everyone = range(len(members))

    def drawn(size: int) -> Resamples:
        keywords = {"estimator": estimator, "device": device, "memory": memory}
        return resample(chosen, size=size, draws=draws, seed=seed, **keywords)

    half, means, errors = drawn(n // 2), [], []
    for size in sizes:
        # Subsets of more than half of the images overlap too much to show the spread themselves.
        some = half if size == n else drawn(size)
        spread = half if size > n // 2 else some
        matrices = some.estimate if size == n else some.matrices
        means.append(mean_of_pairs(matrices, everyone).mean())
        errors.append(spread.of_mean(everyone).standard_error * (n / size) ** 0.5)
    return LearningCurve(tuple(sizes), torch.stack(means), torch.tensor(errors).double())
