"""The online watch: charts over the attempts of a live adapter, against what was promised when it was promoted.

Every chart is a cumulative sum (CUSUM) of log-likelihood ratios of a yes or no per attempt (Page 1954; for proportions
Reynolds & Stoumbos 1999): `S = max(0, S + ln(p1(x) / p0(x)))`, an alarm where `S` reaches a limit. `resolved` looks for a
drop. The others look for a rise of the share of attempts that lie above a bar, which the upper third of the attempts
before: turns taken, share of malformed turns, share of calls that contradict the workspace, submissions without a test.
Bars make the charts independent of how these numbers are distributed.

What was promised is what the attempts before showed, drawn towards those of all repositories, and two standard errors less:
what is uncertain is promised less. What an alarm cannot tell is a worse adapter from a stream that became harder, or a
repository that drifted: attempts of the bare base beside it (`control_share`) can. They move the reference along.
The other charts never alarm on an adapter that meanwhile resolves more than was promised. Needs no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from memory.hashing import content_hash

RESOLVED = "resolved"
MEASURES: Mapping[str, tuple[str, str]] = {
    "steps": ("steps", ""),
    "malformed": ("malformed", "steps"),
    "conflicts": ("conflicts", "calls"),
    "untested": ("untested", ""),
}
"""Charts of what may rise: the fact, and what it is a share of."""
MEANING: Mapping[str, str] = {
    RESOLVED: "resolved",
    "steps": "many turns",
    "malformed": "many malformed turns",
    "conflicts": "many calls that contradict the workspace",
    "untested": "submitted without a test",
}
LEAST, MOST = 0.02, 0.98
UPPER_SHARE = 0.35


class WatchConfig(BaseModel):
    """How what was promoted is watched at work. The limits go with these settings: `sleepyctl bench watch` simulates them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    enabled: bool = True
    """Roll back by itself when a chart alarms."""
    drop: float = Field(default=0.15, gt=0, lt=0.5)
    """The change of a share that the charts are tuned to: of resolved tasks downwards, of the others upwards."""
    limit: float = Field(default=5.0, gt=0)
    """Where a chart alarms (log-likelihood ratio, nats). Lower is faster, and alarms more often for nothing."""
    canary: int = Field(default=20, ge=0)
    """So many tasks of a repository after a promotion are also watched by charts that are tuned to twice the change."""
    canary_limit: float = Field(default=4.0, gt=0)
    """Where these alarm."""
    before: int = Field(default=200, ge=1)
    """The latest attempts before a promotion that the promise is made of."""
    prior: float = Field(default=4.0, gt=0)
    """How many attempts the other repositories, or the guards where nothing was attempted before, count for."""
    caution: float = Field(default=2.0, ge=0)
    """Standard errors that the promise is less than what was measured."""
    control_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of tasks that the bare base works on although there is an adapter, to tell it from a stream that became harder."""


@dataclass(frozen=True)
class Seen:
    """A finished attempt: `facts` as of `eval.behaviour` (None where its turns were forgotten). A `control` is the base's."""

    resolved: bool
    facts: Mapping[str, float] | None = None
    control: bool = False

    def value(self, measure: str) -> float | None:
        """What is charted of it; None if it is not known."""
        if self.facts is None:
            return None
        fact, of = MEASURES[measure]
        return self.facts[fact] / max(1.0, self.facts[of]) if of else self.facts[fact]


@dataclass(frozen=True)
class Promise:
    """Cautious share per chart, the measured rate of resolved tasks, and per measure the bar above which a value is high."""

    shares: Mapping[str, float]
    resolved: float
    bars: Mapping[str, float]
    attempts: int


def promise_of(
    mine: Sequence[Seen], all_repos: Sequence[Seen], config: WatchConfig, guarded: float | None = None
) -> Promise | None:
    """What was promised by the attempts before, of this repository and of all of them.

    `guarded` is the rate that guards found for the base, for where nothing was attempted. None if nothing is known.
    """
    if not all_repos and not mine and guarded is None:
        return None
    pooled = [*all_repos] or [*mine]
    general = sum(seen.resolved for seen in pooled) / len(pooled) if pooled else guarded or 0.0
    resolved, error = _drawn([seen.resolved for seen in mine], general, config.prior)
    shares = {RESOLVED: _within(resolved - config.caution * error)}
    bars: dict[str, float] = {}
    for measure in MEASURES:
        own, others = (_values(part, measure) for part in (mine, pooled))
        if not others:
            continue
        bars[measure] = bar = _bar(own if len(own) >= config.prior else [*own, *others])
        share, error = _drawn([v > bar for v in own], sum(v > bar for v in others) / len(others), config.prior)
        shares[measure] = _within(share + config.caution * error)
    return Promise(shares, resolved, bars, len(mine))


def _values(seen: Sequence[Seen], measure: str) -> list[float]:
    return [value for one in seen if (value := one.value(measure)) is not None]


def _bar(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil((1 - UPPER_SHARE) * len(ordered)) - 1)]


def _drawn(mine: Sequence[bool], general: float, prior: float) -> tuple[float, float]:
    """A share drawn towards a general one, and its standard error (that of half an event more where there is none)."""
    size = len(mine) + prior
    share = (sum(mine) + prior * general) / size
    smooth = (share * size + 0.5) / (size + 1)
    return share, math.sqrt(smooth * (1 - smooth) / size)


def _within(share: float) -> float:
    return min(MOST, max(LEAST, share))


class Reading(BaseModel):
    """How a chart stands: its value and limit (nats), the share that was promised and the one that was seen, since the
    chart was last at zero, in `tasks` attempts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chart: str
    canary: bool
    value: float
    limit: float
    promised: float
    seen: float
    tasks: int


@dataclass
class _Chart:
    name: str
    canary: bool
    limit: float
    drop: float
    promised: float
    prior: float
    value: float = 0.0
    tasks: int = 0
    events: int = 0
    resolved: int = 0
    controls: int = 0
    control_events: int = 0

    def __post_init__(self) -> None:
        self._tune(self.promised)

    def beside(self, event: bool) -> None:
        """An attempt of the base: where it fares worse than was promised, so may the adapter."""
        self.controls += 1
        self.control_events += event
        weight = 2 * self.prior
        size = weight + self.controls
        drawn = (weight * self.promised + self.control_events) / size
        error = math.sqrt(drawn * (1 - drawn) / size) * self.controls / size
        self._tune(min(self.promised, drawn - error) if self.name == RESOLVED else max(self.promised, drawn + error))

    def _tune(self, reference: float) -> None:
        self.reference = good = _within(reference)
        bad = max(good - self.drop, good / 4) if self.name == RESOLVED else min(good + self.drop, 1 - (1 - good) / 4)
        self._yes, self._no = math.log(bad / good), math.log((1 - bad) / (1 - good))

    def take(self, event: bool, resolved: bool) -> None:
        self.value += self._yes if event else self._no
        self.tasks += 1
        self.events += event
        self.resolved += resolved
        if self.value <= 0:
            self.value, self.tasks, self.events, self.resolved = 0.0, 0, 0, 0

    def reading(self) -> Reading:
        seen = self.events / self.tasks if self.tasks else self.reference
        told = {"value": round(self.value, 3), "promised": round(self.reference, 3), "seen": round(seen, 3)}
        return Reading(chart=self.name, canary=self.canary, limit=self.limit, tasks=self.tasks, **told)


@dataclass
class Watch:
    """The charts of one repository and one adapter. Feed it the attempts since the promotion, in order."""

    promise: Promise
    config: WatchConfig
    attempts: int = 0
    resolved: int = 0
    alarm: Reading | None = None
    charts: list[_Chart] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        for canary in (False, True):
            limit, drop = (config.canary_limit, 2 * config.drop) if canary else (config.limit, config.drop)
            self.charts += [
                _Chart(name, canary, limit, drop, share, config.prior) for name, share in self.promise.shares.items()
            ]

    def take(self, seen: Seen) -> Reading | None:
        """Count one attempt; the first chart that alarms with it. After an alarm nothing is counted any more."""
        if self.alarm is not None:
            return None
        if not seen.control:
            self.attempts += 1
            self.resolved += seen.resolved
        over = self.attempts > self.config.canary
        events = {name: self._event(name, seen) for name in self.promise.shares}
        for chart in self.charts:
            event = events[chart.name]
            if event is None or (over and chart.canary):
                continue
            if seen.control:
                chart.beside(event)
            else:
                chart.take(event, seen.resolved)
                if chart.value >= chart.limit and self.alarm is None and not self._better(chart):
                    self.alarm = chart.reading()
        return self.alarm

    def readings(self) -> list[Reading]:
        """How the charts stand; those of the canary while it lasts."""
        return [chart.reading() for chart in self.charts if not chart.canary or self.attempts < self.config.canary]

    def _event(self, name: str, seen: Seen) -> bool | None:
        if name == RESOLVED:
            return seen.resolved
        value = seen.value(name)
        return None if value is None else value > self.promise.bars[name]

    def _better(self, chart: _Chart) -> bool:
        """Whether the adapter resolves more than was promised, by more than a standard error, while another chart rises."""
        rate, tasks = self.promise.resolved, chart.tasks
        return chart.name != RESOLVED and chart.resolved > rate * tasks + math.sqrt(rate * (1 - rate) * tasks)


def is_control(task_id: str, share: float) -> bool:
    """Whether the bare base works on this task, so that `share` of all tasks are controls. By a hash: the same every time."""
    return int(content_hash(["control", task_id])[:8], 16) < share * 2**32
