"""What is submitted: the portal's JSON, its rules, and the tables of Appendix A."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from realign_utils.errors import UserError, unknown
from realign_utils.registry import describe
from realign_utils.store import write_json, write_text

BLUE_SIZE, RED_SIZE = 20, 1000
"""Models of a Blue and images of a Red submission (the challenge's rules)."""

IMAGE_NAMES = {
    "imagenet_val": r"ILSVRC2012_val_\d{8}\.JPEG",
    "objectnet": r"objectnet-1\.0/images/[^/]+/[0-9a-f]{15}\.png",
}
"""The catalog's data sets and the form of their image identifiers (the challenge's rules)."""

_LAYER_KEYS, _SOURCE_KEYS = (
    {"model_name", "layer_name"},
    {"model_name", "source", "model_parameters"},
)
_IMAGE_KEYS = {"dataset_name", "image_identifier"}


@dataclass(frozen=True)
class Submission:
    """A submission as read from JSON.

    Attributes
    ----------
    track : {"blue", "red"}
        Models, or images.
    entries : tuple of dict
        As they stand in the file.
    """

    track: Literal["blue", "red"]
    entries: tuple[dict[str, Any], ...]


def save_submission(
    stem: str | Path, models: Sequence[str], registry: pd.DataFrame
) -> pd.DataFrame:
    """Write a submission as `<stem>.csv`, `<stem>.md` (Appendix A) and `<stem>.json` (portal).

    Parameters
    ----------
    stem : path
        Where to, without an ending.
    models : sequence of str
        In the order of the table.
    registry : pandas.DataFrame
        With their layers.

    Returns
    -------
    pandas.DataFrame
        The table.
    """
    table = model_table(models, registry)
    lines = ["| # | Model | Layer | Architecture type |", "|--:|---|---|---|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in table.to_numpy()]
    write_text(f"{stem}.csv", table.to_csv(index=False))
    write_text(f"{stem}.md", "\n".join(lines) + "\n")
    write_json(f"{stem}.json", portal_json(models, registry))
    return table


def model_table(models: Sequence[str], registry: pd.DataFrame) -> pd.DataFrame:
    """The table of Appendix A: number, model, layer, architecture type.

    Parameters
    ----------
    models : sequence of str
        Names of the submitted models, in the order of the table.
    registry : pandas.DataFrame
        As read by `read_registry`.

    Returns
    -------
    pandas.DataFrame
        Columns number, model, layer, architecture_type.
    """
    rows = registry.loc[list(models)]
    return pd.DataFrame(
        {
            "number": range(1, len(rows) + 1),
            "model": rows.index,
            "layer": rows["layer"].to_numpy(),
            "architecture_type": [describe(row) for _, row in rows.iterrows()],
        }
    )


def portal_json(models: Sequence[str], registry: pd.DataFrame) -> dict[str, Any]:
    """The Blue track's JSON: ``{"models": [{"model_name": …, "layer_name": …}]}``."""
    layers = registry.loc[list(models), "layer"]
    return {"models": [{"model_name": m, "layer_name": layer} for m, layer in layers.items()]}


def read_submission(path: str | Path) -> Submission:
    """Read a Blue or Red submission, in the form of 2025 or of 2026.

    Parameters
    ----------
    path : path
        A JSON file: ``{"models": [...]}`` or ``{"differentiating_images": [...]}``.

    Returns
    -------
    Submission

    Raises
    ------
    UserError
        If it is missing, not JSON, or neither form; one line that says which.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    tracks = {"models": "blue", "differentiating_images": "red"}
    found = [key for key in tracks if isinstance(value, dict) and key in value]
    if len(found) != 1:
        raise UserError(f"{path}: one of the keys {', '.join(tracks)} must be there, and only one")
    entries = value[found[0]]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: {found[0]} must be a list of objects")
    return Submission(tracks[found[0]], tuple(entries))


def faults(submission: Submission, registry: pd.DataFrame, *, size: int | None = None) -> list[str]:
    """Every reason why the portal would refuse a submission.

    Parameters
    ----------
    submission : Submission
        Blue or Red.
    registry : pandas.DataFrame
        The models that may be submitted, with their layers.
    size : int, optional
        Entries required; by default 20 models or 1,000 images.

    Returns
    -------
    list of str
        One line each; empty if the submission is valid.
    """
    size = size or (BLUE_SIZE if submission.track == "blue" else RED_SIZE)
    noun = "models" if submission.track == "blue" else "images"
    lines = []
    if len(submission.entries) != size:
        lines.append(f"{len(submission.entries)} {noun}; exactly {size} are required")
    judge = _blue_faults if submission.track == "blue" else _red_faults
    return lines + list(judge(submission.entries, registry))


def _blue_faults(entries: Iterable[dict[str, Any]], registry: pd.DataFrame) -> Iterable[str]:
    names = [str(entry.get("model_name")) for entry in entries]
    for number, (entry, name) in enumerate(zip(entries, names, strict=True), 1):
        if set(entry) not in (_LAYER_KEYS, _SOURCE_KEYS):
            yield (
                f"model {number}: the keys are {', '.join(map(str, entry)) or 'none'}; they must be "
                f"{', '.join(sorted(_LAYER_KEYS))} (2026) or {', '.join(sorted(_SOURCE_KEYS))} (2025)"
            )
        if name not in registry.index:
            yield f"model {number}: {unknown('model', name, registry.index)}"
        elif entry.get("layer_name", registry.layer[name]) != registry.layer[name]:
            yield (
                f"model {number}: layer {entry['layer_name']!r} of {name}; "
                f"the registry's is {registry.layer[name]!r}"
            )
    yield from (f"{name} is submitted {n} times" for name, n in Counter(names).items() if n > 1)


def _red_faults(entries: Iterable[dict[str, Any]], registry: pd.DataFrame) -> Iterable[str]:
    pairs = [(str(e.get("dataset_name")), str(e.get("image_identifier"))) for e in entries]
    for number, (entry, (dataset, identifier)) in enumerate(zip(entries, pairs, strict=True), 1):
        if set(entry) != _IMAGE_KEYS:
            yield (
                f"image {number}: the keys are {', '.join(map(str, entry)) or 'none'}; "
                f"they must be {', '.join(sorted(_IMAGE_KEYS))}"
            )
        elif dataset not in IMAGE_NAMES:
            yield f"image {number}: {unknown('data set', dataset, IMAGE_NAMES)}"
        elif not re.fullmatch(IMAGE_NAMES[dataset], identifier):
            yield f"image {number}: {identifier!r} is not of the form {IMAGE_NAMES[dataset]}"
    repeated = [pair for pair, n in Counter(pairs).items() if n > 1]
    yield from (f"{dataset} {identifier} is submitted twice" for dataset, identifier in repeated)
