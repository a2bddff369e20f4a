"""The SQLite file below the store: opened, brought up to date, read and written in whole transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import QueuePool

from memory.errors import StoreError, StoreVersionError, translated
from memory.migrations import log_ahead, migrate, pending

PRAGMAS = ("PRAGMA synchronous = NORMAL", "PRAGMA foreign_keys = ON")


class Database:
    """One SQLite file with the store's tables; made, or brought up to date, on opening.

    It may be used from many threads; a child process opens its own. `read_only` opens an existing
    file and never changes it, also while another process writes to it. A writer waits up to
    `busy_seconds` for another process's transaction. Every method may raise `StoreError`.
    """

    def __init__(self, path: Path, read_only: bool = False, *, busy_seconds: float = 10.0) -> None:
        self.path = path
        self.read_only = read_only
        self._busy_seconds = busy_seconds
        self._closed = False
        self._one_writer = threading.Lock()
        if read_only and not path.is_file():
            raise StoreError(f"there is no store at {path}; check the path, or start the daemon once to make one")
        self._reader = create_engine("sqlite://", creator=self._connect, poolclass=QueuePool, max_overflow=-1)
        self._writer = self._reader.execution_options(write=True)
        event.listen(self._reader, "begin", _begin)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection; closing twice is harmless."""
        self._closed = True
        self._reader.dispose()

    def check(self) -> str:
        """What SQLite finds wrong with the file (PRAGMA integrity_check); nothing if it is sound."""
        with self.reading() as connection:
            found = list(connection.exec_driver_sql("PRAGMA integrity_check(5)").scalars())
        return "" if found == ["ok"] else "; ".join(map(str, found))

    def scrub(self) -> bool:
        """Write the file anew, so that no byte of what was deleted lingers in it; needs as much room again meanwhile.

        Returns whether its log is empty too; while another process is reading, it is emptied later.
        """
        with translated(self.path), self._one_writer, closing(self._writer.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute("VACUUM")
            busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        return not busy

    def _connect(self) -> sqlite3.Connection:
        if self._closed:
            raise StoreError(f"{self.path} is closed; open it again")
        # With isolation_level None the driver leaves transactions alone, so that `_begin` decides about them.
        mode = "rwc"
        if self.read_only:  # where nothing can be written there is no log, and SQLite must be told so
            mode = "ro" if os.access(self.path.parent, os.W_OK) or self._has_log() else "ro&immutable=1"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(uri, uri=True, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            for pragma in PRAGMAS:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _has_log(self) -> bool:
        """Whether changes lie beside the file that are not in it yet."""
        log = self.path.with_name(f"{self.path.name}-wal")
        return log.is_file() and log.stat().st_size > 0

    def _prepare(self) -> None:
        # What is in the file is looked at first, so that another program's database stays untouched.
        with self.reading() as connection:
            lacking = pending(connection, self.path)
        if self.read_only and lacking:
            raise StoreVersionError(
                f"{self.path} is empty or of an older version; start the daemon once to bring it up to date"
            )
        if not self.read_only:
            with translated(self.path):
                log_ahead(self._writer, self._busy_seconds)
                migrate(self._writer, self.path)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the store."""
        with translated(self.path), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, what: str = "the record") -> Iterator[Connection]:
        """A transaction that holds the write lock from its start; `what` is named when a constraint refuses it."""
        if self.read_only:
            raise StoreError(f"{self.path} was opened for reading only; open it for writing")
        # Threads queue here: SQLite's own waiting is polling, and unfair.
        with translated(self.path, what), self._one_writer, self._writer.begin() as connection:
            yield connection


def _begin(connection: Connection) -> None:
    # A writer takes the lock at once: a transaction that reads first and writes later could be refused in the middle.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("write") else "BEGIN")
