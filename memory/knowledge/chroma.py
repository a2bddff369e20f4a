"""Chroma itself: a folder that this process owns, or a server, and what fails there in the room's own words.

A damaged file can crash Chroma and the process with it. So a folder is only opened if its files are as the last complete
change left them: it is *sealed*. Any other is moved aside to `<folder>.damaged`, and begun anew.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memory.errors import KnowledgeError
from memory.files import sync, write_whole

if TYPE_CHECKING:
    import httpx
    from chromadb.api import ClientAPI

PATIENCE_S = 60.0
SEAL = "seal.json"
WRITTEN = "index_metadata.pickle"
"""The file that Chroma writes last of a collection."""
ADVICE = "`sleepyctl memory rebuild` makes the index anew from the store"
UNWRITTEN = ("data_level0.bin", "length.bin")
"""Until then these hold whatever was in the process's memory, vectors that were forgotten too."""
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
            (self.folder / SEAL).unlink(missing_ok=True)
            raise KnowledgeError(f"the index in {self.folder} failed ({error}); {ADVICE}") from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The folder is not sealed while this block runs, nor after it if Chroma failed."""
        if self.url:
            yield
            return
        with self.lock:
            with _using(self.folder):
                before = _files(self.folder)
                (self.folder / SEAL).unlink(missing_ok=True)
                sync(self.folder)
            try:
                yield
            finally:
                if self.folder not in _failed:
                    self.blank()
                    with _using(self.folder):
                        _seal(self.folder, before)

    def blank(self) -> None:
        """Clear the files that Chroma has begun with memory it did not clear, and has not written yet."""
        if self.url:
            return
        with self.lock, _using(self.folder):
            for name in UNWRITTEN:
                for path in self.folder.glob(f"*/{name}"):
                    about = path.stat()
                    if about.st_mtime_ns != self._blank.get(path) and not (path.parent / WRITTEN).exists():
                        with path.open("r+b") as file:
                            file.write(bytes(about.st_size))
                        self._blank[path] = path.stat().st_mtime_ns

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
                _remove(_beside(self.folder, "damaged"))
                if self.folder.exists():
                    self.folder.rename(_beside(self.folder, "erased"))
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
                _remove(_beside(self.folder, "erased"))
                if not _is_sealed(self.folder):
                    _move_aside(self.folder)
                    self.begun_anew = True
                self.folder.mkdir(parents=True, exist_ok=True)
                _sweep(self.folder)
                try:
                    self._client = _embedded(self.folder)
                except KnowledgeError:
                    _move_aside(self.folder)
                    self.begun_anew = True
                    self._client = _embedded(self.folder)
                _seal(self.folder, {})
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


def _files(folder: Path) -> dict[str, list[int]]:
    """Size and time of every file that counts. A collection that Chroma never wrote in full is begun anew by each reading."""
    found: dict[str, list[int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SEAL and (path.parent == folder or (path.parent / WRITTEN).exists()):
            about = path.stat()
            found[path.relative_to(folder).as_posix()] = [about.st_size, about.st_mtime_ns]
    return found


def _is_sealed(folder: Path) -> bool:
    """Whether it is as the last complete change left it, or not there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return True
    try:
        return bool(json.loads((folder / SEAL).read_text(encoding="utf-8")) == _files(folder))
    except (OSError, ValueError):
        return False


def _seal(folder: Path, before: dict[str, list[int]]) -> None:
    files = _files(folder)
    for name, about in files.items():
        if before.get(name) != about:
            sync(folder / name)
    write_whole(folder / SEAL, json.dumps(files))


def _move_aside(folder: Path) -> None:
    _failed.discard(folder)
    aside = _beside(folder, "damaged")
    _remove(aside)
    folder.rename(aside)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}.{what}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove the files of collections that are gone, which Chroma leaves behind."""
    address = f"{(folder / 'chroma.sqlite3').as_uri()}?mode=ro"
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as database:
        kept = {str(row[0]) for row in database.execute("SELECT id FROM segments")}
        for place in folder.iterdir():
            if place.is_dir() and place.name not in kept:
                shutil.rmtree(place)
