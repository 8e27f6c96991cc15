"""CKA by both estimators on subsets of the images, and on halves of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from realign_utils.chance import chance
from realign_utils.cka import ESTIMATORS, GramStack, cka_of_sums
from realign_utils.progress import track
from realign_utils.subsets import subset_sums


def joint_seeds(identifiers: Mapping[str, Sequence[str]], seed: int) -> dict[str, int]:
    """Seeds of the draws: one for the same images in the same order, another for any others.

    Parameters
    ----------
    identifiers : mapping of str to sequence of str
        By set of images, e.g. one that is stored at several resolutions.
    seed : int
        The least of them.
    """
    known: dict[tuple[str, ...], int] = {}
    return {
        name: seed + known.setdefault(tuple(listed), place)
        for place, (name, listed) in enumerate(identifiers.items())
    }


def on_halves(
    source: Sequence[Any] | GramStack, pairs: Sequence[Sequence[torch.Tensor]], **keywords: Any
) -> dict[str, torch.Tensor]:
    """By estimator: CKA on both halves of each pair, (draws, 2, m, m)."""
    if not pairs:
        return {}
    found = on_subsets(source, [half for pair in pairs for half in pair], **keywords)
    return {kind: values.unflatten(0, (len(pairs), 2)) for kind, (values, _) in found.items()}


def on_subsets(
    source: Sequence[Any] | GramStack, subsets: Sequence[torch.Tensor], **keywords: Any
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By estimator: CKA on each subset, (draws, m, m), and the mean of their chance levels, (m, m)."""
    values: dict[str, list[torch.Tensor]] = {estimator: [] for estimator in ESTIMATORS}
    levels = dict.fromkeys(ESTIMATORS, torch.zeros((), dtype=torch.float64))
    label = f"resamples of {len(subsets[0])} images"
    for sums in track(subset_sums(source, subsets, **keywords), label, len(subsets)):
        for estimator in ESTIMATORS:
            values[estimator].append(cka_of_sums(sums, estimator).cpu())
            level = chance(sums, estimator=estimator).mean
            levels[estimator] = levels[estimator] + level / len(subsets)
    return {estimator: (torch.stack(values[estimator]), levels[estimator]) for estimator in values}
