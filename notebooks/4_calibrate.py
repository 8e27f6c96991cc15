# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does a proxy tell what the evaluation will say?
#
# Models are chosen on a proxy and judged on other images. In: the matrices of `2_cka`, the submissions of `3_select`, and the scores of
# the evaluation. Out: the table of section 3.1, and the mean CKA within families of architectures.

# %%
from pathlib import Path

import pandas as pd

from realign_utils.calibrate import (
    calibration_table,
    family_similarity,
    mean_similarity,
    rank_agreement,
)
from realign_utils.matrices import read_matrix
from realign_utils.registry import choose, read_registry
from realign_utils.store import write_text

# %% tags=["parameters"]
runs = "runs/demo"  # folder of this profile's results
registry = "runs/demo/zoo/registry.csv"  # CSV with a row a model: layer, preprocessing, family …; or several
proxies = {  # image sets on which models are compared before submitting
    "cifar100_like": {
        "number": 500,
        "seed": 0,
        "kind": "patches",
        "split": "proxy_low",
        "classes": "all",
        "resolution": 16,
    },
    "imagenette_like": {
        "number": 500,
        "seed": 0,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["coffee", "retina", "brick", "page"],
        "resolution": 32,
    },
}
evaluation = {  # held-out images that stand for the portal's; null: none at hand
    "number": 500,
    "seed": 0,
    "kind": "patches",
    "split": "evaluation",
    "classes": "all",
    "resolution": 32,
}
estimator = "biased"  # HSIC estimator of the CKA that the search maximises
submissions = {  # the sets to submit
    "S1": {
        "title": "imagenette_like-optimized (any architecture)",
        "pool": "full",
        "proxies": {"imagenette_like": 1.0},
        "models": None,
        "portal": None,
        "note": None,
    },
    "S2": {
        "title": "All-ViT (listed by hand)",
        "pool": None,
        "proxies": None,
        "models": [
            "vit_width64_seed0",
            "vit_width64_seed1",
            "vit_patch4_width48_seed0",
            "deit_width64_seed0",
            "beit_width64_seed0",
            "convit_width64_seed0",
            "swin_width32_seed0",
            "swin_width48_seed0",
        ],
        "portal": None,
        "note": None,
    },
    "S3": {
        "title": "All-attention (both proxies)",
        "pool": "attention",
        "proxies": {"cifar100_like": 0.5, "imagenette_like": 0.5},
        "models": None,
        "portal": None,
        "note": None,
    },
    "S4": {
        "title": "CNN and light hybrids (cifar100_like-optimized)",
        "pool": "cnn_and_light_hybrids",
        "proxies": {"cifar100_like": 1.0},
        "models": None,
        "portal": None,
        "note": None,
    },
}
reference_proxy = "cifar100_like"  # proxy of the calibration ratio real / proxy
portal = None  # CSV of published portal scores; null: none
families = {  # groups of Figure 4: queries on the registry's columns, or names
    "blur/ResNet": "family.str.contains('res|densenet')",
    "hybrid attention": "mechanism == 'hybrid'",
    "pure ViT": "mechanism == 'attention'",
}

# %% [markdown]
# ## The scores
#
# The mean pairwise CKA of each submission on every set of images.

# %%
sets = [*proxies, "evaluation"] if evaluation else list(proxies)
read = {name: read_matrix(Path(runs) / "cka" / f"{name}_{estimator}.csv") for name in sets}
models = list(read[reference_proxy][0])
tables = {name: pd.read_csv(Path(runs) / "submissions" / f"{name}.csv") for name in submissions}
members = {name: [models.index(m) for m in table["model"]] for name, table in tables.items()}
scores = pd.DataFrame(
    {s: {name: mean_similarity(read[s][1], rows) for name, rows in members.items()} for s in sets}
)
scores.round(4)

# %% [markdown]
# ## The calibration table
#
# *Real* is the score that counts: the portal's where it was published, else the one on the held-out evaluation images. The calibration
# ratio is real / proxy on the reference proxy. A ratio below 1 says that the proxy promised too much; what matters for *choosing* is
# whether the ratio is the same for all submissions, since then the proxy ranks them rightly.

# %%
published = pd.read_csv(portal, index_col="submission")["real"] if portal else {}
real = scores["evaluation"].to_dict() if evaluation else {}
real |= {
    name: published[submission["portal"]]
    for name, submission in submissions.items()
    if submission.get("portal") in published
}
calibration = calibration_table(scores, real, reference_proxy)
calibration.insert(0, "title", [submissions[name]["title"] for name in calibration.index])
write_text(Path(runs) / "calibration.csv", calibration.to_csv(index_label="submission"))
calibration.round(4)

# %% [markdown]
# ## Which proxy ranks the submissions as the evaluation does?
#
# The share of the pairs of submissions that a proxy puts in the right order; one half is chance. A handful of submissions makes this
# coarse: no conclusion should hang on it alone.

# %%
agreement = pd.Series(
    {proxy: rank_agreement(calibration[proxy], calibration["real"]) for proxy in proxies},
    name="share of pairs in the right order",
)
write_text(Path(runs) / "rank_agreement.csv", agreement.to_csv(index_label="proxy"))
agreement.round(3).to_frame()

# %% [markdown]
# ## Within families
#
# Figure 4 of the paper: the mean CKA over the pairs within each family. The interval is a jackknife over *models*, since pairs that
# share a model are not independent.

# %%
rows = read_registry(registry).loc[models]
groups = {
    family: [models.index(m) for m in choose(rows, which).index]
    for family, which in families.items()
}
within = pd.concat([family_similarity(read[s][1], groups).assign(images=s) for s in sets])
write_text(Path(runs) / "family_similarity.csv", within.to_csv(index=False))
within.pivot(index="family", columns="images", values="mean")[sets].round(3)

# %% [markdown]
# A family that is alike on every set of images is alike; one that is alike on one set only shares the classes of that set.

# %%
best = within.loc[within.groupby("images")["mean"].idxmax(), ["images", "family", "mean"]]
best.round(3)
