"""The paper's claims on proxies, on a run's files.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``. A set that was chosen by its score on some images has part of that score by
chance. So scores are compared on images by which nothing was chosen, and where a claim is about a
proxy, by sets that were not chosen on it, or by families, which nobody chose.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from scipy.stats import f, rankdata

from realign_utils.claims_evidence import BOTH, IMAGES, Difference, Evidence, Study, untestable
from realign_utils.claims_scores import Scores, as_difference, gap, weakest
from realign_utils.intervals import ERROR, VERDICTS, ranks_better
from realign_utils.registry import members
from realign_utils.set_statistics import estimate, ratio, score_sets

INTERVALS, FAMILIES = "submission_intervals.csv", "family_similarity.csv"
NO_EVALUATION = "this profile has no held-out images"
ONE_PROXY = "this profile has one proxy only"


# ------------------------------------------------------------------ proxies against real scores


def coarse_overestimates(study: Study, of: str) -> Evidence:
    if not study.coarse:
        return untestable(ONE_PROXY, INTERVALS)
    scores, coarse = Scores(study), study.coarse
    fair = [name for name in scores.table.index if coarse not in study.chosen_on(name)]
    if not fair:
        return untestable(f"no set with a real score was chosen without {coarse}", INTERVALS)
    gaps = [gap(scores.on(coarse).loc[name], scores.real().loc[name]) for name in fair]
    why = f"least excess of {coarse} over the real score, of the sets not chosen on it: {', '.join(fair)}"
    return weakest(gaps, why, file=INTERVALS, images=on_images(study, coarse), over=IMAGES)


def on_images(study: Study, *proxies: str | None) -> list[str]:
    """Sets of images that a number comes from, without doubles."""
    sets = [*proxies, "evaluation" if study.evaluation else None]
    return [*dict.fromkeys(name for name in sets if name)]


def coarse_inflates(study: Study, of: str) -> Evidence:
    if not study.coarse:
        return untestable(ONE_PROXY, FAMILIES)
    coarse, fine = (study.family_means(i) for i in (study.coarse, study.reference_proxy))
    both = coarse.index.intersection(fine.index)
    if both.empty:
        return untestable("no family has two models", FAMILIES)
    gaps = {family: gap(coarse.loc[family], fine.loc[family]) for family in both}
    why = (
        f"least excess of {study.coarse} over {study.reference_proxy}, of {len(both)} families: "
        f"{min(gaps, key=lambda family: gaps[family].value)}"
    )
    images = [study.coarse, study.reference_proxy]
    return weakest(gaps.values(), why, file=FAMILIES, images=images, over=IMAGES)


def reference_ranks_better(study: Study, of: str) -> Evidence:
    scores, file = Scores(study), "rank_agreement.csv"
    if not study.coarse or len(scores.table) < 2:
        why = f"{len(scores.table)} submission(s) with a real score" if study.coarse else ONE_PROXY
        return untestable(why, file)
    shares = study.table(file, "proxy").iloc[:, 0]
    ours, theirs = shares[study.reference_proxy], shares[study.coarse]
    ruled = ranks_better(
        *map(scores.calls, (study.reference_proxy, study.coarse)), scores.real_calls()
    )
    why = (
        f"pairs of submissions in the right order: {ours:.0%} against {theirs:.0%}; the sets "
        "chosen on either proxy are among them"
    )
    images = on_images(study, study.reference_proxy, study.coarse)
    return Evidence(ours - theirs, why, file, ruled=ruled, images=images)


def reference_predicts_better(study: Study, of: str) -> Evidence:
    if not study.coarse or not study.evaluation:
        return untestable(NO_EVALUATION if study.coarse else ONE_PROXY)
    return _prediction(study, study.reference_proxy, study.coarse)


def _prediction(study: Study, first: str, second: str) -> Evidence:
    """Rank correlation with the evaluation over all pairs of models: of one proxy less another's.

    The three sets of images are independent: each is resampled with the others held, and the
    squares of the errors add up.
    """
    compared = [study.comparison(images).resamples for images in (first, second, "evaluation")]
    one, other, real = (_ranks(each.estimate) for each in compared)
    parts = [
        compared[0].of(lambda m: _correlation(_ranks(m), real) - _correlation(other, real)),
        compared[1].of(lambda m: _correlation(one, real) - _correlation(_ranks(m), real)),
        compared[2].of(lambda m: _correlation(one, _ranks(m)) - _correlation(other, _ranks(m))),
    ]
    value, reach = parts[0].estimate, float(np.hypot.reduce([p.high - p.estimate for p in parts]))
    rho = [float(_correlation(ranks, real)) for ranks in (one, other)]
    why = (
        f"rank correlation with the evaluation over {one.shape[-1]} pairs of models: {rho[0]:.3f} "
        f"({first}), {rho[1]:.3f} ({second})"
    )
    file, images = study.resamples_file("evaluation"), [first, second, "evaluation"]
    one = Difference(value, value - reach, value + reach)
    return weakest([one], why, file=file, images=images, over=IMAGES)


def _ranks(matrices: torch.Tensor) -> torch.Tensor:
    """(…, m, m) to (…, pairs): ranks of the pairs."""
    rows, columns = torch.triu_indices(matrices.shape[-1], matrices.shape[-1], 1)
    return torch.from_numpy(rankdata(matrices[..., rows, columns].numpy(), axis=-1))


def _correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def principle(study: Study, of: str) -> Evidence:
    """The test of a design principle, by its number: the verdict is that of the principles' table."""
    file = "principles.csv"
    row = study.table(file, "number").loc[int(of)]
    if not np.isfinite(row["value"]) or row["verdict"] not in VERDICTS:
        return untestable(str(row["test"]), file)
    over = BOTH if np.isfinite(row["low"]) else ""
    ends = (row["low"], row["high"]) if over else (None, None)
    why = str(row["test"]).replace("`", "")
    rest = {"ruled": row["verdict"], "over": over, "images": on_images(study)}
    return Evidence(row["value"], why, file, *ends, **rest)


def few_images_matter(study: Study, of: str) -> Evidence:
    rows = study.of(INTERVALS)
    rows = rows[rows["images"] == study.reference_proxy]
    reach = (rows["high"] - rows["low"]) / 2
    why = (
        f"median half-width of {len(rows)} submissions' 95 % intervals, {rows['n'].max()} images; "
        f"{reach.min():.4f} to {reach.max():.4f}"
    )
    return Evidence(reach.median(), why, INTERVALS, images=[study.reference_proxy])


def more_images_help(study: Study, of: str) -> Evidence:
    """By how much a submission's standard error falls from the proxy's own images to its larger set.

    The interval of a ratio of two standard errors by the F distribution, both with the degrees of
    freedom of the own images' error: images of more groups have more. The larger set begins with the
    own images, so the two errors go together and the interval is too wide rather than too narrow.
    """
    file, scores = "learning_curve.csv", study.of(INTERVALS).set_index(["images", "submission"])
    rows, proxy = study.of(file), study.reference_proxy
    own, errors = scores.loc[proxy], rows[rows["images"] == proxy].set_index(["n", "submission"])
    few, many = int(own["n"].max()), int(rows.loc[rows["images"] == proxy, "n"].max())
    if many == few:
        return untestable(f"{proxy} has no larger set (parameter `larger`)", file)
    change = np.log(errors["standard_error"][many] / errors["standard_error"][few])
    reach = np.log(f.ppf(1 - ERROR / 2, own["degrees"], own["degrees"])) / 2
    falls = {
        name: Difference(-value, -value - reach[i], -value + reach[i], own["degrees"][name])
        for i, (name, value) in enumerate(change.loc[own.index].items())
    }
    least = min(falls, key=lambda name: falls[name].value)
    shown = [1 - np.exp(-end) for end in (falls[least].value, falls[least].low, falls[least].high)]
    why = (
        f"share by which the standard error of a submission is lower with {many:,} images than with "
        f"{few:,}, least of {len(falls)}: {least}; independent images give {1 - (few / many) ** 0.5:.2f}"
    )
    found = weakest(falls.values(), why, file=file, images=[proxy], over=IMAGES)
    return replace(found, value=shown[0], low=shown[1], high=shown[2])


# ------------------------------------------------------------------ ratios of families


def _on_all(study: Study) -> dict[str, pd.DataFrame] | Evidence:
    """Family means on the reference proxy and the evaluation, of the families known on both."""
    if not study.evaluation:
        return untestable(NO_EVALUATION, FAMILIES)
    sets = on_images(study, study.reference_proxy, study.coarse)
    tables = {name: study.family_means(name) for name in sets}
    both = [f for f in tables["evaluation"].index if all(f in t.index for t in tables.values())]
    if not both:
        return untestable("no family has two models", FAMILIES)
    return {name: table.loc[both] for name, table in tables.items()}


def reference_calibrates_better(study: Study, of: str) -> Evidence:
    tables = _on_all(study) if study.coarse else untestable(ONE_PROXY, FAMILIES)
    if isinstance(tables, Evidence):
        return tables
    real = tables["evaluation"]
    fine, coarse = tables[study.reference_proxy], tables[study.coarse]
    gaps = {
        family: _nearer(fine.loc[family], coarse.loc[family], real.loc[family])
        for family in real.index
    }
    why = (
        f"error of {study.coarse} less that of {study.reference_proxy}, of family means; smallest "
        f"of {len(gaps)} families: {min(gaps, key=lambda family: gaps[family].value)}"
    )
    images = on_images(study, study.reference_proxy, study.coarse)
    return weakest(gaps.values(), why, file=FAMILIES, images=images, over=IMAGES)


def _nearer(fine: pd.Series, coarse: pd.Series, real: pd.Series) -> Difference:
    """How much nearer `fine` is to `real` than `coarse` is, the error of all three considered.

    |coarse − real| > |fine − real| where coarse − fine and coarse + fine − 2 real have one sign,
    and the smaller of the two is then by how much. Both signs must be sure, so the less sure one
    is given, with the sign of the product.
    """
    reach = [(each["high"] - each["low"]) / 2 for each in (fine, coarse, real)]
    apart, beyond = coarse["mean"] - fine["mean"], coarse["mean"] + fine["mean"] - 2 * real["mean"]
    reaches = np.hypot(*reach[:2]), np.linalg.norm([*reach[:2], 2 * reach[2]])
    parts = {
        abs(v) / r if r else np.inf: (abs(v), r)
        for v, r in zip((apart, beyond), reaches, strict=True)
    }
    size, off = parts[min(parts)]
    value = size * np.sign(apart * beyond)
    return Difference(value, value - off, value + off)


def _reach(table: pd.DataFrame) -> pd.Series:
    return (table["high"] - table["low"]) / 2


def _ratios(study: Study, tables: dict[str, pd.DataFrame], mechanism: str) -> pd.DataFrame:
    """Evaluation / reference proxy of the families of one mechanism: mean, low, high."""
    real, proxy = tables["evaluation"], tables[study.reference_proxy]
    ratio = real["mean"] / proxy["mean"]
    reach = ratio * np.hypot(_reach(real) / real["mean"], _reach(proxy) / proxy["mean"])
    rows = pd.DataFrame({"mean": ratio, "low": ratio - reach, "high": ratio + reach})
    return rows[rows.index.isin(study.families_of(mechanism))]


def reference_underestimates_vit(study: Study, of: str) -> Evidence:
    tables = _on_all(study)
    if isinstance(tables, Evidence):
        return tables
    found = {
        family: _ratio_over_models(study, family)
        for family in study.families_of("attention")
        if family in tables["evaluation"].index
    }
    if not found:
        return untestable("no family of attention models only has two models", FAMILIES)
    least = min(found, key=lambda family: found[family].value)
    why = f"mean CKA on the evaluation / {study.reference_proxy}, of {least}"
    images = on_images(study, study.reference_proxy)
    file = study.resamples_file("evaluation")
    return weakest(found.values(), why, file=file, images=images, over=BOTH)


def _ratio_over_models(study: Study, family: str) -> Difference:
    """Evaluation / reference proxy of a family's pairs, over other images and other models."""
    compared = [study.comparison(images) for images in (study.reference_proxy, "evaluation")]
    rows = members(study.known, study.families[family], compared[0].names)
    pairs = np.array([*combinations(rows, 2)])
    scores = [score_sets(each.resamples, pairs) for each in compared]
    return as_difference(estimate(ratio, scores, pairs, least=1))


def reference_calibrates_cnn(study: Study, of: str) -> Evidence:
    tables = _on_all(study)
    if isinstance(tables, Evidence):
        return tables
    cnn, vit = (_off(_ratios(study, tables, kind)) for kind in ("convolution", "attention"))
    if cnn.empty or vit.empty:
        return untestable("no family of CNNs only and one of attention models only", FAMILIES)
    worst, best = cnn.loc[cnn["mean"].idxmax()], vit.loc[vit["mean"].idxmin()]
    why = (
        f"evaluation / {study.reference_proxy} is off 1 by {worst['mean']:.3f} ({worst.name}), "
        f"{best['mean']:.3f} ({best.name})"
    )
    images = on_images(study, study.reference_proxy)
    return weakest([gap(best, worst)], why, file=FAMILIES, images=images, over=IMAGES)


def _off(ratios: pd.DataFrame) -> pd.DataFrame:
    """How far ratios are off 1, with the same reach."""
    off = (ratios["mean"] - 1).abs()
    return pd.DataFrame({"mean": off, "low": off - _reach(ratios), "high": off + _reach(ratios)})


PROXIES = (
    coarse_overestimates, coarse_inflates, reference_ranks_better, reference_predicts_better,
    principle, few_images_matter, more_images_help, reference_calibrates_better,
    reference_underestimates_vit, reference_calibrates_cnn,
)  # fmt: skip
