"""All that a profile needs from the network, brought in one process before anything is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from huggingface_hub import logging as hub_logging
from tqdm import tqdm

from realign_utils import downloads, image_archives, weights
from realign_utils.architectures import require_architectures
from realign_utils.downloads import NoNetwork, Tell, host_of
from realign_utils.errors import UserError
from realign_utils.parameters import Parameters, image_sources
from realign_utils.profiles import models_of, registry_files
from realign_utils.progress import track

BYTES_PER_PARAMETER = 4
QUESTIONS_AT_ONCE = 8


@dataclass(frozen=True)
class Download:
    """One file that is still to be brought.

    Parameters
    ----------
    name, place, host : str
        The model or image archive, where its file is published, and by whom.
    bytes : int
        Its size; `about`: an estimate, since the host was not asked or did not say.
    ask, bring : callable
        Ask for the size in bytes (None: not said); bring the file, and tell the bytes that come.
    fault : UserError, optional
        Why it cannot be had, as far as asking has shown.
    """

    name: str
    place: str
    host: str
    bytes: int
    ask: Callable[[], int | None]
    bring: Callable[[Tell], object]
    about: bool = True
    fault: UserError | None = None

    def __str__(self) -> str:
        return f"{self.name} {_size([self])}"


@dataclass(frozen=True)
class Plan:
    """What of a profile is here and what is missing; as text, one line.

    Parameters
    ----------
    profile : str
        Its name.
    models, here : int
        How many models it compares, and of how many the weights are here; 0 models where it trains
        its own.
    weights, images : tuple of Download
        What is to be brought; models that share a checkpoint are one download.
    lacking : tuple of str
        One line for each thing that is missing and cannot be brought.
    """

    profile: str
    models: int
    here: int
    weights: tuple[Download, ...]
    images: tuple[Download, ...]
    lacking: tuple[str, ...]

    @property
    def downloads(self) -> tuple[Download, ...]:
        """All that is to be brought."""
        return self.weights + self.images

    @property
    def faults(self) -> list[tuple[Download, UserError]]:
        """What asking has shown that cannot be had, and why."""
        return [(item, item.fault) for item in self.downloads if item.fault]

    def __str__(self) -> str:
        here = f"{self.here} of {self.models} models are here"
        parts = [str(item) for item in self.images]
        if self.weights:
            models = "1 model" if len(self.weights) == 1 else f"{len(self.weights)} models"
            parts.insert(0, f"weights of {models} {_size(self.weights)}")
        nothing = "what is missing cannot be fetched" if self.lacking else "nothing to fetch"
        wanted = f"to download: {', '.join(parts)}" if parts else nothing
        return f"{self.profile}: {here if self.models else 'trains its own models'}; {wanted}"


def plan(parameters: Parameters, root: Path, *, ask: bool = True) -> Plan:
    """Find out what a profile still needs from the network.

    Parameters
    ----------
    parameters : Parameters
        The profile.
    root : path
        The project's folder.
    ask : bool
        Verify the weights that are here, and ask for the sizes of what is not. False: read no
        weights and use no network; sizes are then estimates, for weights by the registry's numbers
        of parameters.

    Returns
    -------
    Plan

    Raises
    ------
    UserError
        If the registry cannot be read, or names an architecture that timm has not.
    """
    rows = [] if parameters.zoo else _rows(parameters, root)
    if parameters.weights_dir:
        missing: list[Download] = []
        here, lacking = _of_folder(rows, root / parameters.weights_dir)
    else:
        here, missing, lacking = _of_hosts(rows, verify=ask)
    archives, absent = _archives(parameters, root)
    distinct = {item.place: item for item in [*missing, *archives]}.values()
    items = _sized(distinct) if ask else distinct
    images = {item.place for item in archives}
    return Plan(
        profile=parameters.profile,
        models=len(rows),
        here=here,
        weights=tuple(item for item in items if item.place not in images),
        images=tuple(item for item in items if item.place in images),
        lacking=(*lacking, *absent),
    )


def fetch(planned: Plan) -> list[str]:
    """Bring what a plan lists, one file after the other, with one bar and the time left.

    A file is there whole and verified, or it is not there. A failure is told at the end and the
    others go on, except that a host that cannot be reached is not asked again.

    Parameters
    ----------
    planned : Plan
        Of `plan`.

    Returns
    -------
    list of str
        What is missing at the end, as by `told`.
    """
    faults: list[tuple[Download, UserError]] = []
    with _bar(planned.downloads) as bar:
        for item in planned.downloads:
            silent = (f for i, f in faults if i.host == item.host and isinstance(f, NoNetwork))
            fault = item.fault or next(silent, None) or _brought(item, bar)
            if fault:
                faults.append((item, fault))
    return told(planned, faults)


def told(planned: Plan, faults: Sequence[tuple[Download, UserError]]) -> list[str]:
    """One line for each thing that is missing; for all behind hosts out of reach, one line."""
    silent = [(item, fault) for item, fault in faults if isinstance(fault, NoNetwork)]
    lines = [str(fault) for _, fault in faults if not isinstance(fault, NoNetwork)]
    if silent:
        hosts = ", ".join(dict.fromkeys(item.host for item, _ in silent))
        hint = ", or give weights_dir" * any(item in planned.weights for item, _ in silent)
        lines.append(
            f"{hosts} cannot be reached ({silent[0][1].reason}): connect and run again{hint}; "
            f"downloads missing: {len(silent)}"
        )
    return list(dict.fromkeys([*planned.lacking, *lines]))  # a full disk fails all alike


def _rows(parameters: Parameters, root: Path) -> list[pd.Series]:
    registry = models_of(parameters, root)
    require_architectures(registry, registry_files(parameters))
    return [row for _, row in registry.iterrows()]


def _of_folder(rows: Sequence[pd.Series], folder: Path) -> tuple[int, list[str]]:
    """How many models have a checkpoint in a folder, and one line on those that have none."""
    absent = []
    for row in rows:
        try:
            weights.in_folder(str(row.name), folder)
        except UserError:
            absent.append(str(row.name))
    kinds = ", ".join(weights.SUFFIXES[1:])
    line = f"{folder}: no <model>.safetensors (or {kinds}) of {', '.join(absent)}"
    return len(rows) - len(absent), [line] if absent else []


def _of_hosts(rows: Sequence[pd.Series], *, verify: bool) -> tuple[int, list[Download], list[str]]:
    """How many models have a checkpoint in a cache, the downloads of others, and what has none."""
    paths: list[tuple[pd.Series, weights.Origin, Path | None]] = []
    absent = []
    for row in rows:
        try:
            origin = weights.origin_of(row)
        except UserError as error:
            absent.append(str(error))
        else:
            paths.append((row, origin, weights.cached(origin)))
    found = [entry for entry in paths if entry[2]]
    damaged = set()
    for row, origin, path in track(found, "verifying weights") if verify and found else ():
        try:
            weights.verified(origin, path)
        except weights.Damaged:  # `weights.fetched` replaces it
            damaged.add(row.name)
    needed = [
        _of_origin(row, origin) for row, origin, path in paths if not path or row.name in damaged
    ]
    return len(paths) - len(needed), needed, absent


def _of_origin(row: pd.Series, origin: weights.Origin) -> Download:
    place = origin.url or f"{origin.repository}@{origin.revision}"
    estimate = int(row["params_m"] * 1e6) * BYTES_PER_PARAMETER
    ask, bring = partial(weights.size_of, origin), partial(weights.fetched, origin)
    return Download(origin.model, place, origin.host, estimate, ask, bring)


def _archives(parameters: Parameters, root: Path) -> tuple[list[Download], list[str]]:
    """Downloads of images, and a line for each archive that is missing and may not be brought."""
    found, absent = [], []
    for source in image_sources(parameters).values():
        if source.kind not in ("cifar100", "imagenette"):
            continue
        archive = "cifar100" if source.kind == "cifar100" else source.size
        folder = root / source.root
        if image_archives.is_here(archive, folder):
            continue
        url = image_archives.ARCHIVES[archive][0]
        bring = partial(image_archives.unpacked, archive, folder, True)
        ask = partial(downloads.size_of, url)
        about = image_archives.MEGABYTES[archive] * 10**6
        if source.download:
            place = f"{url} in {folder}"
            found.append(Download(source.kind, place, host_of(url), about, ask, bring))
        else:
            absent.append(f"{source.kind}: not in {folder}: set download: true, or fetch {url}")
    return found, absent


def _sized(items: Sequence[Download]) -> list[Download]:
    """Downloads with the sizes that their hosts tell; a host that is silent is not asked again."""
    silent: dict[str, NoNetwork] = {}

    def sized(item: Download) -> Download:
        if item.host in silent:
            return replace(item, fault=silent[item.host])
        try:
            size = item.ask()
        except UserError as error:
            if isinstance(error, NoNetwork):
                silent[item.host] = error
            return replace(item, fault=error)
        return replace(item, bytes=size, about=False) if size else item

    with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
        return list(pool.map(sized, items))


def _brought(item: Download, bar: tqdm) -> UserError | None:
    """Bring a file; the reason why not, if so."""
    bar.set_postfix_str(item.name)
    before, fault = bar.n, None
    try:
        item.bring(bar.update)
    except UserError as error:
        fault, bar.total = error, bar.total - item.bytes
    # A repeated attempt counts bytes twice and sizes may be estimates: count them as planned.
    bar.update(before + (0 if fault else item.bytes) - bar.n)
    return fault


@contextmanager
def _bar(items: Sequence[Download]) -> Iterator[tqdm]:
    """One bar over all bytes; what the hub's client remarks on the way is left out."""
    total = sum(item.bytes for item in items if not item.fault)
    before = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        with tqdm(
            desc="downloading",
            total=total,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=not total,
        ) as bar:
            yield bar
    finally:
        hub_logging.set_verbosity(before)


def _size(items: Sequence[Download]) -> str:
    total, about = sum(item.bytes for item in items), any(item.about for item in items)
    number = f"{total / 1e9:.2f} GB" if total >= 1e8 else f"{total / 1e6:.1f} MB"
    return "about " * about + number
