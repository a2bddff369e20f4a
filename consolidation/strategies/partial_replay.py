"""Partial replay: go on with what is new and some of what is old, drawn from a buffer that does not grow."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consolidation.adapters import Adapter
from consolidation.errors import AdapterError
from consolidation.strategies.bench import Bench
from consolidation.strategies.priorities import Priority, by_priority
from consolidation.strategies.seam import Learnt, Lesson, Sample, items_of
from consolidation.strategies.single import learnt_from, starting_from
from consolidation.trainers.base import Example, Item
from memory.files import write_whole

BUFFER = "replay.json"
"""The attachment: contents of the pairs in the buffer, in the order in which they were lived, and of those evicted."""
ALPHA = 0.7
"""How much the rank in priority decides of the draw (Schaul et al. 2016, section 3.3: P(i) ~ (1 / rank(i))^alpha; their best
for ranks)."""


class Buffer(BaseModel):
    """What the attachment holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    buffer: tuple[str, ...] = ()
    evicted: tuple[str, ...] = ()


class PartialReplay(BaseModel):
    """Train the live adapter on what is new, mixed with old examples from a buffer of fixed size.

    Each night first takes in what was promoted since the last one, and evicts what has the lowest priority until the buffer
    has its size; what was evicted does not come back. Replayed examples are held to the base where the recipe has a
    `kl_weight`. Without a past it is the naive strategy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["partial_replay"] = "partial_replay"
    size: int = Field(default=500, ge=1)
    """Most examples in the buffer."""
    priority: Priority = "difficulty"
    """What is kept, and drawn more often: `recency` the newest; `difficulty` those of the highest loss under the adapter that
    is live (the base, if there is none); `diversity` those that cover the others best, by the embedding of issue and own
    turns; `confidence` those that are most surely right: own successes first, then those of fewer steps."""
    mix: float = Field(default=0.5, ge=0, lt=1)
    """Share of replayed examples in what is trained on; less where the buffer has too few."""
    examples: int = Field(default=0, ge=0)
    """Most examples of a night, new and replayed, so that nights of equal length can be compared; 0 for all that are new and
    their share of old ones."""

    def learn(self, lesson: Lesson, bench: Bench) -> Learnt:
        """See the `Strategy` seam."""
        before = _left_by(lesson.previous)
        pool = _known(lesson.past, {*before.evicted})
        new, wanted = self.shares(len(lesson.new), min(len(pool), self.size))
        order = list(range(len(pool)))
        if len(pool) > self.size or 0 < wanted < len(pool):
            order = by_priority(self.priority, pool, lesson.previous, bench)
        kept, evicted = order[: self.size], sorted(order[self.size :])
        rng = random.Random(f"replay/{bench.job.seed}")
        replayed = [pool[number] for number in sorted(drawn(kept, wanted, rng))]
        fresh = [lesson.new[number] for number in sorted(rng.sample(range(len(lesson.new)), new))]
        items = [rehearsed(item) for item in items_of(replayed)] + items_of(fresh)
        trained = bench.fit("partial", items, starting_from(bench.job, lesson.previous))
        after = Buffer(
            buffer=tuple(pool[number].pair.content for number in sorted(kept)),
            evicted=(*before.evicted, *(pool[number].pair.content for number in evicted)),
        )
        path = bench.folder / BUFFER
        write_whole(path, after.model_dump_json())
        notes = {"buffer": len(kept), "evicted": len(evicted), "replayed": len(replayed), "new": len(fresh)}
        return learnt_from(trained, bench, {BUFFER: path}, {name: float(count) for name, count in notes.items()})

    def shares(self, new: int, old: int) -> tuple[int, int]:
        """How many of the new and of the old examples a night trains on; none is trained on twice to fill a share."""
        if not self.examples:
            return new, min(old, self._beside(new))
        fresh = min(new, max(1, self.examples - min(old, round(self.examples * self.mix))))
        return fresh, min(old, self._beside(fresh), self.examples - fresh)

    def _beside(self, new: int) -> int:
        return round(new * self.mix / (1 - self.mix))


def drawn(ranked: Sequence[int], count: int, rng: random.Random) -> list[int]:
    """`count` without replacement, weighted by rank: the largest u^(1/w) (Efraimidis and Spirakis 2006, algorithm A)."""
    if count >= len(ranked):
        return list(ranked)
    keys = {number: math.log(1 - rng.random()) * rank**ALPHA for rank, number in enumerate(ranked, 1)}
    return sorted(ranked, key=lambda number: keys[number], reverse=True)[:count]


def rehearsed(item: Item) -> Item:
    """The item as a rehearsal (of preferences the trainers hold none to the base)."""
    return item.model_copy(update={"rehearsal": True}) if isinstance(item, Example) else item


def _known(past: Sequence[Sample], evicted: set[str]) -> list[Sample]:
    """What may be in the buffer, in the order in which it was lived, each content once."""
    last = {sample.pair.content: number for number, sample in enumerate(past)}
    return [past[number] for content, number in sorted(last.items(), key=lambda one: one[1]) if content not in evicted]


def _left_by(previous: Adapter | None) -> Buffer:
    """What the night before left; nothing after another strategy's night."""
    path: Path | None = previous.attachment(BUFFER) if previous is not None else None
    if path is None:
        return Buffer()
    try:
        return Buffer.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise AdapterError(f"{path}: no replay buffer; roll back, or begin again with full replay") from error
