"""The one exception tree of the store, and how SQLite's errors become part of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOVE_AWAY = "move it away and start again with a new store; trajectories can be taken from an exported JSONL file"
ADVICE = {
    sqlite3.SQLITE_BUSY: "another process is writing to it; stop that process, or try again",
    sqlite3.SQLITE_FULL: "the disk is full; free some space",
    sqlite3.SQLITE_IOERR: "check that the disk is there and has space",
    sqlite3.SQLITE_READONLY: "check the permissions of the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "check that it is a file, and that its folder exists and can be written to",
}


class StoreError(Exception):
    """The store could not do what was asked; the text says why, and what to do next."""


class UnreadableStoreError(StoreError):
    """The file is damaged, or it is no store at all."""


class StoreVersionError(StoreError):
    """The file was written by a newer version, or must be upgraded before it can be read."""


class RecordError(StoreError):
    """A record contradicts what is already remembered, or is not there; nothing was changed."""


class KnowledgeError(StoreError):
    """The knowledge layer's index or embedder could not do what was asked; the memories themselves are in the store."""


@contextmanager
def translated(path: Path, what: str = "the record") -> Iterator[None]:
    """SQLite's errors, and records that do not validate, leave this block as the store's own errors.

    `path` is the store's file; `what` names the record that is being written.
    """
    from pydantic import ValidationError
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except ValidationError as error:
        raise UnreadableStoreError(f"{path} holds a damaged record ({error}); {MOVE_AWAY}") from error
    except UnicodeEncodeError as error:
        raise RecordError(f"{what} does not fit the store: it is no proper text ({error.reason}); correct it") from error
    except (DBAPIError, sqlite3.Error) as error:
        raise _own(error.orig if isinstance(error, DBAPIError) else error, path, what) from error


def _own(error: BaseException | None, path: Path, what: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0)  # what Python's driver finds wrong by itself has no code
    if code in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
        return RecordError(f"{what} is already recorded; give a new one its own id or number")
    kind = code & 0xFF  # the low byte is the kind of error, the rest its details (https://sqlite.org/rescode.html)
    if kind == sqlite3.SQLITE_CONSTRAINT:
        return RecordError(f"{what} does not fit the store ({error}); correct it")
    if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return UnreadableStoreError(f"{path} cannot be read as a store ({error}); {MOVE_AWAY}")
    return StoreError(f"{path} could not be used ({error}); {ADVICE.get(kind, 'if that stays, keep the file and report it')}")
