"""A life, lived for real: days played by the bare base, nights that train on them, and an examination after each."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import agent
import consolidation
import eval as judgement
import memory
from agent.models.engines import open_weights
from eval.experiments.checks import Checks
from eval.experiments.days import Days
from eval.experiments.life import ExamRow, Life, LifeConfig, NightRow
from eval.experiments.nights import Nights
from eval.experiments.remembering import Memories
from eval.experiments.workplace import workplace
from eval.experiments.worlds import Block, World, open_world, unseen_of
from eval.metrics.rows import Attempted, attempted
from eval.play import Routes
from memory.arms import Arm
from memory.hashing import source_hash
from memory.trajectories import Trajectory

ASKED_SKILLS = (Arm.BASE, Arm.SKILL)
"""Arms whose own skills of the base are examined: what an adapter costs is seen without recall."""
EXAMS_REGRADED = 4
"""Successes of each examination that are carried out and graded again."""
TELLING = ("experiments", "metrics", "report", "statistics")
LIVING = ("checks", "days", "life", "living", "nights", "remembering", "worlds")
LEAKED = 8
"""Tasks of the exam that a life with the fault `leak` lives too."""


def code_hash() -> str:
    """Hash of the sources that decide what a life does; not of those that only tell of it."""
    whole = [Path(str(package.__file__)).parent for package in (agent, consolidation, memory)]
    ours = Path(str(judgement.__file__)).parent
    whole += [folder for folder in ours.iterdir() if folder.is_dir() and folder.name not in TELLING and folder.name[0] != "_"]
    single = [path for path in ours.glob("*.py") if not path.name.startswith("bench_")]
    single += [ours / "experiments" / f"{name}.py" for name in LIVING]
    single += [ours / "metrics" / f"{name}.py" for name in ("rows", "signatures")]
    return source_hash((*sorted(whole), *sorted(single)))


def model_hash(config: LifeConfig) -> str:
    """What tells the model of a life from others: the hash of the weights that its nights train on."""
    return open_weights(config.model).hash


@dataclass(frozen=True)
class Living:
    """Lives lives: see `Work`. `lab` is the folder for what they leave behind: work in progress, and what the base did on the
    days (played once for all lives that have these); nothing that a result depends on. `home` is where the benchmarks and
    mirrors are; the lab itself where it is not said."""

    lab: Path
    home: Path | None = None

    def __call__(self, config: LifeConfig) -> Life:
        """Live it."""
        began = time.monotonic()
        world = open_world(config, self.home or self.lab)
        digest = config.digest(world.weights.hash)
        with workplace(self.lab / "work", f"{digest}-{os.getpid()}") as work, ExitStack() as stack:
            life = _Lived(world, Days(world, self.lab / "days"), work, stack)
            return Life(
                digest=digest,
                model=world.player.model.fingerprint,
                code=code_hash(),
                blocks=tuple(block.name for block in life.blocks),
                **life.live(),
                seconds=round(time.monotonic() - began, 1),
                load=round(os.getloadavg()[0], 2),
            )


@dataclass
class _Lived:
    world: World
    days: Days
    work: Path
    stack: ExitStack
    exams: list[ExamRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.config = self.world.config
        self.blocks = self.world.blocks()
        self.skills = self.world.skill_ids()
        self.unseen = unseen_of(self.blocks, self.skills)
        self.checks = Checks(self.world, self.blocks, self.skills)
        self.nights = Nights(self.world, self.work, self.unseen, self.checks)
        self.memories = Memories(self.world, self.work, self.unseen)
        self.stack.callback(self.memories.close)

    def live(self) -> dict[str, Any]:
        """All rows of the life."""
        learnt: dict[str, int | None] = {block.name: None for block in self.blocks}
        nights: list[NightRow] = []
        taught = [block for block in self.blocks if block.lived]
        self._examine(0, {})
        for number, block in enumerate(taught, 1):
            learnt[block.name] = number
            nights.append(self._night(number, block))
            if self.config.every_row or number == len(taught):
                self._examine(number, self.nights.routes())
        problems = self.checks.of_rows(self.exams, len(taught), nights, self.memories)
        return {"learnt": learnt, "exams": tuple(self.exams), "nights": tuple(nights), "problems": problems}

    def _night(self, number: int, block: Block) -> NightRow:
        ids = [*block.lived, *(self.unseen[:LEAKED] if self.config.fault == "leak" else ())]
        played = self.days.of(ids)
        if self.config.fault == "labels":
            played = mislabelled(played)
        stream = self.world.stream(ids)
        self.memories.remember(stream, played)
        row = NightRow(night=number, block=block.name)
        if not any(arm.adapts for arm in self.config.arms):
            return row.model_copy(update={"refused": "no arm of this life trains adapters"})
        return self.nights.sleep(row, block, stream, played)

    def _examine(self, number: int, routes: Routes) -> None:
        """One row of the matrix. The first is the base's, for all arms; the base again in a later one is the arm `frozen`."""
        for arm in self.config.arms:
            if (arm is Arm.BASE) != (number == 0):
                continue  # before any night every arm is the base, which nothing ever changes
            serving = routes if arm.adapts else {}
            asked = [(block.name, identity) for block in self.blocks for identity in block.examined]
            asked += [("", identity) for identity in self.skills if arm in ASKED_SKILLS]
            rows = self._played(arm, [identity for _, identity in asked], serving)
            self.exams += [ExamRow(arm=arm, night=number, block=block, attempt=rows[identity]) for block, identity in asked]
            if arm in ASKED_SKILLS:
                more = self.world.capability(serving)
                self.exams += [ExamRow(arm=arm, night=number, block="", attempt=row) for row in more]

    def _played(self, arm: Arm, ids: Sequence[str], routes: Routes) -> dict[str, Attempted]:
        """One greedy attempt at each task, by its id; all of an arm's together, which is what makes them fast."""
        if arm is Arm.BASE:
            return {trajectory.task_id: self._row(trajectory) for trajectory in self.days.of(ids)}
        player = replace(self.world.player, arm=arm, mixtures=self.work / "mixtures")
        if (layer := self.memories.layer(arm)) is not None:
            player = replace(player, knowledge=layer)
        stream = self.world.stream(ids)
        played = list(player.play(stream, stream.tasks(), routes))
        self.checks.regrade(played, f"exam of arm {arm}", EXAMS_REGRADED)
        return {trajectory.task_id: self._row(trajectory) for trajectory in played}

    def _row(self, trajectory: Trajectory) -> Attempted:
        return attempted(trajectory, self.days.kind(trajectory.task_id), recalled=self.memories.told(trajectory))


def mislabelled(played: Sequence[Trajectory]) -> list[Trajectory]:
    """The attempts with one another's outcomes: what shuffled labels look like."""
    outcomes = [trajectory.outcome for trajectory in played]
    half = len(outcomes) // 2
    turned = [*reversed(outcomes[half:]), *outcomes[:half]]
    return [each.model_copy(update={"outcome": outcome}) for each, outcome in zip(played, turned, strict=True)]
