"""Two sides on the same tasks, counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict

from consolidation.errors import ConsolidationError
from consolidation.sequential import upper_bound


class Paired(BaseModel):
    """Paired results on the same `n` tasks: `lost` only by the base, `gained` only by the candidate."""

    model_config = ConfigDict(frozen=True)

    n: int
    base: int
    candidate: int
    lost: int
    gained: int

    @property
    def drop(self) -> float:
        """(lost - gained) / n; negative where the candidate is better."""
        return (self.lost - self.gained) / self.n

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Two-sided interval of the change candidate - base (Bonett & Price 2012, adjusted Wald)."""
        bound = NormalDist().inv_cdf(0.5 + confidence / 2)
        lost, gained = (self.lost + 1) / (self.n + 2), (self.gained + 1) / (self.n + 2)
        change = gained - lost
        error = math.sqrt((lost + gained - change**2) / (self.n + 2))
        return (max(-1.0, change - bound * error), min(1.0, change + bound * error))

    def drop_bound(self, confidence: float) -> float:
        """One-sided upper confidence bound of the drop (Tango 1998)."""
        return upper_bound(self.n, self.lost, self.gained, NormalDist().inv_cdf(confidence))


def pair_up(base: Mapping[str, bool], candidate: Mapping[str, bool]) -> Paired:
    """Match two sets of results by task id.

    Raises:
        ConsolidationError: if they are not about the same tasks, or about none.
    """
    if base.keys() != candidate.keys() or not base:
        missing = sorted(base.keys() ^ candidate.keys())[:3]
        raise ConsolidationError(f"base and candidate were not examined on the same tasks (first differences: {missing})")
    return Paired(
        n=len(base),
        base=sum(base.values()),
        candidate=sum(candidate.values()),
        lost=sum(base[task] and not candidate[task] for task in base),
        gained=sum(candidate[task] and not base[task] for task in base),
    )
