"""Pairs that a model made: kept once for each attempt, and forgotten with every attempt that they tell of."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, event

from memory.errors import RecordError
from memory.knowledge.forgetting import forget
from memory.migrations import MIGRATIONS, migrate
from memory.store import KEPT, Store
from memory.trajectories import Outcome, Step, Trajectory

SECRET = "a wording found nowhere else"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as store:
        for name in ("right", "wrong", "other"):
            head = {"id": name, "task_id": "t", "repo": "r", "prompt": "p", "model": "m", "config_hash": "c"}
            whole = Trajectory.model_validate(head | {"started_at": datetime.now(UTC)})
            store.began(whole)
            store.stepped(whole, Step(number=0, said="submit", observation="", tool="submit"))
            store.ended(whole.model_copy(update={"outcome": Outcome.RESOLVED if name == "right" else Outcome.UNRESOLVED}))
        yield store


def test_what_was_kept_is_found_by_all_that_it_depends_on_and_replaced(store: Store, path: Path) -> None:
    store.keep_pairs("claude", "right", "A", 5, "digest", [], '["one"]')
    for key in (
        ("self", "right", "A", 5),
        ("claude", "other", "A", 5),
        ("claude", "right", "B", 5),
        ("claude", "right", "A", 3),
    ):
        assert store.kept_pairs(*key, "digest") is None
    assert store.kept_pairs("claude", "right", "A", 5, "of another content") is None
    with Store(path, read_only=True) as later:
        assert later.kept_pairs("claude", "right", "A", 5, "digest") == '["one"]'
    store.keep_pairs("claude", "right", "A", 5, "new", [], "[]")
    assert store.kept_pairs("claude", "right", "A", 5, "digest") is None
    assert store.kept_pairs("claude", "right", "A", 5, "new") == "[]"


@pytest.mark.parametrize(("gone", "left"), [("right", [False, False, True]), ("wrong", [True, False, True])])
def test_pairs_go_with_their_attempt_and_with_each_failure_that_they_tell_of(
    store: Store, path: Path, gone: str, left: list[bool]
) -> None:
    store.keep_pairs("claude", "right", "A", 5, "d", [], f'["{SECRET if gone == "right" else "x"}"]')
    store.keep_pairs("claude", "right", "D", 5, "d", ["other", "wrong"], f'["{SECRET}"]')
    store.keep_pairs("claude", "other", "A", 5, "d", [], '["y"]')
    forget(store, gone)
    found = [store.kept_pairs("claude", who, how, 5, "d") for who, how in (("right", "A"), ("right", "D"), ("other", "A"))]
    assert [one is not None for one in found] == left
    files = [file.read_bytes() for file in path.parent.iterdir()]
    assert not any(SECRET.encode() in file for file in files), "not a byte of it stays in the file"
    with pytest.raises(RecordError, match=f"attempt {gone} was forgotten"):
        store.keep_pairs("claude", "right", "D", 5, "d", ["wrong"], "[]")


def test_a_store_of_the_version_before_gains_the_table_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    before = [one for one in MIGRATIONS if one[0] < "0004"]
    assert migrate(engine, path, before) == [name for name, _ in before]
    engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO notes VALUES ('kept', 'yes')")
        connection.commit()
    with Store(path) as store:
        assert store.note("kept") == "yes"
        store.keep_pairs("claude", "a", "A", 5, "d", [], "[]")
        with store.reading() as connection:
            assert connection.exec_driver_sql("SELECT name FROM pragma_table_info('kept_pairs')").scalars().all() == [
                column.name for column in KEPT.columns
            ]
