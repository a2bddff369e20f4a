"""What a daemon remembers, as its owner meets it: asked while it works, rolled back, forgotten, by arm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.client import ask
from memory.store import Store
from tests.daemon.running import children, daemon, kill, run, status, until, write_config


def ctl(home: Path, *words: str, code: int = 0, timeout: float = 120) -> Any:
    """What a command prints with --json."""
    done = run(*words, "--json", "--home", str(home), timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if code == 0 else done.stderr


def trajectories(home: Path) -> list[dict[str, Any]]:
    with Store(home / "sleepy.db", read_only=True) as store:
        return [trajectory.model_dump() for trajectory in store.trajectories()]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon that has worked through twelve tasks and held one night that was promoted."""
    home = tmp_path_factory.mktemp("lived")
    write_config(home, count=12, after=0)
    with daemon(home):
        until(lambda: status(home)["tasks_ended"] == 12, "twelve tasks")
        assert ctl(home, "sleep-now", "--wait", timeout=300)["promoted"]
        yield home


def test_later_attempts_were_told_of_earlier_ones_and_name_the_state_they_were_told_from(lived: Path) -> None:
    played = trajectories(lived)
    assert {t["arm"] for t in played} == {"both"}
    told = [t for t in played if t["prompt"].startswith("past case")]
    assert told
    assert all(t["knowledge"].partition("-")[0].isdigit() for t in told)
    stats = ctl(lived, "memory", "stats")
    assert stats["uses"] >= len(told)
    assert stats["by_repo"].keys() == {"bank"}
    assert {"case", "warning"} <= stats["by_kind"].keys()


def test_every_memory_can_be_traced_to_its_attempt(lived: Path) -> None:
    ids = {t["id"] for t in trajectories(lived)}
    for row in ctl(lived, "memory", "search", "always gives None", "-n", "100"):
        shown = ctl(lived, "memory", "show", row["id"][:10])
        assert shown["memory"]["trajectory_id"] in ids
        assert shown["memory"]["verified"] == (
            shown["memory"]["outcome"] == "resolved" or shown["memory"]["origin"] == "merged_fix"
        )


def test_the_night_wrote_a_handbook_that_cites_memories(lived: Path) -> None:
    (row,) = ctl(lived, "memory", "handbook", "bank")
    assert row["handbook"]["night"] == status(lived)["last_night"]
    for entry in row["handbook"]["entries"]:
        for cite in entry["cites"]:
            assert ctl(lived, "memory", "show", cite)["active"]


def test_people_get_tables(lived: Path) -> None:
    for words in (["stats"], ["search", "None"], ["handbook"], ["versions"]):
        done = run("memory", *words, "--home", str(lived))
        assert (done.returncode, "bank" in done.stdout or "remembered" in done.stdout) == (0, True), done.stderr


def test_what_does_not_exist_is_one_line(lived: Path) -> None:
    assert "no memory begins with 'zzz'" in ctl(lived, "memory", "show", "zzz", code=1)
    assert "no trajectory zzz" in ctl(lived, "memory", "forget", "zzz", code=1)


def test_skill_and_knowledge_go_back_together_and_forward_again(lived: Path) -> None:
    handbook, stats = ctl(lived, "memory", "handbook", "bank"), ctl(lived, "memory", "stats")
    back = ctl(lived, "adapters", "rollback")
    assert back["live"] == {}
    assert back["knowledge"]
    assert ctl(lived, "memory", "handbook", "bank") == []  # the night had written it
    again = ctl(lived, "adapters", "rollback")
    assert again["live"]
    assert [row["handbook"] for row in ctl(lived, "memory", "handbook", "bank")] == [row["handbook"] for row in handbook]
    assert ctl(lived, "memory", "stats")["memories"] == stats["memories"]


def test_what_is_forgotten_is_gone_from_everywhere_and_what_learnt_from_it_can_be_retired(lived: Path) -> None:
    with Store(lived / "sleepy.db", read_only=True) as store:
        (night,) = store.nights()
        learnt = next(str(i) for result in store.step_results(night.id) for i in result.get("attempts", ()))
        own = {result.trajectory_id for result in store.results()}
    played = [t for t in trajectories(lived) if t["id"] in own]
    victim = next((t for t in played if t["id"] == learnt), played[0])
    said = victim["steps"][0]["said"]
    told = run("memory", "forget", victim["id"], "--home", str(lived))
    assert told.returncode == 0, told.stderr
    if victim["id"] == learnt:
        assert "--retire takes them out of service" in told.stdout
    assert not (lived / "nights" / night.id).exists() or victim["id"] != learnt
    rows = ctl(lived, "memory", "search", victim["prompt"], "-n", "100")
    assert victim["id"] not in {row["trajectory_id"] for row in rows}
    left = next(t for t in trajectories(lived) if t["id"] == victim["id"])
    assert (left["outcome"], left["steps"], left["prompt"], left["reason"]) == (victim["outcome"], [], "", "forgotten")
    assert said
    done = ctl(lived, "memory", "forget", victim["id"], "--retire")
    assert done["memories"] == 0
    if victim["id"] == learnt:
        assert status(lived)["live"] == {}
        assert done["retired"] == done["adapters"] != []
        assert "was taken out of service" in ctl(lived, "adapters", "promote", done["retired"][0], code=1)
        assert ctl(lived, "adapters", "rollback")["live"] == {}


def test_it_is_asked_beside_the_work(tmp_path: Path) -> None:
    write_config(tmp_path, count=400, after=0)
    with daemon(tmp_path):
        # It may come while the worker is being started for the first tasks: there is one worker all the same.
        assert ask(tmp_path / "control.sock", "POST", "/memory/search", {"query": "gives None"}, timeout=90) == []
        until(lambda: status(tmp_path)["tasks_ended"] >= 8, "eight tasks")
        busy = 0
        for _ in range(20):
            doing = status(tmp_path)["doing"]["tasks"]
            assert ask(tmp_path / "control.sock", "POST", "/memory/search", {"query": "gives None"})
            busy += bool(doing)
        assert busy > 5
        assert "pause" in ctl(tmp_path, "memory", "rebuild", code=1)
        assert len(run("logs", "--home", str(tmp_path), "--event", "worker.started").stdout.splitlines()) == 1


def test_without_a_daemon_the_index_is_made_anew_after_it_was_deleted_or_damaged(lived: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(lived, home, ignore=shutil.ignore_patterns("*.sock", "*.lock", "scratch"))
    found = ctl(home, "memory", "search", "always gives None")
    assert found
    shutil.rmtree(home / "chroma")
    assert ctl(home, "memory", "search", "always gives None") == found
    for path in (home / "chroma").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\0garbage" * 500)
    assert ctl(home, "memory", "rebuild")["memories"] > 0
    assert ctl(home, "memory", "search", "always gives None") == found


@pytest.mark.parametrize(("arm", "recalls", "adapts"), [("knowledge", True, False), ("base", False, False)])
def test_an_arm_uses_what_it_is_made_of_and_nothing_else(tmp_path: Path, arm: str, recalls: bool, adapts: bool) -> None:
    write_config(tmp_path, count=8, after=0)
    config = tmp_path / "sleepyd.toml"
    config.write_text(f'arm = "{arm}"\n' + config.read_text())
    with daemon(tmp_path):
        until(lambda: status(tmp_path)["tasks_ended"] == 8, "eight tasks")
        if recalls:
            night = json.loads(run("sleep-now", "--wait", "--json", "--home", str(tmp_path), timeout=120).stdout)
            assert (night["promoted"], night["why"]) == (False, "this arm trains no adapter")
            assert ctl(tmp_path, "memory", "handbook", "bank")
        else:
            assert "nothing is ever learnt" in run("sleep-now", "--home", str(tmp_path)).stdout
            assert ctl(tmp_path, "memory", "stats")["memories"] == 0
            assert "has no knowledge" in ctl(tmp_path, "memory", "search", "x", code=1)
            assert not (tmp_path / "chroma").exists()
        assert AdapterStore(tmp_path / "adapters").list() == []
        assert Publisher(tmp_path / "live", AdapterStore(tmp_path / "adapters")).live() == {}
    assert any(t["prompt"].startswith("past case") for t in trajectories(tmp_path)) is recalls


def test_no_attempt_goes_on_without_its_knowledge(tmp_path: Path) -> None:
    write_config(tmp_path, count=4, after=0, more='[knowledge]\nurl = "http://127.0.0.1:9"\n')
    with daemon(tmp_path):
        until(lambda: "http://127.0.0.1:9" in status(tmp_path)["holding"], "it to say what is away")
        assert status(tmp_path)["tasks_ended"] == 0
    assert trajectories(tmp_path) == []


def test_a_worker_killed_while_it_is_asked_is_told_of_and_replaced(tmp_path: Path) -> None:
    write_config(tmp_path, count=4, after=0)
    with daemon(tmp_path) as process:
        until(lambda: status(tmp_path)["tasks_ended"] == 4, "four tasks")
        for worker in children(process.pid):
            kill(worker)
        until(lambda: status(tmp_path)["worker_pid"] is None, "the worker to be gone")
        assert ctl(tmp_path, "memory", "search", "None")
