"""Are models of one kind more alike, or merely models of like capacity?

CKA of all pairs of models is regressed on whether the two are of one kind, first alone, then beside
their capacity: the mean of both models' log parameters and the difference between them, and the same
of the dimensions of their features. What is left of the coefficient is what capacity, as far as it
acts linearly on that scale, does not explain. The same with the CKA on a proxy as one more regressor
asks the paper's question: of two pairs that look equally alike on the proxy, is the one of one kind
more alike on other images?
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from realign_utils.dyads import coefficient, mrqap, pair_places, with_constant
from realign_utils.intervals import CLOSE, FAILS, HOLDS, UNTESTABLE
from realign_utils.progress import track
from realign_utils.set_statistics import Estimate, SetScores, estimate, score_sets
from realign_utils.uncertainty import Resamples

ADJUSTMENTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "capacity": ("params_m",),
    "capacity and dimension": ("params_m", "dimension"),
}
"""Rival explanations beside which the coefficient stands, by their names in tables."""
PAIRS = ["images", "estimator", "grouping", "given", "adjusted_for", "pairs_within"]
PAIRS += ["pairs_between", "within", "between", "difference", "low", "high", "images_low"]
PAIRS += ["images_high", "partial_correlation", "p", "p_holm", "share_left", "verdict"]
SIGNIFICANT = 0.05
SMALL_SHARE = 0.5
"""Of the plain difference: if surely less than that is left, capacity explains most of it."""


def verdict_on_homogeneity(plain: float, low: float, high: float, p: float) -> str:
    """Verdict on "models of one kind are more alike than their capacities explain".

    Parameters
    ----------
    plain : float
        Difference within less between, nothing else considered.
    low, high : float
        95 % interval of the coefficient beside the rival explanations.
    p : float
        Of the permutation test of that coefficient, by `holm` where it is one of several.

    Returns
    -------
    str
        It holds where both the interval and the test exclude zero. It does not where the interval
        lies below zero, or so low that most of the plain difference is explained away. Otherwise it
        is too close to call.
    """
    if not np.isfinite([low, high, p]).all():
        return UNTESTABLE
    if low > 0 and p <= SIGNIFICANT:
        return HOLDS
    return FAILS if high < max(0.0, SMALL_SHARE * plain) else CLOSE


def holm(p: np.ndarray) -> np.ndarray:
    """Levels of several tests at which each is passed with all of them considered (Holm 1979).

    Parameters
    ----------
    p : ndarray of shape (t,)
        NaN is no test.
    """
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]
    raised = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1))
    found = np.full(len(p), np.nan)
    found[order] = np.minimum(raised, 1.0)
    return found


def capacity_relations(values: Sequence[float]) -> list[np.ndarray]:
    """Mean and absolute difference of the logarithms of two models' values: two (m, m)."""
    logs = np.log(np.asarray(values, dtype=float))
    return [np.add.outer(logs, logs) / 2, np.abs(np.subtract.outer(logs, logs))]


def homogeneity_pairs_table(
    compared: Mapping[str, Mapping[str, Resamples]],
    groupings: Mapping[str, Sequence[str]],
    capacities: Mapping[str, Sequence[float]],
    *,
    reference_proxy: str,
    permutations: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Within against between kinds, before and after capacity, on each set of images.

    Parameters
    ----------
    compared : mapping of str to mapping of str to Resamples
        By set of images, then by estimator.
    groupings : mapping of str to sequence of str, each of length m
        Kind of each model: its mechanism, its family.
    capacities : mapping of str to sequence of float, each of length m
        params_m and dimension of each model.
    reference_proxy : str
        Given which the other images are explained as well.
    permutations, seed : int
        Of the tests.

    Returns
    -------
    pandas.DataFrame
        Columns images, estimator, grouping, given ("" or the reference proxy), adjusted_for,
        pairs_within, pairs_between, within and between (mean CKA), difference (the coefficient;
        with nothing given and adjusted for, within less between), low and high (95 %, other images
        and other models), images_low, images_high (other images), partial_correlation, p, p_holm
        (with all groupings, images and estimators considered that have the same adjustment, and a
        proxy given or not), share_left (of the difference without adjustment), verdict. Groupings that leave
        no pair within, or none between, are left out.
    """
    relations = {name: capacity_relations(values) for name, values in capacities.items()}
    rows = []
    for images in track([*compared], "pairs of models", len(compared)):
        for estimator, resamples in compared[images].items():
            cases: list[tuple[str, Resamples | None]] = [("", None)]
            if images != reference_proxy:
                cases.append((reference_proxy, compared[reference_proxy][estimator]))
            for grouping, kinds in groupings.items():
                alike = np.equal.outer(np.asarray(kinds), np.asarray(kinds)).astype(float)
                for given, proxy in cases:
                    leading = {"images": images, "estimator": estimator}
                    leading |= {"grouping": grouping, "given": given}
                    found = _adjusted(resamples, proxy, alike, relations, permutations, seed)
                    rows += [leading | row for row in found]
    return _with_verdicts(pd.DataFrame(rows, columns=PAIRS))


def _with_verdicts(table: pd.DataFrame) -> pd.DataFrame:
    """Tests that stand in one table of the report are corrected for their number."""
    tests = table["p"].astype(float).groupby([table["given"] != "", table["adjusted_for"]])
    table["p_holm"] = tests.transform(lambda p: holm(p.to_numpy()))
    key = ["images", "estimator", "grouping", "given"]
    plain = table.groupby(key)["difference"].transform("first")  # adjusted for nothing
    ends = zip(plain, table["low"], table["high"], table["p_holm"], strict=True)
    table["verdict"] = [verdict_on_homogeneity(*each) for each in ends]
    return table


def _adjusted(
    resamples: Resamples,
    proxy: Resamples | None,
    alike: np.ndarray,
    relations: Mapping[str, Sequence[np.ndarray]],
    permutations: int,
    seed: int,
) -> list[dict[str, object]]:
    """A row for each set of rival explanations."""
    matrix, places = resamples.estimate.numpy(), pair_places(len(alike))
    inside, values = alike[places] > 0, matrix[places]
    if inside.all() or not inside.any():
        return []
    counts = {"pairs_within": int(inside.sum()), "pairs_between": int((~inside).sum())}
    counts |= {"within": values[inside].mean(), "between": values[~inside].mean()}
    pairs = np.transpose(places)
    scores = [score_sets(each, pairs) for each in ([resamples, proxy] if proxy else [resamples])]
    rows: list[dict[str, object]] = []
    for name, columns in ADJUSTMENTS.items():
        rivals = [relation for column in columns for relation in relations[column]]
        given = [proxy.estimate.numpy()] if proxy else []
        options = {"permutations": permutations, "seed": seed}
        test = mrqap(matrix, alike, [*rivals, *given], **options)
        one = _with_errors(scores, pairs, alike[places], [rival[places] for rival in rivals])
        plain = float(rows[0]["difference"]) if rows else one.value
        row = counts | {"adjusted_for": name} | one.row("difference")
        row |= {"partial_correlation": test.partial, "p": test.p}
        row |= {"share_left": one.value / plain if plain else np.nan}
        rows.append(row)
    return rows


def _with_errors(
    scores: Sequence[SetScores], pairs: np.ndarray, alike: np.ndarray, rivals: Sequence[np.ndarray]
) -> Estimate:
    """The coefficient of being of one kind, with its errors from images and from models."""

    def statistic(values: Sequence[np.ndarray], kept: np.ndarray) -> np.ndarray:
        outcome, *given = values
        rest = with_constant([rival[kept] for rival in rivals], len(kept))
        if not given:
            return coefficient(outcome, alike[kept], rest)
        if given[0].ndim == 1:
            return coefficient(outcome, alike[kept], np.column_stack([rest, given[0]]))
        outcomes = np.broadcast_to(outcome, given[0].shape)  # one, or drawn like the given ones
        found = [
            coefficient(own, alike[kept], np.column_stack([rest, each]))
            for own, each in zip(outcomes, given[0], strict=True)
        ]
        return np.array(found)

    return estimate(statistic, scores, pairs, least=10)
