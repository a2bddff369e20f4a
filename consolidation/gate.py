"""The gate: what decides whether a candidate may be put to work.

Base and candidate are examined on the same tasks, one greedy attempt each. A task counts as
*lost* if only the base resolves it and as *gained* if only the candidate does. The candidate
passes if the upper confidence bound of the drop (lost - gained) / n stays below a margin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

from pydantic import BaseModel, ConfigDict, Field

from consolidation.errors import ConsolidationError
from memory.nights import Verdict


class GateConfig(BaseModel):
    """How strict the gate is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    margin: float = Field(default=0.05, gt=0, lt=1)
    """Largest drop (share of tasks) that the bound may reach."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """One-sided confidence of the bound."""
    min_tasks: int = Field(default=40, ge=1)
    """Fewer examined tasks than this cannot promote anything."""


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
        centre, error = self._adjusted()
        return (max(-1.0, -centre - bound * error), min(1.0, -centre + bound * error))

    def drop_bound(self, confidence: float) -> float:
        """One-sided upper confidence bound of the drop, by the same method."""
        centre, error = self._adjusted()
        return min(1.0, centre + NormalDist().inv_cdf(confidence) * error)

    def _adjusted(self) -> tuple[float, float]:
        lost, gained = (self.lost + 1) / (self.n + 2), (self.gained + 1) / (self.n + 2)
        difference = lost - gained
        return difference, math.sqrt((lost + gained - difference**2) / (self.n + 2))


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


def judge(guards: Mapping[str, Paired], config: GateConfig, differs: bool) -> Verdict:
    """Promote only if every guard is passed and the candidate is not the base in disguise.

    `differs` says whether any examined answer of the candidate differed from the base's.
    """
    reasons: list[str] = []
    numbers: dict[str, float] = {}
    if not guards:
        reasons.append("no guard was run")
    if not differs:
        reasons.append("the candidate answers exactly like the base; it has no effect")
    for name, paired in guards.items():
        bound = paired.drop_bound(config.confidence)
        numbers |= {
            f"{name}.tasks": paired.n,
            f"{name}.base": paired.base,
            f"{name}.candidate": paired.candidate,
            f"{name}.drop": round(paired.drop, 4),
            f"{name}.drop_bound": round(bound, 4),
        }
        if paired.n < config.min_tasks:
            reasons.append(f"{name}: only {paired.n} tasks examined, at least {config.min_tasks} are needed")
        elif bound >= config.margin:
            measured = f"measured {paired.drop:+.1%}, margin {config.margin:.0%}"
            reasons.append(f"{name}: the drop may be as large as {bound:.1%} ({measured})")
    why = "; ".join(reasons) or f"no guard can drop by {config.margin:.0%} or more (confidence {config.confidence:.0%})"
    return Verdict(promoted=not reasons, why=why, numbers=numbers)
