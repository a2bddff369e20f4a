"""Full replay: every night trains from scratch on all that was ever lived."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Learnt, Lesson, items_of
from consolidation.strategies.single import learnt_from


class FullReplay(BaseModel):
    """Train one adapter from scratch on everything: the upper bound of retention, and the dearest.

    The reference of "experience replay" without a limit (Robins 1995,
    "Catastrophic forgetting, rehearsal and pseudorehearsal").
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["full_replay"] = "full_replay"

    def learn(self, lesson: Lesson, bench: Bench) -> Learnt:
        """See the `Strategy` seam."""
        return learnt_from(bench.fit("full", items_of(lesson.all)), bench)
