"""The daemon's log: events with fields, as lines of JSON in a rotated file, and for people on a console.

    log = configure(home.logs, config.log, sys.stderr)
    bind_config(config.hash)
    with within(night=night.id):
        log.info(Event.NIGHT_STEP, step="examine")

Logging never raises and never stops the daemon: values of any kind are rendered, and lines that cannot
be written to the file are shown on the console, or on standard error, until they can be again.
"""

from __future__ import annotations

import json
import keyword
import logging
import os
import re
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, suppress
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from datetime import UTC, date, datetime
from enum import Enum
from math import isfinite
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field

from daemon.events import Event
from daemon.logfile import LEVELS, NAME, RotatingFile, render, timestamp

if TYPE_CHECKING:
    from structlog.typing import Processor

REDACTED = "[redacted]"
LONGEST = 2_000
"""Characters of one value. A traceback may have four times as many, and keeps its end, which says most."""

_Line = MutableMapping[str, Any]
_FIRST = ("at", "level", "event", "config")
_IDS = ("night", "task", "trajectory")
# Whole words, so that `tokens`, which we count, and `dispatch` are shown.
_SECRET = re.compile(r"(^|_)(api_?keys?|token|passwords?|passwd|authorization|cookie|patch|secrets?|credentials?)(_|$)")
_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^A-Za-z0-9]+")


class LogConfig(BaseModel):
    """How much is logged, and how much of it is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is written."""
    max_bytes: int = Field(default=20_000_000, ge=4_096)
    """Size at which a file is put aside and a new one begun."""
    backups: int = Field(default=10, ge=1, le=1_000)
    """Files that are kept besides the one being written."""


class Logger:
    """Writes events to wherever `configure` said; nowhere before that. Usable from every thread.

    A field whose name is a Python keyword is given with an underscore at its end: `from_="day"`. An
    exception given as `error=` is told as text and traceback, and so is the current one with `exc_info=True`.
    """

    def __init__(self, bound: Mapping[str, object]) -> None:
        self._bound = bound

    def bind(self, **fields: object) -> Logger:
        """A logger that adds these fields to each of its lines."""
        return Logger({**self._bound, **fields})

    def debug(self, event: Event, /, **fields: object) -> None:
        """Something of interest only when looking for a mistake."""
        self._log("debug", event, fields)

    def info(self, event: Event, /, **fields: object) -> None:
        """Something that belongs to life as it should be."""
        self._log("info", event, fields)

    def warning(self, event: Event, /, **fields: object) -> None:
        """Something the owner may have to look at."""
        self._log("warning", event, fields)

    def error(self, event: Event, /, **fields: object) -> None:
        """Something that failed."""
        self._log("error", event, fields)

    def _log(self, level: str, event: Event, fields: Mapping[str, object]) -> None:
        logs = _active
        if logs is not None:
            logs.log(level, event, {**self._bound, **fields})


def get_logger(**fields: object) -> Logger:
    """A logger, with fields for each of its lines; it may be had before `configure`, and outlives it."""
    return Logger(fields)


def within(*, night: str | None = None, task: str | None = None, trajectory: str | None = None) -> AbstractContextManager[None]:
    """A block in which every line of this thread carries the ids given. Blocks may be nested.

    A new thread starts without them; give it a block of its own.
    """
    from structlog.contextvars import bound_contextvars

    ids = {"night": night, "task": task, "trajectory": trajectory}
    return bound_contextvars(**{name: value for name, value in ids.items() if value is not None})


def configure(
    folder: Path | None,
    config: LogConfig,
    console: TextIO | None,
    config_hash: str = "",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Logger:
    """Send what is logged, and what libraries warn of, to `folder` and to `console`, either of which may be missing.

    Replaces what was configured before. A file that cannot be written is no error: it is said once on the
    console (without one, on standard error), lines are shown there and go on being tried, and the first
    one that gets through is preceded by the event `logs.gap`, which says how many the file lacks.
    """
    global _active
    shutdown()
    _active = _Logs(folder, config, console, config_hash, now)
    logging.getLogger().addHandler(_active.library)
    return get_logger()


def bind_config(config_hash: str) -> None:
    """From now on each line carries this hash, that of the configuration in force."""
    if _active is not None:
        _active.config_hash = config_hash


def reconfigure(config: LogConfig) -> None:
    """Take over changed settings between two lines; the folder and the console stay."""
    if _active is not None:
        _active.use(config)


def shutdown() -> None:
    """Write no more, and stop listening to libraries; loggers are quiet until `configure` is called again."""
    global _active
    logs, _active = _active, None
    if logs is not None:
        logging.getLogger().removeHandler(logs.library)
        logs.close()


class _Logs:
    """Where lines go, from `configure` to `shutdown`."""

    def __init__(
        self, folder: Path | None, config: LogConfig, console: TextIO | None, config_hash: str, now: Callable[[], datetime]
    ) -> None:
        self.library = _Library(self)
        self.config_hash = config_hash
        self._now = now
        self._console = console
        self._colour = console is not None and console.isatty() and not os.environ.get("NO_COLOR")
        self._file = RotatingFile(folder / NAME, config.max_bytes, config.backups) if folder is not None else None
        self._unwritten = 0
        self._why = ""
        # A finaliser or a signal handler may log while this very thread is writing a line: it gets the lock, and its
        # line waits in the queue.
        self._lock = threading.RLock()
        self._queue: deque[dict[str, Any]] = deque()
        self._writing = False
        self.use(config)

    def use(self, config: LogConfig) -> None:
        """Take over these settings."""
        # Here, not above: structlog takes a tenth of a second, and every command line loads `LogConfig`.
        import structlog

        chain: list[Processor] = [_unpacked, structlog.contextvars.merge_contextvars, self._headed, _explained, _finished]
        sink = SimpleNamespace(**dict.fromkeys(LEVELS, self._write))
        filtering = structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[config.level.upper()])
        with self._lock:
            self._structlog = structlog.wrap_logger(sink, processors=chain, wrapper_class=filtering).bind()
            if self._file is not None:
                self._file.max_bytes, self._file.backups = config.max_bytes, config.backups

    def log(self, level: str, event: Event, fields: Mapping[str, object]) -> None:
        """Write one line, if its level is wanted."""
        getattr(self._structlog, level)(event, fields=fields)

    def close(self) -> None:
        """Close the file. A thread that is just about to write a line opens it once more."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _headed(self, logger: object, level: str, line: _Line) -> dict[str, Any]:
        head = {"at": timestamp(self._now()), "level": level, "event": str(line["event"]), "config": self.config_hash}
        head |= {name: line[name] for name in _IDS if name in line}
        return head | {name: value for name, value in line.items() if name not in head}

    def _write(self, record: dict[str, Any]) -> None:
        with self._lock:
            self._queue.append(record)
            if self._writing:
                return
            self._writing = True
            try:
                while self._queue:
                    self._put(self._queue.popleft())
            finally:
                self._writing = False

    def _put(self, record: dict[str, Any]) -> None:
        written = self._file is None or self._keep(self._file, record)
        if self._console is not None:
            _show(self._console, render(record, self._colour))
        elif not written and sys.stderr is not None:
            _show(sys.stderr, render(record))

    def _keep(self, file: RotatingFile, record: dict[str, Any]) -> bool:
        lines = [record]
        if self._unwritten:
            gap = {"event": Event.LOGS_GAP, "level": "warning", "lines": self._unwritten, "error": self._why}
            lines.insert(0, {name: record[name] for name in _FIRST} | gap)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        try:
            file.write(text.encode("utf-8", "backslashreplace"))
        except OSError as error:
            self._why = str(error)
            self._unwritten += 1
            if self._unwritten == 1 and (stream := self._console or sys.stderr) is not None:
                _show(stream, f"the log {file.path} cannot be written ({error}); make room, or let this user write there")
            return False
        self._unwritten = 0
        return True


_active: _Logs | None = None


class _Library(logging.Handler):
    """Takes what libraries say through Python's `logging`, from warnings upwards."""

    def __init__(self, logs: _Logs) -> None:
        super().__init__(logging.WARNING)
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  (a library's format string that does not fit its arguments)
            message = str(record.msg)
        level = "error" if record.levelno >= logging.ERROR else "warning"
        fields = {"logger": record.name, "message": message, "exc_info": record.exc_info}
        self._logs.log(level, Event.LIBRARY_MESSAGE, fields)


def redact(fields: Mapping[str, object]) -> dict[str, Any]:
    """What may be shown of `fields`: plain JSON values, each of bounded length, and nothing secret.

    What lies under a name that looks like a secret (`hf_token`, `testPatch`, `X-Api-Key`), at any depth,
    becomes "[redacted]". A secret inside another text is not recognised. Never raises.
    """
    shown: dict[str, Any] = {}
    for name, value in fields.items():
        key = _Room(LONGEST).text(str(name))
        try:
            shown[key] = REDACTED if _looks_secret(key) else _Room(LONGEST).plain(value)
        except Exception as error:  # noqa: BLE001  (any code may run here: __repr__, __iter__, a dict changed by a thread)
            shown[key] = f"[cannot be shown: {type(error).__name__}]"
    return shown


class _Room:
    """Renders one value, its parts included, within a number of characters."""

    def __init__(self, left: int) -> None:
        self.left = left

    def text(self, text: str) -> str:
        """`text` as UTF-8 can hold it, cut to the room that is left."""
        kept = text[: max(0, self.left) + 1].encode("utf-8", "backslashreplace").decode()
        if len(kept) > self.left:
            mark = f"... [{len(text)} characters]"
            kept = kept[: max(0, self.left - len(mark))] + mark
        self.left -= len(kept)
        return kept

    def plain(self, value: object, depth: int = 0) -> Any:
        """`value` as JSON has it."""
        if depth:
            self.left -= 4  # quotes, brackets and commas
        if isinstance(value, str):
            return self.text(str.__str__(value))
        if isinstance(value, Enum):
            return self.plain(value.value, depth)
        if isinstance(value, float) and not isfinite(value):
            return self.text(str(float(value)))  # JSON has no such numbers
        if isinstance(value, int) and abs(value) >= 2**63:
            return self.text(hex(value))  # str() refuses long ones
        if value is None or isinstance(value, bool | int | float):
            self.left -= len(str(value))
            return value if value is None or isinstance(value, bool) else value.real
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, PurePath):
            return self.text(str(value))
        if isinstance(value, BaseException):
            return self.text(_one_line(value))
        if isinstance(value, bytes | bytearray):
            return self.text(repr(bytes(value[: max(0, self.left) + 1])))
        if _looks_secret(type(value).__name__):
            return REDACTED
        return self._parts(value, depth)

    def _parts(self, value: object, depth: int) -> Any:
        if isinstance(value, BaseModel) and type(value).__repr__ is BaseModel.__repr__:
            value = {str(name): part for name, part in value.__repr_args__()}  # its repr would show what names hide here
        elif is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclass_fields(value) if field.repr}
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return self.text(repr(value))
        if depth == 8:
            return f"[{type(value).__name__} of {len(value)}]"
        names = isinstance(value, Mapping)
        shown: dict[str, Any] = {}
        for number, part in enumerate(value):
            if self.left <= 0:
                shown["..."] = f"[{len(value) - number} more]"
                break
            if isinstance(value, Mapping):
                name = self.text(str(part))
                shown[name] = REDACTED if _looks_secret(str(part)) else self.plain(value[part], depth + 1)
            else:
                shown[str(number)] = self.plain(part, depth + 1)
        return shown if names else list(shown.values())


def _looks_secret(name: str) -> bool:
    return _SECRET.search(_WORD_ENDS.sub("_", name[:LONGEST]).lower()) is not None


def _unpacked(logger: object, level: str, line: _Line) -> _Line:
    """The fields themselves, none of which can take the place of what every line has."""
    for name, value in line.pop("fields").items():
        if name.endswith("_") and keyword.iskeyword(name[:-1]):
            name = name[:-1]
        line[f"{name}_" if name in _FIRST else name] = value
    return line


def _explained(logger: object, level: str, line: _Line) -> _Line:
    """An exception becomes `error` and `traceback`."""
    given = line.pop("exc_info", None)
    error = line.get("error")
    for found in (error, given, given[1] if isinstance(given, tuple) else sys.exc_info()[1] if given else None):
        if isinstance(found, BaseException):
            line["error"] = _one_line(found) if error is None or error is found else error
            line["traceback"] = _trace(found)
            break
    return line


def _finished(logger: object, level: str, line: _Line) -> tuple[Any, ...]:
    trace = line.pop("traceback", None)
    record = redact(line)
    if trace is not None:
        record["traceback"] = trace
    return (record,), {}


def _one_line(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (its __str__ is anybody's code)
        return f"{type(error).__name__}: [cannot be shown]"


def _trace(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as failed:  # noqa: BLE001  (as above)
        text = f"[cannot be shown: {type(failed).__name__}]"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 4 * LONGEST else "..." + text[-4 * LONGEST + 3 :]


def _show(stream: TextIO, text: str) -> None:
    # A console that is closed, broken or full is no reason to stop, and there is nowhere left to say so.
    with suppress(OSError, ValueError):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
