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
# # Architecture-Homogeneous Model Selection for Representational Alignment: a re-execution

# %% tags=["remove", "imports"]

import pandas as pd
from IPython.display import JSON, Markdown, display

from realign_utils.calibration_results import (
    by_pool_shown,
    pairs_sentence,
    pairs_shown,
    prediction_sentence,
    prediction_shown,
    predictions_shown,
    principles_shown,
    quality_sentence,
    quality_shown,
    ratios_shown,
    read_calibration,
    transfer_shown,
)
from realign_utils.claims import read_claims, scorecard
from realign_utils.claims_evidence import Study
from realign_utils.claims_shown import (
    OWN,
    RUN,
    against_sentence,
    chance_sentence,
    composition_sentence,
    counts,
    counts_sentence,
    scorecard_shown,
)
from realign_utils.claims_trail import examples, trail
from realign_utils.in_step import require_choice, require_in_step, require_reference
from realign_utils.influence import (
    SHARE,
    TIMES,
    identifiers_text,
    influence_sentence,
    influence_shown,
)
from realign_utils.intervals import CLOSE, ERROR
from realign_utils.learning_curves import (
    against_images,
    few_and_many_sentence,
    steady_sentence,
)
from realign_utils.matrices import read_matrix
from realign_utils.measure_tables import by_measure
from realign_utils.profiles import enter_project
from realign_utils.report import figure, table
from realign_utils.results import durations, model_counts, provenance, read_names, read_results
from realign_utils.score_intervals import (
    jackknife_sentence,
    jackknife_table,
    lead_sentence,
    leads,
)
from realign_utils.selection_results import (
    alternatives_shown,
    contested,
    firm_sentence,
    homogeneity_shown,
    pools_sentence,
    pools_shown,
    read_selection,
    regret_shown,
)
from realign_utils.store import write_text

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters", "remove"]
profile = "demo"  # name of the profile
title = "small models trained on patches of photographs"  # what was compared, below the title of the report
authors = []  # named by the report and the blog post
tags = ["representational alignment", "CKA", "reproduction"]  # keywords of the blog post
k = 8  # models in a submission
runs = "runs/demo"  # folder of the results; not given: runs/<profile>
figures = "figures/demo"  # folder of the figures; not given: figures/<profile>
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
reference_proxy = "cifar100_like"  # proxy of the calibration ratio real / proxy
estimator = "biased"  # HSIC estimator of the CKA that the search maximises
dtype = "float32"  # arithmetic of the forward pass; 16-bit types by autocast
channels_last = False  # the memory layout that tensor cores prefer; changes results by rounding
compile = False  # compile each model by torch.compile: worth it for many images only
token_pooling = "mean"  # how layers that give a grid of tokens become one vector
restarts = 500  # random initialisations of the search
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
highlight = "S4"  # the submission of Figures 2, 5, 6 and 7
contrast = "S1"  # the submission beside it in Figure 3
portal = None  # CSV of published portal scores; null: none
evaluation = {  # held-out images that stand for the portal's; null: none at hand
    "number": 500,
    "seed": 0,
    "kind": "patches",
    "split": "evaluation",
    "classes": "all",
    "resolution": 32,
    "cells": None,
}
registry = "runs/demo/zoo/registry.csv"  # CSV with a row a model: layer, preprocessing, family …; or several; zoo: its own
families = {  # groups of Figure 4: queries on the registry's columns, or names
    "blur/ResNet": "family.str.contains('res|densenet')",
    "hybrid attention": "mechanism == 'hybrid'",
    "pure ViT": "mechanism == 'attention'",
}
pools = {  # candidate models: 'all', a query on the registry's columns, or names
    "full": "all",
    "attention": "mechanism in ['attention', 'hybrid']",
    "cnn": "mechanism == 'convolution' and family.str.contains('res|densenet|darknet')",
    "cnn_and_light_hybrids": "mechanism in ['convolution', 'hybrid'] and family.str.contains('res|densenet|darknet|botnet|halonet')",
}
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

# %% tags=["remove"]
require_choice(runs, k, submissions)
require_reference(runs, reference_proxy)
require_in_step(runs, estimator, figures=figures, proxies=proxies)

# %% tags=["remove"]
results = read_results(runs)
compared, tried = model_counts(results)
scores = results.calibration
roles = {"highlight": highlight, "contrast": contrast, "submissions": submissions}
images = {"proxies": proxies, "reference_proxy": reference_proxy, "evaluation": evaluation}
groups = {"registry": registry, "families": families, "pools": pools}
study = Study(runs, estimator=estimator, **images, **groups, **roles)
card = scorecard(study, read_claims())
write_text(f"{runs}/scorecard.csv", card.to_csv())
scored = scores["real"].notna().any()
known = "real" if scored else reference_proxy
score_name = "real score" if scored else f"score on {reference_proxy}, in want of an evaluation,"
best = scores[known].idxmax()

# %% [markdown] tags=["blog"]
# ## Abstract

# %% tags=["blog"]
numbers = " and ".join(dict.fromkeys(str(source["number"] or "all") for source in proxies.values()))
where = ", the portal's," if portal else ", on images by which no set was chosen,"
of_images = "1 proxy, a set" if len(proxies) == 1 else f"{len(proxies)} proxies, sets"
text = f"""This is a re-execution of a Blue Team entry of the ICLR 2026 Re-Align Challenge, on the profile *{profile}* ({title}).
The entry selects {k} models whose representations are as alike as possible, by mean pairwise linear centred kernel alignment
(CKA), and holds that sets of one kind of architecture keep their alignment on new images better than mixed sets do. Here
{compared} of {tried} models were compared on {of_images} of {numbers} images on which sets of models are chosen.
The best {score_name}{where * bool(scored)} is {scores[known][best]:.4f}, of {best}, “{scores["title"][best]}”. {counts_sentence(card)}
{against_sentence(card)}"""
display(Markdown(text.replace("\n", " ")))

# %% [markdown] tags=["blog"]
# ## Introduction
#
# Do independently trained networks come to represent images alike? The Re-Align Challenge makes the question a game: the Blue Team
# selects models of a registry so that their pairwise similarity, by centred kernel alignment (CKA), is as high as possible on the
# secret images of the challenge's portal: that is the *real* score. The paper under re-execution computes CKA on two *proxies*, sets of
# images that stand in for the secret ones, selects by a greedy search with local refinement, and reports that *architecture homogeneity*
# predicts the real score better than the proxy score does.
#
# The numbers below are this run's; the paper's stand in [@tbl:published-scores] and, claim by claim, in [@sec:which-of-the-papers-claims-hold].

# %% tags=["blog"]
registered = len(pd.read_csv("params/registry.csv"))
classes = [
    len(source.get("classes", [])) for source in proxies.values() if source.get("classes") != "all"
]
analogy = f"""**What stands for what.** This profile needs no network and no GPU. In the place of the paper's {registered} models, pretrained
on ImageNet, stand {tried} small networks, trained here on patches of photographs; the class of a patch is the photograph. The proxy
`{reference_proxy}` stands for CIFAR-100: all classes, low resolution, scaled up. The other stands for Imagenette: full resolution, but
{classes} easily told classes. The evaluation stands for the portal's secret images: all classes, full resolution. Training, proxies
and evaluation use separate parts of every photograph. The code is that of the paper's profile; only models and images differ, so
agreement shows that the *mechanism* can arise, not that the paper's *values* are right."""
sources = [f"`{name}` ({source['kind']})" for name, source in proxies.items()]
plain = f"{tried} models with their own weights were compared on {' and '.join(sources)}."
display(Markdown(analogy.replace("\n", " ").replace("[", "").replace("]", "") if zoo else plain))

# %% [markdown] tags=["blog"]
# ## Methods
#
# ### Objective
#
# The mean CKA over the pairs of a set $\mathcal{M}$ of models is to be as high as possible,
#
# $$\bar{\rho}(\mathcal{M}) = \frac{2}{|\mathcal{M}|(|\mathcal{M}|-1)} \sum_{i<j} \text{CKA}(F_i, F_j),$$
#
# where $F_i$ is the matrix of penultimate features of model $i$, the input of its classifier, with a row for each image.
#
# ### CKA
#
# Linear centred kernel alignment [@kornblith2019] of $X$ and $Y$, whose columns are centred,
#
# $$\text{CKA}(X, Y) = \frac{\lVert Y^\top X \rVert_F^2}{\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}.$$
#
# The paper's formula leaves the centring out; its values have it. CKA is invariant to rotation and isotropic scaling. This is the
# biased estimator, as the portal's: for unrelated features of high dimension it is well above zero when images are few. The debiased
# one [@song2012] is computed beside it.

# %%
dimensions = results.features["d"]
display(
    Markdown(
        f"Features have {dimensions.min()} to {dimensions.max()} dimensions; layers that give a grid of tokens are pooled by "
        f"*{token_pooling}*. The search maximises the {estimator} estimate."
    )
)

# %% [markdown] tags=["blog"]
# ### Optimisation
#
# Three stages, as in the paper: a greedy set grown from the most similar pair; best-improvement exchanges of one model, until none
# improves; the same exchanges from random sets, of which the best is kept. Beyond the paper, an upper bound on every $k$-set tells how
# far a result may be from the best one.

# %%
display(
    Markdown(f"Each search here made {restarts} restarts from random sets of $k = {k}$ models.")
)

# %% [markdown] tags=["blog"]
# ## Results
#
# Figures 2 to 7 keep the paper's numbers, whatever their order here; there is no Figure 1, for the paper does not describe its own.
# Later figures have no counterpart there.
#
# ### Proxy calibration
#
# [@tbl:calibration] is the table of the paper's section 3.1, made again. *Real* is the score that counts, and the calibration ratio is
# real divided by the score on the reference proxy.

# %% tags=["blog"]
real_is = (
    "the portal's published score" if portal else "the score on the held-out evaluation images"
)
spread = f"""Real is {real_is}; the reference proxy is `{reference_proxy}`. The spread of the ratios, {scores["ratio"].min():.3f} to
{scores["ratio"].max():.3f}, is what makes a proxy mislead: a proxy whose ratio were the same for all submissions would rank them rightly
however much it promised."""
unscored = (
    "This profile has neither portal scores nor evaluation images, so that no real score is known."
)
display(Markdown(spread.replace("\n", " ") if scored else unscored))

# %% tags=["blog"]
held_out = ["evaluation"] if portal and "evaluation" in scores else []
shown = scores.assign(models=results.submissions["models"])
shown = shown[["title", "models", *proxies, *held_out, "real", "ratio"]].reset_index()
other = (
    " The portal scored the paper's own sets; only those with a published membership are the same."
)
table(
    shown,
    "Mean pairwise CKA of the submissions on the proxies, the real score, and the ratio real / "
    f"{reference_proxy}. {composition_sentence(study)}{other if portal else ''}",
    "tbl:calibration",
    digits=4,
    formats={"ratio": ".3f"},
    file=f"{runs}/calibration.csv",
)

# %% [markdown] tags=["blog"]
# The paper's own table, for its models and the portal's secret images, is [@tbl:published-scores]. Compare the *pattern*, not the
# values: which proxy promises more, which submissions it promises too much, and who comes out first.

# %% tags=["blog"]
published_scores = pd.read_csv("params/portal.csv")
table(
    published_scores.drop(columns="place"),
    "The four portal evaluations as the paper publishes them.",
    "tbl:published-scores",
    digits=4,
    formats={"ratio": ".3f"},
    file="params/portal.csv",
)

# %% [markdown]
# How good are the sets as solutions of the search problem? Where the upper bound meets the objective, no set of the candidates is better
# ([@tbl:certificates]). A fixed list was not searched: its bound is over as many of all models, on the reference proxy, and tells what was
# left on the table. Each bound comes with a certificate, a file that `realign check-certificate` verifies without solving anything. The
# bound of a *mean* closes, given time. That of the *worst* proxy and of a *lower limit* is the best of one combination of matrices: a gap may
# remain that no combination closes, and then "proved" is False of a set that may be the best all the same.

# %%
columns = {"pool": "pool", "candidates": "candidates", "maximised": "maximised"}
columns |= {"objective": "objective", "upper_bound": "upper bound", "proved_optimal": "proved"}
columns |= {"certificate": "certificate"}
table(
    results.submissions[list(columns)].rename(columns=columns).reset_index(),
    "What each search maximised and reached, an upper bound on every set of its candidates, whether that proves the set the best, "
    f"and the certificate, in `{runs}`; the matrix that it is about lies beside it.",
    "tbl:certificates",
    digits=4,
    file=f"{runs}/submissions.csv",
)

# %% [markdown] tags=["blog"]
# ### The submitted set

# %% tags=["blog"]
display(
    Markdown(
        f"[@fig:heatmap] shows the CKA of every pair of {highlight}, [@fig:comparison] compares it with {contrast}. "
        f"[@fig:per-model] ranks its models by their mean similarity to the others."
    )
)

# %%
figure(
    f"{figures}/fig2_heatmap",
    f"Pairwise CKA of the models of {highlight} on `{reference_proxy}`, ordered by hierarchical clustering.",
    "fig:heatmap",
    number=2,
    source="notebooks/5_figures.ipynb",
    width="88%",
)

# %% [markdown] tags=["blog"]
# A block brighter than its surroundings is a group within the set; a dark row is a model that the set could do without. The title names
# the darkest pair. Whether a set is *homogeneous* shows only beside another one, on the same colours:

# %% tags=["blog"]
figure(
    f"{figures}/fig3_comparison",
    f"{highlight} and {contrast} on one colour scale, on `{reference_proxy}`. {composition_sentence(study, [highlight, contrast])}",
    "fig:comparison",
    number=3,
    source="notebooks/5_figures.ipynb",
)

# %% [markdown]
# The paper calls its spread of per-model averages narrow and concludes that there are no outliers. Compare the spread of the points
# with the length of the ranges: a model may be average on the whole and still far from some other.

# %%
figure(
    f"{figures}/fig6_per_model",
    f"Mean CKA of each model of {highlight} to the other models of the set.",
    "fig:per-model",
    number=6,
    source="notebooks/5_figures.ipynb",
)

# %% [markdown] tags=["blog"]
# ### Families of architectures
#
# The mean CKA within families ([@fig:families]), and a map of all models in which those that see alike lie close ([@fig:map]).

# %% tags=["blog"]
figure(
    f"{figures}/fig4_families",
    "Mean CKA within families on each set of images. Intervals: jackknife over models, 95 %.",
    "fig:families",
    number=4,
    source="notebooks/5_figures.ipynb",
)

# %% [markdown] tags=["blog"]
# Compare families by their intervals, not by their bars: a family of a few models has few pairs. Longer bars on one set of images for
# *all* families say something of the images, nothing of the families. The map shows the same similarities at once:

# %% tags=["blog"]
figure(
    f"{figures}/fig5_map",
    f"Multidimensional scaling of 1 − CKA on `{reference_proxy}`; stars mark {highlight}.",
    "fig:map",
    number=5,
    source="notebooks/5_figures.ipynb",
    width="88%",
)

# %% [markdown] tags=["blog"]
# ### The path of the search
#
# How the mean falls as the greedy stage adds models ([@fig:trajectory]).

# %% tags=["blog"]
figure(
    f"{figures}/fig7_trajectory",
    f"Mean CKA of the greedy set of {highlight} against its size, and the result after swaps and restarts.",
    "fig:trajectory",
    number=7,
    source="notebooks/5_figures.ipynb",
    width="50%",
)

# %% [markdown] tags=["blog"]
# The mean over more and more pairs cannot stay at the level of the best pair, so the curve must fall. That it flattens does not show
# that the set is the best one; the upper bound does, where there is one.
#
# ### Which pool to choose from
#
# The paper chose from pools of its own making and gives no comparison of them. [@tbl:pools] and [@fig:pools] do, for everything, each
# mechanism, each family that is large enough, few and many parameters (the winning entry of the challenge holds that low capacity
# makes models agree), and mixtures. A small pool has a lower best whatever it holds; *random* is the average of random pools of the
# same size, searched as thoroughly, and *above* says of how many of them a pool scores higher: chance gives half. Here and below the
# *judge* is the set of images that judges the choice: the evaluation, or, in want of one, another proxy.

# %%
firm = read_selection(runs)
judge = "evaluation" if "evaluation" in firm.pools else None
others = [proxy for proxy in proxies if proxy != reference_proxy]
judge = judge or (others[-1] if others else None)
table(
    pools_shown(firm.pools, reference_proxy, judge),
    f"The best set of {k} models of each pool: chosen on `{reference_proxy}`, with its bound, and judged on "
    f"`{judge or reference_proxy}`. A dash: there are no random pools of that size.",
    "tbl:pools",
    digits=4,
    file=f"{runs}/pools.csv",
)

# %% tags=["blog"]
display(Markdown(pools_sentence(firm.pools, reference_proxy, judge)))
figure(
    f"{figures}/pools",
    "The best set of each pool, on the range of those of random pools of its size; below, sets of equal proxy score.",
    "fig:pools",
    source="notebooks/5_figures.ipynb",
)

# %% [markdown] tags=["blog"]
# A pool helps if its mark lies right of its grey range on the judge's images, not on the proxy alone. The paper's thesis is narrower: of two sets
# that look equally good on the proxy, the homogeneous one is to keep more of it. That can be tested on many sets of one mechanism and many
# mixed ones whose proxy score is the same. A positive difference alone does not favour the thesis: it also follows where the models of one
# mechanism score higher on average. So it stands beside what remains of it when the names of the mechanisms are exchanged among models of
# like proxy quality, on average and at most; *in favour* is a difference above all of those.

# %% tags=["blog"]
if len(firm.homogeneity):
    display(
        table(
            homogeneity_shown(firm.homogeneity, judge),
            f"Sets of one mechanism and mixed ones (at most half of any) of equal score on `{reference_proxy}`, judged on `{judge}`: "
            "averages over the sets drawn.",
            "tbl:homogeneity",
            digits=4,
            file=f"{runs}/homogeneity.csv",
        )
    )
else:
    why = "too few models of any mechanism, or all of one" if judge else "no images to judge on"
    display(Markdown(f"Nothing to compare: {why}."))

# %% [markdown]
# The averages are over sets that share models, so they say what is usual among these models, not what would be among others. A mechanism with few
# models has few sets.
#
# ### How firm is the choice
#
# The images are a sample. The search was repeated on matrices that other images might have given. In the upper part of
# [@fig:firmness] a model's share of their best sets is near 1 where the images leave no doubt of its place.

# %%
if len(firm.membership):
    display(Markdown(f"Settled (in over 95 % of the best sets): {firm_sentence(firm.membership)}."))
figure(
    f"{figures}/firmness",
    "Above: share of the best sets of resampled images in which each model is. Below: what each way of choosing costs, on each judge's images.",
    "fig:firmness",
    source="notebooks/5_figures.ipynb",
)

# %% [markdown]
# A step down at the dashed line is a set that the images settle; a slope is one of which a part might as well be others. These are
# the models on the slope, of the set or not; a model left of it was hardly ever missing, one right of it hardly ever there.

# %%
if len(contested(firm.membership)):
    display(
        table(
            contested(firm.membership),
            "Models of contested place: in 5 to 95 % of the best sets; at most ten a submission, those nearest to one half.",
            "tbl:contested",
            file=f"{runs}/selection/membership.csv",
        )
    )

# %% [markdown]
# A set whose places are contested has rivals that come near it. The next table counts the sets whose mean is not below the lower end of the best
# one's 95 % interval, and takes the one that differs most. The two means rise and fall with the same images, so their difference is
# known better than either: where its interval does not reach zero, the submitted set is better on these images.

# %%
if len(firm.alternatives):
    display(
        table(
            alternatives_shown(firm.alternatives),
            "Sets whose mean lies within the submitted one's 95 % interval (itself counted), and the most different of them: models that both have, its score, and by how much it is lower.",
            "tbl:alternatives",
            digits=4,
            file=f"{runs}/selection/alternatives.csv",
        )
    )
else:
    display(Markdown("No submission maximises a mean: there is nothing to count."))

# %% [markdown]
# The most different ones in full. Where they have few models in common with the submitted set, the search's choice is one of several
# regions of the registry that see nearly as alike; where they have nearly all in common, there is one region, with a soft edge.

# %%
pairs = zip(firm.alternatives["submission"], firm.alternatives["other_models"], strict=True)
for name, other in pairs:
    display(Markdown(f"Beside {name}: " + ", ".join(f"`{model}`" for model in other.split()) + "."))

# %% [markdown]
# And if the set had been chosen on images of another kind, not on another sample of the same? [@tbl:regret] judges the best set of all models by every objective on every set
# of images. The regret is what a set chosen on half of the judge's own images has more on their other half, averaged over many halves: chosen and
# scored on the same images it would win by chance. (The halves are taken of the images themselves, whole groups of them where images belong together, so each
# has half as many.) Each row is a way of choosing, and its largest number the risk of it. Where a dash stands there is no such risk, for the judge's own images chose the set.

# %%
table(
    regret_shown(firm.regret),
    "Regret in mean CKA of choosing (rows) when judged on other images (columns), across halves of the judge's images. A dash: the set was chosen on the judge's images.",
    "tbl:regret",
    digits=4,
    file=f"{runs}/regret.csv",
)

# %% [markdown]
# A column of numbers near zero is a judge whom every choice satisfies; a number below zero, a choice that beats what half of the judge's images would choose. The objectives behind the rows, each with
# a bound of its own:

# %%
choices = {"chosen_on": "chosen on", "score": "objective", "upper_bound": "upper bound"}
choices |= {"proved_optimal": "proved"}
table(
    firm.choices[list(choices)].rename(columns=choices),
    "The best set of all models by every objective. They are different quantities: a lower limit is lower than a mean.",
    "tbl:choices",
    digits=4,
    file=f"{runs}/selection/choices.csv",
)

# %% [markdown]
# ### What a proxy score predicts
#
# The paper's calibration rests on four submissions. Here it rests on thousands of sets of each pool, random ones and ones near the proxy's best
# ([@fig:sets], and the table after it). Look for two things: whether a cloud is narrow, which is what a proxy needs in order to rank, and whether the clouds of
# different pools lie on one line, which is what it needs in order not to favour one of them.

# %%
firmer = read_calibration(runs)
figure(
    f"{figures}/calibration_sets",
    f"Score on `{judge or 'held-out images'}` against that on `{reference_proxy}` of sets of {k} models, a panel for each pool. The band holds 95 % of the "
    "sets of models that the line has not seen.",
    "fig:sets",
    source="notebooks/5_figures.ipynb",
)

# %%
if len(firmer.by_pool):
    display(
        table(
            by_pool_shown(firmer.by_pool, reference_proxy),
            f"How the score on `{reference_proxy}` tells that on `{judge}` over the sets of each pool: rank correlation, slope, and the mean ratio of the "
            "latter to the former, with 95 % intervals over other images and other models. With an asterisk, near the proxy's best: over other images only, for without one model other sets would be near the best.",
            "tbl:by-pool",
            file=f"{runs}/calibration_by_pool.csv",
        )
    )

# %% [markdown]
# The intervals are not those of thousands of observations: the sets share a few dozen models and one sample of images. They come from the resampled images of
# either side and from leaving out each model in turn. One model unlike all others can make a rank correlation: whether it is in a set then decides the set's score on all images alike.
# The table therefore gives what is left of each correlation without the one model that matters most to it (the file names it). A rank correlation that is high among random sets and low near the best says that the proxy tells
# good regions from bad ones, but not which of the good sets is best.
#
# The ratio of the score on the judge's images to that on the proxy, by kind of architecture, as the paper's fourth design principle asks for: one number would do for all
# where they agree.

# %%
if len(firmer.ratios):
    display(
        table(
            ratios_shown(firmer.ratios, reference_proxy),
            f"Mean CKA on `{judge}` over mean CKA on `{reference_proxy}`, for pairs of models within and between kinds of architecture, with 95 % intervals: "
            "over other images and other models, and over other images for these models. A dash: all pairs share one model, without which none is left.",
            "tbl:ratios",
            file=f"{runs}/family_ratios.csv",
        )
    )

# %% [markdown]
# Which proxy would have been the one to choose? [@fig:quality] and the table after it judge all on the same random sets of every composition. The calibration
# proxies differ in the resolution alone (the very same images), or in the number of classes, by random choices of the classes; nothing was chosen by them. Patches of one cell of
# a photograph are not independent, so that sets of few and of many classes are given as many cells (*groups*); a proxy of another number of images or groups is no fair comparison.

# %%
figure(
    f"{figures}/proxy_quality",
    f"Rank correlation of proxy scores with those on `{judge or 'held-out images'}` over sets of every composition, with 95 % intervals over other images (thick) and other models as well "
    "(thin). Joined are the averages of points that differ in the thing on the axis alone, or in which classes were chosen.",
    "fig:quality",
    source="notebooks/5_figures.ipynb",
)

# %%
if len(firmer.quality):
    display(Markdown(quality_sentence(firmer.quality)))
    display(
        table(
            quality_shown(firmer.quality),
            "Proxies by how they rank the same sets; the same without the one model that matters most to it; whether it is surely behind the best of its kind (calibration "
            f"proxies apart), all of them considered together; and the score on `{judge}` of the set that it would choose.",
            "tbl:quality",
            formats={"pixels": ".0f"},
            file=f"{runs}/proxy_quality.csv",
        )
    )

# %% [markdown]
# **A new submission.** What score on the judge's images is to be expected from a proxy score, for models that nobody has tried? The line of [@fig:sets] says, and its band how surely. The
# band comes from sets of models that had no part in the fit, and how many it really holds was measured on models set aside from all of that.

# %%
display(Markdown(prediction_sentence(firmer.prediction, firmer.predictions, reference_proxy)))
if len(firmer.prediction):
    display(
        table(
            prediction_shown(firmer.prediction),
            "Error of the score that is expected on the judge's images, for sets of models that the fit has not seen (root mean square), half the length of its 95 % interval, and the share of such sets "
            "that it really held.",
            "tbl:prediction",
            digits=4,
            formats={"held": ".1%", "held, worst of ten": ".1%"},
            file=f"{runs}/prediction_quality.csv",
        )
    )

# %%
if len(firmer.predictions):
    display(
        table(
            predictions_shown(firmer.predictions),
            "The submissions' scores on the judge's images, each expected by a line fitted to sets of the other models, with the 95 % interval for such a set. It is the interval of sets "
            "that were drawn; a submission was optimised on a proxy, an extreme of which the share that lies inside is not known to be 95 %.",
            "tbl:predictions",
            file=f"{runs}/predictions.csv",
        )
    )

# %% [markdown]
# Where *held* is below 95 %, the interval is not honest enough: a model unlike all that the fit has seen cannot be foreseen. An actual score outside is a submission of which the
# proxy told less than of most sets. The interval is over models, for these images of the judge.
#
# The paper's section 4.2 turns its experience into four design principles. [@tbl:principles] puts each to a test: a number that would be above zero if
# the principle held in this run, and the verdict of its interval.

# %%
table(
    principles_shown(firmer.principles),
    "The paper's design principles for proxies, one by one.",
    "tbl:principles",
    markdown=["test"],
    file=f"{runs}/principles.csv",
)

# %% [markdown]
# ### Does homogeneity help, or capacity?
#
# Models of one mechanism may be alike because they are of one mechanism, or because they are of like size. [@fig:pairs] and the table after it therefore compare all pairs of models:
# pairs of one mechanism, or family, against pairs of two, first as they are, then at equal parameters (regression on the mean and the difference of their logarithms), by both
# estimators. The pairs are not independent, for each model is in many; the test therefore exchanges whole models (the multiple regression quadratic assignment procedure, MRQAP
# [@dekker2007]), and the intervals leave out whole models and resample images.

# %%
figure(
    f"{figures}/homogeneity_pairs",
    "Above: CKA of all pairs of models against the ratio of their sizes, and against their mean size, with averages of equally many pairs. Below: by how much pairs of one kind are "
    "more alike, as they are and at equal capacity.",
    "fig:pairs",
    source="notebooks/5_figures.ipynb",
)

# %%
display(Markdown(pairs_sentence(firmer.pairs, judge or reference_proxy, estimator)))
if len(firmer.pairs):
    display(
        table(
            pairs_shown(firmer.pairs),
            "Pairs of models of one kind against pairs of two: mean CKA within the kind, how much lower it is between two, that difference at equal capacity (95 %: other images and "
            "models), its partial correlation, p of the permutation test with all tests of the table considered (Holm's rule), and the verdict on *models of one kind are more alike than their capacities explain*.",
            "tbl:pairs",
            file=f"{runs}/homogeneity_pairs.csv",
        )
    )

# %% [markdown]
# The permutation test asks only whether such a difference could come of giving these very models their mechanisms by lot; the interval, whether other images and other models would
# show it. The verdict asks for both, and is "does not hold" where the coefficient is surely below zero or surely less than half of the plain difference. It is about these models, which were not given their mechanisms
# by lot: what remains at equal size may still be due to training, or to families within a mechanism. The paper's thesis is about *transfer*, and can be asked of pairs too:
# of two pairs that are equally alike on the proxy, is the one of one kind more alike on other images? (Of whole sets [@sec:which-pool-to-choose-from] asks it.)

# %%
if len(transfer_shown(firmer.pairs)):
    display(
        table(
            transfer_shown(firmer.pairs),
            f"By how much pairs of one kind have a higher CKA on other images, at equal CKA on `{reference_proxy}` and equal capacity; p alone and by Holm's rule over the table.",
            "tbl:transfer",
            file=f"{runs}/homogeneity_pairs.csv",
        )
    )

# %% [markdown]
# CKA on the proxy is known with an error. A regression lowers its coefficient for that, and credits what goes along with it, here being of one kind; a small coefficient may be
# no more than that.
#
# ## How sure are these numbers?
#
# The paper names the 500 images of each proxy as its first limitation. Three questions are behind it: how far a score might be off, whether
# more images would have changed it, and whether it is a matter of CKA alone.
#
# ### Intervals of the scores
#
# The interval of a score ([@tbl:intervals]) is that of its expectation on as many other images of the same kind. It comes from random
# subsets of the images, drawn *without* replacement. The plain bootstrap draws with replacement; but an image drawn twice is a pair of
# equal images for every model, which all models find alike, so that CKA would come out too high. What the interval leaves out: a set
# that was *chosen here*, on these very images, owes them part of its score, which the evaluation does not share.

# %%
by_set = results.intervals.set_index(["images", "submission"])
other = dict(list(by_set.groupby("estimator")))
main, other_name = other[estimator], {"biased": "debiased", "debiased": "biased"}[estimator]
sure = main[["n", "mean", "low", "high"]].rename(columns={"mean": f"{estimator} CKA"})
sure["chance"] = other["biased"]["chance"]
sure[f"{other_name} CKA"] = other[other_name]["mean"]
sure["chosen here"] = main["chosen_here"].astype(bool)
table(
    sure.reset_index(),
    f"Mean pairwise CKA of each submission ({estimator}) with its 95 % interval, what unrelated models would have on as many images "
    f"(chance, biased), the {other_name} value, and whether it was chosen on these images.",
    "tbl:intervals",
    digits=4,
    file=f"{runs}/submission_intervals.csv",
)

# %% [markdown]
# A biased value minus its chance level is *not* the debiased value: the chance level is that of unrelated models, and the more alike
# models are, the less the bias adds. Only where both estimators agree do the number of images and the dimensions not matter.
#
# Are the standard errors behind these intervals right? The jackknife finds them another way ([@tbl:jackknife]): it leaves out each image
# once, or each group of images that belong together, and has no random numbers in it.

# %%
display(Markdown(jackknife_sentence(results.intervals)))
table(
    jackknife_table(results.intervals),
    "Standard error of each submission's mean, by random subsets and by the jackknife, and the ratio of the two.",
    "tbl:jackknife",
    digits=4,
    formats={f"{e}, ratio": ".2f" for e in ("biased", "debiased")},
    file=f"{runs}/submission_intervals.csv",
)

# %% [markdown]
# Where the ratio is far from 1, few images carry the score, and the larger of the two errors is the one to believe.
#
# Few images may also carry all that is said of *one model*. CKA weighs an image by the size of its features to the fourth power, so a model that answers some images far
# more strongly than the rest lives by those. The next table names each group of images (a cell of a photograph, or an image) without which a model's mean CKA with all
# others would be clearly another one.

# %%
held = {s: set(read_names(f"{runs}/submissions/{s}.csv")["model"]) for s in submissions}
everyone, on_proxy = read_matrix(f"{runs}/cka/{reference_proxy}_{estimator}.csv")
few_decide = influence_sentence(firmer.influence, held, on_proxy, everyone, reference_proxy)
display(Markdown(few_decide))
if len(firmer.influence):
    display(
        table(
            influence_shown(firmer.influence),
            f"Models of which one group of images decides: left out, it changes the model's mean CKA by more than {TIMES:.0f} robust standard deviations of such changes (1.4826 "
            f"times their median size, over all models and groups of the set), and makes more than {SHARE:.0%} of the sum of the model's squared changes.",
            "tbl:influence",
            formats={"times the usual": ".0f", "share of all changes": ".0%"},
            file=f"{runs}/influence.csv",
        )
    )

# %% [markdown]
# These are their images (all are in the file), by the identifiers of the manifests in `images/`, by which `load_images` gives the very images again, to be looked at:

# %%
for line in identifiers_text(firmer.influence):
    display(Markdown(line))

# %% [markdown]
# What such a model says of a proxy it says by those images:
# the correlations of [@sec:what-a-proxy-score-predicts] are therefore also given without the one model that matters most, and an interval that holds both of a model's values
# is wide because it is right.
#
# Whether one set leads another is a question of its own. Both are scored on the same images, so what an image adds to both cancels, and the
# interval of the *difference* ([@tbl:leads]) may be much narrower than those of the scores: expect some leads to be sure although the
# intervals of the two scores overlap.

# %%
differences = results.differences[results.differences["estimator"] == estimator]
lead = leads(main.reset_index(), differences)
table(
    lead,
    "How far each submission is ahead of the next on each set of images, with the 95 % interval of the lead (paired, on the "
    "same images). Too close to call: the interval holds zero. Chosen here: one of the two was chosen on these images, and the interval "
    "knows nothing of what the lead owes to that.",
    "tbl:leads",
    digits=4,
    file=f"{runs}/submission_differences.csv",
)

# %%
judged_on = "evaluation" if "evaluation" in set(results.intervals["images"]) else reference_proxy
display(Markdown(lead_sentence(lead, main.reset_index(), judged_on)))
rule = f"""A lead is worth what its interval says, not what its digits say. Where a verdict of this report hangs on several differences
at once, it asks for more: a statement about all of them *holds* only if every 95 % interval is above zero, which keeps its error at
{100 * ERROR:.0f} %; it *does not hold* only if one of $k$ differences is surely negative by an interval of level 1 − {ERROR:g} / $k$ (Holm's rule, where
several signs must be right together), since of many differences some seem sure by chance."""
display(Markdown(rule.replace("\n", " ")))

# %% [markdown]
# ### Few images and many
#
# [@fig:learning] shows each score against the number of images, [@tbl:few-and-many] CKA, its chance level and the debiased value side by side.
# The biased estimate falls as images are added, as its chance level does; the debiased one should stay level and only get surer. An
# interval at $n$ images is that of one sample of $n$ images. Every larger number begins with the images of the smaller one; beyond a
# proxy's own images, the further ones serve this curve alone.

# %%
figure(
    f"{figures}/learning_curves",
    "Mean CKA of the submissions against the number of images: biased (solid, with the 95 % interval of one sample of so many "
    "images) and debiased (dashed); below, the chance level of the biased estimate.",
    "fig:learning",
    source="notebooks/5_figures.ipynb",
)

# %% [markdown]
# Look for lines that still fall at their right end: more images would lower those scores further. Lines that cross on the way would have
# given another order with fewer images.

# %%
curves = results.curves
numbers = sorted(curves.loc[curves["images"] == reference_proxy, "n"].unique())
own = int(main.loc[reference_proxy, "n"].max())
side_by_side = against_images(curves, reference_proxy, [numbers[0], own])
table(
    side_by_side,
    f"CKA (biased) with the 95 % interval of one sample of $n$ images, its chance level, and the debiased value, on "
    f"`{reference_proxy}`, for {', '.join(f'{n:,}' for n in side_by_side['n'].unique())} images; submissions were chosen and scored on {own:,}.",
    "tbl:few-and-many",
    digits=4,
    file=f"{runs}/learning_curve.csv",
)

# %%
display(Markdown(few_and_many_sentence(side_by_side)))
display(Markdown(steady_sentence(curves, differences, estimator)))

# %% [markdown]
# To halve an interval takes four times as many independent images; patches of the same places are not independent. More images for the
# curve of a proxy are one parameter away, `larger`; the profile `large` takes the 10,000 images that the paper hopes for throughout.
#
# ### Other measures than CKA
#
# Does the order survive another measure ([@tbl:measures])? Representational similarity analysis (RSA) correlates the distances between
# images; mutual $k$-nearest neighbours [@huh2024] counts common neighbours; Procrustes takes the angle left after the best rotation. Their
# levels cannot be compared, their orders can.

# %%
orders = by_measure(results.intervals, results.measures)
table(
    orders,
    "Mean similarity of the submissions by several measures, the order that each gives, and the share of pairs of submissions "
    "that it puts as biased CKA does.",
    "tbl:measures",
    file=f"{runs}/measures.csv",
)

# %% [markdown]
# Linear CKA weighs the directions of the features by the square of their variance, and so sees the strongest few; Procrustes and the
# neighbours see finer structure. Where they disagree with CKA, the sets are alike in the coarse and differ in the fine, or the reverse.

# %%
here = orders[orders["images"] == judged_on].set_index("measure")
by_cka = here.loc["biased CKA", "order"]
rest = here.drop(index="biased CKA")
kept, leader = rest["order"] == by_cka, by_cka.partition(" ")[0]
same = sum(text.partition(" ")[0] == leader for text in rest["order"])
text = f"""On *{judged_on}* biased CKA has {by_cka}. Of the {len(rest)} other measures, {kept.sum()} keep that order
({", ".join(rest.index[kept]) or "none"}); {same} of them put {leader} first. An order of two sets that are too close to call by
[@tbl:leads] may turn by chance, whatever the measure."""
display(Markdown(text.replace("\n", " ")))

# %% [markdown] tags=["blog"]
# ## Discussion
#
# ### Which of the paper's claims hold
#
# The scorecard lists statements of the paper, from its abstract to its appendices (`params/claims.csv`), each with what was found and a verdict
# that is computed. Some are settled by the paper's own figures, tables and appendix, in every profile: two matrices were read off its heatmaps
# (±0.002 a cell), the bars off its Figure 4. A number then *holds* if it lies within the tolerance beside it; one with ≈, if rounding or its
# interval allows it. Others are settled by this run: where there is a 95 % interval a comparison holds only if all of it agrees, does not hold
# if none of it does, and is too close to call otherwise; of several comparisons the weakest is shown, and the verdict is on all of them
# ([@sec:how-sure-are-these-numbers]). Sets are compared on images by which they were not chosen.
#
# A statement may be judged on both, and by several numbers: those are rows of one statement, which holds only if all its rows of that
# kind do. Rows that check this project's own work, not the paper, stand apart and are not counted.

# %% tags=["blog"]
table(
    counts(card),
    "How many statements of the paper have which verdict, by what settles them. Those judged both ways stand in two rows.",
    "tbl:scorecard",
    file=f"{runs}/scorecard.csv",
)

# %% [markdown]
# A claim that does not hold on other models and images than the paper's says something of those, not necessarily of the paper's; one that
# holds on them shows that the mechanism can arise. What does not hold by the paper's own figures is at odds with them as far as they can be read, whatever a run
# finds. What an interval is over stands beside it: *images*, other images of the same kind for these very models; *images and models*,
# other models of the same kinds as well; *images and pools*, other images and random pools; *models*, other models for these images;
# *permutations*, exchanges of the mechanisms' names; *rounding* and *reading*, of printed numbers and of pictures.

# %%
display(Markdown(chance_sentence(card)))
for number, topic in enumerate(card["topic"].unique(), 1):
    display(
        table(
            scorecard_shown(card, topic),
            f"Claims on {topic}: what the paper publishes, what was found (where it is known, with its 95 % interval or its bounds, and what these are over), by what, and why.",
            f"tbl:claims-{number}",
            file=f"{runs}/scorecard.csv",
        )
    )

# %% [markdown] tags=["blog"]
# Verdicts stand for what can be said from four submissions, or from one run. Read the reasons before the words: several claims are true of
# the paper's numbers and need not be true of another run's, and the reverse.
#
# ### Proxy against evaluation
#
# [@fig:calibration] sets the proxy scores against the real ones: a proxy that calibrates well puts the submissions on a line through
# the origin, and one that ranks well keeps their order.

# %% tags=["blog"]
figure(
    f"{figures}/calibration",
    "Score on each proxy against the real score; the line is equality.",
    "fig:calibration",
    source="notebooks/5_figures.ipynb",
)

# %% [markdown] tags=["blog"]
# ### Limitations
#
# A handful of submissions makes every statement about calibration coarse. With few images biased CKA is too high, the more so
# the more dimensions the features have; how much here, [@sec:few-images-and-many] says. The layer is the registry's penultimate one; others may align differently.

# %% [markdown] tags=["blog"]
# ## Conclusion

# %% tags=["blog"]
text = f"{best} has the best {score_name} of this run, {scores[known][best]:.4f}. {against_sentence(card)}"
display(Markdown(f"{text} {against_sentence(card, CLOSE)}"))

# %% [markdown]
# ## Appendix A: the submitted sets

# %%
missing = results.submissions["missing"].fillna("")
for name, models in results.tables.items():
    note = submissions[name].get("note") or ""
    absent = f" Without features, and so not in the set: {missing[name]}." if missing[name] else ""
    display(
        table(
            models.rename(columns={"architecture_type": "architecture"}),
            f"{name}: {submissions[name]['title']}. {note}{absent}",
            f"tbl:{name.lower().replace('_', '-')}",
            file=f"{runs}/submissions/{name}.csv",
        )
    )

# %% [markdown]
# ## Appendix B: models that failed

# %%
for frame, caption, label in (
    (results.dropped, "Models of the zoo that were not good enough to be compared.", "tbl:dropped"),
    (results.failures, "Models that gave no features, with the reason.", "tbl:failures"),
):
    if len(frame):
        display(table(frame, caption, label))
if compared == tried:
    display(Markdown(f"None: all {tried} models gave features on every set of images."))

# %% [markdown]
# ## Appendix C: arithmetic
#
# Would the result be the same if the features had been computed faster? The CKA of some models, from the smallest to the largest, on
# the reference proxy: in float32, and in other ways ([@tbl:arithmetic]). A largest difference that is small beside the gaps of
# [@tbl:calibration] changes no conclusion.

# %%
plain = dtype == "float32" and not channels_last and not compile
chosen_ways = f"{dtype}{', channels_last' * channels_last}{', compile' * compile}"
display(Markdown(f"This run's own features: {'plain float32' if plain else chosen_ways}."))
table(
    pd.read_csv(f"{runs}/arithmetic.csv").rename(columns=lambda column: column.replace("_", " ")),
    "Absolute differences of CKA between float32 and faster arithmetic, over the pairs of some models.",
    "tbl:arithmetic",
    formats={"largest difference": ".1e", "mean difference": ".1e"},
    file=f"{runs}/arithmetic.csv",
)

# %% [markdown]
# ## Appendix D: provenance

# %%
facts = provenance(results, profile)
table(facts, "How this run was made.", "tbl:provenance", file=f"{runs}/run.json")

# %%
table(
    durations(results),
    "When each notebook ran last, and for how long; what earlier runs computed is not computed again.",
    "tbl:durations",
    digits=1,
    file=f"{runs}/run.json",
)

# %% [markdown]
# ## Appendix E: from a number back to its images
#
# For the first claim of each of three verdicts that rests on images, the way back: the row of the scorecard, the file with the number, the
# cell that wrote it, the features that it came from, and the images behind those, with hashes.

# %%
for number, (name, row) in enumerate(examples(card).iterrows(), 1):
    display(
        table(
            trail(row, runs),
            f"“{row['text']}” ({row['verdict']}): claim `{name}`, back to its images.",
            f"tbl:trail-{number}",
            file=f"{runs}/scorecard.csv",
        )
    )

# %% [markdown]
# Each image is a row of the last file, with its identifier and the hash of its content, by which a second run finds the very same images.

# %% [markdown] tags=["remove"]
# ## What heads the blog post
#
# The cells tagged *blog* are the post in `blog/post.md`. This cell gives its authors, keywords and description.

# %% tags=["remove", "front-matter"]
found = counts(card).loc[[OWN, RUN]].iterrows()
outcome = ", ".join(f"{row['holds']} of {row['statements']} hold on {by}" for by, row in found)
what = f"A re-execution on {compared} models ({title}): of the statements checked, {outcome}."
display(JSON({"authors": authors, "tags": tags, "description": what}))
