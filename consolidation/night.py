"""One night: from the day's experience to a verdict.

collect -> filter -> train one adapter per repository -> admit -> examine and judge -> publish.
Only this path changes what is live, and only on a promoting verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from agent.errors import ModelUnavailable
from consolidation.adapters import Manifest
from consolidation.errors import ConsolidationError, TrainingCrashed
from consolidation.gate import GateConfig, Paired, judge
from consolidation.pairs import Encoder, Pair, filter_pairs
from consolidation.skill import Publisher, skill_id
from consolidation.trainers.base import Example, Job, LoraConfig, Progress, Trained, Trainer
from consolidation.trainers.machine import Machine
from memory.files import write_whole
from memory.hashing import content_hash
from memory.nights import Night, Verdict

STRATEGY = "per_repository"
PAIRS = "pairs.jsonl"


class NightConfig(BaseModel):
    """Everything that decides a night."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    merged_fixes: bool = True
    """Also learn from the merged fixes of tasks that are over. Named in every result."""
    rehearsal: int = Field(default=0, ge=0)
    """Old episodes that are mixed in for each repository against forgetting. Named in every result."""
    lora: LoraConfig = LoraConfig()
    gate: GateConfig = GateConfig()
    seed: int = 0
    """Decides the order of the examples and the adapter's first weights."""
    threads: int = Field(default=2, ge=1)
    """Threads that training may use."""
    context: int = Field(default=1024, ge=2)
    """Longest example (tokens); longer ones are left out, none is cut."""
    machine: Machine = Machine()


@dataclass(frozen=True)
class Examination:
    """What the guards found for a candidate: paired results by guard, and whether it differs at all."""

    guards: Mapping[str, Paired]
    differs: bool


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


@dataclass
class NightReport:
    """What a night did; `adapters` is the candidate routing table, live only if the verdict promotes."""

    night: Night
    adapters: dict[str, str] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sleeper:
    """Runs nights. `examine` gets the candidate's routes and compares it with the base on the guards.

    `tidy` consolidates what is known, and is given the night's id; a night that does not train (`trains`) does nothing else.

    Every step is recorded when it is finished, and a night that was broken off goes on after its
    last finished step. A step that is done again does no harm: pairs are written whole, adapters
    are content-addressed, and publishing what is live already changes nothing.
    """

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
    tidy: Callable[[str], Mapping[str, Any]] | None = None
    trains: bool = True

    @property
    def config_hash(self) -> str:
        """Hash of the recipe, the base model and the strategy."""
        return content_hash([self.config, self.base_hash, STRATEGY])

    def open(self) -> Night:
        """Begin a night."""
        began = datetime.now(UTC)
        night = Night(
            id=content_hash([began, self.config_hash]),
            started_at=began,
            strategy=STRATEGY,
            seed=self.config.seed,
            config_hash=self.config_hash,
        )
        self.recorder.open_night(night)
        return night

    def sleep(
        self, collect: Callable[[], Sequence[Pair]], held_out: Set[str] = frozenset(), night: Night | None = None
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
            self._sleep(report, collect, held_out)
        except (TrainingCrashed, ModelUnavailable):
            raise
        except Exception as error:
            self._close(report, error=f"{type(error).__name__}: {error}"[:500])
            raise
        return report

    def _once(self, report: NightReport, name: str, do: Callable[[], BaseModel | Mapping[str, Any]]) -> Mapping[str, Any]:
        """What a step gives: from the journal where it is finished, else by doing it now."""
        known = self.recorder.step_result(report.night.id, name)
        if known is None:
            self.on_phase(name)
            given = do()
            known = given.model_dump(mode="json") if isinstance(given, BaseModel) else given
            self.recorder.record_step(report.night.id, name, known)
        return known

    def _sleep(self, report: NightReport, collect: Callable[[], Sequence[Pair]], held_out: Set[str]) -> None:
        if report.night.config_hash != self.config_hash:
            raise ConsolidationError("the night was begun under another configuration or base model; it ends without a verdict")
        if self.tidy is not None:
            self._once(report, "knowledge", partial(self.tidy, report.night.id))
        if not self.trains:
            self._close(report, verdict=Verdict(promoted=False, why="this arm trains no adapter"))
            return
        folder = self.work / report.night.id
        listed = self._once(report, "pairs", lambda: _write_pairs(folder / PAIRS, collect()))
        pairs = _read_pairs(folder / PAIRS, str(listed["hash"]))
        kept = filter_pairs(pairs, self.encode, self.config.context, held_out)
        report.dropped = dict(kept.dropped)
        counts = Counter(pair.repo for pair in kept.pairs)
        repos = sorted(repo for repo, count in counts.items() if count >= self.config.lora.batch_size)
        if not repos:
            raise ConsolidationError(
                f"no repository has a batch of pairs fit for training (fit: {dict(counts)}, dropped: {report.dropped}); "
                "wait for verified trajectories"
            )
        for repo in repos:
            mine = [(p, e) for p, e in zip(kept.pairs, kept.encoded, strict=True) if p.repo == repo]
            done = self._once(report, f"train {repo}", partial(self._train, report.night, repo, mine))
            report.trained[repo], report.adapters[repo] = Trained.model_validate(done["trained"]), str(done["adapter"])
        before = self._once(report, "before", lambda: {"live": self.publisher.live()})
        candidate = {**before["live"], **report.adapters}
        verdict = Verdict.model_validate(self._once(report, "guards", lambda: self._judge(candidate)))
        for identity in report.adapters.values():
            self.publisher.adapters.judge(identity, "passed" if verdict.promoted else "rejected", verdict.why, verdict.numbers)
        if verdict.promoted:
            self._once(report, "publish", lambda: self._publish(candidate))
        self._close(report, kept.pairs, candidate, verdict)

    def _train(self, night: Night, repo: str, data: Sequence[tuple[Pair, tuple[list[int], list[bool]]]]) -> dict[str, Any]:
        job = Job(
            base=self.base,
            base_hash=self.base_hash,
            lora=self.config.lora,
            seed=self.config.seed,
            threads=self.config.threads,
            context=self.config.context,
            machine=self.config.machine,
        )
        examples = [Example(ids=ids, own=own, rehearsal=pair.source != "merged_fix") for pair, (ids, own) in data]
        trained = self.trainer.fit(
            job, examples, self.work / night.id / f"train-{repo}", lambda progress: self.on_step(repo, progress)
        )
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
            rank=self.config.lora.rank,
            alpha=self.config.lora.alpha * self.config.lora.serving_scale,
            targets=self.config.lora.targets,
        )
        adapter = self.publisher.adapters.admit(trained.folder, manifest).id
        attempts = sorted({pair.trajectory_id for pair, _ in data})
        return {"trained": trained.model_dump(mode="json"), "adapter": adapter, "attempts": attempts}

    def _judge(self, candidate: Mapping[str, str]) -> Verdict:
        examination = self.examine(self.publisher.routes(candidate))
        return judge(examination.guards, self.config.gate, examination.differs)

    def _publish(self, candidate: Mapping[str, str]) -> dict[str, Any]:
        self.publisher.make_live(candidate)
        return {"live": dict(candidate)}

    def _close(
        self,
        report: NightReport,
        pairs: Sequence[Pair] = (),
        candidate: Mapping[str, str] | None = None,
        verdict: Verdict | None = None,
        error: str = "",
    ) -> None:
        """Write the night's row. A night that broke off for good has the verdict that nothing changed, and why."""
        runs = report.trained.values()
        examples = sum(t.examples for t in runs)
        update: dict[str, Any] = {
            "ended_at": datetime.now(UTC),
            "verdict": verdict or Verdict(promoted=False, why=f"the night broke off: {error}"),
            "error": error,
        }
        if examples:
            update |= {
                "train_seconds": sum(t.seconds for t in runs),
                "loss_first": sum(t.loss_first * t.examples for t in runs) / examples,
                "loss_last": sum(t.loss_last * t.examples for t in runs) / examples,
            }
        if candidate is not None:
            update |= {"adapter": skill_id(candidate), "pairs": len(pairs), "sources": dict(Counter(p.source for p in pairs))}
        report.night = report.night.model_copy(update=update)
        self.recorder.close_night(report.night)


def _write_pairs(path: Path, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Write the night's pairs, whole or not at all; the journal keeps their hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(pair.model_dump_json() + "\n" for pair in pairs)
    write_whole(path, text)
    return {"pairs": len(pairs), "hash": content_hash(text)}


def _read_pairs(path: Path, digest: str) -> list[Pair]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConsolidationError(f"{path}: the night's pairs cannot be read ({error}); the night cannot go on") from error
    if content_hash(text) != digest:
        raise ConsolidationError(f"{path}: the night's pairs were changed; the night cannot go on")
    return [Pair.model_validate_json(line) for line in text.split("\n") if line]
