"""The paper's numbers from its Appendix A and from the registry.

Each function gives the evidence on one quantity of ``params/claims.csv``; its second argument is
the column ``of``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from realign_utils.cka import cka_matrix
from realign_utils.claims_evidence import Evidence, Study, untestable
from realign_utils.registry import read_registry

APPENDIX = "params/published/appendix_a.csv"


def _of_listed(study: Study, which: pd.Series, what: str) -> Evidence:
    names = ", ".join(study.listed.loc[which, "model"].str.partition(".")[0])
    shown = f": {names}" if 0 < which.sum() <= 5 else ""
    return Evidence(int(which.sum()), f"{which.sum()} of {len(which)} {what}{shown}", APPENDIX)


def listed_not(study: Study, of: str) -> Evidence:
    which = ~study.listed["architecture_type"].str.contains(of)
    return _of_listed(study, which, f"are not called {of} by Appendix A itself")


def shared_trait(study: Study, of: str) -> Evidence:
    """A label that does not name a trait does not deny it: that is counted, not judged."""
    which = study.listed["architecture_type"].str.contains("|".join(of.split()))
    counted = _of_listed(study, which, f"are labelled {' or '.join(of.split())} by Appendix A")
    return untestable(f"{counted.why}; a label may leave it out", APPENDIX)


def listed_tag(study: Study, of: str) -> Evidence:
    tags = study.listed["model"].str.partition(".")[2].str.split("_")
    which = tags.map(lambda parts: of in parts)
    return _of_listed(study, which, f"have the tag {of} in their name")


def _registry(study: Study) -> pd.DataFrame:
    return read_registry(f"{study.params}/registry.csv")


def registered(study: Study, of: str) -> Evidence:
    models = _registry(study)
    why = f"of {models['family'].nunique()} families"
    return Evidence(len(models), why, "params/registry.csv")


def listed_registered(study: Study, of: str) -> Evidence:
    layers = study.listed["model"].map(_registry(study)["layer"])
    return _of_listed(study, layers == study.listed["layer"], "have that name and layer there")


def dimensions(study: Study, of: str) -> Evidence:
    shapes = _registry(study)["raw_output_shape"].str.split("x")
    # tokens × channels where there are two, channels × height × width where there are three
    sizes = shapes.map(lambda shape: int(shape[-1] if len(shape) == 2 else shape[0]))
    value = sizes.min() if of == "fewest" else sizes.max()
    beyond = sizes[(sizes < 256) | (sizes > 3072)]
    names = ", ".join(f"{name.partition('.')[0]} {size}" for name, size in beyond.items())
    why = f"outside 256 to 3072: {names or 'none'}"
    return Evidence(int(value), why, "params/registry.csv")


def invariance(study: Study, of: str) -> Evidence:
    """On random features, since it is a property of the formula."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((500, 20)), rng.standard_normal((500, 30))
    turned = 7.0 * x @ np.linalg.qr(rng.standard_normal((20, 20)))[0]
    features = [torch.from_numpy(f) for f in (x, y, turned)]
    matrix = cka_matrix(features)
    why = "change of the CKA of random features when one is rotated and scaled"
    return Evidence(float(matrix[0, 1] - matrix[2, 1]), why, "realign_utils/cka.py")


REGISTRY = (
    listed_not, shared_trait, listed_tag, registered, listed_registered, dimensions, invariance,
)  # fmt: skip
