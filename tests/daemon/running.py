"""A real daemon in its own process, for tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daemon.client import ask
from daemon.errors import NoDaemonError

SMALL = """
[tasks]
repos = ["bank"]
count = {count}
[day]
batch = 4
[sleep]
window = ""
after_tasks = {after}
min_resolved = 2
replay_tasks = 12
[guard]
tasks = 8
retention_tasks = 0
conduct_tasks = 0
format_seeds = 1
[metrics]
tasks = 0
[night]
threads = 1
[night.lora]
epochs = 4
batch_size = 2
rank = 8
learning_rate = 0.006
[night.gate]
min_tasks = 8
margin = 0.95
limit = 0.99
chance = 1000
[night.gate.format]
margin = 0.95
limit = 0.99
chance = 1000
[resources]
free_disk_mb = 10
[life]
grace_seconds = 5
crashes = 50
"""
PATIENCE = 120.0


def write_config(home: Path, count: int = 8, after: int = 4, more: str = "") -> None:
    home.mkdir(parents=True, exist_ok=True)
    (home / "sleepyd.toml").write_text(SMALL.format(count=count, after=after) + more)


def sleepyctl(*arguments: str, first: str = "") -> list[str]:
    """The command line; `first` is Python that runs in the process before it."""
    return [sys.executable, "-c", f"{first}\nfrom daemon.cli import main; main()", *arguments]


def run(*arguments: str, timeout: float = 60, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(sleepyctl(*arguments), capture_output=True, text=True, timeout=timeout, check=False, **options)


def start(home: Path, first: str = "", **options: Any) -> subprocess.Popen[bytes]:
    command = sleepyctl("run", "--home", str(home), first=first)
    with (home / "stderr.txt").open("ab") as errors:
        return subprocess.Popen(command, stderr=errors, start_new_session=True, **options)


@contextmanager
def daemon(home: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon that answers; killed at the end if the test did not stop it."""
    process = start(home, **options)
    try:
        wait_for(home, process)
        yield process
    finally:
        kill(process.pid)
        process.wait()


def wait_for(home: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the daemon answers; fails at once if it ended instead."""
    until(lambda: answers(home) or process.poll() is not None, "the daemon to answer")
    assert process.poll() is None, (home / "stderr.txt").read_text()[-3000:]


def answers(home: Path) -> bool:
    try:
        ask(home / "control.sock", "GET", "/status", timeout=30)
    except NoDaemonError:
        return False
    return True


def status(home: Path) -> dict[str, Any]:
    return dict(ask(home / "control.sock", "GET", "/status"))


def until(true: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    patience = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < patience, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    assert pid > 1
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """PIDs of all children, and theirs."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def is_training(pid: int) -> bool:
    try:
        return b"consolidation.trainers.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
