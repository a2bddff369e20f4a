"""What the memory benchmark remembers and asks: past tasks as attempts, and which of them help with which later task.

Every task becomes one attempt in the agent's own words, as if it had been made before any later task came up:

- Pocket tasks are played in real workplaces by a script. Two of three are solved with what upstream merged; the third
  only looks and submits, so that a warning and the merged fix are remembered of it. An earlier task of the same
  repository helps if the fault is of the same kind (the house convention, or the same base kind).
- SWE-Bench-CL tasks are told as solved with the gold patch, through the full toolkit, without being run. An earlier
  task of the same repository helps if the two gold patches change a file in common.

What solves a task is used for this measurement alone, and lies nowhere but in its temporary folder.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent.distil import distil
from agent.loop import Attempt, Budget, NoRecorder, run
from agent.models.scripted import ScriptedModel
from agent.sandbox.base import Sandbox
from agent.turns import Call, render_call, render_full, render_issue
from consolidation.synthesis.merged_fix import calls_for
from eval.play import opened
from eval.pocket.stream import REPOSITORIES, PocketStream
from eval.swebench.dataset import Dataset, Order
from memory.knowledge.memories import Memory
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory

POCKET, SWE_BENCH_CL = "pocket", "swe-bench-cl"
MISSED = 3
"""Of so many pocket tasks one is not solved."""
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@ ?(.*)")
_FILE = re.compile(r"^diff --git .*\n", re.MULTILINE)
Hunk = tuple[int, str, list[str], list[str]]
"""The first line (from 1), what git names as its function, and the lines before and after."""


@dataclass(frozen=True)
class Past:
    """Tasks of one stream, oldest first; by task id what is remembered of each, its raw log, and its marks.

    Tasks of one repository that share a mark help one another.
    """

    stream: str
    tasks: Sequence[Task]
    lessons: dict[str, list[Memory]]
    logs: dict[str, str]
    marks: dict[str, frozenset[str]]

    def known(self, task: Task) -> list[str]:
        """Ids of the tasks of its repository that came before it."""
        mine = [t.id for t in self.tasks if t.repo == task.repo]
        return mine[: mine.index(task.id)]

    def relevant(self, task: Task) -> frozenset[str]:
        """Those of them that help with it."""
        return frozenset(one for one in self.known(task) if self.marks[one] & self.marks[task.id])


def pocket(seed: int, repos: Sequence[str], count: int, sandbox: Sandbox) -> Past:
    """`count` tasks of each repository of the pocket world of a seed."""
    stream = PocketStream(seed, tuple(repos), count)
    tasks = stream.tasks()
    scripts, missed = {}, set()
    for task in tasks:
        calls = calls_for(stream.merged_fix(task))
        if (task.position // len(REPOSITORIES)) % MISSED == MISSED - 1:
            missed.add(task.id)
            calls = [calls[0], calls[1], calls[-1]]
        scripts[task.id] = [render_call(call) for call in calls]
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:
        scratch = Path(name).resolve()
        attempts = [
            Attempt(_attempt(task), partial(opened, stream, task, scratch / task.id, sandbox), Budget()) for task in tasks
        ]
        played = {t.task_id: t for t in run(attempts, ScriptedModel(scripts=scripts), NoRecorder())}
    return Past(
        POCKET,
        tasks,
        {t.id: distil(played[t.id], t, stream.merged_fix(t) if t.id in missed else None) for t in tasks},
        {t.id: log(played[t.id]) for t in tasks},
        {t.id: frozenset({stream.secret(t).kind}) for t in tasks},
    )


def swe_bench_cl(data: Dataset, repos: Sequence[str]) -> Past:
    """The tasks of these repositories, each remembered as if it had been solved."""
    tasks = data.tasks(repos, Order.CHRONOLOGICAL)
    told = {task.id: solved(task, data.secret(task.id).patch) for task in tasks}
    return Past(
        SWE_BENCH_CL,
        tasks,
        {task.id: distil(told[task.id], task) for task in tasks},
        {task.id: log(told[task.id]) for task in tasks},
        {task.id: frozenset(data.secret(task.id).modified_files) for task in tasks},
    )


def log(trajectory: Trajectory) -> str:
    """An attempt as it was: the prompt, and all that was said and seen."""
    return "\n".join([trajectory.prompt, *(text for step in trajectory.steps for text in (step.said, step.observation))])


def solved(task: Task, patch: str) -> Trajectory:
    """An attempt with the full toolkit that sees what a git diff changes, changes it, and submits."""
    trajectory = _attempt(task)
    trajectory.system, trajectory.outcome = "Solve the issue.", Outcome.RESOLVED
    for path, hunks in changes(patch).items():
        if [hunk[0] for hunk in hunks] == [0]:
            _step(trajectory, Call("create", path, body="\n".join(hunks[0][3])), f"{path}: created")
            continue
        seen: dict[int, str] = {}
        for start, name, before, _ in hunks:
            seen |= {start - 1: name} if name and start > 1 else {}
            seen |= dict(enumerate(before, start))
        _step(trajectory, Call("view", path), "\n".join(f"{number:>5}|{line}" for number, line in sorted(seen.items())))
        for start, _, before, after in reversed(hunks):  # from the end, so that the numbers hold
            end = start + len(before) - 1
            _step(
                trajectory, Call("edit", path, start, end, body="\n".join(after)), f"{path}: replaced lines {start}-{end}; now"
            )
    _step(trajectory, Call("submit"), "submitted")
    return trajectory


def changes(patch: str) -> dict[str, list[Hunk]]:
    """The hunks of a git diff by file, in order. A file that the diff adds has one that starts at line 0."""
    found: dict[str, list[Hunk]] = {}
    for part in _FILE.split(patch)[1:]:
        hunks: list[Hunk] = []
        path = ""
        for line in part.split("\n"):
            if not hunks and line.startswith(("--- a/", "+++ b/")):
                path = line[6:].rstrip("\t")
            elif match := _HUNK.match(line):
                hunks.append((int(match.group(1)), match.group(2), [], []))
            elif hunks and line[:1] in (" ", "-", "+"):
                hunks[-1][2].extend([line[1:]] if line[0] != "+" else [])
                hunks[-1][3].extend([line[1:]] if line[0] != "-" else [])
        if path and hunks:
            found[path] = hunks
    return found


def _attempt(task: Task) -> Trajectory:
    return Trajectory(
        id=task.id,
        task_id=task.id,
        repo=task.repo,
        prompt=render_issue(task.repo, task.issue),
        model=ScriptedModel.name,
        started_at=task.created_at,
        config_hash="bench-memory",
    )


def _step(trajectory: Trajectory, call: Call, seen: str) -> None:
    said = render_full(call)
    trajectory.steps.append(Step(number=len(trajectory.steps), said=said, observation=seen, tool=call.tool))
