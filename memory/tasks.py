"""Tasks. What the agent may see (`Task`) and what only grading may hold (`TaskSecret`) are
different types, so that no secret can reach a prompt, a memory, a pair or a log by accident.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class Task(BaseModel):
    """One task as the agent sees it.

    `position` is the 0-based place in its stream; `dependencies` are ids of earlier tasks that
    touched the same files; `difficulty` uses SWE-Bench-CL's labels; `created_at` is UTC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Text
    repo: Text
    issue: Text
    created_at: datetime
    position: int = Field(ge=0)
    difficulty: Text
    dependencies: tuple[str, ...] = ()


class MergedFix(BaseModel):
    """The change that upstream merged for a task; a stream gives it out only once the task is over.

    `path` is the changed file, `before`/`after` its whole text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: Text
    symbol: Text
    path: Text
    before: str
    after: str


class TaskSecret(BaseModel):
    """What decides a task. Its repr shows nothing, so that a log line cannot leak it.

    `tests` are the hidden test files (path to text); the two lists name test ids in them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: Text
    kind: Text
    fix: MergedFix | None = None
    tests: dict[str, str]
    fail_to_pass: tuple[str, ...] = Field(min_length=1)
    pass_to_pass: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TaskSecret({self.task_id}, ...)"

    __str__ = __repr__

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Nothing but the id, for whoever prints fields rather than the repr."""
        yield "task_id", self.task_id
