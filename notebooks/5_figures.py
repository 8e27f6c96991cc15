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
# # What do the results look like?
#
# The paper's Figures 2 to 7 and the two calibration scatters, drawn from what `2_cka`, `3_select` and `4_calibrate` left. Nothing is
# decided here: every number in a picture is read from the data that it shows. Each figure is saved as PNG, SVG and PDF, and as JSON what
# it answers to a pointer in the HTML report: the names and values of its cells and points. At the end the same functions draw the two
# matrices that the paper itself published only as pictures.

# %%
from pathlib import Path

import numpy as np
from IPython.display import Image

from realign_utils import calibration_set_figures, pair_figures, selection_figures
from realign_utils import figures as draw
from realign_utils.calibration_sets import judge_of
from realign_utils.claims import show_claim
from realign_utils.claims_evidence import Study
from realign_utils.comparison_files import read_comparison
from realign_utils.embedding import embed, resampled_maps
from realign_utils.figure_style import mark_models
from realign_utils.in_step import require_in_step, require_reference
from realign_utils.matrices import read_matrix
from realign_utils.objectives import plausible
from realign_utils.profiles import enter_project
from realign_utils.registry import choose, read_registry
from realign_utils.results import read_names
from realign_utils.search import greedy

enter_project()  # paths below are relative to it, wherever the notebook was opened

# %% tags=["parameters"]
runs = "runs/demo"  # folder of the results; not given: runs/<profile>
figures = "figures/demo"  # folder of the figures; not given: figures/<profile>
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
estimator = "biased"  # HSIC estimator of the CKA that the search maximises
reference_proxy = "cifar100_like"  # proxy of the calibration ratio real / proxy
portal = None  # CSV of published portal scores; null: none
families = {  # groups of Figure 4: queries on the registry's columns, or names
    "blur/ResNet": "family.str.contains('res|densenet')",
    "hybrid attention": "mechanism == 'hybrid'",
    "pure ViT": "mechanism == 'attention'",
}
highlight = "S4"  # the submission of Figures 2, 5, 6 and 7
contrast = "S1"  # the submission beside it in Figure 3
seed = 0  # seed of the search and of the figures

# %% [markdown]
# ## What there is
#
# One matrix for each set of images, and the scores of each submission. Where `2_cka` or `3_select` has been run again since the scores
# were computed, the pictures would mix two choices: then this notebook stops, and names the one to run first.

# %%
require_in_step(runs, estimator, proxies=proxies)
require_reference(runs, reference_proxy)
sets = [*proxies, "evaluation"] if evaluation else list(proxies)
read = {name: read_matrix(Path(runs) / "cka" / f"{name}_{estimator}.csv") for name in sets}
models, similarity = read[reference_proxy]
calibration = read_names(Path(runs) / "calibration.csv")
titles = calibration["submission"] + ": " + calibration["title"]
titles = dict(zip(calibration["submission"], titles, strict=True))
calibration.round(3)

# %% [markdown]
# The members of each submission, as rows of the matrices.

# %%
members = {
    name: read_names(Path(runs) / "submissions" / f"{name}.csv")["model"].tolist()
    for name in titles
}
rows = {name: [models.index(model) for model in chosen] for name, chosen in members.items()}
block = {name: similarity[np.ix_(places, places)] for name, places in rows.items()}

# %% [markdown]
# Models are coloured by the families of Figure 4, and by mechanism where they belong to none. Colour and shape say the same thing, so that
# nothing is lost in print without colours or to a reader who does not tell them apart.

# %%
known = read_registry(registry)
groups = {m: family for family, which in families.items() for m in choose(known, which).index}
others = {m: f"other {mechanism}" for m, mechanism in known["mechanism"].items() if m not in groups}
marks = mark_models(groups | others)
study = Study(runs, proxies, reference_proxy, evaluation, estimator, registry, highlight=highlight)

# %% [markdown]
# ## Figure 2: one submission, pair by pair
#
# Rows and columns are ordered by hierarchical clustering, so that models that see alike are neighbours. The diagonal, 1 by definition, is
# left grey: it would use up half of the colours. Expect blocks where models share a design.

# %%
panel = draw.Panel(
    f"{titles[highlight]}, on {reference_proxy}", block[highlight], members[highlight]
)
stem = draw.save(draw.heatmap(panel, marks), figures, "fig2_heatmap")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# A block brighter than its surroundings is a group within the set. A dark row is a model that the set could do without; the title names
# the darkest cell.
#
# ## Figure 3: two submissions on one scale
#
# The same colours mean the same values on both sides, and that is all the figure is for: compared on scales of their own, any two matrices
# look alike.

# %%
panels = [draw.Panel(titles[name], block[name], members[name]) for name in (highlight, contrast)]
stem = draw.save(draw.heatmaps(panels, marks), figures, "fig3_comparison")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# The paper reads its own pair so: the homogeneous set is evenly high, the diverse one has blocks that part on richer images. Whether they
# do is seen when all submissions are drawn on all sets of images, again on one scale.

# %%
everywhere = {
    name: {s: read[s][1][np.ix_(places, places)] for s in sets} for name, places in rows.items()
}
stem = draw.save(draw.overview(everywhere, members), figures, "overview")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# Down a column the models and their order stay, only the images change. A pattern that fades on the way down belonged to the images; one
# that stays belongs to the models.
#
# ## All models, pair by pair
#
# The submissions are chosen from this matrix. Expect blocks along the diagonal, and look at the bars whether a block is a family.

# %%
everyone = draw.Panel(f"All models on {reference_proxy}", similarity, models)
stem = draw.save(draw.registry_heatmap(everyone, marks), figures, "all_models")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# The order comes from the similarities alone. A bar of one colour beside a bright block is a family that sees alike; a bright block of several
# colours is likeness that the family does not explain; dark lines are models unlike all others.
#
# ## Figure 4: within families
#
# The bars start at zero, because their length is what is compared. The interval is the jackknife over models of `4_calibrate`.

# %%
within = read_names(Path(runs) / "family_similarity.csv")
bars = draw.family_bars(within, interval="95 % jackknife interval over models")
stem = draw.save(bars, figures, "fig4_families")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# Read the number of pairs before the height: a family of three models has three pairs. If all bars of one set of images are longer than
# those of another, the images inflate CKA for everybody, and nothing is learnt about families.
#
# ## Figure 5: a map of the models
#
# Multidimensional scaling puts every model where its distances to the others come as close as possible to 1 − CKA. *Stress* is the
# relative error that remains (0: none; Kruskal called 0.2 poor). Only distances mean anything: the axes could be
# turned. The images are a sample, so the map is drawn again from forty matrices that other images might have given, each laid onto the first
# by turning and shifting: the faint points. A model whose cloud is wide has no sure place.

# %%
embedding = embed(similarity, seed=seed)
resamples = read_comparison(Path(runs) / "cka", reference_proxy, estimator).resamples
clouds = resampled_maps(plausible(resamples)[:40], embedding)

# %%
picture = draw.embedding_map(
    models,
    embedding,
    marks=marks,
    chosen=members[highlight],
    title=f"{titles[highlight]}, on {reference_proxy}",
    families=known["family"].to_dict(),
    resampled=clouds,
    similarity=similarity,
)
stem = draw.save(picture, figures, "fig5_map")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# Stars close together are what the search looked for, so their closeness proves nothing. What may be learnt is *which* region they lie
# in, and whether models of one family lie together though nobody asked them to. So the paper's claim of a tight cluster is judged on a map
# of other images, beside random sets:

# %%
show_claim("cluster_tight", study)

# %% [markdown]
# ## Figure 6: what each model contributes
#
# The mean similarity of each model to the others of the set, with the range over those others.

# %%
averages = draw.average_similarity(
    members[highlight], block[highlight], title=titles[highlight], marks=marks
)
stem = draw.save(averages, figures, "fig6_per_model")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# The axis does not start at zero; the points, not lengths, are compared. A spread of the means that is small against the ranges says
# that no member is an outlier, though single pairs may differ much. The paper calls a spread of 0.07 narrow, of its 20 models. A smaller set
# has a smaller spread by nature, and is not judged by that; a set of as many models is, on images by which it was not chosen:

# %%
show_claim("spread_narrow", study)

# %% [markdown]
# ## Figure 7: the path of the search
#
# How the mean falls as the greedy stage adds models. A fixed list was not searched; for it the greedy stage is run on its own members.

# %%
path = read_names(Path(runs) / "selection" / "trajectories.csv").query("submission == @highlight")
steps = path.loc[path["stage"] == "greedy", "mean_similarity"].tolist()
steps = steps or list(greedy(block[highlight], len(block[highlight]))[1])
final = path.loc[path["stage"] == "restarts", "mean_similarity"].max()
bounds = read_names(Path(runs) / "submissions.csv").set_index("submission")
bound = bounds.reindex(columns=["upper_bound"]).loc[highlight, "upper_bound"]
sizes = range(2, len(steps) + 2)

# %%
curve = draw.trajectory(sizes, steps, title=titles[highlight], final=final, upper_bound=bound)
stem = draw.save(curve, figures, "fig7_trajectory")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# A mean over more and more pairs cannot stay at the level of the best pair, so the curve must fall; that it flattens does not show that
# the set is the best. The dotted line does, where there is one: no set of this size lies above it, and the gap below it is all that a
# better search could win. What *near-optimal* is to mean is drawn in: the grey band is a hundredth of the bound. Without a bound it lies about
# the curve's own end, and says from where on the curve is level.
#
# ## Calibration: proxy against real
#
# A point on the line would be a proxy that tells the truth; a cloud *parallel* to it, one that ranks rightly all the same. The crosses are 95 %
# intervals, over other images of the same kind.

# %%
real = "portal" if portal else "evaluation images"
sure = read_names(Path(runs) / "submission_intervals.csv").query("estimator == @estimator")
scatter = draw.calibration_scatter(calibration, list(proxies), real=real, intervals=sure)
stem = draw.save(scatter, figures, "calibration")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# Points below the line were promised too much. With so few of them no line should be fitted. The same as ratios:

# %%
ratios = draw.calibration_ratios(calibration, list(proxies))
stem = draw.save(ratios, figures, "calibration_ratios")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# A proxy whose marks stand one above the other, wherever that is, ranks the submissions as the evaluation does.
#
# ## How many images are enough?
#
# The score of each submission against the number of images, as `4_calibrate` left it. Expect the solid lines, the biased estimate, to fall
# to the dashed ones, the debiased estimate, as the chance level below them falls.

# %%
curves = read_names(Path(runs) / "learning_curve.csv")
stem = draw.save(draw.learning_curves(curves), figures, "learning_curves")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# Where a solid line still falls at its right end, more images would lower the score. Bands that overlap do not mean a tie: all submissions
# see the same images, and the interval of the *difference* is narrower (`4_calibrate`).
#
# ## Pools: what is gained by choosing from a part
#
# Above, the best set of each pool of candidates on the reference proxy, and the same set on other images, on a grey range: the best
# sets of random pools of the same size. Below, sets of one mechanism and mixed sets whose mean on the proxy is the same.

# %%
by_pool, versus = read_names(Path(runs) / "pools.csv"), read_names(Path(runs) / "homogeneity.csv")
judge = [*(name for name in proxies if name != reference_proxy), *sets[len(proxies) :]][-1:]
ablation = selection_figures.pools(by_pool, versus, [reference_proxy, *judge])
stem = draw.save(ablation, figures, "pools")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# A dot right of its grey range is a pool that holds more alike models than its size explains. Compare the two columns: a pool that is right
# of it in the left column only was made for the proxy. Below, the blue mark right of the red one speaks for homogeneity only
# as far as it exceeds what better models alone would give (`4_calibrate`).
#
# ## Firmness: other images, other proxies
#
# Above, each model's share of the best sets that other images would have given. Below, what each way of choosing costs on each
# set of images.

# %%
shares = read_names(Path(runs) / "selection" / "membership.csv")
picture = selection_figures.firmness(shares, read_names(Path(runs) / "regret.csv"))
stem = draw.save(picture, figures, "firmness")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# A step from 1 down to 0 at the dashed line, which stands at the size of the set, is a set that the images settle. A slope is a set of which
# a part might as well be others.
#
# ## Thousands of sets: proxy score against held-out score
#
# A point is a set of models, a panel a pool. The line is what to expect of a new set, and in the band lie 95 % of the sets of models that had
# no part in it. Expect the blue points, near the proxy's best, at the right, and lower than the line where the proxy promised too much.

# %%
judge = judge_of(sets, list(proxies), reference_proxy) or reference_proxy
expected = read_names(Path(runs) / "predictions.csv")
lines = read_names(Path(runs) / "prediction_quality.csv")
points = read_names(Path(runs) / "calibration_sets.csv")
picture = calibration_set_figures.set_scatter(
    points, expected, lines, proxy=reference_proxy, judge=judge
)
stem = draw.save(picture, figures, "calibration_sets")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# A narrow cloud is a proxy that ranks well in that pool; a cloud off the line, a pool that it favours or wrongs.
#
# ## Which proxy predicts best
#
# The rank correlation of the proxy scores with the held-out ones, over sets of every composition. Points that are joined differ in the
# thing on the axis alone.

# %%
picture = calibration_set_figures.proxy_quality(read_names(Path(runs) / "proxy_quality.csv"))
stem = draw.save(picture, figures, "proxy_quality")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# The intervals hold other images and other models, which all proxies share; so two proxies may differ surely though their intervals overlap
# (`proxy_quality.csv` has the interval of the difference).
#
# ## Homogeneity, or capacity?
#
# Above, every pair of models: of one mechanism or of two, against how much their sizes differ and how large they are. Below, by how much pairs
# of one kind are more alike, as it is and at equal capacity.

# %%
kinds, params = (known.loc[list(models), column] for column in ("mechanism", "params_m"))
coefficients = read_names(Path(runs) / "homogeneity_pairs.csv")
picture = pair_figures.pairs_and_capacity(
    read[judge][1], kinds, params, coefficients, images=judge, estimator=estimator
)
stem = draw.save(picture, figures, "homogeneity_pairs")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# If capacity explained it, the blue and the red averages would lie on one curve. Where they run apart at every size, it does not.
#
# ## The paper's own matrices
#
# The paper shows two matrices only as pictures. Read off their colours (`params/published/`, ±0.002 a cell) they can be drawn again.
# Expect a mean of 0.761, and look for the minimum: the paper's caption says "approximately 0.55".

# %%
published_models, published = read_matrix("params/published/s4_cifar100_cka_digitised.csv")
published_panel = draw.Panel("S4 as published, on CIFAR-100", published, published_models)
published_marks = mark_models(read_registry("params/registry.csv")["mechanism"].to_dict())
stem = draw.save(draw.heatmap(published_panel, published_marks), figures, "published_fig2")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# The title gives the lowest pair. Is it the caption's?

# %%
show_claim("s4_minimum", study)

# %% [markdown]
# Beside it the matrix of S1, whose models were never named:

# %%
_, diverse = read_matrix("params/published/s1_cifar100_cka_digitised.csv")
published_panels = [published_panel, draw.Panel("S1 as published, on CIFAR-100", diverse)]
stem = draw.save(draw.heatmaps(published_panels, published_marks), figures, "published_fig3")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# The diverse set has the darker corners, as the paper says. Its Figure 6 named the three models that contribute most: resnetblur50,
# cspresnext50, ecaresnetlight.

# %%
averages = draw.average_similarity(
    published_models, published, title="S4 as published, on CIFAR-100", marks=published_marks
)
stem = draw.save(averages, figures, "published_fig6")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# They are the first three. Its Figure 7 has the mean converge "by model 12"; a greedy search on the paper's own matrix may do so, or not:

# %%
steps = greedy(published, len(published))[1]
curve = draw.trajectory(range(2, len(steps) + 2), steps, title="S4 as published, on CIFAR-100")
stem = draw.save(curve, figures, "published_fig7")
Image(f"{stem}.png", retina=True)

# %% [markdown]
# Look for a plateau from model 12 on.

# %%
show_claim("s4_flat", study)

# %% [markdown]
# And the twenty are the whole set, so that the end of this curve says nothing of how good the search was.
