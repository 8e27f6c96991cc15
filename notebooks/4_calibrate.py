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
# the evaluation. Out: the table of section 3.1, the mean CKA within families of architectures, and what the choice of the pool, of the
# mechanism and of the proxy costs on other images. Then how sure all of this is: intervals, leads that are more than chance, learning
# curves, and the same sets by other measures than CKA. At the end, beyond a handful of submissions: thousands of sets, what to expect of
# a new one, the paper's design principles one by one, and whether it is homogeneity that makes models alike, or capacity.

# %%
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from realign_utils.ablation import beside_random_pools, judge_pools
from realign_utils.calibrate import (
    calibration_table,
    comparable,
    family_similarity,
    mean_similarity,
    rank_agreement,
)
from realign_utils.calibration_sets import (
    by_pool_table,
    family_ratio_table,
    judge_of,
    places_of_pools,
    set_score_table,
)
from realign_utils.claims import show_claim
from realign_utils.claims_evidence import Study
from realign_utils.comparison_files import read_comparison
from realign_utils.features import images_of, read_features
from realign_utils.homogeneity import homogeneous_against_mixed
from realign_utils.homogeneity_pairs import homogeneity_pairs_table
from realign_utils.images import groups_of
from realign_utils.influence import influence_shown, influence_table
from realign_utils.learning_curves import learning_curves
from realign_utils.matrices import read_matrix
from realign_utils.measure_tables import measure_table
from realign_utils.measures import MEASURES
from realign_utils.parameters import larger_name
from realign_utils.prediction import prediction_tables
from realign_utils.principles import principles_table
from realign_utils.profiles import enter_project
from realign_utils.progress import track
from realign_utils.proxy_quality import image_facts, proxy_quality_table
from realign_utils.registry import members as members_of
from realign_utils.registry import read_registry
from realign_utils.results import read_names
from realign_utils.score_intervals import (
    chosen_on,
    jackknife_sentence,
    mean_intervals,
    paired_differences,
    with_image_intervals,
)
from realign_utils.set_samples import composed_sets
from realign_utils.settings import device_of_arithmetic
from realign_utils.stability import regret_table
from realign_utils.store import write_text
from realign_utils.subsets import LARGE

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters"]
store = "runs/store"  # folder of features and weights, shared, by key
device = "auto"  # auto (all GPUs, else the CPU), cpu, mps, cuda, cuda:N, or several: cuda:0,cuda:1
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
k = 8  # models in a submission
seed = 0  # seed of the search and of the figures
estimator = "biased"  # HSIC estimator of the CKA that the search maximises
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
reference_proxy = "cifar100_like"  # proxy of the calibration ratio real / proxy
portal = None  # CSV of published portal scores; null: none
pools = {  # candidate models: 'all', a query on the registry's columns, or names
    "full": "all",
    "attention": "mechanism in ['attention', 'hybrid']",
    "cnn": "mechanism == 'convolution' and family.str.contains('res|densenet|darknet')",
    "cnn_and_light_hybrids": "mechanism in ['convolution', 'hybrid'] and family.str.contains('res|densenet|darknet|botnet|halonet')",
}
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
tables = {name: read_names(Path(runs) / "submissions" / f"{name}.csv") for name in submissions}
members = {name: [models.index(m) for m in table["model"]] for name, table in tables.items()}
scores = pd.DataFrame(
    {s: {name: mean_similarity(read[s][1], rows) for name, rows in members.items()} for s in sets}
)
scores.round(4)

# %% [markdown]
# ## The calibration table
#
# *Real* is the score that counts: the portal's where the profile has portal scores, else the one on the held-out evaluation images; never
# some of each, which would compare two scales. *portal_set* says whether a row's models are the very ones that the portal scored: the
# memberships of the paper's S1 to S3 were never published, so their ratios divide the score of one set by the proxy of another.
#
# The calibration ratio is real / proxy on the reference proxy. Below 1 the proxy promised too much; what matters for *choosing* is whether
# the ratio is the same for all submissions, since then the proxy ranks them rightly.

# %%
published = read_names(portal).set_index("submission")["real"] if portal else pd.Series(dtype=float)
rows_of = {name: submission.get("portal") for name, submission in submissions.items()}
real = {name: published[row] for name, row in rows_of.items() if row in published}
real = real if portal else scores.get("evaluation", pd.Series(dtype=float)).to_dict()
calibration = calibration_table(scores, real, reference_proxy)
calibration.insert(0, "title", [submissions[name]["title"] for name in calibration.index])
calibration["portal_set"] = [submissions[name]["published_set"] for name in calibration.index]
calibration["reference_proxy"] = reference_proxy
write_text(Path(runs) / "calibration.csv", calibration.to_csv(index_label="submission"))
calibration.round(4)

# %% [markdown]
# The paper prints the same division for its own four sets. Its own table should give it, up to the digits that the real score was printed with:

# %%
images = {"proxies": proxies, "reference_proxy": reference_proxy, "evaluation": evaluation}
options = {"registry": registry, "submissions": submissions, "families": families}
study = Study(runs, estimator=estimator, **images, **options)
show_claim("s1_ratio", study)

# %% [markdown]
# A real score of two printed digits leaves the third digit of a ratio open; as printed, the quotient is the one shown.
#
# ## Which proxy ranks the submissions as the evaluation does?
#
# The share of the pairs of submissions that a proxy puts in the right order; one half is chance. A handful of submissions makes this
# coarse: no conclusion should hang on it alone. Only sets with a score of their own are compared.

# %%
judged = comparable(calibration)
agreement = pd.Series(
    {proxy: rank_agreement(judged[proxy], judged["judge"]) for proxy in proxies},
    name="share of pairs in the right order",
)
write_text(Path(runs) / "rank_agreement.csv", agreement.to_csv(index_label="proxy"))
agreement.round(3).to_frame()

# %% [markdown]
# ## How sure are the scores?
#
# The same models on other images of the same kind would score a little differently. The interval says how much: it comes from the
# random subsets of the images that `2_cka` kept. It is over other images of the same kind; for the demo's patches, over other places of the
# same photographs. *Chance* is what a set of unrelated models would score on as many images.
#
# What the interval does not hold: a set chosen *on* these images owes part of its score to them (*chosen_here*). Only the score on
# images by which nothing was chosen, the evaluation, is free of that optimism.

# %%
names = {name: list(table["model"]) for name, table in tables.items()}
chosen = chosen_on(submissions)
estimators = ("biased", "debiased")
compared = {s: {e: read_comparison(Path(runs) / "cka", s, e) for e in estimators} for s in sets}
intervals = mean_intervals(compared, names, chosen)
write_text(Path(runs) / "submission_intervals.csv", intervals.to_csv(index=False))
intervals[intervals["estimator"] == estimator].drop(columns="estimator").round(4)

# %% [markdown]
# The column *jackknife* is the standard error by another way, which leaves out each image (each cell of a photograph) once and has no
# random numbers in it. Expect the two to agree within a third; where they do not, the score hangs on few images.

# %%
Markdown(jackknife_sentence(intervals))

# %% [markdown]
# Which images are those? Groups of images (cells of a photograph, or single images) are named that alone decide a model's values: without the group its mean CKA with all
# others changes by more than ten times what is usual on these images, and by more than half of what all groups together do (as squares). Expect few lines; whatever rests
# on such a model rests on those images.

# %%
manifests = {s: pd.read_csv(Path(runs) / "images" / f"{s}.csv") for s in sets}
cells = {s: groups_of(table) for s, table in manifests.items()}
listed = {s: list(table["image_identifier"]) for s, table in manifests.items()}
influence = influence_table({s: compared[s][estimator] for s in sets}, cells, listed)
write_text(Path(runs) / "influence.csv", influence.to_csv(index=False))
influence_shown(influence).round(3)

# %% [markdown]
# ## Is a lead more than chance?
#
# Two sets are compared on the same images, subset by subset, so that what an image adds to both cancels. Expect intervals of
# differences to be narrower than those of the scores: sets whose own intervals overlap may still differ surely.

# %%
differences = paired_differences(compared, names, chosen)
write_text(Path(runs) / "submission_differences.csv", differences.to_csv(index=False))
differences[differences["estimator"] == estimator].drop(columns="estimator").round(4)

# %% [markdown]
# *Higher* names the set that leads on these images at the 95 % level. Where it says "too close to call", the table's order may be an accident
# of the sample, however many digits are printed. Two warnings. Where one of the two was chosen on these very images (*chosen_here*), its
# lead owes something to that, of which the interval knows nothing. And of many comparisons between sets that do not differ, one in some twenty
# would seem sure by chance alone, so a lead whose interval only just excludes zero is weak evidence. Where a conclusion hangs on several
# differences at once, the report asks for more than 95 % of each, by their number.
#
# ## Would more images have helped?
#
# The mean CKA of each set against the number of images. Expect the biased estimate to fall as images are added, and its chance level with
# it; the debiased one should stay level and only get surer. The interval is that of *one* sample of so many images. Beyond a proxy's own
# images the curve goes on with its larger set, which begins with the very same images (`larger`).

# %%
compared_larger = {
    p: {e: read_comparison(Path(runs) / "cka", larger_name(p), e) for e in estimators}
    for p in larger
}
curves = learning_curves(compared, names, compared_larger)
write_text(Path(runs) / "learning_curve.csv", curves.to_csv(index=False))
shown = curves[(curves["images"] == reference_proxy) & (curves["estimator"] == "biased")]
shown.pivot(index="n", columns="submission", values="mean").round(4)

# %% [markdown]
# Where the columns keep their order from some number of images on, more images would not change who is first; where they cross or lie
# within the intervals of each other, they might.
#
# ## Is it CKA, or would another measure say the same?
#
# Four other ways to compare two models: the correlation of all distances between images (RSA, Pearson and Spearman), the share of an
# image's nearest neighbours on which two models agree, and the angle left after the best rotation (Procrustes). All are 1 for models that
# see the same. Levels cannot be compared across measures; the *order* of the sets can. Since a rotation is sought for every pair of
# models, only the pairs within a set are computed, on its first images (1,000 at most; a sample begins with a smaller sample).

# %%
index = read_names(Path(runs) / "features.csv").set_index(["images", "model"])["file"]
where = device_of_arithmetic(device)

# %%
found = []
for s in track(sets, "other measures"):
    files = {n: [index[s, m] for m in ms] for n, ms in names.items()}
    seen = {n: [images_of(store, f) for f in each] for n, each in files.items()}
    read_set = {n: [read_features(store, f)[:LARGE].copy() for f in fs] for n, fs in files.items()}
    options = {n: {"names": names[n], "identifiers": seen[n], "device": where} for n in names}
    by_measure = {
        measure: {n: compute(read_set[n], **options[n]).cpu() for n in names}
        for measure, compute in MEASURES.items()
    }
    found.append(measure_table(by_measure, s))
measures = pd.concat(found)
write_text(Path(runs) / "measures.csv", measures.to_csv(index=False))
measures.pivot(index=["images", "measure"], columns="submission", values="mean").round(3)

# %% [markdown]
# A conclusion that holds by every measure is about the models; one that holds by CKA alone is about CKA. Linear CKA weighs directions by
# their variance squared, so it sees mostly the few strongest; Procrustes and the neighbours see finer structure.
#
# ## Within families
#
# Figure 4 of the paper: the mean CKA over the pairs within each family. The interval is a jackknife over *models*, since pairs that
# share a model are not independent. The columns *images_low* and *images_high* say how much the *images* leave open, for these very
# models.

# %%
known = read_registry(registry)
groups = {family: members_of(known, which, models) for family, which in families.items()}
within = pd.concat([family_similarity(read[s][1], groups).assign(images=s) for s in sets])
within = with_image_intervals(within, {s: compared[s][estimator] for s in sets}, groups)
write_text(Path(runs) / "family_similarity.csv", within.to_csv(index=False))
within.pivot(index="family", columns="images", values="mean")[sets].round(3)

# %% [markdown]
# Figure 4's caption says that the coarse proxy inflates CKA in every family, and section 1 that the low-resolution one does ViTs an injustice:

# %%
show_claim("coarse_inflates", study)

# %%
show_claim("reference_underestimates_vit", study)

# %% [markdown]
# A family that is alike on every set of images is alike; one that is alike on one set only shares the classes of that set.

# %%
within.dropna(subset=["mean"]).sort_values("mean").groupby("images").tail(1).round(3)

# %% [markdown]
# ## Does the pool matter?
#
# `3_select` chose the best set of each pool on the reference proxy. Here they are judged on all images, each beside the average of the
# best sets of *random pools* of the same size. Expect the mechanisms' pools to lie above their random ones if homogeneity helps.

# %%
everywhere = {name: read[name][1] for name in sets}
by_pool = read_names(Path(runs) / "selection" / "pools.csv")
by_pool = judge_pools(by_pool, everywhere, models)
write_text(Path(runs) / "pools.csv", by_pool.to_csv(index=False))
pools_beside = beside_random_pools(by_pool, sets)
pools_beside.drop(columns=["kind", "upper_bound", "proved_optimal"]).round(4)

# %% [markdown]
# *Above* counts the random pools of which a pool scores higher; half of them is what chance gives. A pool above all of them on the proxy *and* on
# the other images has something that its size does not explain; one that is above them on the proxy only was chosen by what the proxy shows.
# Of many pools a few are above all theirs by chance.
#
# ## Homogeneous against mixed, at equal proxy score
#
# The paper's thesis is about transfer: of two sets that look equally good on the proxy, the homogeneous one is to score higher on
# other images. So many sets of one mechanism, and many with at most half of any mechanism, are drawn with *the same* mean on the
# reference proxy, and judged elsewhere. Where the models of one mechanism merely score higher, that alone gives its sets an advantage: the
# others are picked by what the proxy shows, chance included, to come up to them, and fall back elsewhere. So the same is done with the names
# of the mechanisms exchanged among models of like proxy quality.

# %%
judges = {name: matrix for name, matrix in everywhere.items() if name != reference_proxy}
mechanisms = known.loc[list(models), "mechanism"].tolist()
similarity = everywhere[reference_proxy]
versus = homogeneous_against_mixed(similarity, judges, mechanisms, k, seed=seed)
write_text(Path(runs) / "homogeneity.csv", versus.to_csv(index=False))
versus.round(4)

# %% [markdown]
# *By quality* is the difference that remains, on average, after the exchanges: what comes of better models, not of homogeneity. The thesis is
# favoured (*in favour*) where the difference is above all of those; by chance that happens once in 40 times for each row. The low and high
# ends hold nine in ten of the sets drawn; they overlap even where the difference is clear on average, and say nothing of other images.
#
# ## What choosing on the wrong images costs
#
# The best set by every objective, judged on every set of images. The *regret* is what a set chosen on the judge's own images has more. Chosen and
# scored on the same images it would have more by chance alone (*optimistic*); so it is chosen on a random half of them, and both sets are scored
# on the other, for many halves (of the judge's images themselves, so that each has half as many). Below 0, the choice beats one by half of the
# judge's images. Blank: the judge's own images chose the set, and the half that is to judge had its say.

# %%
by_choice = read_names(Path(runs) / "selection" / "choices.csv").set_index("chosen_on")
chosen_models = by_choice["models"].str.split()
picks = {name: [models.index(m) for m in each] for name, each in chosen_models.items()}
halves = {name: compared[name][estimator].halves for name in sets}
drawn = {name: None if each is None else each.numpy() for name, each in halves.items()}
own = by_choice["images"].str.split().to_dict()
regret = regret_table(picks, everywhere, drawn, own=own, seed=seed)
write_text(Path(runs) / "regret.csv", regret.to_csv(index=False))
regret.pivot(index="chosen_on", columns="judged_on", values="regret").loc[list(by_choice.index)]

# %% [markdown]
# A row of small numbers is a choice that travels. The worst of a row is what one risks by choosing so; the objective *worst proxy* is meant
# to keep it low on the proxies, and whether that helps on the evaluation is another question.

# %% [markdown]
# ## Thousands of sets
#
# A handful of submissions says little about a proxy. So of each pool thousands of sets are scored on the proxies and on the held-out images:
# random ones, and ones near the proxy's best (where swaps end on matrices that other images might have given, with up to half of the models
# replaced). Expect the rank correlation to be high among random sets and lower among those near the best, which differ less, and were picked by
# what the proxy shows, chance included.
#
# The intervals need care. The sets share models and images, and are by no means thousands of observations. So each statistic is computed anew on
# the resamples of either set of images, and without each model in turn (*low*, *high*); for these very models, other images alone leave open
# what *images_low* and *images_high* say. For sets near the best there are only the latter: without one model, other sets would be near the best.

# %%
several = {name: compared[name][estimator].resamples for name in sets}
places = places_of_pools(known, pools, list(models))
judge = judge_of(sets, list(proxies), reference_proxy)
by_pool_scores = by_pool_table(several, places, models, list(proxies), k, seed=seed)
write_text(Path(runs) / "calibration_by_pool.csv", by_pool_scores.to_csv(index=False))
points = set_score_table(several, places, reference_proxy, judge, k, seed=seed)
write_text(Path(runs) / "calibration_sets.csv", points.to_csv(index=False))
key = ["proxy", "pool", "kind", "sets"]
by_pool_scores.pivot(index=key, columns="measure", values="value").round(3)

# %% [markdown]
# The slope says how much of a lead on the proxy is left on the held-out images; it is lowered by the errors of the proxy scores. A *ratio* that is alike in
# all pools is harmless. Where it differs, a proxy favours some pools, and that shows best by kind of architecture, over the pairs within and between them:

# %%
ratios = family_ratio_table(several, list(proxies), mechanisms, groups)
write_text(Path(runs) / "family_ratios.csv", ratios.to_csv(index=False))
ratios.set_index(["proxy", "kind", "group"]).drop(columns="judged_on").round(3)

# %% [markdown]
# ## Which proxy predicts best?
#
# The same sets for all proxies: random ones of every composition, from all of one mechanism to mixtures, chosen by none of them. The calibration proxies
# differ from each other in the resolution alone (the very same images), or in the number of classes, at as many images from as many independent cells of
# the photographs, with several random choices of the classes at each number; smaller samples of the proxies show what the number of images does.
# *Behind* is by how much a proxy's correlation is below the best one's of its kind, on the same sets and judged by the same images; its *p* counts all
# rivals, for the best is whoever came out highest.

# %%
variants = {
    name: read_comparison(Path(runs) / "cka", name, estimator) for name in calibration_proxies
}
every = {name: compared[name][estimator] for name in sets} | variants
sources = proxies | calibration_proxies
manifests = {name: pd.read_csv(Path(runs) / "images" / f"{name}.csv") for name in sources}
labels = {name: table["label"] for name, table in manifests.items()}
facts = image_facts(sources, labels, {n: groups_of(table) for n, table in manifests.items()})
bench = composed_sets(mechanisms, k, 2000, seed)
quality = proxy_quality_table(every, facts, list(proxies), judge, bench, seed=seed)
write_text(Path(runs) / "proxy_quality.csv", quality.to_csv(index=False))
quality.drop(columns=["judged_on", "sets", "images_low", "images_high"]).round(3)

# %% [markdown]
# *Chosen score* is what the set that this proxy likes best reaches on the held-out images, and *best score* what the best set for them does: a proxy may rank
# the mass of sets well and still miss the top, or the reverse.
#
# ## What to expect of a new submission
#
# A line in the proxy score, fitted to many sets. How far it may be off is taken from sets of models that had no part in the fit, and whether the 95 % interval
# holds 95 % is measured on a third of the models that was set aside from all of that (*coverage*). The row *nothing* is the error of expecting the average of
# every set: what is below it is what the proxy is worth.

# %%
prediction, predictions = prediction_tables(
    everywhere, list(proxies), mechanisms, members, seed=seed
)
write_text(Path(runs) / "prediction_quality.csv", prediction.to_csv(index=False))
write_text(Path(runs) / "predictions.csv", predictions.to_csv(index=False))
prediction.set_index(["proxy", "predictors"]).drop(columns="judged_on").round(4)

# %% [markdown]
# The run's submissions, each expected from sets of the *other* models. The interval is over models, for these held-out images. A submission was chosen
# on the proxy, which makes its proxy score too high; that it lies below what was expected would be a sign of it.

# %%
predictions.set_index(["proxy", "submission"]).drop(columns="judged_on").round(4)

# %% [markdown]
# ## Does homogeneity help, or capacity?
#
# Two models of one mechanism may be alike because they are of one mechanism, or because they are of like size. So the CKA of all pairs is regressed on whether
# the two are of one kind: first alone, then beside their parameters (the mean and the difference of the logarithms), then beside the dimensions of their features
# as well. Pairs that share a model are not independent; the test exchanges whole models (MRQAP, Dekker et al. 2007). *Given* a proxy, the question
# is the paper's: at equal CKA on the proxy, is a pair of one kind more alike on other images? Expect part of the plain difference to go with size.

# %%
sizes = read_names(Path(runs) / "features.csv").drop_duplicates("model").set_index("model")["d"]
here = known.loc[list(models)]
kinds = {"mechanism": mechanisms, "family": here["family"].tolist()}
capacities = {"params_m": here["params_m"].tolist(), "dimension": sizes[list(models)].tolist()}
by_estimator = {s: {e: compared[s][e].resamples for e in estimators} for s in sets}
pairs = homogeneity_pairs_table(
    by_estimator, kinds, capacities, reference_proxy=reference_proxy, seed=seed
)
write_text(Path(runs) / "homogeneity_pairs.csv", pairs.to_csv(index=False))
shown = pairs[(pairs["estimator"] == estimator) & (pairs["adjusted_for"] != "nothing")]
shown.set_index(["grouping", "given", "images", "adjusted_for"])[["difference", "low", "high", "p"]]

# %% [markdown]
# A coefficient that stays where it was when size enters is not size's; one that falls to zero is. The models were not assigned their mechanisms by lot, and size
# enters as a straight line in its logarithm only: what is left may still have other reasons, such as training.
#
# ## The design principles, one by one
#
# Each of the paper's four principles for proxies as a number that would be above zero if it held.

# %%
resampled = {name: one.resamples for name, one in every.items()}
roles = {"reference_proxy": reference_proxy, "judge": judge, "estimator": estimator}
principles = principles_table(resampled, facts, mechanisms, bench, pairs, **roles)
write_text(Path(runs) / "principles.csv", principles.to_csv(index=False))
principles.drop(columns="principle").round(4)

# %% [markdown]
# *Too close to call* is an interval that holds zero; *not testable* says what images or models it would take.
