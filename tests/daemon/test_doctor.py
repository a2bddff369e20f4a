"""The doctor: a healthy state directory is told healthy, and everything that is wrong is found and told with what to do."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.sandbox.ladder import probe
from daemon.doctor import PACKAGES, Check, examine
from daemon.home import Home, owned
from daemon.template import write_config
from eval.fetch import SOURCES
from eval.open_guards import BENCHMARKS
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory
from tests.daemon.disks import mounted
from tests.daemon.running import run

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = [
    "state directory",
    "configuration",
    "disk",
    "store",
    "daemon",
    "sandbox",
    "tasks",
    "engine",
    "guards",
    "knowledge",
    "clock",
    "versions",
]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAMAGED = "see docs/daemon.md, When the store is damaged"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """What `sleepyctl init` makes."""
    home = Home(tmp_path / "state")
    home.make()
    write_config(home.config, "pocket", "pocket", force=False)
    return home


def check(home: Home, name: str) -> Check:
    (found,) = [one for one in examine(home) if one.name == name]
    return found


def fill(path: Path, count: int = 40) -> None:
    """A store with some days in it."""
    with Store(path) as store:
        for number in range(count):
            task = Task(id=f"task-{number}", repo="r", issue="i", created_at=NOON, position=number, difficulty="easy")
            told = Trajectory(
                id=f"t{number}", task_id=task.id, repo="r", prompt="p" * 2000, model="m", started_at=NOON, config_hash="c"
            )
            store.add_task(task)
            store.began(told)
            store.stepped(told, Step(number=0, said="s" * 500, observation="", tool="search"))
            told.outcome = Outcome.RESOLVED
            store.ended(told, settles=True)


def tree(folder: Path) -> dict[str, tuple[int, float, int]]:
    return {str(path): ((found := path.stat()).st_mode, found.st_mtime, found.st_size) for path in folder.rglob("*")}


def in_child(code: str, home: Home, folder: Path = REPOSITORY) -> dict[str, Check]:
    """What the doctor says in a process of its own, in which `code` ran first."""
    script = f"""
import sys
{code}
from pathlib import Path
from daemon.doctor import examine
from daemon.home import Home

for check in examine(Home(Path(sys.argv[1]))):
    print(check.model_dump_json())
"""
    command = [sys.executable, "-c", script, str(home.root)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return {found.name: found for found in map(Check.model_validate_json, done.stdout.splitlines())}


# Healthy


def test_a_fresh_state_directory_is_healthy(home: Home) -> None:
    checks = examine(home)
    assert [one.name for one in checks] == NAMES
    assert {one.verdict for one in checks} <= {"ok", "warning"}, checks
    assert all(one.found for one in checks)


def test_a_used_state_directory_is_healthy(home: Home) -> None:
    fill(home.store, count=3)
    checks = {one.name: one for one in examine(home)}
    assert {one.verdict for one in checks.values()} <= {"ok", "warning"}, checks
    assert checks["store"].found == "3 tasks ended, 0 nights"


def test_whatever_is_not_ok_comes_with_what_to_do(home: Home) -> None:
    home.root.chmod(0o755)
    home.config.write_text("[day]\nbatch = 0\n")
    home.store.write_bytes(b"this is not a database" * 100)
    bad = [one for one in examine(home) if one.verdict != "ok"]
    assert len(bad) >= 3
    assert all(one.advice for one in bad)


def test_looking_changes_nothing(home: Home) -> None:
    fill(home.store, count=3)
    before = tree(home.root)
    examine(home)
    after = tree(home.root)
    for passing in ("-shm", "-wal"):  # SQLite's own, where nobody else has the store open
        after.pop(f"{home.store}{passing}", None)
    assert after == before


def test_before_init_it_says_how_to_begin_and_makes_nothing(tmp_path: Path) -> None:
    checks = {one.name: one for one in examine(Home(tmp_path / "state"))}
    assert checks["state directory"].verdict == "warning"
    assert "sleepyctl init" in checks["state directory"].advice
    assert {one.verdict for one in checks.values()} <= {"ok", "warning"}
    assert list(tmp_path.iterdir()) == []


# The state directory


@pytest.mark.parametrize("mode", [0o755, 0o701, 0o770, 0o740])
def test_a_directory_others_can_look_into_is_warned_of(home: Home, mode: int) -> None:
    home.root.chmod(mode)
    found = check(home, "state directory")
    assert (found.verdict, found.advice) == ("warning", f"chmod 700 {home.root}")


def test_a_file_in_its_place_is_a_failure(tmp_path: Path) -> None:
    file = tmp_path / "state"
    file.touch(mode=0o600)
    found = check(Home(file), "state directory")
    assert (found.verdict, found.found) == ("failed", f"{file} is no directory")
    assert check(Home(file / "below"), "state directory").verdict != "ok"


def test_a_read_only_disk_is_a_failure(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro,mode=700") as disk:
        found = check(Home(disk), "state directory")
        assert (found.verdict, found.found) == ("failed", f"{disk} cannot be written")


def test_somebody_elses_directory_is_a_failure(home: Home) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(home.root, 12345, 12345)
    found = check(home, "state directory")
    assert (found.verdict, found.found) == ("failed", f"{home.root} belongs to user 12345")


def test_a_path_too_long_for_a_socket_is_a_failure(tmp_path: Path) -> None:
    found = check(Home(tmp_path / ("n" * 120)), "state directory")
    assert found.verdict == "failed"
    assert "too long for a socket" in found.found


# The configuration


def test_a_mistake_in_the_configuration_is_a_failure_that_names_it(home: Home) -> None:
    home.config.write_text("[day]\nbatch = 0\n[nigth]\n")
    found = check(home, "configuration")
    assert found.verdict == "failed"
    assert [line.split(": ")[:2] for line in found.found.splitlines()] == [
        [str(home.config), "day.batch"],
        [str(home.config), "nigth"],
    ]
    assert "correct" in found.advice


@pytest.mark.parametrize("with_file", [False, True])
def test_a_mistake_in_the_environment_is_a_failure_that_names_the_variable(
    home: Home, monkeypatch: pytest.MonkeyPatch, with_file: bool
) -> None:
    if not with_file:
        home.config.unlink()
    monkeypatch.setenv("SLEEPYD_DAY__BACH", "3")
    found = check(home, "configuration")
    assert (found.verdict, found.found) == ("failed", "SLEEPYD_DAY__BACH: day.bach: unknown key; did you mean 'batch'?")


def test_without_a_file_the_defaults_are_named(home: Home) -> None:
    home.config.unlink()
    found = check(home, "configuration")
    assert found.verdict == "ok"
    assert found.found.startswith("defaults, no file (")


def test_a_broken_configuration_keeps_no_other_check_from_being_made(home: Home) -> None:
    home.config.write_text("[day\n")
    assert [one.name for one in examine(home) if one.verdict == "failed"] == ["configuration"]


# The disk


def test_a_disk_below_the_floor_is_a_failure(home: Home) -> None:
    home.config.write_text("[resources]\nfree_disk_mb = 1000000000\n")
    found = check(home, "disk")
    assert found.verdict == "failed"
    assert re.fullmatch(r"\d+ MiB free", found.found)
    assert found.advice == "free some space: it needs 1000000000 MiB to work"


def test_the_disk_that_counts_is_the_one_the_directory_is_on(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=3m") as disk:
        found = check(Home(disk / "not" / "there" / "yet"), "disk")
        assert (found.verdict, found.found) == ("failed", "3 MiB free")


# The store


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_corrupt_page_is_a_failure(home: Home, share: float) -> None:
    fill(home.store)
    content = bytearray(home.store.read_bytes())
    page = int(len(content) * share) // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    home.store.write_bytes(content)
    found = check(home, "store")
    assert (found.verdict, found.advice) == ("failed", DAMAGED)
    assert (REPOSITORY / "docs" / "daemon.md").exists()


def test_a_damage_that_only_the_check_of_the_whole_file_finds_is_a_failure(home: Home) -> None:
    fill(home.store)
    with closing(sqlite3.connect(home.store)) as stranger, stranger:
        stranger.execute("PRAGMA writable_schema = ON")
        stranger.execute("UPDATE sqlite_master SET sql = replace(sql, 'started_at, id', 'repo, id') WHERE type = 'index'")
    found = check(home, "store")
    assert (found.verdict, found.advice) == ("failed", DAMAGED)
    assert "trajectories_by_start" in found.found


def test_what_is_no_store_is_a_failure(home: Home) -> None:
    home.store.write_bytes(b"this is not a database" * 100)
    found = check(home, "store")
    assert (found.verdict, found.advice) == ("failed", DAMAGED)
    assert "sleepy.db cannot be read as a store" in found.found


def test_a_store_of_a_newer_version_is_a_failure_with_its_own_advice(home: Home) -> None:
    fill(home.store, count=1)
    with closing(sqlite3.connect(home.store)) as stranger, stranger:
        stranger.execute("INSERT INTO migrations (name) VALUES ('9999_of_tomorrow')")
    found = check(home, "store")
    assert (found.verdict, found.advice) == ("failed", "upgrade this program")
    assert "newer version (it has 9999_of_tomorrow)" in found.found


def test_a_store_that_is_empty_is_told_how_it_is_filled(home: Home) -> None:
    home.store.touch()
    found = check(home, "store")
    assert (found.verdict, found.advice) == ("failed", "start the daemon once to bring it up to date")


# The rest


def test_a_running_daemon_is_named_and_left_alone(home: Home) -> None:
    with owned(home.lock, "a daemon"):
        assert check(home, "daemon").found == f"runs, PID {os.getpid()}"
        assert check(home, "daemon").verdict == "ok"
    assert check(home, "daemon").found == "does not run"


@pytest.fixture
def without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", "/nowhere")
    probe.cache_clear()
    yield
    probe.cache_clear()


def test_without_a_sandbox_that_confines_it_says_what_works_and_what_to_install(home: Home, without_bubblewrap: None) -> None:
    found = check(home, "sandbox")
    assert found.verdict == "warning"
    assert "pocket world run in a limited process" in found.advice
    assert "install bubblewrap" in found.advice


def test_an_engine_without_its_weights_is_a_failure(home: Home, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    shutil.copytree(REPOSITORY / "agent", installed / "agent", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for room in ("daemon", "eval", "consolidation", "memory"):
        (installed / room).symlink_to(REPOSITORY / room)
    found = in_child("", home, installed)["engine"]
    assert found.verdict == "failed"
    assert "weights" in found.found
    assert found.advice == "install the package again, or run make pocket"


def test_an_engine_without_its_library_is_a_failure_and_not_a_crash(home: Home) -> None:
    found = in_child("sys.modules['torch'] = None", home)
    assert list(found) == NAMES
    assert found["engine"].verdict == "failed"
    assert "torch" in found["engine"].found


@pytest.mark.parametrize("name", ["store", "lock"])
def test_a_clock_that_was_set_back_is_a_failure(home: Home, name: str) -> None:
    path: Path = getattr(home, name)
    if name == "store":
        fill(path, count=1)
    path.touch()
    assert check(home, "clock").verdict == "ok"
    os.utime(path, (time.time() + 3600,) * 2)
    found = check(home, "clock")
    assert (found.verdict, found.advice) == ("failed", "set the clock; nights go by it")


def test_the_window_is_told_with_its_time_zone(home: Home) -> None:
    home.config.write_text('[sleep]\nwindow = "23:00-05:00"\ntimezone = "Europe/Berlin"\n')
    assert check(home, "clock").found.endswith("window 23:00-05:00 in Europe/Berlin")
    home.config.write_text('[sleep]\nwindow = ""\n')
    assert check(home, "clock").found.endswith("window none in the machine's time zone")


def test_the_versions_looked_for_are_of_what_the_program_needs() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(PACKAGES) <= {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}


# The command


def test_the_command_tells_it_to_people_and_to_programs_and_fails_if_something_did(home: Home) -> None:
    home.config.write_text("[day]\nbach = 1\n")
    told = run("doctor", "--home", str(home.root))
    assert told.returncode == 1, told.stderr
    assert "failed" in told.stdout  # where its words are wrapped depends on how long the folder's name is
    done = run("doctor", "--json", "--home", str(home.root))
    assert done.returncode == 1
    assert "did you mean 'batch'?" in done.stdout
    assert [one["name"] for one in json.loads(done.stdout) if one["verdict"] == "failed"] == ["configuration"]
    home.config.unlink()
    assert run("doctor", "--home", str(home.root)).returncode == 0


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is not installed (apt-get install sqlite3)")
def test_the_advice_for_a_damaged_store_saves_the_attempts_that_can_be_read(tmp_path: Path) -> None:
    home = Home(tmp_path / ".sleepyd")
    home.make()
    fill(home.store, count=300)
    content = bytearray(home.store.read_bytes())
    page = len(content) // 2 // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    home.store.write_bytes(content)
    chapter = (REPOSITORY / "docs" / "daemon.md").read_text().partition("## When the store is damaged")[2].partition("\n## ")[0]
    commands = [line[4:] for line in chapter.splitlines() if line.startswith("    ")]
    assert commands.pop() == "sleepyctl run"
    ours = f"sleepyctl() {{ {shlex.quote(sys.executable)} -c 'from daemon.cli import main; main()' \"$@\"; }}"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    environment.pop("SLEEPYD_HOME", None)
    script = "\n".join(["set -eu", ours, *commands])
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kept = {json.loads(line)["id"] for line in (home.inbox / "ended.jsonl").read_text().splitlines()}
    assert 295 <= len(kept) < 300
    assert not home.store.exists()


# What candidates are examined on


def test_without_the_benchmarks_no_night_of_another_model_can_be_promoted(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLEEPYD_DATA", raising=False)
    assert check(home, "guards").verdict == "ok"
    home.config.write_text('[model]\nkind = "torch:/models/qwen"\n')
    found = check(home, "guards")
    assert (found.verdict, found.advice) == ("warning", "sleepyctl data fetch humaneval; sleepyctl data fetch mbpp")
    assert "no night can be promoted" in found.found
    elsewhere = home.root / "elsewhere"
    elsewhere.mkdir()
    for benchmark in BENCHMARKS:
        monkeypatch.setenv("SLEEPYD_DATA", str(elsewhere))
        (elsewhere / SOURCES[benchmark].file).touch()
        found = check(home, "guards")
        assert "no night can be promoted" not in found.found
    assert found.verdict == "ok"
    monkeypatch.delenv("SLEEPYD_DATA")
    home.config.write_text('arm = "knowledge"\n[model]\nkind = "torch:/models/qwen"\n')
    assert check(home, "guards").found == "none needed, nights train no adapter"
