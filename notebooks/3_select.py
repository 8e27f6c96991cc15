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
# submissions, each as a table in the form of the paper's Appendix A and as the portal's JSON, with the path of the search and a bound on
# what the best possible set could reach.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from realign_utils.matrices import read_matrix
from realign_utils.profiles import enter_project
from realign_utils.progress import track
from realign_utils.registry import read_registry
from realign_utils.selection import choose_models, summary_row, trajectory_table
from realign_utils.store import write_text
from realign_utils.submission import save_submission

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
estimator = "biased"  # HSIC estimator of the CKA that the search maximises
reference_proxy = "cifar100_like"  # proxy of the calibration ratio real / proxy
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
        "models": None,
        "portal": None,
        "published_set": False,
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
        "published_set": False,
        "note": None,
    },
    "S3": {
        "title": "All-attention (both proxies)",
        "pool": "attention",
        "proxies": {"cifar100_like": 0.5, "imagenette_like": 0.5},
        "models": None,
        "portal": None,
        "published_set": False,
        "note": None,
    },
    "S4": {
        "title": "CNN and light hybrids (cifar100_like-optimized)",
        "pool": "cnn_and_light_hybrids",
        "proxies": {"cifar100_like": 1.0},
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
# ## The search
#
# Three stages, as in section 2.3 of the paper:
#
# 1. **Greedy.** Start from the most similar pair; add, one at a time, the model that contributes most to the set's mean.
# 2. **1-swap.** Try every exchange of a member for a non-member, make the best one, repeat until none improves.
# 3. **Restarts.** Apply the swaps to many random sets too, and keep the best of all.
#
# A *fixed list* is not searched; its row says so.

# %%
options = {"k": k, "restarts": restarts, "seed": seed, "pools": pools}
options |= {"reference_proxy": reference_proxy, "proof_seconds": proof_seconds}
chosen = {
    name: choose_models(submission, matrices, models, known, **options)
    for name, submission in track(submissions.items(), "selecting", len(submissions))
}
for name, submission in chosen.items():
    save_submission(Path(runs) / "submissions" / name, submission.models, known)

# %% [markdown]
# ## How good is it?
#
# A heuristic finds a set; it cannot say how far it is from the best. The *upper bound* can: no set of $k$ models of the pool has a higher
# mean than this. Where it meets the set's own mean, the set is proved optimal. *Restarts that agree* is the share of random starts
# that ended in the same mean. Should the proof meet a better set than the search did, that one is submitted.

# %% [markdown]
# All of it in one table, with the mean of each set on every proxy, whichever it was chosen on:

# %%
summary = pd.DataFrame(
    [summary_row(name, submissions[name], c, matrices, models, known) for name, c in chosen.items()]
)
write_text(Path(runs) / "submissions.csv", summary.to_csv(index=False))
summary.round(4)

# %% [markdown]
# *Objective* is the mean similarity that was maximised, on one proxy or a combination; the columns after it give the mean on each proxy.
# If *proved optimal* says False, the true best lies between *objective* and *upper bound*.
#
# ## The path of the search
#
# How the mean falls as the greedy stage adds models, and what swaps and restarts win back. A mean over more pairs cannot stay at the
# level of the best pair: a trajectory that is flat would need models that are all equally alike.

# %%
trajectories = trajectory_table(chosen)
write_text(Path(runs) / "selection" / "trajectories.csv", trajectories.to_csv(index=False))
trajectories[trajectories["stage"] != "greedy"].pivot(
    index="submission", columns="stage", values="mean_similarity"
)

# %% [markdown]
# ## The submissions
#
# In the form of Appendix A, ordered by how much a model contributes to the set. Beside each table lie the CSV and the portal's JSON.

# %%
for name in chosen:
    text = (Path(runs) / "submissions" / f"{name}.md").read_text()
    display(Markdown(f"**{name}: {submissions[name]['title']}**\n\n{text}"))
