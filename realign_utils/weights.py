"""Checkpoints: found in a folder or in a cache, or downloaded; hashed and verified."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from tqdm import tqdm

from realign_utils import downloads
from realign_utils.architectures import architecture_of, settings_of
from realign_utils.downloads import NoNetwork, Tell, host_of, reason_of
from realign_utils.errors import UserError
from realign_utils.store import sha256_of_file, write_atomically

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Checkpoints that a folder of weights may hold, in the order of preference."""


class Damaged(UserError):
    """A checkpoint's bytes are not those that its host promised."""


@dataclass(frozen=True)
class Weights:
    """A checkpoint on this machine: its path and the SHA-256 of its bytes."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Origin:
    """Where the weights of a model are published: in a repository of the hub, or at an address."""

    model: str
    repository: str = ""
    revision: str | None = None
    files: tuple[str, ...] = ()
    url: str = ""

    @property
    def host(self) -> str:
        """The machine that has them."""
        return host_of(self.url or huggingface_hub.constants.ENDPOINT)


def find_weights(
    row: pd.Series, *, weights_dir: str | os.PathLike[str] | None = None, online: bool = True
) -> Weights:
    """Find a model's checkpoint and hash it, without building the model.

    From the hub, a cached file is used without asking the network; another is downloaded.

    Parameters
    ----------
    row : pandas.Series
        As for `build`.
    weights_dir : path, optional
        As for `build`.
    online : bool
        False: only look on this machine.

    Returns
    -------
    Weights

    Raises
    ------
    NoNetwork
        If the file is not here and cannot be downloaded.
    UserError
        If there is no such file, or a cached file's bytes are not those that its name promises.
    """
    if weights_dir is not None:
        path = in_folder(str(row.name), Path(weights_dir))
        return Weights(path, sha256_of_file(path))
    origin = origin_of(row)
    path = cached(origin)
    if path:
        return verified(origin, path)
    if not online:
        raise _unreachable(origin, "the network is not asked")
    return fetched(origin)


def in_folder(model: str, folder: Path) -> Path:
    """A model's checkpoint in a folder; `UserError` with the nearest name where there is none."""
    if not re.fullmatch(r"\w[\w.-]*", model):
        raise UserError(f"model name {model!r} cannot be a file name: use letters, digits, _ . -")
    paths = [folder / f"{model}{suffix}" for suffix in SUFFIXES]
    found = next((path for path in paths if path.is_file()), None)
    if found:
        return found
    if not folder.is_dir():
        raise UserError(f"weights_dir {folder} is not a folder")
    names = sorted(path.name for path in folder.iterdir() if path.suffix in SUFFIXES)
    nearest = get_close_matches(paths[0].name, names, n=1, cutoff=0.5)
    hint = f"; the nearest is {nearest[0]}" if nearest else f"; it holds {len(names)} checkpoints"
    raise UserError(f"no {paths[0].name} (or {', '.join(SUFFIXES[1:])}) in {folder}{hint}")


def origin_of(row: pd.Series) -> Origin:
    """Where timm's weights of a row's model are published; `UserError` where they are not."""
    architecture_of(row)  # an unknown name is told with the nearest
    settings, model = settings_of(row), str(row.name)
    if settings is None or not settings.has_weights:
        raise UserError(f"{model}: timm has no pretrained weights for it; give weights_dir")
    if not settings.hf_hub_id:
        return Origin(model, url=settings.url)
    repository, _, revision = settings.hf_hub_id.partition("@")
    given = settings.hf_hub_filename
    files = (f"{Path(given).stem}.safetensors", given) if given else ()
    files = files or ("model.safetensors", "pytorch_model.bin")
    return Origin(model, repository, revision or None, files)


def cached(origin: Origin) -> Path | None:
    """The file in the cache of the hub or of torch, None where it is not there; not verified."""
    if origin.url:
        path = Path(torch.hub.get_dir(), "checkpoints", Path(origin.url).name)
        return path if path.is_file() else None
    for name in origin.files:
        path = huggingface_hub.try_to_load_from_cache(
            repo_id=origin.repository, filename=name, revision=origin.revision
        )
        if isinstance(path, str):
            return Path(path)
    return None


def verified(origin: Origin, path: Path) -> Weights:
    """Hash a file of a cache; `Damaged` if its bytes are not those that its name promises.

    The hub's cache names a file's bytes by their SHA-256, and links to them; torch's cache, by the
    first digits after a hyphen. The link's target may be one more link, into a store that many
    repositories share, where names are other hashes: only the first link is the hub's promise.
    """
    sha256 = sha256_of_file(path)
    name = Path(os.readlink(path)).name if path.is_symlink() else path.name
    promise = re.fullmatch(r"([0-9a-f]{64})|.*-([0-9a-f]{8,})\.pth(?:\.tar)?", name)
    if promise and not sha256.startswith(promise[1] or promise[2]):
        raise Damaged(
            f"{origin.model}: {path.resolve()} is damaged: delete it, or let realign fetch do so "
            f"(SHA-256 {sha256[:12]}…, promised {(promise[1] or promise[2])[:12]})"
        )
    return Weights(path, sha256)


def fetched(origin: Origin, tell: Tell | None = None) -> Weights:
    """Download a checkpoint into the cache and verify it; bytes not as promised do not stay.

    What the cache held of it is replaced.

    Parameters
    ----------
    origin : Origin
        Of `origin_of`.
    tell : callable, optional
        Is told the number of bytes whenever some have come.

    Returns
    -------
    Weights

    Raises
    ------
    NoNetwork
        If the host cannot be reached.
    UserError
        One line: there is no such file, the connection broke, the bytes are not as promised.
    """
    earlier = cached(origin)
    if earlier:
        earlier.resolve().unlink()
    path = _from_address(origin, tell) if origin.url else _from_hub(origin, tell)
    try:
        return verified(origin, path)
    except Damaged as error:
        path.resolve().unlink(missing_ok=True)
        raise Damaged(
            f"{origin.model}: what {origin.host} gave is not what it promised, so it was not kept: "
            f"run again ({str(error).rpartition('(')[2]}"
        ) from error


def size_of(origin: Origin) -> int | None:
    """Ask for the bytes of a checkpoint; None where the host does not say; raises as `fetched`."""
    try:
        if origin.url:
            return downloads.size_of(origin.url)
        for name in origin.files:
            address = huggingface_hub.hf_hub_url(origin.repository, name, revision=origin.revision)
            try:
                return huggingface_hub.get_hf_file_metadata(address).size
            except EntryNotFoundError:
                continue
    except Exception as error:
        raise _failure(origin, error) from error
    raise _no_file(origin)


def _from_address(origin: Origin, tell: Tell | None) -> Path:
    path = Path(torch.hub.get_dir(), "checkpoints", Path(origin.url).name)
    try:
        return write_atomically(
            path, lambda temporary: downloads.download(origin.url, temporary, tell or _say_nothing)
        )
    except UserError as error:
        raise _failure(origin, error) from error


def _from_hub(origin: Origin, tell: Tell | None) -> Path:
    where = {"repo_id": origin.repository, "revision": origin.revision}
    for name in origin.files:
        try:
            path = huggingface_hub.hf_hub_download(
                filename=name, tqdm_class=_bar_that_tells(tell or _say_nothing), **where
            )
            return Path(path)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # its name for: no network
                raise _unreachable(origin, reason_of(error.__cause__ or error)) from error
        except Exception as error:
            raise _failure(origin, error) from error
    raise _no_file(origin)


def _say_nothing(_: int) -> None:
    pass


def _bar_that_tells(tell: Tell) -> type[tqdm]:
    """A bar for the hub's client that shows nothing itself and tells the bytes that came."""

    class Bar(tqdm):
        def __init__(self, *_: Any, **options: Any) -> None:
            super().__init__(disable=True, total=options.get("total"))

        def update(self, n: float | None = 1) -> None:
            tell(int(n or 0))

        def update_transfer(self, _: float) -> None:
            """Nothing: the client of the hub's storage counts each byte a second time here."""

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            """Nothing: as above."""

    return Bar


def _unreachable(origin: Origin, reason: str) -> NoNetwork:
    if not origin.url and huggingface_hub.constants.HF_HUB_OFFLINE:
        reason = "HF_HUB_OFFLINE is set"
    return NoNetwork(
        f"the weights of {origin.model} are not on this machine and {origin.host} cannot be "
        f"reached ({reason}): connect and run again, or give weights_dir",
        reason,
    )


def _no_file(origin: Origin) -> UserError:
    return UserError(f"{origin.model}: {origin.repository} holds no weights")


def _failure(origin: Origin, error: Exception) -> UserError:
    """What went wrong with a download, whatever the libraries below call it, on one line."""
    if isinstance(error, NoNetwork):
        return _unreachable(origin, error.reason or reason_of(error))
    if isinstance(error, UserError):
        return UserError(f"{origin.model}: {error}")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(f"{origin.model}: no {origin.repository} at {origin.host}, or not for all")
    if isinstance(error, HfHubHTTPError):
        answer = error.response.status_code
        return UserError(f"{origin.model}: {origin.host} answers {answer}: try again later")
    if getattr(error, "errno", None) == errno.ENOSPC:
        return UserError(f"{error.strerror}: what was fetched stays; free some, run again")
    kind = type(error).__name__
    unreachable = ("ConnectError", "ProxyError", "ConnectTimeout", "ReadTimeout", "PoolTimeout")
    if isinstance(error, ConnectionError) or kind in unreachable:
        return _unreachable(origin, reason_of(error))
    return UserError(f"{origin.model}: the download broke ({kind}: {reason_of(error)}): run again")
