"""How the store's file came to be: named changes of its schema, each applied once, in order, never edited.

To change the schema, append a migration. Those above it have already run on somebody's store.
The invariants of a trajectory are triggers and constraints, so that no other program that opens
the file can break them either.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError

from memory.errors import StoreVersionError, UnreadableStoreError

Migration = tuple[str, Callable[[Connection], None]]
"""A name that is never reused, and the change; it runs inside a transaction that the caller holds."""

LEDGER = """
CREATE TABLE IF NOT EXISTS migrations (
    name TEXT PRIMARY KEY NOT NULL,
    applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000+00:00', 'now'))
)
"""


def _first(connection: Connection) -> None:
    for statement in (
        """
        CREATE TABLE tasks (
            number INTEGER PRIMARY KEY,
            id TEXT UNIQUE NOT NULL,
            body TEXT NOT NULL
        )
        """,
        """
        CREATE TABLE trajectories (
            id TEXT PRIMARY KEY NOT NULL,
            task_id TEXT NOT NULL,
            repo TEXT NOT NULL,
            prompt TEXT NOT NULL,
            system TEXT NOT NULL,
            model TEXT NOT NULL,
            adapter TEXT,
            origin TEXT NOT NULL CHECK (origin IN ('agent', 'merged_fix')),
            attempt INTEGER NOT NULL,
            started_at TEXT NOT NULL,
            config_hash TEXT NOT NULL,
            sandbox TEXT NOT NULL,
            outcome TEXT CHECK (
                outcome IN ('resolved', 'unresolved', 'gave_up', 'out_of_budget', 'infrastructure_failure')
            ),
            reason TEXT NOT NULL
        )
        """,
        "CREATE INDEX trajectories_by_start ON trajectories (started_at, id)",
        """
        CREATE TABLE steps (
            trajectory_id TEXT NOT NULL REFERENCES trajectories (id),
            number INTEGER NOT NULL CHECK (number >= 0),
            said TEXT NOT NULL,
            observation TEXT NOT NULL,
            tool TEXT NOT NULL,
            malformed BOOLEAN NOT NULL,
            tests_passed BOOLEAN,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            seconds REAL NOT NULL,
            PRIMARY KEY (trajectory_id, number)
        )
        """,
        """
        CREATE TRIGGER an_attempt_ends_once BEFORE UPDATE ON trajectories WHEN OLD.outcome IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'this attempt has already ended'); END
        """,
        """
        CREATE TRIGGER no_step_after_the_end BEFORE INSERT ON steps
        WHEN (SELECT outcome FROM trajectories WHERE id = NEW.trajectory_id) IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'this attempt has already ended'); END
        """,
        """
        CREATE TRIGGER a_step_never_changes BEFORE UPDATE ON steps
        BEGIN SELECT RAISE(ABORT, 'a recorded step never changes'); END
        """,
        """
        CREATE TABLE nights (
            id TEXT PRIMARY KEY NOT NULL,
            started_at TEXT NOT NULL,
            ended_at TEXT,
            body TEXT NOT NULL
        )
        """,
        """
        CREATE TRIGGER a_night_closes_once BEFORE UPDATE ON nights WHEN OLD.ended_at IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'this night is already closed'); END
        """,
    ):
        connection.exec_driver_sql(statement)


def _life(connection: Connection) -> None:
    for statement in (
        """
        CREATE TABLE task_results (
            task_id TEXT PRIMARY KEY NOT NULL REFERENCES tasks (id),
            trajectory_id TEXT UNIQUE NOT NULL REFERENCES trajectories (id),
            number INTEGER UNIQUE NOT NULL
        )
        """,
        """
        CREATE TRIGGER a_result_needs_an_outcome BEFORE INSERT ON task_results
        WHEN (SELECT outcome FROM trajectories WHERE id = NEW.trajectory_id AND task_id = NEW.task_id) IS NULL
        BEGIN SELECT RAISE(ABORT, 'this attempt has not ended'); END
        """,
        """
        CREATE TRIGGER a_result_never_changes BEFORE UPDATE ON task_results
        BEGIN SELECT RAISE(ABORT, 'the result of a task never changes'); END
        """,
        """
        CREATE TABLE night_steps (
            night_id TEXT NOT NULL REFERENCES nights (id),
            name TEXT NOT NULL,
            number INTEGER NOT NULL,
            ended_at TEXT NOT NULL,
            result TEXT NOT NULL,
            PRIMARY KEY (night_id, name),
            UNIQUE (night_id, number)
        )
        """,
        """
        CREATE TRIGGER a_step_of_a_night_never_changes BEFORE UPDATE ON night_steps
        BEGIN SELECT RAISE(ABORT, 'a finished step never changes'); END
        """,
        """
        CREATE TRIGGER no_step_in_a_closed_night BEFORE INSERT ON night_steps
        WHEN (SELECT ended_at FROM nights WHERE id = NEW.night_id) IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'this night is already closed'); END
        """,
        """
        CREATE TRIGGER one_night_at_a_time BEFORE INSERT ON nights
        WHEN NEW.ended_at IS NULL AND EXISTS (SELECT 1 FROM nights WHERE ended_at IS NULL)
        BEGIN SELECT RAISE(ABORT, 'another night is still open'); END
        """,
        """
        CREATE TABLE notes (
            name TEXT PRIMARY KEY NOT NULL,
            value TEXT NOT NULL
        )
        """,
    ):
        connection.exec_driver_sql(statement)


_SETTLED = (
    *("id", "task_id", "repo", "system", "model", "adapter", "origin", "attempt", "started_at", "config_hash"),
    *("sandbox", "outcome", "reason", "arm", "knowledge", "imported"),
)
"""Columns of an ended attempt that stay as they are while its prompt is cut: all but the prompt."""


def _knowledge(connection: Connection) -> None:
    for statement in (
        "ALTER TABLE trajectories ADD COLUMN arm TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE trajectories ADD COLUMN knowledge TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE trajectories ADD COLUMN imported TEXT NOT NULL DEFAULT ''",
        # An attempt still ends once; but its owner may have what it says removed, and its prompt cut to its own end.
        "DROP TRIGGER an_attempt_ends_once",
        f"""
        CREATE TRIGGER an_attempt_ends_once BEFORE UPDATE ON trajectories
        WHEN OLD.outcome IS NOT NULL AND NOT (
            NEW.id = OLD.id AND NEW.task_id = OLD.task_id AND NEW.outcome = OLD.outcome
            AND NEW.started_at = OLD.started_at AND NEW.prompt = '' AND NEW.reason = 'forgotten'
        ) AND NOT (
            {" AND ".join(f"NEW.{name} IS OLD.{name}" for name in _SETTLED)}
            AND length(CAST(NEW.prompt AS BLOB)) < length(CAST(OLD.prompt AS BLOB))
            AND substr(
                CAST(OLD.prompt AS BLOB), length(CAST(OLD.prompt AS BLOB)) - length(CAST(NEW.prompt AS BLOB)) + 1
            ) = CAST(NEW.prompt AS BLOB)
        )
        BEGIN SELECT RAISE(ABORT, 'this attempt has already ended'); END
        """,
        """
        CREATE TABLE memories (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            space TEXT NOT NULL,
            id TEXT NOT NULL,
            trajectory_id TEXT NOT NULL,
            repo TEXT NOT NULL,
            kind TEXT NOT NULL,
            created_at TEXT NOT NULL,
            body TEXT NOT NULL,
            UNIQUE (space, id)
        )
        """,
        "CREATE INDEX memories_by_trajectory ON memories (trajectory_id)",
        "CREATE INDEX memories_by_repo ON memories (space, repo)",
        # When a memory was active: from one version of the knowledge until before another, or still.
        """
        CREATE TABLE memory_spans (
            memory INTEGER NOT NULL REFERENCES memories (number) ON DELETE CASCADE,
            since INTEGER NOT NULL,
            until INTEGER CHECK (until > since),
            why TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (memory, since)
        )
        """,
        "CREATE UNIQUE INDEX one_open_span ON memory_spans (memory) WHERE until IS NULL",
        """
        CREATE TABLE memory_uses (
            memory INTEGER NOT NULL REFERENCES memories (number) ON DELETE CASCADE,
            trajectory_id TEXT NOT NULL,
            cited BOOLEAN NOT NULL DEFAULT 0,
            PRIMARY KEY (memory, trajectory_id)
        )
        """,
        "CREATE INDEX uses_by_trajectory ON memory_uses (trajectory_id)",
        """
        CREATE TABLE knowledge_versions (
            space TEXT NOT NULL,
            number INTEGER NOT NULL,
            hash TEXT NOT NULL,
            at TEXT NOT NULL,
            why TEXT NOT NULL,
            restored INTEGER CHECK (restored < number),
            PRIMARY KEY (space, number)
        )
        """,
        """
        CREATE TABLE handbooks (
            number INTEGER PRIMARY KEY,
            space TEXT NOT NULL,
            repo TEXT NOT NULL,
            since INTEGER NOT NULL,
            until INTEGER CHECK (until > since),
            body TEXT NOT NULL
        )
        """,
        "CREATE UNIQUE INDEX one_handbook ON handbooks (space, repo) WHERE until IS NULL",
        # Which attempts were made into memories, none included; and which may never be again.
        """
        CREATE TABLE distilled (
            space TEXT NOT NULL,
            trajectory_id TEXT NOT NULL,
            PRIMARY KEY (space, trajectory_id)
        )
        """,
        # The task is named only where it was the attempt's own: an imported session.
        """
        CREATE TABLE forgotten (
            trajectory_id TEXT PRIMARY KEY NOT NULL,
            at TEXT NOT NULL,
            task_id TEXT NOT NULL DEFAULT ''
        )
        """,
        "CREATE INDEX forgotten_by_task ON forgotten (task_id)",
        """
        CREATE TRIGGER a_memory_never_changes BEFORE UPDATE OF space, id, trajectory_id, repo, kind, created_at ON memories
        BEGIN SELECT RAISE(ABORT, 'a memory never changes'); END
        """,
    ):
        connection.exec_driver_sql(statement)
    make_words(connection)


def _kept_pairs(connection: Connection) -> None:
    # Pairs that a synthesiser made of an attempt. `told` is what of it they were made of, `failed` the other attempts that
    # they tell of (a list in JSON): forgetting any of them removes the pairs.
    connection.exec_driver_sql(
        """
        CREATE TABLE kept_pairs (
            synthesiser TEXT NOT NULL,
            trajectory_id TEXT NOT NULL,
            format TEXT NOT NULL,
            budget INTEGER NOT NULL,
            told TEXT NOT NULL,
            failed TEXT NOT NULL CHECK (json_valid(failed)),
            body TEXT NOT NULL CHECK (json_valid(body)),
            PRIMARY KEY (synthesiser, trajectory_id, format, budget)
        )
        """
    )
    connection.exec_driver_sql("CREATE INDEX kept_pairs_by_trajectory ON kept_pairs (trajectory_id)")


def _exams(connection: Connection) -> None:
    # What was measured at the end of nights (see `memory.exams.Exam`). Rows are only added; those of a task whose attempt
    # its owner has forgotten go with it.
    for statement in (
        """
        CREATE TABLE exams (
            night_id TEXT NOT NULL REFERENCES nights (id),
            arm TEXT NOT NULL CHECK (arm IN ('live', 'base', 'frozen', 'day')),
            experience TEXT NOT NULL REFERENCES nights (id),
            task_id TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            at TEXT NOT NULL,
            body TEXT NOT NULL CHECK (json_valid(body)),
            PRIMARY KEY (night_id, arm, task_id)
        )
        """,
        "CREATE INDEX exams_by_task ON exams (task_id)",
        """
        CREATE TRIGGER an_exam_never_changes BEFORE UPDATE ON exams
        BEGIN SELECT RAISE(ABORT, 'what was measured never changes'); END
        """,
        """
        CREATE TRIGGER no_exam_in_a_closed_night BEFORE INSERT ON exams
        WHEN (SELECT ended_at FROM nights WHERE id = NEW.night_id) IS NOT NULL
        BEGIN SELECT RAISE(ABORT, 'this night is already closed'); END
        """,
        """
        CREATE TRIGGER an_exam_goes_with_its_attempt AFTER INSERT ON forgotten
        BEGIN DELETE FROM exams WHERE task_id = (SELECT task_id FROM trajectories WHERE id = NEW.trajectory_id); END
        """,
        """
        CREATE TRIGGER an_exam_stays BEFORE DELETE ON exams
        WHEN NOT EXISTS (
            SELECT 1 FROM forgotten JOIN trajectories ON trajectories.id = forgotten.trajectory_id
            WHERE trajectories.task_id = OLD.task_id
        )
        BEGIN SELECT RAISE(ABORT, 'what was measured stays'); END
        """,
    ):
        connection.exec_driver_sql(statement)


def make_words(connection: Connection) -> None:
    """Make the table of the words of memories, empty, in place of one that may be damaged."""
    define = """CREATE VIRTUAL TABLE {} USING fts5(place, words, tokenize="unicode61 remove_diacritics 0 tokenchars '_.'")"""
    try:
        connection.exec_driver_sql("DROP TABLE IF EXISTS memory_words")
    except DatabaseError:  # FTS5 drops only what it can open: have its own tables look as new
        connection.exec_driver_sql(define.format("memory_words_anew"))
        for part in ("data", "idx", "content", "docsize", "config"):  # https://sqlite.org/fts5.html#fts5_data_structures
            connection.exec_driver_sql(f"DELETE FROM memory_words_{part}")
            connection.exec_driver_sql(f"INSERT INTO memory_words_{part} SELECT * FROM memory_words_anew_{part}")
        connection.exec_driver_sql("DROP TABLE memory_words_anew")
        connection.exec_driver_sql("DROP TABLE memory_words")
    connection.exec_driver_sql(define.format("memory_words"))


MIGRATIONS: tuple[Migration, ...] = (
    ("0001_tasks_trajectories_nights", _first),
    ("0002_results_journal_notes", _life),
    ("0003_knowledge", _knowledge),
    ("0004_kept_pairs", _kept_pairs),
    ("0005_exams", _exams),
)


def pending(connection: Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> list[str]:
    """Names of the migrations that the store at `path` still lacks, oldest first.

    Raises `UnreadableStoreError` for another program's database and `StoreVersionError` for a store
    that knows a migration this version does not.
    """
    rows = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = set(rows.scalars())
    if "migrations" not in tables:
        if tables:
            raise UnreadableStoreError(f"{path} is another program's database, not a store; choose another path for the store")
        return [name for name, _ in migrations]
    recorded = set(connection.exec_driver_sql("SELECT name FROM migrations").scalars())
    if unknown := recorded - {name for name, _ in migrations}:
        raise StoreVersionError(
            f"{path} was written by a newer version (it has {', '.join(sorted(unknown))}); upgrade this program"
        )
    return [name for name, _ in migrations if name not in recorded]


def migrate(engine: Engine, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> list[str]:
    """Apply what is pending, each migration in one transaction together with its entry in the ledger.

    Returns the names applied. The engine's transactions must take the write lock at their start:
    what is pending is asked again under that lock, so that two processes never apply one twice.
    """
    done = []
    for name, apply in migrations:
        with engine.begin() as connection:
            if name in pending(connection, path, migrations):
                connection.exec_driver_sql(LEDGER)
                apply(connection)
                connection.exec_driver_sql("INSERT INTO migrations (name) VALUES (?)", (name,))
                done.append(name)
    return done


def log_ahead(engine: Engine, busy_seconds: float) -> None:
    """Give the file a write-ahead log, which it keeps: readers then never wait for the writer, nor it for them."""
    patience = time.monotonic() + busy_seconds
    with closing(engine.raw_connection()) as connection:
        while True:
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                # Two that open a new file can refuse each other at once, without SQLite's own waiting.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                    raise
                time.sleep(0.01)
