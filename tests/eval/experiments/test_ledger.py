"""The ledger gives back exactly what was written, in one version, by one writer."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.errors import EvalError
from eval.experiments.ledger import Ledger
from eval.experiments.ledger_records import REFUSED, Registration
from eval.experiments.ledger_tables import EXAMS, LIVES, NIGHTS, rows_of
from eval.experiments.life import ExamRow, Life, NightRow
from eval.metrics.rows import Attempted
from memory.arms import Arm
from memory.errors import RecordError, StoreError, UnreadableStoreError
from memory.store import Store
from memory.trajectories import Outcome
from tests.eval.experiments.works import MODEL, computed, config, experiment

NOW = datetime(2026, 1, 2, tzinfo=UTC)

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
count = st.integers(0, 2**40)
number = st.floats().map(lambda value: value + 0.0)  # SQLite has no negative zero
amount = st.floats(0, 1e300).map(lambda value: value + 0.0)
attempts = st.builds(
    Attempted,
    task_id=text,
    repo=text,
    kind=text,
    outcome=st.sampled_from(Outcome),
    steps=count,
    seconds=amount,
    useful_seconds=amount,
    useful_calls=count,
    green=st.none() | count,
    signature=text,
    errors=st.lists(text, max_size=3).map(tuple),
    recalled=st.booleans(),
    adapter=text,
    config_hash=text,
)
nights = st.builds(
    NightRow,
    night=st.integers(1, 99),
    block=text,
    dropped=st.dictionaries(text, count, max_size=2),
    seconds=number,
    loss_first=st.none() | number,
    loss_last=st.none() | number,
    losses=st.dictionaries(text, number, max_size=2),
    adapters=st.dictionaries(text, text, max_size=2),
    notes=st.dictionaries(text, number, max_size=2),
    refused=text,
)
lives = st.builds(
    Life,
    digest=st.just(config().digest(MODEL)),
    model=text,
    code=text,
    blocks=st.lists(text, max_size=3).map(tuple),
    learnt=st.dictionaries(text, st.none() | count, max_size=3),
    exams=st.lists(
        st.builds(ExamRow, arm=st.sampled_from(Arm), night=st.integers(0, 9), block=text, attempt=attempts), max_size=3
    ).map(tuple),
    nights=st.lists(nights, max_size=3).map(tuple),
    problems=st.just(("it leaks",)),
    seconds=number,
    load=number,
)


def opened(lab: Path, **changes: Any) -> tuple[Ledger, Registration]:
    """A laboratory in which the cells of an experiment wait."""
    ledger = Ledger(lab)
    planned = experiment(**changes)
    registration = ledger.lock(planned, NOW)
    by_digest: dict[str, list[Any]] = {}
    for cell in planned.cells("pocket"):
        by_digest.setdefault(cell.life.digest(MODEL), []).append(cell)
    ledger.link(registration, "pocket", by_digest)
    return ledger, registration


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(life=lives)
def test_a_life_is_read_back_as_it_was_written(tmp_path: Path, life: Life) -> None:
    with Ledger(tmp_path) as ledger:
        registration = ledger.lock(experiment(), NOW)
        cell = experiment().cells("pocket")[0].model_copy(update={"life": config()})
        ledger.link(registration, "pocket", {life.digest: [cell]})
        ledger.lived(life, registration, NOW)
        found = ledger.life(life.digest)
    assert repr(found) == repr(life)  # which tells NaN from None, and the order of keys


def test_every_field_has_a_column(tmp_path: Path) -> None:
    life = computed(config())
    head, exams, nights = rows_of(life)
    with Ledger(tmp_path) as ledger, ledger.reading() as connection:
        for table, row in ((LIVES, head), (EXAMS, exams[0]), (NIGHTS, nights[0])):
            there = {row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")}
            assert set(row) == there == set(table.c.keys())


def test_a_registration_is_locked_once_and_a_changed_one_is_a_new_version(tmp_path: Path) -> None:
    ledger, first = opened(tmp_path)
    with ledger:
        assert ledger.lock(experiment(), NOW + timedelta(days=1)) == first
        cell = experiment().cells("pocket")[0].life
        ledger.lived(computed(cell), first, NOW)
        second = ledger.lock(experiment(hypothesis="It matters little."), NOW)
        assert (second.version, second.seen) == (2, 1)
        assert ledger.registrations("exp99") == [first, second]
        assert ledger.lock(experiment(), NOW) == first
        record = ledger.cells(first, "pocket")["plain/seed 0"]
        assert (record.registration, record.state) == (first.hash, "lived")


@pytest.mark.parametrize("change", ["UPDATE registrations SET version = 7", "DELETE FROM registrations"])
def test_a_registration_never_changes(tmp_path: Path, change: str) -> None:
    ledger, _ = opened(tmp_path)
    with ledger:
        with pytest.raises(StoreError, match="a registration"), ledger.writing() as connection:
            connection.exec_driver_sql(change)
        with ledger.writing() as connection:
            connection.exec_driver_sql("DROP TRIGGER a_registration_never_changes")
            connection.exec_driver_sql("UPDATE registrations SET text = json_set(text, '$.hypothesis', 'what came out')")
        with pytest.raises(UnreadableStoreError, match="changed after it was locked"):
            ledger.registrations("exp99")


def test_a_life_is_stored_once_and_shared(tmp_path: Path) -> None:
    ledger, first = opened(tmp_path)
    with ledger:
        planned = experiment(id="exp98")
        second = ledger.lock(planned, NOW)
        ledger.link(second, "pocket", {cell.life.digest(MODEL): [cell] for cell in planned.cells("pocket")})
        life = computed(planned.cells("pocket")[0].life)
        ledger.lived(life, first, NOW)
        assert ledger.lives(first, "pocket") == ledger.lives(second, "pocket") == {"plain/seed 0": life}
        assert ledger.cells(second, "pocket")["plain/seed 0"].registration == first.hash
        assert ledger.digests() == {life.digest}
        with pytest.raises(RecordError, match="lived already"):
            ledger.lived(life, first, NOW)


def test_a_life_with_problems_is_kept_counts_for_nothing_and_can_be_lived_again(tmp_path: Path) -> None:
    ledger, registration = opened(tmp_path)
    with ledger:
        good = computed(experiment().cells("pocket")[0].life)
        bad = good.model_copy(update={"problems": ("it leaks", "it lies")})
        ledger.lived(bad, registration, NOW)
        assert ledger.life(bad.digest) == bad
        assert ledger.lives(registration, "pocket") == {}
        assert ledger.failures(registration, "pocket") == {"plain/seed 0": f"{REFUSED}it leaks; it lies"}
        ledger.lived(good, registration, NOW, tries=2)
        assert ledger.lives(registration, "pocket") == {"plain/seed 0": good}
        assert ledger.cells(registration, "pocket")["plain/seed 0"].tries == 3
        ledger.refuse(good.digest, "two shared a folder")
        assert ledger.failures(registration, "pocket") == {"plain/seed 0": f"{REFUSED}two shared a folder"}


def test_two_configurations_never_have_one_digest(tmp_path: Path) -> None:
    ledger, registration = opened(tmp_path)
    with ledger:
        one, other, *_ = experiment().cells("pocket")
        with pytest.raises(RecordError, match="two configurations"):
            ledger.link(registration, "pocket", {one.life.digest(MODEL): [other]})


def test_a_cell_that_became_another_life_is_told(tmp_path: Path) -> None:
    ledger, registration = opened(tmp_path)
    with ledger:
        cells = experiment().cells("pocket")
        assert ledger.link(registration, "pocket", {cells[0].life.digest("another model"): [cells[0]]}) == [cells[0].name]
        assert ledger.link(registration, "pocket", {cells[0].life.digest("another model"): [cells[0]]}) == []


def test_what_checks_found_is_replaced_and_what_else_was_noted_stays(tmp_path: Path) -> None:
    ledger, registration = opened(tmp_path)
    with ledger:
        ledger.note(registration, "pocket", "exploratory", ["more seeds"], NOW)
        ledger.note(registration, "pocket", "check", ["two states of the code"], NOW)
        ledger.note(registration, "pocket", "exploratory", ["more seeds"], NOW)
        ledger.note(registration, "pocket", "check", [], NOW)
        assert [(note.kind, note.text) for note in ledger.notes(registration, "pocket")] == [("exploratory", "more seeds")]
        assert ledger.notes(registration, "full") == []


def test_text_that_is_none_fails_its_own_record_only(tmp_path: Path) -> None:
    ledger, registration = opened(tmp_path)
    with ledger:
        life = computed(experiment().cells("pocket")[0].life).model_copy(update={"code": "\ud800"})
        with pytest.raises(RecordError, match="no proper text"):
            ledger.lived(life, registration, NOW)
        assert ledger.life(life.digest) is None
        ledger.failed(life.digest, "said \ud800", registration, NOW, worker="w", tries=1)
        assert ledger.failures(registration, "pocket") == {"plain/seed 0": "said \\ud800"}


def _hold(lab: Path, opened: Any, end: Any) -> None:
    with Ledger(lab):
        opened.set()
        end.wait(30)


def test_one_process_writes_while_others_read(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="holds no results"):
        Ledger(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()
    context = multiprocessing.get_context("fork")
    held, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, held, end))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(EvalError, match=rf"another runner \(PID {other.pid}\)"):
            Ledger(tmp_path)
        with Ledger(tmp_path, read_only=True) as reader:
            assert reader.digests() == set()
            with pytest.raises(StoreError, match="reading only"), reader.writing():
                pass
    finally:
        end.set()
        other.join()
    Ledger(tmp_path).close()


def test_another_programs_file_stays_as_it_is(tmp_path: Path) -> None:
    Store(tmp_path / "lab.db").close()
    with pytest.raises(StoreError, match="newer version"):
        Ledger(tmp_path)
    Store(tmp_path / "lab.db").close()
    (tmp_path / "lab.db").unlink()
    Ledger(tmp_path).close()
