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
# `1_extract` left. Out: one labelled model × model matrix for each set of images and each estimator.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from realign_utils.calibrate import pair_values
from realign_utils.cka import cka_matrix, gram_sums
from realign_utils.features import read_features
from realign_utils.matrices import write_matrix
from realign_utils.profiles import enter_project
from realign_utils.progress import track

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters"]
runs = "runs/demo"  # folder of the results; not given: runs/<profile>
store = "runs/store"  # folder of features and weights, shared, by key
device = "auto"  # auto (all GPUs, else the CPU), cpu, mps, cuda, cuda:N, or several: cuda:0,cuda:1

# %% [markdown]
# ## What there is
#
# A model takes part if it has features on *every* set of images; otherwise the matrices could not be compared.
# The others are listed in `failures.csv`, with the reason.

# %%
index = pd.read_csv(Path(runs) / "features.csv")
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

# %%
means = {}
for name in track(sets, "CKA of all pairs"):
    rows = index[index["images"] == name]
    features = [read_features(store, file) for file in rows["file"]]
    where = "cpu" if device == "mps" else device  # Apple's GPUs have no float64
    sums = gram_sums(features, names=list(rows["model"]), device=where)
    for estimator in ("biased", "debiased"):
        similarity = cka_matrix(sums, estimator=estimator).cpu().numpy()
        write_matrix(Path(runs) / "cka" / f"{name}_{estimator}.csv", rows["model"], similarity)
        means[name, estimator] = pair_values(similarity, range(len(rows)))

# %% [markdown]
# ## What came out
#
# Over all pairs of different models. Expect the debiased values below the biased ones, and less so with more images.

# %%
table = pd.DataFrame(means).describe().loc[["min", "25%", "50%", "mean", "75%", "max"]]
table.round(3)

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
