"""The retention guard: what earlier nights taught, asked again of the base and of a candidate, night by night."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from consolidation.guards import Answer, Role
from consolidation.lessons import TRAIN
from consolidation.skill import adapter_for
from eval.exams import stratified
from eval.play import Player, Routes
from eval.task_items import Opener, Place, by_task, digest_of, play_items
from memory.store import Store
from memory.tasks import Task

RETENTION = "retention"


@dataclass(frozen=True)
class PastNight:
    """A promoted night, counted from 1, with what it was the first to learn from: attempts, and their tasks."""

    number: int
    id: str
    attempts: tuple[str, ...]
    tasks: tuple[str, ...]


def past_nights(store: Store) -> list[PastNight]:
    """The promoted nights 1, N/4, N/2, 3N/4 and N (programme, experiment on retention), as far as they learnt something new.

    A night that replays is not the first to learn from what it replays. What nights learnt from was resolved by the agent,
    or its merged fix was taught.
    """
    tasks = {result.trajectory_id: result.task_id for result in store.results()}
    known: set[str] = set()
    found: list[PastNight] = []
    for night in store.nights():
        if night.verdict is None or not night.verdict.promoted:
            continue
        names = [name for name, _ in store.steps_of_night(night.id) if name.startswith(TRAIN)]
        steps = [store.step_result(night.id, name) or {} for name in names]
        attempts = sorted({str(attempt) for step in steps for attempt in step.get("attempts", ())} & tasks.keys())
        new = [attempt for attempt in attempts if tasks[attempt] not in known]
        known |= {tasks[attempt] for attempt in attempts}
        found.append(PastNight(len(found) + 1, night.id, tuple(new), tuple(sorted({tasks[attempt] for attempt in new}))))
    count = len(found)
    asked = {1, *(math.ceil(quarter * count / 4) for quarter in (1, 2, 3, 4))}
    return [night for night in found if night.number in asked and night.tasks]


@dataclass
class RetentionGuard:
    """Tasks that past nights learnt from, one greedy attempt each, where the candidate has an adapter.

    At most `most` tasks of each night, in seeded order. A category is a night.
    """

    player: Player
    nights: Sequence[PastNight]
    opener: Opener
    most: int = 24
    seed: int = 0
    name: str = field(default=RETENTION, init=False)
    claim: str = field(default=RETENTION, init=False)
    role: Role = field(default="retention", init=False)

    @cached_property
    def _where(self) -> dict[str, tuple[Place, Task]]:
        found = by_task(self.opener, [task for night in self.nights for task in night.tasks])
        left: dict[str, int] = {}
        for task in stratified(list(found), self.category, self.seed):
            night = self.category(task)
            left[night] = left.get(night, 0) + 1
            if left[night] > self.most:
                del found[task]
        order = stratified(list(found), self.category, self.seed)
        return {task: found[task] for task in order}

    @cached_property
    def _nights(self) -> dict[str, str]:
        return {task: f"night {night.number}" for night in self.nights for task in night.tasks}

    @cached_property
    def digest(self) -> str:
        """See `Guard`."""
        return digest_of(self.player, self._where, self.name)

    def items(self, routes: Routes) -> Sequence[str]:
        """See `Guard`: ids of tasks; none where the candidate serves no repository that nights learnt from."""
        return [item for item, (_, task) in self._where.items() if adapter_for(routes, task.repo) is not None]

    def category(self, item: str) -> str:
        """See `Guard`: the night that first learnt from it."""
        return self._nights[item]

    def repo(self, item: str) -> str:
        """See `Guard`."""
        return self._where[item][1].repo

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        """See `Guard`."""
        return play_items(self.player, self._where, items, routes)


class Retained(BaseModel):
    """A point of the retention curve: what base and candidate resolve of what a night taught; and the mean losses (nats per
    own token) of its pairs, where they were measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    night: str
    tasks: int
    base: float
    candidate: float
    base_loss: float | None = None
    candidate_loss: float | None = None


def retention_curve(
    guard: RetentionGuard,
    base: Mapping[str, Answer],
    candidate: Mapping[str, Answer],
    losses: Mapping[str, tuple[float, float]] | None = None,
) -> list[Retained]:
    """The curve, night by night, over the items that both were asked. `losses` by night: see `night_losses`."""
    found: list[Retained] = []
    for number in (night.number for night in guard.nights):
        night = f"night {number}"
        items = [item for item in base if item in candidate and guard.category(item) == night]
        before, after = (losses or {}).get(night, (None, None))
        if items:
            rates = (fmean(answers[item].score for item in items) for answers in (base, candidate))
            resolved = dict(zip(("base", "candidate"), rates, strict=True))
            found.append(Retained(night=night, tasks=len(items), **resolved, base_loss=before, candidate_loss=after))
    return found
