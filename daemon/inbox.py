"""The inbox: files put there become tasks or recorded trajectories, or are put aside with the reason.

`NAME.json` is one task of the owner's own (`FileTask`) or a list of them, `NAME.jsonl` holds
trajectories as `sleepyctl trajectories` writes them. A file is taken in whole or not at all.

Other agents' sessions (`.traj`, `.traj.json`, Claude Code's `.jsonl`, and the `.session.json` of `sleepyctl ingest`) are
imported; those that are known already are passed over. Of a file of sessions or trajectories only a report is kept once
they are in the store: there they can be forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from daemon.errors import DaemonError
from daemon.events import Event
from daemon.home import Home
from daemon.life import Life
from eval.errors import EvalError
from eval.files import FileTask, is_saved, save
from memory.errors import StoreError
from memory.files import write_whole
from memory.ingest.ingest import BUNDLE, Bundle, FileReport, is_claude_code, keep, new_of, read, shown
from memory.store import Store
from memory.trajectories import Trajectory

ACCEPTED, REJECTED = "accepted", "rejected"
MAX_BYTES = 64 << 20
_TASKS: TypeAdapter[FileTask | list[FileTask]] = TypeAdapter(FileTask | list[FileTask])


async def take_in(home: Home, life: Life) -> None:
    """Take in every file of the inbox, in the order of their names; the event loop goes on meanwhile."""
    for path in sorted([*home.inbox.glob("*.json*"), *home.inbox.glob("*.traj")]):
        if path.name.startswith("."):
            continue
        try:
            count = await asyncio.to_thread(_take, path, home, life.store)
        except (DaemonError, EvalError, StoreError, ValidationError, OSError, ValueError) as error:
            why = _short(error) if os.path.lexists(path) else "it was taken away before it was read"
            life.log.error(Event.INBOX_REJECTED, file=shown(path.name), error=why)
            with contextlib.suppress(OSError):  # on a full disk it stays where it is
                target = _move(path, home.inbox / REJECTED)
                target.with_name(target.name + ".why").write_text(why + "\n", encoding="utf-8")
        else:
            life.log.info(Event.INBOX_ACCEPTED, file=shown(path.name), tasks=count)
            life.poke()


def _take(path: Path, home: Home, store: Store) -> int:
    state = path.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise DaemonError("no regular file; put a copy of the file itself into the inbox")
    if state.st_size > MAX_BYTES:
        raise DaemonError(f"larger than {MAX_BYTES >> 20} MiB; split it")
    if path.suffix == ".json" and not path.name.endswith((BUNDLE, ".traj.json")):
        return _tasks(path, home, store)
    report = FileReport(file=shown(path.name))
    if path.name.endswith(BUNDLE):
        count = _keep(Bundle.model_validate_json(path.read_bytes()).checked().trajectories, store, report)
    elif path.suffix != ".jsonl" or is_claude_code(path):
        report, found = read(path)
        if report.problem:
            raise DaemonError(report.problem)
        count = _keep(found, store, report)
    else:
        count = _trajectories(path, store, report)
    _leave(path, state, home.inbox / ACCEPTED, report)
    return count


def _keep(sessions: list[Trajectory], store: Store, report: FileReport) -> int:
    new = new_of(sessions, store, report)
    keep(store, Bundle.of(new))
    report.reader = report.reader or ", ".join(sorted({one.imported for one in sessions}))
    report.sessions, report.steps = len(sessions), sum(len(one.steps) for one in sessions)
    return len(new)


def _trajectories(path: Path, store: Store, report: FileReport) -> int:
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    trajectories = [Trajectory.model_validate_json(line) for line in lines]
    store.import_trajectories(trajectories)
    report.reader = "sleepyctl trajectories"
    report.sessions, report.steps = len(trajectories), sum(len(one.steps) for one in trajectories)
    return len(trajectories)


def _leave(path: Path, state: os.stat_result, folder: Path, report: FileReport) -> None:
    """Put the report in the place of a file whose content is in the store; one that has grown meanwhile is read once more."""
    with contextlib.suppress(OSError):  # a report that finds no room must not cost what was taken in
        folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / f"{path.name}.report", report.model_dump_json(indent=2) + "\n")
    with contextlib.suppress(FileNotFoundError):
        now = path.lstat()
        if (now.st_ino, now.st_size, now.st_mtime_ns) == (state.st_ino, state.st_size, state.st_mtime_ns):
            path.unlink()


def _tasks(path: Path, home: Home, store: Store) -> int:
    found = _TASKS.validate_json(path.read_bytes())
    tasks = found if isinstance(found, list) else [found]
    known = {task.id for task in store.tasks()}
    for task in tasks:
        if task.task.id in known and not is_saved(home.tasks, task):
            raise DaemonError(f"task {task.task.id} is known already; give it another id")
        known.add(task.task.id)
    for task in tasks:
        save(home.tasks, task)
    store.add_tasks([task.task for task in tasks])  # a task is one from here on: what was saved before counts for nothing
    with contextlib.suppress(FileNotFoundError):
        _move(path, home.inbox / ACCEPTED)
    return len(tasks)


def _move(path: Path, folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / path.name
    number = 1
    while os.path.lexists(target):
        target = folder / f"{path.stem}.{number}{path.suffix}"
        number += 1
    return path.rename(target)


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5]]
        return "; ".join(lines)
    return str(error)[:1_000]
