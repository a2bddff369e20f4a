from __future__ import annotations

import hashlib
import inspect
import json
import math
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, event

import memory
from agent.loop import Recorder
from memory.errors import RecordError, StoreError, StoreVersionError, UnreadableStoreError
from memory.migrations import MIGRATIONS, migrate
from memory.nights import Night, Verdict
from memory.store import Store
from memory.tasks import MergedFix, Task, TaskSecret
from memory.trajectories import Outcome, Step, Trajectory

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AWKWARD = "a\nb\r\n\u2028 \x00 ünï 🦉 'quoted' \"twice\" %s :name ?"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a folder ?#%" / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    path.parent.mkdir()
    with Store(path) as store:
        yield store


def attempt(name: str = "t1", **changes: object) -> Trajectory:
    fields = {"task_id": "task", "repo": "shop", "prompt": "fix it", "model": "m", "started_at": NOON, "config_hash": "c"}
    return Trajectory.model_validate({"id": name, **fields, **changes})


def step(number: int = 0, **changes: object) -> Step:
    return Step.model_validate({"number": number, "said": f"turn {number}", "observation": "seen", "tool": "search", **changes})


def task(name: str = "task", **changes: object) -> Task:
    fields = {"repo": "shop", "issue": "it is wrong", "created_at": NOON, "position": 0, "difficulty": "<15 min fix"}
    return Task.model_validate({"id": name, **fields, **changes})


def night(name: str = "n1", **changes: object) -> Night:
    return Night.model_validate({"id": name, "started_at": NOON, "strategy": "naive", "seed": 1, "config_hash": "c", **changes})


def play(store: Store, trajectory: Trajectory, outcome: Outcome | None = Outcome.RESOLVED, steps: int = 1) -> Trajectory:
    """A whole attempt as the loop would record it; with no outcome it is still going on."""
    store.began(trajectory)
    for number in range(steps):
        trajectory.steps.append(step(number))
        store.stepped(trajectory, trajectory.steps[-1])
    if outcome is not None:
        trajectory.outcome = outcome
        store.ended(trajectory)
    return trajectory


def settle(store: Store, trajectory: Trajectory, outcome: Outcome = Outcome.RESOLVED) -> Trajectory:
    """A whole attempt that decides its task."""
    play(store, trajectory, outcome=None)
    trajectory.outcome = outcome
    store.ended(trajectory, settles=True)
    return trajectory


def ids(trajectories: list[Trajectory]) -> list[str]:
    return [trajectory.id for trajectory in trajectories]


def in_child(script: str, path: Path) -> subprocess.Popen[str]:
    """A process of its own that runs `script` with the store's path as its argument."""
    root = Path(memory.__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", script, str(path)], cwd=root, stdout=subprocess.PIPE, text=True)


def test_what_was_recorded_is_what_is_read_back(store: Store) -> None:
    told = attempt(prompt=AWKWARD, system=AWKWARD, adapter="a1", origin="merged_fix", attempt=3, sandbox="bwrap")
    store.began(told)
    told.steps = [
        step(0, said=AWKWARD, observation=AWKWARD, tests_passed=False, prompt_tokens=7, completion_tokens=8, seconds=0.25),
        step(1, tool="malformed", malformed=True),
        step(2, tests_passed=True),
    ]
    for one in told.steps:
        store.stepped(told, one)
    told.outcome, told.reason = Outcome.UNRESOLVED, AWKWARD
    store.ended(told)
    assert store.trajectory("t1") == told
    assert store.trajectories() == [told]


def test_an_attempt_that_is_already_over_can_be_recorded_call_by_call(store: Store) -> None:
    told = attempt(steps=[step(0), step(1)], outcome=Outcome.RESOLVED, reason="the tests passed")
    store.began(told)
    assert store.trajectory("t1") == attempt()
    for one in told.steps:
        store.stepped(told, one)
    store.ended(told)
    assert store.trajectory("t1") == told


def test_the_loop_may_use_it_as_its_recorder() -> None:
    for name in ("began", "stepped", "ended"):
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Store, Recorder))
        assert {key: ours[key] for key in theirs} == theirs
        assert all(ours[key].default is not inspect.Parameter.empty for key in ours.keys() - theirs.keys())


def test_a_step_can_be_seen_by_others_the_moment_it_was_recorded(store: Store, path: Path) -> None:
    told = play(store, attempt(), outcome=None, steps=0)
    with Store(path, read_only=True) as other:
        assert other.trajectory("t1").steps == []
        store.stepped(told, step(0))
        assert other.trajectory("t1").steps == [step(0)]
        assert other.trajectory("t1").outcome is None


def test_what_was_recorded_survives_kill_9(path: Path) -> None:
    path.parent.mkdir()
    script = """
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from memory.store import Store
from memory.trajectories import Step, Trajectory

store = Store(Path(sys.argv[1]))
told = Trajectory(id="t1", task_id="x", repo="r", prompt="p", model="m", started_at=datetime.now(UTC), config_hash="c")
store.began(told)
for number in count():
    store.stepped(told, Step(number=number, said="s" * 3000, observation="", tool="search"))
    print(number, flush=True)
"""
    child = in_child(script, path)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(30)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout.read().split()]
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    before = path.read_bytes()
    with Store(path, read_only=True) as store:
        assert len(store.trajectory("t1").steps) >= len(acknowledged)
        assert store.trajectory("t1").outcome is None
    assert path.read_bytes() == before, "a reader must not take over what the killed process left"
    with Store(path) as store:
        play(store, attempt("t0"))
        assert store.interrupted() == 1
        closed = store.trajectory("t1")
        assert (closed.outcome, closed.reason) == (Outcome.INFRASTRUCTURE_FAILURE, "interrupted")
        assert [one.number for one in closed.steps][: len(acknowledged)] == acknowledged
        assert store.trajectory("t0").outcome is Outcome.RESOLVED
        assert store.interrupted() == 0


@pytest.mark.parametrize("again", list(Outcome))
def test_an_attempt_ends_once(store: Store, again: Outcome) -> None:
    told = play(store, attempt(), Outcome.UNRESOLVED)
    told.outcome, told.reason = again, "second thoughts"
    with pytest.raises(RecordError, match="t1 has already ended"):
        store.ended(told)
    assert store.trajectory("t1").outcome is Outcome.UNRESOLVED
    assert store.trajectory("t1").reason == ""


def test_an_interrupted_attempt_cannot_go_on(store: Store) -> None:
    told = play(store, attempt(), outcome=None)
    assert store.interrupted() == 1
    told.outcome = Outcome.RESOLVED
    with pytest.raises(RecordError, match="already ended"):
        store.ended(told)
    with pytest.raises(RecordError, match="already ended"):
        store.stepped(told, step(1))


def test_a_tasks_place_in_its_stream_may_move(store: Store) -> None:
    task = Task(id="moving", repo="r", issue="i", created_at=datetime(2026, 1, 1, tzinfo=UTC), position=3, difficulty="d")
    store.add_tasks([task])
    store.add_tasks([task.model_copy(update={"position": task.position + 5})])
    with pytest.raises(RecordError, match="other content"):
        store.add_tasks([task.model_copy(update={"issue": "another"})])


def test_records_that_contradict_are_refused_and_change_nothing(store: Store) -> None:
    told = play(store, attempt(), outcome=None)
    with pytest.raises(RecordError, match="t1 has no outcome"):
        store.ended(told)
    with pytest.raises(RecordError, match="attempt t1 is already recorded"):
        store.began(attempt(repo="other"))
    with pytest.raises(RecordError, match="step 0 of attempt t1 is already recorded"):
        store.stepped(told, step(0, said="something else"))
    with pytest.raises(RecordError, match="does not fit"):
        store.stepped(told, step(1, seconds=math.nan))
    with pytest.raises(RecordError, match="t2 never began"):
        store.stepped(attempt("t2"), step(0))
    with pytest.raises(RecordError, match="t2 never began"):
        store.ended(attempt("t2", outcome=Outcome.RESOLVED))
    with pytest.raises(RecordError, match="no trajectory t2"):
        store.trajectory("t2")
    assert store.trajectories() == [told]
    play(store, attempt("t3"), Outcome.GAVE_UP)
    with pytest.raises(RecordError, match="t3 has already ended"):
        store.stepped(attempt("t3"), step(1))
    assert len(store.trajectory("t3").steps) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trajectories SET outcome = 'unresolved' WHERE id = 'over'",
        "UPDATE trajectories SET outcome = NULL WHERE id = 'over'",
        "UPDATE trajectories SET outcome = 'splendid' WHERE id = 'going'",
        "INSERT INTO steps SELECT trajectory_id, 9, said, '', '', 0, NULL, 0, 0, 0 FROM steps WHERE trajectory_id = 'over'",
        "INSERT INTO steps SELECT 'going', 0, said, '', '', 0, NULL, 0, 0, 0 FROM steps WHERE trajectory_id = 'over'",
        "INSERT INTO steps SELECT 'nobody', 0, said, '', '', 0, NULL, 0, 0, 0 FROM steps WHERE trajectory_id = 'over'",
        "UPDATE steps SET said = 'never' WHERE trajectory_id = 'going'",
        "DELETE FROM trajectories WHERE id = 'over'",
        "UPDATE nights SET ended_at = '2030' WHERE id = 'closed'",
        "INSERT INTO tasks (id, body) VALUES ('task', '{}')",
        "INSERT INTO task_results VALUES ('second', 'going', 1)",
        "INSERT INTO task_results VALUES ('second', 'other', 1)",
        "INSERT INTO task_results VALUES ('second', 'nobody', 1)",
        "INSERT INTO task_results VALUES ('unknown', 'over', 1)",
        "INSERT INTO task_results VALUES ('task', 'other', 1)",
        "INSERT INTO task_results VALUES ('task', 'other', 0)",
        "UPDATE task_results SET trajectory_id = 'other'",
        "UPDATE task_results SET number = 7",
        "INSERT INTO nights VALUES ('n2', '2026', NULL, '{}')",
        "INSERT INTO night_steps VALUES ('open', 'pairs', 1, '2026', '{}')",
        "INSERT INTO night_steps VALUES ('open', 'guards', 0, '2026', '{}')",
        "INSERT INTO night_steps VALUES ('closed', 'guards', 1, '2026', '{}')",
        "INSERT INTO night_steps VALUES ('nowhere', 'pairs', 0, '2026', '{}')",
        "UPDATE night_steps SET result = '{}'",
    ],
)
def test_the_database_itself_refuses_what_the_store_refuses(store: Store, path: Path, statement: str) -> None:
    store.add_task(task())
    store.add_task(task("second"))
    settle(store, attempt("over"))
    play(store, attempt("other"))
    play(store, attempt("going", task_id="second"), outcome=None)
    store.open_night(night("closed"))
    store.close_night(night("closed", ended_at=NOON))
    store.open_night(night("open"))
    store.record_step("open", "pairs", {"pairs": 3})
    with closing(sqlite3.connect(path)) as stranger:
        stranger.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError):
            stranger.execute(statement)


def test_threads_lose_and_mix_up_nothing(store: Store, path: Path) -> None:
    everybody, failures = threading.Barrier(6), []

    def work(name: str, into: Store) -> None:
        try:
            everybody.wait()
            for number in range(5):
                play(into, attempt(f"{name}-{number}"), steps=6)
                into.outcomes()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's own thread
            failures.append(error)

    with Store(path) as second:
        threads = [threading.Thread(target=work, args=(f"w{n}", (store, second)[n % 2])) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    told = store.trajectories()
    assert len(told) == 30
    assert all(one.steps == [step(number) for number in range(6)] for one in told)
    assert store.outcomes()[Outcome.RESOLVED] == 30


def test_of_many_threads_that_end_an_attempt_one_wins(store: Store) -> None:
    play(store, attempt(), outcome=None)
    everybody, won, refused = threading.Barrier(8), [], []

    def end(outcome: Outcome) -> None:
        everybody.wait()
        try:
            store.ended(attempt(outcome=outcome))
            won.append(outcome)
        except RecordError:
            refused.append(outcome)

    threads = [threading.Thread(target=end, args=(list(Outcome)[n % len(Outcome)],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
    assert store.trajectory("t1").outcome is won[0]


def test_a_reason_that_is_no_proper_text_still_ends_the_attempt(store: Store) -> None:
    told = play(store, attempt(), outcome=None)
    told.outcome, told.reason = Outcome.INFRASTRUCTURE_FAILURE, "no such file: caf\udce9"
    store.ended(told)
    assert store.trajectory("t1").reason == "no such file: caf\\udce9"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["a", "b", "c", "d"]),
        ({"repo": "shop"}, ["a", "c"]),
        ({"outcome": Outcome.RESOLVED}, ["a", "b"]),
        ({"origin": "merged_fix"}, ["b"]),
        ({"adapter": "a1"}, ["c"]),
        ({"adapter": ""}, ["a", "b", "d"]),
        ({"since": NOON + timedelta(seconds=1)}, ["b", "c", "d"]),
        ({"since": NOON + timedelta(seconds=1, microseconds=1)}, ["c", "d"]),
        ({"since": (NOON + timedelta(seconds=3)).astimezone(timezone(timedelta(hours=-7)))}, ["d"]),
        ({"repo": "shop", "outcome": Outcome.UNRESOLVED}, ["c"]),
        ({"repo": "nowhere"}, []),
    ],
)
def test_trajectories_are_found_by_what_they_are(store: Store, wanted: dict[str, object], found: list[str]) -> None:
    east = timezone(timedelta(hours=9))
    play(store, attempt("d", repo="bank", started_at=(NOON + timedelta(seconds=3)).astimezone(east)), outcome=None)
    play(store, attempt("c", adapter="a1", started_at=NOON + timedelta(seconds=1.5)), Outcome.UNRESOLVED)
    play(store, attempt("b", repo="bank", origin="merged_fix", started_at=NOON + timedelta(seconds=1)))
    play(store, attempt("a"))
    assert ids(store.trajectories(**wanted)) == found  # type: ignore[arg-type]


def test_more_trajectories_than_are_read_at_a_time(store: Store) -> None:
    names = [f"t{number:04}" for number in range(503)]
    for name in names:
        play(store, attempt(name), outcome=None)
    told = store.trajectories()
    assert ids(told) == names
    assert all(one.steps == [step(0)] for one in told)


def test_outcomes_counts_every_ended_attempt_once(store: Store) -> None:
    assert store.outcomes() == dict.fromkeys(Outcome, 0)
    for number, outcome in enumerate([Outcome.RESOLVED, Outcome.RESOLVED, Outcome.GAVE_UP, None]):
        play(store, attempt(f"t{number}"), outcome, steps=2)
    assert store.outcomes() == {**dict.fromkeys(Outcome, 0), Outcome.RESOLVED: 2, Outcome.GAVE_UP: 1}


def test_times_without_a_zone_are_refused(store: Store) -> None:
    naive = NOON.replace(tzinfo=None)
    calls: list[Callable[[], object]] = [
        lambda: store.began(attempt(started_at=naive)),
        lambda: store.add_task(task(created_at=naive)),
        lambda: store.trajectories(since=naive),
        lambda: store.open_night(night().model_copy(update={"started_at": naive})),
    ]
    for call in calls:
        with pytest.raises(RecordError, match="zone"):
            call()
    assert (store.trajectories(), store.tasks(), store.nights()) == ([], [], [])


def test_times_are_stored_in_utc(store: Store, path: Path) -> None:
    east = NOON.astimezone(timezone(timedelta(hours=9)))
    store.began(attempt(started_at=east))
    store.add_task(task(created_at=east))
    store.open_night(night(started_at=east))
    with closing(sqlite3.connect(path)) as stranger:
        stored = [stranger.execute(f"SELECT started_at FROM {name}").fetchone()[0] for name in ("trajectories", "nights")]
        assert stored == ["2026-03-01T12:00:00.000000+00:00"] * 2
        bodies = [json.loads(stranger.execute(f"SELECT body FROM {name}").fetchone()[0]) for name in ("tasks", "nights")]
        assert [bodies[0]["created_at"], bodies[1]["started_at"]] == ["2026-03-01T12:00:00Z"] * 2


def test_a_task_is_remembered_once_and_never_changes(store: Store) -> None:
    second = task("a second", dependencies=("task",), position=1)
    for one in (task(), second, task(), task(created_at=NOON.astimezone(timezone(timedelta(hours=9))))):
        store.add_task(one)
    with pytest.raises(RecordError, match="task task is already recorded with other content"):
        store.add_task(task(issue="it is quite wrong"))
    assert store.tasks() == [task(), second]


def test_no_way_leads_a_secret_into_the_store(store: Store, path: Path) -> None:
    fix = MergedFix(task_id="task", symbol="f", path="a.py", before="", after="")
    secret = TaskSecret(task_id="task", kind="k", fix=fix, tests={"t.py": "hidden test"}, fail_to_pass=("t",), pass_to_pass=())
    methods = [method for name, method in inspect.getmembers(Store, inspect.isfunction) if not name.startswith("__")]
    assert len(methods) > 10
    assert not any("Secret" in str(inspect.signature(method)) for method in methods)
    with pytest.raises((StoreError, AttributeError)):
        store.add_task(secret)  # type: ignore[arg-type]
    store.close()
    assert b"hidden test" not in path.read_bytes()


def test_the_export_is_every_trajectory_one_a_line(store: Store, tmp_path: Path) -> None:
    told = [play(store, attempt("a", prompt=AWKWARD), steps=3), play(store, attempt("b"), outcome=None)]
    target = tmp_path / "out.jsonl"
    target.write_text("an older export")
    assert store.export_jsonl(target) == 2
    with target.open(encoding="utf-8") as lines:
        assert [Trajectory.model_validate_json(line) for line in lines] == told
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["out.jsonl"]


def test_an_export_that_breaks_off_leaves_the_older_one(store: Store, path: Path, tmp_path: Path) -> None:
    play(store, attempt("a"))
    play(store, attempt("b"), outcome=None)
    target = tmp_path / "out.jsonl"
    store.export_jsonl(target)
    before = target.read_bytes()
    with closing(sqlite3.connect(path)) as stranger, stranger:
        stranger.execute("UPDATE trajectories SET started_at = 'some day' WHERE id = 'b'")
    with pytest.raises(UnreadableStoreError, match="damaged record"):
        store.export_jsonl(target)
    assert target.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["out.jsonl"]


def test_an_export_to_nowhere_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"missing.out\.jsonl could not be written"):
        store.export_jsonl(tmp_path / "missing" / "out.jsonl")


def test_a_night_is_opened_and_closed_once(store: Store) -> None:
    store.open_night(night())
    assert store.nights() == [night()]
    done = night(
        ended_at=NOON + timedelta(minutes=9),
        sources={"agent": 12, "merged_fix": 30},
        pairs=42,
        adapter="a1",
        loss_first=2.5,
        loss_last=0.5,
        train_seconds=300.0,
        verdict=Verdict(promoted=True, why="3 more tasks resolved", numbers={"gain": 0.1}),
    )
    store.close_night(done)
    assert store.nights() == [done]
    with pytest.raises(RecordError, match="no night n1 is open"):
        store.close_night(done.model_copy(update={"pairs": 43}))
    with pytest.raises(RecordError, match="night n1 is already recorded"):
        store.open_night(night(seed=2))
    assert store.nights() == [done]


def test_nights_are_listed_by_their_beginning(store: Store) -> None:
    for name, hours in (("later", 2), ("first", 0), ("second", 1)):
        began = night(name, started_at=NOON + timedelta(hours=hours))
        store.open_night(began)
        store.close_night(began.model_copy(update={"ended_at": NOON + timedelta(hours=9)}))
    assert [one.id for one in store.nights()] == ["first", "second", "later"]


def test_nights_that_contradict_are_refused(store: Store) -> None:
    with pytest.raises(RecordError, match="has already ended"):
        store.open_night(night(ended_at=NOON))
    with pytest.raises(RecordError, match="no night n1 is open"):
        store.close_night(night(ended_at=NOON))
    store.open_night(night())
    for name in ("n1", "n2"):
        with pytest.raises(RecordError, match=f"night {name} does not fit the store .*another night is still open"):
            store.open_night(night(name, seed=2))
    with pytest.raises(RecordError, match="has no end"):
        store.close_night(night())
    with pytest.raises(RecordError, match="does not fit"):
        store.close_night(night().model_copy(update={"ended_at": NOON, "pairs": "many"}))
    assert store.nights() == [night()]


def test_a_night_that_diverged_keeps_its_numbers(store: Store) -> None:
    store.open_night(night())
    verdict = Verdict(promoted=False, why="the loss is not finite", numbers={"loss": math.nan, "ratio": math.inf})
    store.close_night(night(ended_at=NOON, loss_last=math.nan, verdict=verdict))
    kept = store.nights()[0]
    assert kept.loss_last is not None
    assert math.isnan(kept.loss_last)
    assert kept.verdict is not None
    assert math.isnan(kept.verdict.numbers["loss"])
    assert kept.verdict.numbers["ratio"] == math.inf


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("content", [b"not a database at all, only some text\n" * 50, b"SQLite format 3\0" + b"\xff" * 9000])
def test_a_file_that_is_no_store_is_named_and_left_alone(tmp_path: Path, content: bytes, read_only: bool) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(content)
    with pytest.raises(UnreadableStoreError, match=r"store\.db cannot be read as a store .*move it away"):
        Store(path, read_only)
    assert path.read_bytes() == content


def test_a_store_damaged_in_the_middle_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store(path) as store:
        for number in range(40):
            play(store, attempt(f"t{number}", prompt="p" * 2000))
    content = bytearray(path.read_bytes())
    content[len(content) // 4 :] = b"\xff" * (len(content) - len(content) // 4)
    path.write_bytes(content)
    with pytest.raises(UnreadableStoreError, match=r"store\.db .*move it away"), Store(path, read_only=True) as store:
        store.trajectories()


@pytest.mark.parametrize("read_only", [False, True])
def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "contacts.db"
    with closing(sqlite3.connect(path)) as stranger, stranger:
        stranger.execute("CREATE TABLE contacts (name TEXT)")
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(UnreadableStoreError, match=r"contacts\.db is another program's database"):
        Store(path, read_only)
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_paths_that_cannot_be_a_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no store at .*store\.db"):
        Store(tmp_path / "store.db", read_only=True)
    with pytest.raises(StoreError, match=r"missing.store\.db could not be used .*folder exists"):
        Store(tmp_path / "missing" / "store.db")
    with pytest.raises(StoreError, match="could not be used"):
        Store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_read_only_reads_and_never_writes(store: Store, path: Path) -> None:
    told = play(store, attempt(), outcome=None)
    store.open_night(night())
    with Store(path, read_only=True) as other:
        calls: list[Callable[[], object]] = [
            lambda: other.began(attempt("t2")),
            lambda: other.stepped(told, step(1)),
            lambda: other.ended(attempt(outcome=Outcome.RESOLVED)),
            lambda: other.interrupted(),
            lambda: other.add_task(task()),
            lambda: other.open_night(night("n2")),
            lambda: other.close_night(night(ended_at=NOON)),
            lambda: other.abandon_night("it is read only"),
            lambda: other.record_step("n1", "pairs", {}),
            lambda: other.set_note("name", "value"),
            lambda: other.import_trajectories([attempt("t3", outcome=Outcome.RESOLVED)]),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="for reading only"):
                call()
        assert (other.trajectories(), other.tasks(), other.nights()) == ([told], [], [night()])
        assert (other.results(), other.steps_of_night("n1"), other.note("name")) == ([], [], None)


def test_a_closed_store_is_closed(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.tasks()
    with pytest.raises(StoreError, match="is closed"):
        store.add_task(task())


def test_a_writer_elsewhere_delays_writing_but_not_reading(store: Store, path: Path) -> None:
    play(store, attempt())
    with closing(sqlite3.connect(path, isolation_level=None)) as stranger, Store(path, busy_seconds=0.05) as hasty:
        stranger.execute("BEGIN IMMEDIATE")
        assert ids(hasty.trajectories()) == ["t1"]
        with pytest.raises(StoreError, match=r"store\.db could not be used \(database is locked\); another process"):
            hasty.add_task(task())
        stranger.execute("ROLLBACK")
        hasty.add_task(task())
    assert store.tasks() == [task()]


def test_a_new_store_waits_for_whoever_holds_its_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"database is locked.*another process"):
            Store(path, busy_seconds=0.05)
        release = threading.Timer(0.2, stranger.execute, ["ROLLBACK"])
        release.start()
        Store(path, busy_seconds=30).close()
        release.join()


def test_a_full_disk_loses_only_what_no_longer_fits(path: Path) -> None:
    path.parent.mkdir()
    # The system refuses to let this child's files grow any further, as a full disk would.
    script = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from memory.errors import StoreError
from memory.store import Store
from memory.trajectories import Step, Trajectory

store = Store(Path(sys.argv[1]))
told = Trajectory(id="t1", task_id="x", repo="r", prompt="p", model="m", started_at=datetime.now(UTC), config_hash="c")
store.began(told)
store.stepped(told, Step(number=0, said="fits", observation="", tool="search"))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
try:
    store.stepped(told, Step(number=1, said="s" * 1_000_000, observation="", tool="search"))
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.stepped(told, Step(number=2, said="fits again", observation="", tool="search"))
"""
    said, _ = in_child(script, path).communicate()
    assert "store.db could not be used" in said
    assert "space" in said
    with Store(path) as store:
        assert [one.number for one in store.trajectory("t1").steps] == [0, 2]


# The one result of a task


def test_the_attempt_that_settles_a_task_is_its_result(store: Store) -> None:
    for name in ("task", "second", "third"):
        store.add_task(task(name, repo="shop"))
    play(store, attempt("t0", task_id="second"), Outcome.INFRASTRUCTURE_FAILURE)
    settle(store, attempt("t1", task_id="second", started_at=NOON + timedelta(hours=2)), Outcome.GAVE_UP)
    settle(store, attempt("t2"), Outcome.RESOLVED)
    play(store, attempt("t3", task_id="third"), Outcome.RESOLVED)
    found = store.results()
    assert [(r.number, r.task_id, r.trajectory_id, r.outcome) for r in found] == [
        (0, "second", "t1", Outcome.GAVE_UP),
        (1, "task", "t2", Outcome.RESOLVED),
    ]
    assert found[0].started_at == NOON + timedelta(hours=2)
    assert {r.repo for r in found} == {"shop"}
    assert [store.results(since=number) for number in (1, 2, 99)] == [found[1:], [], []]


@pytest.mark.parametrize("again", list(Outcome))
def test_a_task_has_one_result_and_a_second_changes_nothing(store: Store, again: Outcome) -> None:
    store.add_task(task())
    settle(store, attempt("t1"), Outcome.UNRESOLVED)
    before = store.results()
    late = play(store, attempt("t2"), outcome=None)
    late.outcome = again
    with pytest.raises(RecordError, match="task task has its one result already"):
        store.ended(late, settles=True)
    assert store.results() == before
    assert store.trajectory("t2").outcome is None, "nothing of a refused record may be kept"
    store.ended(late)
    assert store.results() == before


def test_an_attempt_cannot_end_once_without_and_once_with_a_result(store: Store) -> None:
    store.add_task(task())
    told = play(store, attempt(), Outcome.RESOLVED)
    with pytest.raises(RecordError, match="t1 has already ended"):
        store.ended(told, settles=True)
    assert store.results() == []


def test_a_result_needs_an_outcome_and_a_task_that_is_known(store: Store) -> None:
    told = play(store, attempt(), outcome=None)
    with pytest.raises(RecordError, match="t1 has no outcome"):
        store.ended(told, settles=True)
    told.outcome = Outcome.RESOLVED
    with pytest.raises(RecordError, match="the end of attempt t1 does not fit the store"):
        store.ended(told, settles=True)
    assert (store.results(), store.trajectory("t1").outcome) == ([], None)
    store.add_task(task())
    store.ended(told, settles=True)
    assert [r.trajectory_id for r in store.results()] == ["t1"]


def test_interrupted_attempts_settle_nothing(store: Store) -> None:
    store.add_task(task())
    play(store, attempt(), outcome=None)
    assert store.interrupted() == 1
    assert store.results() == []
    settle(store, attempt("t2"))
    assert [r.trajectory_id for r in store.results()] == ["t2"]


def test_only_what_the_infrastructure_lost_counts_as_a_failure_and_interruptions_do_not(store: Store) -> None:
    for number, outcome in enumerate(Outcome):
        play(store, attempt(f"a{number}"), outcome)
    play(store, attempt("b"), Outcome.INFRASTRUCTURE_FAILURE)
    play(store, attempt("c"), outcome=None)
    play(store, attempt("d", task_id="other"), Outcome.INFRASTRUCTURE_FAILURE)
    store.interrupted()
    assert [store.failures(name) for name in ("task", "other", "nobody")] == [2, 1, 0]


def test_of_many_processes_that_settle_the_same_tasks_one_wins_each(store: Store, path: Path) -> None:
    script = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from memory.errors import RecordError
from memory.store import Store
from memory.trajectories import Outcome, Trajectory

me = sys.stdin.readline().strip()
won = []
with Store(Path(sys.argv[1])) as store:
    for number in range(25):
        told = Trajectory(
            id=f"{me}-{number}", task_id=f"task-{number}", repo="r", prompt="p", model="m",
            started_at=datetime.now(UTC), config_hash="c",
        )
        store.began(told)
        told.outcome = Outcome.RESOLVED
        try:
            store.ended(told, settles=True)
            won.append(told.id)
        except RecordError:
            pass
print(*won)
"""
    for number in range(25):
        store.add_task(task(f"task-{number}"))
    root = Path(memory.__file__).parents[1]
    command = [sys.executable, "-c", script, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen(command, cwd=root, text=True, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for number, child in enumerate(children):
        assert child.stdin is not None
        child.stdin.write(f"p{number}\n")
        child.stdin.flush()
    won = [name for child in children for name in child.communicate()[0].split()]
    found = store.results()
    assert sorted(won) == sorted(r.trajectory_id for r in found)
    assert sorted(r.task_id for r in found) == sorted(f"task-{number}" for number in range(25))
    assert [r.number for r in found] == list(range(25))


# The journal of a night


def test_the_steps_of_a_night_come_back_in_order_with_what_they_gave(store: Store) -> None:
    store.open_night(night())
    given = {"pairs": {"hash": AWKWARD, "pairs": 3}, "train bank": {"adapter": "a1", "loss": [1.5, None, True]}, "guards": {}}
    before = datetime.now(UTC)
    for name, result in given.items():
        assert store.step_result("n1", name) is None
        store.record_step("n1", name, result)
        assert store.step_result("n1", name) == result
    assert store.step_results("n1") == list(given.values())
    names, times = zip(*store.steps_of_night("n1"), strict=True)
    assert list(names) == list(given)
    ended = [datetime.fromisoformat(time) for time in times]
    assert before <= ended[0] <= ended[1] <= ended[2] <= datetime.now(UTC)


def test_a_step_that_diverged_keeps_its_numbers(store: Store) -> None:
    store.open_night(night())
    store.record_step("n1", "train", {"loss": math.nan, "ratio": math.inf})
    found = store.step_result("n1", "train")
    assert found is not None
    assert math.isnan(found["loss"])
    assert found["ratio"] == math.inf


def test_a_step_is_finished_once_and_only_in_an_open_night(store: Store) -> None:
    store.open_night(night())
    store.record_step("n1", "pairs", {"pairs": 3})
    with pytest.raises(RecordError, match="step pairs of night n1 is already recorded"):
        store.record_step("n1", "pairs", {"pairs": 4})
    with pytest.raises(RecordError, match="step pairs of night n2 does not fit"):
        store.record_step("n2", "pairs", {})
    store.close_night(night(ended_at=NOON))
    with pytest.raises(RecordError, match=r"step guards of night n1 does not fit .*already closed"):
        store.record_step("n1", "guards", {})
    assert store.step_results("n1") == [{"pairs": 3}]
    assert store.step_results("n2") == []


def test_the_steps_of_a_night_are_of_that_night(store: Store) -> None:
    store.open_night(night("n1"))
    store.record_step("n1", "pairs", {"pairs": 1})
    store.close_night(night("n1", ended_at=NOON))
    store.open_night(night("n2"))
    assert store.step_result("n2", "pairs") is None
    store.record_step("n2", "pairs", {"pairs": 2})
    assert (store.step_result("n1", "pairs"), store.step_result("n2", "pairs")) == ({"pairs": 1}, {"pairs": 2})


def test_there_is_one_open_night_at_most(store: Store) -> None:
    assert store.open_night_now() is None
    store.open_night(night("n1"))
    assert store.open_night_now() == night("n1")
    with pytest.raises(RecordError, match="another night is still open"):
        store.open_night(night("n2"))
    store.close_night(night("n1", ended_at=NOON))
    assert store.open_night_now() is None
    store.open_night(night("n2"))
    assert store.open_night_now() == night("n2")


def test_of_many_that_open_a_night_at_once_one_does(store: Store, path: Path) -> None:
    everybody, opened, refused = threading.Barrier(6), [], []

    def open_one(name: str, into: Store) -> None:
        everybody.wait()
        try:
            into.open_night(night(name))
            opened.append(name)
        except RecordError:
            refused.append(name)

    with Store(path) as second:
        threads = [threading.Thread(target=open_one, args=(f"n{n}", (store, second)[n % 2])) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(opened), len(refused)) == (1, 5)
    assert [one.id for one in store.nights()] == opened


def test_an_abandoned_night_is_over_and_says_why(store: Store) -> None:
    assert not store.abandon_night("there is none")
    store.open_night(night())
    store.record_step("n1", "pairs", {"pairs": 3})
    assert store.abandon_night("interrupted")
    assert not store.abandon_night("again")
    (found,) = store.nights()
    assert (found.error, found.verdict) == ("interrupted", None)
    assert found.ended_at is not None
    assert store.step_results("n1") == [{"pairs": 3}]


def test_an_open_night_that_is_damaged_says_so(store: Store, path: Path) -> None:
    store.open_night(night())
    with closing(sqlite3.connect(path)) as stranger, stranger:
        stranger.execute("UPDATE nights SET body = '{}'")
    with pytest.raises(UnreadableStoreError, match="damaged record"):
        store.open_night_now()


# Killed in the middle


@pytest.mark.parametrize("kept_lines", [1, 7, 20])
def test_what_was_being_settled_at_a_kill_is_there_wholly_or_not_at_all(path: Path, kept_lines: int) -> None:
    path.parent.mkdir()
    script = """
import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from memory.nights import Night
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory

now = datetime.now(UTC)
store = Store(Path(sys.argv[1]))
for number in count():
    name = f"x{number}"
    store.add_task(Task(id=name, repo="r", issue="i", created_at=now, position=number, difficulty="easy"))
    told = Trajectory(id=name, task_id=name, repo="r", prompt="p", model="m", started_at=now, config_hash="c")
    store.began(told)
    store.stepped(told, Step(number=0, said="s" * 3000, observation="", tool="search"))
    told.outcome = Outcome.RESOLVED
    store.ended(told, settles=True)
    night = Night(id=name, started_at=now, strategy="s", seed=0, config_hash="c")
    store.open_night(night)
    store.record_step(name, "pairs", {"pairs": number})
    store.close_night(night.model_copy(update={"ended_at": now}))
    steps = [Step(number=n, said="s" * 3000, observation="", tool="search") for n in range(5)]
    others = [told.model_copy(update={"id": f"{name}-{n}", "steps": steps}) for n in range(4)]
    store.import_trajectories(others)
    store.set_note("done", name)
    print(number, flush=True)
"""
    child = in_child(script, path)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(kept_lines)]
    child.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout.read().split()]
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    with Store(path) as store:
        assert store.check() == ""
        results = store.results()
        assert [r.number for r in results] == list(range(len(results)))
        assert len(results) >= len(acknowledged)
        own = {one.id: one for one in store.trajectories() if "-" not in one.id}
        assert {r.trajectory_id for r in results} == {name for name, one in own.items() if one.outcome is not None}
        assert sum(one.outcome is None for one in own.values()) <= 1
        imported = [one for one in store.trajectories() if "-" in one.id]
        assert len(imported) % 4 == 0
        assert all(one.outcome is Outcome.RESOLVED and len(one.steps) == 5 for one in imported)
        nights = store.nights()
        assert sum(one.ended_at is None for one in nights) <= 1
        assert all(len(store.step_results(one.id)) == 1 for one in nights if one.ended_at is not None)
        assert store.note("done") in {f"x{acknowledged[-1]}", f"x{acknowledged[-1] + 1}"}


# Small facts


def test_a_note_is_the_last_that_was_noted(store: Store, path: Path) -> None:
    assert store.note("state") is None
    for value in ("awake", AWKWARD, ""):
        store.set_note("state", value)
        assert store.note("state") == value
    store.set_note("other", "kept apart")
    with Store(path) as again:
        assert (again.note("state"), again.note("other")) == ("", "kept apart")


def test_somebody_who_reads_a_note_always_finds_one(store: Store) -> None:
    store.set_note("state", "0")
    stop, missing = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            if store.note("state") is None:
                missing.append("missing")

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(100):
        store.set_note("state", str(number))
    stop.set()
    reader.join()
    assert missing == []


# The file itself


def test_a_sound_file_has_no_finding(store: Store, path: Path) -> None:
    assert store.check() == ""
    play(store, attempt())
    with Store(path, read_only=True) as other:
        assert other.check() == ""


def test_the_check_finds_what_reading_does_not(store: Store, path: Path) -> None:
    play(store, attempt())
    with closing(sqlite3.connect(path)) as stranger, stranger:
        stranger.execute("PRAGMA writable_schema = ON")
        stranger.execute("UPDATE sqlite_master SET sql = replace(sql, 'started_at, id', 'repo, id') WHERE type = 'index'")
    with Store(path, read_only=True) as other:
        assert ids(other.trajectories()) == ["t1"]
        assert "trajectories_by_start" in other.check()


def test_the_check_of_a_damaged_page_says_so_one_way_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store(path) as store:
        for number in range(40):
            play(store, attempt(f"t{number}", prompt="p" * 2000))
    whole = path.read_bytes()
    for page in range(4096, len(whole), 4096 * 3):
        path.write_bytes(whole[:page] + b"\xff" * 4096 + whole[page + 4096 :])
        try:
            with Store(path, read_only=True) as store:
                found = store.check()
        except UnreadableStoreError as error:
            found = str(error)
        assert found, f"page at {page}"


# Attempts from elsewhere


def test_imported_attempts_are_recorded_with_all_they_have_and_settle_nothing(store: Store) -> None:
    store.add_task(task())
    told = [
        attempt("i1", steps=[step(0, said=AWKWARD), step(1)], outcome=Outcome.RESOLVED, reason=AWKWARD, adapter="a1"),
        attempt("i2", task_id="never heard of", outcome=Outcome.GAVE_UP, started_at=NOON + timedelta(hours=1)),
    ]
    store.import_trajectories(told)
    assert store.trajectories() == told
    assert store.results() == []
    store.import_trajectories([])
    settle(store, attempt("t1"))
    assert [r.trajectory_id for r in store.results()] == ["t1"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "attempt bad has no outcome; only ended attempts can be imported"),
        ({"id": "known", "outcome": Outcome.RESOLVED}, "attempt known is already recorded"),
        ({"id": "good", "outcome": Outcome.RESOLVED}, "attempt good is already recorded"),
        ({"outcome": Outcome.RESOLVED, "steps": [step(0), step(0)]}, "already recorded"),
        ({"outcome": Outcome.RESOLVED, "steps": [step(0, seconds=math.nan)]}, "does not fit"),
        ({"outcome": Outcome.RESOLVED, "started_at": NOON.replace(tzinfo=None)}, "time zone"),
    ],
)
def test_of_attempts_that_cannot_all_be_imported_none_is(store: Store, wrong: dict[str, object], message: str) -> None:
    known = play(store, attempt("known"))
    good = attempt("good", steps=[step(0)], outcome=Outcome.RESOLVED)
    with pytest.raises(RecordError, match=message):
        store.import_trajectories([good, attempt(**{"name": wrong.get("id", "bad"), **wrong} | {"id": wrong.get("id", "bad")})])
    assert store.trajectories() == [known]


def test_an_imported_reason_that_is_no_proper_text_is_kept_as_well_as_can_be(store: Store) -> None:
    told = attempt("i1", outcome=Outcome.INFRASTRUCTURE_FAILURE)
    told.reason = "no such file: caf\udce9"
    store.import_trajectories([told])
    assert store.trajectory("i1").reason == "no such file: caf\\udce9"


def test_text_that_is_no_proper_text_is_refused_and_changes_nothing(store: Store) -> None:
    half = "caf\udce9"
    calls: list[Callable[[], object]] = [
        lambda: store.began(attempt(repo=half)),
        lambda: store.import_trajectories([attempt("t2", repo=half, outcome=Outcome.RESOLVED)]),
        lambda: store.set_note("name", half),
    ]
    for call in calls:
        with pytest.raises((RecordError, ValidationError)):
            call()
    assert (store.trajectories(), store.note("name")) == ([], None)


# A store of the version before


def test_a_store_with_only_the_first_migration_is_brought_up_to_date_and_keeps_what_it_has(path: Path) -> None:
    path.parent.mkdir()
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    assert migrate(engine, path, MIGRATIONS[:1]) == [MIGRATIONS[0][0]]
    engine.dispose()
    with closing(sqlite3.connect(path)) as old, old:
        for name, hours in (("n2", 2), ("n1", 1)):  # that version let two nights be open at once
            open_night = night(name, started_at=NOON + timedelta(hours=hours))
            row = (name, open_night.started_at.isoformat(timespec="microseconds"), open_night.model_dump_json())
            old.execute("INSERT INTO nights VALUES (?, ?, NULL, ?)", row)
        old.execute("INSERT INTO tasks (id, body) VALUES ('task', ?)", (task().model_dump_json(),))
        old.execute(
            "INSERT INTO trajectories VALUES ('t1', 'task', 'shop', 'fix it', '', 'm', NULL, 'agent', 0, ?, 'c', '', ?, '')",
            (NOON.isoformat(timespec="microseconds"), "resolved"),
        )
    with pytest.raises(StoreVersionError, match="older version"):
        Store(path, read_only=True)
    with Store(path) as store:
        assert (store.tasks(), ids(store.trajectories()), store.results()) == ([task()], ["t1"], [])
        assert store.open_night_now() == night("n1", started_at=NOON + timedelta(hours=1))
        with pytest.raises(RecordError, match="another night is still open"):
            store.open_night(night("n3"))
        store.record_step("n1", "pairs", {"pairs": 3})
        assert store.abandon_night("left by an older version")
        assert store.open_night_now() is None
        assert {one.error for one in store.nights()} == {"left by an older version"}
        store.open_night(night("n3"))
        settle(store, attempt("t2"))
        store.set_note("state", "awake")
    with Store(path, read_only=True) as store:
        assert [r.trajectory_id for r in store.results()] == ["t2"]
