"""Statistics over many sets, or pairs, of models, with errors that know what the sets share.

Thousands of sets of the same few dozen models on the same images are not thousands of observations:
a standard error that divides by √(number of sets) would be far too small. What could have come out
otherwise are the *images* and the *models*. So the statistic is computed anew

- on the stored resamples of each set of images, the others being held, and the spread widened by
  equation (1) of `realign_utils.uncertainty`; sets of other images are drawn apart, so variances
  add, and the same images at several resolutions are drawn alike, and so resampled together;
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
    widening : float
        Of `realign_utils.uncertainty.Resamples`: standard error over spread of the subsets.
    freedom : int
        Degrees of freedom of that error.
    drawn : str
        Of `Resamples`: scores of which it is the same were drawn alike.
    """

    estimate: np.ndarray
    subsets: np.ndarray
    widening: float
    freedom: int
    drawn: str = ""


Statistic = Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
"""From the scores on each set of images, arrays of shape (..., s), and the places of those s among
all sets, to an array of shape (...)."""


@dataclass(frozen=True)
class Part:
    """A standard error from one cause, with its degrees of freedom."""

    error: float
    freedom: float


def together(parts: Sequence[Part]) -> Part:
    """The error of independent causes, with degrees of freedom by Welch and Satterthwaite."""
    variances = np.array([part.error**2 for part in parts])
    freedoms = np.array([part.freedom for part in parts])
    total = variances.sum()
    freedom = total**2 / np.sum(variances**2 / freedoms) if total > 0 else freedoms.min()
    return Part(float(np.sqrt(total)), float(freedom))


@dataclass(frozen=True)
class Estimate:
    """A statistic with its intervals, on a scale on which errors are symmetric.

    Attributes
    ----------
    value : float
    images, models : Part
        From other images, and from other models; the error is NaN where it is not known.
    back : callable
        To the scale on which it is shown.
    influential : int
        Place of the model without which the statistic is farthest from its value; -1: not known.
    without : float
        The statistic without that model.
    """

    value: float
    images: Part
    models: Part
    back: Callable[[float], float] = float
    influential: int = -1
    without: float = np.nan

    def interval(self, *, models: bool = True) -> tuple[float, float]:
        """95 % interval over other images, and with `models` over other models as well."""
        part = together([self.images, self.models]) if models else self.images
        reach = float(student.ppf(0.975, part.freedom)) * part.error
        return self.back(self.value - reach), self.back(self.value + reach)

    @property
    def p(self) -> float:
        """Least level at which zero is excluded, two-sided, for other images and models."""
        part = together([self.images, self.models])
        if not part.error > 0:
            return float("nan") if np.isnan(part.error) else float(self.value == 0)
        return float(2 * student.sf(abs(self.value) / part.error, part.freedom))

    def row(self, name: str = "estimate") -> dict[str, float]:
        """As columns of a table: value, low and high, images_low and images_high."""
        images, both = self.interval(models=False), self.interval()
        values = (self.back(self.value), *both, *images)
        return dict(zip([name, "low", "high", "images_low", "images_high"], values, strict=True))

    def influence(self, models: Sequence[str]) -> tuple[str, float]:
        """Name of the most influential model ("" if not known), and the value without it."""
        known = self.influential >= 0
        return (models[self.influential], self.back(self.without)) if known else ("", np.nan)


def score_sets(resamples: Resamples, sets: np.ndarray) -> SetScores:
    """Scores of sets of models, (s, k), on all images and on the resampled ones."""
    units = resamples.groups[1] if resamples.groups else resamples.n
    return SetScores(
        scores_of_sets(resamples.estimate.numpy(), sets),
        scores_of_sets(resamples.matrices.numpy(), sets),
        resamples.widening,
        min(len(resamples.matrices), units) - 1,
        resamples.drawn,
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
    everything, parts = np.arange(len(sets)), []
    for places in _drawn_alike(scores):
        varied = [each.subsets if i in places else whole[i] for i, each in enumerate(scores)]
        first = scores[places[0]]
        spread = _deviation(statistic(varied, everything))
        parts.append(Part(first.widening * spread, first.freedom))
    value, left_out = float(statistic(whole, everything)), _left_out(statistic, whole, sets, least)
    values = np.array([*left_out.values()])
    count, known = len(values), bool(len(values) > 1 and np.isfinite(values).all())
    squares = np.sum((values - values.mean()) ** 2) if known else np.nan
    models = Part(float(np.sqrt((count - 1) / max(count, 1) * squares)), max(count - 1, 1))
    farthest = max(left_out, key=lambda model: abs(left_out[model] - value)) if known else -1
    return Estimate(value, together(parts), models, back, farthest, left_out.get(farthest, np.nan))


def _drawn_alike(scores: Sequence[SetScores]) -> list[list[int]]:
    """Places of the scores, those together of which draw by draw the same images were drawn."""
    together_: dict[object, list[int]] = {}
    for place, each in enumerate(scores):
        together_.setdefault(each.drawn or place, []).append(place)
    return [*together_.values()]


def _deviation(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) >= (1 - _LOST) * len(values) > 1 else np.nan


def _left_out(
    statistic: Statistic, whole: Sequence[np.ndarray], sets: np.ndarray, least: int
) -> dict[int, float]:
    """The statistic without each model that is in some set; empty where too few sets remain."""
    inside = indicators(sets, int(sets.max()) + 1) > 0
    values = {}
    for model in np.flatnonzero(inside.any(axis=0)):
        kept = np.flatnonzero(~inside[:, model])
        if len(kept) < least:
            return {}
        values[int(model)] = float(statistic([each[kept] for each in whole], kept))
    return values


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
