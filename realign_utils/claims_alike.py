"""The paper's claims on who is like whom, on a run's matrices of all pairs of models.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``. A set that was chosen to be alike is judged on images by which it was not chosen.
Where a claim is on kinds of architecture the interval is over other images and other models, where
it is on a set, over other images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd
import torch

from realign_utils.claims_evidence import BOTH, IMAGES, Evidence, Study, untestable
from realign_utils.claims_scores import difference_over_models, gap, weakest
from realign_utils.claims_sets import mixed_rival
from realign_utils.embedding import embed
from realign_utils.registry import members
from realign_utils.uncertainty import Interval, mean_of_pairs

RANDOM_SETS = 2000
"""Sets of models beside which the chosen one's closeness in the map is seen."""
NOT_BOTH = "this run has no two CNNs and two attention models"


# ------------------------------------------------------------------ families


def hybrids_lead_here(study: Study, of: str) -> Evidence:
    hybrids, gaps = study.families_of("hybrid"), {}
    for images in study.proxies:
        compared = study.comparison(images)
        groups = {f: members(study.known, w, compared.names) for f, w in study.families.items()}
        groups = {family: rows for family, rows in groups.items() if len(rows) > 1}
        within = {family: [*combinations(rows, 2)] for family, rows in groups.items()}
        for ours, other in product(within, within):
            if ours in hybrids and other not in hybrids:
                pairs = within[ours], within[other]
                gaps[ours, other, images] = difference_over_models(compared.resamples, *pairs)
    if not gaps:
        return untestable("no family of hybrids only has two models, or none to compare with")
    ours, other, images = min(gaps, key=lambda names: gaps[names].value)
    why = f"smallest lead of {ours}: over {other}, on {images}; of {len(gaps)} comparisons"
    rest = {"file": study.resamples_file(images), "images": list(study.proxies)}
    return weakest(gaps.values(), why, over=BOTH, **rest)


def _places(study: Study, images: str) -> tuple[list[int], list[int]] | None:
    """Rows of the CNNs and of the attention models; None unless there are two of either."""
    compared = study.comparison(images)
    cnn, vit = (
        compared.places(study.of_mechanism(kind, images)) for kind in ("convolution", "attention")
    )
    return (cnn, vit) if len(cnn) > 1 and len(vit) > 1 else None


def _across(matrices: torch.Tensor, first: Sequence[int], second: Sequence[int]) -> torch.Tensor:
    """Mean over the pairs of one model of either group: from (..., m, m) to (...)."""
    return matrices[..., torch.tensor(first)[:, None], torch.tensor(second)].mean((-1, -2))


def within_above_across(study: Study, of: str) -> Evidence:
    places = _places(study, study.judge) if study.judge else None
    if not places:
        return untestable(NOT_BOTH if study.judge else "no images by which nothing was chosen")
    resamples = study.comparison(study.judge).resamples
    gaps = {
        kind: difference_over_models(resamples, [*combinations(own, 2)], [*product(*places)])
        for kind, own in zip(("CNNs", "attention models"), places, strict=True)
    }
    across = float(_across(resamples.estimate, *places))
    why = (
        f"smaller excess over pairs of a CNN and an attention model ({across:.3f}) on "
        f"{study.judge}: {min(gaps, key=lambda kind: gaps[kind].value)}"
    )
    rest = {"file": study.resamples_file(study.judge), "images": [study.judge]}
    return weakest(gaps.values(), why, over=BOTH, **rest)


def _divide(study: Study, images: str) -> pd.Series | None:
    """Mean of both kinds' own pairs less that of the pairs across, with its interval."""
    places = _places(study, images)
    if not places:
        return None
    found = study.comparison(images).resamples.of(
        lambda m: sum(mean_of_pairs(m, own) for own in places) / 2 - _across(m, *places)
    )
    degrees = study.comparison(images).resamples.degrees
    values = [found.estimate, found.low, found.high, degrees]
    return pd.Series(values, ["mean", "low", "high", "degrees"])


def across_diverges(study: Study, of: str) -> Evidence:
    if not study.coarse or not study.evaluation:
        return untestable("it takes a coarse proxy and held-out images")
    rich, coarse = _divide(study, "evaluation"), _divide(study, study.coarse)
    if rich is None or coarse is None:
        return untestable(NOT_BOTH)
    why = (
        "growth of what pairs within CNNs and within attention models have over pairs across: "
        f"{coarse['mean']:.3f} on {study.coarse}, {rich['mean']:.3f} on the evaluation"
    )
    file, images = study.resamples_file("evaluation"), [study.coarse, "evaluation"]
    return weakest([gap(rich, coarse)], why, file=file, images=images, over=IMAGES)


# ------------------------------------------------------------------ the set


def _of_set(study: Study, statistic: Callable[[torch.Tensor], torch.Tensor]) -> Interval:
    """Of the submitted set's own matrices (..., k, k), on the judge's images."""
    compared = study.comparison(study.judge)
    places = torch.tensor(compared.places(study.members(study.highlight)))
    return compared.resamples.of(lambda m: statistic(m[..., places[:, None], places]))


def _lacking(study: Study) -> Evidence | None:
    if not study.judge or study.judge in study.chosen_on(study.highlight):
        return untestable("no images by which the set was not chosen")
    few = len(study.members(study.highlight)) < 3
    return untestable(f"{study.highlight} has one pair only") if few else None


def spread_narrow(study: Study, of: str) -> Evidence:
    if lacking := _lacking(study):
        return lacking
    size, theirs = len(study.members(study.highlight)), len(study.listed)
    if size != theirs:
        return untestable(f"a spread of {theirs} models is no measure of one of {size}")
    found = _of_set(study, lambda m: _averages(m).amax(-1) - _averages(m).amin(-1))
    why = f"highest less lowest average of {study.highlight} on {study.judge}"
    file, ends = study.resamples_file(study.judge), (found.low, found.high)
    return Evidence(found.estimate, why, file, *ends, images=[study.judge], over=IMAGES)


def _averages(matrices: torch.Tensor) -> torch.Tensor:
    """Of each model to the others: from (..., k, k) to (..., k)."""
    own = torch.diagonal(matrices, dim1=-2, dim2=-1)
    return (matrices.sum(-1) - own) / (matrices.shape[-1] - 1)


def set_more_even(study: Study, of: str) -> Evidence:
    if lacking := _lacking(study):
        return lacking
    rival = mixed_rival(study)
    if isinstance(rival, Evidence):
        return rival
    name, models = rival
    if name == study.contrast and study.judge in study.chosen_on(name):
        return untestable(f"{name} was chosen on {study.judge}, the only other images")
    compared = study.comparison(study.judge)
    rows = {study.highlight: compared.places(study.members(study.highlight))}
    rows[name] = compared.places(models)
    found = compared.resamples.of(
        lambda m: _deviation(m, rows[name]) - _deviation(m, rows[study.highlight])
    )
    each = {n: float(_deviation(compared.resamples.estimate, places)) for n, places in rows.items()}
    shown = ", ".join(f"{value:.4f} in {name}" for name, value in each.items())
    why = f"standard deviation of the pairs on {study.judge}: {shown}"
    file, ends = study.resamples_file(study.judge), (found.low, found.high)
    return Evidence(found.estimate, why, file, *ends, images=[study.judge], over=IMAGES)


def _deviation(matrices: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Standard deviation over the pairs of a set: from (..., m, m) to (...)."""
    index = torch.tensor(places)
    rows, columns = torch.triu_indices(len(places), len(places), 1)
    return matrices[..., index[rows], index[columns]].std(-1, correction=0)


def cluster_tight(study: Study, of: str) -> Evidence:
    if lacking := _lacking(study):
        return lacking
    compared = study.comparison(study.judge)
    embedding = embed(compared.similarity.numpy(), restarts=0)
    points, places = embedding.coordinates, compared.places(study.members(study.highlight))
    rng, m = np.random.default_rng(0), len(points)
    drawn = [_closeness(points[rng.choice(m, len(places), False)]) for _ in range(RANDOM_SETS)]
    own = _closeness(points[places])
    why = (
        f"share of {RANDOM_SETS} random sets that are as close in the map of {study.judge}: mean "
        f"distance {own:.3f} against {np.mean(drawn):.3f}; stress {embedding.stress:.2f}"
    )
    file = f"cka/{study.judge}_{study.estimator}.csv"
    return Evidence(float(np.mean(np.array(drawn) <= own)), why, file, images=[study.judge])


def _closeness(points: np.ndarray) -> float:
    """Mean distance of the pairs of some points."""
    rows, columns = np.triu_indices(len(points), 1)
    return float(np.linalg.norm(points[rows] - points[columns], axis=1).mean())


ALIKE = (
    hybrids_lead_here, within_above_across, across_diverges, spread_narrow, set_more_even,
    cluster_tight,
)  # fmt: skip
