"""What faster arithmetic changes: CKA from the same models and images, computed in several ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from realign_utils.calibrate import pair_values
from realign_utils.cka import cka_matrix
from realign_utils.features import extract, read_features
from realign_utils.images import first
from realign_utils.settings import PLAIN

WAYS: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "compile": {"compile": True},
}
"""Options of `features.extract` by their name in a profile."""

IMAGES = 500
"""Images that are enough for it."""

COLUMNS = ["arithmetic", "models", "pairs", "largest_difference", "mean_difference", "failed"]


def compare_arithmetic(
    registry: pd.DataFrame,
    images: Any,
    ways: Sequence[str],
    *,
    used: Mapping[str, Any],
    number: int = 6,
    estimator: str = "biased",
    **options: Any,
) -> pd.DataFrame:
    """Compare the CKA of some models in float32 with that in other arithmetic.

    Parameters
    ----------
    registry : pandas.DataFrame
        The models; `number` of them are taken, evenly spread from the smallest to the largest.
    images : ImageSet
        What they see: the first `IMAGES` of it.
    ways : sequence of str
        Of `WAYS`.
    used : mapping
        dtype, channels_last and compile of the run itself: it is compared too, unless it is plain
        float32.
    number : int
        Of models.
    estimator : {"biased", "debiased"}
        Of CKA.
    **options
        Further ones of `features.extract`: store, weights_dir, device, cluster …

    Returns
    -------
    pandas.DataFrame
        A row a way: arithmetic, models (that gave features both ways), pairs, largest_difference
        and mean_difference (absolute, of CKA over the pairs; NaN without pairs), failed (models).
    """
    models, compared = examined(registry, number), arithmetics(ways, used)
    if not compared:
        return pd.DataFrame(columns=COLUMNS)
    images = first(images, IMAGES)
    exact = _features(models, images, {**options, **PLAIN})
    rows = []
    for way, arithmetic in compared.items():
        other = _features(models, images, {**options, **arithmetic})
        both = [name for name in exact if name in other]
        row = _differences([exact[n] for n in both], [other[n] for n in both], estimator)
        rows.append((way, len(both), *row, len(models) - len(both)))
    return pd.DataFrame(rows, columns=COLUMNS)


def examined(registry: pd.DataFrame, number: int) -> pd.DataFrame:
    """Models from the smallest to the largest, at even distances in that order."""
    ordered = registry.sort_values("params_m", kind="stable")
    places = np.linspace(0, len(ordered) - 1, min(number, len(ordered))).round().astype(int)
    return ordered.iloc[places]


def arithmetics(ways: Sequence[str], used: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of each arithmetic that is to be compared with plain float32, by its name."""
    compared = {way: {**PLAIN, **WAYS[way]} for way in ways}
    own = {**PLAIN, **used}
    if own != PLAIN and own not in compared.values():
        names = [own[key] if key == "dtype" else key for key in PLAIN if own[key] != PLAIN[key]]
        compared["this run's: " + ", ".join(names)] = own
    return compared


def _features(
    models: pd.DataFrame, images: Any, options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    done = extract(models, {images.name: images}, **options).index
    return {
        model: read_features(options["store"], file)
        for model, file in zip(done["model"], done["file"], strict=True)
    }


def _differences(
    exact: list[np.ndarray], other: list[np.ndarray], estimator: str
) -> tuple[int, float, float]:
    """Number of pairs, and the largest and the mean absolute difference of their CKA."""
    if len(exact) < 2:
        return 0, float("nan"), float("nan")
    matrices = (cka_matrix(f, estimator=estimator).cpu().numpy() for f in (exact, other))
    one, two = (pair_values(matrix, range(len(exact))) for matrix in matrices)
    difference = np.abs(one - two)
    return len(difference), float(difference.max()), float(difference.mean())
