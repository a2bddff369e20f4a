"""The daemon's log: one JSON object per line, in `sleepyd.jsonl` and, before that, in numbered files.

`RotatingFile` writes it; `read` and `follow` are behind `sleepyctl logs`. A full file is renamed once, to
`sleepyd.000001.jsonl` and upwards, and keeps that name: `cat sleepyd*.jsonl` is the whole log in order, and
a reader cannot lose its place (with the usual `.1`, `.2`, where every file is renamed each time, it can).
Only the standard library is imported, because the command line must start fast.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from daemon.errors import DaemonError, FilterError
from daemon.events import Event

NAME = "sleepyd.jsonl"
LEVELS = ("debug", "info", "warning", "error")

_CHUNK = 1 << 16
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "1;31"}


def timestamp(when: datetime) -> str:
    """UTC, ISO 8601, microseconds and Z: always of the same length, so that the order of the texts is that of the times."""
    return when.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


class RotatingFile:
    """Appends lines to the file `path`, which is made when it is first written to, for its owner alone.

    A line that would take it past `max_bytes` begins a new file, and of the full ones the last `backups`
    are kept. For one thread at a time.

    Why not `logging.handlers.RotatingFileHandler`: on a full disk it leaves half a line in the file and
    the rest in a buffer, a file that someone removed is never made again, and a rotation that fails
    costs the line. Here a line is one `write`, taken back if it did not fit.
    """

    def __init__(self, path: Path, max_bytes: int, backups: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.backups = backups
        self._fd = -1
        self._identity = (0, 0)
        self._torn = False

    def write(self, lines: bytes) -> None:
        """Append whole lines, all of them or none; they stay together in one file. Raises `OSError`."""
        size = self._opened()
        if size and size + len(lines) > self.max_bytes and self._rotate():
            size = self._opened()
        # What a power cut or a disk that gave up left of a line must not swallow the next one.
        data = b"\n" + lines if self._torn else lines
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:])
        except OSError:
            if done:
                self._take_back(size)
            raise
        self._torn = False

    def close(self) -> None:
        """Close the file; writing opens it again."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _opened(self) -> int:
        """Make sure that the file at `path` is the one that is open; returns its size."""
        if self._fd >= 0:
            with suppress(FileNotFoundError):
                found = self.path.stat()
                if _identity(found) == self._identity:
                    return found.st_size
            self.close()  # somebody moved or removed it
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        found = os.fstat(self._fd)
        self._identity = _identity(found)
        self._torn = found.st_size > 0 and os.pread(self._fd, 1, found.st_size - 1) != b"\n"
        return found.st_size

    def _rotate(self) -> bool:
        """Make room for a new file. If that fails the old one grows on: too long a file is better than a lost line."""
        numbers = _full_files(self.path)
        try:
            self.path.rename(_full_file(self.path, max(numbers, default=0) + 1))
        except OSError:
            return False
        for number in numbers[: max(0, len(numbers) + 1 - self.backups)]:
            with suppress(OSError):  # there is another chance next time
                _full_file(self.path, number).unlink()
        return True

    def _take_back(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except OSError:
            self._torn = True


@dataclass(frozen=True)
class Filter:
    """Which records are wanted: all that is given must hold.

    `events` are patterns as in a shell (`night.*`), one of which must match; none means any event.
    `level` is the lowest one shown; `since` is the earliest time, inclusive (local, if it has no zone).

    Raises:
        FilterError: for a level that does not exist, or a pattern that no event matches.
    """

    events: Sequence[str] = ()
    level: str = "debug"
    since: datetime | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise FilterError(f"there is no log level {self.level!r}{_nearest(self.level, LEVELS)}")
        for pattern in self.events:
            if not any(fnmatchcase(event, pattern) for event in Event):
                groups = sorted({f"{event.partition('.')[0]}.*" for event in Event})
                raise FilterError(f"no event is named {pattern!r}{_nearest(pattern, groups, (*groups, *Event))}")

    def __call__(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is wanted."""
        level = record.get("level")
        if level in LEVELS and LEVELS.index(level) < LEVELS.index(self.level):
            return False
        if self.since is not None and str(record.get("at", "")) < timestamp(self.since):
            return False
        event = str(record.get("event", ""))
        return not self.events or any(fnmatchcase(event, pattern) for pattern in self.events)


def parse_since(text: str, now: datetime) -> datetime:
    """A time as a person gives it: `90s`, `15m`, `2h`, `3d` or `1w` before `now`, or ISO 8601 (local, if it has no zone).

    Raises:
        FilterError: showing what would be understood.
    """
    relative = re.fullmatch(r"(\d{1,6})([smhdw])", text.strip())
    try:
        if relative:
            return now - timedelta(**{_UNITS[relative[2]]: int(relative[1])})
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise FilterError(f"{text!r} is no time; give one like 15m, 2h, 3d, 2026-03-01 or 2026-03-01T08:00") from error


def read(
    folder: Path, wanted: Filter, last: int | None = None, on_skipped: Callable[[bytes], None] = lambda line: None
) -> Iterator[dict[str, Any]]:
    """The records in the log of `folder`, backups included, in the order in which they were written.

    `last` asks for that many of the newest. `on_skipped` is called for each line passed that is no JSON object.

    Raises:
        DaemonError: a file may not be read.
    """
    sources = _sources(folder, ())
    try:
        yield from _stored(sources, wanted, last, on_skipped)
    finally:
        for source in sources:
            source.close()


def follow(
    folder: Path,
    wanted: Filter,
    stop: Callable[[], bool],
    poll_seconds: float = 0.25,
    last: int | None = 0,
    on_skipped: Callable[[bytes], None] = lambda line: None,
) -> Iterator[dict[str, Any]]:
    """The records that come from now on, after the `last` ones that are there (`None`: all), until `stop()`.

    Nothing is missed or told twice when files are rotated, however often between two looks, unless they are
    removed meanwhile. A file that was emptied is read from its beginning. What was written before `stop()`
    became true is still told.

    Raises:
        DaemonError: a file may not be read.
    """
    sources = _sources(folder, ())
    try:
        yield from _stored(sources, wanted, last, on_skipped)
        for source in sources[1:]:
            source.skip()
        while True:
            stopping = stop()
            present = _sources(folder, sources)
            sources = [*present, *(source for source in sources if source not in present)]
            # Every source knows how far it was told: one that has nothing new adds nothing here, and one that
            # was rotated out of existence since the last look is still told to its end.
            for source in reversed(sources):
                yield from _matching(source.lines(), wanted, on_skipped)
            while len(sources) > len(present):
                sources.pop().close()
            if stopping:
                return
            time.sleep(poll_seconds)
    finally:
        for source in sources:
            source.close()


def render(record: Mapping[str, Any], colour: bool = False) -> str:
    """A record for people: one line, and a traceback, if there is one, indented below it.

    Nothing in a record can move the cursor or start a line: what is not printable is escaped.
    """
    fields = dict(record)
    at, level, event = (_escaped(str(fields.pop(name, "?"))) for name in ("at", "level", "event"))
    fields.pop("config", None)
    trace = fields.pop("traceback", None)
    pairs = " ".join(f"{_escaped(str(name))}={_shown(value)}" for name, value in fields.items())
    label = f"{level:<7}"
    if colour and level in _COLOURS:
        label = f"\x1b[{_COLOURS[level]}m{label}\x1b[0m"
    line = f"{at.replace('T', ' ')}  {label}  {event:<20}  {pairs}".rstrip()
    below = [_escaped(text) for text in str(trace).rstrip("\n").split("\n")] if trace else []
    return "\n    ".join([line, *below])


class _Source:
    """One open file of the log, and how far it has been told. Open, it keeps its inode from being used again."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY)
        self.identity = _identity(os.fstat(self._fd))
        self._told = 0

    def lines(self) -> Iterator[bytes]:
        """Lines not told yet; one that is still without its end is left for the next time."""
        if os.fstat(self._fd).st_size < self._told:
            self._told = 0
        rest = b""
        while chunk := os.pread(self._fd, _CHUNK, self._told + len(rest)):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                self._told += len(line) + 1
                yield line

    def skip(self) -> None:
        """Take what is there as told."""
        for _ in self.lines():
            pass

    def close(self) -> None:
        os.close(self._fd)


def _sources(folder: Path, known: Sequence[_Source]) -> list[_Source]:
    """The files of the log, newest first, each opened once; those in `known` are taken over."""
    path = folder / NAME
    opened = {source.identity: source for source in known}

    def source(file: Path) -> list[_Source]:
        if not file.is_file():
            return []
        try:
            found = _Source(file)
        except FileNotFoundError:  # just now renamed or removed
            return []
        kept = opened.setdefault(found.identity, found)
        if kept is not found:
            found.close()
        return [kept]

    try:
        # This order leaves no gap if files are rotated meanwhile. What was full before the newest was opened is found;
        # what became full since is there with all numbers up to the highest seen, which one listing cannot promise.
        newest = source(path)
        highest = max(_full_files(path), default=0)
        full = [
            found for number in reversed(_full_files(path)) if number <= highest for found in source(_full_file(path, number))
        ]
    except OSError as error:
        for left in opened.values():
            if left not in known:
                left.close()
        raise DaemonError(f"the log cannot be read ({error}); run this as the user that runs the daemon") from error
    return [found for found in newest if found not in full] + full


def _stored(
    sources: Sequence[_Source], wanted: Filter, last: int | None, on_skipped: Callable[[bytes], None]
) -> Iterator[dict[str, Any]]:
    if last is None:
        for source in reversed(sources):
            yield from _matching(source.lines(), wanted, on_skipped)
        return
    found: list[dict[str, Any]] = []
    for source in sources:
        newest_first = _matching(reversed(list(source.lines())), wanted, on_skipped)
        while len(found) < last and (record := next(newest_first, None)) is not None:
            found.append(record)
        if len(found) >= last:
            break
    yield from reversed(found)


def _matching(lines: Iterable[bytes], wanted: Filter, on_skipped: Callable[[bytes], None]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            on_skipped(line)
        elif wanted(record):
            yield record


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _full_file(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number:06}{path.suffix}")


def _full_files(path: Path) -> list[int]:
    """Numbers of the full files, oldest first."""
    pattern = re.compile(rf"{re.escape(path.stem)}\.([0-9]{{6,}}){re.escape(path.suffix)}")
    try:
        return sorted(int(found[1]) for name in path.parent.iterdir() if (found := pattern.fullmatch(name.name)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _nearest(name: str, valid: Sequence[str], among: Sequence[str] = ()) -> str:
    close = difflib.get_close_matches(name, among or valid, 1)
    return f"; did you mean {str(close[0])!r}?" if close else f"; valid are {', '.join(valid)}"


def _shown(value: object) -> str:
    if isinstance(value, str) and value and not re.search(r'[\s"=]', value):
        return _escaped(value)
    return _escaped(json.dumps(value, ensure_ascii=False, default=str))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
