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
# # How alike do the models see?
#
# Each model turned the same images into a matrix of features. Here every pair of models is compared by linear
# centred kernel alignment (CKA, Kornblith et al. 2019), once for every set of images. In: the feature files that
# `1_extract` left. Out: one labelled model × model matrix for each set of images and each estimator, and beside it how sure every
# cell is: standard error, 95 % interval, and what two unrelated models would have.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from realign_utils.comparison import compare
from realign_utils.comparison_draws import joint_seeds
from realign_utils.comparison_files import write_comparison
from realign_utils.features import images_of, read_features
from realign_utils.images import groups_of
from realign_utils.parameters import larger_name
from realign_utils.profiles import enter_project
from realign_utils.progress import track
from realign_utils.results import read_names
from realign_utils.settings import device_of_arithmetic
from realign_utils.stability import HALVES

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters"]
runs = "runs/demo"  # folder of the results; not given: runs/<profile>
store = "runs/store"  # folder of features and weights, shared, by key
resamples = 200  # random nine tenths of the images, from which standard errors come
larger = {"cifar100_like": 2000}  # more images of a proxy, for its learning curve alone
calibration_proxies = {  # further image sets, by which proxies are compared and nothing is ever chosen
    "pixels_4": {
        "number": 250,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": "all",
        "resolution": 4,
        "cells": None,
    },
    "pixels_8": {
        "number": 250,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": "all",
        "resolution": 8,
        "cells": None,
    },
    "pixels_16": {
        "number": 250,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": "all",
        "resolution": 16,
        "cells": None,
    },
    "pixels_32": {
        "number": 250,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": "all",
        "resolution": 32,
        "cells": None,
    },
    "classes_2a": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["hubble", "ihc"],
        "resolution": 32,
        "cells": 4,
    },
    "classes_2b": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["brick", "coins"],
        "resolution": 32,
        "cells": 4,
    },
    "classes_2c": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["coffee", "motorcycle"],
        "resolution": 32,
        "cells": 4,
    },
    "classes_4a": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["camera", "cell", "grass", "motorcycle"],
        "resolution": 32,
        "cells": 2,
    },
    "classes_4b": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["brick", "china", "clock", "coins"],
        "resolution": 32,
        "cells": 2,
    },
    "classes_4c": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["coffee", "flower", "hubble", "rocket"],
        "resolution": 32,
        "cells": 2,
    },
    "classes_8a": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["astronaut", "cell", "china", "grass", "gravel", "hubble", "ihc", "motorcycle"],
        "resolution": 32,
        "cells": 1,
    },
    "classes_8b": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["brick", "chelsea", "clock", "coffee", "coins", "flower", "moon", "page"],
        "resolution": 32,
        "cells": 1,
    },
    "classes_8c": {
        "number": 160,
        "seed": 1,
        "kind": "patches",
        "split": "proxy_full",
        "classes": ["brick", "cell", "chelsea", "coins", "flower", "gravel", "motorcycle", "page"],
        "resolution": 32,
        "cells": 1,
    },
}
curve_sizes = [50, 100, 200, 500, 1000, 2000, 5000]  # numbers of images in the learning curve
seed = 0  # seed of the search and of the figures
device = "auto"  # auto (all GPUs, else the CPU), cpu, mps, cuda, cuda:N, or several: cuda:0,cuda:1

# %% [markdown]
# ## What there is
#
# A model takes part if it has features on *every* set of images; otherwise the matrices could not be compared.
# The others are listed in `failures.csv`, with the reason.

# %%
index = read_names(Path(runs) / "features.csv")
sets = list(index["images"].unique())
complete = index.groupby("model", sort=False)["images"].nunique() == len(sets)
index = index[index["model"].map(complete)]
index.pivot(index="model", columns="images", values="d").describe().loc[["count", "min", "max"]]

# %% [markdown]
# The row *count* is the number of models compared; *min* and *max* are the dimensions of their features. CKA compares
# models of different width, since it looks only at how the *images* relate to each other.
#
# ## The computation
#
# With the features $X \in \mathbb{R}^{n \times p}$ and $Y \in \mathbb{R}^{n \times q}$ of $n$ images, each column centred,
#
# $$\text{CKA}(X, Y) = \frac{\lVert Y^\top X \rVert_F^2}{\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}.$$
#
# The centring is essential: the paper's formula leaves it out, its values do not. The numerator is the inner product of the two
# centred Gram matrices $XX^\top$ and $YY^\top$. So all pairs at once are one matrix product: every model's Gram matrix becomes one
# row of a stack, and the stack is multiplied by its own transpose.
#
# Two estimators are computed. The **biased** one is the paper's and the portal's. It is above zero even for unrelated features when
# images are few and dimensions many. The **debiased** one (Song et al. 2012) has expectation zero there, and may be negative.
#
# ## How sure is a value?
#
# The images are a sample of all that one could have taken, so every value is an estimate. How far it might be off shows in how much it
# changes on random nine tenths of the images, drawn *without* replacement. The plain bootstrap, which draws as many images as there are *with*
# replacement, is not used: an image that is drawn twice is a pair of equal images for *every* model, so all models seem to agree on it,
# and CKA comes out too high. Nine tenths of the images have no such pairs; their spread is multiplied by $\sqrt{s / (n - s)}$, here 3, to
# give the standard error of the whole. Halves would be enough for the debiased estimator, but where features have more dimensions than there
# are images the biased one hardly varies on them, and its intervals would be too narrow. For nearly unrelated models the intervals
# are wider than they need be.
#
# The interval is over *other images of the same kind*. Photographs are drawn one by one. The demo's patches are not independent: those of one
# cell of a photograph overlap. So whole cells are drawn, and the interval is over other cells; with few cells it is wide.
#
# A second way checks the first: the **jackknife** leaves out each image, or each cell, once, and has no random numbers in it.
# `4_calibrate` sets its standard errors beside those of the subsets, and names the images that alone decide a model's values.
#
# The same images at several resolutions are drawn alike, so that what they share cancels in a comparison. And both *halves* of the images,
# many times over: what is chosen on one can be judged on the other.
#
# The subsets are taken from the Gram matrices that are there already. Where these are too large for the memory, smaller subsets are
# computed from the features, the debiased estimator's spread stands for both, and there is no jackknife. In the same pass smaller samples
# are drawn, for the learning curves of `4_calibrate`; the largest sizes are drawn only a few times. A GPU is then advisable. A larger set
# of images, which serves the curve alone, and the calibration proxies get half of the subsets, and no halves.
#
# **Chance** is the value that is left when one model's images are shuffled: what unrelated models would have. Mean and deviation over
# all shuffles are known in closed form, so nothing is shuffled.
#
# Every feature file knows the images of which it was made. A model with other images than the first one's, or with the same in
# another order, stops this notebook by name.

# %%
where = device_of_arithmetic(device)
aside = {*map(larger_name, larger), *calibration_proxies}  # on which nothing is chosen or judged
fewer = max(20, resamples // 2)
manifests = {name: pd.read_csv(Path(runs) / "images" / f"{name}.csv") for name in sets}
seeds = joint_seeds({n: list(t["image_identifier"]) for n, t in manifests.items()}, seed)
pd.Series(seeds, name="seed of the draws")

# %% [markdown]
# Sets of one seed are the same images, stored at several resolutions.

# %%
compared = {}
for name in track(sets, "CKA of all pairs"):
    rows = index[index["images"] == name]
    compared[name] = compare(
        [read_features(store, file) for file in rows["file"]],
        names=list(rows["model"]),
        identifiers=[images_of(store, file) for file in rows["file"]],
        groups=groups_of(manifests[name]),
        resamples=fewer if name in aside else resamples,
        sizes=curve_sizes,
        halves=0 if name in aside else HALVES,
        seed=seeds[name],  # other images are drawn apart, as they are apart
        device=where,
    )

# %% [markdown]
# Everything is a labelled CSV, `<images>_<estimator>.csv` and with the endings `_standard_error`, `_lower`, `_upper`, `_chance` and
# `_chance_deviation`. The values on each subset are kept too, so that later notebooks get the interval of *any* number that is computed
# from a matrix, such as a submission's mean or the difference of two, without the features.

# %%
for name, estimators in compared.items():
    for comparison in estimators.values():
        write_comparison(Path(runs) / "cka", name, comparison)

# %% [markdown]
# ## What came out
#
# Over all pairs of different models. Expect the debiased values below the biased ones, and less so with more images.

# %%
means = {
    (name, kind): c.pair_values() for name, kinds in compared.items() for kind, c in kinds.items()
}
table = pd.DataFrame(means).describe().loc[["min", "25%", "50%", "mean", "75%", "max"]]
table.T.round(3)

# %% [markdown]
# If one set of images gives higher values than another throughout, it does not follow that models agree more on it in any useful
# sense: few, easily told-apart classes dominate the Gram matrices of all models alike. That is the *inflation* the paper reports for
# Imagenette, and the reason why a proxy must be calibrated (`4_calibrate`).

# %%
largest = table.loc["mean"].unstack()["biased"].idxmax()
display(
    Markdown(
        f"The highest mean CKA is on **{largest}**: {table.loc['mean', (largest, 'biased')]:.3f}."
    )
)

# %% [markdown]
# How sure a single cell is, and what unrelated models would have: the mean over all pairs of the standard error and of the chance level.
# Expect the chance level of the debiased estimator to be zero, and the two estimators' standard errors to be alike.

# %%
pd.DataFrame(
    {
        (name, kind): c.pair_averages()
        for name, kinds in compared.items()
        for kind, c in kinds.items()
    }
).T.round(4)

# %% [markdown]
# Two cells whose values differ by less than some two standard errors should not be ranked by eye. The errors of cells of one matrix go
# together, since they come from the same images: the interval of a *difference* is not to be had from two intervals, and `4_calibrate`
# computes it from the subsets.
#
# A chance level near the values themselves would mean that the matrix shows the number of images and dimensions rather than the models.
# Where it is far below them, as it should be here, the biased value and the debiased one differ little.
