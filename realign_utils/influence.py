"""Groups of images that alone decide a model's values: found by leaving each out.

CKA is a quotient of sums over images in which a model's features count by their size, squared and
squared again. A model that answers a few images far more strongly than all others lives by those
few: its CKA says how alike models are on *them*, and another sample may not have them at all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from realign_utils.calibrate import pair_values
from realign_utils.comparison import Comparison

INFLUENCE = ["images", "model", "group", "in_group", "groups", "mean", "without", "change"]
INFLUENCE += ["times", "share", "identifiers"]
TIMES = 10.0
"""A change is unusual beyond so many standard deviations of all changes on the set of images."""
SHARE = 0.5
"""And decides, if it is more than this share of all that leaving groups out changes of the model."""
_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute value."""


def influential_groups(
    comparison: Comparison, groups: Sequence[str], identifiers: Sequence[str]
) -> list[tuple[object, ...]]:
    """The groups without which a model's mean CKA with all others is another.

    Parameters
    ----------
    comparison : Comparison
        With its jackknife; without one nothing is known, and nothing found.
    groups, identifiers : sequence of str, length n
        Of each image, in the order of the features.

    Returns
    -------
    list of tuple
        Columns of `INFLUENCE` but the first: model, group, in_group (its images), groups (of all
        images), mean (CKA of the model with all others), without (the group), change, times (in
        robust standard deviations: 1.4826 times the median size of the changes of all models and
        groups), share (of the sum of the model's squared changes), identifiers (of the group's
        images, separated by spaces). The largest first.
    """
    if comparison.jackknife is None:
        return []
    estimate, left_out = comparison.similarity.numpy(), comparison.jackknife.matrices.numpy()
    whole, changes = _means(estimate), _means(left_out) - _means(estimate)
    usual = _DEVIATION * np.nanmedian(np.abs(changes))
    squares = np.square(changes)
    with np.errstate(divide="ignore", invalid="ignore"):
        times, shares = np.abs(changes) / usual, squares / np.nansum(squares, axis=0)
    names = [*dict.fromkeys(groups)]
    rows = []
    found = np.argwhere((times > TIMES) & (shares > SHARE))
    for unit, model in sorted(found.tolist(), key=lambda place: -times[*place]):
        before = [row[-1] for row in rows if row[0] == unit]
        own = _change(left_out[unit] - estimate, model, before)
        if not abs(own) > TIMES * usual:
            continue  # it moves only with a model that is named already
        listed = [i for i, of in zip(identifiers, groups, strict=True) if of == names[unit]]
        mean, change = whole[model], changes[unit, model]
        values = (mean, mean + change, change, times[unit, model], shares[unit, model])
        counts = (comparison.names[model], names[unit], len(listed), len(names))
        rows.append((unit, (*counts, *map(float, values), " ".join(listed)), model))
    return [row for _, row, _ in rows]


def _change(changes: np.ndarray, model: int, aside: Sequence[int]) -> float:
    """Mean change of a model's CKA with all others but some."""
    return float(np.delete(changes[model], [model, *aside]).mean())


def _means(matrices: np.ndarray) -> np.ndarray:
    """Mean of each model with the others: from (..., m, m) to (..., m)."""
    m = matrices.shape[-1]
    diagonal = np.diagonal(matrices, axis1=-2, axis2=-1)
    return (matrices.sum(axis=-1) - diagonal) / (m - 1)


def influence_table(
    comparisons: Mapping[str, Comparison],
    groups: Mapping[str, Sequence[str]],
    identifiers: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """`influential_groups` of several sets of images, with the column images (the set's name)."""
    rows = [
        (images, *row)
        for images, one in comparisons.items()
        for row in influential_groups(one, groups[images], identifiers[images])
    ]
    return pd.DataFrame(rows, columns=INFLUENCE)


def influence_shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table as a page holds it; all identifiers are in its file."""
    shown = {"images": "images", "model": "model", "group": "group", "in_group": "its images"}
    shown |= {"mean": "mean CKA", "without": "without the group", "times": "times the usual"}
    return table[[*shown, "share"]].rename(columns=shown | {"share": "share of all changes"})


def influence_sentence(
    table: pd.DataFrame, submissions: Mapping[str, Collection[str]], similarity: np.ndarray,
    models: Sequence[str], images: str,
) -> str:  # fmt: skip
    """Which models hang on few images, which submissions hold them, and what is so without them.

    Parameters
    ----------
    table : pandas.DataFrame
        From `influence_table`.
    submissions : mapping of str to collection of str
        Models of each.
    similarity : numpy.ndarray, shape (m, m)
        On `images`.
    models : sequence of str, length m
    images : str
    """
    if table.empty:
        return "No group of images alone decides a model's values."
    named = [*dict.fromkeys(table["model"])]
    changes = table["change"].abs().groupby(table["model"], sort=False).max()
    changed = [f"{change:.3f} (`{model}`)" for model, change in changes.items()]
    held = [f"{name} ({', '.join(sorted({*named} & {*those}))})" for name, those in
            submissions.items() if {*named} & {*those}]  # fmt: skip
    rest = [place for place, model in enumerate(models) if model not in named]
    values = pair_values(similarity, range(len(models)))
    left = pair_values(similarity, rest)
    spread = f"{values.min():.2f} to {values.max():.2f}"
    spread_left = f"{left.min():.2f} to {left.max():.2f}"
    return (
        "For each of the models that follow, a single group decides how its CKA varies with the "
        "images; without that group its mean with all others changes by up to "
        f"{', '.join(changed)}. Submissions that hold such a "
        f"model: {', '.join(held) or 'none'}. The CKA of all pairs of models on *{images}* is "
        f"{values.mean():.3f} on average ({spread}); without the named models {left.mean():.3f} "
        f"({spread_left})."
    )


def identifiers_text(table: pd.DataFrame, most: int = 6) -> list[str]:
    """A line for each group of the table: its images by their identifiers, as in the manifest."""
    lines = []
    for row in table.drop_duplicates(["images", "group"]).itertuples():
        listed = row.identifiers.split(" ")
        more = f" and {len(listed) - most} more" if len(listed) > most else ""
        names = ", ".join(f"`{one}`" for one in listed[:most])
        lines.append(f"`{row.group}` of *{row.images}* ({len(listed)} images): {names}{more}.")
    return lines
