"""Killed at random moments, started again, and nothing is lost, counted twice or half alive."""

import os
import random
import sqlite3
import sys
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.home import Home
from daemon.run import read_config
from eval.sources import PocketSource
from memory.store import Store
from tests.daemon.running import descendants, is_training, kill, start, status, until, wait_for, write_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds child processes in /proc")
TASKS, AFTER = 8, 4


def finished(home: Path) -> bool:
    """Every task has its result, and the nights after them are over."""
    with Store(home / "sleepy.db", read_only=True) as store:
        return len(store.results()) >= TASKS and len(store.nights()) >= TASKS // AFTER and store.open_night_now() is None


def none_exist(paths: list[Path]) -> bool:
    return not any(path.exists() for path in paths)


def live_through(home: Path, kills: int, rng: random.Random, where: Counter[str]) -> int:
    """Run the daemon until all is done, killing it or one of its processes up to `kills` times; returns how many kills hit.

    Only a kill before the end of all work counts; `where` counts the states in which they hit.
    """
    hits = 0
    while True:
        process = start(home)
        wait_for(home, process)
        if hits >= kills or finished(home):
            until(lambda: finished(home), "the end of all work", 600)
            kill(process.pid, 15)
            process.wait(30)
            return hits
        deadline = time.monotonic() + rng.choice((0.3, 2.0, 6.0, 15.0)) * rng.random()
        while time.monotonic() < deadline and not finished(home):
            time.sleep(0.02)
        below = descendants(process.pid)
        training = [pid for pid in below if is_training(pid)]
        victim = rng.choice([process.pid, *(below[:1]), *training])
        state = str(status(home)["state"])
        if not finished(home):
            hits += 1
            where[f"{state}, {'daemon' if victim == process.pid else 'training' if victim in training else 'worker'}"] += 1
        kill(victim)
        if victim != process.pid:
            time.sleep(rng.random())
            kill(process.pid)
        process.wait()
        orphans = [Path(f"/proc/{pid}") for pid in below]
        until(partial(none_exist, orphans), "orphans to end", 20)


def check(home: Path) -> None:
    place = Home(home)
    with closing(sqlite3.connect(place.store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT count(*) FROM trajectories WHERE outcome IS NULL").fetchone() == (0,)
    order = PocketSource(read_config(place).tasks).next(set(), TASKS)
    with Store(place.store) as store:
        results, nights = store.results(), store.nights()
        assert sorted(r.task_id for r in results) == sorted(order)
        for day in range(0, TASKS, AFTER):  # the same tasks before each night as in a life without trouble
            assert {r.task_id for r in results[day : day + AFTER]} == set(order[day : day + AFTER])
        first: list[str] = []
        for trajectory in store.trajectories(origin="agent"):
            if trajectory.task_id not in first:
                first.append(trajectory.task_id)
        assert first == order
        assert len(nights) == TASKS // AFTER
        assert all(night.ended_at is not None and night.verdict is not None for night in nights)
        steps = [store.step_result(night.id, "publish") for night in nights if night.verdict and night.verdict.promoted]
        published = [step["live"] for step in steps if step is not None]
        assert len(published) == len(steps)
    publisher = Publisher(place.live, AdapterStore(place.adapters))
    assert publisher.live() == (published[-1] if published else {})
    publisher.routes()  # every byte of what is live is what its name says


def test_a_few_kills(tmp_path: Path) -> None:
    write_config(tmp_path, TASKS, AFTER)
    rng = random.Random(int(os.environ.get("CHAOS_SEED", "1")))
    assert live_through(tmp_path, 5, rng, Counter()) > 0
    check(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_hundred_kills(tmp_path: Path) -> None:
    rng = random.Random(int(os.environ.get("CHAOS_SEED", "1")))
    where: Counter[str] = Counter()
    promoted = life = 0
    while where.total() < 100:
        home = tmp_path / str(life)
        write_config(home, TASKS, AFTER)
        live_through(home, 12, rng, where)
        check(home)
        with Store(home / "sleepy.db", read_only=True) as store:
            promoted += sum(night.verdict is not None and night.verdict.promoted for night in store.nights())
        life += 1
        print(f"life {life}: {dict(where)}, {promoted} nights promoted", flush=True)
    assert promoted > 0
    assert {"awake", "asleep"} <= {place.partition(",")[0] for place in where}


def test_a_life_without_trouble_is_what_the_checks_describe(tmp_path: Path) -> None:
    write_config(tmp_path, TASKS, AFTER)
    live_through(tmp_path, 0, random.Random(0), Counter())
    check(tmp_path)
    with Store(tmp_path / "sleepy.db", read_only=True) as store:
        assert any(night.verdict and night.verdict.promoted for night in store.nights())
