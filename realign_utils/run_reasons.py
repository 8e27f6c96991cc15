"""Why two runs may differ: parameters, versions, code, images, models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from realign_utils.run_files import Run

LABELS = {"profile", "title", "authors", "tags", "runs", "figures", "store"}
"""Parameters that name a run and its places, and change no number."""

_NO_FEATURES = pd.DataFrame(columns=["images", "model", "file"])


def reasons(first: Run, second: Run) -> pd.DataFrame:
    """What may explain a change, columns kind, what, first, second; empty where all is alike."""
    rows = [("parameter", key, *pair) for key, pair in changed(first.parameters, second.parameters)
            if key.split(".")[0] not in LABELS]  # fmt: skip
    packages = [run.record.get("packages", {}) for run in (first, second)]
    rows += [("version", key, *pair) for key, pair in changed(*packages)]
    for kind, what in (("version", "python"), ("machine", "machine"), ("code", "commit")):
        rows += [
            (kind, what, *p)
            for _, p in changed(*({what: r.record.get(what)} for r in (first, second)))
        ]
    edited = [len(run.record.get("changed_files", [])) for run in (first, second)]
    if any(edited):
        rows.append(("code", "files changed since the commit", *edited))
    rows += [("images", *row) for row in image_differences(first.tables, second.tables)]
    rows += [("models", *row) for row in model_differences(first.tables, second.tables)]
    return pd.DataFrame(rows, columns=["kind", "what", "first", "second"])


def changed(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> list[tuple[str, tuple[Any, Any]]]:
    """Keys whose values differ, with both values; None where there is none."""
    keys = dict.fromkeys([*first, *second])
    pairs = {key: (first.get(key), second.get(key)) for key in keys}
    return [(key, pair) for key, pair in pairs.items() if pair[0] != pair[1]]


def image_differences(
    first: Mapping[str, pd.DataFrame], second: Mapping[str, pd.DataFrame]
) -> list[tuple[str, str, str]]:
    """Sets of images that are not the same, by the hashes in the manifests: name, first, second."""
    rows = []
    for name in sorted({n for n in (*first, *second) if n.startswith("images/")}):
        hashes = [list(t[name]["sha256"]) if name in t else [] for t in (first, second)]
        if hashes[0] == hashes[1]:
            continue
        shared = len({*hashes[0]} & {*hashes[1]})
        order = ", in another order" if sorted(hashes[0]) == sorted(hashes[1]) else ""
        told = f"{len(hashes[1])} images, {shared} of them the first's{order}"
        rows.append((Path(name).stem, f"{len(hashes[0])} images", told))
    return rows


def model_differences(
    first: Mapping[str, pd.DataFrame], second: Mapping[str, pd.DataFrame]
) -> list[tuple[str, str, str]]:
    """Models that only one run compared, and features that were made of other ingredients.

    A feature file's name is the hash of all it was made of: model, weights, layer, preprocessing,
    arithmetic, versions and images.
    """
    tables = [t.get("features.csv", _NO_FEATURES) for t in (first, second)]
    models = [set(table["model"]) for table in tables]
    rows = []
    if models[0] != models[1]:
        alone = [", ".join(sorted(models[i] - models[1 - i])) or "none" for i in (0, 1)]
        rows.append(("only in one run", *alone))
    files = [table.set_index(["images", "model"])["file"] for table in tables]
    both = files[0].index.intersection(files[1].index)
    other = both[(files[0][both] != files[1][both]).to_numpy()]
    for images, group in other.to_frame(index=False).groupby("images"):
        told = f"{len(group)} of {both.get_level_values(0).tolist().count(images)} made of other ingredients"
        rows.append((f"features on {images}", "", told))
    return rows
