"""The paper's claims on sets of models and on the search, on a run's files.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``. Sets are compared where nothing was chosen: on the evaluation, or by the portal.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from realign_utils.claims_evidence import Evidence, Study, untestable
from realign_utils.claims_proxies import INTERVALS, on_images
from realign_utils.claims_scores import Scores, ends, gap, gap_evidence, weakest
from realign_utils.comparison import Comparison
from realign_utils.registry import choose
from realign_utils.search import greedy

FLAT_FROM = 12 / 20
"""The model by which Figure 7's caption has the greedy mean converged, of all."""


# ------------------------------------------------------------------ real scores of sets


def _lead(study: Study, firsts: list[str], seconds: list[str], note: str = "") -> Evidence:
    scores = Scores(study)
    calls, pairs = scores.real_calls(), [(a, b) for a in firsts for b in seconds]
    gaps = {pair: scores.lead(*pair) for pair in pairs}
    first, second = min(gaps, key=gaps.get)
    sure = sum(calls[pair] > 0 for pair in pairs)
    why = f"smallest lead: {first} over {second}; {sure} of {len(pairs)} leads are sure{note}"
    signs = [calls[pair] for pair in pairs]
    return weakest(gaps.values(), why, calls=signs, file=scores.file, images=on_images(study))


def _without_score(study: Study, *names: str) -> Evidence | None:
    known = Scores(study).table.index
    missing = [name for name in names if name not in known]
    if missing or len(known) < 2:
        lacking = f"no real score of {', '.join(missing)}" if missing else "nothing to compare with"
        return untestable(lacking, Scores(study).file)
    return None


def not_diverse(study: Study) -> str:
    """Why the set that stands for the paper's S1 is not "diverse CNN+ViT"; empty where it is."""
    counts = study.mechanisms(study.contrast)
    if {"convolution", "attention"} <= set(counts.index):
        return ""
    held = ", ".join(f"{count} {mechanism}" for mechanism, count in counts.items())
    return f"{study.contrast} is not a mixed set here: {held}"


def homogeneous_beats_mixed(study: Study, of: str) -> Evidence:
    lacking = _without_score(study, study.contrast)
    if lacking or not_diverse(study):
        return lacking or untestable(not_diverse(study), Scores(study).file)
    rest = [name for name in Scores(study).table.index if name != study.contrast]
    return _lead(study, rest, [study.contrast])


def best_here(study: Study, of: str) -> Evidence:
    lacking = _without_score(study, study.highlight)
    if lacking:
        return lacking
    scores = Scores(study).table["judge"]
    rest = [name for name in scores.index if name != study.highlight]
    return _lead(study, [study.highlight], rest, f"; best is {scores.idxmax()}, {scores.max():.4f}")


def cnn_matches_here(study: Study, of: str) -> Evidence:
    lacking = _without_score(study, study.highlight)
    if lacking:
        return lacking
    others = [name for name in Scores(study).table.index if name != study.highlight]
    attention = [name for name in others if "convolution" not in study.mechanisms(name)]
    if not attention:
        return untestable(
            "no set without convolutional models has a real score", Scores(study).file
        )
    return _lead(study, [study.highlight], attention)


def homogeneity_transfers(study: Study, of: str) -> Evidence:
    file = "homogeneity.csv"
    rows = study.table(file)
    rows = rows[rows["judged_on"] == study.judge].dropna(subset=["difference", "by_quality"])
    if rows.empty:
        return untestable("too few models of two mechanisms, or no other images", file)
    gaps = {
        row.mechanism: tuple(
            row.difference - other
            for other in (row.by_quality, row.by_quality_high, row.by_quality_low)
        )
        for row in rows.itertuples()
    }
    why = (
        f"at equal proxy score, on {study.judge}, beyond what better models explain; least in "
        f"{min(gaps, key=gaps.get)}, of {', '.join(gaps)}"
    )
    images = [study.reference_proxy, study.judge]
    return weakest(gaps.values(), why, file=file, images=images)


def pools_transfer(study: Study, of: str) -> Evidence:
    """How much less the best set of a homogeneous pool loses elsewhere than the mixed best set."""
    file = "pools.csv"
    pools = study.table(file)
    mixed, pure = (pools[pools["kind"] == kind] for kind in ("mixed", "mechanism"))
    if mixed.empty or pure.empty or not study.judge:
        return untestable("no pool of one mechanism and a mixed one to compare", file)
    rival = mixed["models"].iloc[0].split()
    pairs = {
        row.pool: tuple(
            _difference(study.comparison(images), row.models.split(), rival)
            for images in (study.judge, study.reference_proxy)
        )
        for row in pure.itertuples()
    }
    least = min(pairs, key=lambda name: gap(*pairs[name]))
    why = (
        f"lead over the mixed optimum on {study.judge} less that on {study.reference_proxy}, where "
        f"both were chosen; smallest: {least}, of {', '.join(pairs)}"
    )
    images = [study.reference_proxy, study.judge]
    return gap_evidence(pairs.values(), why, file=file, images=images)


def _difference(compared: Comparison, first: list[str], second: list[str]) -> pd.Series:
    """Of two sets' means, with its interval: mean, low, high, degrees."""
    values = (*ends(compared.difference(first, second)), compared.resamples.degrees)
    return pd.Series(values, ["mean", "low", "high", "degrees"])


# ------------------------------------------------------------------ the search


def flat_here(study: Study, of: str) -> Evidence:
    file, name = "selection/trajectories.csv", study.highlight
    table = study.table(file)
    rows = table[(table["submission"] == name) & (table["stage"] == "greedy")]
    steps, how = rows["mean_similarity"].tolist(), "greedy"
    if not steps:
        compared = study.comparison(study.reference_proxy)
        places, file = compared.places(study.members(name)), f"submissions/{name}.csv"
        block = compared.similarity.numpy()[np.ix_(places, places)]
        steps, how = list(greedy(block, len(block))[1]), "greedy on its own members"
    size = len(steps) + 1
    first = max(2, round(FLAT_FROM * size))
    if first == size:
        return untestable(f"{size} models are too few", file)
    why = f"{how}: fall of {name} from {first} to {size} models"
    return Evidence(steps[first - 2] - steps[-1], why, file, images=[study.reference_proxy])


def near_optimal(study: Study, of: str) -> Evidence:
    """Below the bound of the search in the profile's smallest pool that holds the set."""
    file, reference = "submissions.csv", study.reference_proxy
    table, models = study.table(file, "submission"), set(study.members(study.highlight))
    bounds = {
        name: table["upper_bound"][name]
        for name, row in study.submissions.items()
        if row.get("pool") and [*row["proxies"]] == [reference] and not row.get("constraints")
        and row.get("objective", "mean") == "mean"
        and models <= set(choose(study.known, study.pools[row["pool"]]).index)
    }  # fmt: skip
    if not bounds:
        return untestable(f"no search on {reference} has a pool with all models of the set", file)
    name = min(bounds, key=bounds.get)
    mean, bound = table[reference][study.highlight], bounds[name]
    pool = study.submissions[name]["pool"]
    why = f"share by which any set of pool {pool} may exceed it: mean {mean:.4f}, bound {bound:.4f}"
    return Evidence(max(bound / mean - 1, 0.0), why, file, images=[reference])


# ------------------------------------------------------------------ the paper's own models


def _listed_here(study: Study) -> str:
    here = study.listed["model"].isin(study.compared).sum()
    return f"this run compares {here} of the {len(study.listed)} models of Appendix A"


def portal_score(study: Study, of: str) -> Evidence:
    """Nobody can score a set again without the portal's images."""
    return untestable(
        f"{_listed_here(study)}, and the portal's images are secret", "params/portal.csv"
    )


def _lacks_paper(study: Study, kind: str) -> str:
    """Why a run cannot repeat the paper's own numbers; empty where it can."""
    if not any(row.get("published_set") for row in study.submissions.values()):
        return f"{_listed_here(study)}, and none of its submissions is the published one"
    kinds = [source["kind"] for source in study.proxies.values()]
    return "" if kind in kinds else f"this run's images are {', '.join(kinds)}"


def _proxy_of(study: Study, kind: str) -> str:
    return next(name for name, source in study.proxies.items() if source["kind"] == kind)


def _published_set(study: Study) -> str:
    return next(name for name, row in study.submissions.items() if row.get("published_set"))


def published_set_mean(study: Study, of: str) -> Evidence:
    if _lacks_paper(study, of):
        return untestable(_lacks_paper(study, of), INTERVALS)
    return _score(study, _published_set(study), _proxy_of(study, of))


def _score(study: Study, name: str, images: str) -> Evidence:
    rows = study.of(INTERVALS)
    row = rows[(rows["submission"] == name) & (rows["images"] == images)].iloc[0]
    why = f"of {name} on {row['n']} images of {images}"
    return Evidence(row["mean"], why, INTERVALS, row["low"], row["high"], images=[images])


def published_set_minimum(study: Study, of: str) -> Evidence:
    if _lacks_paper(study, of):
        return untestable(_lacks_paper(study, of))
    proxy, name = _proxy_of(study, of), _published_set(study)
    compared = study.comparison(proxy)
    places = torch.tensor(compared.places(study.members(name)))
    rows, columns = torch.triu_indices(len(places), len(places), 1)
    lowest = compared.resamples.of(lambda m: m[..., places[rows], places[columns]].amin(-1))
    file = study.resamples_file(proxy)
    return Evidence(lowest.estimate, f"of {name}", file, lowest.low, lowest.high, images=[proxy])


def optimum_again(study: Study, of: str) -> Evidence:
    if _lacks_paper(study, "imagenette"):
        return untestable(_lacks_paper(study, "imagenette"), INTERVALS)
    rows = {row.get("portal"): name for name, row in study.submissions.items()}
    return _score(study, rows[of], _proxy_of(study, "imagenette"))


def failed(study: Study, of: str) -> Evidence:
    registered = set(pd.read_csv(f"{study.params}/registry.csv")["model"])
    tried = {*study.table("features.csv")["model"], *study.table("failures.csv").get("model", [])}
    if not registered <= tried:
        why = f"this run tried {len(registered & tried)} of the {len(registered)} models"
        return untestable(why, "features.csv")
    here = len(registered & study.compared)
    why = f"{here} of {len(registered)} gave features on every set of images"
    return Evidence(len(registered) - here, why, "features.csv")


SETS = (
    portal_score,
    homogeneous_beats_mixed, best_here, cnn_matches_here, homogeneity_transfers, pools_transfer,
    flat_here, near_optimal, published_set_mean, published_set_minimum,
    optimum_again, failed,
)  # fmt: skip
