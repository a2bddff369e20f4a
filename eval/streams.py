"""The `TaskStream` seam: ordered tasks, each of which can be opened as a place to work."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from agent.sandbox.base import Sandbox
from agent.workplace import Workplace
from memory.tasks import MergedFix, Task, TaskSecret


class TaskStream(Protocol):
    """Ordered tasks. `secret` is for grading alone; `merged_fix` is history: ask for it only after the task ended.

    `name` changes whenever a task's content does.
    """

    name: str

    @property
    def graded_by(self) -> tuple[Path, ...]:
        """The sources that decide a verdict, files or folders; results carry their hash."""
        ...

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        ...

    def open(self, task: Task, root: Path, sandbox: Sandbox) -> Workplace:
        """A place to work at a task, whose files lie in the new folder `root` and whose programs run in `sandbox`.

        Raises:
            EvalError, RepositoryError, SandboxError, OSError: it cannot be made here.
        """
        ...

    def secret(self, task: Task) -> TaskSecret:
        """What decides the task."""
        ...

    def merged_fix(self, task: Task) -> MergedFix | None:
        """The change upstream merged, if one is known."""
        ...
