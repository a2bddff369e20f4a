"""What the laboratory's ledger tells of registrations, cells and notes; and who may write to it."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from eval.errors import EvalError

State = Literal["waiting", "lived", "failed"]
NoteKind = Literal["exploratory", "warning", "check"]
REFUSED = "refused by the runner's own checks: "
OWNER = "runner.pid"


class Registration(BaseModel):
    """An experiment as it was locked, at a time (UTC). `seen` counts the lives of its earlier versions that were there by then:
    what version 2 claims may have been read off the results of version 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    version: int
    hash: str
    text: dict[str, Any]
    locked_at: AwareDatetime
    seen: int = 0


class CellRecord(BaseModel):
    """What is known of a cell: how often it was begun, by whom it was lived, in how many seconds, under which registration
    (its hash), or why it failed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    body: dict[str, Any]
    state: State
    tries: int
    error: str
    worker: str
    seconds: float | None
    ended_at: AwareDatetime | None
    registration: str | None


class Note(BaseModel):
    """A sentence that reports must carry: what is exploratory, a warning, or what the checks over all lives found."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: NoteKind
    text: str
    size: str
    at: AwareDatetime


def take(lab: Path) -> int:
    """The lock of a laboratory: of the folder itself, which nobody can delete under its holder. Closing the handle lets go.

    Raises:
        EvalError: another process holds it, or the folder cannot be used.
    """
    handle = -1
    try:
        lab.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(lab, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (lab / OWNER).write_text(f"{os.getpid()}\n", encoding="ascii")
    except OSError as error:
        if handle >= 0:
            os.close(handle)
        if isinstance(error, BlockingIOError):
            raise EvalError(f"another runner{_named(lab)} works in {lab}; wait for it, or choose another --lab") from error
        raise EvalError(f"{lab}: cannot be used ({error.strerror}); choose a local, writable folder with --lab") from error
    return handle


def _named(lab: Path) -> str:
    try:
        return f" (PID {int((lab / OWNER).read_text(encoding='ascii'))})"
    except (OSError, ValueError):
        return ""


def stamp(when: datetime) -> str:
    """A time as it is stored: UTC, ISO 8601."""
    return when.astimezone(UTC).isoformat()
