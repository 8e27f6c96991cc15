"""The paper's claims on sets of models, on a run's files.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``. Sets are compared where nothing was chosen: on the evaluation, or by the portal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.stats import t as student

from realign_utils.claims_evidence import (
    IMAGES,
    MODELS,
    POOLS,
    Difference,
    Evidence,
    Study,
    shared_models,
    untestable,
)
from realign_utils.claims_evidence import PERMUTATIONS as EXCHANGES
from realign_utils.claims_proxies import on_images
from realign_utils.claims_scores import Scores, weakest
from realign_utils.comparison import Comparison
from realign_utils.homogeneity import PERMUTATIONS
from realign_utils.intervals import ERROR
from realign_utils.prediction import SPLITS
from realign_utils.set_statistics import Part, together
from realign_utils.uncertainty import mean_of_pairs

# ------------------------------------------------------------------ real scores of sets


def _lead(study: Study, firsts: list[str], seconds: list[str], note: str = "") -> Evidence:
    scores = Scores(study)
    gaps = {(a, b): scores.lead(a, b) for a in firsts for b in seconds}
    first, second = min(gaps, key=lambda pair: gaps[pair].value)
    sure = sum(each.above(0, strict=True) > 0 for each in gaps.values())
    why = f"smallest lead: {first} over {second}; {sure} of {len(gaps)} leads are sure{note}"
    found = weakest(gaps.values(), why, file=scores.file, images=on_images(study), over=IMAGES)
    return found if study.evaluation else replace(found, low=None, high=None, over="")


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


def mixed_rival(study: Study) -> tuple[str, list[str]] | Evidence:
    """Name and models of the mixed set: the contrast, or where that is not one the best mixed set.

    That was chosen on the reference proxy among sets with at most half of any mechanism.
    """
    if not not_diverse(study):
        return study.contrast, study.members(study.contrast)
    pools = study.table("pools.csv")
    mixed = pools.loc[pools["kind"] == "mixed", "models"]
    if mixed.empty:
        return untestable(not_diverse(study), "pools.csv")
    return "the best mixed set", mixed.iloc[0].split()


def homogeneous_beats_mixed(study: Study, of: str) -> Evidence:
    lacking, rival = _without_score(study, study.contrast), mixed_rival(study)
    if lacking or isinstance(rival, Evidence):
        return lacking or rival
    rest = [name for name in Scores(study).table.index if name != rival[0]]
    if rival[0] == study.contrast:
        return _lead(study, rest, [study.contrast])
    if not study.evaluation:
        return untestable(f"{not_diverse(study)}, and {rival[0]} has no real score", "pools.csv")
    compared = study.comparison("evaluation")
    gaps = {name: _difference(compared, study.members(name), rival[1]) for name in rest}
    least = min(gaps, key=lambda name: gaps[name].value)
    why = (
        f"smallest lead over {rival[0]} ({compared.mean(rival[1]).estimate:.4f}), of {', '.join(gaps)}: "
        f"{least}; {not_diverse(study)}"
    )
    file = study.resamples_file("evaluation")
    return weakest(gaps.values(), why, file=file, images=["evaluation"], over=IMAGES)


def best_here(study: Study, of: str) -> Evidence:
    lacking = _without_score(study, study.highlight)
    if lacking:
        return lacking
    scores = Scores(study).table["judge"]
    rest = [name for name in scores.index if name != study.highlight]
    nearest = min(rest, key=lambda name: abs(scores[name] - scores[study.highlight]))
    shared = shared_models(study.members(study.highlight), study.members(nearest))
    note = f"; {study.highlight} shares {shared} with {nearest}, its nearest rival"
    return _lead(study, [study.highlight], rest, f"{note}; best is {scores.idxmax()}")


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


def homogeneity_predicts(study: Study, of: str) -> Evidence:
    """Error of the expected real score: from the proxy score less that from homogeneity alone."""
    file = "prediction_quality.csv"
    rows = study.table(file)
    rows = rows[(rows["judged_on"] == study.judge) & (rows["proxy"] == study.reference_proxy)]
    rows = rows.dropna(subset=["error"]).set_index("predictors")
    if not {"homogeneity", "proxy"} <= set(rows.index):
        return untestable("too few models to set some aside, or no other images", file)
    row, other = rows.loc["homogeneity"], rows.loc["proxy"]
    why = (
        f"root mean square error for unseen models: {row['error']:.4f} from the share of pairs of one "
        f"mechanism alone, {other['error']:.4f} from the score on {study.reference_proxy} alone"
    )
    lead = Difference(*-row[["over_proxy", "over_proxy_high", "over_proxy_low"]], SPLITS - 1)
    images = [study.reference_proxy, study.judge]
    return weakest([lead], why, file=file, images=images, over=MODELS)


def homogeneity_adds(study: Study, of: str) -> Evidence:
    """The difference at equal proxy score beside those after exchanges of the mechanisms' names."""
    file = "homogeneity.csv"
    rows = study.table(file)
    rows = rows[rows["judged_on"] == study.judge].dropna(subset=["difference", "by_quality"])
    if rows.empty:
        return untestable("too few models of two mechanisms, or no other images", file)
    ends = ["by_quality", "by_quality_high", "by_quality_low"]
    gaps = {
        row["mechanism"]: Difference(*(row["difference"] - row[ends]), p=2 / (PERMUTATIONS + 1))
        for _, row in rows.iterrows()
    }
    least = min(gaps, key=lambda name: gaps[name].value)
    why = (
        f"at equal proxy score, on {study.judge}, beyond what better models explain (all of "
        f"{PERMUTATIONS} exchanges of mechanisms); least in {least}, of {', '.join(gaps)}"
    )
    images = [study.reference_proxy, study.judge]
    return weakest(gaps.values(), why, file=file, images=images, over=EXCHANGES)


def pools_transfer(study: Study, of: str) -> Evidence:
    """How much less a homogeneous pool's best set loses elsewhere than those of random pools.

    A pool of fewer models leaves less to chance on the images of the choice, so that its best set
    falls less on others: the random pools are of its size.
    """
    file, pools = "pools.csv", study.table("pools.csv")
    pure, drawn = pools[pools["kind"] == "mechanism"], pools[pools["kind"] == "random"]
    drawn = {
        size: [s.split() for s in rows["models"]] for size, rows in drawn.groupby("candidates")
    }
    pure = pure[pure["candidates"].map(lambda size: len(drawn.get(size, [])) > 1)]
    if pure.empty or not study.judge:
        return untestable("no pool of one mechanism and random ones of its size to compare", file)
    gaps = {
        row.pool: _kept(study, row.models.split(), drawn[row.candidates])
        for row in pure.itertuples()
    }
    least = min(gaps, key=lambda name: gaps[name].value)
    why = (
        f"lead on {study.judge} less that on {study.reference_proxy}, where all were chosen, over the "
        f"best sets of random pools of its size; smallest: {least}, of {', '.join(gaps)}"
    )
    images = [study.reference_proxy, study.judge]
    return weakest(gaps.values(), why, file=file, images=images, over=POOLS)


def _kept(study: Study, models: list[str], rivals: list[list[str]]) -> Difference:
    """Of the lead over other sets: on the judge, less on the reference proxy; other images, other pools."""
    parts, falls, value = [], np.zeros(len(rivals)), 0.0
    for sign, images in ((1, study.judge), (-1, study.reference_proxy)):
        compared = study.comparison(images)
        own, others = compared.places(models), [compared.places(each) for each in rivals]
        lead = compared.resamples.of(
            lambda m, own=own, others=others: (
                mean_of_pairs(m, own) - sum(mean_of_pairs(m, each) for each in others) / len(others)
            )
        )
        value += sign * lead.estimate
        falls -= sign * np.array([compared.mean(each).estimate for each in rivals])
        parts.append(Part(lead.standard_error, compared.resamples.degrees))
    pools = float(falls.std(ddof=1)) * (1 + 1 / len(rivals)) ** 0.5
    error = together([*parts, Part(pools, len(rivals) - 1)])
    reach = float(student.ppf(1 - ERROR / 2, error.freedom)) * error.error
    return Difference(value, value - reach, value + reach, error.freedom)


def _difference(compared: Comparison, first: list[str], second: list[str]) -> Difference:
    """Of two sets' means on the same images."""
    found = compared.difference(first, second)
    return Difference(found.estimate, found.low, found.high, compared.resamples.degrees)


SETS = (
    homogeneous_beats_mixed, best_here, cnn_matches_here, homogeneity_predicts, homogeneity_adds,
    pools_transfer,
)  # fmt: skip
