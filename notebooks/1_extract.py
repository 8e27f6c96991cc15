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
# # What does each model make of the images?
#
# Every model looks at the same images. What its *penultimate* layer gives, the last representation before the classifier, is kept as
# a matrix with one row an image: the **features**. All later notebooks compare these matrices and never touch a model again. In: a
# table of models, their weights, and sets of images. Out: one feature file for each model and set, and a list of what failed.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import display
from PIL import Image

from realign_utils.arithmetic import compare_arithmetic
from realign_utils.features import extract, name_of_device, require_two_models
from realign_utils.images import load_images, manifest, mosaic, require_halves
from realign_utils.parameters import larger_name
from realign_utils.profiles import enter_project
from realign_utils.registry import choose, read_registry
from realign_utils.store import write_text

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters"]
registry = "runs/demo/zoo/registry.csv"  # CSV with a row a model: layer, preprocessing, family …; or several; zoo: its own
models = "all"  # 'all', a query on the registry, or names
weights_dir = "runs/demo/zoo/weights"  # folder of <model>.safetensors or .pth checkpoints; null: the model hub; zoo: its
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
device = "auto"  # auto (all GPUs, else the CPU), cpu, mps, cuda, cuda:N, or several: cuda:0,cuda:1
cluster = None  # Dask cluster that extracts: tcp://host:8786, or local:N; null: none
batch_size = 64  # images in a forward pass; halved when too many
dtype = "float32"  # arithmetic of the forward pass; 16-bit types by autocast
token_pooling = "mean"  # how layers that give a grid of tokens become one vector
channels_last = False  # the memory layout that tensor cores prefer; changes results by rounding
compile = False  # compile each model by torch.compile: worth it for many images only
arithmetic = ["channels_last", "bfloat16", "float16"]  # faster arithmetic that the report examines
arithmetic_models = 6  # models on which that effect is measured, evenly chosen by size
reference_proxy = "cifar100_like"  # proxy of the calibration ratio real / proxy
interpolation = "timm"  # of the resize; timm: what each model was trained with
runs = "runs/demo"  # folder of the results; not given: runs/<profile>
store = "runs/store"  # folder of features and weights, shared, by key

# %% [markdown]
# ## The models
#
# A row of the table says which layer is the penultimate one and how an image must be resized, cropped and normalised for the model.
# Expect several families of each *mechanism*, the way in which a model mixes information between places of the image.

# %%
chosen = choose(read_registry(registry), models)
chosen.groupby("mechanism")[["family", "params_m"]].agg(
    {"family": ["size", "nunique"], "params_m": ["min", "max"]}
).set_axis(["models", "families", "smallest (M)", "largest (M)"], axis=1)

# %% [markdown]
# A mechanism with a single family cannot be told apart from that family: keep it in mind where later tables compare mechanisms.
#
# ## The images
#
# The *proxies* are images that everyone has; they stand for the portal's secret ones. The *evaluation*, where there is one, is held
# out: nothing is chosen by it. A sample takes as many images of each class as of any other and depends only on the seed. A *larger* set
# begins with the very images of its proxy and goes on; it serves the learning curve alone. The *calibration proxies*, if any, differ from each
# other in one thing, such as the resolution; by them `4_calibrate` finds which kind of proxy predicts best. Nothing is chosen by either.
# Halves of every set are compared later, so none may be smaller than 8 images.

# %%
sources = {**proxies, **({"evaluation": evaluation} if evaluation else {}), **calibration_proxies}
sources |= {larger_name(p): {**proxies[p], "number": number} for p, number in larger.items()}
image_sets = {name: load_images(source, name=name) for name, source in sources.items()}
for images in image_sets.values():
    require_halves(images)
pd.DataFrame(
    {
        name: {
            "images": len(images),
            "classes": len(set(images.labels)),
            "first": images.identifiers[0],
        }
        for name, images in image_sets.items()
    }
).T

# %% [markdown]
# Each set is written down as a manifest: the challenge's two names of every image, its class, and the SHA-256 of its content. With it
# the very same images can be asked for again, and anyone can check that they have them.

# %%
for name, images in image_sets.items():
    write_text(Path(runs) / "images" / f"{name}.csv", manifest(images).to_csv(index=False))

# %% [markdown]
# So they look, in the order above. Look for two things that matter later: how much detail an image has, and how easily the classes
# are told apart. Few, easy classes make all models seem alike.

# %%
for images in image_sets.values():
    display(Image.fromarray(mosaic(images, 3, 24)))

# %% [markdown]
# ## The features
#
# Each model is built once and sees every set, without gradients and with all its layers in evaluation mode. A hook *copies* what
# the layer gives, so that a later in-place operation cannot change it. Layers that give a grid of tokens are pooled to one vector
# (`token_pooling`); with `mean`, over the tokens that stand for places of the image.
#
# A feature file is named by all that it was made of: the weights' hash, the layer, the preprocessing, the images and the versions of
# the libraries. So a second run computes nothing again, and a changed ingredient can never be overlooked. A model that fails is a
# row of the table of failures, and the others go on.
#
# Several GPUs work at once, a process each, the largest model first; with `cluster` it is the workers of a Dask cluster.

# %%
places = {"store": store, "weights_dir": weights_dir, "device": device, "cluster": cluster}
shared = {
    "batch_size": batch_size,
    "token_pooling": token_pooling,
    "interpolation": interpolation,
}
used = {"dtype": dtype, "channels_last": channels_last, "compile": compile}
extraction = extract(
    chosen,
    image_sets,
    **places,
    **shared,
    **used,
)

# %% [markdown]
# ## What came out
#
# How many models of how many gave features, and of which dimension *d*. *Cached* files were computed by an earlier run and only
# verified in this one; *seconds* is what this run spent.

# %%
write_text(Path(runs) / "features.csv", extraction.index.to_csv(index=False))
write_text(Path(runs) / "failures.csv", extraction.failures.to_csv(index=False))
write_text(Path(runs) / "device.csv", f"device\n{name_of_device(device)}\n")
require_two_models(extraction, failures=Path(runs) / "failures.csv")
index = extraction.index
index.groupby("images", sort=False).agg(
    models=("model", "size"),
    smallest_d=("d", "min"),
    largest_d=("d", "max"),
    cached=("cached", "sum"),
    seconds=("seconds", "sum"),
).assign(of=len(chosen))

# %% [markdown]
# If *models* is below *of*, the table of failures says why. Dimensions differ from model to model, and CKA allows that; but for
# few images and many dimensions its biased estimate is too high, which is why `2_cka` computes the debiased one as well.

# %%
with pd.option_context("display.max_colwidth", None):
    display(extraction.failures if len(extraction.failures) else "No model failed.")

# %% [markdown]
# The slowest models, in seconds over all sets. A model that fails for want of memory is tried with smaller and smaller batches
# first, so memory is named as a reason only if a single image is too much.

# %%
index.groupby("model")["seconds"].sum().nlargest(5).to_frame().T

# %% [markdown]
# ## Would faster arithmetic do?
#
# Features are computed in float32 unless asked otherwise. GPUs are several times faster in 16 bits, with compiled models, or in
# another memory layout. What that costs is the change in CKA, measured here on some models of all sizes and the reference proxy.
# Expect differences near 1e-6 for the memory layout, which only reorders sums, and of 1e-4 to 1e-2 for 16 bits.

# %%
differences = compare_arithmetic(
    chosen,
    image_sets[reference_proxy],
    arithmetic,
    used=used,
    number=arithmetic_models,
    **places,
    **shared,
)
write_text(Path(runs) / "arithmetic.csv", differences.to_csv(index=False))
differences

# %% [markdown]
# A difference well below the gaps between submissions in `4_calibrate` may be had for the speed; a larger one changes which models
# are chosen. *failed* counts models that gave no features that way.
