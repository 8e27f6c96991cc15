"""How sure is a CKA value: its spread over random subsets of the images.

The images are a sample, so every CKA value is an estimate. A subset of the images needs only its
own pairs (i, j) of the Gram stack, so nothing is computed anew from the features while the stack
fits the memory.

Why not the plain bootstrap: drawing images with replacement puts pairs of equal images off the
diagonal of every Gram matrix, where they look like structure that all models share; CKA then rises
with the number of duplicates. Images are drawn without replacement instead (m-out-of-n, Politis &
Romano 1994). For a statistic with error ~ 1/√n, subsets of s of the n images spread around the
value of all n with variance σ²(1/s − 1/n), and the value of all n around its expectation with σ²/n:

    standard error = (standard deviation over the subsets) · √(s / (n − s))            (1)

(the delete-d jackknife, d = n − s: Shao & Wu 1989). It asks that the statistic is about as variable
on s images as on n. Biased CKA is not: with d ≥ s dimensions it saturates near 1, where nothing
varies, and small subsets give intervals far too narrow. So subsets are nine tenths of the images;
where only small ones can be had, the biased estimator's spread is that of the debiased one.

What the intervals cannot do: (1) is too wide for nearly unrelated models. There the debiased
estimator's variance falls as 1/n² (a degenerate U-statistic), not 1/n, and (1) exceeds the standard
error by up to √(n/s): 1.4 times in simulations with nine tenths, 3 times with a tenth. Such
intervals err on the safe side.

The interval is about the estimator's own expectation with n images. For the debiased estimator
that is, to O(1/n), the population's CKA; for the biased one it is higher (`realign_utils.chance`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import t as student

from realign_utils.cka import GramStack, cka_matrix, cka_of_sums
from realign_utils.errors import UserError
from realign_utils.grams import MEMORY
from realign_utils.subsets import digest, draw_plan, stack_if_it_fits, subset_sums

_LOST = 0.05  # subsets on which CKA may be undefined and is left out; beyond, so is the error


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
        (draws, m, m), float64: CKA on each subset. Where a biased estimate comes with subsets that
        are small beside n: the debiased values, moved so that their mean is the estimate.
    size, n : int
        Images in a subset, and in all.
    level : float
        Of the intervals, e.g. 0.95.
    groups : (int, int), optional
        Groups in a subset, and of all images, where whole groups were drawn: what equation (1)
        then counts. `size` is the mean number of images.
    drawn : str
        Digest of the subsets (`realign_utils.subsets.digest`): where two sets of images have the
        same, draw by draw the same places were drawn. "": not known.
    """

    estimate: torch.Tensor
    matrices: torch.Tensor
    size: int
    n: int
    level: float = 0.95
    groups: tuple[int, int] | None = None
    drawn: str = ""

    @property
    def widening(self) -> float:
        """√(s / (n − s)) of equation (1): standard error over standard deviation of the subsets."""
        drawn, units = self.groups or (self.size, self.n)
        return (drawn / (units - drawn)) ** 0.5

    @property
    def degrees(self) -> int:
        """Of freedom of the standard error: one fewer than subsets, or than units if these are fewer."""
        units = self.groups[1] if self.groups else self.n
        return min(len(self.matrices), units) - 1

    @property
    def quantile(self) -> float:
        """Of Student's t: half the length of an interval in standard errors."""
        return float(student.ppf((1 + self.level) / 2, self.degrees))

    @property
    def standard_error(self) -> torch.Tensor:
        """(m, m), by equation (1)."""
        return self._standard_error(self.matrices)

    @property
    def low(self) -> torch.Tensor:
        """(m, m), lower ends of the intervals: estimate − t · standard error."""
        return self.estimate - self.quantile * self.standard_error

    @property
    def high(self) -> torch.Tensor:
        """(m, m), upper ends; one may exceed 1 where CKA is nearly 1."""
        return self.estimate + self.quantile * self.standard_error

    def of(self, statistic: Callable[[torch.Tensor], torch.Tensor]) -> Interval:
        """Interval of any number computed from the matrix, e.g. the difference of two set means.

        Parameters
        ----------
        statistic : callable
            From (..., m, m) to (...).
        """
        value = float(statistic(self.estimate))
        error = float(self._standard_error(statistic(self.matrices)))
        reach = self.quantile * error
        return Interval(value, error, value - reach, value + reach)

    def of_mean(self, members: Sequence[int]) -> Interval:
        """Interval of the mean over the pairs of a set of models, given by their places."""
        return self.of(lambda matrices: mean_of_pairs(matrices, members))

    def _standard_error(self, values: torch.Tensor) -> torch.Tensor:
        known = values.isfinite()
        count = known.sum(0)
        deviations = values - torch.where(known, values, 0).sum(0) / count
        error = (torch.where(known, deviations.square(), 0).sum(0) / (count - 1)).sqrt()
        enough = count >= max(2, (1 - _LOST) * len(values))
        return torch.where(enough, self.widening * error, torch.nan)


def mean_of_pairs(matrices: torch.Tensor, members: Sequence[int]) -> torch.Tensor:
    """Mean over the pairs of different models of a set: from (..., m, m) to (...).

    Of tensors and of many matrices at once; `realign_utils.calibrate.mean_similarity` of an array.
    """
    places = torch.as_tensor(list(members))
    if len(places) < 2:
        raise UserError(f"mean over the pairs of {len(places)} model; a set needs two or more")
    rows, columns = torch.triu_indices(len(places), len(places), 1)
    return matrices[..., places[rows], places[columns]].mean(-1)


def resample(
    features: Sequence[Any] | GramStack,
    *,
    size: int | None = None,
    draws: int = 200,
    seed: int = 0,
    level: float = 0.95,
    estimator: str = "biased",
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
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
        Images in a subset: by default nine tenths; where the stack does not fit, half of them, at
        most `LARGE`.
    draws : int, optional
        Number of subsets; the standard error has a relative error of about 1/√(2 draws).
    seed : int, optional
        Equal seeds give equal subsets.
    level : float, optional
        Of the intervals.
    groups : sequence, length n, optional
        The group of each image: images that are alike for another reason than chance, such as
        patches of one place. Whole groups are drawn, and `size` counts groups: the interval is then
        over other groups. By default each image is its own group.
    estimator, names, identifiers, device, memory
        As in `cka_matrix`. A Gram stack has its names, and its images were checked when it was made.

    Returns
    -------
    Resamples
        On the CPU. A RuntimeWarning names models whose CKA is undefined on some subsets; a few
        such subsets are left out, with many the standard error is NaN.

    Raises
    ------
    UserError
        As `cka_matrix`; or if `size`, `draws` or `level` is impossible.
    """
    check_level(level)
    keywords = {"names": names, "device": device, "memory": memory}
    stack = stack_if_it_fits(features, identifiers=identifiers, **keywords)
    source = features if stack is None else stack
    n = len(features[0]) if stack is None else stack.diagonal.shape[1]
    plan = draw_plan(n, groups, size, draws, seed, fits=stack is not None)
    estimate = cka_matrix(source, estimator=estimator, identifiers=identifiers, **keywords).cpu()
    kind = "debiased" if estimator == "biased" and not plan.close else estimator
    found, labels = [], names
    for sums in subset_sums(source, plan.subsets, **keywords):
        found.append(cka_of_sums(sums, kind).cpu())
        labels = sums.names
    matrices = torch.stack(found)
    warn_of_undefined(labels, matrices)
    if kind != estimator:
        matrices = moved_to(estimate, matrices)
    drawn = digest(plan.subsets)
    return Resamples(estimate, matrices, plan.size, n, level, plan.groups, drawn)


def check_level(level: float) -> None:
    """Refuse a level of intervals that is not between 0 and 1."""
    if not 0 < level < 1:
        raise UserError(f"level {level} of the intervals; between 0 and 1 is allowed")


def warn_of_undefined(names: Sequence[str], matrices: torch.Tensor) -> None:
    """Warn of each model whose CKA is undefined on some of the subsets, with their number."""
    lost = matrices.diagonal(dim1=1, dim2=2).isnan().sum(0).tolist()
    for name, count in zip(names, lost, strict=True):
        if count:
            text = f"CKA of {name} is undefined on {count} of {len(matrices)} resamples"
            warnings.warn(text, RuntimeWarning, stacklevel=3)


def moved_to(estimate: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Resampled matrices with their spread kept and their mean put at the estimate."""
    return matrices + (estimate - matrices.nanmean(0))
