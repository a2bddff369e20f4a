"""Solutions told again as clean turns: what an agent that knew the answer would have done.

Both sources of solutions end here. A merged fix of a task that is over becomes turns; an own
success that took detours (a wrong edit, a bad call) is told again without them. Nothing is
imagined: the turns are executed by the real loop in a real workspace, and a retelling whose
tests do not pass is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.errors import CallError
from agent.loop import Attempt, Budget, Recorder, run
from agent.models.scripted import ScriptedModel
from agent.tools import TestRunner, edit
from agent.turns import parse_call, render_call
from agent.workspace import Workspace
from consolidation.synthesis.merged_fix import calls_for
from memory.hashing import content_hash
from memory.tasks import MergedFix, Task
from memory.trajectories import Outcome, Trajectory

WorkspaceMaker = Callable[[str, Mapping[str, str]], Workspace]
"""From a name and files to a fresh workspace."""


@dataclass(frozen=True)
class Solution:
    """A known solution of a task: `files` is the tree before, `prompt` what the agent was told."""

    task: Task
    files: Mapping[str, str]
    prompt: str
    fix: MergedFix


def is_clean(trajectory: Trajectory) -> bool:
    """Whether a resolved attempt went straight to its end: one edit, no bad call, no failed test run."""
    edits = sum(step.tool == "edit" for step in trajectory.steps)
    return edits == 1 and all(not step.malformed and step.tests_passed is not False for step in trajectory.steps)


def own_solution(
    trajectory: Trajectory, task: Task, files: Mapping[str, str], prompt: str, workspaces: WorkspaceMaker
) -> Solution | None:
    """The net change of a resolved attempt, rebuilt from its stored steps; None if not one searched-for file changed."""
    workspace = workspaces(f"own-{trajectory.id}", files)
    searched = ""
    for step in trajectory.steps:
        try:
            call = parse_call(step.said)
            if call.tool == "edit":
                edit(workspace, call)
            elif call.tool == "search" and not searched and step.observation != "no match":
                searched = call.target
        except CallError:
            continue
    after = workspace.snapshot()
    changed = [path for path in files if after.get(path) != files[path]]
    if len(changed) != 1 or not searched:
        return None
    path = changed[0]
    return Solution(
        task, files, prompt, MergedFix(task_id=task.id, symbol=searched, path=path, before=files[path], after=after[path])
    )


def retell(
    solutions: Sequence[Solution],
    workspaces: WorkspaceMaker,
    run_tests: TestRunner,
    recorder: Recorder,
    sandbox: str,
) -> Iterable[Trajectory]:
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
        attempts.append(Attempt(trajectory, workspaces(trajectory.id, solution.files), Budget()))
    for trajectory in run(attempts, ScriptedModel(scripts=scripts), run_tests, _passed_its_tests, recorder):
        if trajectory.resolved:
            yield trajectory


def _passed_its_tests(trajectory: Trajectory, files: Mapping[str, str]) -> tuple[Outcome, str]:
    runs = [step.tests_passed for step in trajectory.steps if step.tests_passed is not None]
    if runs and runs[-1]:
        return Outcome.RESOLVED, "the visible tests passed"
    return Outcome.UNRESOLVED, "the visible tests did not pass"
