"""A run of made-up similarities, as files: what the claims are judged by, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from realign_utils.calibrate import calibration_table, family_similarity, rank_agreement
from realign_utils.chance import Chance
from realign_utils.claims_evidence import Study
from realign_utils.comparison import Comparison
from realign_utils.comparison_files import write_comparison
from realign_utils.score_intervals import mean_intervals, paired_differences, with_image_intervals
from realign_utils.uncertainty import Resamples

KINDS = {"c": ("resnet", "convolution"), "v": ("vit", "attention"), "h": ("botnet", "hybrid")}
NAMES = tuple(f"{kind}{number}" for kind in KINDS for number in range(4))
FAMILIES = {
    "CNN": "mechanism == 'convolution'",
    "hybrid": "mechanism == 'hybrid'",
    "ViT": "mechanism == 'attention'",
}
LEVELS = {  # mean CKA within each kind of models, and across kinds
    "fine": {"c": 0.80, "v": 0.70, "h": 0.85, "across": 0.60},
    "coarse": {"c": 0.90, "v": 0.91, "h": 0.95, "across": 0.88},
    "evaluation": {"c": 0.82, "v": 0.78, "h": 0.80, "across": 0.50},
}
SETS = {
    "S1": ["c0", "c1", "v0", "v1"],
    "S2": ["v0", "v1", "v2", "v3"],
    "S3": ["h0", "h1", "h2", "h3"],
    "S4": ["c0", "c1", "c2", "c3"],
}
SUBMISSIONS: dict[str, dict[str, Any]] = {
    "S1": {"pool": "full", "proxies": {"coarse": 1.0}},
    "S2": {"models": SETS["S2"]},
    "S3": {"pool": "attention", "proxies": {"fine": 0.5, "coarse": 0.5}},
    "S4": {"pool": "cnn", "proxies": {"fine": 1.0}},
}


def similarity(levels: Mapping[str, float]) -> np.ndarray:
    """(12, 12): a level for each kind and one across them, with a small slope among the pairs."""
    m = len(NAMES)
    matrix = np.array(
        [[levels[a[0]] if a[0] == b[0] else levels["across"] for b in NAMES] for a in NAMES]
    )
    slope = 0.001 * np.add.outer(np.arange(m) % 4, np.arange(m) % 4)
    matrix = matrix + slope - slope.mean()
    np.fill_diagonal(matrix, 1.0)
    return matrix


def comparison(levels: Mapping[str, float], noise: float, seed: int) -> Comparison:
    """With intervals of a mean over four models of about ± noise."""
    rng, estimate = np.random.default_rng(seed), torch.from_numpy(similarity(levels))
    each = noise * rng.standard_normal((2, 200, len(NAMES), 1))
    noises = (
        each[0] + each[0].swapaxes(1, 2) + each[1] * each[1].swapaxes(1, 2) / max(noise, 1e-9)
    )  # of models, of pairs
    drawn = estimate + torch.from_numpy(noises)
    nothing = torch.zeros_like(estimate)
    resamples = Resamples(estimate, drawn, 250, 500)
    return Comparison(NAMES, "biased", resamples, Chance(nothing, nothing), {}, {})


def write_world(
    folder: Path,
    levels: Mapping[str, Mapping[str, float]] | None = None,
    noise: float = 0.002,
    sets: Mapping[str, list[str]] | None = None,
    held_out: bool = True,
) -> Study:
    """The files of a run whose models are as alike as `levels` say, and the study of it."""
    levels, sets = (
        {k: v | (levels or {}).get(k, {}) for k, v in LEVELS.items()},
        SETS | (sets or {}),
    )
    images = [name for name in levels if held_out or name != "evaluation"]
    compared = {name: comparison(levels[name], noise, i) for i, name in enumerate(images)}
    for name in images:
        write_comparison(folder / "cka", name, compared[name])
    lines = [f"{n},pool,224,224,0 0 0,1 1 1,{','.join(KINDS[n[0]])},1" for n in NAMES]
    header = "model,layer,resize,crop,mean,std,family,mechanism,params_m"
    (folder / "registry.csv").write_text("\n".join([header, *lines]))
    for name, models in sets.items():
        _write(folder / "submissions" / f"{name}.csv", pd.DataFrame({"model": models}))
    _write_scores(folder, compared, sets)
    _write_search(folder, compared, sets)
    sources = {name: {"kind": "patches", "resolution": i} for i, name in enumerate(images)}
    return Study(
        folder,
        proxies={"fine": sources["fine"], "coarse": sources["coarse"]},
        reference_proxy="fine",
        evaluation=sources.get("evaluation"),
        registry=str(folder / "registry.csv"),
        submissions=SUBMISSIONS,
        families=FAMILIES,
        pools={"full": "all", "attention": "mechanism != 'convolution'", "cnn": FAMILIES["CNN"]},
        highlight="S4",
        contrast="S1",
    )


def _write(path: Path, table: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def _write_scores(folder: Path, compared: dict[str, Comparison], sets: Mapping) -> None:
    both = {name: {"biased": each} for name, each in compared.items()}
    means = pd.DataFrame(
        {
            name: {s: each.mean(models).estimate for s, models in sets.items()}
            for name, each in compared.items()
        }
    )
    table = calibration_table(means, dict(means.get("evaluation", {})), "fine")
    table["portal_set"] = False
    _write(folder / "calibration.csv", table.rename_axis("submission").reset_index())
    _write(folder / "submission_intervals.csv", mean_intervals(both, sets))
    _write(folder / "submission_differences.csv", paired_differences(both, sets))
    if "evaluation" in means:
        shares = {p: rank_agreement(means[p], means["evaluation"]) for p in ("fine", "coarse")}
        shown = pd.DataFrame({"proxy": list(shares), "share": list(shares.values())})
        _write(folder / "rank_agreement.csv", shown)
    groups = {f: [i for i, n in enumerate(NAMES) if n[0] == f[0].lower()] for f in FAMILIES}
    within = pd.concat(
        [
            family_similarity(each.similarity.numpy(), groups).assign(images=name)
            for name, each in compared.items()
        ]
    )
    _write(folder / "family_similarity.csv", with_image_intervals(within, compared, groups))


def _write_search(folder: Path, compared: dict[str, Comparison], sets: Mapping) -> None:
    score = compared["fine"].mean(sets["S4"]).estimate
    table = pd.DataFrame({"submission": list(sets), "upper_bound": score, "fine": score})
    _write(folder / "submissions.csv", table)
    pools = {
        "convolution only": ("mechanism", sets["S4"]),
        "attention only": ("mechanism", SETS["S2"]),
    }
    pools["mixed mechanisms"] = ("mixed", SETS["S1"])
    drawn = (
        "c0 c1 v0 v1",
        "h0 h1 c2 c3",
        "v2 v3 h2 h3",
        "c0 c2 h1 h3",
        "v1 v3 c1 c3",
        "h0 h2 v0 v2",
    )
    pools |= {f"random pool {i} of 4": ("random", each.split()) for i, each in enumerate(drawn)}
    rows = [(pool, kind, 4, " ".join(models)) for pool, (kind, models) in pools.items()]
    columns = ["pool", "kind", "candidates", "models"]
    _write(folder / "pools.csv", pd.DataFrame(rows, columns=columns))
    steps = [("S4", size, 0.8, "greedy") for size in range(2, 21)]
    columns = ["submission", "size", "mean_similarity", "stage"]
    _write(folder / "selection" / "trajectories.csv", pd.DataFrame(steps, columns=columns))
    numbers = (50, 100, 200, 500, 2000)
    curve = [("fine", "biased", s, n, 50, 0.1 / n**0.5) for s in sets for n in numbers]
    columns = ["images", "estimator", "submission", "n", "draws", "standard_error"]
    _write(folder / "learning_curve.csv", pd.DataFrame(curve, columns=columns))
    row = {"mechanism": "convolution", "judged_on": "evaluation", "difference": 0.05}
    row |= {"by_quality": 0.0, "by_quality_low": -0.02, "by_quality_high": 0.02}
    _write(folder / "homogeneity.csv", pd.DataFrame([row]))
    row = {"proxy": "fine", "judged_on": "evaluation", "over_proxy": 0.0}
    quality = pd.DataFrame([row | {"predictors": p} for p in ("homogeneity", "proxy")])
    quality = quality.assign(error=[0.03, 0.05])
    quality.loc[0, ["over_proxy", "over_proxy_low", "over_proxy_high"]] = [-0.02, -0.03, -0.01]
    _write(folder / "prediction_quality.csv", quality)
    row = {"test": "many less few", "value": 0.5, "low": 0.2, "high": 0.8, "verdict": "holds"}
    _write(folder / "principles.csv", pd.DataFrame([{"number": n} | row for n in (1, 2)]))
    models = pd.DataFrame(
        [(name, m) for name in compared for m in NAMES], columns=["images", "model"]
    )
    _write(folder / "features.csv", models.assign(file=models["images"] + "/" + models["model"]))
    (folder / "failures.csv").write_text("\n")
