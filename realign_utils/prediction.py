"""What held-out score to expect of a set with a given proxy score, for models not seen before.

A line is fitted to the scores of many sets. How far it may be off is not read from the sets that it
was fitted to, for they share models with each other and with the fit. It is read from sets of models
that had no part in it: the models are divided at random, the line is fitted on sets of one part, and
its errors are those on sets of the other. That is repeated; the 95 % interval reaches as far as 95 %
of all these errors. Whether it then holds 95 % is measured in turn on a third of the models that was
set aside from all of that.

The held-out images are the same throughout, as those of a portal are: the interval is over models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from realign_utils.calibration_sets import judges_of
from realign_utils.progress import track
from realign_utils.set_samples import composed_sets, homogeneity, optimised_sets, scores_of_sets

LEVEL = 0.95
PREDICTORS: Mapping[str, tuple[str, ...]] = {
    "nothing": ("intercept",),
    "homogeneity": ("intercept", "of_homogeneity"),
    "proxy": ("intercept", "slope"),
    "proxy and homogeneity": ("intercept", "slope", "of_homogeneity"),
}
"""A constant; a line in the share of pairs of one mechanism, in the proxy score, in both: with the
names of the coefficients."""
SPLITS = 20
"""Divisions of the models into halves."""
QUALITY = ["proxy", "judged_on", "predictors", "error", "reach", "coverage", "lowest_coverage"]
QUALITY += ["over_proxy", "over_proxy_low", "over_proxy_high"]
COEFFICIENTS = ["intercept", "slope", "of_homogeneity"]
QUALITY += COEFFICIENTS
PREDICTED = ["submission", "proxy", "judged_on", "predictors", "score", "predicted", "low", "high"]
PREDICTED += ["actual", "inside"]
_COMPOSED, _OPTIMISED = 150, 50
"""Sets of each part: of all compositions, and near the proxy's best, as submissions are."""
_SPARE = 2
"""Models that a part must have beyond the size of a set."""


@dataclass(frozen=True)
class World:
    """Scores on a proxy and on a judge's images, (m, m) each; mechanism of each model; set size."""

    proxy: np.ndarray
    judge: np.ndarray
    mechanisms: np.ndarray
    k: int

    def sets(self, rows: np.ndarray, seed: int) -> np.ndarray:
        """Sets of some of the models, (s, k)."""
        block = self.proxy[np.ix_(rows, rows)]
        composed = composed_sets(self.mechanisms[rows], self.k, _COMPOSED, seed)
        best = optimised_sets(block[None], range(len(rows)), self.k, _OPTIMISED, seed)
        return rows[np.concatenate([composed, best])]

    def design(self, sets: np.ndarray, predictors: str) -> np.ndarray:
        """Columns of the regression, (s, 1 to 3)."""
        columns = [np.ones(len(sets))]
        if "slope" in PREDICTORS[predictors]:
            columns.append(scores_of_sets(self.proxy, sets))
        if "of_homogeneity" in PREDICTORS[predictors]:
            columns.append(homogeneity(sets, self.mechanisms))
        return np.column_stack(columns)

    def fit(self, sets: np.ndarray, predictors: str) -> np.ndarray:
        """Least-squares coefficients, one a column of the design."""
        design, held_out = self.design(sets, predictors), scores_of_sets(self.judge, sets)
        return np.linalg.lstsq(design, held_out, rcond=None)[0]

    def errors(self, fitted: np.ndarray, sets: np.ndarray, predictors: str) -> np.ndarray:
        """Held-out scores less those expected, (s,)."""
        return scores_of_sets(self.judge, sets) - self.design(sets, predictors) @ fitted


def divide(
    rows: np.ndarray, mechanisms: np.ndarray, parts: int, seed: int | Sequence[int]
) -> list[np.ndarray]:
    """Divide models at random into parts that have like numbers of each mechanism."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(rows)
    order = shuffled[np.argsort(mechanisms[shuffled], kind="stable")]
    return [np.sort(order[part::parts]) for part in rng.permutation(parts)]


def errors_on_others(
    world: World, rows: np.ndarray, *, splits: int, seed: int
) -> dict[str, np.ndarray] | None:
    """Errors on sets of one half of some models, of lines fitted to sets of the other half.

    Returns
    -------
    dict of str to numpy.ndarray
        By predictors, the errors of all splits; None where a half has too few models.
    """
    found = _errors_by_split(world, rows, splits, seed)
    return None if found is None else {name: np.concatenate(each) for name, each in found.items()}


def _errors_by_split(
    world: World, rows: np.ndarray, splits: int, seed: int
) -> dict[str, list[np.ndarray]] | None:
    found: dict[str, list[np.ndarray]] = {predictors: [] for predictors in PREDICTORS}
    for split in range(splits):
        parts = divide(rows, world.mechanisms, 2, [seed, split])
        if min(map(len, parts)) < world.k + _SPARE:
            return None
        ours, theirs = (world.sets(part, seed + split) for part in parts)
        for predictors, errors in found.items():
            errors.append(world.errors(world.fit(ours, predictors), theirs, predictors))
    return found


def reach_of(errors: np.ndarray) -> float:
    """Half the length of the interval: 95 % of the errors are no larger."""
    return float(np.quantile(np.abs(errors), LEVEL))


def coverage(world: World, *, splits: int = 20, inner: int = 10, seed: int = 0) -> pd.DataFrame:
    """How many sets of models that were set aside have their score within the interval.

    Parameters
    ----------
    world : World
    splits : int
        Times that a third of the models is set aside.
    inner : int
        Divisions of the other two thirds from which each interval comes.
    seed : int

    Returns
    -------
    pandas.DataFrame
        By predictors: coverage, the mean share over the splits, and lowest_coverage, that of the
        worst of ten splits (their 10th percentile). NaN where there are too few models.
    """
    everything = np.arange(len(world.mechanisms))
    shares: dict[str, list[float]] = {predictors: [] for predictors in PREDICTORS}
    for split in range(splits):
        aside, *others = divide(everything, world.mechanisms, 3, [seed, 1, split])
        rest = np.sort(np.concatenate(others))
        errors = errors_on_others(world, rest, splits=inner, seed=seed + split)
        if errors is None or len(aside) < world.k + _SPARE:
            return pd.DataFrame(np.nan, [*PREDICTORS], ["coverage", "lowest_coverage"])
        ours, theirs = (world.sets(part, seed + split) for part in (rest, aside))
        for predictors, found in shares.items():
            off = np.abs(world.errors(world.fit(ours, predictors), theirs, predictors))
            found.append(float((off <= reach_of(errors[predictors])).mean()))
    rows = {name: (np.mean(found), np.percentile(found, 10)) for name, found in shares.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["coverage", "lowest_coverage"])


def prediction_tables(
    matrices: Mapping[str, np.ndarray],
    proxies: Sequence[str],
    mechanisms: Sequence[str],
    submissions: Mapping[str, Sequence[int]],
    *,
    splits: int = SPLITS,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well held-out scores can be predicted, and those of the submissions beside the true ones.

    Parameters
    ----------
    matrices : mapping of str to numpy.ndarray, each of shape (m, m)
        Similarity on each set of images.
    proxies : sequence of str
    mechanisms : sequence of str, length m
    submissions : mapping of str to sequence of int
        Places of each submission's models. Each is predicted by a line that was fitted to sets of
        the *other* models.
    splits, seed : int

    Returns
    -------
    quality : pandas.DataFrame
        Columns proxy, judged_on, predictors, error (root mean square, for unseen models), reach
        (half the 95 % interval), coverage (measured; should be 0.95), lowest_coverage,
        over_proxy (error less that of "proxy") with its 95 % interval over other models, and the
        line fitted to sets of all models: intercept, slope, of_homogeneity.
    predictions : pandas.DataFrame
        Columns submission, proxy, judged_on, predictors (those of the smaller error), score (on the
        proxy), predicted, low, high, actual, inside. Unknown where there are too few other models.
    """
    quality, predictions = [], []
    cases = judges_of([*matrices], proxies)
    size = max(map(len, submissions.values()))
    for proxy, judge in track(cases, "predicting held-out scores", len(cases)):
        world = World(matrices[proxy], matrices[judge], np.asarray(mechanisms), size)
        table = _quality(world, splits, seed)
        quality.append(table.assign(proxy=proxy, judged_on=judge)[QUALITY])
        lines = table[table["predictors"] != "nothing"].set_index("predictors")["error"]
        best = lines.idxmin() if lines.notna().any() else "proxy"
        for name, members in submissions.items():
            own = World(world.proxy, world.judge, world.mechanisms, len(members))
            row = _predicted(own, np.array(members), str(best), splits, seed)
            leading = {"submission": name, "proxy": proxy, "judged_on": judge, "predictors": best}
            predictions.append(leading | row)
    if not cases:
        return pd.DataFrame(columns=QUALITY), pd.DataFrame(columns=PREDICTED)
    return pd.concat(quality, ignore_index=True), pd.DataFrame(predictions, columns=PREDICTED)


def _quality(world: World, splits: int, seed: int) -> pd.DataFrame:
    everything = np.arange(len(world.mechanisms))
    errors = _errors_by_split(world, everything, splits, seed)
    table = coverage(world, splits=splits, seed=seed).rename_axis("predictors").reset_index()
    for name, measure in {"error": _root_mean_square, "reach": reach_of}.items():
        table[name] = [measure(np.concatenate(errors[p])) if errors else np.nan for p in PREDICTORS]
    names = [name for name in QUALITY if name.startswith("over_proxy")]
    table[names] = [_over_proxy(errors, p) if errors else (np.nan,) * 3 for p in PREDICTORS]
    sets = world.sets(everything, seed)
    fitted = [dict(zip(PREDICTORS[p], world.fit(sets, p), strict=True)) for p in PREDICTORS]
    return table.join(pd.DataFrame(fitted, columns=COEFFICIENTS))


def _root_mean_square(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _over_proxy(
    errors: Mapping[str, Sequence[np.ndarray]], predictors: str
) -> tuple[float, float, float]:
    """Error less that of the proxy, over all splits, with the ends of its interval.

    Each split is judged by a half of the models, so its spread is a standard error, by equation (1)
    of `realign_utils.uncertainty` with s = n / 2.
    """
    ours, theirs = errors[predictors], errors["proxy"]
    gaps = [_root_mean_square(a) - _root_mean_square(b) for a, b in zip(ours, theirs, strict=True)]
    value = _root_mean_square(np.concatenate(ours)) - _root_mean_square(np.concatenate(theirs))
    reach = float(student.ppf((1 + LEVEL) / 2, len(gaps) - 1) * np.std(gaps, ddof=1))
    return value, value - reach, value + reach


def _predicted(
    world: World, members: np.ndarray, predictors: str, splits: int, seed: int
) -> dict[str, float | bool | None]:
    others = np.setdiff1d(np.arange(len(world.mechanisms)), members)
    errors = errors_on_others(world, others, splits=splits, seed=seed)
    score, actual = (float(scores_of_sets(m, members[None])[0]) for m in (world.proxy, world.judge))
    middle = reach = np.nan
    if errors is not None:
        fitted = world.fit(world.sets(others, seed), predictors)
        middle = float((world.design(members[None], predictors) @ fitted)[0])
        reach = reach_of(errors[predictors])
    row = {"score": score, "predicted": middle, "low": middle - reach, "high": middle + reach}
    inside = bool(abs(actual - middle) <= reach) if np.isfinite(reach) else None
    return row | {"actual": actual, "inside": inside}
