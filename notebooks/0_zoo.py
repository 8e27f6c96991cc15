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
# # Who is being compared?
#
# The paper compares 141 networks, trained by others on ImageNet. That takes a network connection, tens of gigabytes and a graphics
# card. The demo needs none of these: here about forty *small* networks are trained on patches of photographs, in minutes, on an
# ordinary processor. They are real members of the paper's families, and everything after this notebook is the paper's own procedure.
# In: a table of networks, and pictures that were installed with this project. Out: their weights, and a table of models in the paper's form.
#
# | in the paper | in the demo |
# |---|---|
# | ImageNet, on which the models were trained | patches of 19 photographs; the class of a patch is its photograph |
# | proxy CIFAR-100: many classes, 32 × 32 pixels scaled up | patches of all photographs, few pixels, scaled up |
# | proxy Imagenette: full resolution, ten easily told classes | full resolution, four easily told photographs |
# | the portal's secret images | patches of all photographs at full resolution, looked at only in the end |
# | 141 models, of which 20 are submitted | about forty models, of which 8 are submitted |

# %%
import matplotlib.pyplot as plt
from IPython.display import display

from realign_utils.images import load_images, mosaic
from realign_utils.profiles import enter_project
from realign_utils.registry import choose, read_registry
from realign_utils.zoo import train

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters"]
zoo = {  # the small models to train first; null: none
    "table": "params/zoo.csv",
    "models": "all",
    "images": {
        "number": 6000,
        "seed": 0,
        "kind": "patches",
        "split": "train",
        "classes": "all",
        "resolution": 32,
        "cells": None,
    },
    "epochs": None,
    "minimum_accuracy": 0.6,
}
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
evaluation = {  # held-out images that stand for the portal's; null: none at hand
    "number": 500,
    "seed": 0,
    "kind": "patches",
    "split": "evaluation",
    "classes": "all",
    "resolution": 32,
    "cells": None,
}
runs = "runs/demo"  # folder of the results; not given: runs/<profile>
store = "runs/store"  # folder of features and weights, shared, by key

# %% [markdown]
# ## The images
#
# Every photograph is divided into 36 cells. Twenty are for training, four each for the accuracy of the models, the two proxies and
# the evaluation: no two of these share a pixel. A patch is a square of half a cell's width or more, scaled to a few pixels. Expect
# the same 19 subjects in each row below, except in the one that stands for Imagenette; and blurred ones in the one that stands for CIFAR-100.

# %%
sources = {
    "training": zoo["images"],
    **proxies,
    **({"evaluation": evaluation} if evaluation else {}),
}
figure, rows = plt.subplots(len(sources), figsize=(9, 1.1 * len(sources)), layout="constrained")
for axes, (name, source) in zip(rows, sources.items(), strict=True):
    few = load_images({**source, "number": min(38, source["number"] or 38)}, name=name)
    axes.imshow(mosaic(few, 2, 19), interpolation="nearest")
    axes.set_title(name, loc="left", fontsize=9)
    axes.axis("off")
display(figure)
plt.close(figure)

# %% [markdown]
# Some patches show nothing but sky or a wall. Nobody could tell them apart, so no model can reach an accuracy of 1, and the models are
# free to differ in what they make of such a patch. Natural images have this too.
#
# ## The table
#
# One row is one network: its architecture in `timm`, how it is made small, and how long and how fast it learns. Seeds differ so that we
# can see how alike two models are that differ in nothing but chance. Expect all mechanisms and more than ten families.

# %%
table = choose(read_registry(zoo["table"]), zoo["models"])
table.groupby(["mechanism", "family"])[["params_m", "epochs"]].agg(["count", "min", "max"])

# %% [markdown]
# The families bear the paper's names, so that the pools of candidates can be the same: ResNets with and without blur pooling, DenseNets and
# DarkNets, hybrids with attention, pure transformers. All are hundreds of times smaller than the paper's.
#
# ## The training
#
# One process for each processor core, each with a single thread: several threads in every process only stand in each other's way. The
# weights of a model depend on nothing but its row, the images and the recipe. They are kept in the store under the hash of all of these,
# so a second run of this notebook trains nothing.

# %%
results = train(
    table,
    zoo["images"],
    store=store,
    out=f"{runs}/zoo",
    minimum_accuracy=zoo["minimum_accuracy"],
    epochs=zoo["epochs"],
)
results.drop(columns="reason").sort_values("accuracy", ascending=False).round(3)

# %% [markdown]
# The accuracy is the share of patches given to the right photograph, on cells that are used for nothing else. Chance is one in nineteen. It
# differs between families more than between seeds; a model that has learnt less is not excluded from agreeing with the others,
# as the paper's lightweight networks show.
#
# ## Who takes part
#
# A model below the least accuracy has learnt too little for its features to mean anything. It is left out of the table that the next
# notebooks read, and so is one whose training failed. Expect few or none.

# %%
print(
    f"{results['kept'].sum()} of {len(results)} models take part; least accuracy {zoo['minimum_accuracy']}"
)
display(results.loc[~results["kept"], ["accuracy", "reason"]])

# %% [markdown]
# An empty table means that none was left out. The list is also written to `zoo/dropped.csv`; the models that take part stand in
# `zoo/registry.csv`, beside the folder of their weights. Everything below would look different if the least accuracy were set much higher:
# then the best learners would be compared among themselves.
