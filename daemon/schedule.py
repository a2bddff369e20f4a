"""When a night is due: a window that opens once a day, also on machines that sleep, and when clocks change.

What is due is computed from times, not from ticks, and the caller remembers which openings were
held: so a night that came due while the process was down or the machine asleep is still held,
once, and not again when the clock is set back.

APScheduler turns the clock that asks; the openings are not its `CronTrigger`'s, which (3.11) leaves
out the days on which the hour falls into a daylight saving gap, and opens twice, and then for ever
again, where the hour comes twice.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

from tzlocal import get_localzone

from daemon.config import SleepConfig

DAY = timedelta(days=1)


class NightSchedule:
    """The window of a configuration. Times that come in and go out are UTC.

    Where local time has a gap, a time in it is as long after the gap's beginning; where an hour
    comes twice, the first one counts.
    """

    def __init__(self, config: SleepConfig) -> None:
        self.grace = timedelta(hours=config.misfire_grace_hours)
        self.times = config.times
        self.zone: tzinfo = ZoneInfo(config.timezone) if config.timezone else get_localzone()

    def due(self, now: datetime, held: Collection[datetime]) -> datetime | None:
        """The latest opening of the window, if it is to be held now: later than what was `held` and not too long ago.

        Of several that were missed only the latest is due. What was held in the future, by a clock
        that was set back since, is not due again when its time comes, and keeps no other from it.
        """
        latest = self.opened(now)
        if latest is None or now - latest > self.grace:
            return None
        known = max((moment for moment in held if moment <= now), default=None)
        return latest if known is None or latest > known else None

    def opened(self, now: datetime) -> datetime | None:
        """The latest opening of the window that is not after `now`."""
        return max((opening for opening in self._around(now) if opening <= now), default=None)

    def next(self, now: datetime) -> datetime | None:
        """The next opening of the window after `now`."""
        return min((opening for opening in self._around(now) if opening > now), default=None)

    def closes(self, opened: datetime) -> datetime | None:
        """The end of the window that opened at this time; always later."""
        if self.times is None:
            return None
        begin, end = self.times
        day = opened.astimezone(self.zone).date()
        if self._local(day, begin) != opened and self._local(day - DAY, begin) == opened:
            day -= DAY  # a gap at midnight moved the opening to the next day
        over_midnight = DAY if end <= begin else timedelta(0)
        closing = self._local(day + over_midnight, end)
        length = datetime.combine(day + over_midnight, end) - datetime.combine(day, begin)
        return closing if closing > opened else opened + length

    def _around(self, now: datetime) -> list[datetime]:
        """Openings of some days before and after; days enough to find one, also where a day was left out."""
        if self.times is None:
            return []
        today = now.astimezone(self.zone).date()
        return [self._local(today + days * DAY, self.times[0]) for days in range(-3, 4)]

    def _local(self, day: date, moment: time) -> datetime:
        return datetime.combine(day, moment, self.zone).astimezone(UTC)
