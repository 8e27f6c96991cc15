"""The paper's claims on proxies, on a run's files.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``. A set that was chosen by its score on some images has part of that score by
chance. So scores are compared on images by which nothing was chosen, and where a claim is about a
proxy, by sets that were not chosen on it, or by families, which nobody chose.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from scipy.stats import f, rankdata

from realign_utils.claims_evidence import Evidence, Study, untestable
from realign_utils.claims_scores import Scores, gap_evidence, weakest
from realign_utils.intervals import ERROR, ranks_better

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
    pairs = [(scores.on(coarse).loc[name], scores.real().loc[name]) for name in fair]
    why = f"least excess of {coarse} over the real score, of the sets not chosen on it: {', '.join(fair)}"
    return gap_evidence(pairs, why, file=INTERVALS, images=on_images(study, coarse))


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
    gaps = (coarse.loc[both, "mean"] - fine.loc[both, "mean"]).sort_values()
    why = (
        f"least excess of {study.coarse} over {study.reference_proxy}, of {len(both)} families: "
        f"{gaps.index[0]}"
    )
    pairs = [(coarse.loc[family], fine.loc[family]) for family in both]
    images = [study.coarse, study.reference_proxy]
    return gap_evidence(pairs, why, file=FAMILIES, images=images)


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
    return weakest([(value, value - reach, value + reach)], why, file=file, images=images)


def _ranks(matrices: torch.Tensor) -> torch.Tensor:
    """(…, m, m) to (…, pairs): ranks of the pairs."""
    rows, columns = torch.triu_indices(matrices.shape[-1], matrices.shape[-1], 1)
    return torch.from_numpy(rankdata(matrices[..., rows, columns].numpy(), axis=-1))


def _correlation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def classes_matter(study: Study, of: str) -> Evidence:
    """Only between two proxies that differ in nothing else."""
    if not study.coarse or not study.evaluation:
        return untestable(NO_EVALUATION if study.coarse else ONE_PROXY)
    aside = ("classes", "number", "seed")
    kinds = {n: {k: v for k, v in s.items() if k not in aside} for n, s in study.proxies.items()}
    counts = {name: _classes(source) for name, source in study.proxies.items()}
    pairs = [(a, b) for a in kinds for b in kinds if kinds[a] == kinds[b] and counts[a] > counts[b]]
    if pairs:
        return _prediction(study, *pairs[0])
    fine, coarse = kinds[study.reference_proxy], kinds[study.coarse]
    other = [key for key in {**fine, **coarse} if fine.get(key) != coarse.get(key)]
    return untestable(
        f"the proxies differ in {' and '.join(other) or 'nothing'}, not in classes alone"
    )


def _classes(source: dict) -> float:
    classes = source.get("classes")
    return len(classes) if isinstance(classes, list) else np.inf


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
    """Of the numbers of images whose error is that of subsets really drawn: up to half of all.

    The interval of a ratio of two standard deviations, by the F distribution.
    """
    file, scores = "learning_curve.csv", study.of(INTERVALS)
    rows, own = study.of(file), scores.loc[scores["images"] == study.reference_proxy, "n"].max()
    rows = rows[rows["images"] == study.reference_proxy]
    drawn = (rows["n"] <= own / 2) | ((rows["n"] > own) & (rows["n"] <= rows["n"].max() / 2))
    rows = rows[drawn]
    sizes = sorted(rows["n"].unique())
    if len(sizes) < 2:
        return untestable("the learning curve has no two sizes below half of the images", file)
    own_rows = rows[rows["submission"] == study.highlight].set_index("n").loc[sizes]
    few, many = own_rows.iloc[0], own_rows.iloc[-1]
    ratio = many["standard_error"] / few["standard_error"]
    freedom = (many["draws"] - 1, few["draws"] - 1)
    ends = [ratio / f.ppf(share, *freedom) ** 0.5 for share in (1 - ERROR / 2, ERROR / 2)]
    why = (
        f"standard error of {study.highlight} with {sizes[-1]:,} images over that with {sizes[0]}; "
        f"independent images would give {(sizes[0] / sizes[-1]) ** 0.5:.2f}"
    )
    return Evidence(ratio, why, file, *ends, images=[study.reference_proxy])


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
    fine_off, coarse_off = (table["mean"] - real["mean"] for table in (fine, coarse))
    gaps = coarse_off.abs() - fine_off.abs()
    # what the evaluation's images add cancels where both proxies err to the same side
    shared = (np.sign(coarse_off) - np.sign(fine_off)).abs() * _reach(real)
    reach = np.sqrt(_reach(fine) ** 2 + _reach(coarse) ** 2 + shared**2)
    why = (
        f"error of {study.coarse} less that of {study.reference_proxy}, of family means; smallest "
        f"of {len(gaps)} families: {gaps.idxmin()}"
    )
    differences = list(zip(gaps, gaps - reach, gaps + reach, strict=True))
    images = on_images(study, study.reference_proxy, study.coarse)
    return weakest(differences, why, file=FAMILIES, images=images)


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
    ratios = _ratios(study, tables, "attention")
    if ratios.empty:
        return untestable("no family of attention models only has two models", FAMILIES)
    least = ratios.loc[ratios["mean"].idxmin()]
    why = f"mean CKA on the evaluation / {study.reference_proxy}, of {least.name}"
    images = on_images(study, study.reference_proxy)
    return Evidence(least["mean"], why, FAMILIES, least["low"], least["high"], images=images)


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
    return gap_evidence([(best, worst)], why, file=FAMILIES, images=images)


def _off(ratios: pd.DataFrame) -> pd.DataFrame:
    """How far ratios are off 1, with the same reach."""
    off = (ratios["mean"] - 1).abs()
    return pd.DataFrame({"mean": off, "low": off - _reach(ratios), "high": off + _reach(ratios)})


PROXIES = (
    coarse_overestimates, coarse_inflates, reference_ranks_better, reference_predicts_better,
    classes_matter, few_images_matter, more_images_help, reference_calibrates_better,
    reference_underestimates_vit, reference_calibrates_cnn,
)  # fmt: skip
