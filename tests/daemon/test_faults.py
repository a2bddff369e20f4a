"""What goes wrong around a running daemon: clocks, disks, memory, damaged files, impatient owners."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.config import Config, ResourceConfig, SleepConfig
from daemon.doctor import examine
from daemon.errors import DaemonError, NoDaemonError
from daemon.events import Event
from daemon.home import Home
from daemon.life import Life
from daemon.logs import Logger
from daemon.plan import slept_until
from daemon.run import read_config
from daemon.schedule import NightSchedule
from daemon.states import State
from daemon.worker import Reply, Request
from daemon.workers import Worker
from eval.pocket.stream import PocketStream
from eval.sources import PocketSource, TasksConfig
from memory.nights import Night, Verdict
from memory.store import Store
from memory.trajectories import Outcome, Step, Trajectory
from tests.daemon.disks import fill, mounted
from tests.daemon.running import daemon, descendants, is_training, kill, run, sleepyctl, status, until, write_config

DAY, HOUR, TICK = timedelta(days=1), timedelta(hours=1), timedelta(minutes=10)
CLOCK_IN_A_FILE = """
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
import daemon.run

def now():
    return datetime.fromtimestamp(Path("{clock}").stat().st_mtime, UTC)

daemon.run.Life, daemon.run.TICK_SECONDS = partial(daemon.run.Life, now=now), 0.1
"""


def settle(store: Store, config: Config, count: int) -> None:
    """Let the next tasks end unresolved: a night can learn their merged fixes."""
    over = {result.task_id for result in store.results()}
    for task in PocketStream.of(PocketSource(config.tasks).next(over, count)).tasks():
        store.add_task(task)
        told = Trajectory(
            id=f"of-{task.id}",
            task_id=task.id,
            repo=task.repo,
            prompt=task.issue,
            model="m",
            started_at=datetime.now(UTC),
            config_hash="c",
        )
        store.began(told)
        store.stepped(told, Step(number=0, said="s" * 500, observation="o" * 2000, tool="search"))
        told.outcome = Outcome.UNRESOLVED
        store.ended(told, settles=True)


def after_a_day(root: Path, count: int = 12) -> Home:
    """A state directory in which all tasks have ended, and a night is worth it."""
    write_config(root, count=count, after=0)
    home = Home(root)
    home.make()
    with Store(home.store) as store:
        settle(store, read_config(home), count)
    return home


def settings(**values: object) -> dict[str, str]:
    return {**os.environ, **{f"SLEEPYD_{name.upper()}": str(value) for name, value in values.items()}}


QUICK = {"night__lora__epochs": 1, "guard__tasks": 2, "night__gate__min_tasks": 2}
IN_VAIN = {"night__lora__batch_size": 1000}
"""A night that ends before it trains, because there is too little for a batch."""


def logged(home: Home, event: Event) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (home.logs / "sleepyd.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


# Clocks


@dataclass
class Ear:
    """A log that only remembers."""

    heard: list[tuple[Event, dict[str, Any]]] = field(default_factory=list)

    def info(self, event: Event, /, **fields: Any) -> None:
        self.heard.append((event, fields))

    warning = error = info


class Dreamer:
    """In the worker's place: days of one task, and nights that take no time or, if they are `long`, all there is."""

    pid, busy = None, False

    def __init__(self, life: Life, long: bool) -> None:
        self.life, self.long, self.stop = life, long, asyncio.Event()

    async def ask(self, request: Request) -> Reply:
        store, now = self.life.store, self.life.now()
        if request.do == "play":
            settle(store, request.config, 1)
            return Reply(done={"taken": 0})
        night = store.open_night_now()
        if night is None:
            night = Night(id=now.isoformat(), started_at=now, strategy="s", seed=0, config_hash="c")
            store.open_night(night)
            self.life.heard(Event.NIGHT_OPENED, {"night": night.id})
            if self.long:
                await self.stop.wait()
                return Reply(stopped=True)
        verdict = Verdict(promoted=False, why="only dreamt")
        store.close_night(night.model_copy(update={"ended_at": now, "verdict": verdict}))
        return Reply(done={})

    def request_stop(self) -> None:
        self.stop.set()

    kill = request_stop

    async def close(self) -> None:
        pass


@dataclass
class Dream:
    """A whole life on a real store, but for its worker and its clock."""

    store: Store
    clock: datetime
    sleep: SleepConfig
    long: bool = False
    tasks: TasksConfig = field(default_factory=TasksConfig)
    ear: Ear = field(default_factory=Ear)

    async def __aenter__(self) -> Life:
        config = Config(tasks=self.tasks, sleep=self.sleep, resources=ResourceConfig(free_disk_mb=0))
        home = Home(self.store.path.parent)
        self.life = Life(home, config, self.store, cast(Logger, self.ear), "0", lambda: self.clock)
        self.life.worker = cast(Worker, Dreamer(self.life, self.long))
        self.living = asyncio.create_task(self.life.run())
        await self.reaches(State.AWAKE)
        return self.life

    async def __aexit__(self, *error: object) -> None:
        self.life.ask_stop("the end")
        await self.living

    async def reaches(self, state: State) -> None:
        """Until it is in this state and at rest; fails if it is over instead."""
        life = self.life
        while life.state is not state or life.wishes.sleep or not (life.holding or life.doing.night):
            assert not self.living.done()
            await asyncio.sleep(0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    home = Home(tmp_path / "state")
    home.make()
    with Store(home.store) as store:
        yield store


def openings(store: Store, sleep: SleepConfig, ticks: Sequence[datetime], ear: Ear) -> list[datetime]:
    """The openings of the window for which a whole life on these ticks of the clock held a night, in order."""

    async def live() -> None:
        dream = Dream(store, ticks[0], sleep, ear=ear)
        async with dream as life:
            for dream.clock in ticks:
                life.tick()
                await dream.reaches(State.AWAKE)

    asyncio.run(live())
    opened = [NightSchedule(sleep).opened(night.started_at) for night in store.nights()]
    return [opening for opening in opened if opening is not None]


def every(begin: datetime, end: datetime) -> list[datetime]:
    return [begin + number * TICK for number in range((end - begin) // TICK)]


@pytest.mark.parametrize("shift", [DAY, -DAY])
@pytest.mark.parametrize("hour", [1.5, 3, 12])
def test_a_clock_set_a_day_wrong_for_an_hour_costs_no_night_and_brings_none_twice(
    store: Store, hour: float, shift: timedelta
) -> None:
    begin, wrong = datetime(2026, 6, 9, 12, tzinfo=UTC), datetime(2026, 6, 11, tzinfo=UTC) + hour * HOUR
    end = begin + 4 * DAY
    ticks = [*every(begin, wrong), *every(wrong + shift, wrong + shift + HOUR), *every(wrong + HOUR, end)]
    ear = Ear()
    nights = openings(store, SleepConfig(timezone="UTC", min_resolved=1), ticks, ear)
    assert sorted(nights) == [datetime(2026, 6, day, 2, tzinfo=UTC) for day in (10, 11, 12, 13)]
    jumps = [fields["seconds"] / DAY.total_seconds() for event, fields in ear.heard if event is Event.CLOCK_JUMPED]
    assert [round(days) for days in jumps if abs(days) > 0.5] == [shift.days, -shift.days]


@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("first", ["2026-03-29", "2026-10-25"])
def test_where_the_clocks_change_within_the_window_each_date_has_its_one_night(
    store: Store, first: str, suspended: bool
) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    begin = datetime.fromisoformat(f"{first}T12:00").replace(tzinfo=berlin).astimezone(UTC) - DAY
    ticks = every(begin, begin + 2 * DAY)
    if suspended:
        ticks = [tick for tick in ticks if not 1 <= tick.astimezone(berlin).hour < 7]
    sleep = SleepConfig(window="02:30-06:00", timezone="Europe/Berlin", min_resolved=1)
    nights = openings(store, sleep, ticks, Ear())
    dates = [night.astimezone(berlin).date() for night in nights]
    assert dates == [(begin + days * DAY).date() for days in (1, 2)]


def test_a_laptop_that_slept_through_the_opening_holds_one_night_and_a_clock_set_to_and_fro_no_other(tmp_path: Path) -> None:
    home, clock = after_a_day(tmp_path / "state"), tmp_path / "clock"
    clock.touch()

    def set_clock(text: str) -> None:
        moment = datetime.fromisoformat(f"2026-06-{text}:00Z").timestamp()
        os.utime(clock, (moment, moment))

    set_clock("11T01:00")
    env = settings(sleep__window="02:00-06:00", sleep__timezone="UTC", **IN_VAIN)
    with daemon(home.root, first=CLOCK_IN_A_FILE.format(clock=clock), env=env):
        set_clock("11T07:30")
        until(lambda: status(home.root)["nights"] == 1, "the night")
        for number, text in enumerate(("12T07:30", "11T07:30", "12T07:30", "13T02:00"), 2):
            set_clock(text)
            until(lambda number=number: len(logged(home, Event.CLOCK_JUMPED)) == number, "the jump to be noticed")  # type: ignore[misc]
        until(lambda: len(logged(home, Event.NIGHT_DUE)) == 3, "the next opening")
        now = status(home.root)
    due = [line["why"] for line in logged(home, Event.NIGHT_DUE)]
    assert due == [f"the window opened at 2026-06-{day}T02:00:00+00:00" for day in (11, 12, 13)]
    jumps = [line["seconds"] for line in logged(home, Event.CLOCK_JUMPED)]
    assert jumps == pytest.approx([6.5 * 3600, 86400, -86400, 86400, 18.5 * 3600], abs=60)
    assert (now["nights"], now["night_deferred"]) == (1, "no task has ended since the last night")


# Starts


@pytest.mark.parametrize("ended", [4, 6], ids=["just enough", "more than enough"])
def test_a_kill_between_a_result_and_the_decision_lets_no_further_task_run_before_the_night(store: Store, ended: int) -> None:
    sleep = SleepConfig(window="", after_tasks=4, min_resolved=1)
    settle(store, Config(sleep=sleep), ended)  # what the killed daemon left behind

    async def live() -> None:
        async with Dream(store, datetime(2026, 6, 11, 12, tzinfo=UTC), sleep):
            pass  # it is awake and at rest, so that the first decisions are over

    asyncio.run(live())
    assert len(store.nights()) == 1
    assert slept_until(store) == ended


def test_a_stream_whose_file_is_missing_is_waited_for_in_the_state_directory_and_named_with_what_to_do(store: Store) -> None:
    async def live() -> str:
        tasks = TasksConfig(source="swe-bench-cl")
        async with Dream(store, datetime(2026, 6, 11, 12, tzinfo=UTC), SleepConfig(window=""), tasks=tasks) as life:
            return life.holding

    holding = asyncio.run(live())
    assert str(store.path.parent / "data" / "swe-bench-cl.json") in holding
    assert "sleepyctl data fetch swe-bench-cl" in holding


# A damaged store


def damage(path: Path, table: str) -> None:
    """Overwrite the page at which a table begins, behind SQLite's back."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)


def tells_of_damage(text: str) -> bool:
    return "sleepy.db cannot be read as a store" in text and "move it away" in text


def check_owner_is_told(home: Home) -> None:
    told = run("status", "--home", str(home.root))
    assert tells_of_damage(told.stdout + told.stderr) or "no daemon runs" in told.stderr
    assert "Traceback" not in told.stderr
    (found,) = [check for check in examine(home) if check.name == "store"]
    assert found.verdict == "failed"
    assert "When the store is damaged" in found.advice


@pytest.mark.parametrize("table", ["steps", "nights"])  # read by the worker, and by the daemon itself
def test_a_store_damaged_while_it_runs_is_complained_of_once_and_not_written_to_again(tmp_path: Path, table: str) -> None:
    home = after_a_day(tmp_path, count=12)
    with daemon(home.root) as process:
        damage(home.store, table)
        home.config.write_text(home.config.read_text().replace("count = 12", "count = 20"))

        def complaints() -> list[dict[str, Any]]:
            return [line for line in logged(home, Event.DAEMON_ERROR) if tells_of_damage(line["error"]) and "path" not in line]

        until(lambda: complaints() != [], "the complaint", 30)
        begun = len(logged(home, Event.TASK_STARTED))
        check_owner_is_told(home)
        if process.poll() is None:
            time.sleep(1.5)  # longer than the first wait for another attempt
        assert len(complaints()) == 1
        assert len(logged(home, Event.TASK_STARTED)) == begun
        process.terminate()
        if process.wait(20) != 0:
            assert tells_of_damage((home.root / "stderr.txt").read_text().splitlines()[-1])


def test_a_store_that_was_damaged_before_the_start_ends_it_with_one_clear_error(tmp_path: Path) -> None:
    home = after_a_day(tmp_path)
    damage(home.store, "task_results")
    before = home.store.read_bytes()
    done = run("run", "--home", str(home.root))
    assert done.returncode == 1
    assert tells_of_damage(done.stderr.splitlines()[-1])
    assert len(logged(home, Event.DAEMON_ERROR)) == 1
    assert home.store.stat().st_size == len(before)
    check_owner_is_told(home)


# Too little room


def test_a_disk_that_fills_up_during_a_night_costs_only_time(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=24m") as disk:
        home, ballast = after_a_day(disk / "home"), disk / "ballast"
        with daemon(home.root, env=settings(**QUICK)) as process:
            assert run("sleep-now", "--home", str(home.root)).returncode == 0
            until(lambda: status(home.root)["doing"]["step"].startswith("train"), "training")
            fill(ballast)
            with contextlib.suppress(DaemonError):
                until(lambda: "free some space" in status(home.root)["holding"], "the complaint")
            assert process.poll() is None, (home.root / "stderr.txt").read_text()[-2000:]
            assert (status(home.root)["state"], status(home.root)["live"]) == ("awake", {})
            ballast.unlink()
            assert run("resume", "--home", str(home.root)).returncode == 0
            until(lambda: status(home.root)["nights"] == 1, "the night's end")
            now = status(home.root)
        assert now["last_verdict"]["why"]
        assert bool(now["live"]) == now["last_verdict"]["promoted"]
        Publisher(home.live, AdapterStore(home.adapters)).routes()  # every byte of what is live is what its name says
        assert logged(home, Event.DISK_LOW)
        assert logged(home, Event.DISK_RECOVERED)
        with Store(home.store) as store:
            assert store.check() == ""


@pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc, and only Linux has the limit")
def test_a_night_whose_training_dies_as_often_as_it_may_is_given_up_and_life_goes_on(tmp_path: Path) -> None:
    home = after_a_day(tmp_path)
    cap = settings(resources__training_memory_mb=512, night__lora__batch_size=12, life__crashes=2)
    with daemon(home.root, env=cap) as process:
        assert run("sleep-now", "--home", str(home.root)).returncode == 0

        def training() -> list[int]:
            return [pid for pid in descendants(process.pid) if is_training(pid)]

        until(lambda: training() != [], "training")
        kill(training()[0])
        until(lambda: status(home.root)["nights"] == 1, "the night's end")
        now = status(home.root)
        assert (now["last_verdict"]["promoted"], now["live"]) == (False, {})
        assert "2 crashes at step train bank" in now["last_verdict"]["why"]
        assert "memory" in now["last_verdict"]["why"], "the owner must learn what to change"
        home.config.write_text(home.config.read_text().replace("count = 12", "count = 13"))
        until(lambda: status(home.root)["tasks_ended"] == 13, "the next task")
        assert process.poll() is None


def test_a_state_directory_that_became_read_only_is_refused_with_one_line_and_can_still_be_looked_at(tmp_path: Path) -> None:
    used = after_a_day(tmp_path / "used")
    with mounted(tmp_path / "disk", "size=24m") as disk:
        home = Home(disk / "home")
        with Store(used.store) as store:
            store.set_note("unwritten", "yes")
            shutil.copytree(used.root, home.root)  # as after a crash, with a log beside the store
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = run("run", "--home", str(home.root))
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert f"{home.root}: cannot be used as the state directory" in done.stderr
        told = run("status", "--json", "--home", str(home.root))
        assert (told.returncode, json.loads(told.stdout)["tasks_ended"]) == (3, 12)


# Its owner


def test_twenty_commands_at_once_are_all_answered_and_the_work_goes_on(tmp_path: Path) -> None:
    home = after_a_day(tmp_path)
    home.config.write_text(home.config.read_text().replace("count = 12", "count = 0"))
    with daemon(home.root, env=settings(**IN_VAIN)) as process:
        until(lambda: status(home.root)["doing"]["tasks"] != [], "a task")
        commands = ("status", "sleep-now", "pause", "resume") * 5
        with ThreadPoolExecutor(len(commands)) as pool:
            answers = list(pool.map(lambda command: run(command, "--home", str(home.root)), commands))
        for command, done in zip(commands, answers, strict=True):
            told = done.stdout + done.stderr
            refused = command == "sleep-now" and any(why in told for why in ("no night would", "asleep already", "is paused"))
            assert done.returncode == (1 if refused else 0), told
        assert run("resume", "--home", str(home.root)).returncode == 0
        ended = status(home.root)["tasks_ended"]
        until(lambda: status(home.root)["tasks_ended"] > ended, "more tasks")
        assert process.poll() is None
    assert [line for line in logged(home, Event.DAEMON_ERROR) if "path" in line] == []


def test_pause_and_resume_in_one_breath_do_not_end_a_night_or_the_life(store: Store) -> None:
    async def live() -> None:
        dream = Dream(store, datetime(2026, 6, 11, 1, tzinfo=UTC), SleepConfig(min_resolved=1), long=True)
        async with dream as life:
            assert life.ask_sleep("asked for").would_sleep
            await dream.reaches(State.ASLEEP)
            life.ask_pause(True)
            life.ask_pause(False)
            await dream.reaches(State.AWAKE)

    asyncio.run(live())
    (night,) = store.nights()
    assert night.verdict == Verdict(promoted=False, why="only dreamt")


def test_with_its_lock_file_deleted_it_still_keeps_a_second_one_out(tmp_path: Path) -> None:
    home = after_a_day(tmp_path)
    with daemon(home.root) as process:
        home.lock.unlink()
        try:
            second = run("run", "--home", str(home.root), timeout=15)
        except subprocess.TimeoutExpired:
            pytest.fail("a second daemon runs")
        assert second.returncode == 1
        assert f"PID {process.pid}" in second.stderr.splitlines()[-1]
        try:
            assert status(home.root)["pid"] == process.pid
        except NoDaemonError:
            pytest.fail("the second one took the first one's socket away")


@contextmanager
def stalling(begin: bytes) -> Iterator[tuple[str, threading.Event]]:
    """The address of a publisher that sends the beginning of a file of 64 KiB and no more, and whether it has."""
    sent = threading.Event()

    def answer(server: socket.socket) -> None:
        with contextlib.suppress(OSError), server.accept()[0] as line:
            line.recv(1 << 16)
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + begin)
            sent.set()
            line.recv(1)  # until the other side is gone

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/f.bin", sent
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


OTHER_SOURCE = """
import eval.fetch, time
read = eval.fetch._blocks
eval.fetch._blocks = lambda file: (time.sleep(0.1) or block for block in read(file))
source = eval.fetch.Source("f.bin", "{url}", "sha256:" + 64 * "0", 65536)
eval.fetch.fetch.__kwdefaults__["sources"] = {{"made": source}}
"""
"""Another file to fetch, from a slow disk."""


@pytest.mark.parametrize("copied", [False, True], ids=["download", "copy"])
def test_ctrl_c_while_a_benchmark_file_is_fetched_leaves_what_was_there_and_no_word_but_the_bar(
    tmp_path: Path, copied: bool
) -> None:
    folder, copy, content = tmp_path / "h" / "data", tmp_path / "copy.bin", os.urandom(4 << 20)
    copy.write_bytes(content)
    Home(tmp_path / "h").make()
    folder.mkdir()
    (folder / "f.bin").write_bytes(b"older")
    part = folder / ".f.bin.part"
    options = ["data", "fetch", "made", "--home", str(tmp_path / "h"), *(["--from", str(copy)] if copied else [])]
    with stalling(content[:1000]) as (url, sent):
        command = sleepyctl(*options, first=OTHER_SOURCE.format(url=url))
        env = {**os.environ, "NO_PROXY": "127.0.0.1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True) as process:
            try:
                begun = part.exists if copied else sent.is_set
                until(lambda: begun() or process.poll() is not None, "the beginning of the file", 30)
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 130, errors
    assert [line for line in errors.splitlines() if line.strip() and not line.startswith("made")] == []
    assert sorted(path.name for path in folder.iterdir()) == [".f.bin.part", "f.bin"]
    assert (folder / "f.bin").read_bytes() == b"older"
    assert content.startswith(part.read_bytes())
