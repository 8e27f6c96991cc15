"""Statistics over many sets, or pairs, of models, with errors that know what the sets share.

Thousands of sets of the same few dozen models on the same images are not thousands of observations:
a standard error that divides by √(number of sets) would be far too small. What could have come out
otherwise are the *images* and the *models*. So the statistic is computed anew

- on the stored resamples of each set of images, the others being held, and the spread widened by
  equation (1) of `realign_utils.uncertainty`; sets of images are drawn apart, so variances add;
- without each model in turn, over the sets that do not hold it (the jackknife; for pairs of models
  it is that of Snijders & Borgatti 1999, "Non-parametric standard errors and tests for network
  statistics", Connections 22).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, rankdata
from scipy.stats import t as student

from realign_utils.set_samples import indicators, scores_of_sets
from realign_utils.uncertainty import Resamples

_LOST = 0.05
"""Share of the resamples on which a statistic may be undefined."""
_CERTAIN = 1 - 1e-9
"""A correlation of 1 has no Fisher transform; this one has."""


@dataclass(frozen=True)
class SetScores:
    """Scores of s sets on one set of images.

    Attributes
    ----------
    estimate : numpy.ndarray, shape (s,)
        On all images.
    subsets : numpy.ndarray, shape (draws, s)
        On subsets of them.
    widening, quantile : float
        Of `realign_utils.uncertainty.Resamples`.
    """

    estimate: np.ndarray
    subsets: np.ndarray
    widening: float
    quantile: float


Statistic = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
"""From the scores on each set of images, arrays of shape (..., s), and the places of those s among
all sets, to an array of shape (...)."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its intervals, on a scale on which errors are symmetric.

    Attributes
    ----------
    value : float
    images_error, models_error : float
        Standard errors from other images, and from other models; NaN where they are not known.
    images_quantile, quantile : float
        Of Student's t, for images alone and for both.
    back : callable
        To the scale on which it is shown.
    """

    value: float
    images_error: float
    models_error: float
    images_quantile: float
    quantile: float
    back: Callable[[float], float] = float

    def interval(self, *, models: bool = True) -> tuple[float, float]:
        """95 % interval over other images, and with `models` over other models as well."""
        error = np.hypot(self.images_error, self.models_error) if models else self.images_error
        reach = (self.quantile if models else self.images_quantile) * error
        return self.back(self.value - reach), self.back(self.value + reach)

    def row(self, name: str = "estimate") -> dict[str, float]:
        """As columns of a table: value, images_low and images_high, low and high."""
        images, both = self.interval(models=False), self.interval()
        values = (self.back(self.value), *both, *images)
        return dict(zip([name, "low", "high", "images_low", "images_high"], values, strict=True))


def score_sets(resamples: Resamples, sets: np.ndarray) -> SetScores:
    """Scores of sets of models, (s, k), on all images and on the resampled ones."""
    return SetScores(
        scores_of_sets(resamples.estimate.numpy(), sets),
        scores_of_sets(resamples.matrices.numpy(), sets),
        resamples.widening,
        resamples.quantile,
    )


def estimate(
    statistic: Statistic,
    scores: Sequence[SetScores],
    sets: np.ndarray,
    *,
    back: Callable[[float], float] = float,
    least: int = 20,
) -> Estimate:
    """A statistic of the scores of many sets, with its errors.

    Parameters
    ----------
    statistic : callable
        See `Statistic`.
    scores : sequence of SetScores
        On each set of images.
    sets : numpy.ndarray of int, shape (s, k)
        The models of each set; pairs are sets of two.
    back : callable
        From the statistic's scale to the one that is shown, e.g. ``numpy.tanh``.
    least : int
        Sets that must remain without any one model; else the error from models is not known.

    Returns
    -------
    Estimate
    """
    whole = [each.estimate for each in scores]
    everything = np.arange(len(sets))
    variance = 0.0
    for place, each in enumerate(scores):
        values = statistic([*whole[:place], each.subsets, *whole[place + 1 :]], everything)
        variance += (each.widening * _deviation(values)) ** 2
    left_out = _without_each_model(statistic, whole, sets, least)
    count = len(left_out)
    models_error = np.sqrt((count - 1) / count * np.sum((left_out - left_out.mean()) ** 2))
    images_quantile = max(each.quantile for each in scores)
    of_models = float(student.ppf(0.975, max(count - 1, 1)))
    return Estimate(
        float(statistic(whole, everything)), float(np.sqrt(variance)), float(models_error),
        images_quantile, max(images_quantile, of_models), back,
    )  # fmt: skip


def _deviation(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) >= (1 - _LOST) * len(values) > 1 else np.nan


def _without_each_model(
    statistic: Statistic, whole: Sequence[np.ndarray], sets: np.ndarray, least: int
) -> np.ndarray:
    inside = indicators(sets, int(sets.max()) + 1) > 0
    values = []
    for model in np.flatnonzero(inside.any(axis=0)):
        kept = np.flatnonzero(~inside[:, model])
        if len(kept) < least:
            return np.array([np.nan])
        values.append(float(statistic([each[kept] for each in whole], kept)))
    return np.array(values)


# ------------------------------------------------------------------ statistics of two scores


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson's correlation along the last axis; shapes (..., s) that broadcast, to (...)."""
    x, y = (each - each.mean(-1, keepdims=True) for each in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x * y).sum(-1) / np.sqrt((x * x).sum(-1) * (y * y).sum(-1))


def spearman(scores: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Fisher transform of Spearman's rank correlation of the first two scores."""
    ranks = [rankdata(each, axis=-1, nan_policy="propagate") for each in scores[:2]]
    return fisher(correlation(*ranks))


def kendall(scores: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Fisher transform of Kendall's τ-b of the first two scores."""
    shape = np.broadcast_shapes(*(each.shape for each in scores[:2]))
    first, second = (np.broadcast_to(each, shape).reshape(-1, shape[-1]) for each in scores[:2])
    values = [kendalltau(x, y).statistic for x, y in zip(first, second, strict=True)]
    return fisher(np.reshape(values, shape[:-1]))


def slope(scores: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Slope of the least-squares line of the second score on the first."""
    x, y = (each - each.mean(-1, keepdims=True) for each in scores[:2])
    with np.errstate(divide="ignore", invalid="ignore"):
        return (x * y).sum(-1) / (x * x).sum(-1)


def ratio(scores: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
    """Mean of the second score over the mean of the first: the paper's calibration ratio."""
    return scores[1].mean(-1) / scores[0].mean(-1)


def fisher(values: np.ndarray) -> np.ndarray:
    """Inverse hyperbolic tangent, on whose scale the error of a correlation is symmetric."""
    return np.arctanh(np.clip(values, -_CERTAIN, _CERTAIN))
