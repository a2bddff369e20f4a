"""What the store's rows give: days, matrices and measures of lives that were written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Config
from daemon.errors import DaemonError
from daemon.metering import controls, planned
from daemon.metrics_view import measured, prices
from eval.metrics.config import MetricsConfig
from eval.metrics.lived import LifeMetrics, metrics_of
from eval.metrics.rows import Attempted
from eval.metrics.stored import NOT_ASKED, NOT_LIVED, OFF, OTHER, Day, Life, days_of, read_life
from eval.watch import is_control
from memory.exams import Exam, ExamArm
from memory.nights import Night, Verdict
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome, Result, Step, Trajectory

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PASS, FAIL, LOST = Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.INFRASTRUCTURE_FAILURE


class Book:
    """Writes a life into a store, an hour at a time."""

    def __init__(self, store: Store) -> None:
        self.store, self.hours, self.arm = store, 0, "skill"

    def now(self) -> datetime:
        self.hours += 1
        return NOON + timedelta(hours=self.hours)

    def day(self, turns: int = 1, /, **outcomes: Outcome) -> None:
        for name, outcome in outcomes.items():
            task = {"id": name, "repo": "r", "issue": "i", "created_at": NOON, "position": 0, "difficulty": "easy"}
            self.store.add_task(Task.model_validate(task))
            fields = {"task_id": name, "repo": "r", "prompt": "p", "model": "m", "config_hash": "day", "arm": self.arm}
            played = Trajectory.model_validate({"id": f"a-{name}", "started_at": self.now(), **fields})
            self.store.began(played)
            for number in range(turns):
                played.steps.append(Step(number=number, said="x", observation="y", tool="search", prompt_tokens=1_000))
                self.store.stepped(played, played.steps[-1])
            played.outcome = outcome
            self.store.ended(played, settles=True)

    def night(self, name: str, rows: list[Exam] | None = None, promoted: bool = True, error: str = "") -> None:
        night = Night(id=name, started_at=self.now(), strategy="naive", seed=1, config_hash="c")
        self.store.open_night(night)
        self.store.add_exams(rows or [])
        verdict = Verdict(promoted=promoted, why="because")
        self.store.close_night(night.model_copy(update={"ended_at": self.now(), "verdict": verdict, "error": error}))

    def rows(self, night: str, arm: ExamArm, day: str, print_: str = "f", **outcomes: Outcome) -> list[Exam]:
        return [
            Exam(
                night_id=night,
                arm=arm,
                experience=day,
                task_id=name,
                fingerprint=print_,
                at=self.now(),
                body=row(name, outcome).model_dump(mode="json"),
            )
            for name, outcome in outcomes.items()
        ]


def row(task: str, outcome: Outcome) -> Attempted:
    return Attempted(task_id=task, repo="r", outcome=outcome, steps=1, config_hash="c")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as store:
        yield store


@pytest.fixture
def book(store: Store) -> Book:
    return Book(store)


def two_nights(book: Book, **second: Any) -> None:
    """Day 1 (a, b), a night, day 2 (c, d, e; only c and d are asked again), a night, day 3 (g)."""
    book.day(a=FAIL, b=FAIL)
    book.night("n1", [*book.rows("n1", "live", "n1", a=PASS, b=PASS), *book.rows("n1", "base", "n1", a=FAIL, b=FAIL)])
    book.day(c=PASS, d=PASS, e=FAIL)
    rows = book.rows("n2", "live", "n1", a=PASS, b=FAIL) + book.rows("n2", "live", "n2", c=PASS, d=PASS)
    rows += book.rows("n2", "base", "n2", c=FAIL, d=PASS) + book.rows("n2", "frozen", "n1", a=PASS)
    book.night("n2", rows, **second)
    book.day(g=PASS)


def told(life: Life) -> LifeMetrics:
    return metrics_of(life)


def test_the_whole_matrix_by_hand(store: Store, book: Book) -> None:
    two_nights(book)
    found = told(read_life(store))
    assert found.matrix.rows == ("base", "night 1", "night 2")
    assert found.matrix.values == ((0.0, 0.5), (1.0, 1.0), (0.5, 1.0))
    assert found.matrix.tasks == ((2, 2), (2, 2), (2, 2))
    assert found.matrix.learnt == {"day 1": 1, "day 2": 2}
    # Of the base, a was played again in night 2 and resolved; b was not, and its answer stands.
    assert found.frozen.values == ((0.0, 0.5), (0.0, 0.5), (0.5, 0.5))
    value = {name: one.value for name, one in found.values.items()}
    assert value["acc"] == 0.75
    assert value["forward_transfer"] == 0.5  # a[1, 2] - a[0, 2] = 1 - 0.5
    assert value["forgetting_chaudhry"] == value["forgetting_paper"] == 0.5  # a[1, 1] - a[2, 1]
    assert value["forgetting_chaudhry_net"] == 1.0  # the control: 0 - 0.5
    assert value["backward_transfer"] == -0.5
    assert value["resolve_rate"] == 0.5  # c, d and g of a, b, c, d, e and g
    assert [day.resolved for day in found.days] == [0, 2, 1]
    assert found.fingerprints == {"f": 11}


def test_the_day_after_counts_at_the_tasks_that_are_asked_again_alone(store: Store, book: Book) -> None:
    two_nights(book)
    assert {one.task_id for one in read_life(store).live[1, 1]} == {"c", "d"}  # type: ignore[union-attr]


def test_a_candidate_that_was_rejected_is_a_row_and_its_day_is_not_learnt(store: Store, book: Book) -> None:
    two_nights(book, promoted=False)
    found = told(read_life(store))
    assert len(found.matrix.rows) == 3
    assert found.matrix.learnt == {"day 1": 1, "day 2": None}
    book.night("n3")
    assert told(read_life(store)).matrix.learnt == {"day 1": 1, "day 2": 3, "day 3": 3}


def test_what_is_remembered_is_learnt_without_a_promotion(store: Store, book: Book) -> None:
    book.arm = "knowledge"
    two_nights(book, promoted=False)
    assert told(read_life(store)).matrix.learnt == {"day 1": 1, "day 2": 2}


def test_a_night_that_broke_off_is_no_row_and_its_day_goes_on(store: Store, book: Book) -> None:
    book.day(a=PASS)
    book.night("broken", promoted=False, error="out of memory")
    book.day(b=PASS)
    book.night("whole")
    book.night("published", error="killed later")
    assert [[r.task_id for r in day.results] for day in days_of(store)] == [["a", "b"], []]
    assert [night.id for night in read_life(store).nights] == ["whole", "published"]


def test_what_was_not_measured_has_a_reason_and_never_a_value(store: Store, book: Book) -> None:
    book.day(a=PASS)
    book.night("n1")
    book.day(b=PASS)
    book.night("n2", book.rows("n2", "live", "n2", b=PASS) + book.rows("n2", "base", "n2", b=PASS))
    found = told(read_life(store))
    assert found.matrix.values == ((None, 1.0), (None, 1.0), (None, 1.0))
    assert [line[0] for line in found.matrix.why] == [NOT_ASKED, OFF, OFF]
    assert found.frozen.values == ((None, 1.0), (None, 1.0), (None, 1.0))
    assert found.values["acc"].value is None
    assert OFF in found.values["acc"].why
    first = read_life(store, closing="")
    assert first.live[1, 0] == OFF


def test_a_day_that_was_not_lived_yet_is_in_no_row_but_the_bases(store: Store, book: Book) -> None:
    two_nights(book)
    book.night("n3", book.rows("n3", "base", "n3", g=PASS) + book.rows("n3", "live", "n3", g=PASS))
    found = told(read_life(store))
    assert found.matrix.why[1][2] == NOT_LIVED == found.frozen.why[1][2]
    assert (found.matrix.values[0][2], found.matrix.values[2][2]) == (1.0, 1.0)


def test_what_another_configuration_of_the_base_did_is_in_no_cell(store: Store, book: Book) -> None:
    two_nights(book)
    rows = book.rows("n3", "live", "n1", "new", a=PASS, b=PASS) + book.rows("n3", "base", "n1", "new", a=PASS, b=PASS)
    book.night("n3", [*rows, *book.rows("n3", "live", "n2", c=FAIL, d=FAIL)])
    found = told(read_life(store))
    assert [line[0] for line in found.matrix.values] == [1.0, None, None, 1.0]
    assert found.matrix.why[1][0] == OTHER
    assert [line[1] for line in found.matrix.values] == [0.5, 1.0, 1.0, 0.0]


def test_attempts_lost_to_the_infrastructure_are_no_failures(store: Store, book: Book) -> None:
    book.day(a=PASS, b=LOST)
    rows = book.rows("n1", "live", "n1", a=PASS, b=LOST) + book.rows("n1", "base", "n1", a=FAIL, b=LOST)
    book.night("n1", rows)
    found = told(read_life(store))
    assert (found.matrix.values[1][0], found.matrix.tasks[1][0]) == (1.0, 1)
    assert found.values["resolve_rate"].value == 1.0
    assert found.values["excluded"].value == 1


def test_what_the_base_was_not_seen_to_do_is_no_task_of_a_cell(store: Store, book: Book) -> None:
    book.night("n1")
    book.day(c=PASS, d=FAIL)
    book.night("n2", book.rows("n2", "live", "n2", c=PASS, d=PASS) + book.rows("n2", "base", "n2", c=PASS, d=LOST))
    assert [one.task_id for one in read_life(store).live[1, 1]] == ["c"]  # type: ignore[union-attr]


def test_tasks_that_the_watch_gave_to_the_base_are_not_the_live_agents(store: Store, book: Book) -> None:
    names = [f"t{number}" for number in range(40)]
    book.day(1, **dict.fromkeys(names, PASS))
    (rows,) = read_life(store, control_share=0.5).attempts
    assert {one.task_id for one in rows} == {name for name in names if not is_control(name, 0.5)} != set(names)


def test_a_days_rows_outlive_its_turns(store: Store, book: Book) -> None:
    book.day(3, a=PASS, b=PASS)
    kept = [Exam.model_validate(dict(one) | {"arm": "day"}) for one in book.rows("n1", "live", "n1", a=PASS)]
    book.night("n1", kept)
    assert store.forget_turns(0, keep=set()) == 2
    life = read_life(store)
    assert [[one.task_id for one in day] for day in life.attempts] == [["a"], []]
    assert (life.turnless, told(life).values["turnless"].value) == (1, 1)


def test_rows_of_another_version_are_read_as_far_as_they_are_understood(store: Store, book: Book) -> None:
    (one,) = book.rows("n1", "live", "n1", a=PASS)
    body = {name: value for name, value in one.body.items() if name != "errors"} | {"invented_later": 3}
    book.day(a=PASS)
    book.night("n1", [one.model_copy(update={"body": body}), *book.rows("n1", "base", "n1", a=FAIL)])
    assert told(read_life(store)).matrix.values == ((0.0,), (1.0,))


def test_an_empty_store_measures_nothing_and_says_so(store: Store) -> None:
    found = measured(store, Config())
    assert (found.life.matrix.rows, found.life.matrix.columns, found.life.days) == (("base",), (), ())
    assert {name for name, one in found.life.values.items() if one.value is not None} == {"excluded", "turnless"}
    assert all(one.why for one in found.life.values.values() if one.value is None)


def test_cost_is_known_where_prices_are(store: Store, book: Book) -> None:
    book.day(a=PASS, b=FAIL)
    assert prices(MetricsConfig()) is None
    found = measured(store, Config(metrics=MetricsConfig(price_input=2.0)))
    assert found.life.values["cost"].value == pytest.approx(0.004)  # 2,000 tokens at 2 dollars for a million
    assert measured(store, Config()).life.values["cost"].why


def day(night: str, tasks: int, lost: int = 0) -> Day:
    outcomes = [LOST if number < lost else FAIL for number in range(tasks)]
    fields = {"repo": "r", "started_at": NOON}
    results = [
        Result(number=n, task_id=f"{night}-{n}", trajectory_id=f"{night}{n}", outcome=outcome, **fields)  # type: ignore[arg-type]
        for n, outcome in enumerate(outcomes)
    ]
    return Day(night, tuple(results))


def test_a_later_night_asks_the_beginning_of_the_same_list(store: Store) -> None:
    config = MetricsConfig(tasks=4, most=8)
    days = [day(f"n{number}", 10) for number in range(12)]
    lists = [planned(days[:count], config, set()) for count in range(1, 13)]
    assert [len(plan["n0"]) for plan in lists[:8]] == [4, 4, 2, 2, 1, 1, 1, 1]
    assert all(plan["n0"] == lists[0]["n0"][: len(plan["n0"])] for plan in lists[:8])
    assert list(lists[11]) == [f"n{number}" for number in range(4, 12)]  # more days than tasks: the latest
    assert all(sum(map(len, plan.values())) <= 8 for plan in lists)
    assert planned(days, MetricsConfig(tasks=0), set()) == {}


def test_what_was_lost_or_forgotten_is_not_asked() -> None:
    found = planned([day("n", 5, lost=2)], MetricsConfig(tasks=8), {"n-4"})
    assert set(found["n"]) == {"n-2", "n-3"}


def test_the_base_plays_a_part_again_and_everything_where_that_part_differs() -> None:
    plan = {"n1": ["a", "b", "c"], "n2": ["d", "e"], "n3": ["new"]}
    before = {task: row(task, FAIL) for task in "abce"} | {"d": row("d", PASS)}
    assert controls(plan, before, {}, 1) == ["a", "d"]
    assert controls(plan, before, {"a": row("a", FAIL), "d": row("d", LOST)}, 1) == ["a", "d"]
    assert controls(plan, before, {"a": row("a", FAIL), "d": row("d", FAIL)}, 1) == ["a", "b", "c", "d", "e"]
    assert controls(plan, before, {}, 0) == []


@pytest.mark.parametrize("sink", ["", "tensorboard:", "wandb:/x", "tensorboard"])
def test_what_names_no_sink_is_refused(tmp_path: Path, sink: str) -> None:
    from daemon.config import load_config

    path = tmp_path / "sleepyd.toml"
    path.write_text(f'[metrics]\nsinks = ["{sink}"]\n')
    with pytest.raises(DaemonError, match="names no sink; write tensorboard:FOLDER"):
        load_config(path, {})
