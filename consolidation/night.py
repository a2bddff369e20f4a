"""One night: from the day's experience to a verdict.

collect -> filter -> train one adapter per repository -> admit -> examine -> judge -> publish.
Only this path changes what is live, and only on a promoting verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from consolidation.adapters import Manifest
from consolidation.errors import ConsolidationError
from consolidation.gate import GateConfig, Paired, judge
from consolidation.pairs import Encoder, Pair, filter_pairs
from consolidation.skill import Publisher, skill_id
from consolidation.trainers.base import Example, Job, LoraConfig, Progress, Trained, Trainer
from memory.hashing import content_hash
from memory.nights import Night, Verdict

STRATEGY = "per_repository"


class NightConfig(BaseModel):
    """Everything that decides a night."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    merged_fixes: bool = True
    """Also learn from the merged fixes of tasks that are over. Named in every result."""
    lora: LoraConfig = LoraConfig()
    gate: GateConfig = GateConfig()
    seed: int = 0
    threads: int = Field(default=2, ge=1)
    context: int = Field(default=1024, ge=2)


@dataclass(frozen=True)
class Examination:
    """What the guards found for a candidate: paired results by guard, and whether it differs at all."""

    guards: Mapping[str, Paired]
    differs: bool


class NightRecorder(Protocol):
    """Where nights are written."""

    def open_night(self, night: Night) -> None:
        """A night begins."""
        ...

    def close_night(self, night: Night) -> None:
        """A night has ended, with a verdict or an error."""
        ...


@dataclass
class NightReport:
    """What a night did; `adapters` is the candidate routing table, live only if the verdict promotes."""

    night: Night
    adapters: dict[str, str] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Sleeper:
    """Runs nights. `examine` gets the candidate's routes and compares it with the base on the guards."""

    config: NightConfig
    base: Path
    base_hash: str
    encode: Encoder
    trainer: Trainer
    publisher: Publisher
    recorder: NightRecorder
    work: Path
    examine: Callable[[Mapping[str, Path]], Examination]
    on_step: Callable[[str, Progress], None] = lambda repo, progress: None
    on_phase: Callable[[str], None] = lambda phase: None

    def sleep(self, pairs: Sequence[Pair], held_out: Set[str] = frozenset()) -> NightReport:
        """One whole night on these pairs. What goes wrong ends in the night's row, and is raised again."""
        began = datetime.now(UTC)
        digest = content_hash([self.config, self.base_hash, STRATEGY])
        night = Night(
            id=content_hash([began, digest, [p.content for p in pairs]]),
            started_at=began,
            strategy=STRATEGY,
            seed=self.config.seed,
            sources=dict(Counter(pair.source for pair in pairs)),
            pairs=0,
            config_hash=digest,
        )
        self.recorder.open_night(night)
        report = NightReport(night)
        try:
            self._sleep(report, pairs, held_out)
        except BaseException as error:
            report.night = report.night.model_copy(
                update={"error": f"{type(error).__name__}: {error}"[:500], "ended_at": datetime.now(UTC)}
            )
            self.recorder.close_night(report.night)
            raise
        self.recorder.close_night(report.night)
        return report

    def _sleep(self, report: NightReport, pairs: Sequence[Pair], held_out: Set[str]) -> None:
        kept = filter_pairs(pairs, self.encode, self.config.context, held_out)
        report.dropped = kept.dropped
        if not kept.pairs:
            raise ConsolidationError(
                f"no pair is fit for training (dropped: {dict(kept.dropped)}); wait for verified trajectories"
            )
        for repo in sorted({pair.repo for pair in kept.pairs}):
            self.on_phase(f"training {repo}")
            mine = [(p, e) for p, e in zip(kept.pairs, kept.encoded, strict=True) if p.repo == repo]
            report.trained[repo], report.adapters[repo] = self._train(report.night, repo, mine)
        self.on_phase("guards")
        candidate = {**self.publisher.live(), **report.adapters}
        verdict = self._judge(candidate)
        if verdict.promoted:
            self.publisher.make_live(candidate)
        runs = report.trained.values()
        report.night = report.night.model_copy(
            update={
                "ended_at": datetime.now(UTC),
                "pairs": len(kept.pairs),
                "sources": dict(Counter(pair.source for pair in kept.pairs)),
                "adapter": skill_id(candidate),
                "loss_first": sum(t.loss_first * t.examples for t in runs) / sum(t.examples for t in runs),
                "loss_last": sum(t.loss_last * t.examples for t in runs) / sum(t.examples for t in runs),
                "train_seconds": sum(t.seconds for t in runs),
                "verdict": verdict,
            }
        )

    def _train(self, night: Night, repo: str, data: Sequence[tuple[Pair, tuple[list[int], list[bool]]]]) -> tuple[Trained, str]:
        job = Job(
            base=self.base,
            lora=self.config.lora,
            seed=self.config.seed,
            threads=self.config.threads,
            context=self.config.context,
        )
        examples = [Example(ids=ids, own=own, rehearsal=pair.source == "agent") for pair, (ids, own) in data]
        folder = self.work / night.id / repo
        trained = self.trainer.fit(job, examples, folder, lambda progress: self.on_step(repo, progress))
        manifest = Manifest(
            created_at=datetime.now(UTC),
            base=self.base_hash,
            strategy=STRATEGY,
            seed=self.config.seed,
            data=content_hash(sorted(pair.content for pair, _ in data)),
            scope=(repo,),
            config_hash=night.config_hash,
            loss_first=trained.loss_first,
            loss_last=trained.loss_last,
        )
        return trained, self.publisher.adapters.admit(trained.folder, manifest).id

    def _judge(self, candidate: Mapping[str, str]) -> Verdict:
        examination = self.examine(self.publisher.routes(candidate))
        return judge(examination.guards, self.config.gate, examination.differs)
