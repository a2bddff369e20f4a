"""What strategies that end in a single training share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from consolidation.adapters import Adapter
from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Cost, Learnt
from consolidation.trainers.base import Job, Trained


def starting_from(job: Job, previous: Adapter | None) -> Job:
    """The job, going on from an adapter if there is one."""
    return job.model_copy(update={"start": previous.folder}) if previous is not None else job


def learnt_from(
    trained: Trained, bench: Bench, attachments: Mapping[str, Path] | None = None, notes: Mapping[str, float] | None = None
) -> Learnt:
    """What a single training gives; its checkpoints compete with its end."""
    kept = attachments or {}
    lora = bench.job.lora
    return Learnt(
        folder=trained.folder,
        rank=lora.rank,
        alpha=lora.alpha * lora.serving_scale,
        trained=(trained,),
        cost=Cost(
            tokens=trained.tokens,
            seconds=trained.seconds,
            extra_seconds=bench.beside,
            bytes=size_of(trained.folder) + sum(path.stat().st_size for path in kept.values()),
        ),
        examples=trained.examples,
        loss_first=trained.loss_first,
        loss_last=trained.loss_last,
        attachments=dict(kept),
        candidates=tuple(point.folder for point in trained.checkpoints if point.folder != trained.folder),
        notes=dict(notes or {}),
    )


def size_of(folder: Path) -> int:
    """Bytes of an adapter folder's files."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
