"""One night of a mixture of experts: who is taught what, and who will be asked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.adapters import read_peft
from consolidation.adapters import artefact_hash
from consolidation.errors import TrainingRefused
from consolidation.layouts import made_whole
from consolidation.layouts.peft import write_peft
from consolidation.mixture.earlier import CENTRES, Earlier, centres_of, earlier_of, write_centres
from consolidation.mixture.experts import mean_of
from consolidation.mixture.query import query_in, vectors_of
from consolidation.mixture.router import NONE, Router, Routing
from consolidation.mixture.school import Labelled, taught_router
from consolidation.mixture.taxonomy import clusters_of, merged, skill_of
from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Cost, Learnt, Lesson, Sample, items_of
from consolidation.strategies.single import size_of
from consolidation.trainers.base import Job, Trained
from memory.knowledge.embedders import HashingEmbedder

if TYPE_CHECKING:
    from consolidation.strategies.mixture import MixtureOfExperts

ROUTER_FOLDER = "router"
SEEDS_APART = 1000
"""Between the experts of a night, whose first weights shall differ."""


def learnt(settings: MixtureOfExperts, lesson: Lesson, bench: Bench) -> Learnt:
    """One night of a mixture: experts, router and the artefact of both; see the `Strategy` seam."""
    lived, lora = (*lesson.past, *lesson.new), bench.job.lora
    if not lived:
        raise TrainingRefused("there is nothing to be an expert of; wait for verified trajectories")
    if lora.rank < settings.experts:
        raise TrainingRefused(
            f"rank {lora.rank} cannot be divided among {settings.experts} experts; set lora.rank to at least {settings.experts}"
        )
    width = bench.embed([""]).shape[1]
    before = earlier_of(lesson.previous, settings.taxonomy, lora, width) if settings.goes_on else None
    labels, merges = _labels(settings, lived, before, bench)
    names = before.routing.categories if before is not None else tuple(sorted(set(labels)))
    ranks = before.routing.ranks if before is not None else shares(lora.rank, len(names))
    trained, experts = [], []
    for number, name in enumerate(names):
        start = before.expert(number, bench.folder) if before is not None else None
        skipped = len(lesson.past) if start is not None else 0
        own = [s for at, (s, label) in enumerate(zip(lived, labels, strict=True)) if label == name and at >= skipped]
        items = items_of((*own, *lesson.rehearsal[number :: len(names)]))
        if start is not None and (not own or len(items) < lora.batch_size):
            experts.append(start)
            continue
        trained.append(bench.fit(f"expert-{name}", items, job_of(bench.job, ranks[number], number, start)))
        experts.append(trained[-1].folder)
    if not trained:
        raise TrainingRefused(f"no expert has a batch of {lora.batch_size} new examples; wait for more")
    issues = [(query_in(sample.pair), names.index(label)) for sample, label in zip(lived, labels, strict=True)]
    issues += [(query_in(sample.pair), NONE) for sample in lesson.rehearsal]
    notes = {"experts": float(len(names)), "merged": float(merges), "trained": float(len(trained))}
    notes |= _router(settings, names, ranks, issues, bench)
    return _learnt(_assembled(experts, bench), trained, len(names), bench, notes)


def _labels(settings: MixtureOfExperts, lived: Sequence[Sample], before: Earlier | None, bench: Bench) -> tuple[list[str], int]:
    """Each sample's category, and how many were merged for want of examples; the categories' centres are written."""

    def sort() -> dict[str, Any]:
        vectors = vectors_of([query_in(sample.pair) for sample in lived], bench.embed)
        skills = [skill_of(sample.pair) for sample in lived]
        bench.folder.mkdir(parents=True, exist_ok=True)
        if before is not None:
            write_centres(bench.folder / CENTRES, before.centres)
            return {"labels": before.labels(skills, vectors), "merges": 0}
        if settings.taxonomy == "clusters":
            skills = [f"cluster_{number}" for number in clusters_of(vectors, settings.experts, bench.job.seed)]
        kept = merged(skills, vectors, bench.job.lora.batch_size, settings.experts)
        write_centres(bench.folder / CENTRES, centres_of(kept, vectors))
        return {"labels": kept, "merges": len(set(skills)) - len(set(kept))}

    known = artefact_hash(before.folder) if before is not None else ""
    found = bench.aside("categories", [settings, bench.job, lived, known], sort)
    return found["labels"], found["merges"]


def _router(
    settings: MixtureOfExperts,
    names: tuple[str, ...],
    ranks: tuple[int, ...],
    issues: Sequence[Labelled],
    bench: Bench,
) -> dict[str, float]:
    """Train the router, write it, and say how good it is."""
    routing = Routing(
        taxonomy=settings.taxonomy,
        categories=names,
        ranks=ranks,
        top_k=settings.top_k,
        floor=settings.floor,
        embedder=HashingEmbedder.name,
        dimensions=HashingEmbedder.dimensions,
        hidden=settings.hidden,
    )

    def train() -> dict[str, float]:
        router, notes = taught_router(
            routing,
            issues,
            HashingEmbedder().embed,
            held=settings.held,
            seed=bench.job.seed,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
        )
        (bench.folder / ROUTER_FOLDER).mkdir(parents=True, exist_ok=True)
        router.save(bench.folder / ROUTER_FOLDER)
        return notes

    return dict(bench.aside("router", [settings, routing, issues, bench.job.seed], train))


def shares(rank: int, experts: int) -> tuple[int, ...]:
    """Ranks that add up to `rank`: equal ones, and the remainder with the first. `experts` is at most `rank`."""
    each = rank // experts
    return (rank - each * (experts - 1), *[each] * (experts - 1))


def job_of(job: Job, rank: int, number: int, start: Path | None) -> Job:
    """The job of one expert: its share of the rank at the scale of the whole, a seed of its own, and where it goes on from."""
    lora = job.lora.model_copy(update={"rank": rank, "alpha": job.lora.alpha * rank / job.lora.rank})
    return job.model_copy(update={"lora": lora, "seed": job.seed + SEEDS_APART * number, "start": start})


def _assembled(experts: Sequence[Path], bench: Bench) -> Path:
    """The artefact: the mean of the experts in PEFT layout, and the router. What a broken-off night left is replaced."""
    folder = bench.folder / "mixture"
    shutil.rmtree(folder, ignore_errors=True)
    with made_whole(folder) as made:
        write_peft(mean_of([read_peft(expert) for expert in experts]), made, bench.job.base.name)
        Router.load(bench.folder / ROUTER_FOLDER).save(made)
    return folder


def _learnt(folder: Path, trained: Sequence[Trained], experts: int, bench: Bench, notes: dict[str, float]) -> Learnt:
    lora, examples, centres = bench.job.lora, sum(t.examples for t in trained), bench.folder / CENTRES
    return Learnt(
        folder=folder,
        rank=lora.rank,
        alpha=lora.alpha * lora.serving_scale / experts,
        trained=tuple(trained),
        cost=Cost(
            tokens=sum(t.tokens for t in trained),
            seconds=sum(t.seconds for t in trained),
            extra_seconds=bench.beside,
            bytes=size_of(folder) + centres.stat().st_size,
        ),
        examples=examples,
        loss_first=sum(t.loss_first * t.examples for t in trained) / examples,
        loss_last=sum(t.loss_last * t.examples for t in trained) / examples,
        attachments={CENTRES: centres},
        notes=notes,
    )
