"""Playing tasks: from a stream, a model and a skill to graded trajectories."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import agent
from agent.errors import WorkplaceError
from agent.full import FULL, FULL_NATIVE
from agent.loop import Attempt, Budget, NoRecorder, Recorder, run
from agent.model import Model, Sampling, Speech
from agent.sandbox.base import Sandbox
from agent.session import TERSE, Toolkit
from agent.workplace import Workplace
from consolidation.mixture.serving import Served
from consolidation.skill import adapter_for
from eval.errors import EvalError
from eval.streams import TaskStream
from memory.arms import Arm
from memory.hashing import content_hash, source_hash
from memory.knowledge.seam import KnowledgeLayer, NoKnowledge
from memory.tasks import Task
from memory.trajectories import Outcome, Trajectory

TOOLKITS: Mapping[Speech, Toolkit] = {"terse": TERSE, "text": FULL, "native": FULL_NATIVE}
Routes = Mapping[str, Path]
"""Repository (or `consolidation.skill.ALL`) to the adapter folder that serves it; every other gets the bare base."""


@dataclass(frozen=True)
class Player:
    """Plays tasks with one model in one sandbox; what it plays is recorded as it happens.

    `knowledge` is asked when an attempt begins. `arm` names what the attempts work with, for their records. Mixtures of
    experts are kept in `mixtures`, or beside their adapter.
    """

    model: Model
    sandbox: Sandbox
    recorder: Recorder = field(default_factory=NoRecorder)
    budget: Budget = field(default_factory=Budget)
    width: int = 32
    knowledge: KnowledgeLayer = field(default_factory=NoKnowledge)
    arm: Arm | None = None
    mixtures: Path | None = None

    def play(
        self,
        stream: TaskStream,
        tasks: Sequence[Task],
        routes: Routes | None = None,
        sampling: Sampling | None = None,
        attempts: int = 1,
    ) -> Iterator[Trajectory]:
        """Attempt every task `attempts` times; trajectories are yielded as they end.

        Tasks are grouped by what serves them, so that an engine swaps only a few times; within a group they start in
        order. An attempt's `adapter` is the one its repository is routed to, also where that is a mixture, of which the
        configuration's hash says which weights answered; None where the bare base did.

        Raises:
            AdapterError: a mixture is damaged.
        """
        routed = {task.repo: adapter_for(routes or {}, task.repo) for task in tasks}
        switch = Served(self.mixtures)
        serving = {task.id: switch.route(adapter, task) for task in tasks if (adapter := routed[task.repo]) is not None}
        sampling = replace(sampling or Sampling(max_tokens=self.budget.turn_tokens), tools=self.toolkit.tools)
        folders = {serving.get(task.id) for task in tasks}
        with tempfile.TemporaryDirectory(prefix="day-") as name:
            scratch = Path(name).resolve()
            for folder in sorted(folders, key=str):
                self.model.use(folder)
                group = [task for task in tasks if serving.get(task.id) == folder]
                digest = self.config_hash(stream, sampling)
                yield from run(
                    (
                        self._attempt(stream, task, scratch, digest, routed[task.repo] if folder is not None else None, number)
                        for task in group
                        for number in range(attempts)
                    ),
                    self.model,
                    self.recorder,
                    sampling,
                    self.width,
                )
            self.model.use(None)

    @property
    def toolkit(self) -> Toolkit:
        """The tools that the model speaks of."""
        return TOOLKITS[self.model.speaks]

    def config_hash(self, stream: TaskStream, sampling: Sampling) -> str:
        """Hash of all that a result depends on, but for the task and what is known by then.

        Model and adapter, prompt, budgets, sampling, how knowledge is recalled, code.
        """
        code = source_hash((Path(agent.__file__).parent, *stream.graded_by))
        told = [self.toolkit.digest, self.knowledge.digest] if self.knowledge.digest else self.toolkit.digest
        return content_hash([self.model.fingerprint, told, self.budget, sampling, stream.name, self.sandbox.name, code])

    def _attempt(
        self,
        stream: TaskStream,
        task: Task,
        scratch: Path,
        digest: str,
        adapter: Path | None,
        number: int,
    ) -> Attempt:
        started = datetime.now(UTC)
        identity = content_hash([task.id, digest, number, started])
        recalled = self.knowledge.recall(task, started)
        self.knowledge.used(identity, recalled)
        trajectory = Trajectory(
            id=identity,
            task_id=task.id,
            repo=task.repo,
            system=self.toolkit.system,
            prompt=self.toolkit.prompt(task, recalled),
            model=self.model.name,
            adapter=adapter.name if adapter is not None else None,
            attempt=number,
            started_at=started,
            config_hash=digest,
            sandbox=self.sandbox.name,
            arm=self.arm or "",
            knowledge=recalled.version,
        )
        return Attempt(trajectory, partial(opened, stream, task, scratch / identity, self.sandbox), self.budget, self.toolkit)


def opened(stream: TaskStream, task: Task, root: Path, sandbox: Sandbox) -> Workplace:
    """A task of a stream, opened.

    Raises:
        AgentError, OSError: it cannot be made here; a `WorkplaceError` if the stream says so.
    """
    try:
        return stream.open(task, root, sandbox)
    except EvalError as error:
        raise WorkplaceError(str(error)) from error


@dataclass(frozen=True)
class Tally:
    """Resolved and all tasks of one kind."""

    tasks: int = 0
    resolved: int = 0

    @property
    def rate(self) -> float:
        """Share resolved; 0 where nothing was tried."""
        return self.resolved / self.tasks if self.tasks else 0.0


def by_kind(stream: TaskStream, trajectories: Sequence[Trajectory]) -> dict[str, Tally]:
    """Tallies by kind of task, in alphabetical order."""
    tasks = {task.id: task for task in stream.tasks()}
    table: dict[str, Tally] = {}
    for trajectory in trajectories:
        kind = stream.secret(tasks[trajectory.task_id]).kind
        old = table.get(kind, Tally())
        table[kind] = Tally(old.tasks + 1, old.resolved + (trajectory.outcome is Outcome.RESOLVED))
    return dict(sorted(table.items()))
