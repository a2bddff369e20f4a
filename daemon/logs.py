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
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, TextIO

from pydantic import BaseModel, ConfigDict, Field

from daemon.events import Event
from daemon.logfile import LEVELS, NAME, RotatingFile, render, timestamp
from daemon.redact import LONGEST, one_line, redact

if TYPE_CHECKING:
    from structlog.typing import Processor

_Line = MutableMapping[str, Any]
_FIRST = ("at", "level", "event", "config")
_IDS = ("night", "task", "trajectory")


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
            line["error"] = one_line(found) if error is None or error is found else error
            line["traceback"] = _trace(found)
            break
    return line


def _finished(logger: object, level: str, line: _Line) -> tuple[Any, ...]:
    trace = line.pop("traceback", None)
    record = redact(line)
    if trace is not None:
        record["traceback"] = trace
    return (record,), {}


def _trace(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as failed:  # noqa: BLE001  (its __str__ is anybody's code)
        text = f"[cannot be shown: {type(failed).__name__}]"
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= 4 * LONGEST else "..." + text[-4 * LONGEST + 3 :]


def _show(stream: TextIO, text: str) -> None:
    # A console that is closed, broken or full is no reason to stop, and there is nowhere left to say so.
    with suppress(OSError, ValueError):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
