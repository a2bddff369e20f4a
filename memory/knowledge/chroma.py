"""Chroma itself: a folder that this process owns, or a server, and what fails there in the room's own words.

A folder is only opened if it is sealed (`memory.knowledge.seal`). Any other is moved aside to `<folder>.damaged`, and begun
anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memory.errors import KnowledgeError
from memory.files import sync
from memory.knowledge.seal import beside, blank, files_of, is_sealed, move_aside, remove, seal, sweep, unseal

if TYPE_CHECKING:
    import httpx
    from chromadb.api import ClientAPI

PATIENCE_S = 60.0
ADVICE = "`sleepyctl memory rebuild` makes the index anew from the store"
CLOSED = "the index is closed; open it again"
_open: Counter[Path] = Counter()
"""How often this process has a folder open; Chroma shares one system for each."""
_failed: set[Path] = set()
_lock = RLock()


class Chroma:
    """An embedded Chroma in `folder`, or the server at `url`. `begun_anew`: the folder was damaged.

    Hold `lock` around what belongs together. Raises `KnowledgeError`, as every use of it does, if Chroma fails.
    """

    lock = _lock

    def __init__(self, folder: Path, url: str = "") -> None:
        self.folder, self.url = folder.resolve(), url
        self.begun_anew = False
        self._blank: dict[Path, int] = {}
        self._client: ClientAPI | None = None
        with self.lock:
            self._connect()

    @contextmanager
    def asking(self) -> Iterator[ClientAPI]:
        """The client; what it raises in this block leaves it as a `KnowledgeError` that says what to do."""
        if self._client is None:
            raise KnowledgeError(CLOSED)
        try:
            yield self._client
        except BaseException as error:
            # A panic of Chroma's Rust part is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if self.url:
                raise _away(self.url, error) from error
            _failed.add(self.folder)
            unseal(self.folder)
            raise KnowledgeError(f"the index in {self.folder} failed ({error}); {ADVICE}") from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The folder is not sealed while this block runs, nor after it if Chroma failed."""
        if self.url:
            yield
            return
        with self.lock:
            with _using(self.folder):
                before = files_of(self.folder)
                unseal(self.folder)
                sync(self.folder)
            try:
                yield
            finally:
                if self.folder not in _failed:
                    self.blank()
                    with _using(self.folder):
                        seal(self.folder, before)

    def blank(self) -> None:
        """Clear the files that Chroma has begun with memory it did not clear, and has not written yet."""
        if not self.url:
            with self.lock, _using(self.folder):
                blank(self.folder, self._blank)

    def start_anew(self) -> bool:
        """Move the folder aside because Chroma failed over it, and begin anew; False where that is not for us to do."""
        with self.lock:
            if self.folder not in _failed or _open[self.folder] != 1:
                return False
            with suppress(KnowledgeError):
                self.close()
            with _using(self.folder):
                _move_aside(self.folder)
            self.begun_anew = True
            self._connect()
            return True

    def erase(self) -> None:
        """Delete the folder and what was damaged beside it, byte for byte, and begin anew.

        If the process dies in the midst, the next opening goes on.
        """
        with self.lock:
            if self._client is None:
                raise KnowledgeError(CLOSED)
            if _open[self.folder] > 1:
                raise KnowledgeError(f"{self.folder} is open for another space too; close that first, then forget again")
            with suppress(KnowledgeError):
                self.close()
            _failed.discard(self.folder)
            with _using(self.folder):
                remove(beside(self.folder, "damaged"))
                if self.folder.exists():
                    self.folder.rename(beside(self.folder, "erased"))
            self._connect()

    def close(self) -> None:
        """Let go of it; closing twice does nothing."""
        with self.lock:
            if self._client is None:
                return
            try:
                with self.asking() as client:
                    if self.url:
                        for session in _sessions(client):  # Chroma leaves its connections open
                            session.close()
                    client.close()  # type: ignore[attr-defined]  # Chroma's interface leaves it out
            finally:
                self._client = None
                if not self.url:
                    _open[self.folder] -= 1
            self.blank()

    def _connect(self) -> None:
        if self.url:
            self._client = _served(self.url)
            return
        if _open[self.folder]:
            self._client = _embedded(self.folder)
        else:
            with _using(self.folder):
                remove(beside(self.folder, "erased"))
                if not is_sealed(self.folder):
                    _move_aside(self.folder)
                    self.begun_anew = True
                self.folder.mkdir(parents=True, exist_ok=True)
                sweep(self.folder)
                try:
                    self._client = _embedded(self.folder)
                except KnowledgeError:
                    _move_aside(self.folder)
                    self.begun_anew = True
                    self._client = _embedded(self.folder)
                seal(self.folder, {})
        _open[self.folder] += 1


def _embedded(folder: Path) -> ClientAPI:
    from chromadb import PersistentClient
    from chromadb.api.shared_system_client import SharedSystemClient
    from chromadb.config import Settings

    try:
        return PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
    except BaseException as error:
        # What could not start stays in Chroma's cache, and would be found there by the next attempt.
        SharedSystemClient._identifier_to_system.pop(str(folder), None)
        SharedSystemClient._identifier_to_refcount.pop(str(folder), None)
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise KnowledgeError(f"Chroma cannot open {folder} ({error}); check that it can be written to") from error


def _served(url: str) -> ClientAPI:
    from chromadb import HttpClient
    from chromadb.config import Settings

    try:
        parts = urlsplit(url)
        secure = {"http": False, "https": True}[parts.scheme]
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    except (KeyError, ValueError) as error:
        raise KnowledgeError(f"{url!r} is no address of a Chroma server; it reads like http://127.0.0.1:8000") from error
    try:
        client = HttpClient(host, port, ssl=secure, settings=Settings(anonymized_telemetry=False))
        for session in _sessions(client):
            session.timeout = PATIENCE_S  # by default it waits for ever
    except Exception as error:
        raise _away(url, error) from error
    return client


def _sessions(client: ClientAPI) -> tuple[httpx.Client, ...]:
    """Its connections to the server, and those of the second client that it makes for itself."""
    inner: Any = client
    return inner._server._session, inner._admin_client._server._session


def _away(url: str, error: BaseException) -> KnowledgeError:
    return KnowledgeError(
        f"the Chroma server at {url} could not be used ({error}); start it, or leave `knowledge.url` empty; "
        f"if it runs, {ADVICE}"
    )


@contextmanager
def _using(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KnowledgeError(f"{folder} cannot be used for the index ({error}); check its permissions and the disk") from error


def _move_aside(folder: Path) -> None:
    _failed.discard(folder)
    move_aside(folder)
