"""The paper's claims on the search, and its own numbers computed again, on a run's files.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from realign_utils.claims_evidence import IMAGES, Evidence, Study, untestable
from realign_utils.claims_proxies import INTERVALS
from realign_utils.registry import choose
from realign_utils.search import greedy

FLAT_FROM = 12 / 20
"""The model by which Figure 7's caption has the greedy mean converged, of all."""


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
    why = f"of {name} on {row['n']} images of {images}; agrees if its interval reaches there"
    ends = (row["low"], row["high"])
    return Evidence(row["mean"], why, INTERVALS, *ends, images=[images], over=IMAGES)


def published_set_minimum(study: Study, of: str) -> Evidence:
    if _lacks_paper(study, of):
        return untestable(_lacks_paper(study, of))
    proxy, name = _proxy_of(study, of), _published_set(study)
    compared = study.comparison(proxy)
    places = torch.tensor(compared.places(study.members(name)))
    rows, columns = torch.triu_indices(len(places), len(places), 1)
    lowest = compared.resamples.of(lambda m: m[..., places[rows], places[columns]].amin(-1))
    file = study.resamples_file(proxy)
    ends = (lowest.low, lowest.high)
    return Evidence(lowest.estimate, f"of {name}", file, *ends, images=[proxy], over=IMAGES)


def optimum_again(study: Study, of: str) -> Evidence:
    if _lacks_paper(study, "imagenette"):
        return untestable(_lacks_paper(study, "imagenette"), INTERVALS)
    rows = {row.get("portal"): name for name, row in study.submissions.items()}
    if of not in rows:
        return untestable(f"no submission of this profile stands for {of} of the portal", INTERVALS)
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


AGAIN = (
    flat_here, near_optimal, portal_score, published_set_mean, published_set_minimum,
    optimum_again, failed,
)  # fmt: skip
