"""The gate numbers of the pocket world: `sleepyctl bench pocket`.

Per seed: how many base-skill tasks and convention tasks of unseen functions the bare model
resolves; then, per repository, one day of tasks is lived through, one night trains on it, and
unseen convention tasks and base-skill tasks of that repository are played by the base and by the
adapted model, paired. Nothing is selected: every adapter is measured, whatever a gate would say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from agent.pocket.model import PocketModel
from agent.sandbox.base import Sandbox
from consolidation.filters import Filters
from consolidation.gate import Paired
from consolidation.night_config import NightConfig
from consolidation.strategies.seam import items_of
from consolidation.trainers.base import Job, Trainer
from eval.experience import pairs_of_day
from eval.guards import compare
from eval.held_out import held_out_of
from eval.play import Player
from eval.pocket.names import Split
from eval.pocket.rehearsal import rehearsal_pairs
from eval.pocket.stream import REPOSITORIES, PocketStream
from eval.pocket.world import CONVENTION_KIND
from eval.statistics.proportions import wilson
from memory.hashing import content_hash
from memory.tasks import Task
from memory.trajectories import Trajectory

CONTEXT = 1024
"""Longest example (tokens) where the configuration names none."""


class Rate(BaseModel):
    """A share with its 95 % Wilson interval."""

    resolved: int
    tasks: int
    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, resolved: int, tasks: int) -> Rate:
        """From counts."""
        low, high = wilson(resolved, tasks)
        return cls(
            resolved=resolved, tasks=tasks, rate=round(resolved / max(tasks, 1), 4), low=round(low, 4), high=round(high, 4)
        )


class Change(BaseModel):
    """Base and adapted on the same tasks; `change` in points with its 95 % interval."""

    tasks: int
    base: Rate
    adapted: Rate
    change: float
    low: float
    high: float

    @classmethod
    def of(cls, paired: Sequence[Paired]) -> Change:
        """Pool paired results."""
        pooled = Paired(
            n=sum(p.n for p in paired),
            base=sum(p.base for p in paired),
            candidate=sum(p.candidate for p in paired),
            lost=sum(p.lost for p in paired),
            gained=sum(p.gained for p in paired),
        )
        low, high = pooled.interval()
        return cls(
            tasks=pooled.n,
            base=Rate.of(pooled.base, pooled.n),
            adapted=Rate.of(pooled.candidate, pooled.n),
            change=round(-pooled.drop, 4),
            low=round(low, 4),
            high=round(high, 4),
        )


class RepositoryResult(BaseModel):
    """One repository, one seed."""

    seed: int
    repo: str
    pairs: dict[str, int]
    train_seconds: float
    conventions: Change
    base_skills: Change


class PocketBench(BaseModel):
    """The whole report; `config_hash` covers model, recipe, sizes and code."""

    config_hash: str
    seeds: list[int]
    base_skills: Rate
    base_skills_by_seed: dict[int, Rate]
    base_skills_by_kind: dict[str, Rate]
    conventions_without_memory: Rate
    conventions_after_night: Change
    base_skills_after_night: Change
    by_repository: list[RepositoryResult]
    day_tasks_per_repository: int
    learns_from: list[str]
    load_average: float
    wall_seconds: float


@dataclass(frozen=True)
class BenchSize:
    """Tasks per repository and seed: lived through in the day, and examined of each group."""

    day: int = 120
    examined: int = 12


@dataclass
class _Samples:
    base: list[Trajectory]
    kinds: dict[str, list[bool]]


def bench_pocket(
    model: PocketModel,
    sandbox: Sandbox,
    trainer: Trainer,
    work: Path,
    config: NightConfig,
    seeds: Sequence[int],
    repos: Sequence[str] = REPOSITORIES,
    size: BenchSize | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> PocketBench:
    """Measure; `work` keeps every trained adapter."""
    size = size or BenchSize()
    began = time.monotonic()
    player = Player(model, sandbox)
    kinds: dict[str, list[bool]] = {}
    by_seed: dict[int, list[Paired]] = {}
    rows: list[RepositoryResult] = []
    conventions: list[Paired] = []
    skills: list[Paired] = []
    for seed in seeds:
        for repo in repos:
            exam = PocketStream(seed, (repo,), 2 * size.examined, split=Split.HELD_OUT)
            base = list(player.play(exam, exam.tasks()))
            secrets = {task.id: exam.secret(task).kind for task in exam.tasks()}
            for trajectory in base:
                kinds.setdefault(secrets[trajectory.task_id], []).append(trajectory.resolved)
            row, convention, skill = _night(
                model, player, sandbox, trainer, work, config, seed, repo, exam, base, secrets, size
            )
            rows.append(row)
            conventions.append(convention)
            skills.append(skill)
            by_seed.setdefault(seed, []).append(skill)
            say(
                f"seed {seed} {repo}: conventions {convention.base} -> {convention.candidate} of {convention.n}, "
                f"base skills {skill.base} -> {skill.candidate} of {skill.n}"
            )
    basics = {kind: Rate.of(sum(r), len(r)) for kind, r in sorted(kinds.items()) if kind != CONVENTION_KIND}
    return PocketBench(
        config_hash=content_hash([model.fingerprint, config, list(seeds), list(repos), size.day, size.examined]),
        seeds=list(seeds),
        base_skills=Rate.of(sum(p.base for p in skills), sum(p.n for p in skills)),
        base_skills_by_seed={seed: Rate.of(sum(p.base for p in ps), sum(p.n for p in ps)) for seed, ps in by_seed.items()},
        base_skills_by_kind=basics,
        conventions_without_memory=Rate.of(sum(p.base for p in conventions), sum(p.n for p in conventions)),
        conventions_after_night=Change.of(conventions),
        base_skills_after_night=Change.of(skills),
        by_repository=rows,
        day_tasks_per_repository=size.day,
        learns_from=[
            "own successes",
            *(["merged fixes of tasks that are over"] if config.merged_fixes else []),
            *(["rehearsed pretraining episodes"] if config.rehearsal else []),
        ],
        load_average=round(os.getloadavg()[0], 2),
        wall_seconds=round(time.monotonic() - began, 1),
    )


def _night(
    model: PocketModel,
    player: Player,
    sandbox: Sandbox,
    trainer: Trainer,
    work: Path,
    config: NightConfig,
    seed: int,
    repo: str,
    exam: PocketStream,
    base: Sequence[Trajectory],
    kinds: dict[str, str],
    size: BenchSize,
) -> tuple[RepositoryResult, Paired, Paired]:
    day = PocketStream(seed, (repo,), size.day)
    pairs = pairs_of_day(day, list(player.play(day, day.tasks())), sandbox, config.merged_fixes)
    pairs += rehearsal_pairs(repo, config.rehearsal, seed)
    context = config.context or CONTEXT
    held_out = held_out_of(exam, exam.tasks())
    kept = Filters(config.filters, model.tokenizer.example, context, held_out).filtered(pairs).samples
    job = Job(base=model.folder, lora=config.lora, seed=seed, threads=config.threads, context=context)
    trained = trainer.fit(job, items_of(kept), work / f"{repo}-{seed}", lambda progress: None)
    tasks: list[Task] = exam.tasks()
    adapted = list(player.play(exam, tasks, {repo: trained.folder}))

    def of(convention: bool) -> Paired:
        return compare(
            [t for t in base if (kinds[t.task_id] == CONVENTION_KIND) == convention],
            [t for t in adapted if (kinds[t.task_id] == CONVENTION_KIND) == convention],
        )

    convention, skill = of(True), of(False)
    sources = {source: sum(s.pair.source == source for s in kept) for source in ("agent", "merged_fix", "rehearsal")}
    row = RepositoryResult(
        seed=seed,
        repo=repo,
        pairs=sources,
        train_seconds=round(trained.seconds, 1),
        conventions=Change.of([convention]),
        base_skills=Change.of([skill]),
    )
    return row, convention, skill
