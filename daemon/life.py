"""The life of the daemon: awake, asleep, awake again; whatever happens to it.

One task of the event loop decides what is next and has the worker do it. Everybody else (signals,
the schedule, the control socket, the file watcher) only sets wishes and pokes it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from daemon.body import Body
from daemon.config import Config
from daemon.day import play, rest
from daemon.events import Event
from daemon.plan import NightPlan
from daemon.sleeping import Sleeping
from daemon.states import State
from daemon.timing import Timing
from daemon.watching import Watching
from daemon.worker import Request
from memory.errors import StoreError, UnreadableStoreError

PAUSED = "paused"


@dataclass
class Life(Body):
    """Alternates wake and sleep on one state directory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._sleeping = Sleeping(self)
        self._timing = Timing(self.store, self.log, self.started_at)
        self._watching = Watching(self)

    # What others may wish for.

    def ask_sleep(self, why: str) -> NightPlan:
        """Wish for a night; it is held if the plan says so."""
        plan = self.plan()
        if plan.would_sleep:
            self.wishes.sleep = self.wishes.sleep or why
            self.poke()
        return plan

    def ask_wake(self) -> bool:
        """Break off the night, or close one that waits to go on; False if there is none."""
        if self.state not in (State.FALLING_ASLEEP, State.ASLEEP):
            return self._sleeping.close_waiting()
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

    def use(self, config: Config) -> None:
        """Work under another configuration from the next batch or night on."""
        if config.sleep != self.config.sleep:
            self._timing.hold(self.now())  # a window that is moved into the past opens tomorrow
        self.config, self.config_problem = config, ""
        self.poke()

    def tick(self) -> None:
        """What must be looked at now and then: the schedule, the clock, the window's end."""
        if not self.home.store.exists():
            self.ask_stop(f"{self.home.store} is gone")
            return
        now, sleep = self.now(), self.config.sleep
        self._timing.watch_clock(now)
        if (opened := self._timing.due(sleep, now)) is not None:
            self.night_is_due(f"the window opened at {opened.isoformat()}")
        self._timing.watch_window(sleep, self.store.open_night_now() if self.state is State.ASLEEP else None, now)

    # The one loop.

    async def run(self) -> None:
        """Live until a stop is asked for."""
        self.enter(State.STARTING)
        self.wishes.paused = bool(self.store.note(PAUSED))
        self.results = self.store.results()
        self.tick()
        self.clean_up()
        try:
            while not self.wishes.stop:
                try:
                    await self._once()
                except UnreadableStoreError:
                    raise
                except StoreError as error:  # such as a full disk: what was begun is taken up again
                    if self.state in (State.FALLING_ASLEEP, State.ASLEEP):
                        self.enter(State.WAKING, str(error))
                    self.patience.failed(str(error))
        finally:
            if self.state is not State.STOPPING:
                self.enter(State.STOPPING)
            self.worker.request_stop()
            await self.worker.close()
            self.enter(State.STOPPED)

    async def _once(self) -> None:
        """One decision, and what follows from it."""
        self.poked.clear()
        self._watching.settle()  # what a killed process had decided comes before all else
        if self.wishes.paused:
            self.enter(State.PAUSED, "the owner asked for it")
            await self.wait()
        elif self.patience.low_disk(self.home.root, self.config.resources.free_disk_mb):
            self.enter(State.AWAKE, self.holding)
            await self.wait(60.0)
        elif (left := self.patience.left) > 0:
            self.enter(State.AWAKE, self.holding)
            await self.wait(left)
        elif (night := self.store.open_night_now()) is not None or self.wishes.sleep:
            await self._sleeping.sleep(night)
        elif 0 < self.config.sleep.after_tasks <= self.counted:  # also what ended just before a kill counts
            self.night_is_due(f"{self.counted} tasks have ended since the last night was due")
        elif self.wishes.align:
            self.enter(State.AWAKE)
            await self._align()
        else:
            self.enter(State.AWAKE)
            played = await play(self)
            self._watching.look()
            if not played:
                await rest(self)

    async def _align(self) -> None:
        reply = await self.ask(Request(do="align", config=self.config))
        if reply is not None and reply.error:
            self.patience.failed(f"{reply.kind}: {reply.error}")
        elif reply is not None and not reply.stopped:
            self.wishes.align = False
