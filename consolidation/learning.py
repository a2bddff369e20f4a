"""One lesson becomes candidates: a strategy trains, with several seeds if asked, and what comes of it is admitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from consolidation.adapters import AdapterStore, Manifest
from consolidation.errors import TrainingRefused
from consolidation.strategies.bench import Bench
from consolidation.strategies.choice import AnyStrategy
from consolidation.strategies.seam import Learnt, Lesson
from consolidation.trainers.base import Job, Progress, Trainer
from memory.hashing import content_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Learning:
    """How a night trains: the strategy, the recipe with the night's first seed, and where adapters are kept."""

    strategy: AnyStrategy
    job: Job
    config_hash: str
    trainer: Trainer
    adapters: AdapterStore
    embed: Callable[[Sequence[str]], NDArray[np.float32]]

    def learn(self, lesson: Lesson, seed: int, folder: Path, on_step: Callable[[Progress], None]) -> dict[str, Any]:
        """Train a lesson with a seed in a folder of its own, and admit what came of it; what the journal keeps of that.

        `adapters` are the candidates, checkpoints before the end; `adapter` is the end. `attempts` are those it was taught,
        `previous` is the adapter it goes back to.

        Raises:
            TrainingRefused, TrainingCrashed, AdapterError: nothing came of it.
        """
        job = self.job.model_copy(update={"seed": seed})
        learnt = self.strategy.learn(lesson, Bench(self.trainer, job, folder, self.embed, on_step))
        made = [self._admit(learnt, place, lesson, job) for place in (*learnt.candidates, learnt.folder)]
        lived = [sample.pair for sample in (*lesson.past, *lesson.new)]
        return {
            "adapter": made[-1],
            "adapters": list(dict.fromkeys(made)),
            "previous": lesson.previous.id if lesson.previous is not None else None,
            "attempts": sorted(frozenset[str]().union(*(pair.attempts for pair in lived))),
            "seed": seed,
            "new": len(lesson.new),
            "past": len(lesson.past),
            "rehearsal": len(lesson.rehearsal),
            "rank": learnt.rank,
            "examples": learnt.examples,
            "loss_first": learnt.loss_first,
            "loss_last": learnt.loss_last,
            "cost": learnt.cost.model_dump(),
            "notes": learnt.notes,
        }

    def tried(self, lesson: Lesson, seed: int, folder: Path, on_step: Callable[[Progress], None]) -> dict[str, Any]:
        """See `learn`; a lesson that cannot be learnt gives why (`refused`), and costs the other lessons nothing."""
        try:
            return self.learn(lesson, seed, folder, on_step)
        except TrainingRefused as refused:
            return {"refused": str(refused)}

    def _admit(self, learnt: Learnt, folder: Path, lesson: Lesson, job: Job) -> str:
        manifest = Manifest(
            created_at=datetime.now(UTC),
            base=job.base_hash,
            strategy=self.strategy.kind,
            seed=job.seed,
            data=content_hash(sorted(sample.pair.content for sample in lesson.all)),
            scope=lesson.scope,
            parents=(lesson.previous.id,) if lesson.previous is not None else (),
            config_hash=self.config_hash,
            loss_first=learnt.loss_first,
            loss_last=learnt.loss_last,
            rank=learnt.rank,
            alpha=learnt.alpha,
            targets=job.lora.targets,
        )
        return self.adapters.admit(folder, manifest, learnt.attachments).id
