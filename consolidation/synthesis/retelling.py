"""Solutions told again as clean turns: what an agent that knew the answer would have done.

Both sources of solutions end here. A merged fix of a task that is over becomes turns; an own
success that took detours (a wrong edit, a bad call) is told again without them. Nothing is
imagined: the turns are executed by the real loop in a real workspace, and a retelling whose
tests do not pass is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from agent.errors import AgentError, CallError
from agent.loop import Attempt, Budget, Recorder, run
from agent.models.scripted import ScriptedModel
from agent.tools import TestRun, edit
from agent.turns import parse_call, render_call
from agent.workplace import Workplace
from consolidation.synthesis.merged_fix import calls_for
from memory.hashing import content_hash
from memory.tasks import MergedFix, Task
from memory.trajectories import Outcome, Trajectory

Opener = Callable[[str, Task], Workplace]
"""From a name and a task to a fresh workplace."""


@dataclass(frozen=True)
class Solution:
    """A known solution of a task; `prompt` is what the agent was told."""

    task: Task
    prompt: str
    fix: MergedFix


def is_clean(trajectory: Trajectory) -> bool:
    """Whether a resolved attempt went straight to its end: one edit, no bad call, no failed test run."""
    edits = sum(step.tool == "edit" for step in trajectory.steps)
    return edits == 1 and all(not step.malformed and step.tests_passed is not False for step in trajectory.steps)


def own_solution(trajectory: Trajectory, task: Task, prompt: str, opener: Opener) -> Solution | None:
    """The net change of a resolved attempt, rebuilt from its stored steps.

    None if not one searched-for file changed, or the task cannot be opened here any more.
    """
    try:
        place = opener(f"own-{trajectory.id}", task)
    except (AgentError, OSError):
        return None
    workspace = place.workspace
    searched = ""
    before: dict[str, str] = {}
    try:
        for step in trajectory.steps:
            try:
                call = parse_call(step.said)
                if call.tool == "edit":
                    before.setdefault(call.target, workspace.read(call.target))
                    edit(workspace, call)
                elif call.tool == "search" and not searched and step.observation != "no match":
                    searched = call.target
            except CallError:
                continue
        after = {path: workspace.read(path) for path in before}
    finally:
        place.close()
    changed = [path for path in before if after[path] != before[path]]
    if len(changed) != 1 or not searched:
        return None
    path = changed[0]
    return Solution(
        task, prompt, MergedFix(task_id=task.id, symbol=searched, path=path, before=before[path], after=after[path])
    )


def retell(solutions: Sequence[Solution], opener: Opener, recorder: Recorder, sandbox: str) -> Iterable[Trajectory]:
    """Play each solution as turns; yields only those whose visible tests passed."""
    started = datetime.now(UTC)
    scripts: dict[str, list[str]] = {}
    attempts: list[Attempt] = []
    for number, solution in enumerate(solutions):
        trajectory = Trajectory(
            id=content_hash(["retold", solution.task.id, solution.fix, number, started]),
            task_id=solution.task.id,
            repo=solution.task.repo,
            prompt=solution.prompt,
            model=ScriptedModel.name,
            origin="merged_fix",
            started_at=started,
            config_hash=content_hash(["retold", solution.fix]),
            sandbox=sandbox,
        )
        scripts[trajectory.id] = [render_call(call) for call in calls_for(solution.fix)]
        place = partial(_Rehearsal.opened, opener, trajectory.id, solution.task)
        attempts.append(Attempt(trajectory, place, Budget()))
    for trajectory in run(attempts, ScriptedModel(scripts=scripts), recorder):
        if trajectory.resolved:
            yield trajectory


class _Rehearsal:
    """A workplace that grades by its last test run alone: the hidden tests have had their say on this solution."""

    def __init__(self, place: Workplace) -> None:
        self._place, self._passed = place, False
        self.workspace, self.diff, self.close = place.workspace, place.diff, place.close

    @classmethod
    def opened(cls, opener: Opener, name: str, task: Task) -> Workplace:
        return cls(opener(name, task))

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        found = self._place.test(targets)
        self._passed = found.passed
        return found

    def grade(self) -> tuple[Outcome, str]:
        if self._passed:
            return Outcome.RESOLVED, "the visible tests passed"
        return Outcome.UNRESOLVED, "the visible tests did not pass"
