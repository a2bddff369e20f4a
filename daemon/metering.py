"""The examination at the end of a night: what past days asked, asked again of what serves now and of the bare base.

Of every day between two nights a few tasks are played once by what is live and once by the bare base, greedily; days and
nights are the columns and rows of the matrix that all metrics of continual learning are made of (`eval.metrics.stored`).
What the live agent did on the day itself is not played again but counted from its own attempts.

The base's answers are kept: what it did at a task is asked once for each configuration (model, prompt, budgets, code). So
that chance is seen all the same, the bare base plays a part of them once more every night (the frozen control). Where one
of these comes out otherwise than before, the base is not the same from night to night here, and all of them are played again.

Rows are committed attempt by attempt: a night that is broken off here goes on with what is missing. Whatever goes wrong but
for the store and a model that is away, the night's verdict stands, and the reason is in its journal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import ModelUnavailable
from agent.model import Sampling
from daemon.events import Event
from daemon.measured_nights import Asking
from daemon.metrics_view import prices
from eval.errors import EvalError
from eval.exams import base_fingerprint
from eval.metrics.config import MetricsConfig
from eval.metrics.lived import metrics_of
from eval.metrics.rows import Attempted, attempted
from eval.metrics.sinks import open_sinks
from eval.metrics.stored import Day, counted, days_of, is_counted, read_life
from eval.play import Player
from eval.task_items import Opener, Place, by_task
from memory.errors import KnowledgeError, StoreError
from memory.exams import Exam, ExamArm
from memory.hashing import content_hash
from memory.knowledge.memories import Recalled
from memory.knowledge.seam import KnowledgeLayer, NoKnowledge
from memory.nights import Night
from memory.tasks import Task
from memory.trajectories import Outcome, Trajectory

if TYPE_CHECKING:
    from daemon.work import Work

METRICS = "metrics"
"""The journal step; its result has no key that the steps before it have."""
GONE = "it cannot be opened here any more"


def planned(days: Sequence[Day], config: MetricsConfig, forgotten: set[str]) -> dict[str, tuple[str, ...]]:
    """The tasks of each day that a night asks again, by the id of the night that ended it; always in the same order.

    A later night asks the first ones of the same list where `config.most` leaves no room for all.
    """
    if not config.tasks:
        return {}
    chosen = days[-config.most :]
    each = min(config.tasks, max(1, config.most // max(1, len(chosen))))
    found: dict[str, tuple[str, ...]] = {}
    for day in chosen:
        graded = (r.task_id for r in day.results if r.outcome is not Outcome.INFRASTRUCTURE_FAILURE)
        order = sorted(set(graded) - forgotten, key=lambda task: content_hash([day.night, task]))
        found[day.night] = tuple(order[:each])
    return found


def controls(
    plan: Mapping[str, Sequence[str]], before: Mapping[str, Attempted], again: Mapping[str, Attempted], most: int
) -> list[str]:
    """What the bare base plays once more: of each day `most` tasks of which its answer is known from `before`; all of these
    tasks, where one that it played `again` came out otherwise."""
    changed = any(again[task].resolved != before[task].resolved for task in before if task in again and again[task].graded)
    known = [[task for task in tasks if task in before] for tasks in plan.values()]
    return [task for tasks in known for task in (tasks if changed else tasks[:most])]


class Metering:
    """Measures what serves at the end of the nights of one `Work`. `opener` finds tasks again."""

    def __init__(self, work: Work, opener: Opener) -> None:
        self.work, self.opener = work, opener
        self.store, self.config = work.store, work.config.metrics

    def measure(self, night: Night) -> None:
        """The step `metrics` of an open night, if it has not been done.

        Raises:
            ModelUnavailable: the model is away; what was measured is kept, and the rest is when it is back.
            StoreError: rows could not be written.
        """
        if self.store.step_result(night.id, METRICS) is not None:
            return
        began = time.monotonic()
        left_out: dict[str, str] = {}
        try:
            self._count_day(night)
            left_out = self._examine(night)
        except ModelUnavailable:
            raise
        except Exception as error:  # the night has its verdict; what could not be measured says why
            if isinstance(error, StoreError) and not isinstance(error, KnowledgeError):
                raise
            left_out["*"] = f"{type(error).__name__}: {error}"[:500]
        rows = self.store.exams(night.id)
        told: dict[str, Any] = {
            "played": sum(row.arm != "day" for row in rows),
            "rows": {arm: sum(row.arm == arm for row in rows) for arm in ("live", "base", "frozen", "day")},
            "left_out": left_out,
            "seconds": round(time.monotonic() - began, 1),
        }
        found = metrics_of(read_life(self.store, night.id, self.work.config.watch.control_share), prices(self.config))
        told["values"] = {name: value.value for name, value in found.values.items()}
        self.store.record_step(night.id, METRICS, told)
        self.work.emit(Event.METRICS_MEASURED, night=night.id, **told)
        self._sink(told["values"], len(found.matrix.columns))

    def _sink(self, values: Mapping[str, float | None], step: int) -> None:
        """Also log it elsewhere, where that is asked for. It is a copy: what cannot be written there is told and left."""
        try:
            with open_sinks(self.config.sinks) as sinks:
                for name, value in values.items():
                    if value is not None:
                        sinks.log(name, value, step)
        except EvalError as error:
            self.work.emit(Event.DAEMON_ERROR, where="metrics.sinks", error=str(error))

    def _count_day(self, night: Night) -> None:
        """Rows of the day's own attempts, so that they outlive their turns."""
        known = {row.task_id for row in self.store.exams(night.id) if row.arm == "day"}
        day = days_of(self.store, night.id)[-1]
        tasks = {task.id: task for task in self.store.tasks()}
        rows = []
        for result in day.results:
            played = self.store.trajectory(result.trajectory_id)
            if result.task_id in known or not is_counted(played):
                continue
            row = attempted(played, recalled=self._recalled(played, tasks[result.task_id]))
            rows.append(self._row(night, "day", night.id, "", row))
        self.store.add_exams(rows)

    def _examine(self, night: Night) -> dict[str, str]:
        """Play what is missing; why tasks were left out."""
        days = days_of(self.store, night.id)
        plan = planned(days, self.config, self.store.forgotten_tasks())
        column = {task: experience for experience, tasks in plan.items() for task in tasks}
        where = by_task(self.opener, list(column))
        if not where:
            return dict.fromkeys(column, GONE)
        left_out = {task: GONE for task in column if task not in where}
        prints = self._fingerprints(where)
        asked = [task for task in column if task in where]

        def ask(arm: ExamArm, tasks: Sequence[str]) -> None:
            self._ask(night, arm, tasks, where, column, prints)

        ask("live", asked)
        before = self._answers(prints, night)
        ask("base", [task for task in asked if task not in before])
        for _ in range(2):  # a part of them; and all, if that part came out otherwise
            again = {row.task_id: counted(row) for row in self.store.exams(night.id) if row.arm == "frozen"}
            ask("frozen", controls(plan, before, again, self.config.control))
        return left_out

    def _fingerprints(self, where: Mapping[str, tuple[Place, Task]]) -> dict[str, str]:
        """For each task the hash of everything that decides what the bare base does at it."""
        base_fingerprint(self.work.model)  # which leaves the bare base in use
        player = self._player(NoKnowledge())
        sampling = Sampling(max_tokens=player.budget.turn_tokens, tools=player.toolkit.tools)
        places = {id(place): place for place, _ in where.values()}
        prints = {key: replace(player, sandbox=p.sandbox).config_hash(p.stream, sampling) for key, p in places.items()}
        return {task: prints[id(place)] for task, (place, _) in where.items()}

    def _answers(self, prints: Mapping[str, str], night: Night) -> dict[str, Attempted]:
        """What the bare base did at these tasks in earlier nights, under the same configuration."""
        return {
            row.task_id: answer
            for row in self.store.exams()
            if row.arm == "base" and row.night_id != night.id and prints.get(row.task_id) == row.fingerprint
            if (answer := counted(row)).graded
        }

    def _ask(
        self,
        night: Night,
        arm: ExamArm,
        tasks: Sequence[str],
        where: Mapping[str, tuple[Place, Task]],
        column: Mapping[str, str],
        prints: Mapping[str, str],
    ) -> None:
        """One greedy attempt at each of these tasks that has none yet in this arm, tonight."""
        done = {row.task_id for row in self.store.exams(night.id) if row.arm == arm}
        groups: dict[int, tuple[Place, list[Task]]] = {}
        for task in tasks:
            if task not in done:
                place, found = where[task]
                groups.setdefault(id(place), (place, []))[1].append(found)
        if not groups:
            return
        live = arm == "live"
        player = self._player(self._knowledge() if live else NoKnowledge())
        routes: Mapping[str, Path] = self.work.routes() if live else {}
        for place, found_tasks in groups.values():
            self.work.checkpoint()
            for played in replace(player, sandbox=place.sandbox).play(place.stream, found_tasks, routes):
                task = played.task_id
                row = attempted(played, recalled=self._recalled(played, where[task][1]))
                self.store.add_exams([self._row(night, arm, column[task], prints[task], row)])

    def _knowledge(self) -> KnowledgeLayer:
        """What the live agent is told. Of a task that was lived it is told nothing of that task itself."""
        if not self.work.config.arm.recalls:
            return NoKnowledge()
        self.work.knowing.catch_up(self.work.checkpoint)
        return Asking(self.work.knowing.layer())

    def _recalled(self, played: Trajectory, task: Task) -> bool:
        """Whether it was told anything of what is known."""
        return bool(played.knowledge) and played.prompt != self._player(NoKnowledge()).toolkit.prompt(task, Recalled())

    def _player(self, knowledge: KnowledgeLayer) -> Player:
        work = self.work
        return Player(
            work.model,
            work.sandbox,
            work.safe_points(),
            work.config.budget,
            knowledge=knowledge,
            mixtures=work.home.mixtures,
        )

    @staticmethod
    def _row(night: Night, arm: ExamArm, experience: str, fingerprint: str, attempt: Attempted) -> Exam:
        return Exam(
            night_id=night.id,
            arm=arm,
            experience=experience,
            task_id=attempt.task_id,
            fingerprint=fingerprint,
            at=datetime.now(UTC),
            body=attempt.model_dump(mode="json"),
        )
