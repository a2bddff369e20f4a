"""The watch over what is live: after each batch the charts are drawn from the store; an alarm goes back by itself.

An alarm is decided in the store first and carried out then, also by the next process if this one dies between. Going back
is per adapter: every repository that it serves gets what served it before, or the bare base; knowledge goes back with the
skill as after `sleepyctl adapters rollback`. The adapter is rejected for good: neither live again, nor started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter

from consolidation.errors import AdapterError, ConsolidationError
from consolidation.skill import adapter_for
from daemon.body import Body
from daemon.events import Event
from daemon.space import roll_back, space_of
from eval.behaviour import facts_of
from eval.watch import MEANING, Reading, Seen, Watch, is_control, promise_of
from memory.knowledge.shelf import Shelf
from memory.store import Store
from memory.trajectories import Outcome, Result

ALARMS = "watch.alarms"
PLAYED = ("base_skills",)
"""Claims whose items are tasks that are played as on a day."""
HORIZON = 2000
"""Attempts of an adapter in a repository that are looked at, the latest ones."""


class Alarm(BaseModel):
    """A decision to go back: the chart that alarmed, and what serves after it instead of the adapter (repositories that are
    not named get the bare base). `known` is the version of the knowledge at the time; `done` once it was carried out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    adapter: str
    repo: str
    reading: Reading
    attempts: int
    resolved: int
    before: dict[str, str]
    after: dict[str, str]
    known: int
    done: bool = False

    @property
    def why(self) -> str:
        """For people, with the numbers."""
        r = self.reading
        return (
            f"{'canary' if r.canary else 'online'} watch in {self.repo}: {MEANING[r.chart]} in {r.seen:.0%} of the last "
            f"{r.tasks} tasks, {r.promised:.0%} were promised (chart {r.value:.2f}, limit {r.limit:.2f}; "
            f"{self.resolved} of {self.attempts} tasks resolved since the promotion)"
        )


_LIST = TypeAdapter(list[Alarm])


def alarms(store: Store) -> list[Alarm]:
    """Every alarm so far, in order."""
    text = store.note(ALARMS)
    return _LIST.validate_json(text) if text else []


def _record(store: Store, found: Sequence[Alarm]) -> None:
    store.set_note(ALARMS, _LIST.dump_json(list(found)).decode())


def told(store: Store, live: Mapping[str, str]) -> str:
    """Why what was live is no longer, until something else is put to work there."""
    lines = []
    for alarm in alarms(store):
        served = [repo for repo, adapter in alarm.before.items() if adapter == alarm.adapter]
        if all(live.get(repo) == alarm.after.get(repo) for repo in served):
            back = ", ".join(sorted({alarm.after.get(repo, "the bare base model") for repo in served}))
            lines.append(f"adapter {alarm.adapter} was taken out of service for {back}: {alarm.why}")
    return "; ".join(lines)


@dataclass(frozen=True)
class _Attempt:
    seen: Seen
    adapter: str | None
    made_with: tuple[str, str]


class Watching:
    """Watches for one life. What it has read of attempts is kept; every decision is made from all that the store holds."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._read: dict[str, _Attempt] = {}
        self._looked = -1

    def look(self) -> None:
        """Draw the charts of everything that is live; go back where one alarms."""
        body = self._body
        if not (body.config.watch.enabled and body.config.arm.adapts) or self._looked == len(body.results):
            return
        self._looked = len(body.results)
        try:
            live = body.publisher.live()
            over = {alarm.adapter for alarm in alarms(body.store)}
            for adapter in sorted(set(live.values()) - over):
                charts = self.charts(adapter, live)
                if alarmed := next((repo for repo, watch in charts.items() if watch.alarm is not None), None):
                    self._decide(adapter, alarmed, charts[alarmed], live)
        except ConsolidationError as error:  # what is live cannot be read; the next task says so too
            body.log.error(Event.DAEMON_ERROR, where="watch", error=str(error))
        self.settle()

    def settle(self) -> None:
        """Carry out what was decided and is not done yet; nothing to do most of the time."""
        body = self._body
        found = alarms(body.store)
        for number, alarm in enumerate(found):
            if alarm.done:
                continue
            try:
                self._carry_out(alarm)
            except ConsolidationError as error:
                body.patience.failed(f"adapter {alarm.adapter} must be taken out of service, but {error}")
                return
            found[number] = alarm.model_copy(update={"done": True})
            _record(body.store, found)

    def charts(self, adapter: str, live: Mapping[str, str]) -> dict[str, Watch]:
        """The charts of a live adapter, by repository in which it has worked, drawn from the store.

        Raises:
            AdapterError: it is damaged.
        """
        body, config = self._body, self._body.config.watch
        made = body.publisher.adapters.get(adapter).manifest.created_at
        graded = [result for result in body.results if result.outcome is not Outcome.INFRASTRUCTURE_FAILURE]
        before = [result for result in graded if result.started_at < made]
        charts: dict[str, Watch] = {}
        for repo in sorted({result.repo for result in graded if result.started_at >= made}):
            if adapter_for(live, repo) != adapter:
                continue
            since = [r for r in graded if r.repo == repo and r.started_at >= made]
            cut = max(0, len(since) - HORIZON)
            attempts = [(r, self._attempt(r)) for r in since[cut:]]
            mine = [(r, a) for r, a in attempts if a.adapter == adapter or self._is_control(r, a)]
            if not mine:
                continue
            like = mine[-1][1].made_with
            own = self._like([r for r in before if r.repo == repo][-config.before :], like)
            promise = promise_of(own, self._like(before[-config.before :], like), config, self._guarded(adapter))
            if promise is None:
                continue
            charts[repo] = watch = Watch(promise, config, attempts=cut)
            for _, attempt in mine:
                watch.take(replace(attempt.seen, control=attempt.adapter != adapter))
        return charts

    def _is_control(self, result: Result, attempt: _Attempt) -> bool:
        return attempt.adapter is None and is_control(result.task_id, self._body.config.watch.control_share)

    def _like(self, results: Sequence[Result], made_with: tuple[str, str]) -> list[Seen]:
        """Attempts by the same model in the same arm."""
        return [attempt.seen for attempt in map(self._attempt, results) if attempt.made_with == made_with]

    def _attempt(self, result: Result) -> _Attempt:
        if result.trajectory_id not in self._read:
            played = self._body.store.trajectory(result.trajectory_id)
            seen = Seen(played.resolved, facts_of(played) if played.steps else None)
            self._read[result.trajectory_id] = _Attempt(seen, played.adapter, (played.model, played.arm))
        return self._read[result.trajectory_id]

    def _promoting(self, adapter: str) -> str | None:
        """The night that first put an adapter to work."""
        store = self._body.store
        nights = (night.id for night in store.nights() if night.verdict is not None and night.verdict.promoted)
        return next((n for n in nights if adapter in _live(store.step_result(n, "publish")).values()), None)

    def _guarded(self, adapter: str) -> float | None:
        """The rate that the guards found for the base when they let this adapter pass."""
        night = self._promoting(adapter)
        verdict = next((n.verdict for n in self._body.store.nights() if n.id == night), None)
        numbers = verdict.numbers if verdict is not None else {}
        names = [name for name in PLAYED if f"{name}.tasks" in numbers]
        pairs = [(numbers[f"{name}.base"], numbers[f"{name}.tasks"]) for name in names if f"{name}.base" in numbers]
        tasks = sum(tasks for _, tasks in pairs)
        return min(1.0, max(0.0, sum(base for base, _ in pairs) / tasks)) if tasks > 0 else None

    def _decide(self, adapter: str, repo: str, watch: Watch, live: Mapping[str, str]) -> None:
        body = self._body
        assert watch.alarm is not None
        night = self._promoting(adapter)
        then = _live(body.store.step_result(night, "before")) if night is not None else body.publisher.previous()
        before = {place: then[place] for place, identity in live.items() if identity == adapter and place in then}
        kept = {place: identity for place, identity in live.items() if identity != adapter}
        over = {alarm.adapter for alarm in alarms(body.store)} | {adapter}
        alarm = Alarm(
            at=body.now(),
            adapter=adapter,
            repo=repo,
            reading=watch.alarm,
            attempts=watch.attempts,
            resolved=watch.resolved,
            before=dict(live),
            after=kept | {place: i for place, i in before.items() if i not in over and self._serves(i)},
            known=Shelf(body.store, space_of(body.config)).version().number,
        )
        _record(body.store, [*alarms(body.store), alarm])

    def _serves(self, adapter: str) -> bool:
        with suppress(AdapterError):
            return self._body.publisher.adapters.get(adapter).standing.state != "rejected"
        return False

    def _carry_out(self, alarm: Alarm) -> None:
        """Every part of it does nothing the second time."""
        body, publisher = self._body, self._body.publisher
        fields = alarm.reading.model_dump() | {"attempts": alarm.attempts, "resolved": alarm.resolved}
        body.log.warning(Event.WATCH_ALARM, adapter=alarm.adapter, repo=alarm.repo, why=alarm.why, **fields)
        back = {repo: i for repo, i in alarm.after.items() if self._serves(i)}  # another alarm may have retired it meanwhile
        table = {repo: i if i != alarm.adapter else back.get(repo) for repo, i in publisher.live().items()}
        after = {repo: identity for repo, identity in table.items() if identity is not None}
        publisher.make_live(after)
        shelf = Shelf(body.store, space_of(body.config))
        if shelf.version().number == alarm.known and (known := roll_back(body.store, shelf, alarm.before, after)) is not None:
            body.log.info(Event.KNOWLEDGE_ROLLED_BACK, version=str(known))
        try:
            publisher.retire({alarm.adapter}, alarm.why)
        except AdapterError as error:  # damaged: it can be neither served nor started from
            body.log.error(Event.DAEMON_ERROR, where="watch", error=str(error))
        body.wishes.align = body.wishes.align or body.config.model.engine.kind == "ollama"
        body.log.info(Event.ADAPTER_ROLLED_BACK, live=after)


def _live(step: Mapping[str, object] | None) -> dict[str, str]:
    """The routing table that a step of a night recorded."""
    table = (step or {}).get("live")
    return {str(repo): str(identity) for repo, identity in table.items()} if isinstance(table, dict) else {}
