"""A control group of its own for each run, where this machine lets us make one: a hard bound on processes and memory.

The watcher in `agent.sandbox.base` looks ten times a second and tells why it stopped a run; the group holds in between,
and knows its members however they detach. Version 1 hierarchies are used where they are mounted, else version 2 with
`pids` and `memory` delegated to children. Without either there is only the watcher (and `TasksMax=`, `MemoryMax=` of the unit).
"""

from __future__ import annotations

import functools
import os
import signal
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

SLACK_BYTES = 64 * 2**20
OLD_SECONDS = 60.0
_MOUNT = Path("/sys/fs/cgroup")
_FILES = {1: {"pids": "pids.max", "memory": "memory.limit_in_bytes"}, 2: {"pids": "pids.max", "memory": "memory.max"}}


class Group:
    """Folders of one run below this process's own groups; `close` kills what is inside and removes them."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = folders

    @classmethod
    def made(cls, processes: int, memory_bytes: int) -> Group | None:
        """A new group, or `None` where none can be made. Threads count as processes."""
        folders: list[Path] = []
        limits = {"pids": processes, "memory": memory_bytes + SLACK_BYTES}
        name = f"sleepy-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        for home, version, controllers in _homes():
            folder = home / name
            try:
                folder.mkdir()
                folders.append(folder)
                for controller in controllers:
                    (folder / _FILES[version][controller]).write_text(str(limits[controller]))
            except OSError:
                cls(folders).close()
                return None
        return cls(folders) if folders else None

    def entering(self, command: Sequence[str]) -> list[str]:
        """`command`, started by a shell that enters the group first."""
        steps = [f"echo $$ > '{folder}/cgroup.procs'" for folder in self.folders]
        return ["/bin/sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh", *command]

    def close(self, within: float = 3.0) -> None:
        """Kill every member until there is none, then remove the group. Only ever signals members."""
        until = time.monotonic() + within
        for folder in self.folders:
            with suppress(OSError):
                (folder / "pids.max").write_text("0")  # no more forks
        for folder in self.folders:
            while time.monotonic() < until:
                with suppress(OSError):
                    for pid in map(int, (folder / "cgroup.procs").read_text().split()):
                        if pid > 1:
                            with suppress(ProcessLookupError):
                                os.kill(pid, signal.SIGKILL)
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.002)  # the killed are still leaving


def _swept(home: Path) -> None:
    """Remove groups that killed owners left behind: only empty ones, and none that may just have been made."""
    for folder in home.glob("sleepy-*"):
        with suppress(OSError, ValueError):
            alive = Path(f"/proc/{int(folder.name.split('-')[1])}").exists()
            if not alive and time.time() - folder.stat().st_mtime > OLD_SECONDS:
                folder.rmdir()


@functools.cache
def _homes() -> tuple[tuple[Path, int, tuple[str, ...]], ...]:
    """Own group, version and controllers of each hierarchy in which children can be made, all or none."""
    try:
        lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return ()
    first = {c: _MOUNT / c / path.lstrip("/") for _, names, path in lines for c in names.split(",") if c in _FILES[1]}
    if first.keys() == _FILES[1].keys() and all(os.access(home, os.W_OK) for home in first.values()):
        for home in first.values():
            _swept(home)
        return tuple((home, 1, (controller,)) for controller, home in sorted(first.items()))
    for _, names, path in lines:
        home = _MOUNT / path.lstrip("/")
        if not names and os.access(home, os.W_OK):
            with suppress(OSError):
                if {"pids", "memory"} <= set((home / "cgroup.subtree_control").read_text().split()):
                    _swept(home)
                    return ((home, 2, ("pids", "memory")),)
    return ()
