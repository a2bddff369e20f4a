"""The daemon's own metrics in a real small life: what nights examine, and that one broken off there counts nothing twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from daemon.cli.metrics import metrics
from daemon.config import Config
from daemon.events import Event
from daemon.home import Home
from daemon.metering import METRICS
from daemon.metrics_view import Measured, measured
from daemon.night_view import night_shown, told
from daemon.night_work import NightWork
from daemon.work import Stopped, Work
from eval.metrics.rows import attempted
from memory.exams import Exam
from memory.knowledge.tables import USES
from memory.store import Store
from tests.daemon.running import daemon, kill, run, status, until, write_config

SETTINGS = {
    "arm": "knowledge",
    "tasks": {"repos": ["bank"], "seed": 3},
    "night": {"threads": 1, "gate": {"min_tasks": 8}},
    "guard": {"tasks": 8},
    "knowledge": {"embedder": "hashing"},
    "metrics": {"tasks": 2, "control": 1, "price_input": 1.0},
}
TOML = """arm = "knowledge"
[tasks]
repos = ["bank"]
seed = 3
[night]
threads = 1
[night.gate]
min_tasks = 8
[guard]
tasks = 8
[knowledge]
embedder = "hashing"
[metrics]
tasks = 2
control = 1
price_input = 1.0
"""
Told = list[tuple[str, dict[str, Any]]]


@contextmanager
def working(root: Path, stopping: Callable[[Store], bool] = lambda store: False) -> Iterator[tuple[Work, Told]]:
    home = Home(root)
    home.make()
    events: Told = []
    with Store(home.store) as store:
        config = Config.model_validate(SETTINGS)
        work = Work(home, config, store, lambda event, **fields: events.append((event, fields)), lambda: stopping(store))
        with closing(work):
            yield work, events


def sleep(work: Work) -> None:
    NightWork(work).hold(work.store.open_night_now())


def examined(store: Store) -> int:
    """Rows of the open night that were played for it."""
    night = store.open_night_now()
    return 0 if night is None else sum(row.arm != "day" for row in store.exams(night.id))


class Lived:
    """Two days and nights and the next day; the second night was broken off after its first exam, and taken up again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sleepyd.toml").write_text(TOML)
        with working(root) as (work, self.events):
            work.play(3)
            sleep(work)
            work.play(3)
            self.base_uses = self._uses(work.store)
        with working(root, lambda store: examined(store) > 0) as (work, _):
            with pytest.raises(Stopped):
                sleep(work)
            self.broken = work.store.exams()
        with working(root) as (work, _):
            sleep(work)
            self.uses = self._uses(work.store)
            work.play(2)
        self.store = Store(root / "sleepy.db", read_only=True)
        self.first, self.second = self.store.nights()

    @staticmethod
    def _uses(store: Store) -> set[str]:
        with store.reading() as connection:
            return set(connection.execute(select(USES.c.trajectory_id)).scalars())

    def rows(self, night: str, arm: str, day: str) -> list[Exam]:
        return [row for row in self.store.exams(night) if (row.arm, row.experience) == (arm, day)]

    def tasks(self, night: str, arm: str, day: str) -> list[str]:
        return sorted(row.task_id for row in self.rows(night, arm, day))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    found = Lived(tmp_path_factory.mktemp("lived"))
    yield found
    found.store.close()


@pytest.fixture
def shown(lived: Lived) -> Measured:
    return measured(lived.store, Config.model_validate(SETTINGS))


def test_what_is_live_is_asked_of_every_past_day_and_the_base_once_for_each_task(lived: Lived) -> None:
    one, two = lived.first.id, lived.second.id
    asked = {one: lived.tasks(one, "live", one), two: lived.tasks(two, "live", two)}
    assert [len(tasks) for tasks in asked.values()] == [2, 2]
    assert set(asked[one]) <= {r.task_id for r in lived.store.results()[:3]}
    assert set(asked[two]) <= {r.task_id for r in lived.store.results()[3:6]}
    assert lived.tasks(two, "live", one) == asked[one]
    assert lived.tasks(one, "base", one) == asked[one]
    assert lived.tasks(two, "base", two) == asked[two]
    assert lived.tasks(two, "base", one) == []  # its answers are kept
    assert lived.tasks(one, "frozen", one) == []
    assert len(lived.tasks(two, "frozen", one)) == 1  # they stay the same, so one is enough
    (base,) = {row.fingerprint for row in lived.store.exams() if row.arm != "day"}
    for row in lived.store.exams():
        assert row.arm == "day" or (row.body["config_hash"] == base) == (row.arm != "live"), "who plays is who is named"


def test_days_are_counted_from_their_own_attempts(lived: Lived) -> None:
    one, results = lived.first.id, lived.store.results()
    assert lived.tasks(one, "day", one) == sorted(r.task_id for r in results[:3])
    for row in lived.rows(one, "day", one):
        (result,) = (r for r in results if r.task_id == row.task_id)
        expected = attempted(lived.store.trajectory(result.trajectory_id), recalled=bool(row.body["recalled"]))
        assert row.body == json.loads(expected.model_dump_json())


def test_a_night_that_was_broken_off_between_exams_keeps_them_and_plays_the_rest(lived: Lived) -> None:
    played = [row for row in lived.broken if row.night_id == lived.second.id and row.arm != "day"]
    assert 1 <= len(played) < 4
    assert lived.store.exams()[: len(lived.broken)] == lived.broken
    keys = [(row.night_id, row.arm, row.task_id) for row in lived.store.exams()]
    assert len(keys) == len(set(keys))
    assert lived.second.verdict is not None
    assert lived.second.verdict.why == "this arm trains no adapter"
    assert [name for name, _ in lived.store.steps_of_night(lived.second.id)] == ["knowledge", METRICS]


def test_an_examination_is_no_experience(lived: Lived) -> None:
    assert lived.uses == lived.base_uses
    assert len(lived.store.trajectories()) == len(lived.store.results()) == 8


def test_the_matrix_is_what_the_rows_say(lived: Lived, shown: Measured) -> None:
    one, two = lived.first.id, lived.second.id

    def share(rows: list[Exam]) -> float:
        return sum(bool(row.body["outcome"] == "resolved") for row in rows) / len(rows)

    asked = lived.tasks(two, "base", two)
    next_day = [row for row in lived.rows(two, "day", two) if row.task_id in asked]
    base = [share(lived.rows(night, "base", night)) for night in (one, two)]
    live = shown.life.matrix
    assert live.columns == ("day 1", "day 2")
    assert live.values == (
        (base[0], base[1]),
        (share(lived.rows(one, "live", one)), share(next_day)),
        (share(lived.rows(two, "live", one)), share(lived.rows(two, "live", two))),
    )
    assert live.tasks == ((2, 2), (2, 2), (2, 2))
    assert shown.life.frozen.values == (tuple(base),) * 3
    assert len({value for row in live.values for value in row}) > 1 or base[0] not in (0, 1), "the life tells something apart"
    values = shown.life.values
    assert values["acc"].value == pytest.approx(sum(live.values[2]) / 2)
    assert values["forward_transfer"].value == pytest.approx(share(next_day) - base[1])
    assert values["forgetting_chaudhry_net"].value is not None


def test_every_metric_has_a_value_or_says_why_not(shown: Measured) -> None:
    values = shown.life.values
    wanted = {
        *("acc", "forward_transfer", "backward_transfer", "aulc", "plasticity", "stability", "clf_beta", "cl_score"),
        *(f"forgetting_{name}{net}" for name in ("paper", "chaudhry", "avalanche") for net in ("", "_net")),
        *("resolve_rate", "steps", "tokens", "tue_time", "useful_time", "useful_calls", "repeat_error_rate"),
        *("median_steps_to_green", "cost"),
    }
    assert wanted <= set(values)
    assert all((value.value is None) == bool(value.why) for value in values.values())
    assert [day.attempts for day in shown.life.days] == [3, 3, 2]
    assert (values["cost"].value or 0) > 0


def test_the_night_tells_what_it_measured(lived: Lived) -> None:
    (fields,) = (fields for event, fields in lived.events if event == Event.METRICS_MEASURED)
    assert set(fields) == {"night", *Event.METRICS_MEASURED.fields}
    assert fields["rows"] == {"live": 2, "base": 2, "frozen": 0, "day": 3}
    assert fields["left_out"] == {}
    night = night_shown(lived.store, "last")
    assert night is not None
    assert any(line.startswith("measured   acc +") for line in told(night))


def test_people_and_programs_are_told_the_same(lived: Lived, shown: Measured, capsys: pytest.CaptureFixture[str]) -> None:
    metrics(home=lived.root, as_json=True)
    assert Measured.model_validate_json(capsys.readouterr().out) == shown
    metrics(home=lived.root)
    table = capsys.readouterr().out
    assert all(name in table for name in shown.life.values)
    metrics(home=lived.root, matrix=True)
    assert "night 2" in capsys.readouterr().out
    metrics(home=lived.root, matrix=True, as_csv=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "arm,after,day,resolved,tasks,why"
    assert len(lines) == 1 + 2 * 3 * 2
    assert f"live,night 2,day 1,{shown.life.matrix.values[2][0]},2," in lines


@pytest.mark.slow
def test_a_killed_worker_goes_on_with_the_exams_that_are_missing(tmp_path: Path) -> None:
    write_config(tmp_path, count=6, after=0)
    config = tmp_path / "sleepyd.toml"
    config.write_text('arm = "knowledge"\n' + config.read_text().replace("[metrics]\ntasks = 0", "[metrics]\ntasks = 6"))
    with daemon(tmp_path):
        until(lambda: status(tmp_path)["tasks_ended"] == 6, "six tasks")
        run("sleep-now", "--home", str(tmp_path))
        with Store(tmp_path / "sleepy.db", read_only=True) as store:
            for rows in (1, 7):
                until(lambda rows=rows: examined(store) >= rows, f"{rows} rows")  # type: ignore[misc]
                kill(status(tmp_path)["worker_pid"])
            until(lambda: status(tmp_path)["last_verdict"] is not None, "the end of the night")
            keys = [(row.arm, row.task_id) for row in store.exams()]
        assert len(keys) == len(set(keys)) == 18
        found = json.loads(run("metrics", "--json", "--home", str(tmp_path)).stdout)
        assert found["life"]["matrix"]["columns"] == ["day 1"]
    shutil.copytree(tmp_path, tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock", "*.lock", "scratch"))
    later = json.loads(run("metrics", "--json", "--home", str(tmp_path / "copy")).stdout)
    assert later == found
