"""Naive sequential training: each night goes on from the last adapter with what is new, and nothing else. The reference."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Learnt, Lesson, items_of
from consolidation.strategies.single import learnt_from, starting_from


class NaiveSequential(BaseModel):
    """Go on from the live adapter with the new examples alone; what is old is protected by nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["naive"] = "naive"

    def learn(self, lesson: Lesson, bench: Bench) -> Learnt:
        """See the `Strategy` seam."""
        return learnt_from(bench.fit("naive", items_of(lesson.new), starting_from(bench.job, lesson.previous)), bench)
