"""Profiles as files: found by name, read with every key once, and extended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from realign_utils.errors import UserError, unknown

OF_PROXIES = ("larger", "calibration_proxies")
"""What a profile with proxies of its own does not take from the one that it extends."""

OF_ZOO = ("registry", "weights_dir")
"""What the zoo makes: a profile with a zoo of its own does not take it from another either."""

RECORD = "parameters.yaml"
"""What a run keeps its parameters in, in its own folder."""


def find_profile(name: str, root: Path, beside: Path = Path(), *, kept: bool = False) -> Path:
    """Path of a profile given by its name in `params/` or by the path of a YAML file.

    Parameters
    ----------
    name : str
        The name, or the path.
    root : path
        The project's folder.
    beside : path
        Folder to which a relative path refers.
    kept : bool
        Whether the name of a run in `runs/` is one, too: the parameters that it was run with.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    UserError
        If there is none; names the nearest, or the run that has this name.
    """
    if name.endswith((".yaml", ".yml")):
        if not (beside / name).is_file():
            raise UserError(f"no such profile file: {beside / name}")
        return beside / name
    path = root / "params" / f"{name}.yaml"
    if path.is_file():
        return path
    record = root / "runs" / name / RECORD
    if not record.is_file():
        raise unknown("profile", name, sorted(p.stem for p in (root / "params").glob("*.yaml")))
    if kept:
        return record
    record = Path(os.path.relpath(record))
    raise UserError(
        f"unknown profile {name!r}: it is a run in {record.parent}; "
        f"give the file of its profile, or {record} to have it again as it was"
    )


def read_profile(path: Path, root: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A profile's values; those that it does not give come from the profile that it extends.

    With ``proxies`` of its own it does not take what belongs to the other's (`OF_PROXIES`), nor
    with a ``zoo`` of its own what that makes (`OF_ZOO`).

    Parameters
    ----------
    path : path
        Of the file.
    root : path
        The project's folder.
    heirs : tuple of path
        The profiles that extend it, resolved.

    Returns
    -------
    dict
        Not checked yet.

    Raises
    ------
    UserError
        If a file cannot be read, is no mapping, or extends itself.
    """
    own = path.resolve()  # one file has many paths
    if own in heirs:
        raise UserError(f"{path}: extends itself")
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError) as error:  # the latter of a date that is none
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: a profile is a mapping of parameters, not {type(values).__name__}"
        )
    base = values.pop("extends", None)
    if base is None:
        return values
    values.setdefault("profile", path.stem)  # so that no run overwrites that of another profile
    inherited = read_profile(find_profile(str(base), root, path.parent), root, (*heirs, own))
    if "proxies" in values:  # these are more images of proxies that are not there any more
        inherited = {key: inherited[key] for key in inherited if key not in OF_PROXIES}
    if values.get("zoo"):
        inherited = {key: inherited[key] for key in inherited if key not in OF_ZOO}
    return inherited | values


def read_yaml(text: str) -> Any:
    """Plain data of a YAML text, as by `yaml.safe_load`.

    Raises
    ------
    UserError
        If a key stands twice in one mapping: YAML itself would silently take the last.
    """
    loader = yaml.SafeLoader(text)
    try:
        document = loader.get_single_node()
        if document is None:
            return None
        _require_each_key_once(document)
        return loader.construct_document(document)
    finally:
        loader.dispose()


def _require_each_key_once(document: yaml.Node) -> None:
    """Before data are made of the nodes: that writes merged keys into the mappings themselves."""
    ahead, seen = [document], set()
    while ahead:
        node = ahead.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            ahead += reversed(node.value)
        if not isinstance(node, yaml.MappingNode):
            continue
        ahead += [part for pair in reversed(node.value) for part in reversed(pair)]
        lines: dict[tuple[str, str], int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                first = f"line {lines[name]}"
                raise UserError(f"line {line}: the key {key.value!r} stands already in {first}")
            lines[name] = line
