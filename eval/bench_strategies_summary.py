"""What the lives of a strategy come to: gain, retention, forgetting, base skills and cost, with intervals over lives."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pydantic import BaseModel

from consolidation.strategies.adaptive_rank import AdaptiveRank
from consolidation.strategies.ewc import EwcLora
from consolidation.strategies.full_replay import FullReplay
from consolidation.strategies.mixture import MixtureOfExperts
from consolidation.strategies.naive import NaiveSequential
from consolidation.strategies.partial_replay import PartialReplay
from eval.bench_strategies import LORA, Laboratory, Life, Setup, Variant
from memory.hashing import content_hash

if TYPE_CHECKING:
    from collections.abc import Callable

REHEARSED = 16
DPO = LORA.model_copy(update={"objective": "dpo", "learning_rate": 3e-4})
VARIANTS: tuple[Variant, ...] = (
    Variant(name="naive", strategy=NaiveSequential()),
    Variant(name="full_replay", strategy=FullReplay()),
    Variant(name="partial_replay", strategy=PartialReplay()),
    Variant(name="ewc", strategy=EwcLora()),
    Variant(name="adaptive_rank", strategy=AdaptiveRank()),
    Variant(name="mixture", strategy=MixtureOfExperts(), rehearsal=REHEARSED),
    Variant(name="full_replay_kl", strategy=FullReplay(), lora=LORA.model_copy(update={"kl_weight": 1.0}), rehearsal=REHEARSED),
    Variant(name="naive_dpo", strategy=NaiveSequential(), lora=DPO, format="C"),
)
"""What is compared: every strategy with format T and the same recipe, and two other objectives."""


class Points(BaseModel):
    """A mean over lives, in points (hundredths), with a 95 % interval by Student's t; None where there is but one life."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, shares: Sequence[float]) -> Points:
        """From shares, one for each life."""
        mean = 100 * fmean(shares)
        if len(shares) < 2:
            return cls(mean=round(mean, 2), low=None, high=None)
        from scipy.stats import t

        half = 100 * float(t.ppf(0.975, len(shares) - 1)) * stdev(shares) / len(shares) ** 0.5
        return cls(mean=round(mean, 2), low=round(mean - half, 2), high=round(mean + half, 2))


class Summary(BaseModel):
    """One variant over its lives. All but the costs are differences to the bare base on the same tasks, in points.

    `gain` is on a night's own repository right after it, `final` on all repositories of a life after its last night,
    `forgetting` the mean of what the earlier ones lost since their own night (Chaudhry et al. 2018 without the maximum),
    `retention` the gain that is left 0, 1, 2 … nights later, `ahead` the change on the next night's repository before it.
    `base_skills` is after the last night, `base_skills_worst` after the worst. Costs are means of a whole life.
    """

    variant: str
    lives: int
    gain: Points
    final: Points
    forgetting: Points | None
    retention: list[Points]
    ahead: Points | None
    base_skills: Points
    base_skills_worst: Points
    tokens: int
    seconds: float
    extra_seconds: float
    megabytes: float
    refused: int


class StrategyBench(BaseModel):
    """What `--json` prints. Pocket results."""

    setup: Setup
    seeds: list[int]
    summaries: list[Summary]
    lives: list[Life]
    config_hash: str
    load_average: float
    wall_seconds: float


def bench_strategies(
    laboratory: Laboratory, setup: Setup, seeds: Sequence[int], variants: Sequence[Variant] = VARIANTS
) -> StrategyBench:
    """Every variant with every seed; lives that are there already are taken as they are."""
    began = time.monotonic()
    lives = [laboratory.life(variant, setup, seed) for seed in seeds for variant in variants]
    return StrategyBench(
        setup=setup,
        seeds=list(seeds),
        summaries=[summary([life for life in lives if life.variant == variant.name]) for variant in variants],
        lives=lives,
        config_hash=content_hash([life.config_hash for life in lives]),
        load_average=round(os.getloadavg()[0], 2),
        wall_seconds=round(time.monotonic() - began, 1),
    )


def summary(lives: Sequence[Life]) -> Summary:
    """One variant's lives together."""
    count = len(lives[0].nights)
    costs = [[night.cost for night in life.nights] for life in lives]

    def over(value: Callable[[Life], float]) -> Points:
        return Points.of([value(life) for life in lives])

    def gained(life: Life, night: int, repo: int) -> float:
        return (life.nights[night].conventions[repo] - life.before.conventions[repo]) / life.convention_tasks

    def skills(life: Life, night: int) -> float:
        return (life.nights[night].base_skills - life.before.base_skills) / life.skill_tasks

    return Summary(
        variant=lives[0].variant,
        lives=len(lives),
        gain=over(lambda life: fmean(gained(life, k, k) for k in range(count))),
        final=over(lambda life: fmean(gained(life, count - 1, k) for k in range(count))),
        forgetting=over(lambda life: fmean(gained(life, k, k) - gained(life, count - 1, k) for k in range(count - 1)))
        if count > 1
        else None,
        retention=[
            over(lambda life, age=age: fmean(gained(life, k + age, k) for k in range(count - age)))  # type: ignore[misc]
            for age in range(count)
        ],
        ahead=over(lambda life: fmean(gained(life, k, k + 1) for k in range(count - 1))) if count > 1 else None,
        base_skills=over(lambda life: skills(life, count - 1)),
        base_skills_worst=over(lambda life: min(skills(life, k) for k in range(count))),
        tokens=round(fmean(sum(cost.tokens for cost in life) for life in costs)),
        seconds=round(fmean(sum(cost.seconds for cost in life) for life in costs), 1),
        extra_seconds=round(fmean(sum(cost.extra_seconds for cost in life) for life in costs), 1),
        megabytes=round(fmean(max(cost.bytes for cost in life) for life in costs) / 1e6, 2),
        refused=sum(bool(night.refused) for life in lives for night in life.nights),
    )
