"""The night's work, where the model is: what it learns from, who makes the pairs, who examines the candidate."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.model import Message
from agent.models.engines import open_weights
from consolidation.errors import TrainingRefused
from consolidation.gate import Look
from consolidation.guards import Guard
from consolidation.leaks import HeldOut
from consolidation.mixture.serving import is_mixture
from consolidation.night import Sleeper
from consolidation.night_files import PAIRS
from consolidation.pairs import Pair
from consolidation.room import RoomyTrainer
from consolidation.skill import adapter_for
from consolidation.trainers.base import Job, Progress
from consolidation.trainers.child import ChildTrainer
from daemon.events import Event
from daemon.measured_nights import MeasuredNights
from daemon.metering import METRICS, Metering
from daemon.night_pairs import NightPairs
from daemon.plan import replay
from eval.coding.problems import data_folder, has, problems
from eval.errors import EvalError
from eval.guards import held_out_base_tasks
from eval.held_out import held_out_of, held_out_problems
from eval.koans import held_out as held_out_koans
from eval.open_guards import BENCHMARKS, open_guards
from eval.play import Player
from eval.retention import RetentionGuard, past_nights
from eval.retention_losses import night_losses, pairs_of_night
from eval.shortcuts import ShortcutGuard
from memory.knowledge.embedders import HashingEmbedder
from memory.nights import Night
from memory.trajectories import Outcome

if TYPE_CHECKING:
    from daemon.work import Work

PROGRESS_SECONDS = 1.0
CANARIES = 4


class NightWork:
    """Nights of one `Work`."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.home, self.config, self.store = work.home, work.config, work.store
        resources, model = self.config.resources, self.config.model
        child = ChildTrainer(resources.training_memory_mb, resources.niceness, model.trained_by)
        self.trainer = RoomyTrainer(child, work.model.unload)
        self.context = self.config.night.context or model.tokens
        self.pairs = NightPairs(work, self.trainer, self.context)
        self._last = 0.0
        self._opened = ""

    def hold(self, night: Night | None) -> dict[str, Any]:
        """One night, or the rest of an open one.

        Raises:
            TrainingCrashed, ModelUnavailable: it can go on.
            ConsolidationError: it is over without a promotion.
        """
        work, sleeper = self.work, self._sleeper()
        night = night or sleeper.open()
        self._opened = night.id
        work.emit(Event.NIGHT_OPENED, night=night.id)
        report = sleeper.sleep(partial(self.pairs.all, night.id), self.held_out(), night)
        if work.server is not None:
            work.server.prune()
        verdict = report.night.verdict
        assert verdict is not None
        work.emit(Event.NIGHT_VERDICT, night=night.id, promoted=verdict.promoted, why=verdict.why, numbers=verdict.numbers)
        return {"night": night.id, "promoted": verdict.promoted, "why": verdict.why}

    def rehearse(self) -> dict[str, Any]:
        """What a night held now would train on, and what it would leave out and why. Nothing is trained, paid for or kept."""
        synthesis = self.config.night.synthesis
        lived, pairs = self.pairs.offline()
        filtered, lessons = self._sleeper().rehearse(pairs, self.held_out())
        return {
            "attempts": len(lived),
            "pairs": len(pairs),
            "made_by": "offline" if self.pairs.free else f"offline, where a night would have {synthesis.source} make them",
            "kept": len(filtered.samples),
            "tokens": sum(sample.item.tokens for sample in filtered.samples),
            "dropped": dict(sorted(filtered.dropped.items())),
            "shown": filtered.shown,
            "lessons": {
                scope: {"new": len(lesson.new), "past": len(lesson.past), "rehearsal": len(lesson.rehearsal)}
                for scope, lesson in lessons.items()
            },
            "strategy": self.config.night.strategy.kind,
        }

    def held_out(self) -> HeldOut:
        """What is examined, and so neither learnt from nor remembered."""
        tasks = self.config.tasks
        stream, examined = held_out_base_tasks(tasks.seed, tasks.pocket_repos, self.config.guard.tasks)
        held = held_out_of(stream, examined) | HeldOut(tasks=frozenset(held_out_koans()))
        folder = data_folder(self.home.places)
        for name in BENCHMARKS if self.work.model.speaks != "terse" else ():
            held |= held_out_problems(problems(name, folder)) if has(name, folder) else HeldOut()
        return held

    def _sleeper(self) -> Sleeper:
        work, config = self.work, self.config
        weights = open_weights(config.model)
        resolved = {result.trajectory_id for result in self.store.results() if result.outcome is Outcome.RESOLVED}
        return Sleeper(
            config=config.night,
            base=weights.folder,
            base_hash=weights.hash,
            encode=weights.encode,
            context=self.context,
            trainer=self.trainer,
            publisher=work.publisher,
            recorder=MeasuredNights(self.store, self._measure),
            work=self.home.nights,
            answers=self.home.answers,
            guards=self._guards,
            embed=HashingEmbedder().embed,
            verified=resolved.__contains__,
            on_step=self._on_step,
            on_phase=self._on_phase,
            on_look=self._on_look,
            retained=self._retained,
            tidy=(lambda night: work.knowing.tidy(night, work.publisher.live())) if config.arm.recalls else None,
            trains=config.arm.adapts,
        )

    def _measure(self, night: Night) -> None:
        """What serves after the night, asked of past days."""
        if self.store.step_result(night.id, METRICS) is None:
            self._on_phase(METRICS)
            Metering(self.work, self.pairs.open_tasks).measure(night)

    def _on_step(self, scope: str, progress: Progress) -> None:
        self.work.checkpoint()
        if time.monotonic() - self._last > PROGRESS_SECONDS or progress.step == progress.steps:
            self._last = time.monotonic()
            self.work.emit(Event.TRAINING_PROGRESS, repo=scope, **progress.model_dump())

    def _on_phase(self, phase: str) -> None:
        self.work.checkpoint()
        self.work.emit(Event.NIGHT_STEP, step=phase)

    def _on_look(self, look: Look) -> None:
        self.work.checkpoint()
        self.work.emit(
            Event.NIGHT_LOOK,
            claim=look.claim,
            tasks=look.tasks,
            of=look.of,
            drop=look.drop,
            bound=look.bound,
            decision=look.decision.name.lower(),
        )

    def _guards(self, live: Mapping[str, Path]) -> Sequence[Guard]:
        """Those of the model, and where nights and live adapters are there to compare with, retention and shortcuts."""
        config, tasks = self.config, self.config.tasks
        if self.work.server is not None:
            self._teach_canaries()
        player = Player(self.work.model, self.work.sandbox, self.work.safe_points(), config.budget, mixtures=self.home.mixtures)
        opened = open_guards(config.guard, player, data_folder(self.home.places), tasks.pocket_repos, tasks.seed)
        for why in opened.left_out:
            self.work.emit(Event.NIGHT_GUARD_LEFT_OUT, why=why)
        more: list[Guard] = []
        opener = self.pairs.open_tasks
        retention = RetentionGuard(player, past_nights(self.store), opener, config.guard.retention_tasks, tasks.seed)
        if live and retention.items(live):
            more.append(retention)
        if config.guard.conduct_tasks:
            lived = [result.task_id for result in replay(self.store.results(), config)]
            more.append(ShortcutGuard(player, lived, opener, live, config.guard.conduct_tasks))
        return [*opened.guards, *more]

    def _retained(self, routes: Mapping[str, Path]) -> dict[str, Any]:
        """Mean losses of the pairs of past nights under the base and under the candidate, as far as their files are there."""
        weights = open_weights(self.config.model)
        if any(is_mixture(folder) for folder in routes.values()):
            return {"losses": {}, "left_out": "a mixture answers each task with other weights"}
        job = Job(base=weights.folder, base_hash=weights.hash, threads=self.config.night.threads, context=self.context)
        try:
            found = night_losses(
                past_nights(self.store),
                lambda night: pairs_of_night(self.home.nights / night.id / PAIRS, set(night.attempts)),
                weights.encode,
                partial(self.trainer.loss, job),
                partial(adapter_for, routes),
                self.context,
            )
        except (EvalError, TrainingRefused) as error:  # it decides nothing
            return {"losses": {}, "left_out": str(error)}
        return {"losses": {night: list(losses) for night, losses in found.items()}}

    def _teach_canaries(self) -> None:
        """Have a server's adapters asked with conversations up to the longest turns that a night teaches: there an adapter
        speaks otherwise than its base."""
        lines = (self.home.nights / self._opened / PAIRS).read_text(encoding="utf-8").split("\n")
        taught = [Pair.model_validate_json(line) for line in lines if line]
        found: dict[str, list[list[Message]]] = {}
        for pair in sorted(taught, key=lambda pair: pair.source != "merged_fix"):
            messages = pair.conversation()
            turns = [i for i, message in enumerate(messages) if message.role == "assistant"]
            if turns and len(found.setdefault(pair.repo, [])) < CANARIES:
                found[pair.repo].append(messages[: max(turns, key=lambda i: len(messages[i].content))])
        assert self.work.server is not None
        self.work.server.ask_with([prompt for prompts in found.values() for prompt in prompts])
