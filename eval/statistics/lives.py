"""A variant beside its base over several lives: the project's primary test.

Outcomes depend on each other twice: tasks of one life share an adapter, and what suits or harms the variant in one task does so
in every life that meets it. McNemar's test over all pairs knows neither, a paired t over lives knows the first only;
`eval.statistics.simulation` shows what that costs. The primary test clusters both ways (Cameron, Gelbach & Miller 2011).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from eval.errors import EvalError
from eval.statistics.paired import mcnemar_of, paired_t, sign_test
from eval.statistics.tested import FLAT, Tested

NAME = "two-way clustered t"
Outcomes = Mapping[str, bool]
Pairs = list[dict[str, int]]
"""Per life and task: 1 if only the candidate resolved it, -1 if only the base did, else 0."""


class Compared(BaseModel):
    """Candidate beside base, as shares: `difference` 0.05 is 5 points. Every life counts the same.

    `low` and `high` bound the difference at `confidence`; None where `tested.why` says that nothing can be said. `lives` and
    `tasks` (distinct ones) are those with pairs, `unpaired` counts outcomes without a counterpart, which count for nothing.
    `design_effect` is the variance of the difference over what it would be if all pairs were independent: so many times more
    pairs are needed. `sd_lives` and `sd_tasks` are what the true difference varies by between lives and between tasks (method
    of moments, at least 0; None where too few pairs share a life, or a task). `over_lives` and `pooled` are the tests that
    ignore shared tasks, or all dependence: for comparison only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: float | None
    candidate: float | None
    difference: float | None
    low: float | None = None
    high: float | None = None
    confidence: float
    lives: int
    tasks: int
    pairs: int
    gained: int
    lost: int
    unpaired: int
    per_life: tuple[float, ...]
    design_effect: float | None = None
    sd_lives: float | None = None
    sd_tasks: float | None = None
    tested: Tested
    over_lives: Tested
    pooled: Tested


def compare_lives(base: Sequence[Outcomes], candidate: Sequence[Outcomes], confidence: float = 0.95) -> Compared:
    """Compare two arms, given what each resolved in every life (one dict a life, from task to whether it was resolved).

    Lives are in the same order on both sides. The difference is the mean over lives of each life's difference on the tasks that
    both have. Its variance is V_lives + V_tasks - V_pairs, and never less than V_lives; its t has min(lives, tasks) - 1 degrees
    of freedom. The effect of the test is the difference in standard deviations of what a life shows (d_z).

    Raises:
        EvalError: the two do not have as many lives, or the confidence is not between 0 and 1.
    """
    if len(base) != len(candidate):
        raise EvalError(f"base has {len(base)} lives, candidate {len(candidate)}: give each life once on both sides")
    if not 0 < confidence < 1:
        raise EvalError(f"a confidence of {confidence} is not between 0 and 1")
    both = [[task for task in before if task in after] for before, after in zip(base, candidate, strict=True)]
    pairs: Pairs = [
        {task: int(after[task]) - int(before[task]) for task in tasks}
        for before, after, tasks in zip(base, candidate, both, strict=True)
        if tasks
    ]
    values = [value for life in pairs for value in life.values()]
    gained, lost = values.count(1), values.count(-1)
    per_life = tuple(fmean(life.values()) for life in pairs)
    spread = _spread(pairs, per_life)
    variance = spread.variance
    tasks = len({task for life in pairs for task in life})
    tested = _tested(per_life, tasks, gained + lost, variance)
    low, high = _bounds(per_life, tasks, gained + lost, variance, confidence)
    return Compared(
        base=_mean(base, both),
        candidate=_mean(candidate, both),
        difference=fmean(per_life) if per_life else None,
        low=low,
        high=high,
        confidence=confidence,
        lives=len(pairs),
        tasks=tasks,
        pairs=len(values),
        gained=gained,
        lost=lost,
        unpaired=sum(len(life) for life in (*base, *candidate)) - 2 * len(values),
        per_life=per_life,
        design_effect=variance / spread.independent if variance else None,
        sd_lives=spread.lives,
        sd_tasks=spread.tasks,
        tested=tested,
        over_lives=paired_t([0.0] * len(per_life), per_life),
        pooled=mcnemar_of(gained, lost, len(values)),
    )


@dataclass(frozen=True)
class _Spread:
    """Variance of the difference, clustered both ways (None if it cannot be estimated), and as if pairs were independent; the
    standard deviations of the true difference between lives and between tasks."""

    variance: float | None = None
    independent: float = 0.0
    lives: float | None = None
    tasks: float | None = None


def _spread(pairs: Pairs, per_life: Sequence[float]) -> _Spread:
    lives, by_task = len(pairs), defaultdict[str, float](float)
    if lives < 2:
        return _Spread()
    centre = fmean(per_life)
    weights: dict[str, float] = defaultdict(float)
    of_lives, single, own = 0.0, 0.0, 0.0
    for life, mean in zip(pairs, per_life, strict=True):
        weight = 1 / (lives * len(life))
        for task, value in life.items():
            by_task[task] += weight * (value - centre)
            weights[task] += weight
            single += (weight * (value - centre)) ** 2
        own += weight**2 * len(life)
        of_lives += ((mean - centre) / lives) ** 2
    tasks = len(by_task)
    if tasks < 2:
        return _Spread()
    of_lives *= lives / (lives - 1)
    pairs_in_all = sum(map(len, pairs))
    single *= pairs_in_all / (pairs_in_all - 1)
    of_tasks = math.fsum(value * value for value in by_task.values()) * tasks / (tasks - 1)
    clustered = max(of_lives, of_lives + of_tasks - single)
    return _Spread(
        # Lives that all show exactly the same say nothing about how lives differ: then at least what pairs by themselves vary.
        variance=clustered if clustered > FLAT else single,
        independent=single,
        lives=_between(of_lives - single, 1 / lives - own, own),
        tasks=_between(of_tasks - single, math.fsum(weight * weight for weight in weights.values()) - own, own),
    )


def _between(more: float, shared: float, own: float) -> float | None:
    """Standard deviation of clusters, from how much more they vary than independent pairs, and from the weights of what pairs
    share and of the pairs themselves; None if the mean pair shares its cluster with less than one other."""
    return math.sqrt(max(more / shared, 0.0)) if shared > own * (1 - FLAT) else None


def _tested(per_life: Sequence[float], tasks: int, moved: int, variance: float | None) -> Tested:
    lives, effect_name = len(per_life), "d_z"
    if lives < 2 or tasks < 2:
        told = f"{lives} {'life' if lives == 1 else 'lives'} with {tasks} tasks"
        why = f"{told}: nothing is known of how {'lives' if lives < 2 else 'tasks'} differ; add some"
        return Tested(test=NAME, n=lives, effect_name=effect_name, why=why)
    if not moved:
        why = "no pair is discordant"
        return Tested(test=NAME, statistic=0.0, p=1.0, n=lives, effect=0.0, effect_name=effect_name, why=why)
    if not variance:
        why = f"every pair differs by {per_life[0]:+g}, so there is no t: the exact sign test over lives instead"
        return sign_test([0.0] * lives, per_life).model_copy(update={"why": why})
    from scipy.special import stdtr

    statistic = fmean(per_life) / math.sqrt(variance)
    p = min(2 * float(stdtr(min(lives, tasks) - 1, -abs(statistic))), 1.0)
    effect = statistic / math.sqrt(lives)
    return Tested(test=NAME, statistic=statistic, p=p, n=lives, effect=effect, effect_name=effect_name)


def _bounds(
    per_life: Sequence[float], tasks: int, moved: int, variance: float | None, confidence: float
) -> tuple[float | None, float | None]:
    """Of the difference. Where all pairs are alike: Clopper & Pearson's bound for none of so many distinct tasks."""
    if len(per_life) < 2 or tasks < 2:
        return None, None
    centre = fmean(per_life)
    if not variance:
        most = 1 - ((1 - confidence) / 2) ** (1 / tasks)
        return max(centre - (2 * most if moved else most), -1.0), min(centre + (2 * most if moved else most), 1.0)
    from scipy.special import stdtrit

    reach = float(stdtrit(min(len(per_life), tasks) - 1, (1 + confidence) / 2)) * math.sqrt(variance)
    return max(centre - reach, -1.0), min(centre + reach, 1.0)


def _mean(arm: Sequence[Outcomes], both: Sequence[Sequence[str]]) -> float | None:
    """Share resolved of the paired tasks, each life counting the same."""
    rates = [fmean(life[task] for task in tasks) for life, tasks in zip(arm, both, strict=True) if tasks]
    return fmean(rates) if rates else None
