"""Exams in the store: added once, never changed, gone with the attempt that their owner has forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memory.errors import RecordError
from memory.exams import Exam
from memory.knowledge.forgetting import forget
from memory.migrations import MIGRATIONS
from memory.nights import Night, Verdict
from memory.store import EXAMS, Store
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "AssertionError: hunter2"


def night(name: str, **changes: object) -> Night:
    return Night.model_validate({"id": name, "started_at": NOON, "strategy": "naive", "seed": 1, "config_hash": "c", **changes})


def exam(task: str = "t1", **changes: object) -> Exam:
    fields = {"night_id": "n1", "arm": "live", "experience": "n1", "task_id": task, "fingerprint": "f", "at": NOON}
    return Exam.model_validate({**fields, "body": {"signature": SECRET}, **changes})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as store:
        for name in ("t1", "t2"):
            task = {"id": name, "repo": "r", "issue": "i", "created_at": NOON, "position": 0, "difficulty": "easy"}
            store.add_task(Task.model_validate(task))
            played = Trajectory(id=f"a-{name}", task_id=name, repo="r", prompt="p", model="m", started_at=NOON, config_hash="c")
            store.began(played)
            store.stepped(played, Step(number=0, said="x", observation="y", tool="search"))
            played.outcome = Outcome.RESOLVED
            store.ended(played, settles=True)
        store.open_night(night("n1"))
        yield store


def raw(store: Store, statement: str) -> None:
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute(statement)
        connection.commit()


def test_the_columns_are_the_fields_of_the_type(store: Store) -> None:
    with store.reading() as connection:
        found = connection.exec_driver_sql("SELECT name FROM pragma_table_info('exams')").scalars().all()
    assert found == [column.name for column in EXAMS.columns] == list(Exam.model_fields)


def test_what_was_added_is_read_back_by_night_and_in_order(store: Store) -> None:
    first, second = exam("t2", at=NOON + timedelta(seconds=2)), exam("t1", arm="base", at=NOON + timedelta(seconds=1))
    store.add_exams([first])
    store.add_exams([second])
    store.add_exams([])
    assert store.exams() == store.exams("n1") == [second, first]
    assert store.exams("n2") == []


def test_a_row_is_added_once_and_a_batch_with_one_that_is_there_adds_none(store: Store) -> None:
    store.add_exams([exam("t1")])
    with pytest.raises(RecordError, match="an exam of night n1 is already recorded"):
        store.add_exams([exam("t2"), exam("t1")])
    assert [row.task_id for row in store.exams()] == ["t1"]


def test_rows_are_of_a_night_that_is_there_and_open(store: Store) -> None:
    with pytest.raises(RecordError):
        store.add_exams([exam(night_id="n2")])
    with pytest.raises(RecordError):
        store.add_exams([exam(experience="n2")])
    store.close_night(night("n1", ended_at=NOON, verdict=Verdict(promoted=False, why="no")))
    with pytest.raises(RecordError, match="already closed"):
        store.add_exams([exam()])


@pytest.mark.parametrize("statement", ["UPDATE exams SET body = '{}'", "DELETE FROM exams"])
def test_no_other_program_changes_or_removes_a_row(store: Store, statement: str) -> None:
    store.add_exams([exam()])
    with pytest.raises(sqlite3.IntegrityError, match="what was measured"):
        raw(store, statement)
    assert store.exams() == [exam()]


def test_rows_of_a_task_go_with_its_attempt_and_not_a_byte_stays(store: Store) -> None:
    store.add_exams([exam("t1"), exam("t1", arm="base"), exam("t2", body={"signature": ""})])
    forget(store, "a-t1")
    assert [row.task_id for row in store.exams()] == ["t2"]
    assert store.forgotten_tasks() == {"t1"}
    files = [file.read_bytes() for file in store.path.parent.iterdir()]
    assert not any(b"hunter2" in file for file in files)
    forget(store, "a-t1")


def test_the_migration_is_the_one_after_the_kept_pairs() -> None:
    assert [name for name, _ in MIGRATIONS][4] == "0005_exams"
