"""From a day's trajectories to training pairs: own successes, and merged fixes of tasks that are over."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent.distil import distil
from agent.loop import NoRecorder, Recorder
from agent.sandbox.base import Sandbox
from agent.turns import render_issue
from agent.workplace import Workplace
from consolidation.pairs import Pair, Source, pairs_of
from consolidation.synthesis.retelling import Solution, is_clean, own_solution, retell
from consolidation.synthesis.seam import Lived
from eval.play import opened
from eval.streams import TaskStream
from memory.knowledge.memories import Memory
from memory.tasks import Task
from memory.trajectories import Outcome, Trajectory

FAILED = (Outcome.UNRESOLVED, Outcome.GAVE_UP, Outcome.OUT_OF_BUDGET)
"""Outcomes of attempts that were graded, and did not resolve their task."""


def lessons_of_day(stream: TaskStream, trajectories: Sequence[Trajectory], merged_fixes: bool) -> dict[str, list[Memory]]:
    """Memories of a finished day, by the id of the attempt; with `merged_fixes`, also what upstream merged for the tasks that
    were not resolved."""
    tasks = {task.id: task for task in stream.tasks()}
    found: dict[str, list[Memory]] = {}
    for trajectory in trajectories:
        task = tasks[trajectory.task_id]
        fix = stream.merged_fix(task) if merged_fixes and not trajectory.resolved else None
        found[trajectory.id] = distil(trajectory, task, fix)
    return found


def lived_of_day(
    stream: TaskStream,
    trajectories: Sequence[Trajectory],
    sandbox: Sandbox,
    merged_fixes: bool,
    recorder: Recorder | None = None,
    terse: bool = True,
) -> list[Lived]:
    """What a finished day gave to learn from, own successes first.

    A success that went straight to its end is taken word for word, one with detours is told
    again without them. Only the `terse` protocol is told again: what a model that was told of its tools did is taken
    as it was, and a merged fix teaches it nothing. With `merged_fixes`, tasks that the agent did not resolve contribute the
    fix that upstream merged after they were over. Retrieved cases are left out of the prompts:
    the night teaches to do without them.
    """
    recorder = recorder or NoRecorder()
    tasks = {task.id: task for task in stream.tasks()}
    failed: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        if trajectory.outcome in FAILED:
            failed.setdefault(trajectory.task_id, []).append(_alone(trajectory, tasks[trajectory.task_id]))

    def lived(taught: Trajectory, source: Source) -> Lived:
        return Lived(tasks[taught.task_id], taught, source, tuple(failed.get(taught.task_id, ())))

    with tempfile.TemporaryDirectory(prefix="night-") as name:
        scratch = Path(name).resolve()

        def opener(identity: str, task: Task) -> Workplace:
            return opened(stream, task, scratch / identity, sandbox)

        found: list[Lived] = []
        solutions: list[tuple[Solution, str]] = []
        for trajectory in trajectories:
            task = tasks[trajectory.task_id]
            if not trajectory.resolved:
                continue
            alone = _alone(trajectory, task)
            if trajectory.system or is_clean(trajectory):
                found.append(lived(alone, "agent"))
            elif (own := own_solution(trajectory, task, alone.prompt, opener)) is not None:
                solutions.append((own, trajectory.id))
                failed.setdefault(trajectory.task_id, []).append(alone)
        told = {solution.task.id: attempt for solution, attempt in solutions}
        for trajectory in retell([solution for solution, _ in solutions], opener, recorder, sandbox.name):
            found.append(lived(trajectory.model_copy(update={"id": told[trajectory.task_id]}), "agent"))
        if merged_fixes and terse:
            solved = {t.task_id for t in trajectories if t.resolved}
            missed = {t.task_id: t.id for t in trajectories if t.task_id not in solved}
            known = [(tasks[i], fix) for i in missed if (fix := stream.merged_fix(tasks[i])) is not None]
            merged = [Solution(t, render_issue(t.repo, t.issue), fix) for t, fix in known]
            for trajectory in retell(merged, opener, recorder, sandbox.name):
                found.append(lived(trajectory.model_copy(update={"id": missed[trajectory.task_id]}), "merged_fix"))
        return found


def pairs_of_day(
    stream: TaskStream,
    trajectories: Sequence[Trajectory],
    sandbox: Sandbox,
    merged_fixes: bool,
    recorder: Recorder | None = None,
    terse: bool = True,
) -> list[Pair]:
    """The agent's own turns (format T) of what a finished day gave to learn from."""
    day = lived_of_day(stream, trajectories, sandbox, merged_fixes, recorder, terse)
    return [pair for lived in day for pair in pairs_of(lived.taught, lived.source)]


def _alone(trajectory: Trajectory, task: Task) -> Trajectory:
    """The attempt as if nothing had been recalled for it."""
    return trajectory.model_copy(update={"prompt": render_issue(task.repo, task.issue)})
