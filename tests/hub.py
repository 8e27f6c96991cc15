"""A model hub on this machine: what huggingface_hub's client needs of one, and faults on demand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

COMMIT = "c0ffee" * 6 + "c0ff"
WEIGHTS = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/[^/]+/(?P<file>.+)")


@dataclass
class Hub:
    """What it serves, how it fails, and what it was asked.

    Parameters
    ----------
    address : str
        Of the server.
    files : dict of str to bytes
        By path: ``/timm/name/resolve/main/model.safetensors`` or any other.
    faults : dict of str to str
        By path: flipped (bytes other than promised), cut (half of them, then the end), cut once,
        stalled (half of them, then silence), refused (HTTP 503), unsized (so, when only asked).
    asked : list of tuple of str
        Method and path of every request, in order.
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    over: Event = field(default_factory=Event)

    def add(self, model: str, data: bytes, file: str = "model.safetensors") -> str:
        """Publish a file of timm's repository of a model; its path."""
        path = f"/timm/{model}/resolve/main/{file}"
        self.files[path] = data
        return path

    def downloads(self) -> list[str]:
        """Paths that were asked for with their content."""
        return [path for method, path in self.asked if method == "GET"]


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve an empty hub on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.hub.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(content=False)

    def do_GET(self) -> None:
        self._answer(content=True)

    def _answer(self, *, content: bool) -> None:
        hub: Hub = self.server.hub
        hub.asked.append((self.command, self.path))
        data, fault = hub.files.get(self.path), hub.faults.get(self.path)
        if data is None or fault == "refused" or (fault == "unsized" and not content):
            self._refuse(503 if data else 404)
            return
        start = int(re.sub(r"\D", "", self.headers.get("Range", "")) or 0)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if WEIGHTS.fullmatch(self.path):
            sha256 = hashlib.sha256(data).hexdigest()
            for name, value in (
                ("ETag", f'"{sha256}"'),
                ("X-Linked-ETag", f'"{sha256}"'),
                ("X-Linked-Size", str(len(data))),
                ("X-Repo-Commit", COMMIT),
            ):
                self.send_header(name, value)
        self.end_headers()
        if content:
            self._send(data, start, fault)

    def _send(self, data: bytes, start: int, fault: str | None) -> None:
        if fault == "flipped":
            data = data[:-1] + bytes([data[-1] ^ 1])
        again = self.server.hub.downloads().count(self.path) > 1
        if fault in ("cut", "cut once") and not again:
            data = data[: len(data) // 2]
        elif fault == "cut":
            data = b""
        elif fault == "stalled":
            self.wfile.write(data[: len(data) // 2])
            self.server.hub.over.wait()
            return
        self.wfile.write(data[start:])

    def _refuse(self, code: int) -> None:
        self.send_response(code)
        found = WEIGHTS.fullmatch(self.path)
        if found and code == 404:
            prefix = f"/{found['repository']}/"
            known = any(path.startswith(prefix) for path in self.server.hub.files)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
