"""A whole life: the daemon as its owner meets it, and what may befall it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.client import ask
from memory.store import Store
from memory.trajectories import Outcome
from tests.daemon.running import children, daemon, kill, run, status, until, write_config

OWN_TASK = {
    "task": {
        "id": "fees-1",
        "repo": "fees",
        "issue": "`fee` gives one too few.",
        "created_at": "2026-11-21T08:00:00Z",
        "position": 0,
        "difficulty": "<15 min fix",
    },
    "files": {
        "fees/__init__.py": "",
        "fees/core.py": "def fee(n):\n    return n - 1\n",
        "tests/test_core.py": "from fees.core import fee\n\ndef test_fee():\n    assert fee(2) == 2\n",
    },
    "tests": {"tests/test_core.py": "from fees.core import fee\n\ndef test_fee():\n    assert fee(5) == 5\n"},
    "fail_to_pass": ["test_core.py::test_fee"],
}


def events(home: Path, *names: str) -> list[dict[str, object]]:
    """What was logged under these names, in order."""
    lines = run("logs", "--home", str(home), "--json", "-n", "0" if not names else "1000").stdout.splitlines()
    return [record for line in lines if (record := json.loads(line))["event"] in names]


@pytest.fixture(scope="module")
def slept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A daemon that has worked through its tasks and held one night at its owner's wish."""
    home = tmp_path_factory.mktemp("slept")
    write_config(home, count=6, after=0)
    with daemon(home):
        until(lambda: status(home)["tasks_ended"] == 6, "six tasks")
        done = run("sleep-now", "--wait", "--json", "--home", str(home), timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["promoted"]
        yield home


def test_a_night_that_was_asked_for_leaves_an_adapter_live_and_its_verdict_on_record(slept: Path) -> None:
    now = status(slept)
    assert now["last_verdict"]["promoted"]
    assert list(now["live"]) == ["bank"]
    assert "promoted" in run("nights", "--home", str(slept)).stdout
    states = [record["to"] for record in events(slept, "daemon.state")]
    assert states[:5] == ["starting", "awake", "falling asleep", "asleep", "waking"]
    night = events(slept, "night.closed")[0]
    assert night["night"] == now["last_night"]
    assert {record["config"] for record in events(slept, "task.ended", "night.closed")} == {now["config_hash"]}


def test_a_second_night_is_refused_while_nothing_is_new(slept: Path) -> None:
    done = run("sleep-now", "--home", str(slept))
    assert done.returncode == 1
    assert "no task has ended since the last night" in done.stdout


def test_going_back_is_one_command_and_can_be_undone(slept: Path) -> None:
    before = status(slept)["live"]
    assert run("adapters", "rollback", "--home", str(slept)).returncode == 0
    assert status(slept)["live"] == {}
    assert run("adapters", "promote", before["bank"], "--home", str(slept)).returncode == 0
    assert status(slept)["live"] == before


def test_an_adapter_that_no_night_promoted_cannot_be_put_to_work(slept: Path) -> None:
    adapters = AdapterStore(slept / "adapters")
    good = adapters.list()[0]
    stray = slept / "stray"
    shutil.copytree(good.folder, stray)
    config = json.loads((stray / "adapter_config.json").read_text()) | {"lora_alpha": 1}
    (stray / "adapter_config.json").write_text(json.dumps(config))
    other = adapters.admit(stray, good.manifest)
    done = run("adapters", "promote", other.id, "--home", str(slept))
    assert done.returncode == 1
    assert "never passed the gate" in done.stderr


def test_a_changed_configuration_is_taken_over_and_an_invalid_one_is_not(slept: Path) -> None:
    text = (slept / "sleepyd.toml").read_text()
    before = status(slept)["config_hash"]
    (slept / "sleepyd.toml").write_text(text.replace("batch = 4", "btach = 3"))
    until(lambda: status(slept)["config_problem"] != "", "the refusal")
    assert "did you mean 'batch'" in status(slept)["config_problem"]
    assert status(slept)["config_hash"] == before
    (slept / "sleepyd.toml").write_text(text.replace("batch = 4", "batch = 3"))
    until(lambda: status(slept)["config_hash"] != before, "the change")
    assert status(slept)["config_problem"] == ""
    (slept / "sleepyd.toml").write_text(text)
    until(lambda: status(slept)["config_hash"] == before, "the change back")


def test_a_configuration_that_is_deleted_stays_in_force_and_is_missed(slept: Path) -> None:
    text, before = (slept / "sleepyd.toml").read_text(), status(slept)["config_hash"]
    (slept / "sleepyd.toml").unlink()
    until(lambda: "is gone" in status(slept)["config_problem"], "the complaint")
    assert status(slept)["config_hash"] == before
    (slept / "sleepyd.toml").write_text(text)
    until(lambda: status(slept)["config_problem"] == "", "the file to be seen again")


def test_a_list_of_tasks_is_taken_in_whole_or_not_at_all_and_twice_does_no_harm(slept: Path) -> None:
    run("pause", "--home", str(slept))
    tasks = [json.loads(json.dumps(OWN_TASK)) for _ in range(2)]
    tasks[0]["task"]["id"], tasks[1]["task"]["id"] = "many-1", "bank-stream-0-0"
    (slept / "inbox" / "bad.json").write_text(json.dumps(tasks))
    until(lambda: (slept / "inbox" / "rejected" / "bad.json.why").exists(), "the refusal")
    with Store(slept / "sleepy.db", read_only=True) as store:
        assert "many-1" not in {task.id for task in store.tasks()}
    tasks[1]["task"]["id"] = "many-2"
    for name in ("good.json", "again.json"):
        (slept / "inbox" / name).write_text(json.dumps(tasks))
        until(lambda name=name: (slept / "inbox" / "accepted" / name).exists(), name)  # type: ignore[misc]
    with Store(slept / "sleepy.db", read_only=True) as store:
        assert [task.id for task in store.tasks()].count("many-1") == 1
    plan = json.loads(run("sleep-now", "--dry-run", "--json", "--home", str(slept)).stdout)
    assert "fees" not in plan["merged_fixes"]  # no fix of theirs is known
    for name in ("many-1", "many-2"):
        (slept / "tasks" / f"{name}.json").unlink()
    run("resume", "--home", str(slept))


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="code of one's own needs bubblewrap")
def test_a_task_in_the_inbox_is_worked_on_and_a_bad_one_is_put_aside_with_the_reason(slept: Path) -> None:
    ended = status(slept)["tasks_ended"]
    evil = json.loads(json.dumps(OWN_TASK))
    evil["task"]["id"] = "evil-1"
    evil["files"]["../outside.py"] = "x = 1\n"
    (slept / "inbox" / "evil.json").write_text(json.dumps(evil))
    (slept / "inbox" / "broken.json").write_text('{"task": ')
    (slept / "inbox" / "fees.json").write_text(json.dumps(OWN_TASK))
    until(lambda: status(slept)["tasks_ended"] == ended + 1, "the task's end")
    assert run("tasks", "--home", str(slept), "--json").stdout.count("fees-1") == 1
    assert "no path inside a repository" in (slept / "inbox" / "rejected" / "evil.json.why").read_text()
    assert (slept / "inbox" / "rejected" / "broken.json.why").is_file()
    assert (slept / "inbox" / "accepted" / "fees.json").is_file()
    assert not (slept.parent / "outside.py").exists()


def test_exported_trajectories_can_be_taken_in_elsewhere_once(slept: Path, tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    assert run("trajectories", "--home", str(slept), "--out", str(out)).returncode == 0
    write_config(tmp_path / "other", count=1, after=0)
    with daemon(tmp_path / "other"):
        inbox = tmp_path / "other" / "inbox"
        for name in ("first.jsonl", "second.jsonl"):
            shutil.copy(out, tmp_path / name)
            (tmp_path / name).rename(inbox / name)
            until(lambda name=name: not (inbox / name).exists(), "the inbox to be emptied")  # type: ignore[misc]
        assert (inbox / "accepted" / "first.jsonl.report").exists()
        assert "already recorded" in (inbox / "rejected" / "second.jsonl.why").read_text()
    with Store(tmp_path / "other" / "sleepy.db", read_only=True) as store:
        assert {t.id for t in store.trajectories()} >= {json.loads(line)["id"] for line in out.read_text().splitlines()}
        assert len(store.results()) <= 1


def test_wake_now_ends_the_night_without_a_promotion(tmp_path: Path) -> None:
    write_config(tmp_path, count=4, after=0, more="")
    with daemon(tmp_path):
        until(lambda: status(tmp_path)["tasks_ended"] == 4, "four tasks")
        assert run("sleep-now", "--home", str(tmp_path)).returncode == 0
        until(lambda: status(tmp_path)["doing"]["step"].startswith("train"), "training")
        assert run("wake-now", "--home", str(tmp_path)).returncode == 0
        until(lambda: status(tmp_path)["state"] == "awake", "waking up")
        now = status(tmp_path)
        assert (now["nights"], now["last_verdict"]["promoted"], now["live"]) == (1, False, {})
        assert "woken by the owner" in now["last_verdict"]["why"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order_and_the_work_goes_on_later(tmp_path: Path, number: int) -> None:
    write_config(tmp_path, count=8, after=0)
    with daemon(tmp_path) as process:
        until(lambda: status(tmp_path)["doing"]["tasks"] != [], "a task")
        kill(process.pid, number)
        assert process.wait(20) == 0
    assert [record["to"] for record in events(tmp_path, "daemon.state")][-2:] == ["stopping", "stopped"]
    assert not (tmp_path / "control.sock").exists()
    with daemon(tmp_path):
        until(lambda: status(tmp_path)["tasks_ended"] == 8, "all tasks")
    with Store(tmp_path / "sleepy.db", read_only=True) as store:
        lost = [t for t in store.trajectories() if t.outcome is Outcome.INFRASTRUCTURE_FAILURE]
        assert all(t.reason == "interrupted" for t in lost)


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    write_config(tmp_path, count=8, after=0)
    config = tmp_path / "sleepyd.toml"
    config.write_text(config.read_text().replace("grace_seconds = 5", "grace_seconds = 600"))
    with daemon(tmp_path) as process:
        until(lambda: status(tmp_path)["doing"]["tasks"] != [], "a task")
        worker = children(process.pid)[0]
        kill(worker, signal.SIGSTOP)  # a worker that cannot stop
        kill(process.pid, signal.SIGTERM)
        time.sleep(1)
        assert process.poll() is None
        kill(process.pid, signal.SIGTERM)
        process.wait(20)
        assert not Path(f"/proc/{worker}").exists()


def test_a_worker_that_dies_again_and_again_is_waited_for_longer_and_told(tmp_path: Path) -> None:
    write_config(tmp_path, count=8, after=0)
    with daemon(tmp_path) as process:
        for _ in range(2):
            until(lambda: children(process.pid) != [] and status(tmp_path)["doing"]["tasks"] != [], "a working worker")
            kill(children(process.pid)[0])
            until(lambda: "the worker process ended" in status(tmp_path)["holding"], "the complaint")
        waits = [record["retry_seconds"] for record in events(tmp_path, "daemon.error")]
        assert waits[0] == 1.0
        until(lambda: status(tmp_path)["tasks_ended"] == 8, "all tasks all the same")


def test_a_damaged_store_is_named_with_what_to_do(slept: Path, tmp_path: Path) -> None:
    write_config(tmp_path)
    with Store(slept / "sleepy.db", read_only=True) as store:
        assert store.check() == ""
    shutil.copy(slept / "sleepy.db", tmp_path / "sleepy.db")
    with (tmp_path / "sleepy.db").open("r+b") as file:
        file.seek(0)
        file.write(os.urandom(4096))
    done = run("run", "--home", str(tmp_path))
    assert done.returncode == 1
    assert "sleepy.db" in done.stderr.splitlines()[-1]
    assert "move it away" in done.stderr.splitlines()[-1]


def test_a_bad_configuration_keeps_it_from_starting_with_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "sleepyd.toml").write_text("[sleep]\nwindow = '2-6'\n")
    done = run("run", "--home", str(tmp_path))
    assert done.returncode == 1
    assert "sleep.window: write the window as HH:MM-HH:MM" in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("cannot mount a small tmpfs here (needs root)")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_on_a_full_disk_it_takes_no_task_says_so_and_goes_on_when_there_is_space(small_disk: Path) -> None:
    home = small_disk / "home"
    write_config(home, count=4, after=0)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (18 << 20))
    with daemon(home) as process:
        until(lambda: "free some space" in status(home)["holding"], "the complaint")
        assert status(home)["tasks_ended"] == 0
        with contextlib.suppress(OSError), ballast.open("ab") as file:
            while True:  # until it is really full: nothing can be written at all
                file.write(b"\0" * 4096)
                file.flush()
        run("pause", "--home", str(home))
        time.sleep(1)
        assert process.poll() is None
        ballast.unlink()
        run("resume", "--home", str(home))
        until(lambda: status(home)["tasks_ended"] == 4, "the tasks")
    with Store(home / "sleepy.db", read_only=True) as store:
        assert store.check() == ""


def test_a_read_only_state_directory_is_refused_with_one_line(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = run("run", "--home", str(small_disk / "home"))
    assert done.returncode == 1
    assert "cannot be used as the state directory" in done.stderr


def test_nothing_live_is_half_there_after_a_kill_while_publishing(slept: Path) -> None:
    publisher = Publisher(slept / "live", AdapterStore(slept / "adapters"))
    publisher.routes()
    assert ask(slept / "control.sock", "GET", "/status")["live"] == publisher.live()


def test_it_ends_when_its_state_directory_is_taken_away(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_config(home, count=1, after=0)
    with daemon(home) as process:
        until(lambda: status(home)["tasks_ended"] == 1, "the task")
        shutil.rmtree(home)
        assert process.wait(90) == 0
