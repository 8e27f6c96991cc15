"""The paper's numbers from its own pictures and tables.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from realign_utils.calibrate import pair_values, rank_agreement
from realign_utils.claims_evidence import (
    READING,
    ROUNDING,
    Difference,
    Evidence,
    Study,
    drawn_file,
    untestable,
)
from realign_utils.claims_scores import weakest
from realign_utils.search import greedy

BAR = 0.005
"""How exactly a bar of Figure 4 could be read."""
PORTAL, BARS = "params/portal.csv", "params/published/fig4_bars_read.csv"


# ------------------------------------------------------------------ Figures 2, 3, 6 and 7


def _pairs(study: Study, submission: str) -> np.ndarray:
    matrix = study.drawn[submission][1]
    return pair_values(matrix, range(len(matrix)))


def _averages(study: Study, submission: str) -> pd.Series:
    names, matrix = study.drawn[submission]
    return pd.Series((matrix.sum(axis=0) - np.diag(matrix)) / (len(matrix) - 1), names)


def drawn_mean(study: Study, of: str) -> Evidence:
    pairs = _pairs(study, of)
    return Evidence(pairs.mean(), f"mean of the {len(pairs)} cells that were read", drawn_file(of))


def drawn_minimum(study: Study, of: str) -> Evidence:
    names, matrix = study.drawn[of]
    away = matrix + np.diag(np.full(len(matrix), np.inf))
    i, j = np.unravel_index(away.argmin(), away.shape)
    low = _pairs(study, of)
    why = f"the darkest cell is {names[i]} and {names[j]}; {(low < 0.7).sum()} of {len(low)} are below 0.70"
    return Evidence(low.min(), why, drawn_file(of))


def drawn_share_above(study: Study, of: str) -> Evidence:
    above = _pairs(study, "S4") > float(of)
    why = f"share of cells: {above.sum()} of {len(above)} are above {of}"
    return Evidence(above.mean(), why, drawn_file("S4"))


def drawn_evenness(study: Study, of: str) -> Evidence:
    s1, s4 = _pairs(study, "S1").std(), _pairs(study, "S4").std()
    why = f"standard deviation of the cells: {s1:.4f} in S1, {s4:.4f} in S4"
    return Evidence(s1 - s4, why, drawn_file("S1"))


def drawn_lowest_average(study: Study, of: str) -> Evidence:
    averages = _averages(study, of)
    why = f"lowest of {len(averages)} averages, of {averages.idxmin()}"
    return Evidence(averages.min(), why, drawn_file(of))


def drawn_highest_average(study: Study, of: str) -> Evidence:
    averages = _averages(study, of)
    why = f"highest of {len(averages)} averages, of {averages.idxmax()}"
    return Evidence(averages.max(), why, drawn_file(of))


def drawn_leaders(study: Study, of: str) -> Evidence:
    named = of.split()
    first = _averages(study, "S4").nlargest(len(named)).index.str.partition(".").get_level_values(0)
    why = f"the first {len(named)} by average are {', '.join(first)}"
    return Evidence(len(set(named) & set(first)), why, drawn_file("S4"))


def drawn_greedy_mean(study: Study, of: str) -> Evidence:
    steps = greedy(study.drawn["S4"][1], 20)[1]
    value = steps[int(of) - 2]
    why = f"greedy on the cells: {value:.4f} with {of} models, {steps[-1]:.4f} with all"
    return Evidence(value, why, drawn_file("S4"))


def drawn_greedy_fall(study: Study, of: str) -> Evidence:
    steps = greedy(study.drawn["S4"][1], 20)[1]
    falls = sum(np.diff(steps) < 0)
    why = f"fall from {of} models to 20; of the {len(steps) - 1} steps {falls} go down"
    return Evidence(steps[int(of) - 2] - steps[-1], why, drawn_file("S4"))


# ------------------------------------------------------------------ the table of section 3.1


def _rounding(text: str) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


def _number(study: Study, submission: str, column: str) -> float:
    return float(study.portal[column][submission])


def _ratio(study: Study, submission: str) -> float:
    return _number(study, submission, "real") / _number(study, submission, "cifar100")


def _ratio_ends(study: Study, submission: str) -> list[float]:
    """The least and the largest ratio that would be printed as these two numbers."""
    real, proxy = study.portal["real"][submission], study.portal["cifar100"][submission]
    return [
        (float(real) + sign * _rounding(real)) / (float(proxy) - sign * _rounding(proxy))
        for sign in (-1, 1)
    ]


def portal_ratio(study: Study, of: str) -> Evidence:
    real, proxy = study.portal["real"][of], study.portal["cifar100"][of]
    why = f"{real} / {proxy}, of which either may be off by half a unit of its last digit"
    return Evidence(_ratio(study, of), why, PORTAL, *_ratio_ends(study, of), over=ROUNDING)


def portal_lowest_ratio(study: Study, of: str) -> Evidence:
    ratios = {name: _ratio(study, name) for name in of.split()}
    lowest = min(ratios, key=lambda name: ratios[name])
    why = "lowest of " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
    return Evidence(ratios[lowest], why, PORTAL, *_ratio_ends(study, lowest), over=ROUNDING)


def portal_excess(study: Study, of: str) -> Evidence:
    real, proxy = study.portal["real"][of], study.portal["imagenette"][of]
    value, half = float(proxy) - float(real), _rounding(real) + _rounding(proxy)
    return Evidence(value, f"{proxy} − {real}", PORTAL, value - half, value + half, over=ROUNDING)


def portal_ranking(study: Study, of: str) -> Evidence:
    scores = study.portal[["cifar100", "imagenette", "real"]].astype(float)
    share = {p: rank_agreement(scores[p], scores["real"]) for p in ("cifar100", "imagenette")}
    why = (
        f"pairs of {len(scores)} submissions in the right order: {share['cifar100']:.0%} by "
        f"CIFAR-100, {share['imagenette']:.0%} by Imagenette"
    )
    return Evidence(share["cifar100"] - share["imagenette"], why, PORTAL)


def portal_calibration(study: Study, of: str) -> Evidence:
    scores = study.portal[["cifar100", "imagenette", "real"]].astype(float)
    error = {p: (scores["real"] - scores[p]).abs().mean() for p in ("cifar100", "imagenette")}
    ratios = {p: scores["real"] / scores[p] for p in error}
    spread = {p: ratio.std() / ratio.mean() for p, ratio in ratios.items()}
    why = (
        f"mean error {error['cifar100']:.3f} against {error['imagenette']:.3f}; but the ratio "
        f"varies by {spread['cifar100']:.1%} on CIFAR-100, {spread['imagenette']:.1%} on Imagenette"
    )
    return Evidence(error["imagenette"] - error["cifar100"], why, PORTAL)


def portal_cnn_calibration(study: Study, of: str) -> Evidence:
    off = {name: abs(_ratio(study, name) - 1) for name in ("S4", "S2", "S3")}
    why = f"ratios off 1 by {off['S4']:.3f} (S4), {off['S2']:.3f} (S2), {off['S3']:.3f} (S3)"
    return Evidence(min(off["S2"], off["S3"]) - off["S4"], why, PORTAL)


def portal_lead(study: Study, of: str) -> Evidence:
    """In real score, of each set before "over" to each after it."""
    return _portal_leads(study, of, ["real"])


def portal_proxy_lead(study: Study, of: str) -> Evidence:
    """The same on either proxy."""
    return _portal_leads(study, of, ["cifar100", "imagenette"])


def _portal_leads(study: Study, of: str, columns: Sequence[str]) -> Evidence:
    leaders, rivals = (part.split() for part in of.split(" over "))
    gaps = {
        f"{first} over {second}, {column}": _gap(study.portal[column][[first, second]])
        for first in leaders
        for second in rivals
        for column in columns
    }
    ahead = sum(each.value > 0 for each in gaps.values())
    why = (
        f"smallest lead: {min(gaps, key=lambda name: gaps[name].value)}; {ahead} of {len(gaps)} are "
        "above zero, and rounding keeps the order"
    )
    return weakest(gaps.values(), why, file=PORTAL, over=ROUNDING)


def _gap(texts: pd.Series) -> Difference:
    """Of two printed numbers, with the bounds of rounding."""
    value, half = float(texts.iloc[0]) - float(texts.iloc[1]), sum(map(_rounding, texts))
    return Difference(*np.round((value, value - half, value + half), 9), exact=True)


def red_team(study: Study, of: str) -> Evidence:
    sources = [*study.proxies.values(), *([study.evaluation] if study.evaluation else [])]
    names = {source.get("dataset_name") or source["kind"] for source in sources}
    lacking = "" if "objectnet" in names else f"; this run has {', '.join(sorted(names))}"
    return untestable(f"the paper gives neither the images nor a score{lacking}")


# ------------------------------------------------------------------ Figure 4


def _bar_gaps(gaps: Sequence[float], why: str) -> Evidence:
    differences = [Difference(gap, gap - 2 * BAR, gap + 2 * BAR, exact=True) for gap in gaps]
    return weakest(differences, why, file=BARS, over=READING)


def bars_inflated(study: Study, of: str) -> Evidence:
    gaps = study.bars["imagenette"] - study.bars["cifar100"]
    why = f"smallest of {len(gaps)} families: {gaps.idxmin()}; bars read to ±{BAR}"
    return _bar_gaps(list(gaps), why)


def bars_hybrid_lead(study: Study, of: str) -> Evidence:
    rest = study.bars.drop(index="hybrid attention")
    leads = study.bars.loc["hybrid attention"] - rest.max()
    why = f"smaller lead: on {leads.idxmin()}; bars read to ±{BAR}"
    return _bar_gaps(list(leads), why)


PUBLISHED = (
    drawn_mean, drawn_minimum, drawn_share_above, drawn_evenness, drawn_lowest_average,
    drawn_highest_average, drawn_leaders, drawn_greedy_mean, drawn_greedy_fall, portal_ratio,
    portal_lowest_ratio, portal_excess, portal_ranking, portal_calibration, portal_cnn_calibration,
    portal_lead, portal_proxy_lead, red_team, bars_inflated, bars_hybrid_lead,
)  # fmt: skip
