"""Tiny nights for tests of strategies: real trainings of the pocket base on a few sentences, with a counting trainer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.models.weights import folder_hash
from agent.pocket import WEIGHTS
from consolidation.adapters import Adapter, AdapterStore, Manifest
from consolidation.pairs import Pair
from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Learnt, Lesson, Sample, Strategy
from consolidation.trainers.base import Example, Item, Job, Progress, Trained
from consolidation.trainers.loop import LocalTrainer
from memory.knowledge.embedders import HashingEmbedder
from tests.consolidation.lessons import job, said, trainer_of

TOPICS = (("shop", "search quux"), ("bank", "view ledger.py now"), ("mail", "run pytest tests"))
BASE_HASH = folder_hash(WEIGHTS)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Counting:
    """The real trainer, which notes what it is asked for, and is killed before one call more than `quota`."""

    inner: LocalTrainer
    quota: int = 1_000
    calls: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.inner.name

    def fit(self, job: Job, examples: Sequence[Item], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        self._note("fit", job)
        return self.inner.fit(job, examples, out, on_step)

    def loss(self, job: Job, examples: Sequence[Example], adapter: Path | None = None) -> list[float]:
        self._note("loss", job)
        return self.inner.loss(job, examples, adapter)

    def fisher(self, job: Job, examples: Sequence[Example], out: Path, adapter: Path | None = None) -> Path:
        self._note("fisher", job)
        return self.inner.fisher(job, examples, out, adapter)

    def _note(self, call: str, job: Job) -> None:
        if len(self.calls) >= self.quota:
            raise Killed
        self.calls.append(call)
        self.jobs.append(job)


def samples(first: int, count: int, rehearsal: bool = False) -> tuple[Sample, ...]:
    """Episodes about three things, each with its own answer; those of different numbers differ."""
    made = []
    for number in range(first, first + count):
        repo, answer = TOPICS[number % 3]
        issue = f"issue in {repo}\n`{repo}{number}` is wrong"
        pair = Pair(
            task_id=f"{repo}-{number}",
            repo=repo,
            trajectory_id=f"t{number}",
            source="rehearsal" if rehearsal else "agent",
            messages=(("user", issue), ("assistant", answer)),
        )
        made.append(Sample(pair, said(issue, answer, rehearsal)))
    return tuple(made)


def lesson(night: int, previous: Adapter | None = None, count: int = 6) -> Lesson:
    """What the night (from 1) has to teach, after those before it."""
    past, new = samples(0, count * (night - 1)), samples(count * (night - 1), count)
    return Lesson(("shop",), new, past, samples(900, 2, rehearsal=True), previous)


def recipe(**changes: Any) -> Job:
    usual = {"rank": 4, "alpha": 8.0, "targets": ("q_proj", "down_proj"), "learning_rate": 6e-3, "base_hash": BASE_HASH}
    return job(**{**usual, **changes})


def bench_at(folder: Path, trainer: Any = None, **changes: Any) -> Bench:
    return Bench(trainer or Counting(trainer_of("torch")), recipe(**changes), folder, HashingEmbedder().embed)


def admitted(store: AdapterStore, strategy: Strategy, learnt: Learnt) -> Adapter:
    """In the store, with its attachments, and passed."""
    manifest = Manifest(
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        base=BASE_HASH,
        strategy=strategy.kind,
        seed=0,
        data="d",
        scope=("shop",),
        config_hash="c",
        loss_first=learnt.loss_first,
        loss_last=learnt.loss_last,
        rank=learnt.rank,
        alpha=learnt.alpha,
    )
    return store.judge(store.admit(learnt.folder, manifest, learnt.attachments).id, "passed")
