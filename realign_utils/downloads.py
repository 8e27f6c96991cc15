"""Files of plain web addresses: their size asked, their bytes brought whole or not at all."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from realign_utils.errors import UserError
from realign_utils.progress import track

Tell = Callable[[int], object]
"""Is told the number of bytes whenever some have come."""

PATIENCE = 10
"""Seconds to wait for a host's answer when only a size is asked."""


class NoNetwork(UserError):
    """A file is not on this machine and the host that has it cannot be reached."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


def download(url: str, path: Path, tell: Tell | None = None) -> None:
    """Write what an address gives to a file; a shorter file than was promised is an error.

    Parameters
    ----------
    url : str
        Its address.
    path : path
        Where to write; a temporary name, since a failure leaves part of the file there.
    tell : callable, optional
        Is told the bytes as they come; by default a bar is shown.

    Raises
    ------
    NoNetwork
        If the host cannot be reached.
    UserError
        If there is no such file, or the connection broke.
    """
    chunks = _chunks(url)
    label = f"downloading {url.rpartition('/')[2]} (MiB)"
    with open(path, "wb") as file:
        for chunk in chunks if tell else track(chunks, label):
            file.write(chunk)
            if tell:
                tell(len(chunk))


def size_of(url: str) -> int | None:
    """Bytes of the file at an address, None where its host does not say; `NoNetwork` without one.

    Some hosts give a file and yet refuse to be asked about it, so a refusal means: not said.
    """
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, method="HEAD"), timeout=PATIENCE
        ) as response:
            size = response.headers.get("Content-Length")
    except (HTTPError, HTTPException):
        return None
    except OSError as error:
        raise _failure(url, error) from error
    return int(size) if size else None


def host_of(url: str) -> str:
    """The host that an address names."""
    return urlsplit(url).netloc


def reason_of(error: BaseException) -> str:
    """What an exception of the network says, short and on one line."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split())[:160] or type(error).__name__


def _chunks(url: str) -> Iterator[bytes]:
    came = 0
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            promised = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(1 << 20):
                came += len(chunk)
                yield chunk
    except (OSError, HTTPException) as error:
        raise (_broken(url, came) if came else _failure(url, error)) from error
    if came < promised:  # a connection that ends early is no error to http.client
        raise _broken(url, came)


def _broken(url: str, came: int) -> UserError:
    return UserError(f"the connection broke after {came} bytes of {url}: run again")


def _failure(url: str, error: Exception) -> UserError:
    if isinstance(error, HTTPError):
        return UserError(f"cannot download {url} (HTTP {error.code} {error.reason})")
    if isinstance(error, HTTPException):
        return UserError(f"cannot download {url} ({reason_of(error)})")
    reason = reason_of(error)
    hint = "connect to the network, or fetch it elsewhere"
    return NoNetwork(f"cannot download {url} ({reason}): {hint}", reason)
