"""What a submission scores, as the portal computes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import mean_similarity
from realign_utils.cka import cka_matrix
from realign_utils.errors import UserError, unknown
from realign_utils.features import extract, read_features
from realign_utils.images import ImageSet, load_images
from realign_utils.parameters import Parameters
from realign_utils.profiles import registry_of, sources_under
from realign_utils.registry import choose
from realign_utils.submission import Submission, faults, read_submission

PORTAL_EPSILON = 1e-6
"""What the portal adds to the denominator of CKA (an entry's account)."""


def score_file(path: Path, parameters: Parameters, root: Path, *, images: str) -> list[str]:
    """Score a submission with a profile's models and images, as lines to print.

    The portal's CKA: linear kernel, biased HSIC, float64, ``+1e-6`` in the denominator, embeddings
    flattened. Blue: the mean over the pairs of the submitted models on the named image set.
    Red: 1 minus that mean over the profile's models on the submitted images.

    Parameters
    ----------
    path : path
        The submission's JSON.
    parameters : Parameters
        The profile: registry, weights, image sources.
    root : path
        Folder to which its paths refer.
    images : str
        Image set of a Blue score: ``evaluation`` or a proxy.

    Returns
    -------
    list of str
        The score, with what it was computed on, and what the rules find fault with.

    Raises
    ------
    UserError
        If a model or an image is not known, or features cannot be computed.
    """
    submission = read_submission(path)
    registry = registry_of(parameters, root)
    sources = sources_under(parameters, root)
    if submission.track == "blue":
        models, sets = _blue(submission, registry, sources, images)
    else:
        models, sets = _red(submission, choose(registry, parameters.models), sources)
    value, compared = mean_portal_cka(models, sets, parameters, root)
    score = value if submission.track == "blue" else 1 - value
    size = len(submission.entries)  # any number can be scored; `realign check` counts
    return [
        f"{submission.track} score: {score:.6f}",
        f"models: {compared}; images: {sum(map(len, sets))} of {', '.join(s.name for s in sets)}",
        *(f"not valid: {fault}" for fault in faults(submission, registry, size=size)),
    ]


def _blue(
    submission: Submission, registry: pd.DataFrame, sources: Mapping[str, Any], images: str
) -> tuple[pd.DataFrame, list[ImageSet]]:
    if images == "evaluation" and images not in sources:
        raise UserError(f"the profile has no evaluation images: --images {' or '.join(sources)}")
    if images not in sources:
        raise unknown("image set", images, sources)
    names = [str(entry.get("model_name")) for entry in submission.entries]
    return choose(registry, names), [load_images(sources[images], name=images)]


def _red(
    submission: Submission, models: pd.DataFrame, sources: Mapping[str, Any]
) -> tuple[pd.DataFrame, list[ImageSet]]:
    """The submitted images, data set by data set, from the profile's sources."""
    wanted: dict[str, list[str]] = {}
    for entry in submission.entries:
        dataset, identifier = str(entry.get("dataset_name")), str(entry.get("image_identifier"))
        wanted.setdefault(dataset, []).append(identifier)
    return models, [_find(dataset, names, sources) for dataset, names in wanted.items()]


def _find(dataset: str, identifiers: list[str], sources: Mapping[str, Any]) -> ImageSet:
    """The first source of that data set which has all the images."""
    failure, names = None, []
    for source in sources.values():
        names.append(source.get("dataset_name", source["kind"]))
        if names[-1] != dataset:
            continue
        if source["kind"] != "patches":  # all images of the data set, not the sample of a run
            source = source | {"number": None}
        try:
            return load_images(source, name=dataset, identifiers=identifiers)
        except UserError as error:
            failure = error
    raise failure or unknown("data set", dataset, dict.fromkeys(names))


def mean_portal_cka(
    models: pd.DataFrame, sets: Iterable[ImageSet], parameters: Parameters, root: Path
) -> tuple[float, int]:
    """Mean pairwise CKA of models as the portal computes it, on the images of all sets together.

    Parameters
    ----------
    models : pandas.DataFrame
        Rows of the registry; at least two.
    sets : iterable of ImageSet
        Their images are put one after the other.
    parameters : Parameters
        Weights, device, batch size, store.
    root : path
        Folder to which the profile's paths refer.

    Returns
    -------
    float
        The mean over pairs.
    int
        Number of models.

    Raises
    ------
    UserError
        If the features of a model cannot be computed: a score of some of them is no score.
    """
    sets = list(sets)
    store = root / parameters.store
    done = extract(
        models,
        {images.name: images for images in sets},
        store=store,
        weights_dir=root / parameters.weights_dir if parameters.weights_dir else None,
        device=parameters.device,
        batch_size=parameters.batch_size,
        token_pooling="flatten",
        interpolation=parameters.interpolation,
    )
    if len(done.failures):
        first = done.failures.iloc[0]
        raise UserError(f"no score: {first['model']}, {first['stage']}: {first['reason']}")
    files = done.index.groupby("model", sort=False)["file"]
    features = [np.concatenate([read_features(store, f) for f in group]) for _, group in files]
    matrix = cka_matrix(features, names=list(files.groups), epsilon=PORTAL_EPSILON)
    return mean_similarity(matrix.numpy(), range(len(features))), len(features)
