"""One night: from the day's experience to a verdict.

collect -> filter -> lessons -> train candidates -> choose -> examine and judge -> publish.
Only this path changes what is live, and only on a promoting verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from agent.errors import ModelUnavailable
from consolidation.answers import Answers, artefacts
from consolidation.encoding import item_of
from consolidation.errors import AdapterError, ConsolidationError, TrainingCrashed, TrainingRefused
from consolidation.examining import Examining, judge_adapters
from consolidation.filters import Filtered, Filters, within_tokens
from consolidation.gate import Look, Ruling
from consolidation.guards import Guard
from consolidation.leaks import HeldOut
from consolidation.learning import Learning
from consolidation.lessons import TRAIN, lessons_of
from consolidation.night_config import NightConfig
from consolidation.night_files import PAIRS, filter_step, read_pairs, write_pairs
from consolidation.pairs import Encoder, Pair
from consolidation.publishing.desk import slug
from consolidation.skill import ALL, Publisher, skill_id
from consolidation.strategies.seam import Lesson, Sample
from consolidation.trainers.base import Job, Progress, Trainer
from memory.hashing import content_hash
from memory.nights import Night, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NightRecorder(Protocol):
    """Where nights and their finished steps are written."""

    def open_night(self, night: Night) -> None:
        """A night begins."""
        ...

    def close_night(self, night: Night) -> None:
        """A night has ended, with a verdict or an error."""
        ...

    def step_result(self, night_id: str, name: str) -> Mapping[str, Any] | None:
        """What a finished step gave, or None."""
        ...

    def record_step(self, night_id: str, name: str, result: Mapping[str, Any]) -> None:
        """A step is finished; what it gave must be JSON."""
        ...

    def steps_named(self, prefix: str) -> list[dict[str, Any]]:
        """What the steps of all nights gave whose names begin so, in order."""
        ...


@dataclass
class NightReport:
    """What a night did; `adapters` is what the candidate changes of the routing table, live only if the verdict promotes."""

    night: Night
    adapters: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    trained: list[Mapping[str, Any]] = field(default_factory=list)
    """What the journal keeps of each training (see `Learning.learn`)."""


def published(recorder: NightRecorder, night: str) -> tuple[dict[str, str], Verdict] | None:
    """The routing table that a night has put to work, and why, where it had come so far."""
    step, guards = recorder.step_result(night, "publish"), recorder.step_result(night, "guards")
    if step is None or guards is None:
        return None
    return dict(step["live"]), Verdict.model_validate(guards["verdict"])


@dataclass(frozen=True)
class Sleeper:
    """Runs nights.

    `context` is the longest example (tokens), `answers` the folder in which guards' answers are kept from night to night.
    `guards` are those that examine a candidate, given what is live. `embed` gives texts as unit vectors, `verified` says of
    an attempt's id whether it resolved its task. `retained` measures what earlier nights taught, for the journal alone.

    `tidy` consolidates what is known, and is given the night's id; a night that does not train (`trains`) does nothing else.

    Every step is recorded when it is finished, and a night that was broken off goes on after its
    last finished step. A step that is done again does no harm: pairs are written whole, adapters
    are content-addressed, answers are kept item by item, and publishing what is live already changes nothing.
    """

    config: NightConfig
    base: Path
    base_hash: str
    encode: Encoder
    context: int
    trainer: Trainer
    publisher: Publisher
    recorder: NightRecorder
    work: Path
    answers: Path
    guards: Callable[[Mapping[str, Path]], Sequence[Guard]]
    embed: Callable[[Sequence[str]], NDArray[np.float32]]
    verified: Callable[[str], bool] | None = None
    on_step: Callable[[str, Progress], None] = lambda scope, progress: None
    on_phase: Callable[[str], None] = lambda phase: None
    on_look: Callable[[Look], None] = lambda look: None
    retained: Callable[[Mapping[str, Path]], Mapping[str, Any]] | None = None
    tidy: Callable[[str], Mapping[str, Any]] | None = None
    trains: bool = True

    @property
    def config_hash(self) -> str:
        """Hash of the recipe, the base model and the strategy."""
        return content_hash([self.config, self.base_hash])

    def open(self) -> Night:
        """Begin a night."""
        began = datetime.now(UTC)
        night = Night(
            id=content_hash([began, self.config_hash]),
            started_at=began,
            strategy=self.config.strategy.kind,
            seed=self.config.seed,
            config_hash=self.config_hash,
        )
        self.recorder.open_night(night)
        return night

    def sleep(
        self, collect: Callable[[], Sequence[Pair]], held_out: HeldOut | None = None, night: Night | None = None
    ) -> NightReport:
        """One whole night, or the rest of an open one.

        What goes wrong for good ends in the night's row, and is raised again. An interruption
        (Ctrl-C, a killed process), a crash of the training process and a model's server that is away leave it open.

        Raises:
            TrainingCrashed, ModelUnavailable: the night can go on.
            ConsolidationError: the night is over; nothing was put to work.
        """
        report = NightReport(night or self.open())
        try:
            self._sleep(report, collect, held_out or HeldOut())
        except (TrainingCrashed, ModelUnavailable):
            raise
        except Exception as error:
            self._close(report, error=f"{type(error).__name__}: {error}"[:500])
            raise
        return report

    def rehearse(self, pairs: Sequence[Pair], held_out: HeldOut | None = None) -> tuple[Filtered, dict[str, Lesson]]:
        """What a night would train on, and what it would leave out and why; nothing is trained, recorded or kept."""
        filtered = self._filtered(pairs, held_out or HeldOut())
        return filtered, self._lessons(filtered.samples)

    def _once(self, report: NightReport, name: str, do: Callable[[], BaseModel | Mapping[str, Any]]) -> Mapping[str, Any]:
        """What a step gives: from the journal where it is finished, else by doing it now."""
        known = self.recorder.step_result(report.night.id, name)
        if known is None:
            self.on_phase(name)
            given = do()
            known = given.model_dump(mode="json") if isinstance(given, BaseModel) else given
            self.recorder.record_step(report.night.id, name, known)
        return known

    def _sleep(self, report: NightReport, collect: Callable[[], Sequence[Pair]], held_out: HeldOut) -> None:
        if report.night.config_hash != self.config_hash:
            if (done := published(self.recorder, report.night.id)) is not None:
                self._close(report, candidate=done[0], verdict=done[1])
                return
            raise ConsolidationError("the night was begun under another configuration or base model; it ends without a verdict")
        if self.tidy is not None:
            self._once(report, "knowledge", partial(self.tidy, report.night.id))
        if not self.trains:
            self._close(report, verdict=Verdict(promoted=False, why="this arm trains no adapter"))
            return
        folder = self.work / report.night.id
        listed = self._once(report, "pairs", lambda: write_pairs(folder / PAIRS, collect()))
        pairs = read_pairs(folder / PAIRS, str(listed["hash"]))
        passed = self._once(report, "filter", lambda: filter_step(self._filtered(pairs, held_out), pairs))
        report.dropped = {str(reason): int(count) for reason, count in passed["dropped"].items()}
        samples = [Sample(pairs[number], item_of(pairs[number], self.encode)) for number in passed["kept"]]
        before = self._once(report, "before", self._before)
        live = dict(before["live"])
        lessons = self._lessons(samples, live)
        if not lessons:
            counts = dict(Counter(sample.pair.repo for sample in samples))
            raise ConsolidationError(
                f"no repository has a batch of pairs fit for training (fit: {counts}, dropped: {report.dropped}); "
                "wait for verified trajectories"
            )
        tables = self._train_all(report, lessons, live)
        examining = Examining(
            self.config.gate,
            self.publisher,
            self.guards(self.publisher.routes(live)),
            Answers(self.answers),
            live,
            held_out,
            self.config.filters.overlap,
            self.on_look,
        )
        chosen = self._once(report, "choose", lambda: examining.choose(tables))
        winner = str(chosen["winner"])
        table = tables[winner]
        report.adapters = {scope: identity for scope, identity in table.items() if live.get(scope) != identity}
        taught = [sample.pair for sample in samples]
        ruling = Ruling.model_validate(self._once(report, "guards", lambda: examining.judge(table, chosen, taught)))
        verdict = ruling.verdict
        if self.retained is not None:
            self._once(report, "retained", partial(self.retained, self.publisher.routes(table)))
        judge_adapters(self.publisher, tables, live, winner, verdict)
        if verdict.promoted:
            self._once(report, "publish", lambda: self._publish(table, ruling, before.get("table", live)))
        self._close(report, samples, table, verdict)

    @property
    def _job(self) -> Job:
        return Job(
            base=self.base,
            base_hash=self.base_hash,
            lora=self.config.lora,
            seed=self.config.seed,
            threads=self.config.threads,
            context=self.context,
            machine=self.config.machine,
        )

    def _filtered(self, pairs: Sequence[Pair], held_out: HeldOut) -> Filtered:
        losses = partial(self.trainer.loss, self._job)
        filters = Filters(self.config.filters, self.encode, self.context, held_out, losses, self.verified)
        found = filters.filtered(pairs)
        samples = within_tokens(found.samples, self.config.synthesis.tokens)
        if over := len(found.samples) - len(samples):
            found.dropped["over_budget"] = over
        return replace(found, samples=samples)

    def _before(self) -> dict[str, Any]:
        """What is live, and of that what belongs to this base."""
        table = self.publisher.live()
        return {"table": table, "live": self.publisher.fitting(table, self.base_hash)}

    def _lessons(self, samples: Sequence[Sample], live: Mapping[str, str] | None = None) -> dict[str, Lesson]:
        """The lessons that are large enough to be learnt."""
        lora = self.config.lora
        found = lessons_of(
            samples,
            self.publisher.live() if live is None else live,
            self.publisher.adapters,
            self.base_hash,
            self.recorder.steps_named(TRAIN),
            self.config.scope == "all",
        )
        least = lora.batch_size * lora.accumulate
        return {scope: lesson for scope, lesson in found.items() if len(lesson.new) + len(lesson.past) >= least}

    def _train_all(
        self, report: NightReport, lessons: Mapping[str, Lesson], live: Mapping[str, str]
    ) -> dict[str, dict[str, str]]:
        """Train every lesson with every seed; the routing tables that compete, by name, the last checkpoints first."""
        folder = self.work / report.night.id
        learning = Learning(
            self.config.strategy, self._job, report.night.config_hash, self.trainer, self.publisher.adapters, self.embed
        )
        tables: dict[str, dict[str, str]] = {}
        refused: dict[str, str] = {}
        for seed in range(self.config.seed, self.config.seed + self.config.seeds):
            made: dict[str, list[str]] = {}
            for scope, lesson in lessons.items():
                again = "" if seed == self.config.seed else f" seed {seed}"
                place, on_step = folder / f"train-{slug(scope)}-{seed}", partial(self.on_step, scope)
                done = self._once(report, f"{TRAIN}{scope}{again}", partial(learning.tried, lesson, seed, place, on_step))
                if "refused" in done:
                    refused[scope] = str(done["refused"])
                    continue
                made[scope] = [str(identity) for identity in done["adapters"]]
                report.trained.append(done)
            for back in range(max(map(len, made.values()), default=0)):
                chosen = {scope: found[max(-len(found), -1 - back)] for scope, found in made.items()}
                name = f"seed {seed}" + (f", {back} checkpoints before its end" if back else "")
                tables[name] = {**({} if ALL in chosen else live), **chosen}
        if not tables:
            raise TrainingRefused("; ".join(f"{scope}: {why}" for scope, why in refused.items()))
        return tables

    def _publish(self, table: Mapping[str, str], ruling: Ruling, before: Mapping[str, str]) -> dict[str, Any]:
        """Put to work exactly what was examined, in place of what it was compared with."""
        if self.publisher.live() not in (dict(before), dict(table)):
            raise AdapterError("what is live was changed while the night was open; nothing was put to work")
        now = artefacts(self.publisher.routes(table))
        if now != ruling.artefacts:
            raise AdapterError("what would go live is not, byte for byte, what the guards examined; nothing was put to work")
        self.publisher.make_live(table)
        return {"live": dict(table), "artefacts": now}

    def _close(
        self,
        report: NightReport,
        samples: Sequence[Sample] = (),
        candidate: Mapping[str, str] | None = None,
        verdict: Verdict | None = None,
        error: str = "",
    ) -> None:
        """Write the night's row. A night that broke off for good has the verdict that nothing changed, and why."""
        runs = report.trained
        examples = sum(run["examples"] for run in runs)
        update: dict[str, Any] = {
            "ended_at": datetime.now(UTC),
            "verdict": verdict or Verdict(promoted=False, why=f"the night broke off: {error}"),
            "error": error,
        }
        if examples:
            update |= {
                "train_seconds": sum(run["cost"]["seconds"] for run in runs),
                "loss_first": sum(run["loss_first"] * run["examples"] for run in runs) / examples,
                "loss_last": sum(run["loss_last"] * run["examples"] for run in runs) / examples,
            }
        if candidate is not None:
            sources = dict(Counter(sample.pair.source for sample in samples))
            update |= {"adapter": skill_id(candidate), "pairs": len(samples), "sources": sources}
        report.night = report.night.model_copy(update=update)
        self.recorder.close_night(report.night)
