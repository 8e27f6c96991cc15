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
# # Which models see most alike?
#
# The Blue Team chooses $k$ models so that the mean CKA over their pairs is as high as possible. In: the matrices of `2_cka`. Out: the
# submissions, each as a table in the form of the paper's Appendix A and as the portal's JSON, with the path of the search and a proved
# bound on what the best possible set could reach; and how firm the choice is: other objectives, other pools, other images.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from realign_utils.ablation import pool_table, pools_of
from realign_utils.claims import show_claim
from realign_utils.claims_evidence import Study
from realign_utils.features import read_features
from realign_utils.firmness import alternatives_table, choices_table, membership_table
from realign_utils.images import groups_of
from realign_utils.matrices import read_matrix
from realign_utils.profiles import enter_project
from realign_utils.progress import track
from realign_utils.registry import read_registry
from realign_utils.results import read_names
from realign_utils.selection import choose_models, save_proof, summary_row, trajectory_table
from realign_utils.settings import device_of_arithmetic
from realign_utils.store import write_text
from realign_utils.submission import save_submission
from realign_utils.uncertainty import resample

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters"]
runs = "runs/demo"  # folder of the results; not given: runs/<profile>
registry = "runs/demo/zoo/registry.csv"  # CSV with a row a model: layer, preprocessing, family …; or several; zoo: its own
proxies = {  # image sets on which models are compared before submitting
    "cifar100_like": {
        "number": 500,
        "seed": 0,
        "kind": "patches",
        "split": "proxy_low",
        "classes": "all",
        "resolution": 8,
        "cells": None,
    },
    "imagenette_like": {
        "number": 500,
        "seed": 0,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["coffee", "retina", "brick", "page"],
        "resolution": 32,
        "cells": None,
    },
}
estimator = "biased"  # HSIC estimator of the CKA that the search maximises
store = "runs/store"  # folder of features and weights, shared, by key
device = "auto"  # auto (all GPUs, else the CPU), cpu, mps, cuda, cuda:N, or several: cuda:0,cuda:1
resamples = 200  # random nine tenths of the images, from which standard errors come
families = {  # groups of Figure 4: queries on the registry's columns, or names
    "blur/ResNet": "family.str.contains('res|densenet')",
    "hybrid attention": "mechanism == 'hybrid'",
    "pure ViT": "mechanism == 'attention'",
}
reference_proxy = "cifar100_like"  # proxy of the calibration ratio real / proxy
highlight = "S4"  # the submission of Figures 2, 5, 6 and 7
k = 8  # models in a submission
restarts = 500  # random initialisations of the search
seed = 0  # seed of the search and of the figures
proof_seconds = 60  # time limit of the upper bound of each search
pools = {  # candidate models: 'all', a query on the registry's columns, or names
    "full": "all",
    "attention": "mechanism in ['attention', 'hybrid']",
    "cnn": "mechanism == 'convolution' and family.str.contains('res|densenet|darknet')",
    "cnn_and_light_hybrids": "mechanism in ['convolution', 'hybrid'] and family.str.contains('res|densenet|darknet|botnet|halonet')",
}
submissions = {  # the sets to submit
    "S1": {
        "title": "imagenette_like-optimized (any architecture)",
        "pool": "full",
        "proxies": {"imagenette_like": 1.0},
        "objective": "mean",
        "constraints": None,
        "models": None,
        "portal": None,
        "published_set": False,
        "note": None,
    },
    "S2": {
        "title": "All-ViT (listed by hand)",
        "pool": None,
        "proxies": None,
        "objective": "mean",
        "constraints": None,
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
        "published_set": False,
        "note": None,
    },
    "S3": {
        "title": "All-attention (both proxies)",
        "pool": "attention",
        "proxies": {"cifar100_like": 0.5, "imagenette_like": 0.5},
        "objective": "mean",
        "constraints": None,
        "models": None,
        "portal": None,
        "published_set": False,
        "note": None,
    },
    "S4": {
        "title": "CNN and light hybrids (cifar100_like-optimized)",
        "pool": "cnn_and_light_hybrids",
        "proxies": {"cifar100_like": 1.0},
        "objective": "mean",
        "constraints": None,
        "models": None,
        "portal": None,
        "published_set": False,
        "note": None,
    },
}

# %% [markdown]
# ## The candidates
#
# The similarity matrices of the proxies, and the rows of the registry for their models. A *pool* restricts the search to some of
# them: the paper's thesis is that a pool of one kind of architecture transfers better.

# %%
read = {name: read_matrix(Path(runs) / "cka" / f"{name}_{estimator}.csv") for name in proxies}
models = next(iter(read.values()))[0]
matrices = {name: similarity for name, (_, similarity) in read.items()}
known = read_registry(registry)
known.loc[list(models)].groupby(["mechanism", "family"]).size().rename("models").to_frame().T

# %% [markdown]
# ## Other images
#
# The images are a sample. Random nine tenths of them tell how much a mean would differ on others; drawn without replacement, since an image
# drawn twice would look like structure that all models share. The objective *lower_limit* needs them, and the section on other images
# at the end.

# %%
index = read_names(Path(runs) / "features.csv").set_index(["images", "model"])["file"]
halves = {}
for number, name in enumerate(track(proxies, "resampling")):
    features = [read_features(store, index[name, model]) for model in models]
    where = device_of_arithmetic(device)
    groups = groups_of(pd.read_csv(Path(runs) / "images" / f"{name}.csv"))
    drawn = {"groups": groups, "draws": resamples, "seed": seed + number, "estimator": estimator}
    halves[name] = resample(features, names=models, device=where, **drawn)

# %% [markdown]
# The standard error of one pair's CKA, over all pairs. A mean over many pairs is known better than one pair, but not by much: all pairs
# are computed from the same images.

# %%
errors = {name: pd.Series(half.standard_error.numpy().ravel()) for name, half in halves.items()}
pd.DataFrame(errors).describe().loc[["min", "50%", "max"]].round(4)

# %% [markdown]
# ## The search
#
# Three stages, as in section 2.3 of the paper:
#
# 1. **Greedy.** Start from the most similar pair; add, one at a time, the model that contributes most to the set's mean.
# 2. **1-swap.** Try every exchange of a member for a non-member, make the best one, repeat until none improves.
# 3. **Restarts.** Apply the swaps to many random sets too, and keep the best of all.
#
# What is maximised is the submission's *objective*: the weighted mean of its proxies, the worst proxy, or the lower confidence limit of
# the mean; and only sets that keep its *constraints* count. A *fixed list* is not searched; its row says so.

# %%
options = {"k": k, "restarts": restarts, "seed": seed, "pools": pools}
options |= {"reference_proxy": reference_proxy, "proof_seconds": proof_seconds}
options |= {"resamples": halves}
chosen = {
    name: choose_models(submission, matrices, models, known, **options)
    for name, submission in track(submissions.items(), "selecting", len(submissions))
}
for name, submission in chosen.items():
    save_submission(Path(runs) / "submissions" / name, submission.models, known)
    save_proof(Path(runs) / "selection" / name, submission, models)

# %% [markdown]
# ## How good is it?
#
# A heuristic finds a set; it cannot say how far it is from the best. The *upper bound* can: no set of $k$ models of the pool has a higher
# mean than this. Where it meets the set's own mean, the set is proved optimal. *Restarts that agree* is the share of random starts
# that ended in the same mean. Should the proof meet a better set than the search did, that one is submitted. The bound of a fixed list is
# over as many of all models, on the reference proxy.
#
# The proof is kept as a *certificate*, beside the matrix that it is about. `realign check-certificate` checks it without solving anything.
# For the worst proxy and the lower limit the matrix is the combination whose best set bounds the objective; there a gap may remain that no
# combination closes, and *proved optimal* then says False of a set that may still be the best.

# %% [markdown]
# All of it in one table, with the mean of each set on every proxy, whichever it was chosen on:

# %%
summary = pd.DataFrame(
    [summary_row(name, submissions[name], c, matrices, models, known) for name, c in chosen.items()]
)
summary["certificate"] = [f"selection/{name}.safetensors" for name in chosen]
write_text(Path(runs) / "submissions.csv", summary.to_csv(index=False))
summary.round(4)

# %% [markdown]
# *Objective* is the value of what was *maximised*, on one proxy or a combination; later columns give the mean on each proxy.
# If *proved optimal* says False, the true best lies between *objective* and *upper bound*.
#
# ## The path of the search
#
# How the mean falls as the greedy stage adds models, and what swaps and restarts win back. A mean over more pairs cannot stay at the
# level of the best pair: a trajectory that is flat would need models that are all equally alike. *NaN* after *swaps* says that they did not
# lead the greedy set to where it keeps all constraints.

# %%
trajectories = trajectory_table(chosen)
write_text(Path(runs) / "selection" / "trajectories.csv", trajectories.to_csv(index=False))
trajectories[trajectories["stage"] != "greedy"].pivot(
    index="submission", columns="stage", values="mean_similarity"
)

# %% [markdown]
# The paper's Figure 7 is said to be flat from model 12 of 20 on, which is to show that its set is near-optimal. Expect a fall here too: see
# whether it is below what a picture can show, 0.002.

# %%
images = {"proxies": proxies, "reference_proxy": reference_proxy, "estimator": estimator}
roles = {"submissions": submissions, "pools": pools, "highlight": highlight}
study = Study(runs, registry=registry, **images, **roles)
show_claim("flat_here", study)

# %% [markdown]
# Flat or not, a trajectory says nothing of other sets. What it is to show can be proved or refuted by the bound on every set of the pool:

# %%
show_claim("near_optimal", study)

# %% [markdown]
# Where one of the two verdicts differs from the other, the paper's conclusion may be right and its reason wrong, or the reverse.

# %% [markdown]
# ## The submissions
#
# In the form of Appendix A, ordered by how much a model contributes to the set. Beside each table lie the CSV and the portal's JSON.

# %%
for name in chosen:
    text = (Path(runs) / "submissions" / f"{name}.md").read_text()
    display(Markdown(f"**{name}: {submissions[name]['title']}**\n\n{text}"))

# %% [markdown]
# ## Other objectives
#
# From all models, the best set by every objective: each proxy alone, their mean, the worst of them, and the lower confidence limit on the
# reference proxy. What each choice costs on other images, `4_calibrate` tells.

# %%
options = {"restarts": restarts, "seed": seed, "proof_seconds": proof_seconds}
choices = choices_table(matrices, halves, models, k, reference_proxy=reference_proxy, **options)
write_text(Path(runs) / "selection" / "choices.csv", choices.to_csv(index=False))
choices.drop(columns="models").round(4)

# %% [markdown]
# Scores of different objectives cannot be compared with each other: a lower limit is lower than a mean. Compare each with its own bound.
#
# ## Other pools
#
# The paper chooses from pools of its own making. Here are all that suggest themselves: everything, each mechanism, each family that is
# large enough, the half of the models with the fewest parameters and that with the most, the profile's pools, and all models with at most half of
# the set of one mechanism. A small pool has a lower best whatever it holds, hence random pools of each size.

# %%
candidates = pools_of(known, models, k, pools=pools, families=families)
by_pool = pool_table(matrices[reference_proxy], candidates, models, k, **options)
write_text(Path(runs) / "selection" / "pools.csv", by_pool.to_csv(index=False))
by_pool[by_pool["kind"] != "random"].drop(columns="models").round(4)

# %% [markdown]
# Pools with equal scores to the last digit have the same best set. Whether a pool is any better than chance, on this proxy and on the
# evaluation, is seen in `4_calibrate`, where the random pools stand beside them.
#
# ## Had other images been drawn
#
# The search again on each of the matrices that other images might have given. The *share* of them in which a model is in the best set says
# how firm its place is: near 1, the images leave no doubt. Were all models alike, each would have a share of $k$ of all candidates.

# %%
shares = membership_table(chosen, submissions, halves, models, seed=seed)
write_text(Path(runs) / "selection" / "membership.csv", shares.to_csv(index=False))
shares[shares["share"].between(0.05, 0.95)].round(3)

# %% [markdown]
# Only contested places are shown (shares from 0.05 to 0.95). How many sets come near the submitted one?
# Sets count whose mean is not below the lower end of its 95 % interval, as far as single swaps and a search for unlike sets lead.

# %%
alternatives = alternatives_table(chosen, submissions, halves, models)
write_text(Path(runs) / "selection" / "alternatives.csv", alternatives.to_csv(index=False))
alternatives.drop(columns="other_models", errors="ignore").round(4)

# %% [markdown]
# *Shared* counts the models that the submitted set and the most different of these sets have in common. The *difference* of the two
# has an interval of its own. Where that does not reach zero, the submitted set is better than this one on these images, because both means rise
# and fall with the same images; where it does, the images cannot tell the two apart.
