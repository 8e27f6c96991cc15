"""Profiles: found, read, overridden, and checked whole before any work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from realign_utils.constraints import conflicts
from realign_utils.errors import UserError, unknown
from realign_utils.parameters import Parameters, Submission, image_sources, larger_name
from realign_utils.profile_faults import lines_of, parts_of
from realign_utils.profile_files import RECORD, find_profile, read_profile, read_yaml
from realign_utils.registry import choose, read_registry
from realign_utils.results import COLUMNS, NAMES, read_names

TAKEN = {*COLUMNS, *NAMES, "evaluation", "portal", "judge", "kind"}
"""Names that no proxy may have: columns of the tables in which proxies are columns too."""

PORTAL_COLUMNS = ("submission", "real")
"""What a table of portal scores has at least."""


def project_root(start: str | Path | None = None) -> Path:
    """Find the project: the nearest folder upwards that holds `params/` and `notebooks/`.

    Parameters
    ----------
    start : path, optional
        Where to start, by default the working directory; the package's own clone comes last.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    UserError
        If there is none.
    """
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parent.parent):
        if (folder / "params" / "registry.csv").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise UserError(f"no project at {here}: run realign inside a clone of the repository")


def enter_project() -> Path:
    """Make the project's folder the working directory, as a notebook opened by hand needs it."""
    os.chdir(project_root())
    return Path.cwd()


def under(root: Path, paths: str | list[str]) -> list[Path]:
    """Paths of a profile's files, of which some keys name one and others several."""
    return [root / path for path in ([paths] if isinstance(paths, str) else paths)]


def sources_under(parameters: Parameters, root: Path) -> dict[str, dict[str, Any]]:
    """A profile's image sources by name, as `images.load_images` takes them, folders absolute."""
    sources = {name: s.model_dump() for name, s in image_sources(parameters).items()}
    for source in sources.values():
        folders = {key: source.get(key) for key in ("root", "path", "manifest")}
        source |= {key: str(root / path) for key, path in folders.items() if path}
    return sources


def models_of(parameters: Parameters, root: Path) -> pd.DataFrame:
    """The rows of a profile's registry that it compares, as `registry.read_registry` gives them."""
    return choose(registry_of(parameters, root), parameters.models)


def registry_of(parameters: Parameters, root: Path) -> pd.DataFrame:
    """A profile's registry; where its zoo has not made it yet, `UserError` says what does."""
    paths = under(root, parameters.registry)
    if parameters.zoo and not paths[0].is_file():
        raise UserError(
            f"{paths[0]} is missing: the zoo is not trained yet: realign run with this profile does it"
        )
    return read_registry(paths)


def registry_files(parameters: Parameters) -> str:
    """What an error calls a profile's registry: its file, or several."""
    files = parameters.registry
    return files if isinstance(files, str) else ", ".join(files)


def load(
    profile: str, overrides: Iterable[str] = (), *, root: Path | None = None, kept: bool = False
) -> tuple[Parameters, Path]:
    """Read a profile, apply overrides and check all of it.

    Parameters
    ----------
    profile : str
        A name in `params/`, or the path of a YAML file. With ``extends: <profile>`` the keys that
        it does not give are those of another profile (see `profile_files.read_profile`). Its own
        paths refer to the project.
    overrides : iterable of str
        ``key=value`` with the value in YAML; dots reach inside: ``proxies.cifar100.number=1000``.
    root : path, optional
        The project's folder, found from the working directory by default.
    kept : bool
        Whether `profile` may also be the name of a run in `runs/`, such as a variant that was kept
        apart: its parameters are then those of that run.

    Returns
    -------
    Parameters
        The checked profile.
    pathlib.Path
        The project's folder, to which relative paths refer.

    Raises
    ------
    UserError
        One line for each fault: file, key, value, what is allowed, and the nearest match.
    """
    root = root or project_root()
    path = find_profile(profile, root, kept=kept)
    values = read_profile(path, root)
    for override in overrides:
        _override(values, override)
    values = _with_places(values, path.name)
    _require_own_name(values, path, root)
    return check(values, where=path.name, root=root), root


def _require_own_name(values: Mapping[str, Any], path: Path, root: Path) -> None:
    """Refuse the name of another profile of the project, whose results a run would replace."""
    shipped = root / "params" / f"{values.get('profile')}.yaml"
    own = (shipped, root / str(values["runs"]) / RECORD)
    if shipped.is_file() and path.resolve() not in [file.resolve() for file in own]:
        raise UserError(
            f"{path.name}: profile: {values['profile']!r} is the name of a profile that the project "
            f"ships, whose results it would replace: rename the file, or give another name"
        )


def _with_places(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Fill in the folders that a profile does not give: by its name, and the zoo's by `runs`."""
    places = {
        "runs": f"runs/{values.get('profile')}",
        "figures": f"figures/{values.get('profile')}",
    }
    values = places | values
    if values.get("zoo"):
        folder = f"{values['runs']}/zoo"
        made = {"registry": f"{folder}/registry.csv", "weights_dir": f"{folder}/weights"}
        _require_unused(values, made, where)
        values = values | made
    return values


def _require_unused(values: Mapping[str, Any], made: Mapping[str, str], where: str) -> None:
    """Refuse what a zoo would replace; a run's own record names the very places, and may."""
    unused = [f"{key} ({values[key]})" for key in made if values.get(key) not in (None, made[key])]
    if unused:
        zoo = values["zoo"]
        table = f" (of {zoo['table']})" if isinstance(zoo, Mapping) and "table" in zoo else ""
        raise UserError(
            f"{where}: {' and '.join(unused)} would be ignored, since the profile trains a zoo{table}: "
            "set zoo: null to compare models of your own"
        )


def _override(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise UserError(f"-p {override!r}: give it as key=value")
    *outer, last = key.split(".")
    try:
        value = read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"-p {override!r}: the value is not valid YAML") from error
    except UserError as error:
        raise UserError(f"-p {override!r}: {error}") from None
    target: Any = values
    for depth, name in enumerate(outer):
        above, parts = outer[:depth], parts_of(outer[:depth])
        if name in parts and target.get(name) is None:  # the profile gives nothing of it
            target[name] = {}
        if name not in target:
            inside = f"{'.'.join(above)}: " if above else ""
            raise UserError(
                f"-p {override!r}: {inside}{unknown('parameter', name, parts or target)}"
            )
        target = target[name]
        if not isinstance(target, dict):
            raise UserError(f"-p {override!r}: {'.'.join([*above, name])} has no parts")
    target[last] = value


def check(values: Mapping[str, Any], *, where: str, root: Path) -> Parameters:
    """Check a whole profile: names, types and ranges, and that all it refers to exists.

    Parameters
    ----------
    values : mapping
        The profile as read from YAML.
    where : str
        What the error lines call it.
    root : path
        Folder to which relative paths refer.

    Returns
    -------
    Parameters

    Raises
    ------
    UserError
        One line for each fault.
    """
    try:
        parameters = Parameters.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(lines_of(error, where)) from None
    faults = list(_dangling(parameters, root))
    if faults:
        raise UserError("\n".join(f"{where}: {fault}" for fault in faults))
    return parameters


def _dangling(parameters: Parameters, root: Path) -> Iterable[str]:
    """Lines for names that refer to nothing: models, pools, proxies, submissions, files."""
    zoo = parameters.zoo
    try:
        registry = read_registry(under(root, zoo.table if zoo else parameters.registry))
        registry = choose(choose(registry, zoo.models) if zoo else registry, parameters.models)
    except UserError as error:
        yield f"models: {error}"
        return
    variants = set(parameters.calibration_proxies)
    for key, names in (("proxies", {*parameters.proxies}), ("calibration_proxies", variants)):
        for name in sorted(names & TAKEN):
            yield f"{key}: the name {name!r} is taken by a column of the tables; try {name}_images"
    for name in sorted(variants & set(parameters.proxies)):
        yield f"calibration_proxies: the name {name!r} is taken by a proxy"
    faults = list(_larger_faults(parameters))
    yield from faults or _missing_places(parameters, root)
    if parameters.reference_proxy not in parameters.proxies:
        yield f"reference_proxy: {unknown('proxy', parameters.reference_proxy, parameters.proxies)}"
    for key in ("highlight", "contrast"):
        if getattr(parameters, key) not in parameters.submissions:
            yield f"{key}: {unknown('submission', getattr(parameters, key), parameters.submissions)}"
    sizes: dict[str, int] = {}
    for group in ("pools", "families"):
        for name, which in getattr(parameters, group).items():
            try:
                sizes[name if group == "pools" else f"family {name}"] = len(choose(registry, which))
            except UserError as error:
                yield f"{group}.{name}: {error}"
    for name, submission in parameters.submissions.items():
        faults = list(_submission_faults(parameters, submission, registry.index, sizes))
        if submission.pool and submission.constraints and not faults:
            asked, pool = submission.constraints.model_dump(), parameters.pools[submission.pool]
            faults = conflicts(asked, choose(registry, pool), parameters.k, registry)
        yield from (f"submissions.{name}: {fault}" for fault in faults)


def _larger_faults(parameters: Parameters) -> Iterable[str]:
    """Lines for larger sets of images that cannot begin with those of a proxy and go on."""
    for proxy, number in parameters.larger.items():
        if proxy not in parameters.proxies:
            yield f"larger: {unknown('proxy', proxy, parameters.proxies)}"
            continue
        source = parameters.proxies[proxy]
        if larger_name(proxy) in {**parameters.proxies, **parameters.calibration_proxies}:
            yield f"larger: the name {larger_name(proxy)!r} is taken by a proxy"
        if getattr(source, "manifest", None):
            yield f"larger.{proxy}: its images are those of a manifest; there are no more"
        elif source.number is None or number <= source.number:
            own = "all that there are" if source.number is None else source.number
            yield f"larger.{proxy}: {number} is not more than the proxy's own number, {own}"


def _missing_places(parameters: Parameters, root: Path) -> Iterable[str]:
    """Lines for files and folders that are not there, and portal rows that the table lacks."""
    weights = parameters.weights_dir
    if weights and not parameters.zoo and not (root / weights).is_dir():
        yield f"weights_dir: no such folder: {weights}"
    for name, source in image_sources(parameters).items():
        if source.kind == "imagefolder" and not (root / source.path).is_dir():
            yield f"{name}: no such folder: {source.path}"
        manifest = getattr(source, "manifest", None)
        if manifest and not (root / manifest).is_file():
            yield f"{name}: no such manifest: {manifest}"
    if not parameters.portal:
        return
    if not (root / parameters.portal).is_file():
        yield f"portal: no such file: {parameters.portal}"
        return
    try:
        rows = _portal_rows(root / parameters.portal)
    except UserError as error:
        yield f"portal: {error}"
        return
    for name, submission in parameters.submissions.items():
        if submission.portal and submission.portal not in rows:
            yield f"submissions.{name}: {unknown('row of the portal table', submission.portal, rows)}"


def _portal_rows(path: Path) -> list[str]:
    """The submissions that a table of portal scores has a row for."""
    try:
        table = read_names(path)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(
            f"{path} is not a CSV file in UTF-8: {str(error).splitlines()[0]}"
        ) from None
    absent = [column for column in PORTAL_COLUMNS if column not in table]
    if absent:
        lacking = " and ".join(map(repr, absent))
        there = ", ".join(table.columns)
        needed = " and ".join(PORTAL_COLUMNS)
        raise UserError(f"{path}: no column {lacking} among {there}; {needed} are needed")
    if not pd.api.types.is_numeric_dtype(table["real"]):
        raise UserError(f"{path}: the column 'real' has text: scores are numbers")
    return table["submission"].tolist()


def _submission_faults(
    parameters: Parameters, submission: Submission, names: Iterable[str], sizes: Mapping[str, int]
) -> Iterable[str]:
    if submission.models is not None:
        if submission.pool or submission.proxies:
            yield "give either models, or pool and proxies"
        known = set(names)
        yield from (str(unknown("model", m, names)) for m in submission.models if m not in known)
        if len(set(submission.models)) != len(submission.models):
            yield "models: a model is named twice"
        if len(submission.models) < 2:
            yield "models: a set has at least two"
        if submission.objective != "mean" or submission.constraints:
            yield "objective and constraints are of the search; a fixed list has none"
        return
    if not submission.pool or not submission.proxies:
        yield "give either models, or pool and proxies"
        return
    if submission.pool not in parameters.pools:
        yield str(unknown("pool", submission.pool, parameters.pools))
    elif sizes.get(submission.pool, parameters.k) < parameters.k:
        yield (
            f"k = {parameters.k} is larger than the pool {submission.pool!r} "
            f"of {sizes[submission.pool]} models"
        )
    for proxy, weight in submission.proxies.items():
        if proxy not in parameters.proxies:
            yield str(unknown("proxy", proxy, parameters.proxies))
        if weight < 0:
            yield f"proxies.{proxy}: a weight is not negative, not {weight}"
    if not sum(submission.proxies.values()) > 0:
        yield "proxies: the weights sum to zero"
    if submission.objective == "worst" and len(submission.proxies) < 2:
        yield "objective: worst needs two proxies or more"
    if submission.objective == "worst" and len({*submission.proxies.values()}) > 1:
        yield "objective: worst weighs all proxies alike; give them equal weights"
