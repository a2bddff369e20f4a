"""The nights of a life: what the day gave is told as pairs, filtered, and trained on; what was trained is live then.

No gate stands here, whatever the daemon has: an experiment counts every adapter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from consolidation.adapters import AdapterStore
from consolidation.filters import Filters, within_tokens
from consolidation.learning import Learning
from consolidation.lessons import lessons_of
from consolidation.pairs import Pair
from consolidation.skill import ALL, adapter_for
from consolidation.strategies.seam import Sample
from consolidation.synthesis.by_model import pairs_of_night
from consolidation.synthesis.choice import close_synthesiser, open_synthesiser
from consolidation.synthesis.seam import Lived
from consolidation.trainers.base import Example, Job
from eval.experience import lived_of_day
from eval.experiments.checks import REGRADED, Checks
from eval.experiments.life import NightRow
from eval.experiments.worlds import Block, World
from eval.play import Routes
from eval.pocket.rehearsal import rehearsal_pairs
from eval.streams import TaskStream
from memory.knowledge.embedders import HashingEmbedder
from memory.store import Store
from memory.trajectories import Trajectory

LOOKED_AT = 16
"""Pairs of each block whose losses are measured after every night."""


@dataclass
class Nights:
    """The nights of one life, in the folder `work`. `unseen` are ids of the tasks that are examined and never taught."""

    world: World
    work: Path
    unseen: Sequence[str]
    checks: Checks
    table: dict[str, str] = field(default_factory=dict)
    """What is live: scope to adapter."""

    def __post_init__(self) -> None:
        self.adapters = AdapterStore(self.work / "adapters")
        self._told: list[Pair] = []
        self._blocks: dict[str, str] = {}
        self._verified: set[str] = set()
        self._trainings: list[dict[str, Any]] = []

    def routes(self) -> Routes:
        """The folders of what is live."""
        return {scope: self.adapters.get(identity).folder for scope, identity in self.table.items()}

    def sleep(self, row: NightRow, block: Block, stream: TaskStream, played: Sequence[Trajectory]) -> NightRow:
        """One night about a block; the row, filled in."""
        night, sandbox = self.world.config.night, self.world.player.sandbox
        self._blocks |= dict.fromkeys(block.lived, block.name)
        self._verified |= {trajectory.id for trajectory in played if trajectory.resolved}
        self.checks.regrade(played, "labels", REGRADED)
        lived = lived_of_day(stream, played, sandbox, night.merged_fixes, terse=self.world.terse)
        self._told += [*self._pairs(lived, row.night), *self._rehearsed(block)]
        held = self.world.held_out(self.unseen if self.world.config.fault != "leak" else ())
        filters = Filters(
            night.filters, self.world.weights.encode, self._job.context, held, self._loss, self._verified.__contains__
        )
        filtered = filters.filtered(self._told)
        samples = within_tokens(filtered.samples, night.synthesis.tokens)
        self.checks.of_pairs([sample.pair for sample in samples])
        return self._train(row.model_copy(update={"dropped": dict(sorted(filtered.dropped.items()))}), samples)

    def _train(self, row: NightRow, samples: Sequence[Sample]) -> NightRow:
        """Train every scope that has a lesson large enough."""
        night, base = self.world.config.night, self.world.weights.hash
        learning = Learning(night.strategy, self._job, row.block, self.world.trainer, self.adapters, HashingEmbedder().embed)
        lessons = lessons_of(samples, self.table, self.adapters, base, self._trainings, night.scope == "all")
        least = night.lora.batch_size * night.lora.accumulate
        done: dict[str, dict[str, Any]] = {}
        refused: list[str] = []
        for scope, lesson in lessons.items():
            if (count := len(lesson.new) + len(lesson.past)) < least:
                refused.append(f"{scope}: {count} examples, a batch takes {least}")
                continue
            place = self.work / f"night-{row.night}-{'all' if scope == ALL else scope.replace('/', '-')}"
            given = learning.tried(lesson, night.seed, place, lambda progress: None)
            if "refused" in given:
                refused.append(f"{scope}: {given['refused']}")
            else:
                done[scope] = given
        if not done:
            return row.model_copy(update={"refused": "; ".join(refused) or "nothing fit for training was lived"})
        self._trainings += done.values()
        self.table |= {scope: str(given["adapter"]) for scope, given in done.items()}
        sources = Counter(sample.pair.source for sample in samples)
        told = {"sources": dict(sorted(sources.items())), "refused": "; ".join(refused)}
        return row.model_copy(update=self._account(done.values(), samples) | told)

    def _account(self, done: Iterable[Mapping[str, Any]], samples: Sequence[Sample]) -> dict[str, Any]:
        given = list(done)
        costs = [each["cost"] for each in given]
        names = sorted({name for each in given for name in each["notes"]})
        before, after = self._losses(samples)
        return {
            "examples": sum(each["examples"] for each in given),
            "tokens": sum(cost["tokens"] for cost in costs),
            "seconds": round(sum(cost["seconds"] for cost in costs), 2),
            "extra_seconds": round(sum(cost["extra_seconds"] for cost in costs), 2),
            "bytes": sum(cost["bytes"] for cost in costs),
            "rank": max(each["rank"] for each in given),
            "loss_first": fmean(each["loss_first"] for each in given),
            "loss_last": fmean(each["loss_last"] for each in given),
            "losses": after,
            "base_losses": before,
            "adapters": dict(self.table),
            "notes": {name: fmean(each["notes"][name] for each in given if name in each["notes"]) for name in names},
        }

    def _losses(self, samples: Sequence[Sample]) -> tuple[dict[str, float], dict[str, float]]:
        """Mean losses of the first examples of each block that was taught: under the base, and under what is live."""
        by_block: dict[tuple[str, str], list[Example]] = {}
        for sample in samples:
            block = self._blocks.get(sample.pair.task_id)
            if block is not None and isinstance(sample.item, Example):
                by_block.setdefault((block, sample.pair.repo), []).append(sample.item)
        before, after, routes = dict[str, float](), dict[str, float](), self.routes()
        for (block, repo), examples in by_block.items():
            before[block] = fmean(self._loss(examples[:LOOKED_AT]))
            after[block] = fmean(self.world.trainer.loss(self._job, examples[:LOOKED_AT], adapter_for(routes, repo)))
        return before, after

    def _pairs(self, lived: Sequence[Lived], number: int) -> list[Pair]:
        """The pairs of what was lived, made by whoever the night says; the served model with what is live."""
        synthesis, model = self.world.config.night.synthesis, self.world.player.model
        own = synthesis.source in ("self", "hybrid") and synthesis.format != "T"
        groups: dict[Path | None, list[Lived]] = {}
        for each in lived:
            groups.setdefault(adapter_for(self.routes(), each.task.repo) if own else None, []).append(each)
        made: list[Pair] = []
        with closing(Store(self.work / "pairs.db")) as books:
            for folder, group in groups.items():
                model.use(folder)
                try:
                    teller = open_synthesiser(
                        synthesis,
                        books,
                        model,
                        self.world.weights.encode,
                        self._loss,
                        context=self._job.context,
                        account=f"night-{number}",
                        night=number - 1,
                    )
                    try:
                        made += pairs_of_night(teller, group, synthesis.format, synthesis.budget)
                    finally:
                        close_synthesiser(teller)
                finally:
                    model.use(None)
        return made

    def _rehearsed(self, block: Block) -> list[Pair]:
        """Old episodes for the repositories of a block, each once in a life."""
        night = self.world.config.night
        repos = sorted({_repo(identity) for identity in block.lived}) if self.world.is_pocket else []
        known = {pair.trajectory_id for pair in self._told}
        found = [pair for repo in repos for pair in rehearsal_pairs(repo, night.rehearsal, night.seed)]
        return [pair for pair in found if pair.trajectory_id not in known]

    def _loss(self, examples: Sequence[Example]) -> list[float]:
        return self.world.trainer.loss(self._job, examples)

    @property
    def _job(self) -> Job:
        config, weights = self.world.config, self.world.weights
        return Job(
            base=weights.folder,
            base_hash=weights.hash,
            lora=config.night.lora,
            seed=config.night.seed,
            threads=config.threads,
            context=config.night.context or config.model.tokens,
            machine=config.night.machine,
        )


def _repo(task_id: str) -> str:
    """The repository of a pocket task."""
    return task_id.rsplit("-", 3)[0].partition(".")[0]
