"""`sleepyctl bench watch`: how often the online watch alarms for nothing, and how soon for something, by simulation.

Simulated are finished attempts; the promise and the charts are those that the daemon runs. Promises are estimated from
few or many attempts before, and drawn towards other repositories whose rates lie elsewhere. After an alarm for nothing,
and after every 100 or every 1,000 tasks, there is another promotion: a new promise, a new canary. What counts is the worst
case.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

from pydantic import BaseModel, ConfigDict

from eval.watch import MEANING, Promise, Reading, Seen, Watch, WatchConfig, promise_of
from memory.hashing import content_hash

RATES = tuple(tenths / 10 for tenths in range(1, 10))
BEFORE = (30, 200)
PROMOTED_AFTER = (100, 1000)
DROPS = (0.1, 0.15, 0.2, 0.3, 0.5)
RISES = (0.15, 0.3, 0.5)
DROPS_AT = 0.6
PATIENCE = 2000
TURNS = 12


@dataclass(frozen=True)
class World:
    """A repository: the rate of resolved tasks, and the shares of attempts with malformed turns, conflicts, without tests."""

    resolved: float
    malformed: float = 0.15
    conflicts: float = 0.3
    untested: float = 0.1

    def attempt(self, rng: random.Random) -> Seen:
        """A finished attempt; failures take more turns."""
        resolved = rng.random() < self.resolved
        steps = 4.0
        while steps < TURNS and rng.random() < (0.3 if resolved else 0.7):
            steps += 1
        malformed = float(rng.randint(1, 2)) if rng.random() < self.malformed else 0.0
        conflicts = float(rng.randint(1, 2)) if rng.random() < self.conflicts else 0.0
        untested = float(rng.random() < self.untested)
        facts = {
            "steps": steps,
            "malformed": malformed,
            "conflicts": conflicts,
            "calls": steps - malformed,
            "untested": untested,
        }
        return Seen(resolved, facts)


class ChartReport(BaseModel):
    """A chart with its limit (nats), and how many of all alarms for nothing were its own."""

    model_config = ConfigDict(frozen=True)

    chart: str
    canary: bool
    limit: float
    alarms: int


class Case(BaseModel):
    """Alarms for nothing at one rate of resolved tasks, one number of attempts before, one interval of promotions (tasks)."""

    model_config = ConfigDict(frozen=True)

    rate: float
    before: int
    promoted_after: int
    tasks: int
    alarms: int

    @property
    def per_1000(self) -> float:
        """Alarms in 1,000 tasks."""
        return 1000 * self.alarms / self.tasks


class WatchReport(BaseModel):
    """`false_alarms_per_1000` is of the worst case. `delay` is the median number of tasks from a promotion to the alarm, by
    the drop of the rate of resolved tasks from `delay_from`; `conflict_delay`, by the rise of the share of attempts with
    conflicts. None: most were not found within 2,000 tasks."""

    model_config = ConfigDict(frozen=True)

    charts: list[ChartReport]
    false_alarms_per_1000: float
    cases: list[Case]
    delay_from: float
    delay: dict[str, float | None]
    conflict_delay: dict[str, float | None]
    tasks: int
    seed: int
    watch: WatchConfig
    config_hash: str


def bench_watch(config: WatchConfig, seed: int = 0, runs: int = 40, rates: Sequence[float] = RATES) -> WatchReport:
    """Simulate; 1,000 tasks in each of `runs` repositories of every case."""
    cases: list[Case] = []
    blamed: Counter[tuple[str, bool]] = Counter()
    for rate in rates:
        for before in BEFORE:
            for after in PROMOTED_AFTER:
                rng = random.Random(f"{seed}/{rate}/{before}/{after}")
                found = [alarm for _ in range(runs) for alarm in _quiet(World(rate), before, after, config, rng)]
                blamed.update((alarm.chart, alarm.canary) for alarm in found)
                cases.append(Case(rate=rate, before=before, promoted_after=after, tasks=1000 * runs, alarms=len(found)))
    usual = World(DROPS_AT)
    delay = {f"{drop:g}": _delay(usual, replace(usual, resolved=DROPS_AT - drop), config, seed, runs) for drop in DROPS}
    rises = {f"{r:g}": _delay(usual, replace(usual, conflicts=usual.conflicts + r), config, seed, runs) for r in RISES}
    return WatchReport(
        charts=[
            ChartReport(chart=name, canary=canary, limit=limit, alarms=blamed[name, canary])
            for canary, limit in ((False, config.limit), (True, config.canary_limit))
            for name in MEANING
        ],
        false_alarms_per_1000=round(max(case.per_1000 for case in cases), 3),
        cases=cases,
        delay_from=DROPS_AT,
        delay=delay,
        conflict_delay=rises,
        tasks=sum(case.tasks for case in cases),
        seed=seed,
        watch=config,
        config_hash=content_hash([config, seed, runs, list(rates)]),
    )


def _elsewhere(world: World, config: WatchConfig, rng: random.Random) -> list[Seen]:
    """Attempts in other repositories, easier and harder ones."""
    return [replace(world, resolved=rng.choice(RATES)).attempt(rng) for _ in range(config.before)]


def _promise(world: World, before: int, elsewhere: Sequence[Seen], config: WatchConfig, rng: random.Random) -> Promise:
    mine = [world.attempt(rng) for _ in range(before)]
    promise = promise_of(mine, [*elsewhere, *mine], config)
    assert promise is not None
    return promise


def _quiet(world: World, before: int, after: int, config: WatchConfig, rng: random.Random) -> Iterator[Reading]:
    """Alarms in 1,000 tasks in which nothing changes."""
    elsewhere = _elsewhere(world, config, rng)
    watch = Watch(_promise(world, before, elsewhere, config, rng), config)
    for number in range(1000):
        if watch.alarm is not None or (number and number % after == 0):
            watch = Watch(_promise(world, before, elsewhere, config, rng), config)
        if (alarm := watch.take(world.attempt(rng))) is not None:
            yield alarm


def _delay(before: World, now: World, config: WatchConfig, seed: int, runs: int) -> float | None:
    rng = random.Random(f"{seed}/{now}")
    found: list[float] = []
    for _ in range(runs):
        promise = _promise(before, config.before, _elsewhere(before, config, rng), config, rng)
        watch = Watch(promise, config)
        while watch.attempts < PATIENCE and watch.take(now.attempt(rng)) is None:
            pass
        found.append(watch.attempts if watch.alarm is not None else float("inf"))
    middle = median(found)
    return middle if middle < PATIENCE else None
