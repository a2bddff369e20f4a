from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError

from memory.errors import StoreError, StoreVersionError
from memory.knowledge.tables import DISTILLED, HANDBOOKS, MEMORIES, SPANS, USES, VERSIONS
from memory.migrations import MIGRATIONS, Migration, migrate, pending
from memory.store import FORGOTTEN, NIGHT_STEPS, NIGHTS, NOTES, RESULTS, STEPS, TASKS, TRAJECTORIES, Store
from memory.tasks import Task
from memory.trajectories import Trajectory

NAMES = [name for name, _ in MIGRATIONS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """An engine that leaves transactions to us and takes the write lock at their start, as the store's does."""
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    yield engine
    engine.dispose()


def ask(path: Path, question: str) -> list[object]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(question)]


def add_owls(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE owls (name TEXT)")


def add_owls_and_break(connection: Connection) -> None:
    add_owls(connection)
    connection.exec_driver_sql("INSERT INTO owls VALUES ('Strix')")
    connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")


OWLS: Migration = ("9001_owls", add_owls)


def test_a_new_store_has_every_migration_in_its_ledger(path: Path) -> None:
    Store(path).close()
    assert ask(path, "SELECT name FROM migrations ORDER BY rowid") == NAMES
    assert ask(path, "PRAGMA journal_mode") == ["wal"]
    first = ask(path, "SELECT applied_at FROM migrations")
    Store(path).close()
    assert ask(path, "SELECT applied_at FROM migrations") == first


def test_names_are_unique_and_in_order() -> None:
    assert sorted(set(NAMES)) == NAMES


def test_the_schema_has_a_column_for_every_field(path: Path) -> None:
    Store(path).close()
    knowledge = (MEMORIES, SPANS, USES, VERSIONS, HANDBOOKS, DISTILLED, FORGOTTEN)
    for table in (TASKS, TRAJECTORIES, STEPS, NIGHTS, RESULTS, NIGHT_STEPS, NOTES, *knowledge):
        assert ask(path, f"SELECT name FROM pragma_table_info('{table.name}')") == [column.name for column in table.columns]


def test_an_older_store_is_brought_up_to_date_and_keeps_what_it_has(path: Path, engine: Engine, task: Task) -> None:
    with Store(path) as store:
        store.add_task(task)
    assert migrate(engine, path, (*MIGRATIONS, OWLS)) == ["9001_owls"]
    assert migrate(engine, path, (*MIGRATIONS, OWLS)) == []
    assert ask(path, "SELECT name FROM migrations ORDER BY rowid") == [*NAMES, "9001_owls"]
    assert ask(path, "SELECT id FROM tasks") == [task.id]


@pytest.fixture
def task() -> Task:
    return Task.model_validate(
        {"id": "t", "repo": "r", "issue": "i", "created_at": "2026-03-01T12:00:00Z", "position": 0, "difficulty": "easy"}
    )


@pytest.mark.parametrize("read_only", [False, True])
def test_a_store_of_a_newer_version_is_refused_and_left_alone(path: Path, engine: Engine, read_only: bool) -> None:
    Store(path).close()
    migrate(engine, path, (*MIGRATIONS, OWLS))
    engine.dispose()
    before = path.read_bytes()
    with pytest.raises(StoreVersionError, match=r"store\.db was written by a newer version .*9001_owls.*upgrade"):
        Store(path, read_only)
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_no_trace(path: Path, engine: Engine) -> None:
    broken: Migration = ("9002_broken", add_owls_and_break)
    with pytest.raises(OperationalError, match="nowhere"):
        migrate(engine, path, (*MIGRATIONS, broken))
    assert ask(path, "SELECT name FROM migrations ORDER BY rowid") == NAMES
    assert ask(path, "SELECT name FROM sqlite_master WHERE name = 'owls'") == []
    Store(path).close()


def test_an_empty_file_becomes_a_store_but_only_by_writing(path: Path, engine: Engine) -> None:
    path.touch()
    with pytest.raises(StoreVersionError, match="empty or of an older version"):
        Store(path, read_only=True)
    assert path.stat().st_size == 0
    with engine.begin() as connection:
        assert pending(connection, path) == NAMES
    Store(path).close()
    with engine.begin() as connection:
        assert pending(connection, path) == []
    Store(path, read_only=True).close()


@pytest.mark.parametrize(
    ("change", "allowed"),
    [
        ("prompt = 'ssue'", True),
        ("prompt = ''", True),
        ("prompt = 'notes'", False),
        ("prompt = 'notes, issue'", False),
        ("prompt = 'more notes, issue'", False),
        ("prompt = 'issue', reason = 'x'", False),
        ("prompt = 'issue', adapter = 'x'", False),
        ("prompt = 'issue', imported = 'x'", False),
    ],
)
def test_the_prompt_of_an_ended_attempt_may_only_be_cut_to_its_own_end(path: Path, change: str, allowed: bool) -> None:
    head = {"id": "a", "task_id": "t", "repo": "r", "prompt": "notes, issue", "model": "m", "config_hash": "c"}
    with Store(path) as store:
        whole = Trajectory.model_validate(head | {"started_at": "2026-03-01T12:00:00Z", "outcome": "resolved"})
        store.began(whole)
        store.ended(whole)
        with nullcontext() if allowed else pytest.raises(StoreError, match="already ended"), store.writing() as connection:
            connection.exec_driver_sql(f"UPDATE trajectories SET {change}")


def test_many_may_open_a_new_store_at_once(path: Path) -> None:
    everybody, failures = threading.Barrier(8), []

    def open_it() -> None:
        everybody.wait()
        try:
            Store(path).close()
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert ask(path, "SELECT name FROM migrations ORDER BY rowid") == NAMES
