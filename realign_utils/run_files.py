"""The files that a run left, read to be compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from realign_utils.errors import UserError
from realign_utils.profiles import load, project_root
from realign_utils.store import sha256_of_file


@dataclass(frozen=True)
class Run:
    """What a run left.

    Attributes
    ----------
    folder : path
    record : dict
        Of ``run.json``: commit, packages, Python.
    parameters : dict
        By dotted key, the run's own folder written as ``<runs>``.
    tables : mapping of str to pandas.DataFrame
        Every CSV by its path in the folder.
    hashes : mapping of str to str
        SHA-256 of every file of results by its path.
    """

    folder: Path
    record: Mapping[str, Any]
    parameters: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    hashes: Mapping[str, str]


def find_run(name: str) -> Path:
    """The folder of a run, given by its path or by the name of its profile.

    Raises
    ------
    UserError
        If there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if "/" in name or name.endswith((".yaml", ".yml")):
        raise UserError(f"no such folder of results: {name}")
    root = project_root()
    if (root / "runs" / name).is_dir():
        return root / "runs" / name
    parameters, root = load(name)
    return root / parameters.runs


def read_run(folder: Path) -> Run:
    """Read a folder of results.

    Raises
    ------
    UserError
        If there is no run, or a file of it is damaged: one line that names it.
    """
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder} holds no run: run.json is missing; realign run makes it")
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        values = yaml.safe_load((folder / "parameters.yaml").read_text(encoding="utf-8"))
        parameters = flat(values)
    except (OSError, ValueError, yaml.YAMLError, AttributeError) as error:
        raise UserError(f"{folder}: run.json or parameters.yaml is damaged: {error}") from None
    own = str(values.get("runs", folder))
    parameters = {key: _without(value, own) for key, value in parameters.items()}
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    kept = {name: path for name, path in paths.items() if path.is_file() and _is_result(name)}
    tables = {name: _read_table(path) for name, path in kept.items() if path.suffix == ".csv"}
    return Run(folder, record, parameters, tables, {n: sha256_of_file(p) for n, p in kept.items()})


def _is_result(name: str) -> bool:
    top, parts = name.split("/")[0], name.split("/")
    return not (
        top in {"notebooks", "blog"} or name.startswith("report.") or parts[-1].startswith(".")
        or (top == "zoo" and len(parts) > 2)
    )  # fmt: skip


def _read_table(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _without(value: Any, own: str) -> Any:
    return value.replace(own, "<runs>") if isinstance(value, str) else value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted key; lists stay whole."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
