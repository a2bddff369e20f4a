"""What is live is watched: an alarm goes back by itself, once, whatever befalls the process."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.config import Config, LogConfig
from daemon.home import Home
from daemon.logs import Logger, configure, shutdown
from daemon.space import space_of
from daemon.status import status_of
from daemon.watching import Alarm, _record, alarms
from eval.watch import Reading
from memory.knowledge.shelf import Shelf
from memory.store import Store
from tests.daemon.running import daemon, run, status, until, write_config
from tests.daemon.watched import MODEL, NOW, adapter, life, lived, prepared, promoted
from tests.memory.knowledge.making import memory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logger]:
    yield configure(tmp_path / "told", LogConfig(), None)
    shutdown()


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str | None, str]:
    """Where an adapter fails and nobody has looked yet; what was live before, and what is."""
    home = tmp_path_factory.mktemp("failing")
    return home, *prepared(home, previous=True)


def events(folder: Path, name: str) -> list[dict[str, object]]:
    lines = (folder / "sleepyd.jsonl").read_text().splitlines()
    return [record for line in lines if (record := json.loads(line))["event"] == name]


def live(home: Path) -> dict[str, str]:
    return Publisher(Home(home).live, AdapterStore(Home(home).adapters)).live()


def gone_back(home: Path, store: Store, first: str | None, second: str) -> None:
    """All that must be true afterwards."""
    publisher = Publisher(Home(home).live, AdapterStore(Home(home).adapters))
    back = {"bank": first} if first else {}
    assert publisher.live() == back
    assert second not in publisher.previous().values()
    standing = publisher.adapters.get(second).standing
    assert standing.state == "rejected"
    assert "0%" in standing.why
    assert "were promised" in standing.why
    (alarm,) = alarms(store)
    assert alarm.done
    shelf = Shelf(store, space_of(Config()))
    assert shelf.version().number == 3  # what was known with the skill before is active again, once
    assert shelf.active_ids() == {memory(0).id}
    assert alarm.reading.canary
    assert alarm.attempts <= 20


@pytest.mark.parametrize("previous", [True, False])
def test_an_adapter_that_fails_is_taken_back_with_what_was_learnt_beside_it_and_says_why(
    tmp_path: Path, log: Logger, previous: bool
) -> None:
    home = tmp_path / "home"
    first, second = prepared(home, previous)
    with Store(Home(home).store) as store:
        now = life(home, store, log)
        now._watching.look()
        gone_back(home, store, first, second)
        (event,) = events(tmp_path / "told", "watch.alarm")
        assert (event["chart"], event["adapter"], event["repo"]) == ("resolved", second, "bank")
        assert isinstance(event["value"], float)
        assert event["value"] >= event["limit"]
        assert len(events(tmp_path / "told", "adapter.rolled_back")) == 1
        told = status_of(now).taken_back
        assert second in told
        assert (first or "the bare base model") in told
        # Nothing of it happens twice, also after more tasks and in another process.
        lived(store, 4, lambda number: False, first, NOW + timedelta(days=2))
        again = life(home, store, log)
        again._watching.look()
        again._watching.settle()
        gone_back(home, store, first, second)
        assert len(events(tmp_path / "told", "watch.alarm")) == 1


@pytest.mark.parametrize("point", ["make_live", "knowledge", "retire", "done"])
def test_what_was_decided_is_carried_out_by_the_next_process_if_this_one_is_killed(
    tmp_path: Path, failing: tuple[Path, str | None, str], point: str
) -> None:
    where, first, second = failing
    shutil.copytree(where, tmp_path, dirs_exist_ok=True)
    command = [sys.executable, "-m", "tests.daemon.watched", str(tmp_path), point]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with Store(Home(tmp_path).store) as store:
        assert [alarm.done for alarm in alarms(store)] == [False]
        now = life(tmp_path, store, enabled=False)  # what was decided is done even if nobody watches any more
        now._watching.settle()
        gone_back(tmp_path, store, first, second)


def test_an_adapter_that_keeps_its_promise_stays_and_so_does_one_that_is_not_watched(tmp_path: Path) -> None:
    Home(tmp_path).make()
    with Store(Home(tmp_path).store) as store:
        lived(store, 60, lambda number: number % 2 == 0, None, NOW)
        made = NOW + timedelta(days=1)
        good = adapter(tmp_path, "good", made)
        promoted(tmp_path, store, {"bank": good}, made)
        lived(store, 40, lambda number: number % 2 == 0, good, made)
        life(tmp_path, store)._watching.look()
        assert live(tmp_path) == {"bank": good}
        lived(store, 40, lambda number: False, good, made)
        life(tmp_path, store, enabled=False)._watching.look()
        assert live(tmp_path) == {"bank": good}
        life(tmp_path, store)._watching.look()
        assert live(tmp_path) == {}
        assert not alarms(store)[0].reading.canary


def test_calls_that_contradict_the_workspace_retire_an_adapter(tmp_path: Path) -> None:
    Home(tmp_path).make()
    with Store(Home(tmp_path).store) as store:
        lived(store, 40, lambda number: number % 2 == 0, None, NOW)
        made = NOW + timedelta(days=1)
        old = adapter(tmp_path, "old", made)
        promoted(tmp_path, store, {"bank": old}, made)
        lived(store, 20, lambda number: number % 2 == 0, old, made, sound=False)
        life(tmp_path, store)._watching.look()
        assert alarms(store)[0].reading.chart == "conflicts"
        assert live(tmp_path) == {}


def test_an_adapter_for_all_repositories_is_taken_back_where_it_fails_in_one_and_others_stay(tmp_path: Path) -> None:
    Home(tmp_path).make()
    with Store(Home(tmp_path).store) as store:
        for repo in ("bank", "game", "farm"):
            lived(store, 40, lambda number: number % 2 == 0, None, NOW, repo)
        made = NOW + timedelta(days=1)
        own, every = adapter(tmp_path, "own", made), adapter(tmp_path, "every", made)
        promoted(tmp_path, store, {"farm": own}, made)
        promoted(tmp_path, store, {"farm": own, "*": every}, made + timedelta(hours=1))
        lived(store, 10, lambda number: number % 2 == 0, own, made, "farm")
        lived(store, 10, lambda number: number % 2 == 0, every, made, "bank")
        lived(store, 20, lambda number: False, every, made, "game")
        life(tmp_path, store)._watching.look()
        assert [alarm.repo for alarm in alarms(store)] == ["game"]
        assert live(tmp_path) == {"farm": own}


def test_two_alarms_at_once_do_not_bring_each_others_adapters_back(tmp_path: Path) -> None:
    Home(tmp_path).make()
    with Store(Home(tmp_path).store) as store:
        made = NOW + timedelta(days=1)
        one, two = adapter(tmp_path, "one", made), adapter(tmp_path, "two", made)
        table = {"bank": one, "game": two}
        promoted(tmp_path, store, table, made)
        reading = Reading(chart="resolved", canary=True, value=5.0, limit=3.0, promised=0.5, seen=0.0, tasks=10)
        told = {"at": NOW, "reading": reading, "attempts": 10, "resolved": 0, "before": table, "known": 0}
        # Each was decided while the other still served: `after` names what the other alarm has barred since.
        first = Alarm(adapter=one, repo="bank", after={"bank": two, "game": two}, **told)
        second = Alarm(adapter=two, repo="game", after={"bank": one, "game": one}, **told)
        _record(store, [first, second])
        now = life(tmp_path, store)
        now._watching.settle()
        assert [alarm.done for alarm in alarms(store)] == [True, True]
        assert now.holding == ""
        assert live(tmp_path) == {}


def test_to_watch_needs_no_model_code_and_no_numpy() -> None:
    code = (
        "import eval.watch, eval.behaviour, sys; print([m for m in ('numpy', 'torch', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_running_daemon_goes_back_by_itself_from_an_adapter_that_ruins_the_model(tmp_path: Path) -> None:
    from agent.pocket import WEIGHTS
    from tests.consolidation.adapting import random_lora, stored

    write_config(tmp_path, count=24, after=0)
    home = Home(tmp_path)
    home.make()
    (tmp_path / "work").mkdir()
    bad = stored(AdapterStore(home.adapters), random_lora(alpha=400.0), WEIGHTS).id
    with Store(home.store) as store:
        lived(store, 30, lambda number: number % 5 != 0, None, NOW)
        promoted(tmp_path, store, {"bank": bad}, NOW + timedelta(days=1))
    assert MODEL.endswith(WEIGHTS.name)
    with daemon(tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}):
        until(lambda: status(tmp_path)["live"] == {}, "the way back")
        now = status(tmp_path)
        assert bad in now["taken_back"]
        assert now["tasks_ended"] < 30 + 24
        assert f"adapter {bad} was taken out of service" in run("status", "--home", str(tmp_path)).stdout
        refused = run("adapters", "promote", bad, "--home", str(tmp_path))
        assert refused.returncode == 1
        assert "was taken out of service" in refused.stderr
