"""What the clock tells: that a night is due, that the clock was set, and that a night outlasts its window."""

from __future__ import annotations

import json
import time
from datetime import datetime

from daemon.config import SleepConfig
from daemon.events import Event
from daemon.logs import Logger
from daemon.schedule import NightSchedule
from memory.nights import Night
from memory.store import Store

HELD = "schedule.held"
OPENINGS_KEPT = 30
CLOCK_JUMP_SECONDS = 120.0


class Timing:
    """Asked with the time of day again and again; which openings of the window were held is kept in the store."""

    def __init__(self, store: Store, log: Logger, now: datetime) -> None:
        self._store, self._log = store, log
        self._wall, self._steady = now, time.monotonic()
        self._told = ""
        if store.note(HELD) is None:
            self.hold(now)  # what opened before the first start is over

    def due(self, config: SleepConfig, now: datetime) -> datetime | None:
        """The opening of the window for which a night is due now; from then on it counts as held."""
        opening = NightSchedule(config).due(now, self._held())
        if opening is not None:
            self.hold(opening)
        return opening

    def hold(self, opening: datetime) -> None:
        """Count everything up to this time as held."""
        latest = [*self._held(), opening][-OPENINGS_KEPT:]
        self._store.set_note(HELD, json.dumps([moment.isoformat() for moment in latest]))

    def _held(self) -> list[datetime]:
        return [datetime.fromisoformat(text) for text in json.loads(self._store.note(HELD) or "[]")]

    def watch_clock(self, now: datetime) -> None:
        """Log it when the wall clock moved otherwise than time passed."""
        steady = time.monotonic()
        jump = (now - self._wall).total_seconds() - (steady - self._steady)
        self._wall, self._steady = now, steady
        if abs(jump) > CLOCK_JUMP_SECONDS:
            self._log.warning(Event.CLOCK_JUMPED, seconds=round(jump))

    def watch_window(self, config: SleepConfig, night: Night | None, now: datetime) -> None:
        """Log it, once a night, when the window in which the night began has closed."""
        if night is None or night.id == self._told:
            return
        schedule = NightSchedule(config)
        opened = schedule.opened(night.started_at)
        closes = schedule.closes(opened) if opened is not None else None
        if closes is not None and night.started_at < closes < now:
            self._told = night.id
            self._log.warning(Event.NIGHT_OVERRUN, night=night.id, window_closed_at=closes)
