"""The inbox: files put there become tasks or recorded trajectories, or are put aside with the reason.

`NAME.json` is one task of the owner's own (`FileTask`) or a list of them, `NAME.jsonl` holds
trajectories as `sleepyctl trajectories` writes them. A file is taken in whole or not at all.

Other agents' sessions (`.traj`, `.traj.json`, Claude Code's `.jsonl`, and the `.session.json` of `sleepyctl ingest`)
are imported; of raw ones, which can hold secrets, only the report is kept once they are in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
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
from memory.ingest.ingest import BUNDLE, Bundle, is_claude_code, keep, new_of, read
from memory.store import Store
from memory.trajectories import Trajectory

ACCEPTED, REJECTED = "accepted", "rejected"
MAX_BYTES = 64 << 20
_TASKS: TypeAdapter[FileTask | list[FileTask]] = TypeAdapter(FileTask | list[FileTask])


async def take_in(home: Home, life: Life) -> None:
    """Take in every file of the inbox, in the order of their names; the event loop goes on meanwhile."""
    for path in sorted([*home.inbox.glob("*.json*"), *home.inbox.glob("*.traj")]):
        if not path.is_file() or path.is_symlink() or path.name.startswith("."):
            continue
        try:
            count = await asyncio.to_thread(_take, path, home, life.store)
        except (DaemonError, EvalError, StoreError, ValidationError, OSError, ValueError) as error:
            why = _short(error)
            life.log.error(Event.INBOX_REJECTED, file=path.name, error=why)
            with contextlib.suppress(OSError):  # on a full disk it stays where it is
                target = _move(path, home.inbox / REJECTED)
                target.with_name(target.name + ".why").write_text(why + "\n", encoding="utf-8")
        else:
            with contextlib.suppress(FileNotFoundError):
                _move(path, home.inbox / ACCEPTED)
            life.log.info(Event.INBOX_ACCEPTED, file=path.name, tasks=count)
            life.poke()


def _take(path: Path, home: Home, store: Store) -> int:
    if path.stat().st_size > MAX_BYTES:
        raise DaemonError(f"larger than {MAX_BYTES >> 20} MiB; split it")
    if path.name.endswith(BUNDLE):
        bundle = Bundle.model_validate_json(path.read_bytes()).checked()
        keep(store, bundle)
        return len(bundle.trajectories)
    if path.name.endswith((".traj", ".traj.json")) or (path.suffix == ".jsonl" and is_claude_code(path)):
        return _sessions(path, home, store)
    return _trajectories(path, store) if path.suffix == ".jsonl" else _tasks(path, home, store)


def _sessions(path: Path, home: Home, store: Store) -> int:
    """Import a raw file, and leave its report in its place; one that was imported before is only reported."""
    report, trajectories = read(path)
    if report.problem:
        raise DaemonError(report.problem)
    new = new_of(trajectories, store, report)
    keep(store, Bundle.of(new))
    (home.inbox / ACCEPTED).mkdir(mode=0o700, exist_ok=True)
    write_whole(home.inbox / ACCEPTED / f"{path.name}.report", report.model_dump_json(indent=2) + "\n")
    path.unlink()
    return len(new)


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
    return len(tasks)


def _trajectories(path: Path, store: Store) -> int:
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    trajectories = [Trajectory.model_validate_json(line) for line in lines]
    store.import_trajectories(trajectories)
    return len(trajectories)


def _move(path: Path, folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / path.name
    number = 1
    while target.exists():
        target = folder / f"{path.stem}.{number}{path.suffix}"
        number += 1
    return path.rename(target)


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5]]
        return "; ".join(lines)
    return str(error)[:1_000]
