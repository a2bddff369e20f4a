"""A registry for one model, on loopback, for as long as one publish takes: an Ollama server pulls an adapter from it.

It speaks the part of the OCI distribution protocol that Ollama's client speaks (https://github.com/opencontainers/distribution-spec
and ollama's `server/download.go`): manifests by tag, blobs by HEAD and ranged GET. Before the ranges Ollama asks once for the
whole blob, only to read the `Location` header of the answer, and fails without one (ollama pull request 15512), so it is sent.

Who knows the namespace, 128 random bits, may read; nobody else learns that there is anything. While it `learns`, a server may
push: every blob is said to be there already, so nothing travels but the manifest. That is how the layers of a model become
known over the API alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
LARGEST_MANIFEST = 1 << 20
CHUNK = 1 << 20
SILENT_SECONDS = 30
MODEL, TAG = "model", "latest"


@dataclass
class _Shelf:
    """What is there: the manifest, blobs by digest, and what was pushed."""

    namespace: str
    manifest: bytes = b""
    blobs: Mapping[str, Path] = field(default_factory=dict)
    learns: bool = False
    learnt: bytes = b""


class Registry:
    """Serves while the `with` block runs; afterwards nothing listens any more."""

    def __init__(self) -> None:
        self._shelf = _Shelf(f"sleepy{secrets.token_hex(16)}")
        self._http = _Server((LOOPBACK, 0), type("Handler", (_Handler,), {"shelf": self._shelf}))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), name="registry", daemon=True)

    @property
    def name(self) -> str:
        """What the model is called when it is pulled from here."""
        return f"{LOOPBACK}:{self._http.server_port}/{self._shelf.namespace}/{MODEL}:{TAG}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def learn(self) -> None:
        """From now on take one manifest that is pushed."""
        self._shelf.learns, self._shelf.learnt = True, b""

    @property
    def learnt(self) -> bytes:
        """The manifest that was pushed; empty if none was."""
        return self._shelf.learnt

    def offer(self, manifest: bytes, blobs: Mapping[str, Path]) -> None:
        """Serve this manifest and these blobs (file by digest), and learn nothing any more."""
        self._shelf.learns = False
        self._shelf.manifest, self._shelf.blobs = manifest, dict(blobs)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Who hangs up, or sends what is no HTTP, is no concern of ours."""


class _Handler(BaseHTTPRequestHandler):
    shelf: _Shelf
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "registry", ""
    timeout = SILENT_SECONDS
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the paths hold the secret."""

    def do_GET(self) -> None:
        """A manifest, a blob, or a range of it."""
        self._answer(True)

    def do_HEAD(self) -> None:
        """Its headers."""
        self._answer(False)

    def do_PUT(self) -> None:
        """A manifest that is pushed."""
        length = int(self.headers.get("Content-Length") or -1)
        if self._asked() != ("manifests", TAG) or not self.shelf.learns or not 0 < length <= LARGEST_MANIFEST:
            self.close_connection = True  # its body is not read
            return self._send(HTTPStatus.NOT_FOUND, 0)
        self.shelf.learnt, self.shelf.learns = self.rfile.read(length), False
        return self._send(HTTPStatus.CREATED, 0)

    def _asked(self) -> tuple[str, str]:
        """Kind and name of what is asked for; empty for whoever does not know the namespace."""
        found = re.fullmatch(rf"/v2/([\w-]+)/{MODEL}/(manifests|blobs)/([\w.:-]+)", self.path, re.ASCII)
        known = found is not None and secrets.compare_digest(found[1].encode(), self.shelf.namespace.encode())
        return (found[2], found[3]) if found and known else ("", "")

    def _answer(self, body: bool) -> None:
        kind, name = self._asked()
        if kind == "manifests" and name == TAG and self.shelf.manifest:
            digest = f"sha256:{hashlib.sha256(self.shelf.manifest).hexdigest()}"
            self._send(HTTPStatus.OK, len(self.shelf.manifest), ("Content-Type", MANIFEST), ("Docker-Content-Digest", digest))
            if body:
                self.wfile.write(self.shelf.manifest)
        elif kind == "blobs" and self.shelf.learns and not body:
            self._send(HTTPStatus.OK, 0)
        elif kind == "blobs" and name in self.shelf.blobs:
            self._blob(self.shelf.blobs[name], body)
        else:
            self._send(HTTPStatus.NOT_FOUND, 0)

    def _blob(self, path: Path, body: bool) -> None:
        size = path.stat().st_size
        wanted = re.fullmatch(r"bytes=(\d{1,18})-(\d{0,18})", self.headers.get("Range") or "")
        first, last = (int(wanted[1]), min(int(wanted[2] or size), size - 1)) if wanted else (0, size - 1)
        if wanted and first > last:
            return self._send(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, ("Content-Range", f"bytes */{size}"))
        place = [("Content-Range", f"bytes {first}-{last}/{size}")] if wanted else [("Location", self.path)]
        status = HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK
        self._send(status, last - first + 1, *place, ("Accept-Ranges", "bytes"), ("Content-Type", "application/octet-stream"))
        if body:
            self._pour(path, first, last - first + 1)
        return None

    def _pour(self, path: Path, first: int, left: int) -> None:
        try:
            with path.open("rb") as file:
                file.seek(first)
                while left and (block := file.read(min(CHUNK, left))):
                    self.wfile.write(block)
                    left -= len(block)
        except OSError:  # who only wanted the headers hangs up
            left = 1
        self.close_connection = bool(left)

    def _send(self, status: HTTPStatus, length: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, text in headers:
            self.send_header(name, text)
        self.send_header("Content-Length", str(length))
        self.end_headers()
