"""The `Workplace` seam: where one attempt works, how its work is tested there, and what it is worth."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Protocol

from agent.tools import TestRun
from agent.workspace import Workspace
from memory.trajectories import Outcome


class Workplace(Protocol):
    """One attempt's workspace with its tests and its grading; made fresh for it, used by one thread at a time."""

    workspace: Workspace

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        """The tests the agent may see: all of them, or these (as it names them).

        Raises:
            SandboxError: they could not be started.
        """
        ...

    def diff(self) -> str:
        """What the agent has changed so far, as a unified diff; empty if nothing."""
        ...

    def grade(self) -> tuple[Outcome, str]:
        """Resolved, unresolved or infrastructure failure, and why; asked once, when the agent submits."""
        ...

    def close(self) -> None:
        """Remove it from the disk."""
        ...


def tree_diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Unified diff between two trees (path to text), in order of their paths."""
    parts: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            names = (f"a/{path}" if old is not None else "/dev/null", f"b/{path}" if new is not None else "/dev/null")
            lines = difflib.unified_diff((old or "").splitlines(True), (new or "").splitlines(True), *names)
            parts += [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
            if not (old or new):
                parts.append(f"--- {names[0]}\n+++ {names[1]}\n")
    return "".join(parts)
