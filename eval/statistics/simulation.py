"""Are the statistics honest? `compare_lives`, which decides about real lives, on simulated ones: `sleepyctl bench statistics`.

A/A: two arms that are equally good. A test at 5 % may call at most 5 % of such pairs different. Recovery: an arm that is truly
better must be found as often as `eval.statistics.power` predicts, by as much as it is.

A task is resolved with the chance sigmoid(level + task + life + arm's luck in this life + arm's taste for this task): tasks
differ in difficulty, a life's tasks share what its adapter became, and an arm is better at some tasks than at others in
whichever life. All are normal on the logit scale; outcomes are given to the test as the dicts that real lives give.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import expit
from scipy.stats import binom, norm, qmc

from eval.statistics.lives import Compared, compare_lives
from eval.statistics.power import Plan, lives_power
from eval.statistics.proportions import wilson
from memory.hashing import content_hash

ALPHA = 0.05
GRID = 9
"""Lives and tasks over which a scenario's true values are averaged, as a power of two."""


class Scenario(BaseModel):
    """How lives come about. Standard deviations are on the logit scale; `effect` is what the candidate has more there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    lives: int
    tasks: int
    distinct: int
    """Tasks there are; each life draws its own from them."""
    level: float = -0.4
    difficulty: float = 1.5
    life: float = 0.5
    luck: float = 0.0
    """Of an arm in a life."""
    taste: float = 0.0
    """Of an arm for a task."""
    effect: float = 0.0


NULL = (
    Scenario(name="pairs independent", lives=10, tasks=24, distinct=2400),
    Scenario(name="lives differ", lives=10, tasks=24, distinct=2400, luck=0.5),
    Scenario(name="lives differ much", lives=10, tasks=24, distinct=2400, luck=1.0),
    Scenario(name="three lives, same tasks", lives=3, tasks=24, distinct=24, luck=0.5),
    Scenario(name="three lives, all arms differ", lives=3, tasks=24, distinct=24, luck=0.5, taste=1.0),
    Scenario(name="arms differ by task", lives=8, tasks=24, distinct=24, taste=1.0),
    Scenario(name="five splits, one seed", lives=5, tasks=25, distinct=50, luck=0.5, taste=0.5),
    Scenario(name="five splits, three seeds", lives=15, tasks=25, distinct=50, luck=0.5, taste=0.5),
    Scenario(name="few are resolved", lives=10, tasks=24, distinct=24, level=-4.0, luck=0.5, taste=0.5),
    Scenario(name="most are resolved", lives=10, tasks=24, distinct=24, level=4.0, luck=0.5, taste=0.5),
)
TRUE = (
    Scenario(name="ten lives, other tasks", lives=10, tasks=24, distinct=2400, luck=0.5, effect=0.7),
    Scenario(name="ten lives, same tasks", lives=10, tasks=24, distinct=24, luck=0.5, taste=0.5, effect=1.0),
    Scenario(name="five splits, three seeds", lives=15, tasks=25, distinct=50, luck=0.5, taste=0.5, effect=0.8),
    Scenario(name="three lives, same tasks", lives=3, tasks=24, distinct=24, luck=0.5, effect=1.5),
)


class Null(BaseModel):
    """An A/A scenario: shares of pairs of equal arms that each test calls different at 5 %; `low` and `high` bound the primary
    test's true share (Wilson, 95 %)."""

    scenario: Scenario
    primary: float
    low: float
    high: float
    over_lives: float
    pooled: float
    design_effect: float | None
    mean_difference: float


class Recovery(BaseModel):
    """A true difference: what was measured on average (`error` is the Monte-Carlo standard error), how often it was found at
    5 % beside what `lives_power` predicts, and how often the 95 % interval held it."""

    scenario: Scenario
    difference: float
    measured: float
    error: float
    power: float
    predicted: float
    coverage: float
    discordance: float
    sd_lives: float
    sd_tasks: float


class StatisticsBench(BaseModel):
    """The whole report. `bound` is the largest share of false positives that chance explains (97.5 %) in a test whose true
    share is `alpha`; `false_positives` is the primary test's share over all null scenarios together."""

    null: list[Null]
    recovery: list[Recovery]
    alpha: float
    bound: float
    false_positives: float
    honest: bool
    """No scenario has more false positives than `bound`."""
    recovered: bool
    """Every true difference is measured within 3.5 of its errors, and found as often as predicted to 5 points and chance."""
    runs: int
    seed: int
    config_hash: str
    wall_seconds: float


def pairs_of_arms(scenario: Scenario, rng: np.random.Generator) -> tuple[list[dict[str, bool]], list[dict[str, bool]]]:
    """One experiment: what base and candidate resolved in each life."""
    difficulty = rng.normal(0, scenario.difficulty, scenario.distinct)
    taste = rng.normal(0, scenario.taste, (2, scenario.distinct))
    arms: tuple[list[dict[str, bool]], list[dict[str, bool]]] = ([], [])
    for _ in range(scenario.lives):
        met = rng.choice(scenario.distinct, scenario.tasks, replace=False, shuffle=False)
        level = scenario.level + rng.normal(0, scenario.life)
        luck = rng.normal(0, scenario.luck, 2)
        for arm, lived in enumerate(arms):
            chance = expit(level + difficulty[met] + luck[arm] + taste[arm, met] + arm * scenario.effect)
            resolved = rng.random(scenario.tasks) < chance
            lived.append({f"task {task}": bool(hit) for task, hit in zip(met, resolved, strict=True)})
    return arms


def experiments(scenario: Scenario, runs: int, seed: tuple[int, ...]) -> Iterator[Compared]:
    """So many experiments, each decided as real ones are."""
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        yield compare_lives(*pairs_of_arms(scenario, rng), 1 - ALPHA)


def truth(scenario: Scenario) -> tuple[float, float, float, float]:
    """True difference and discordance, and the standard deviations of the true difference between lives and between tasks, by
    averaging over scrambled Sobol points."""

    def drawn(dimensions: int, seed: int) -> NDArray[np.float64]:
        points = qmc.Sobol(dimensions, seed=seed).random_base2(GRID)
        return np.asarray(norm.ppf(np.clip(points, 1e-9, 1 - 1e-9)))

    lives, tasks = drawn(3, 0), drawn(3, 1)
    shared = scenario.level + scenario.life * lives[:, :1] + scenario.difficulty * tasks[:, 0]
    chances = [
        expit(shared + scenario.luck * lives[:, arm + 1 : arm + 2] + scenario.taste * tasks[:, arm + 1] + arm * scenario.effect)
        for arm in range(2)
    ]
    difference = chances[1] - chances[0]
    discordance = chances[0] * (1 - chances[1]) + chances[1] * (1 - chances[0])
    by_life, by_task = difference.mean(1), difference.mean(0)
    return float(difference.mean()), float(discordance.mean()), float(by_life.std()), float(by_task.std())


def null_of(scenario: Scenario, runs: int, seed: tuple[int, ...]) -> Null:
    """How often equal arms are called different."""
    found = list(experiments(scenario, runs, seed))
    wrong = [sum(_found(one.tested.p) for one in found), sum(_found(one.over_lives.p) for one in found)]
    low, high = wilson(wrong[0], runs)
    effects = [one.design_effect for one in found if one.design_effect is not None]
    return Null(
        scenario=scenario,
        primary=wrong[0] / runs,
        low=round(low, 4),
        high=round(high, 4),
        over_lives=wrong[1] / runs,
        pooled=sum(_found(one.pooled.p) for one in found) / runs,
        design_effect=round(float(np.mean(effects)), 3) if effects else None,
        mean_difference=round(float(np.mean([one.difference for one in found])), 5),
    )


def recovery_of(scenario: Scenario, runs: int, seed: tuple[int, ...]) -> Recovery:
    """How often and how well a true difference is found."""
    difference, discordance, sd_lives, sd_tasks = truth(scenario)
    found = list(experiments(scenario, runs, seed))
    measured = np.array([one.difference for one in found])
    held = sum(one.low is not None and one.high is not None and one.low <= difference <= one.high for one in found)
    plan = Plan(
        tasks=scenario.tasks,
        lives=scenario.lives,
        distinct=scenario.distinct,
        wanted=difference,
        alpha=ALPHA,
        discordance=discordance,
        sd_lives=sd_lives,
        sd_tasks=sd_tasks,
    )
    return Recovery(
        scenario=scenario,
        difference=round(difference, 4),
        measured=round(float(measured.mean()), 4),
        error=round(float(measured.std()) / runs**0.5, 4),
        power=sum(_found(one.tested.p) for one in found) / runs,
        predicted=round(lives_power(plan), 4),
        coverage=held / runs,
        discordance=round(discordance, 4),
        sd_lives=round(sd_lives, 4),
        sd_tasks=round(sd_tasks, 4),
    )


def bench_statistics(runs: int = 1000, seed: int = 0) -> StatisticsBench:
    """All scenarios."""
    began = time.monotonic()
    null = [null_of(scenario, runs, (seed, 0, number)) for number, scenario in enumerate(NULL)]
    recovery = [recovery_of(scenario, runs, (seed, 1, number)) for number, scenario in enumerate(TRUE)]
    bound = float(binom.ppf(0.975, runs, ALPHA)) / runs
    return StatisticsBench(
        null=null,
        recovery=recovery,
        alpha=ALPHA,
        bound=bound,
        false_positives=round(sum(row.primary for row in null) / len(null), 4),
        honest=all(row.primary <= bound for row in null),
        recovered=all(_recovered(row, runs) for row in recovery),
        runs=runs,
        seed=seed,
        config_hash=content_hash([*NULL, *TRUE, ALPHA, runs, seed]),
        wall_seconds=round(time.monotonic() - began, 1),
    )


def _found(p: float | None) -> bool:
    return p is not None and p <= ALPHA


def _recovered(row: Recovery, runs: int) -> bool:
    chance = 2 * (row.predicted * (1 - row.predicted) / runs) ** 0.5
    return abs(row.measured - row.difference) <= 3.5 * row.error and abs(row.power - row.predicted) <= 0.05 + chance
