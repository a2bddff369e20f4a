"""Ingest: files of other agents' sessions, found, read, redacted, reported, and kept in the store."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, select

from memory.errors import RecordError
from memory.ingest import claude_code, mini_swe_agent, swe_agent
from memory.ingest.redaction import Redactor
from memory.ingest.sessions import Session, SessionError, Skipped, parsed, task_of, trajectory_of
from memory.store import TASKS, TRAJECTORIES, Store
from memory.tasks import Task
from memory.trajectories import Outcome, Trajectory

MAX_BYTES = 64 << 20
SUFFIXES = (".traj", ".traj.json", ".jsonl")
BUNDLE = ".session.json"
"""How the file of a `Bundle` ends."""
_LOOKED_AT = 20


class FileReport(BaseModel):
    """What became of one file. `problem` is why nothing of it was taken; `known` sessions were imported before.

    `left_out` counts what readers leave out by design, `malformed` what could not be read, with its first `reasons`.
    """

    file: str
    reader: str = ""
    sessions: int = 0
    steps: int = 0
    known: int = 0
    redactions: dict[str, int] = {}
    left_out: dict[str, int] = {}
    malformed: int = 0
    reasons: list[str] = []
    notes: list[str] = []
    problem: str = ""


class Bundle(BaseModel):
    """Sessions that are redacted already, on their way to the daemon that owns the store."""

    model_config = ConfigDict(extra="forbid")

    trajectories: list[Trajectory]
    tasks: list[Task]

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> Bundle:
        """The bundle of some imported trajectories."""
        return cls(trajectories=list(trajectories), tasks=tasks_of(trajectories))

    def checked(self) -> Bundle:
        """The bundle itself. Raises `RecordError` if something in it could be taken for this program's own attempts."""
        for trajectory in self.trajectories:
            if not trajectory.imported or trajectory.outcome in (None, Outcome.RESOLVED, Outcome.INFRASTRUCTURE_FAILURE):
                raise RecordError(f"{trajectory.id} does not read like another agent's session; use `sleepyctl ingest`")
        if any(task.difficulty != "imported" or not task.id.startswith("imported-") for task in self.tasks):
            raise RecordError("a task in it does not read like an imported one; use `sleepyctl ingest`")
        return self


def files(paths: Sequence[Path]) -> Iterator[tuple[Path, FileReport | None]]:
    """Every file below some paths that can hold sessions, in order; with a report where it is not to be read.

    Links that lead out of a folder, and whatever is no regular file, are left out with a note.
    """
    for path in paths:
        if not path.is_dir():
            yield path, None
            continue
        root, found = path.resolve(), False
        closed: list[OSError] = []
        for folder, folders, names in os.walk(path, onerror=closed.append):
            folders.sort()
            for file in (Path(folder, name) for name in sorted(names) if name.endswith(SUFFIXES)):
                found = True
                yield file, _left_out(file, root)
        for error in closed:
            yield Path(error.filename), FileReport(file=shown(error.filename), problem=error.strerror or str(error))
        if not found and not closed:
            yield path, FileReport(file=shown(path), problem=f"no file in it ends in {', '.join(SUFFIXES)}")


def shown(path: Path | str) -> str:
    """A path as proper text: what of it is no UTF-8 becomes a mark."""
    return os.fsencode(path).decode("utf-8", "replace")


def _left_out(file: Path, root: Path) -> FileReport | None:
    try:
        if file.is_symlink() and not file.resolve().is_relative_to(root):
            return FileReport(file=shown(file), notes=["a link that leads out of the folder; left out"])
        if not file.is_file():
            return FileReport(file=shown(file), notes=["no regular file; left out"])
    except (OSError, RuntimeError) as error:  # RuntimeError: a link in a loop
        return FileReport(file=shown(file), problem=str(error))
    return None


def read(path: Path, repo: str = "") -> tuple[FileReport, list[Trajectory]]:
    """The sessions of one file as redacted trajectories, and the report; what is wrong with the file is in the report.

    `repo` is the repository to record instead of the one that the file names.
    """
    report, skipped, redactor = FileReport(file=shown(path)), Skipped(), Redactor()
    trajectories: list[Trajectory] = []
    try:
        with _opened(path) as file:
            changed = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
            sessions = _sessions(file, path.name, skipped)
        trajectories = [trajectory_of(session, changed, repo, redactor) for session in sessions]
    except (SessionError, OSError) as error:
        report.problem = str(error) if isinstance(error, SessionError) else error.strerror or str(error)
    else:
        if any(session.started_at is None for session in sessions):
            report.notes.append("it says no time; its sessions are dated by when the file was changed")
        if any(trajectory.repo == "unknown" for trajectory in trajectories):
            report.notes.append("it names no repository; give it with --repo")
        if not trajectories and skipped.malformed:
            report.problem = "no line of it could be read as a Claude Code session"
        elif not trajectories:
            report.notes.append("no session in it, only what is left out")
    report.reader = trajectories[0].imported if trajectories else ""
    report.sessions, report.steps = len(trajectories), sum(len(one.steps) for one in trajectories)
    report.redactions, report.left_out = dict(redactor.counts), dict(skipped.left_out)
    report.malformed, report.reasons = skipped.malformed, skipped.reasons
    return report, trajectories


def _opened(path: Path) -> IO[bytes]:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not make us wait
    state = os.fstat(handle)
    if not stat.S_ISREG(state.st_mode):
        os.close(handle)
        raise SessionError("no regular file")
    if state.st_size > MAX_BYTES:
        os.close(handle)
        raise SessionError(f"larger than {MAX_BYTES >> 20} MiB")
    return os.fdopen(handle, "rb")


def _sessions(file: IO[bytes], name: str, skipped: Skipped) -> list[Session]:
    if name.endswith(".jsonl"):
        return claude_code.read(file, skipped)
    value = parsed(file.read(MAX_BYTES + 1))
    stem = name.removesuffix(".json").removesuffix(".traj")
    if swe_agent.is_file(value):
        return swe_agent.read(value, stem, skipped)
    if mini_swe_agent.is_file(value):
        return mini_swe_agent.read(value, stem, skipped)
    raise SessionError("no session of SWE-agent or mini-swe-agent (Claude Code's end in .jsonl)")


def is_claude_code(path: Path) -> bool:
    """Whether one of the first lines of a file that can be read is one of Claude Code's."""
    with _opened(path) as file:
        for _ in range(_LOOKED_AT):
            line = file.readline(claude_code.LONGEST_LINE)
            try:
                if line.strip():
                    return claude_code.is_line(parsed(line))
            except SessionError:
                continue
    return False


def tasks_of(trajectories: Sequence[Trajectory]) -> list[Task]:
    """The tasks of imported sessions, one for each id; a benchmark's instance is none, because its stream brings it itself."""
    own = [trajectory for trajectory in trajectories if trajectory.task_id.startswith("imported-")]
    return list({trajectory.task_id: task_of(trajectory) for trajectory in reversed(own)}.values())


def new_of(trajectories: Sequence[Trajectory], store: Store | None, report: FileReport) -> list[Trajectory]:
    """Those that are not in the store yet, each once; what is known of them is noted in the report."""
    new: dict[str, Trajectory] = {}
    for trajectory in trajectories:
        is_known, continues = _known(store, trajectory) if store is not None else (False, False)
        if trajectory.id in new or is_known:
            report.known += 1
            continue
        if store is not None and store.is_forgotten(trajectory.id, trajectory.task_id):
            report.notes.append(f"{trajectory.id} was forgotten on request; it stays so")
            continue
        new[trajectory.id] = trajectory
        if continues:
            report.notes.append(f"{trajectory.id} continues a session that was imported before")
    return list(new.values())


def _known(store: Store, trajectory: Trajectory) -> tuple[bool, bool]:
    """Whether an imported session is in the store, and whether another version of it is."""
    columns = TRAJECTORIES.c
    with store.reading() as connection:
        if connection.execute(select(columns.id).where(columns.id == trajectory.id)).first():
            return True, False
        if not trajectory.task_id.startswith("imported-") or not _has_task(connection, trajectory.task_id):
            return False, False
        return False, connection.execute(select(columns.id).where(columns.task_id == trajectory.task_id)).first() is not None


def _has_task(connection: Connection, identity: str) -> bool:
    return connection.execute(select(TASKS.c.id).where(TASKS.c.id == identity)).first() is not None


def keep(store: Store, bundle: Bundle) -> None:
    """Record a file's sessions and their tasks, all or none.

    Raises:
        RecordError: if one of them is recorded already, or was forgotten.
    """
    store.import_trajectories(bundle.trajectories, bundle.tasks)
