"""The jackknife: CKA without each image, or each group of images, as a check of the resamples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from realign_utils.cka import GramStack, GramSums, cka_matrix, cka_of_sums, gram_stack
from realign_utils.subsets import group_members, sums_without
from realign_utils.uncertainty import Resamples


def jackknife(
    features: Sequence[Any] | GramStack,
    *,
    level: float = 0.95,
    estimator: str = "biased",
    groups: Sequence[Any] | None = None,
    names: Sequence[str] | None = None,
    identifiers: Sequence[Any] | None = None,
    device: str | torch.device | None = None,
) -> Resamples:
    """CKA of all pairs without each image in turn: a check of `resample` without chance in it.

    Equation (1) of `realign_utils.uncertainty` with all n subsets of s = n − 1 images is Tukey's
    jackknife. An image, or a group of images, is taken out of the sums over all, which costs a few
    products of (m, n) matrices for each: in all as much as some 60 resamples (138 models, 500 images;
    both estimators together), and less with groups.

    Parameters
    ----------
    features, level, estimator, names, identifiers, device
        As in `realign_utils.uncertainty.resample`; the Gram stack must fit the memory.
    groups : sequence, length n, optional
        The group of each image, taken out as a whole, as `resample` draws them: only then are the
        two standard errors of the same thing. By default each image is its own group.

    Returns
    -------
    Resamples
        A subset without each of the groups, in the order of their first images; on the CPU.

    Raises
    ------
    UserError
        As `cka_matrix`; or if there are fewer than 5 images or groups.
    """
    stack = features
    if not isinstance(features, GramStack):
        stack = gram_stack(features, names=names, identifiers=identifiers, device=device)
    parts = sums_without_each(stack, groups)
    matrices = torch.stack([cka_of_sums(sums, estimator).cpu() for sums in parts])
    return jackknifed(cka_matrix(stack, estimator=estimator).cpu(), matrices, stack, level)


def jackknifed(
    estimate: torch.Tensor, matrices: torch.Tensor, stack: GramStack, level: float
) -> Resamples:
    """The values without each of the units, (units, m, m), as `Resamples` of all images."""
    n, units = stack.diagonal.shape[1], len(matrices)
    groups = None if units == n else (units - 1, units)
    return Resamples(estimate, matrices, round(n * (units - 1) / units), n, level, groups)


def sums_without_each(stack: GramStack, groups: Sequence[Any] | None = None) -> Iterator[GramSums]:
    """The sums over all images but one, or but one group, for each in turn; groups as in `jackknife`."""
    total = stack.sums()
    for images in group_members(stack.diagonal.shape[1], groups):
        yield sums_without(stack, total, images)
