"""Adaptive rank: every session gets the rank it needs on top of what is there; the oldest are compressed by truncated SVD."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.errors import ModelError
from consolidation.adapters import ROUTER, Adapter, artefact_hash
from consolidation.errors import AdapterError, TrainingRefused
from consolidation.strategies.bench import Bench
from consolidation.strategies.probing import Probed, at_rank, probe
from consolidation.strategies.seam import Cost, Learnt, Lesson, items_of
from consolidation.strategies.single import size_of
from consolidation.strategies.svd import SEGMENTS, Part, Segment, Segments, parts_of, within
from consolidation.trainers.base import Item, Job, Trained
from consolidation.trainers.checks import check_examples
from memory.files import write_whole


class AdaptiveRank(BaseModel):
    """One segment of ranks for each session, side by side in one adapter: W + the sum of all segments is what is served.

    A session is trained on a temporary copy of the base with the earlier segments, as they are served, fused into its
    weights, in the type of these weights (a bfloat16 base rounds the sum, and NF4 quantises it while it is trained on).
    A folder that was quantised (`mlx_lm.convert -q`) can carry the first session alone; the second is refused.
    Ranks are compared at the same alpha / rank. The oldest segments are compressed before the session is trained
    (Eckart and Young 1936), so that it is trained on what it is served with. Where preferences or KL hold to a
    reference, that is the base with the earlier segments.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["adaptive_rank"] = "adaptive_rank"
    ranks: tuple[int, ...] = Field(default=(1, 2, 4, 8, 16), min_length=1)
    """Ranks that are probed; a single one is taken without probing."""
    probe_epochs: int = Field(default=2, ge=1)
    """Passes over the examples in each probe."""
    validation: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the examples that probes are compared on; the session itself is trained on all of them."""
    tolerance: float = Field(default=0.02, ge=0)
    """The smallest rank r is taken whose validation loss is L(r) <= (1 + tolerance) * min L."""
    budget: int = Field(default=64, ge=2)
    """Most ranks of all segments together."""
    merge: int = Field(default=2, ge=2)
    """How many of the oldest segments are merged at a time when the budget is exceeded."""
    target: int = Field(default=2, ge=1)
    """Rank that merged segments are compressed to in every layer."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if min(self.ranks) < 1 or len(set(self.ranks)) < len(self.ranks):
            raise ValueError("ranks are different whole numbers of at least 1")
        if self.budget < max(self.ranks) + self.target:
            raise ValueError("the budget must hold the largest rank and a compressed segment: raise it, or lower one of them")
        return self

    def learn(self, lesson: Lesson, bench: Bench) -> Learnt:
        """See the `Strategy` seam."""
        items, grounds = items_of(lesson.new), [bench.folder / "ground", bench.folder / "ground-compressed"]
        check_examples(self._probing(bench.job), items)
        try:
            learnt = self._learn(items, lesson.previous, bench, *grounds)
        except (ModelError, AdapterError, TrainingRefused) as error:
            _remove(*grounds)
            raise error if isinstance(error, TrainingRefused) else TrainingRefused(str(error)) from error
        _remove(*grounds)
        return learnt

    def _learn(self, items: list[Item], previous: Adapter | None, bench: Bench, ground: Path, compressed: Path) -> Learnt:
        old = _segments_of(previous, bench)
        inputs = [self, bench.job, items, previous and previous.id]
        found = bench.aside("probe", inputs, lambda: self._probe(items, previous, bench, ground).model_dump(mode="json"))
        probed = Probed.model_validate(found)
        kept, energies = within(old, self.budget - probed.rank, self.merge, self.target)
        if previous is not None and energies:
            _remove(ground)
            previous, ground = _written(kept, previous, bench), compressed
        job = self._on(bench.job, _ground(previous, bench, ground))
        trained = bench.fit("session", items, job.model_copy(update={"lora": at_rank(bench.job.lora, probed.rank)}))
        tonight = Segment(nights=(1 + max((n for p in old for n in p.segment.nights), default=0),), rank=probed.rank)
        segments = Segments(segments=(*(part.segment for part in kept), tonight))
        write_whole(bench.folder / SEGMENTS, segments.model_dump_json(indent=2))
        return self._learnt(kept, segments, trained, probed, energies, bench)

    def _probing(self, job: Job) -> Job:
        if len(self.ranks) == 1:
            return job
        short = {"epochs": self.probe_epochs, "validation": self.validation, "checkpoints": 1, "patience": 0}
        return job.model_copy(update={"lora": job.lora.model_copy(update=short)})

    def _probe(self, items: list[Item], previous: Adapter | None, bench: Bench, ground: Path) -> Probed:
        if len(self.ranks) == 1:
            return Probed(rank=self.ranks[0], losses={})
        job = self._on(self._probing(bench.job), _ground(previous, bench, ground, timed=False))
        return probe(bench, items, job, self.ranks, self.tolerance)

    def _on(self, job: Job, base: Path) -> Job:
        """The job on another base, from its own first weights."""
        lora = job.lora.model_copy(update={"reference": "base"})
        return job.model_copy(update={"base": base, "base_hash": "", "start": None, "lora": lora})

    def _learnt(
        self, kept: list[Part], segments: Segments, trained: Trained, probed: Probed, energies: list[float], bench: Bench
    ) -> Learnt:
        folder = _beside(kept, trained.folder, bench.folder / "served", bench)
        points = [point for point in trained.checkpoints if point.folder != trained.folder]
        lora, attached = bench.job.lora, bench.folder / SEGMENTS
        return Learnt(
            folder=folder,
            rank=segments.rank,
            alpha=_alpha(folder),
            trained=(trained,),
            cost=Cost(
                tokens=trained.tokens + probed.tokens,
                seconds=trained.seconds,
                extra_seconds=bench.beside,
                bytes=size_of(folder) + attached.stat().st_size,
            ),
            examples=trained.examples,
            loss_first=trained.loss_first,
            loss_last=trained.loss_last,
            attachments={SEGMENTS: attached},
            candidates=tuple(_beside(kept, p.folder, bench.folder / f"served-{p.step}", bench) for p in points),
            notes={"rank": float(probed.rank), "segments": float(len(segments.segments)), "scale": lora.alpha / lora.rank}
            | {f"loss_at_rank_{rank}": loss for rank, loss in probed.losses.items()}
            | {f"energy_{number}": energy for number, energy in enumerate(energies, 1)},
        )


def _segments_of(previous: Adapter | None, bench: Bench) -> list[Part]:
    if previous is None:
        return []
    from consolidation.portable import lora_of
    from consolidation.trainers.starts import check_origin

    check_origin(bench.job, previous.folder)
    if any((previous.folder / name).exists() for name in ROUTER):
        raise TrainingRefused(f"{previous.folder} is a mixture of experts, on which no session can be put; use full replay")
    bench.folder.mkdir(parents=True, exist_ok=True)
    return parts_of(lora_of(previous, bench.folder), previous.attachment(SEGMENTS))


def _ground(previous: Adapter | None, bench: Bench, out: Path, timed: bool = True) -> Path:
    """The base, or the base with an adapter fused into it."""
    if previous is None:
        return bench.job.base
    from consolidation.fuse import fuse

    def do() -> None:
        if not out.is_dir():
            fuse(bench.job.base, previous, out)

    if timed:
        bench.aside(out.name, [bench.job.base, previous.id], do)
    do()  # also where the note outlived the folder
    return out


def _written(parts: list[Part], previous: Adapter, bench: Bench) -> Adapter:
    """The compressed segments as an adapter of the same origin."""
    from consolidation.layouts.peft import write_peft
    from consolidation.lora_algebra import concatenated

    folder = bench.folder / "compressed"
    _remove(folder)
    write_peft(concatenated([part.lora for part in parts]), folder, str(bench.job.base))
    return previous.model_copy(update={"id": artefact_hash(folder), "folder": folder})


def _beside(parts: list[Part], session: Path, out: Path, bench: Bench) -> Path:
    """The adapter that is served: the segments, and the session as it was written (at its serving scale) behind them."""
    from agent.adapters import read_peft
    from consolidation.layouts.peft import write_peft
    from consolidation.lora_algebra import concatenated

    _remove(out)
    write_peft(concatenated([*(part.lora for part in parts), read_peft(session)]), out, str(bench.job.base))
    return out


def _alpha(folder: Path) -> float:
    from agent.adapters import read_peft

    return read_peft(folder).alpha


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
