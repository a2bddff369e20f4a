"""A state directory with an adapter at work, its attempts in the store; and a process that dies on the way back."""

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import daemon.watching
from agent.turns import Call, render_call
from consolidation.adapters import AdapterStore, Manifest
from consolidation.skill import Publisher
from daemon.config import Config
from daemon.home import Home
from daemon.life import Life
from daemon.logs import Logger
from daemon.space import pair, space_of
from memory.knowledge.shelf import Shelf
from memory.nights import Night, Verdict
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory
from tests.memory.knowledge.making import memory

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MODEL = "pocket:weights"


def life(home: Path, store: Store, log: Logger | None = None, **watch: Any) -> Life:
    config = Config.model_validate({"watch": watch})
    found = Life(Home(home), config, store, log or Logger({}), "0")
    found.results = store.results()
    return found


def adapter(home: Path, text: str, made: datetime) -> str:
    folder = home / "made" / text
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(text)
    (folder / "adapter_model.safetensors").write_text(text)
    fields: dict[str, Any] = {"base": "b", "strategy": "s", "seed": 0, "data": "d", "scope": ("bank",), "config_hash": "c"}
    manifest = Manifest(created_at=made, **fields, loss_first=2.0, loss_last=1.0)
    return AdapterStore(Home(home).adapters).admit(folder, manifest).id


def lived(
    store: Store,
    count: int,
    resolved: Callable[[int], bool],
    who: str | None,
    when: datetime,
    repo: str = "bank",
    sound: bool = True,
) -> None:
    """Attempts that ended one after another; those that are not `sound` look for what is not there."""
    start = len(store.results())
    for number in range(start, start + count):
        calls = [(Call("search", "fee"), "a.py:1: fee" if sound else "no match", None)]
        calls += [(Call("edit", "a.py", 1, 1, body="x"), "now\n1|x", None), (Call("test"), "0 failed, 2 passed", True)]
        attempt = Trajectory(
            id=f"attempt-{number}",
            task_id=f"{repo}-stream-0-{number + 1000}",
            repo=repo,
            prompt="p",
            model=MODEL,
            adapter=who,
            started_at=when + timedelta(minutes=number),
            config_hash="c",
            arm="both",
        )
        told: dict[str, Any] = {"issue": "`fee` is wrong.", "created_at": NOW, "position": number, "difficulty": "<15 min fix"}
        store.add_task(Task(id=attempt.task_id, repo=repo, **told))
        store.began(attempt)
        for at, (call, seen, passed) in enumerate([*calls, (Call("submit"), "", None)]):
            step = Step(number=at, said=render_call(call), observation=seen, tool=call.tool, tests_passed=passed)
            store.stepped(attempt, step)
        attempt.outcome = Outcome.RESOLVED if resolved(number) else Outcome.UNRESOLVED
        store.ended(attempt, settles=True)


def promoted(home: Path, store: Store, table: dict[str, str], when: datetime) -> None:
    """A night that put a routing table to work."""
    publisher = Publisher(Home(home).live, AdapterStore(Home(home).adapters))
    night = Night(id=f"night-{when:%H%M}", started_at=when, strategy="s", seed=0, config_hash="c")
    store.open_night(night)
    store.record_step(night.id, "before", {"live": publisher.live()})
    publisher.make_live(table)
    store.record_step(night.id, "publish", {"live": table})
    verdict = Verdict(promoted=True, why="it passed")
    store.close_night(night.model_copy(update={"ended_at": when, "verdict": verdict}))


def prepared(home: Path, previous: bool) -> tuple[str | None, str]:
    """60 attempts of which every second was resolved; then an adapter that resolves nothing. Gives what was and is live."""
    Home(home).make()
    made = NOW + timedelta(days=1)
    with Store(Home(home).store) as store:
        lived(store, 60, lambda number: number % 2 == 0, None, NOW)
        shelf = Shelf(store, space_of(Config()))
        shelf.put({"attempt-0": [memory(0)]})
        first = adapter(home, "first", NOW - timedelta(days=1)) if previous else None
        if first:
            promoted(home, store, {"bank": first}, NOW + timedelta(hours=20))
        pair(store, shelf, {"bank": first} if first else {})
        second = adapter(home, "second", made)
        promoted(home, store, {"bank": second}, made)
        shelf.put({"attempt-1": [memory(1)]})
        lived(store, 18, lambda number: False, second, made)
    return first, second


def die(*anything: object, **named: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def main(home: Path, point: str) -> None:
    """Look, and die at a point of going back."""
    record = daemon.watching._record
    done = lambda store, found: die() if found[-1].done else record(store, found)  # noqa: E731
    if point == "done":
        daemon.watching._record = done
    elif point == "knowledge":
        daemon.watching.roll_back = die
    else:
        setattr(Publisher, point, die)
    with Store(Home(home).store) as store:
        life(home, store)._watching.look()
    raise SystemExit("it was not killed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
