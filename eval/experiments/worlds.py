"""Where lives are lived: the tasks of a source in their order, what is examined unseen, a model, and what trains it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.loop import Budget
from agent.models.engines import POCKET, Weights, open_model, open_weights
from agent.sandbox.base import Sandbox
from agent.session import TERSE
from consolidation.guards import Guard
from consolidation.leaks import HeldOut
from consolidation.trainers.base import Trainer
from eval.coding.problems import data_folder, has, problems
from eval.errors import EvalError
from eval.exams import seat_of
from eval.experiments.life import DriftDesign, LifeConfig, SequenceDesign, SplitDesign
from eval.guard_config import GuardConfig
from eval.held_out import held_out_of, held_out_problems
from eval.metrics.rows import Attempted
from eval.open_guards import BENCHMARKS, open_guards
from eval.places import Places
from eval.play import Player, Routes
from eval.pocket.conventions import Drift
from eval.pocket.names import Split
from eval.pocket.stream import TASKS_PER_MODULE, task_id
from eval.sources import open_source
from eval.streams import TaskStream
from eval.swebench.splits import split
from eval.task_config import POCKET as POCKET_TASKS
from memory.trajectories import Outcome

WIDTH = 32
"""Attempts that go on at once: as many as the pocket model keeps in mind, more would be slower."""


@dataclass(frozen=True)
class Block:
    """One experience: `lived` are ids of the tasks that its night learns from (none: it is never learnt), `examined` those
    that are played in every row of the matrix. `sessions` tells how many were lived by its end."""

    name: str
    lived: tuple[str, ...]
    examined: tuple[str, ...]


def unseen_of(blocks: Sequence[Block], skills: Sequence[str]) -> list[str]:
    """Ids of what is examined and never taught: tasks of blocks that no night learns from, and the base's own skills."""
    lived = {identity for block in blocks for identity in block.lived}
    return sorted({identity for block in blocks for identity in block.examined} - lived | set(skills))


@dataclass(frozen=True)
class World:
    """All that a life needs of its surroundings. `folder` is the home whose data, mirrors and environments are used."""

    config: LifeConfig
    player: Player
    weights: Weights
    trainer: Trainer
    folder: Path

    @property
    def is_pocket(self) -> bool:
        """Whether this is the pocket world."""
        return self.config.tasks.source == POCKET_TASKS

    def blocks(self) -> list[Block]:
        """The experiences of the life, in order.

        Raises:
            EvalError: the source has not that many tasks, or cannot give what the design asks for.
        """
        design = self.config.design
        if isinstance(design, SplitDesign):
            return self._halves(design)
        if isinstance(design, SequenceDesign):
            return [self._taught(repo, self.order(repo, design.lived), design.examined) for repo in design.repos]
        return self._drifting(design)

    def order(self, repo: str, count: int = 0, drift: Drift = "") -> list[str]:
        """The first `count` tasks of a repository in the order of the stream; 0 for all there are.

        Raises:
            EvalError: there are not so many.
        """
        if self.is_pocket:
            if not count:
                raise EvalError("the pocket world never ends; say how many tasks (design.tasks)")
            return [self._pocket_id(repo, Split.STREAM, number, drift) for number in self._mixed(repo, count)]
        source = open_source(self.config.tasks.model_copy(update={"repos": (repo,), "count": 0}), Places(self.folder))
        found = source.next(frozenset(), count or 10_000)
        if len(found) < (count or 2):
            raise EvalError(f"{repo}: {len(found)} tasks, the design asks for {count or 2}; choose fewer")
        return found

    def unseen(self, repo: str, count: int) -> list[str]:
        """Tasks that examine what is taught about a repository, and are never lived: of the pocket world unseen tasks about the
        house's convention, elsewhere the last ones of the stream."""
        if self.is_pocket:
            numbers = range(1, TASKS_PER_MODULE * count, TASKS_PER_MODULE)
            return [self._pocket_id(repo, Split.HELD_OUT, number) for number in numbers]
        return self.order(repo)[-count:]

    def _mixed(self, repo: str, count: int) -> list[int]:
        """The first numbers of a pocket repository, the two of each module in either order. In the stream's own every second
        task is about the convention, so that split C would teach one kind and examine the other."""
        draw = random.Random(f"order/{self.config.seed}/{repo}")
        pairs = [range(at, min(at + TASKS_PER_MODULE, count)) for at in range(0, count, TASKS_PER_MODULE)]
        return [number for pair in pairs for number in (pair if draw.random() < 0.5 else reversed(pair))]

    def _pocket_id(self, repo: str, part: Split, number: int, drift: Drift = "") -> str:
        return task_id(repo, part, self.config.seed, number, drift)

    def _taught(self, repo: str, lived: Sequence[str], examined: int) -> Block:
        exam = self.unseen(repo, examined)
        if both := sorted(set(exam).intersection(lived)):
            raise EvalError(f"{repo}: {both[0]} would be lived and examined as unseen; choose fewer tasks in the design")
        return Block(repo, tuple(lived), tuple(exam))

    def _halves(self, design: SplitDesign) -> list[Block]:
        halves = split(design.split, self.order(design.repo, design.tasks))
        train, test = halves.train, halves.test
        ends = design.sessions or tuple(round(len(train) * (n + 1) / design.nights) for n in range(design.nights))
        if list(ends) != sorted(set(ends)) or ends[-1] > len(train):
            raise EvalError(f"sessions {ends}: they must rise, and {len(train)} tasks are there to be lived")
        starts = (0, *ends[:-1])
        parts = [train[start:end] for start, end in zip(starts, ends, strict=True)]
        return [*(Block(f"train {n}", part, part) for n, part in enumerate(parts, 1)), Block("test", (), test)]

    def _drifting(self, design: DriftDesign) -> list[Block]:
        if not self.is_pocket:
            raise EvalError(
                "the drift design changes the repository itself, which only the pocket world can; choose tasks.source"
            )
        repo, drift = design.repo, design.severity
        after = self.order(repo, design.recovery[-1], drift)
        starts = (0, *design.recovery[:-1])
        parts = [tuple(after[start:end]) for start, end in zip(starts, design.recovery, strict=True)]
        exams: tuple[Drift, ...] = ("", drift)
        asked = [
            tuple(self._pocket_id(repo, Split.HELD_OUT, number, each) for number in range(design.examined)) for each in exams
        ]
        before, first = Block("before", tuple(self.order(repo, design.lived)), asked[0]), Block("after", parts[0], asked[1])
        return [
            before,
            first,
            *(Block(f"after {end}", part, ()) for part, end in zip(parts[1:], design.recovery[1:], strict=True)),
        ]

    def stream(self, ids: Sequence[str]) -> TaskStream:
        """Just these tasks."""
        return open_source(self.config.tasks, Places(self.folder)).stream(ids)

    def kind(self, stream: TaskStream, task_id: str) -> str:
        """The group of a task: in the pocket world what is wrong in it, elsewhere its difficulty."""
        task = next(task for task in stream.tasks() if task.id == task_id)
        return stream.secret(task).kind if self.is_pocket else task.difficulty

    def skill_ids(self) -> list[str]:
        """Held-out tasks of the base's own skills, in the repositories of the design; none outside the pocket world."""
        if not (self.is_pocket and self.config.guards and self.config.skills):
            return []
        repos, count = self.repos, self.config.skills
        each = -(-count // len(repos))
        numbers = range(0, TASKS_PER_MODULE * each, TASKS_PER_MODULE)
        found = [self._pocket_id(repo, Split.HELD_OUT, number) for repo in repos for number in numbers]
        return sorted(random.Random(self.config.seed).sample(found, count))

    @property
    def repos(self) -> tuple[str, ...]:
        """Repositories that the life is about."""
        design = self.config.design
        return design.repos if isinstance(design, SequenceDesign) else (design.repo,)

    def capability(self, routes: Routes) -> list[Attempted]:
        """The programming benchmarks, answered by what is routed; none in the pocket world, whose skills are tasks."""
        if self.is_pocket or not self.config.guards:
            return []
        config = GuardConfig(problems=self.config.skills)
        opened = open_guards(config, self.player, data_folder(Places(self.folder)), (), self.config.seed)
        found: list[Attempted] = []
        for guard in opened.guards:
            if guard.role == "capability":
                found += sat(guard, routes)
        return found

    def serves(self, attempt: Attempted) -> bool:
        """Whether an attempt was one at a task, and no answer to a benchmark's problem."""
        return attempt.kind not in BENCHMARKS

    def held_out(self, ids: Sequence[str]) -> HeldOut:
        """What no pair may be about: these tasks, and the problems of the benchmarks."""
        stream = self.stream(ids)
        held = held_out_of(stream, stream.tasks()) if ids else HeldOut()
        folder = data_folder(Places(self.folder))
        for name in BENCHMARKS if not self.is_pocket else ():
            held |= held_out_problems(problems(name, folder)) if has(name, folder) else HeldOut()
        return held

    @property
    def terse(self) -> bool:
        """Whether the model speaks the terse protocol."""
        return self.player.toolkit is TERSE


def sat(guard: Guard, routes: Routes) -> list[Attempted]:
    """The answers to a guard's items as rows. A problem has the same id whoever sits it, so that the base and an adapter, which
    a guard asks at a seat of its own, are compared problem by problem.

    Raises:
        EvalError: several adapters would sit it, and which one is compared with the base is not said.
    """
    items = guard.items(routes)
    if len(sitting := {guard.repo(item) for item in items}) > 1:
        raise EvalError(f"{guard.name}: {len(sitting)} adapters would sit it ({', '.join(sorted(sitting))}); train one for all")
    return [
        Attempted(
            task_id=f"{guard.name}/{seat_of(item)[1]}",
            repo=guard.repo(item),
            kind=guard.name,
            outcome=Outcome.RESOLVED if answer.score >= 1 else Outcome.UNRESOLVED,
            steps=1,
            seconds=answer.seconds,
            config_hash=guard.digest,
        )
        for item, answer in guard.answer(items, routes).items()
    ]


def open_world(config: LifeConfig, folder: Path, sandbox: Callable[[], Sandbox] | None = None) -> World:
    """The world of a life.

    Raises:
        ModelError, EvalError, SandboxError: something that it needs is not here; the text says what to do.
    """
    model = open_model(config.model, config.threads)
    if sandbox is None:
        sandbox = open_source(config.tasks, Places(folder)).sandbox
    player = Player(model, sandbox(), budget=Budget(), width=WIDTH)
    return World(config, player, open_weights(config.model), _trainer(config), folder)


def _trainer(config: LifeConfig) -> Trainer:
    """In this process for the pocket model, which is small; in a child for any other, whose memory must come back."""
    if config.model.engine.kind == POCKET and config.model.trained_by == "torch":
        import torch

        from consolidation.trainers.torch_lora import TORCH

        torch.set_num_threads(config.threads)
        return TORCH
    from consolidation.trainers.child import ChildTrainer

    return ChildTrainer(name=config.model.trained_by)
