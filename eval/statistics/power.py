"""How many tasks and lives a claim needs, said before anything is run.

Differences are shares (0.05 is 5 points). `discordance` is the share of pairs that only one arm resolves.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, Field

from eval.errors import EvalError
from eval.statistics.lives import Compared

MOST = 4096
"""Lives, or tasks, beyond which none are looked for."""


class Plan(BaseModel):
    """What is to be run, and what is assumed of it.

    Each of `lives` (seeds) is examined on `tasks`; `distinct` tasks are there in all (None: every life has the same). The true
    difference varies by `sd_lives` from life to life and by `sd_tasks` from task to task (standard deviations). Several
    `comparisons` divide `alpha`, as Holm's first step does. The default of `sd_lives` is about what pocket lives show
    (docs/results/strategies.md), those of discordance and `sd_tasks` are guesses; `informed` takes a pilot's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: int = Field(ge=1)
    lives: int = Field(ge=1)
    distinct: int | None = Field(default=None, ge=1)
    wanted: float = Field(default=0.05, gt=0, le=1)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    power: float = Field(default=0.8, gt=0, lt=1)
    comparisons: int = Field(default=1, ge=1)
    discordance: float = Field(default=0.3, gt=0, le=1)
    sd_lives: float = Field(default=0.1, ge=0)
    sd_tasks: float = Field(default=0.1, ge=0)

    @property
    def level(self) -> float:
        """Of each test, two-sided."""
        return self.alpha / self.comparisons

    def grown(self, lives: int, times: int = 1) -> Plan:
        """With so many lives, and so many times the tasks."""
        distinct = self.distinct and self.distinct * times
        return self.model_copy(update={"lives": lives, "tasks": self.tasks * times, "distinct": distinct})


def informed(plan: Plan, pilot: Compared) -> Plan:
    """The plan, with discordance and spreads as far as a pilot could measure them."""
    found = {
        "discordance": (pilot.gained + pilot.lost) / pilot.pairs if pilot.gained + pilot.lost else None,
        "sd_lives": pilot.sd_lives,
        "sd_tasks": pilot.sd_tasks,
    }
    return plan.model_copy(update={name: value for name, value in found.items() if value is not None})


def paired_t_power(pairs: int, effect: float, alpha: float = 0.05, df: int | None = None) -> float:
    """Power of the two-sided paired t for a true d_z of `effect` (noncentral t; Cohen 1988, section 2.3); 0 below two pairs."""
    df = pairs - 1 if df is None else df
    if df < 1:
        return 0.0
    from scipy.special import stdtrit
    from scipy.stats import nct

    critical, moved = float(stdtrit(df, 1 - alpha / 2)), abs(effect) * math.sqrt(pairs)
    # The wrong tail is below 1e-7 from there on, and scipy loses it in nan.
    wrong = float(nct.cdf(-critical, df, moved)) if moved < 4 else 0.0
    return min(float(nct.sf(critical, df, moved)) + wrong, 1.0) if math.isfinite(moved) else 1.0


def mcnemar_power(pairs: int, discordance: float, difference: float, alpha: float = 0.05, mid_p: bool = True) -> float:
    """Exact power of McNemar's test, for independent pairs: over all numbers of discordant pairs, and of those gained.

    Raises:
        EvalError: the difference is larger than the discordance, which must be between 0 and 1.
    """
    if not 0 < discordance <= 1 or abs(difference) > discordance:
        raise EvalError(f"a difference of {difference} needs a discordance between {abs(difference)} and 1, not {discordance}")
    import numpy as np
    from scipy.stats import binom

    share = (discordance + difference) / (2 * discordance)
    found = 0.0
    low, high = (int(value) for value in binom.ppf([1e-9, 1 - 1e-9], pairs, discordance))
    for moved in range(max(low, 1), high + 1):
        gained = np.arange(moved + 1)
        fewer = np.minimum(gained, moved - gained)
        p = 2 * binom.cdf(fewer, moved, 0.5) - (binom.pmf(fewer, moved, 0.5) if mid_p else 0.0)
        found += binom.pmf(moved, pairs, discordance) * binom.pmf(gained[p <= alpha], moved, share).sum()
    return min(float(found), 1.0)


def pairs_needed(discordance: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Independent pairs for which McNemar's mid-p test has that power; None: more than are looked for."""
    return _least(lambda pairs: mcnemar_power(pairs, discordance, difference, alpha), power, 1)


def design_effect(plan: Plan, difference: float = 0.0) -> float:
    """Variance of the measured difference over what it would be if all pairs were independent."""
    discordance = max(plan.discordance, abs(difference))
    return _variance(plan, difference) * plan.lives * plan.tasks / max(discordance - difference**2, 1e-12)


def lives_power(plan: Plan, difference: float | None = None) -> float:
    """Power of `compare_lives` for a true difference (the plan's `wanted`): a noncentral t whose variance is
    sd_lives^2 / lives + sd_tasks^2 / distinct + rest / pairs.

    A little too high where lives are few, because the test never goes below the variance between lives.
    """
    wanted = plan.wanted if difference is None else difference
    distinct = plan.distinct or plan.tasks
    variance = _variance(plan, wanted)
    effect = abs(wanted) / math.sqrt(variance * plan.lives) if variance > 0 else math.inf
    return paired_t_power(plan.lives, effect, plan.level, min(plan.lives, distinct) - 1)


def lives_needed(plan: Plan) -> int | None:
    """Lives on the plan's tasks that see what is wanted; None: no number does, because the tasks are too few."""
    return _least(lambda lives: lives_power(plan.grown(lives)), plan.power, 2)


def detectable(plan: Plan) -> float | None:
    """The smallest true difference that the plan sees with its power; None: none at all."""
    if lives_power(plan, 1.0) < plan.power:
        return None
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if lives_power(plan, middle) >= plan.power else (middle, high)
    return high


def power_of(plan: Plan) -> str:
    """What the plan can show, in a sentence or three, for before it is run."""
    times = 1
    while (lives := lives_needed(plan.grown(plan.lives, times))) is None and plan.tasks * times < MOST:
        times *= 2
    level = f"{plan.alpha:.3g}" if plan.alpha < 0.01 else f"{plan.alpha:.0%}".replace("%", " %")
    over = f" over {plan.comparisons} comparisons" if plan.comparisons > 1 else ""
    need = f"{plan.tasks * times} tasks x {lives} seeds" if lives else f"more than {MOST} tasks"
    seen = detectable(plan)
    if plan.lives < 2:
        can = "with one seed it can support no claim about lives; run at least two"
    elif seen is None:
        can = "it can see no effect, however large"
    else:
        can = f"it can see effects from {math.ceil(1000 * seen) / 10:.3g} points"
    has = f"{plan.tasks} tasks x {plan.lives} seed{'s' * (plan.lives > 1)}"
    return (
        f"To see +{100 * plan.wanted:.3g} points with {100 * plan.power:.0f} % power at {level} two-sided{over} you need "
        f"{need}; this plan has {has}: {can}. Assumed: {100 * plan.discordance:.0f} % of pairs discordant, "
        f"true differences that vary by {100 * plan.sd_lives:.3g} points between lives and {100 * plan.sd_tasks:.3g} "
        "between tasks (standard deviations)."
    )


def _variance(plan: Plan, difference: float) -> float:
    """Of the measured difference."""
    distinct = plan.distinct or plan.tasks
    lives, tasks = plan.sd_lives**2, plan.sd_tasks**2
    rest = max(max(plan.discordance, abs(difference)) - difference**2 - lives - tasks, 0.0)
    return lives / plan.lives + tasks / distinct + rest / (plan.lives * plan.tasks)


def _least(power: Callable[[int], float], wanted: float, first: int) -> int | None:
    """The smallest number from `first` on that has the power, if power grows with it."""
    high = first
    while power(high) < wanted:
        if high >= MOST:
            return None
        high = min(2 * high, MOST)
    low = max(high // 2, first - 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= wanted else (middle, high)
    return high
