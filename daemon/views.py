"""What the owner may look at, computed from the store and the adapters: by the daemon, or without one by the command line."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence, Set
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from consolidation.adapters import Adapter, AdapterStore
from consolidation.skill import Publisher
from daemon.api import AdapterRow
from daemon.home import Home
from daemon.resources import pinned, size_of
from memory.nights import Night
from memory.store import Store
from memory.trajectories import Outcome, Result

RECENT = 50


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TaskRow(_Row):
    """A task that is over."""

    number: int
    task: str
    repo: str
    outcome: Outcome
    trajectory: str


class TrajectoryRow(_Row):
    """An attempt without its turns."""

    id: str
    task: str
    repo: str
    origin: str
    adapter: str | None
    started_at: datetime
    steps: int
    outcome: Outcome | None
    why: str


class NightRow(_Row):
    """A night: open while it has no end."""

    id: str
    started_at: datetime
    ended_at: datetime | None
    strategy: str
    pairs: int
    sources: dict[str, int]
    train_seconds: float | None
    loss_first: float | None
    loss_last: float | None
    adapter: str | None
    promoted: bool | None
    why: str
    steps: list[str]


class Rate(_Row):
    """Resolved of ended tasks."""

    ended: int
    resolved: int


class Metrics(_Row):
    """How it goes. Rates are of this stream, and compare nothing by themselves."""

    all: Rate
    recent: Rate
    by_repo: dict[str, Rate]
    by_outcome: dict[str, int]
    between_nights: list[Rate]
    """Before the first night, between the first and the second, and so on."""
    nights_promoted: int
    nights_rejected: int


def task_rows(store: Store, last: int | None = None) -> list[TaskRow]:
    """Tasks that are over, in the order of their results."""
    results = store.results()
    chosen = results[-last:] if last else results
    return [
        TaskRow(number=r.number, task=r.task_id, repo=r.repo, outcome=r.outcome, trajectory=r.trajectory_id) for r in chosen
    ]


def trajectory_rows(store: Store, last: int) -> list[TrajectoryRow]:
    """The latest attempts, by start."""
    return [
        TrajectoryRow(
            id=t.id,
            task=t.task_id,
            repo=t.repo,
            origin=t.origin,
            adapter=t.adapter,
            started_at=t.started_at,
            steps=len(t.steps),
            outcome=t.outcome,
            why=t.reason,
        )
        for t in store.trajectories(last=last)
    ]


def night_rows(store: Store, last: int | None = None) -> list[NightRow]:
    """Nights, by start."""
    nights = store.nights()
    return [_night_row(store, night) for night in (nights[-last:] if last else nights)]


def _night_row(store: Store, night: Night) -> NightRow:
    verdict = night.verdict
    return NightRow(
        id=night.id,
        started_at=night.started_at,
        ended_at=night.ended_at,
        strategy=night.strategy,
        pairs=night.pairs,
        sources=night.sources,
        train_seconds=night.train_seconds,
        loss_first=night.loss_first,
        loss_last=night.loss_last,
        adapter=night.adapter,
        promoted=None if verdict is None else verdict.promoted,
        why=verdict.why if verdict is not None else night.error,
        steps=[name for name, _ in store.steps_of_night(night.id)],
    )


def adapter_rows(home: Home, store: Store) -> list[AdapterRow]:
    """Every adapter, oldest first."""
    adapters = AdapterStore(home.adapters)
    publisher = Publisher(home.live, adapters)
    live, previous, kept = set(publisher.live().values()), set(publisher.previous().values()), pinned(store)
    return [
        AdapterRow(
            id=adapter.id,
            created_at=adapter.manifest.created_at,
            scope=list(adapter.manifest.scope),
            strategy=adapter.manifest.strategy,
            live=adapter.id in live,
            previous=adapter.id in previous,
            pinned=adapter.id in kept,
            bytes=size_of(adapter.folder),
            loss_last=adapter.manifest.loss_last,
            state=_state(adapter, live),
            damaged=adapter.damaged,
        )
        for adapter in adapters.list()
    ]


def _state(adapter: Adapter, live: Set[str]) -> str:
    """What was judged, and what is live by now: what passed and serves no longer is retired."""
    if adapter.id in live:
        return "live"
    return "retired" if adapter.standing.state == "passed" else adapter.standing.state


def promoted_adapters(store: Store) -> set[str]:
    """Ids of the adapters that a guarded and promoted night put to work."""
    found: set[str] = set()
    for night in store.nights():
        if night.verdict is not None and night.verdict.promoted:
            found |= {str(a) for result in store.step_results(night.id) for a in dict(result.get("live", {})).values()}
    return found


def metrics(store: Store) -> Metrics:
    """Rates of what has ended so far."""
    results = store.results()
    nights = [night for night in store.nights() if night.verdict is not None]
    borders = [0, *(sum(r.started_at < night.started_at for r in results) for night in nights), len(results)]
    return Metrics(
        all=_rate(results),
        recent=_rate(results[-RECENT:]),
        by_repo={repo: _rate([r for r in results if r.repo == repo]) for repo in sorted({r.repo for r in results})},
        by_outcome=dict(sorted(Counter(str(r.outcome) for r in results).items())),
        between_nights=[_rate(results[a:b]) for a, b in itertools.pairwise(borders)],
        nights_promoted=sum(night.verdict.promoted for night in nights if night.verdict),
        nights_rejected=sum(not night.verdict.promoted for night in nights if night.verdict),
    )


def _rate(results: Sequence[Result]) -> Rate:
    return Rate(ended=len(results), resolved=sum(r.outcome is Outcome.RESOLVED for r in results))
