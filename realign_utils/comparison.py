"""All pairs of models on one set of images, with all that is known of how sure the values are.

One pass over random subsets of the images gives both estimators' standard errors, and the values
and the chance level at smaller numbers of images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch

from realign_utils.calibrate import pair_values
from realign_utils.chance import Chance, chance
from realign_utils.cka import ESTIMATORS, cka_matrix, cka_of_sums, gram_sums
from realign_utils.comparison_draws import on_halves, on_subsets
from realign_utils.errors import UserError, unknown
from realign_utils.grams import MEMORY, GramStack
from realign_utils.jackknife import jackknifed, sums_without_each
from realign_utils.progress import track
from realign_utils.subsets import (
    LARGE,
    digest,
    draw_plan,
    draw_subsets,
    group_members,
    halves_of,
    stack_if_it_fits,
)
from realign_utils.uncertainty import (
    Interval,
    Resamples,
    check_level,
    mean_of_pairs,
    moved_to,
    warn_of_undefined,
)

FEWER = 4
"""Size by size, the learning curve draws this many times fewer subsets than the intervals."""
_ENOUGH = 20  # subsets whose spread is worth more than that of all images, scaled
CURVE = ["n", "draws", "mean", "standard_error", "low", "high", "chance"]


@dataclass(frozen=True)
class Comparison:
    """CKA of m models by one estimator on n images.

    Attributes
    ----------
    names : tuple of str
        The models.
    estimator : {"biased", "debiased"}
    resamples : Resamples
        The values of all images, and those of subsets, from which standard errors come.
    chance : Chance
        Of all images.
    curve : mapping of int to torch.Tensor
        By number of images, ascending and below n: (draws, m, m), CKA on subsets of so many.
    curve_chance : mapping of int to torch.Tensor
        By the same numbers: (m, m), mean of the subsets' chance levels.
    jackknife : Resamples, optional
        The values without each image, or each group: a check of `resamples`. None where the Gram
        stack did not fit the memory.
    halves : torch.Tensor, optional
        (draws, 2, m, m), CKA on two halves of the images that share none, nor a group; None where
        they were not asked for.
    """

    names: tuple[str, ...]
    estimator: str
    resamples: Resamples
    chance: Chance
    curve: Mapping[int, torch.Tensor]
    curve_chance: Mapping[int, torch.Tensor]
    jackknife: Resamples | None = None
    halves: torch.Tensor | None = None

    @property
    def similarity(self) -> torch.Tensor:
        """(m, m), float64: CKA on all images."""
        return self.resamples.estimate

    def places(self, models: Sequence[str]) -> list[int]:
        """Rows of some models; UserError for a name that is not among them."""
        for model in models:
            if model not in self.names:
                raise unknown("model", model, self.names)
        return [self.names.index(model) for model in models]

    def mean(self, models: Sequence[str]) -> Interval:
        """Mean over the pairs of a set of models, with its interval."""
        return self.resamples.of_mean(self.places(models))

    def difference(self, first: Sequence[str], second: Sequence[str]) -> Interval:
        """Mean of one set less that of another, with its interval: on the same images, paired."""
        one, other = self.places(first), self.places(second)
        return self.resamples.of(lambda c: mean_of_pairs(c, one) - mean_of_pairs(c, other))

    def jackknife_error(self, models: Sequence[str]) -> float:
        """Standard error of a set's mean by the jackknife; NaN where there is none."""
        if self.jackknife is None:
            return float("nan")
        return self.jackknife.of_mean(self.places(models)).standard_error

    def mean_chance(self, models: Sequence[str]) -> float:
        """Mean over the pairs of a set of what CKA would be for unrelated models."""
        return float(mean_of_pairs(self.chance.mean, self.places(models)))

    def pair_values(self) -> np.ndarray:
        """CKA of the pairs of different models, (m (m - 1) / 2,)."""
        return pair_values(self.similarity.numpy(), range(len(self.names)))

    def pair_averages(self) -> pd.Series:
        """Means over all pairs of different models: CKA, its standard error, the chance level."""
        parts = {
            "CKA": self.similarity,
            "standard error": self.resamples.standard_error,
            "chance": self.chance.mean,
            "deviation of chance": self.chance.standard_deviation,
        }
        everyone = range(len(self.names))
        return pd.Series({name: float(mean_of_pairs(v, everyone)) for name, v in parts.items()})

    def learning_curve(self, models: Sequence[str]) -> pd.DataFrame:
        """Mean CKA of a set of models against the number of images.

        Parameters
        ----------
        models : sequence of str

        Returns
        -------
        pandas.DataFrame
            A row for each number of images n, all of them the last: draws, the mean over them,
            and the standard error and 95 % interval that *one* sample of n images has; and the
            set's mean chance level. Up to half of all images N the error is that of the subsets
            drawn, their standard deviation / √(1 − n / N); beyond, or with few subsets, that of all
            images times √(N / n). Where whole groups were drawn, what they add to the error of all
            images is added to each: more images of the same groups do not lessen it.
        """
        members, whole = self.places(models), self.mean(models)
        values = {n: mean_of_pairs(matrices, members) for n, matrices in self.curve.items()}
        all_n = self.resamples.n
        drawn = {
            n: float(each.var()) / (1 - n / all_n)
            for n, each in values.items()
            if 2 * n <= all_n and len(each) >= _ENOUGH
        }
        # of samples of all images, from images alone: with groups, from the largest drawn size
        single = whole.standard_error**2
        if self.resamples.groups and drawn:
            single = min(single, drawn[max(drawn)] * max(drawn) / all_n)
        between = whole.standard_error**2 - single
        rows = []
        for n, each in values.items():
            mean, error = float(each.mean()), (drawn.get(n, single * all_n / n) + between) ** 0.5
            reach = self.resamples.quantile * error
            level = float(mean_of_pairs(self.curve_chance[n], members))
            rows.append((n, len(each), mean, error, mean - reach, mean + reach, level))
        ends = (whole.estimate, whole.standard_error, whole.low, whole.high)
        rows.append((self.resamples.n, 1, *ends, self.mean_chance(models)))
        return pd.DataFrame(rows, columns=CURVE)


def compare(
    features: Sequence[Any],
    *,
    names: Sequence[str],
    identifiers: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    resamples: int = 200,
    sizes: Sequence[int] = (50, 100, 200),
    halves: int = 0,
    seed: int = 0,
    level: float = 0.95,
    device: str | torch.device | None = None,
    memory: int = MEMORY,
) -> dict[str, Comparison]:
    """Compare all pairs of models by both estimators, with intervals, chance and learning curve.

    Where the Gram stack fits the memory (8 m n² bytes), subsets are taken from it; a resample is
    nine tenths of the images, and a jackknife checks the standard errors. Where it does not, each
    subset is computed from its features; a resample has half of the images, at most `LARGE`, the
    biased estimator's spread is the debiased one's (`realign_utils.uncertainty` says why), and
    there is no jackknife. Beyond `LARGE` the learning curve draws
    so many fewer subsets that no size costs more than those of `LARGE`: the whole then costs a few
    evaluations of all images.

    Parameters
    ----------
    features : sequence of m array_like, each (n, d_i)
        As in `realign_utils.cka.cka_matrix`, as are names, identifiers, device and memory.
    groups : sequence, length n, optional
        The group of each image, of which resamples take all or nothing
        (`realign_utils.uncertainty.resample`).
    resamples : int, optional
        Subsets from which the standard errors come.
    sizes : sequence of int, optional
        Numbers of images of the learning curve, beside all; those not below n are left out.
    halves : int, optional
        Pairs of halves of the images, of `LARGE` images at most.
    seed : int, optional
        Of the subsets.
    level : float, optional
        Of the intervals.

    Returns
    -------
    dict of str to Comparison
        By estimator.

    Raises
    ------
    UserError
        As `cka_matrix`; or if there are fewer than 5 images or groups, fewer than 2 resamples, a
        size that is no whole number from 4, or an impossible level: before any work begins.
    """
    check_level(level)
    sizes = _checked_sizes(sizes)
    keywords: dict[str, Any] = {"names": names, "device": device, "memory": memory}
    stack = stack_if_it_fits(features, identifiers=identifiers, **keywords)
    source = features if stack is None else stack
    total = stack.sums() if stack else gram_sums(features, identifiers=identifiers, **keywords)
    n = total.diagonal.shape[1]
    plan = draw_plan(n, groups, None, resamples, seed, fits=stack is not None)
    drawn = on_subsets(source, plan.subsets, **keywords)
    estimates = {kind: cka_matrix(total, estimator=kind).cpu() for kind in ESTIMATORS}
    spread = {kind: matrices for kind, (matrices, _) in drawn.items()}
    warn_of_undefined(names, spread["debiased"])
    if not plan.close:
        spread["biased"] = moved_to(estimates["biased"], spread["debiased"])
    left_out = _without_each(stack, groups, estimates, level) if stack else {}
    # Each size has random numbers of its own, so that a size more or less changes no other.
    curve = {
        size: on_subsets(
            source, draw_subsets(n, size, _draws(size, resamples), [seed, size]), **keywords
        )
        for size in sizes
        if size < n
    }
    split = on_halves(source, halves_of(n, groups, halves, [seed, 2]), **keywords)
    drawn_places = digest(plan.subsets)
    return {
        estimator: Comparison(
            names=tuple(names),
            estimator=estimator,
            resamples=Resamples(
                estimates[estimator],
                spread[estimator],
                plan.size,
                n,
                level,
                plan.groups,
                drawn_places,
            ),
            chance=chance(total, estimator=estimator),
            curve={size: found[estimator][0] for size, found in curve.items()},
            curve_chance={size: found[estimator][1] for size, found in curve.items()},
            jackknife=left_out.get(estimator),
            halves=split.get(estimator),
        )
        for estimator in ESTIMATORS
    }


def _checked_sizes(sizes: Sequence[int]) -> list[int]:
    """Numbers of images of a learning curve, ascending, each once."""
    for size in sizes:
        if not isinstance(size, Integral) or size < 4:
            raise UserError(f"learning curve at {size!r} images; whole numbers from 4 are allowed")
    return sorted({int(size) for size in sizes})


def _without_each(
    stack: GramStack,
    groups: Sequence[Any] | None,
    estimates: Mapping[str, torch.Tensor],
    level: float,
) -> dict[str, Resamples]:
    """By estimator: the jackknife, both from one pass."""
    found: dict[str, list[torch.Tensor]] = {estimator: [] for estimator in estimates}
    count = len(group_members(stack.diagonal.shape[1], groups))
    for sums in track(sums_without_each(stack, groups), "jackknife", count):
        for estimator, values in found.items():
            values.append(cka_of_sums(sums, estimator).cpu())
    return {
        estimator: jackknifed(estimates[estimator], torch.stack(values), stack, level)
        for estimator, values in found.items()
    }


def _draws(size: int, resamples: int) -> int:
    """Subsets of a size in the learning curve; an evaluation costs as the square of its images."""
    return max(2, round(resamples / FEWER * min(1, (LARGE / size) ** 2)))
