"""What a life checks of itself: whoever breaks it on purpose, or by accident, is found out, and it counts for nothing.

The checks go by what was trained on and what was played, not by what the code meant to do: they ask the tests again, compare
with the exam, and look who asked which memory.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scipy.stats import binomtest

from agent.loop import Attempt, NoRecorder, run
from agent.models.scripted import ScriptedModel
from consolidation.filters import named, overlaps
from consolidation.pairs import Pair
from consolidation.skill import adapter_for
from eval.experiments.life import ExamRow, NightRow
from eval.experiments.worlds import Block, World, unseen_of
from eval.play import opened
from memory.arms import Arm
from memory.trajectories import Trajectory

if TYPE_CHECKING:
    from eval.experiments.remembering import Memories

REGRADED = 12
"""Own successes of a night whose calls are carried out and graded again."""
SLOW_REGRADED = 2
CHANCE = 0.001
"""A frozen control that differs from the base in one direction with less chance than this is not frozen."""
DISCORDANT = 0.3
"""Nor is one that differs from it in more than this share of the tasks, of at least `LEAST`."""
LEAST = 10


@dataclass
class Checks:
    """The checks of one life; what they find is a sentence each."""

    world: World
    blocks: Sequence[Block]
    skills: Sequence[str]
    problems: list[str] = field(default_factory=list)

    def of_pairs(self, pairs: Sequence[Pair]) -> None:
        """No pair may be of, or hold the text of, a task that is examined and never taught."""
        lived = {identity for block in self.blocks for identity in block.lived}
        unseen = unseen_of(self.blocks, self.skills)
        held = self.world.held_out(unseen)
        share = self.world.config.night.filters.overlap
        mine = [pair for pair in pairs if pair.source != "rehearsal"]
        leaks = sorted({pair.task_id for pair in mine if named(pair, held) or overlaps(pair, held, share)})
        if leaks:
            self._found(f"leak: {len(leaks)} trained tasks are examined as unseen, or hold their text (first: {leaks[0]})")
        if strangers := sorted({pair.task_id for pair in mine} - lived - set(unseen)):
            self._found(f"{strangers[0]} was trained on, and no block lived it")

    def regrade(self, played: Sequence[Trajectory], what: str, most: int) -> None:
        """Successes must be successes: a sample of the attempts that count as resolved is carried out again, call by call, in
        fresh workspaces, and graded by the hidden tests. `what` they are is told; of real tasks, whose tests take minutes, at
        most `SLOW_REGRADED`. Calls that a server reads for its model (native ones) are not kept as they were said."""
        player = self.world.player
        if player.model.speaks == "native":
            return
        claimed = sorted((t for t in played if t.resolved), key=lambda t: t.task_id)
        most = min(most if self.world.is_pocket else SLOW_REGRADED, len(claimed))
        chosen = random.Random(self.world.config.seed).sample(claimed, most)
        if not chosen:
            return
        stream = self.world.stream([t.task_id for t in chosen])
        tasks = {task.id: task for task in stream.tasks()}
        model = ScriptedModel(scripts={t.id: [step.said for step in t.steps] for t in chosen}, speaks=player.model.speaks)
        with tempfile.TemporaryDirectory(prefix="regrade-") as name:
            root = Path(name).resolve()
            again = [
                Attempt(
                    t.model_copy(update={"steps": [], "outcome": None, "reason": "", "adapter": None}),
                    partial(opened, stream, tasks[t.task_id], root / t.id, player.sandbox),
                    player.budget,
                    player.toolkit,
                )
                for t in chosen
            ]
            ended = list(run(again, model, NoRecorder()))
        if wrong := sorted(t.task_id for t in ended if not t.resolved):
            told = f"{what}: {len(wrong)} of {len(chosen)} attempts that count as resolved are not when graded again"
            self._found(f"{told} (first: {wrong[0]})")

    def of_rows(self, exams: Sequence[ExamRow], rows: int, nights: Sequence[NightRow], memories: Memories) -> tuple[str, ...]:
        """All problems, those of the finished examinations included."""
        self._complete(exams, rows)
        self._served(exams, nights)
        self._frozen(exams)
        for store, arms in memories.asked.items():
            if len(arms) > 1:
                self._found(f"shared memory: {store.name} was asked by {' and '.join(sorted(arms))}; each arm needs its own")
        return tuple(self.problems)

    def _complete(self, exams: Sequence[ExamRow], rows: int) -> None:
        """Every arm was asked every task of a row that it was asked at all, once."""
        expected = sum(len(block.examined) for block in self.blocks)
        counted = Counter((row.arm, row.night) for row in exams if row.block)
        asked = Counter((row.arm, row.night, row.block, row.attempt.task_id) for row in exams)
        for (arm, night), count in sorted(counted.items()):
            if count != expected:
                self._found(f"arm {arm} was examined on {count} of {expected} tasks after night {night}")
        if twice := [key for key, count in asked.items() if count > 1]:
            self._found(f"{twice[0][3]} was examined twice in one row")
        for arm in self.world.config.arms:
            if not any(row.arm is arm and row.night == (0 if arm is Arm.BASE else rows) for row in exams):
                self._found(f"arm {arm} has no row at its end")

    def _served(self, exams: Sequence[ExamRow], nights: Sequence[NightRow]) -> None:
        """An arm that adapts was served by the adapter that was live for the repository, all others by none. Only the router of
        a mixture may send a task to the bare base."""
        live: dict[int, dict[str, str]] = {0: {}}
        for night in nights:
            live[night.night] = night.adapters or live[night.night - 1]
        routed = self.world.config.night.strategy.kind == "mixture"
        for row in (row for row in exams if row.attempt.steps and self.world.serves(row.attempt)):
            due = adapter_for(live[row.night], row.attempt.repo) if row.arm.adapts else None
            found = row.attempt.adapter or None
            if found != due and not (routed and found is None):
                told = f"{row.attempt.task_id} was played by adapter {found or 'none'}, where {due or 'none'} was due"
                self._found(f"served: after night {row.night}, arm {row.arm}: {told}")
                return

    def _frozen(self, exams: Sequence[ExamRow]) -> None:
        """The frozen control, in its last row, may differ from the base by chance alone: neither in one direction, nor in many
        tasks at all."""
        base = {row.attempt.task_id: row.attempt.resolved for row in exams if row.arm is Arm.BASE}
        last = max((row.night for row in exams if row.arm is Arm.FROZEN), default=0)
        again = [row.attempt for row in exams if row.arm is Arm.FROZEN and row.night == last and row.attempt.task_id in base]
        lost = sum(base[a.task_id] and not a.resolved for a in again)
        gained = sum(a.resolved and not base[a.task_id] for a in again)
        one_way = lost + gained and binomtest(lost, lost + gained).pvalue < CHANCE
        if one_way or lost + gained > DISCORDANT * max(len(again), LEAST):
            self._found(
                f"the frozen control lost {lost} and gained {gained} of {len(again)} tasks against the base: not by chance"
            )

    def _found(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)
