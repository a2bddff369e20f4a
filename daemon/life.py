"""The life of the daemon: awake, asleep, awake again; whatever happens to it.

One task of the event loop decides what is next and has the worker do it. Everybody else (signals,
the schedule, the control socket, the file watcher) only sets wishes and pokes it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.api import Doing
from daemon.config import Config
from daemon.events import Event
from daemon.home import Home
from daemon.logs import Logger
from daemon.plan import NightPlan, next_tasks, own_tasks, plan_now, replay, set_slept_until, slept_until
from daemon.resources import clean_up, free_mb
from daemon.states import FOLLOWING, State
from daemon.timing import Timing
from daemon.worker import Reply, Request
from daemon.workers import Worker, WorkerDied
from memory.errors import StoreError, UnreadableStoreError
from memory.nights import Night, Verdict
from memory.store import Store
from memory.trajectories import Result

STATE, PAUSED, NIGHT_CONFIG, COUNTED_FROM = "state", "paused", "night.config", "results.counted_from"
BACKOFF_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
RETRIABLE, AWAY = ("TrainingCrashed",), "ModelUnavailable"


def utc_now() -> datetime:
    """Wall-clock time, UTC."""
    return datetime.now(UTC)


@dataclass
class Wishes:
    """What was asked for and not done yet."""

    sleep: str = ""
    wake: bool = False
    align: bool = False
    stop: bool = False
    paused: bool = False


@dataclass
class Life:
    """Alternates wake and sleep on one state directory. `now` is the wall clock."""

    home: Home
    config: Config
    store: Store
    log: Logger
    version: str
    now: Callable[[], datetime] = utc_now
    state: State = State.STOPPED
    since: datetime = field(default_factory=utc_now)
    why: str = ""
    wishes: Wishes = field(default_factory=Wishes)
    config_problem: str = ""
    holding: str = ""
    deferred: str = ""
    doing: Doing = field(default_factory=Doing)
    results: list[Result] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.worker = Worker(self.home, self._from_worker)
        self.publisher = Publisher(self.home.live, AdapterStore(self.home.adapters))
        self.started_at = self.now()
        self._poke = asyncio.Event()
        self._failures = 0
        self._hold_until = 0.0
        self._idle_since: float | None = None
        self._night_crashes: dict[str, int] = {}
        self._timing = Timing(self.store, self.log, self.started_at)

    # What others may wish for.

    def poke(self) -> None:
        """Have the next decision made now."""
        self._poke.set()

    def ask_sleep(self, why: str) -> NightPlan:
        """Wish for a night; it is held if the plan says so."""
        plan = self.plan()
        if plan.would_sleep:
            self.wishes.sleep = self.wishes.sleep or why
            self.poke()
        return plan

    def ask_wake(self) -> bool:
        """Break off the night; False if there is none."""
        if self.state not in (State.FALLING_ASLEEP, State.ASLEEP):
            return False
        self.wishes.sleep, self.wishes.wake = "", True
        self.worker.request_stop()
        self.poke()
        return True

    def ask_align(self) -> None:
        """The owner changed what is live: a server that serves adapters must follow."""
        self.wishes.align = self.config.model.engine.kind == "ollama"
        self.poke()

    def ask_pause(self, paused: bool) -> None:
        """Stop taking tasks and sleep no more, or go on; outlives the process."""
        self.store.set_note(PAUSED, "1" if paused else "")
        self.wishes.paused = paused
        if paused and self.state is State.ASLEEP:
            self.worker.request_stop()
        self.poke()

    def ask_stop(self, why: str) -> None:
        """End the process; the work in hand has the grace time, asked twice it has none."""
        if self.wishes.stop:
            self.worker.kill()
        else:
            self.wishes.stop = True
            self.log.info(Event.DAEMON_STOPPING, why=why)
            self.worker.request_stop()
            asyncio.get_running_loop().call_later(self.config.life.grace_seconds, self.worker.kill)
        self.poke()

    def plan(self) -> NightPlan:
        """What a night held now would learn from."""
        return plan_now(self.home, self.store, self.results, self.config)

    @property
    def tasks_since_night(self) -> int:
        """Tasks that have ended since the last night."""
        return len(self.results) - slept_until(self.store)

    def use(self, config: Config) -> None:
        """Work under another configuration from the next batch or night on."""
        if config.sleep != self.config.sleep:
            self._timing.hold(self.now())  # a window that is moved into the past opens tomorrow
        self.config, self.config_problem = config, ""
        self.poke()

    # The one loop.

    async def run(self) -> None:
        """Live until a stop is asked for."""
        self._enter(State.STARTING)
        self.wishes.paused = bool(self.store.note(PAUSED))
        self.results = self.store.results()
        self.tick()
        self._clean_up()
        try:
            while not self.wishes.stop:
                try:
                    await self._once()
                except UnreadableStoreError:
                    raise
                except StoreError as error:  # such as a full disk: what was begun is taken up again
                    if self.state in (State.FALLING_ASLEEP, State.ASLEEP):
                        self._enter(State.WAKING, str(error))
                    self._failed(str(error))
        finally:
            if self.state is not State.STOPPING:
                self._enter(State.STOPPING)
            self.worker.request_stop()
            await self.worker.close()
            self._enter(State.STOPPED)

    async def _once(self) -> None:
        """One decision, and what follows from it."""
        self._poke.clear()
        loop = asyncio.get_running_loop()
        if self.wishes.paused:
            self._enter(State.PAUSED, "the owner asked for it")
            await self._wait()
        elif self._low_disk():
            self._enter(State.AWAKE, self.holding)
            await self._wait(60.0)
        elif self._hold_until > loop.time():
            self._enter(State.AWAKE, self.holding)
            await self._wait(self._hold_until - loop.time())
        elif (night := self.store.open_night_now()) is not None or self.wishes.sleep:
            await self._sleep(night)
        elif 0 < self.config.sleep.after_tasks <= self._counted():  # also what ended just before a kill counts
            self._night_is_due(f"{self._counted()} tasks have ended since the last night was due")
        elif self.wishes.align:
            self._enter(State.AWAKE)
            reply = await self._ask(Request(do="align", config=self.config))
            if reply is not None and reply.error:
                self._failed(f"{reply.kind}: {reply.error}")
            elif reply is not None and not reply.stopped:
                self.wishes.align = False
        else:
            self._enter(State.AWAKE)
            if not await self._play():
                await self._rest()

    async def _play(self) -> bool:
        """The next batch of tasks; False if there is none."""
        config = self.config
        over = {result.task_id for result in self.results}
        if not next_tasks(config.tasks, over, 1) and not own_tasks(self.store, self.home, over):
            return False
        count = config.day.batch
        if config.sleep.after_tasks:
            count = min(count, max(1, config.sleep.after_tasks - self._counted()))
        reply = await self._ask(Request(do="play", config=config, count=count))
        self.doing = Doing()
        self.results += self.store.results(since=len(self.results))
        if reply is None or reply.stopped:
            return True
        if reply.error:
            self._failed(f"{reply.kind}: {reply.error}")
            return True
        done = reply.done or {}
        if done.get("taken") and done.get("failed") == done.get("taken"):
            self._failed("every attempt of the batch failed for reasons that are not the agent's; see the log")
        elif done.get("taken"):
            held = done.get("held", 0)
            self._failures = 0
            self.holding = f"{held} tasks of the inbox wait for a sandbox that confines: install bubblewrap" if held else ""
            self.log.info(Event.DAY_BATCH, **done)
        return bool(done.get("taken"))

    async def _rest(self) -> None:
        """Nothing to do: wait; after a while the model leaves memory, or a night is held."""
        loop = asyncio.get_running_loop()
        self._idle_since = self._idle_since or loop.time()
        self.holding = self.holding or "every task has ended"
        while not self._poke.is_set():
            idle = loop.time() - self._idle_since
            unload = self.config.model.unload_after_minutes * 60
            sleep = self.config.sleep.when_idle_minutes * 60
            if sleep and idle >= sleep and self._counted() > 0:
                self._night_is_due(f"idle for {self.config.sleep.when_idle_minutes:g} minutes")
                break
            if idle >= unload and self.worker.pid is not None:
                self.log.info(Event.WORKER_IDLE, minutes=self.config.model.unload_after_minutes)
                await self.worker.close()
            pending = [t - idle for t in (unload if self.worker.pid else 0, sleep) if t > idle]
            await self._wait(min(pending) if pending else None)
        self.holding = ""

    async def _sleep(self, night: Night | None) -> None:
        """Hold a night, or the rest of an open one."""
        why = self.wishes.sleep or "a night was broken off"
        if night is None:
            plan = self.plan()
            if not plan.would_sleep:
                self.wishes.sleep = ""
                self._defer(plan.why)
                return
            self._enter(State.FALLING_ASLEEP, why)
            self.store.set_note(NIGHT_CONFIG, self.config.model_dump_json())
        else:
            self._enter(State.FALLING_ASLEEP, why)
            self.log.info(Event.NIGHT_RESUMED, night=night.id, steps=[name for name, _ in self.store.steps_of_night(night.id)])
        self.wishes.sleep, self.deferred = "", ""
        self._enter(State.ASLEEP, why)
        before = [night.id for night in self.store.nights() if night.ended_at is not None]
        reply = await self._ask(Request(do="night", config=self._night_config()))
        progress, self.doing = self.doing, Doing()
        woken, self.wishes.wake = self.wishes.wake, False
        if woken:
            self._abandon_night("woken by the owner")
        elif reply is None:
            self._night_crashed(progress, "the worker died")
        elif reply.kind in RETRIABLE:
            self._failed(reply.error)
            self._night_crashed(progress, reply.error)
        elif reply.kind == AWAY:  # the night goes on when the server is back
            self._failed(reply.error)
        elif reply.error:
            self._abandon_night(f"{reply.kind}: {reply.error}")
        if reply is not None and reply.stopped and not woken:  # it goes on later, or at once if that was taken back
            if self.store.open_night_now() is None:
                self.wishes.sleep = why  # it had not begun
            if not (self.wishes.paused or self.wishes.stop):
                self._enter(State.WAKING)
            return
        self._enter(State.WAKING)
        nights = self.store.nights()
        if nights and nights[-1].ended_at is not None and nights[-1].id not in before:
            verdict = nights[-1].verdict
            promoted = verdict is not None and verdict.promoted
            self.log.info(
                Event.NIGHT_CLOSED, night=nights[-1].id, promoted=promoted, why=verdict.why if verdict else nights[-1].error
            )
            self._clean_up()

    async def _ask(self, request: Request) -> Reply | None:
        """What the worker answers; None if it died."""
        self._idle_since = None
        try:
            reply = await self.worker.ask(request)
        except WorkerDied as died:
            if not self.wishes.stop:
                self._failed(str(died))
            return None
        except OSError as error:
            self._failed(f"the worker process cannot be started: {error}")
            return None
        if reply.kind == UnreadableStoreError.__name__:  # to try again would write to a damaged file
            raise UnreadableStoreError(reply.error)
        return reply

    async def _wait(self, seconds: float | None = None) -> None:
        """Wait for a poke, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._poke.wait(), seconds)

    # Small decisions.

    def tick(self) -> None:
        """What must be looked at now and then: the schedule, the clock, the window's end."""
        if not self.home.store.exists():
            self.ask_stop(f"{self.home.store} is gone")
            return
        now, sleep = self.now(), self.config.sleep
        self._timing.watch_clock(now)
        if (opened := self._timing.due(sleep, now)) is not None:
            self._night_is_due(f"the window opened at {opened.isoformat()}")
        self._timing.watch_window(sleep, self.store.open_night_now() if self.state is State.ASLEEP else None, now)

    def _night_is_due(self, why: str) -> None:
        self.log.info(Event.NIGHT_DUE, why=why)
        plan = self.plan()
        if plan.would_sleep:
            self.wishes.sleep = self.wishes.sleep or why
            self.poke()
        else:
            self._defer(plan.why)

    def _defer(self, why: str) -> None:
        self.deferred = why
        self.store.set_note(COUNTED_FROM, str(len(self.results)))
        self.log.info(Event.NIGHT_DEFERRED, why=why)

    def _failed(self, why: str) -> None:
        """Something broke that is nobody's fault: wait longer each time, and say why."""
        delay = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        self.holding = f"waiting {delay:g} s after: {why}"
        self._hold_until = asyncio.get_running_loop().time() + delay
        self.log.error(Event.DAEMON_ERROR, error=why, retry_seconds=delay)

    def _night_crashed(self, progress: Doing, why: str) -> None:
        night = self.store.open_night_now()
        if night is None or self.wishes.stop:
            return
        key = f"{night.id}/{len(self.store.steps_of_night(night.id))}"
        self._night_crashes[key] = self._night_crashes.get(key, 0) + 1
        if self._night_crashes[key] >= self.config.life.crashes:
            cap = f" (resources.training_memory_mb is {self.config.resources.training_memory_mb})" if "memory" in why else ""
            self._abandon_night(f"{self._night_crashes[key]} crashes at step {progress.step or 'pairs'}: {why}{cap}")

    def _abandon_night(self, why: str) -> None:
        """Close the open night, if its worker has not: nothing was put to work."""
        night = self.store.open_night_now()
        if night is not None:
            verdict = Verdict(promoted=False, why=f"the night broke off: {why}")
            self.store.close_night(night.model_copy(update={"ended_at": self.now(), "verdict": verdict, "error": why[:500]}))
            self.log.error(Event.NIGHT_FAILED, night=night.id, error=why)

    def _clean_up(self) -> None:
        """Keep within the disk budget; what the next night replays is kept."""
        keep = {result.trajectory_id for result in replay(self.results, self.config)}
        clean_up(self.home, self.config.resources, self.publisher, self.store, self.log, keep)

    def _low_disk(self) -> bool:
        floor, free = self.config.resources.free_disk_mb, free_mb(self.home.root)
        low = free < floor
        text = f"{free} MiB free, resources.free_disk_mb asks for {floor}: free some space"
        if low and "MiB free" not in self.holding:
            self.log.warning(Event.DISK_LOW, free_mb=free, floor_mb=floor)
        elif not low and "MiB free" in self.holding:
            self.log.info(Event.DISK_RECOVERED, free_mb=free)
            self.holding = ""
        if low:
            self.holding = text
        return low

    def _counted(self) -> int:
        """Results since a night was last held or put off."""
        return len(self.results) - int(self.store.note(COUNTED_FROM) or 0)

    def _night_config(self) -> Config:
        """The configuration a night was begun with holds until its end."""
        text = self.store.note(NIGHT_CONFIG)
        try:
            return Config.model_validate_json(text) if text else self.config
        except ValidationError:  # another version's: the night ends without a verdict, because its configuration changed
            return self.config

    def _enter(self, state: State, why: str = "") -> None:
        if state is self.state:
            self.why = why
            return
        if state is not State.STARTING and state not in FOLLOWING[self.state]:
            raise AssertionError(f"{self.state} is never followed by {state}")
        self.log.info(Event.DAEMON_STATE, **{"from": self.state, "to": state, "why": why})
        self.state, self.since, self.why = state, self.now(), why
        with contextlib.suppress(StoreError):  # on a full disk: nothing depends on it
            self.store.set_note(STATE, state)

    def _from_worker(self, event: str, fields: dict[str, Any]) -> None:
        """An event of the worker: what it is doing now, and a line in the log."""
        if event == Event.TASK_STARTED:
            self.doing.tasks.append(str(fields["task"]))
        elif event in (Event.TASK_ENDED, Event.TASK_RETRIED) and fields.get("task") in self.doing.tasks:
            self.doing.tasks.remove(str(fields["task"]))
        elif event == Event.NIGHT_OPENED:
            # No task is played while a night is open, so these are the results it knows, also when it is resumed.
            set_slept_until(self.store, len(self.results))
            self.store.set_note(COUNTED_FROM, str(len(self.results)))
            self.doing.night = str(fields["night"])
        elif event == Event.NIGHT_STEP:
            self.doing.step, self.doing.progress = str(fields["step"]), {}
        elif event == Event.TRAINING_PROGRESS:
            self.doing.progress = fields
        if self.doing.night and "night" not in fields:
            fields = {**fields, "night": self.doing.night}
        self.log.info(Event(event), **fields)
