"""What a life has, awake or asleep: its state, its worker, what it was asked for, and the results it counts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from consolidation.adapters import AdapterStore
from consolidation.skill import Publisher
from daemon.api import Doing
from daemon.config import Config
from daemon.events import Event
from daemon.home import Home
from daemon.logs import Logger
from daemon.patience import Patience
from daemon.plan import NightPlan, plan_now, replay, set_slept_until, slept_until
from daemon.resources import clean_up
from daemon.states import FOLLOWING, State
from daemon.worker import Reply, Request
from daemon.workers import Worker, WorkerDied
from memory.errors import StoreError, UnreadableStoreError
from memory.store import Store
from memory.trajectories import Result

STATE, COUNTED_FROM = "state", "results.counted_from"


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
class Body:
    """Shared by the day, the night and the loop that alternates them. `now` is the wall clock."""

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
    deferred: str = ""
    doing: Doing = field(default_factory=Doing)
    results: list[Result] = field(default_factory=list)
    idle_since: float | None = None
    """Monotonic time since when the worker was asked for nothing, once that was noticed."""

    def __post_init__(self) -> None:
        self.worker = Worker(self.home, self.heard)
        self.publisher = Publisher(self.home.live, AdapterStore(self.home.adapters))
        self.patience = Patience(self.log)
        self.started_at = self.now()
        self.poked = asyncio.Event()

    @property
    def holding(self) -> str:
        """Why no task is worked on; empty if nothing keeps it from that."""
        return self.patience.holding

    # Its state, and its worker.

    def enter(self, state: State, why: str = "") -> None:
        """Be in this state from now on."""
        if state is self.state:
            self.why = why
            return
        if state is not State.STARTING and state not in FOLLOWING[self.state]:
            raise AssertionError(f"{self.state} is never followed by {state}")
        self.log.info(Event.DAEMON_STATE, **{"from": self.state, "to": state, "why": why})
        self.state, self.since, self.why = state, self.now(), why
        with contextlib.suppress(StoreError):  # on a full disk: nothing depends on it
            self.store.set_note(STATE, state)

    def poke(self) -> None:
        """Have the next decision made now."""
        self.poked.set()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait for a poke, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.poked.wait(), seconds)

    async def ask(self, request: Request) -> Reply | None:
        """What the worker answers; None if it died.

        Raises:
            UnreadableStoreError: the worker found the store damaged.
        """
        self.idle_since = None
        try:
            reply = await self.worker.ask(request)
        except WorkerDied as died:
            if not self.wishes.stop:
                self.patience.failed(str(died))
            return None
        except OSError as error:
            self.patience.failed(f"the worker process cannot be started: {error}")
            return None
        if reply.kind == UnreadableStoreError.__name__:  # to try again would write to a damaged file
            raise UnreadableStoreError(reply.error)
        return reply

    def heard(self, event: str, fields: dict[str, Any]) -> None:
        """An event of the worker: what it is doing now, and a line in the log."""
        if event == Event.TASK_STARTED:
            self.doing.tasks.append(str(fields["task"]))
        elif event in (Event.TASK_ENDED, Event.TASK_RETRIED) and fields.get("task") in self.doing.tasks:
            self.doing.tasks.remove(str(fields["task"]))
        elif event == Event.NIGHT_OPENED:
            # No task is played while a night is open, so these are the results it knows, also when it is resumed.
            set_slept_until(self.store, len(self.results))
            self._count_anew()
            self.doing.night = str(fields["night"])
        elif event == Event.NIGHT_STEP:
            self.doing.step, self.doing.progress = str(fields["step"]), {}
        elif event == Event.TRAINING_PROGRESS:
            self.doing.progress = fields
        if self.doing.night and "night" not in fields:
            fields = {**fields, "night": self.doing.night}
        self.log.info(Event(event), **fields)

    # Its results, and whether they are worth a night.

    @property
    def tasks_since_night(self) -> int:
        """Tasks that have ended since the last night."""
        return len(self.results) - slept_until(self.store)

    @property
    def counted(self) -> int:
        """Results since a night was last held or put off."""
        return len(self.results) - int(self.store.note(COUNTED_FROM) or 0)

    def _count_anew(self) -> None:
        self.store.set_note(COUNTED_FROM, str(len(self.results)))

    def plan(self) -> NightPlan:
        """What a night held now would learn from."""
        return plan_now(self.home, self.store, self.results, self.config)

    def night_is_due(self, why: str) -> None:
        """Wish for a night, or put it off if the plan says so."""
        self.log.info(Event.NIGHT_DUE, why=why)
        plan = self.plan()
        if plan.would_sleep:
            self.wishes.sleep = self.wishes.sleep or why
            self.poke()
        else:
            self.defer(plan.why)

    def defer(self, why: str) -> None:
        """Put off the night."""
        self.deferred = why
        self._count_anew()
        self.log.info(Event.NIGHT_DEFERRED, why=why)

    def clean_up(self) -> None:
        """Keep within the disk budget; what the next night replays is kept."""
        keep = {result.trajectory_id for result in replay(self.results, self.config)}
        clean_up(self.home, self.config.resources, self.publisher, self.store, self.log, keep)
