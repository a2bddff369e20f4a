"""When a night is due: once for each opening of the window, whatever the machine and the clocks do."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import pytest

from daemon.config import Config, SleepConfig
from daemon.events import Event
from daemon.home import Home
from daemon.life import Life
from daemon.logs import Logger
from daemon.schedule import NightSchedule
from memory.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 6, 10, 12, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)


def schedule(window: str = "02:00-06:00", timezone: str = "UTC", grace: float = 12) -> NightSchedule:
    return NightSchedule(SleepConfig(window=window, timezone=timezone, misfire_grace_hours=grace))


def berlin(text: str) -> datetime:
    """A moment as a clock on a wall in Berlin shows it; of two with the same name the first."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)


def held(plan: NightSchedule, ticks: Iterable[datetime], start: datetime) -> list[datetime]:
    """The openings for which a night is held by one who looks at these times, and remembers as the daemon does."""
    nights = [start]
    for now in ticks:
        due = plan.due(now, nights[-30:])
        if due is not None:
            nights.append(due)
    return nights[1:]


def every(step: timedelta, begin: datetime, end: datetime) -> Iterable[datetime]:
    while begin < end:
        yield begin
        begin += step


# One opening, one night


def test_an_opening_is_due_from_its_very_moment_and_not_before() -> None:
    plan = schedule()
    opening = datetime(2026, 6, 11, 2, tzinfo=UTC)
    assert plan.next(NOON) == opening
    assert plan.due(opening - timedelta(microseconds=1), [NOON]) is None
    assert plan.due(opening, [NOON]) == opening


def test_an_opening_that_was_held_is_not_due_again() -> None:
    plan = schedule()
    opening = datetime(2026, 6, 11, 2, tzinfo=UTC)
    assert plan.due(opening + HOUR, [opening]) is None
    assert plan.next(opening) == opening + DAY
    assert held(plan, every(timedelta(seconds=30), NOON, NOON + DAY), NOON) == [opening]


def test_an_opening_before_the_first_start_is_not_due() -> None:
    now = datetime(2026, 6, 11, 2, 0, 1, tzinfo=UTC)
    assert schedule().due(now, [now]) is None
    assert schedule().due(now, []) == now - timedelta(seconds=1)


def test_times_come_out_in_utc() -> None:
    plan = schedule(timezone="Asia/Kathmandu")
    opening = plan.next(NOON)
    assert opening == datetime(2026, 6, 10, 20, 15, tzinfo=UTC)
    closing = plan.closes(opening)
    assert closing == datetime(2026, 6, 11, 0, 15, tzinfo=UTC)
    assert opening.tzinfo is UTC
    assert closing.tzinfo is UTC


def test_without_a_window_nothing_is_ever_due() -> None:
    plan = schedule(window="")
    assert plan.next(NOON) is None
    assert plan.closes(NOON) is None
    assert plan.opened(NOON) is None
    assert held(plan, every(HOUR, NOON, NOON + 10 * DAY), NOON) == []


def test_without_a_time_zone_it_is_the_machines_own() -> None:
    code = """
from datetime import UTC, datetime
from daemon.config import SleepConfig
from daemon.schedule import NightSchedule

print(NightSchedule(SleepConfig(window="02:00-06:00")).next(datetime(2026, 6, 10, 12, tzinfo=UTC)))
"""
    environment = {**os.environ, "TZ": "Asia/Tokyo"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "2026-06-10 17:00:00+00:00\n"


# A machine that sleeps, or a process that was down


def test_a_night_missed_while_the_machine_slept_is_held_when_it_wakes() -> None:
    plan = schedule(grace=12)
    opening = datetime(2026, 6, 11, 2, tzinfo=UTC)
    woken = [NOON, opening + timedelta(hours=5.5), opening + 6 * HOUR]
    assert held(plan, woken, NOON) == [opening]


def test_a_night_missed_for_longer_than_the_grace_is_left_out_but_the_next_is_held() -> None:
    plan = schedule(grace=3)
    opening = datetime(2026, 6, 11, 2, tzinfo=UTC)
    assert plan.due(opening + 3 * HOUR, [NOON]) == opening
    assert plan.due(opening + 3 * HOUR + timedelta(microseconds=1), [NOON]) is None
    assert held(plan, every(MINUTE, opening + 4 * HOUR, opening + DAY + HOUR), NOON) == [opening + DAY]


@pytest.mark.parametrize("days", [2, 3, 4, 30, 400])
def test_after_days_of_sleep_one_night_is_held_for_all_that_were_missed(days: int) -> None:
    plan = schedule()
    woken = datetime(2026, 6, 11, 8, tzinfo=UTC) + days * DAY
    nights = held(plan, [NOON, *every(MINUTE, woken, woken + 3 * HOUR)], NOON)
    assert nights == [woken - 6 * HOUR]


def test_a_grace_of_a_week_makes_up_for_one_night_and_not_for_seven() -> None:
    plan = schedule(grace=168)
    assert held(plan, [NOON, *every(HOUR, NOON + 6 * DAY, NOON + 6 * DAY + 10 * HOUR)], NOON) == [NOON + 6 * DAY - 10 * HOUR]


def test_a_window_that_was_moved_is_due_at_its_new_time_and_not_again_at_the_old_one() -> None:
    opening = datetime(2026, 6, 11, 2, tzinfo=UTC)
    moved = schedule(window="04:00-06:00")
    assert moved.due(opening + HOUR, [opening]) is None
    assert moved.due(opening + 2 * HOUR, [opening]) == opening + 2 * HOUR
    assert schedule().due(opening + 3 * HOUR, [opening, opening + 2 * HOUR]) is None


# A clock that is set


def test_a_clock_a_day_ahead_and_back_holds_no_opening_twice_and_the_next_one_all_the_same() -> None:
    plan = schedule()
    ahead = list(every(MINUTE, NOON + DAY, NOON + DAY + HOUR))
    back = list(every(10 * MINUTE, NOON + HOUR, NOON + 4 * DAY))
    nights = held(plan, [NOON, *ahead, *back], NOON)
    assert nights == [datetime(2026, 6, day, 2, tzinfo=UTC) for day in (11, 12, 13, 14)]


def test_a_clock_set_back_over_an_opening_that_was_held_does_not_hold_it_again() -> None:
    plan = schedule()
    opening = datetime(2026, 6, 11, 2, tzinfo=UTC)
    ticks = [NOON, opening + MINUTE, *every(MINUTE, opening - HOUR, opening + HOUR), *every(HOUR, opening, opening + DAY)]
    assert held(plan, ticks, NOON) == [opening]


@pytest.mark.parametrize("ahead", [DAY, 2 * DAY, 10 * DAY, 365 * DAY, 3650 * DAY])
def test_a_clock_that_was_ahead_does_not_keep_it_awake_once_it_is_right(ahead: timedelta) -> None:
    plan = schedule()
    wrong = [NOON, NOON + ahead, NOON + ahead + MINUTE]
    right = list(every(10 * MINUTE, NOON + HOUR, NOON + 3 * DAY))
    nights = held(plan, [*wrong, *right], NOON)
    assert nights[0] == NOON + ahead - 10 * HOUR
    openings = [datetime(2026, 6, day, 2, tzinfo=UTC) for day in (11, 12, 13)]
    assert [night for night in openings if night != nights[0]] == nights[1:]


def test_a_first_start_with_a_clock_far_ahead_does_not_keep_it_awake_once_it_is_right() -> None:
    plan = schedule()
    nights = held(plan, every(HOUR, NOON, NOON + DAY), start=NOON + 365 * DAY)
    assert nights[-1] == datetime(2026, 6, 11, 2, tzinfo=UTC)


@pytest.mark.parametrize("seed", range(5))
def test_a_clock_that_jumps_a_day_forward_and_back_all_year_holds_each_opening_once(seed: int) -> None:
    rng = random.Random(seed)
    plan = schedule(window="02:30-06:00", timezone="Europe/Berlin")
    ticks, ahead = [], timedelta(0)
    for now in every(37 * MINUTE, NOON, NOON + 365 * DAY):
        if rng.random() < 0.02:
            ahead = DAY - ahead
        ticks.append(now + ahead)
    nights = held(plan, ticks, NOON)
    assert len(set(nights)) == len(nights)
    # An opening can be jumped over, if the clock comes to stand later than the grace after it; its neighbours are held.
    assert all(later - earlier < 3 * DAY for earlier, later in pairwise(sorted(nights)))
    assert len(nights) > 300


class Ear:
    """A log that only remembers what was said."""

    def __init__(self) -> None:
        self.due: list[str] = []

    def info(self, event: Event, /, **fields: object) -> None:
        if event is Event.NIGHT_DUE:
            self.due.append(str(fields["why"]))

    warning = error = debug = info


def test_the_daemon_remembers_what_it_held_over_restarts_and_set_clocks(tmp_path: Path) -> None:
    home, ear, midnight = Home(tmp_path / "state"), Ear(), datetime(2026, 6, 11, tzinfo=UTC)
    home.make()

    async def live(*times: datetime) -> None:
        clock = [times[0]]
        with Store(home.store) as store:
            life = Life(home, Config(sleep=SleepConfig(timezone="UTC")), store, cast("Logger", ear), "0", lambda: clock[0])
            for clock[0] in times:
                life.tick()

    asyncio.run(live(midnight, midnight + 3 * HOUR, midnight + 4 * HOUR))
    asyncio.run(live(midnight + 5 * HOUR, midnight + 29 * HOUR))
    asyncio.run(live(midnight + 6 * HOUR, midnight + 30 * HOUR, midnight + 51 * HOUR))
    assert ear.due == [f"the window opened at 2026-06-{day}T02:00:00+00:00" for day in (11, 12, 13)]


# Daylight saving


def test_where_the_hour_is_left_out_in_spring_the_night_is_held_once_and_later() -> None:
    plan = schedule(window="02:30-06:00", timezone="Europe/Berlin")
    nights = held(plan, every(MINUTE, berlin("2026-03-28T12:00"), berlin("2026-03-30T12:00")), berlin("2026-03-28T12:00"))
    assert nights == [berlin("2026-03-29T03:30"), berlin("2026-03-30T02:30")]


@pytest.mark.timeout(30)
def test_where_the_hour_comes_twice_in_autumn_the_night_is_held_the_first_time_only() -> None:
    plan = schedule(window="02:30-06:00", timezone="Europe/Berlin")
    nights = held(plan, every(MINUTE, berlin("2026-10-24T12:00"), berlin("2026-10-27T12:00")), berlin("2026-10-24T12:00"))
    assert nights == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC), berlin("2026-10-26T02:30"), berlin("2026-10-27T02:30")]


@pytest.mark.timeout(30)
def test_an_hour_that_comes_twice_has_an_end_also_for_one_who_starts_within_it() -> None:
    plan = schedule(window="02:30-06:00", timezone="Europe/Berlin")
    for now in every(MINUTE, datetime(2026, 10, 25, 0, tzinfo=UTC), datetime(2026, 10, 25, 3, tzinfo=UTC)):
        coming = plan.next(now)
        assert coming is not None
        assert coming > now
        assert coming in (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-28", 4), ("2026-03-29", 3), ("2026-03-30", 4), ("2026-10-24", 4), ("2026-10-25", 4)]
)
def test_the_window_closes_by_the_clock_on_the_wall(day: str, hours: int) -> None:
    plan = schedule(window="02:00-06:00", timezone="Europe/Berlin")
    opening = plan.next(berlin(f"{day}T00:00"))
    assert opening is not None
    closing = plan.closes(opening)
    assert closing == berlin(f"{day}T06:00")
    # In autumn the second two o'clock lies in the window as well.
    assert closing - opening == hours * HOUR + (HOUR if day == "2026-10-25" else timedelta(0))


def test_a_window_over_midnight_closes_on_the_next_day() -> None:
    plan = schedule(window="22:00-06:00", timezone="Europe/Berlin")
    for day, hours in (("2026-06-10", 8), ("2026-03-28", 7), ("2026-10-24", 9)):
        opening = plan.next(berlin(f"{day}T12:00"))
        assert opening == berlin(f"{day}T22:00")
        closing = plan.closes(opening)
        assert closing == berlin(f"{(date.fromisoformat(day) + DAY).isoformat()}T06:00")
        assert closing - opening == hours * HOUR


def test_a_window_that_lies_in_the_left_out_hour_is_as_long_as_ever() -> None:
    plan = schedule(window="02:30-03:00", timezone="Europe/Berlin")
    opening = plan.next(berlin("2026-03-29T00:00"))
    assert opening == berlin("2026-03-29T03:30")
    assert plan.closes(opening) == berlin("2026-03-29T04:00")


def test_an_opening_that_a_left_out_hour_moved_over_midnight_closes_on_the_day_it_is_then() -> None:
    nuuk = ZoneInfo("America/Nuuk")  # at 23:00 on Saturday the clocks are set to midnight
    plan = schedule(window="23:30-05:00", timezone="America/Nuuk")
    opening = plan.next(datetime(2026, 3, 28, 12, tzinfo=UTC))
    assert opening == datetime(2026, 3, 29, 0, 30, tzinfo=nuuk)
    assert plan.closes(opening) == datetime(2026, 3, 29, 5, tzinfo=nuuk)


def dates(zone: ZoneInfo, year: int) -> list[date]:
    """The days that there were in a year; sampling every hour misses none."""
    hours = every(HOUR, datetime(year, 1, 1, tzinfo=UTC) - 2 * DAY, datetime(year + 1, 1, 1, tzinfo=UTC) + 2 * DAY)
    return sorted({day for hour in hours if (day := hour.astimezone(zone).date()).year == year})


@pytest.mark.parametrize(
    ("zone", "window", "year"),
    [
        ("UTC", "02:00-06:00", 2026),
        ("Europe/Berlin", "02:30-06:00", 2026),
        ("Europe/Berlin", "22:00-02:30", 2026),
        ("America/New_York", "02:00-02:30", 2026),
        ("Africa/Cairo", "00:15-05:00", 2026),  # the hour after midnight is left out
        ("America/Nuuk", "23:30-05:00", 2026),  # the hour before midnight is left out
        ("America/Sao_Paulo", "00:00-06:00", 2018),
        ("Australia/Lord_Howe", "01:45-02:15", 2026),  # half an hour
        ("Antarctica/Troll", "02:00-06:00", 2026),  # two hours
        ("Pacific/Chatham", "02:50-06:00", 2026),
        ("Pacific/Apia", "02:00-06:00", 2011),  # 30 December was left out
        ("Asia/Kathmandu", "23:59-00:01", 2026),
    ],
)
def test_every_local_day_of_a_year_has_exactly_one_night(zone: str, window: str, year: int) -> None:
    plan, where = schedule(window, zone), ZoneInfo(zone)
    begin = time.fromisoformat(window[:5])
    start = datetime(year, 1, 1, tzinfo=where).astimezone(UTC) - MINUTE
    end = datetime(year + 1, 1, 1, tzinfo=where).astimezone(UTC)
    nights = [night for night in held(plan, every(7 * MINUTE, start, end + 2 * HOUR), start) if night < end]
    of_day = []
    for opening in nights:
        wall = opening.astimezone(where).replace(tzinfo=None)
        late = (wall - datetime.combine(wall.date(), begin)) % DAY
        day = (wall - late).date()
        of_day.append(day)
        meant = datetime.combine(day, begin, where)
        exists = meant.astimezone(UTC).astimezone(where).replace(tzinfo=None) == meant.replace(tzinfo=None)
        assert (late == timedelta(0)) == exists, f"{wall} is late though there was {meant}"
        assert late <= 2 * HOUR
        closing = plan.closes(opening)
        assert closing is not None
        assert timedelta(0) < closing - opening < 16 * HOUR
    assert of_day == dates(where, year)
