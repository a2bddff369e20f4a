"""The log: every line whole, bounded and without secrets, and the daemon unharmed whatever is logged or happens to the disk."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import structlog
from pydantic import BaseModel, Field, SecretStr, ValidationError

from daemon.errors import DaemonError
from daemon.events import TABLE, Event, table
from daemon.logfile import NAME, Filter, read
from daemon.logs import (
    LogConfig,
    Logger,
    bind_config,
    configure,
    get_logger,
    reconfigure,
    shutdown,
    within,
)
from daemon.redact import LONGEST, redact
from memory.tasks import MergedFix, TaskSecret

NOON = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
ROOT = Path(__file__).resolve().parents[2]
FULL = Path("/dev/full")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "logs"
    shutdown()


@pytest.fixture
def log(folder: Path) -> Logger:
    return configure(folder, LogConfig(), None, "c0ffee", now=lambda: NOON)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Every line of the log; one that is not a JSON object fails the test."""
    bad: list[bytes] = []
    found = list(read(folder, Filter(), on_skipped=bad.append))
    assert bad == []
    return found


def only(folder: Path) -> dict[str, Any]:
    (line,) = lines(folder)
    return line


# The table of events


def test_the_committed_table_is_the_generated_one() -> None:
    assert TABLE == ROOT / "docs" / "events.md"
    assert TABLE.read_text(encoding="utf-8") == table(), "run python -m daemon.events"


def test_the_command_writes_the_table(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "daemon.events", tmp_path / "events.md"], cwd=ROOT, check=True)
    assert (tmp_path / "events.md").read_text(encoding="utf-8") == table()


@pytest.mark.parametrize("event", list(Event))
def test_every_event_has_a_stable_kind_of_name_and_says_what_it_means(event: Event) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", event)
    assert re.fullmatch(r"[A-Z][^\n|]+\.", event.meaning)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in event.fields)
    assert not set(event.fields) & {"at", "level", "event", "config", "night", "task", "trajectory"}
    assert Event(str(event)) is event


# What a line holds


def test_a_line_has_time_level_event_and_configuration_and_then_its_fields(folder: Path, log: Logger) -> None:
    log.info(Event.CLOCK_JUMPED, seconds=3.5)
    assert (folder / NAME).read_text() == (
        '{"at": "2026-03-01T12:00:00.000005Z", "level": "info", "event": "clock.jumped", "config": "c0ffee", "seconds": 3.5}\n'
    )


def test_the_time_is_utc_and_has_microseconds_even_if_there_are_none(folder: Path) -> None:
    local = datetime.fromisoformat("2026-03-01T01:00:00+02:00")
    configure(folder, LogConfig(), None, now=lambda: local).info(Event.NIGHT_DUE)
    assert only(folder)["at"] == "2026-02-28T23:00:00.000000Z"


def test_without_a_clock_the_time_is_now(folder: Path) -> None:
    before = datetime.now(UTC)
    configure(folder, LogConfig(), None).info(Event.NIGHT_DUE)
    assert before <= datetime.fromisoformat(only(folder)["at"]) <= datetime.now(UTC)


def test_levels_below_the_configured_one_are_left_out(folder: Path) -> None:
    for level in ("debug", "info", "warning", "error"):
        log = configure(folder, LogConfig.model_validate({"level": level}), None)
        for each in (log.debug, log.info, log.warning, log.error):
            each(Event.NIGHT_DUE, why=level)
    kept = [(line["why"], line["level"]) for line in lines(folder)]
    order = ["debug", "info", "warning", "error"]
    assert kept == [(level, each) for level in order for each in order[order.index(level) :]]


def test_ids_are_bound_for_a_block_of_one_thread(folder: Path, log: Logger) -> None:
    with within(night="n1"):
        log.info(Event.NIGHT_STEP)
        with within(task="t1", trajectory="a1"):
            log.info(Event.TASK_STARTED)
            log.info(Event.TASK_ENDED, task="given")
            other = threading.Thread(target=log.info, args=(Event.WORKER_IDLE,))
            other.start()
            other.join()
        log.info(Event.NIGHT_STEP)
    log.info(Event.NIGHT_CLOSED)
    ids = [{name: line[name] for name in ("night", "task", "trajectory") if name in line} for line in lines(folder)]
    all_three = {"night": "n1", "task": "t1", "trajectory": "a1"}
    assert ids == [{"night": "n1"}, all_three, all_three | {"task": "given"}, {}, {"night": "n1"}, {}]


def test_bound_fields_are_in_every_line_of_that_logger_alone(folder: Path, log: Logger) -> None:
    bound = log.bind(repo="bank", step=1)
    bound.info(Event.TRAINING_PROGRESS, step=2)
    log.info(Event.TRAINING_PROGRESS)
    assert [(line.get("repo"), line.get("step")) for line in lines(folder)] == [("bank", 2), (None, None)]


def test_python_keywords_can_be_fields(folder: Path, log: Logger) -> None:
    log.info(Event.DAEMON_STATE, from_="awake", to="asleep", under_="kept")
    line = only(folder)
    assert (line["from"], line["to"], line["under_"]) == ("awake", "asleep", "kept")


def test_no_field_takes_the_place_of_what_every_line_has(folder: Path, log: Logger) -> None:
    names = ("at", "level", "event", "config", "fields", "self", "method_name", "logger", "line", "args")
    log.info(Event.NIGHT_DUE, **dict.fromkeys(names, "mine"))
    line = only(folder)
    assert (line["level"], line["event"], line["config"]) == ("info", "night.due", "c0ffee")
    assert [line[f"{name}_"] for name in names[:4]] == ["mine"] * 4
    assert [line[name] for name in names[4:]] == ["mine"] * 6


def test_nothing_that_others_bound_takes_it_either(folder: Path, log: Logger) -> None:
    with structlog.contextvars.bound_contextvars(level="theirs", at="theirs", repo="bank"):
        log.info(Event.NIGHT_DUE)
    line = only(folder)
    assert (line["level"], line["at"][:4], line["repo"]) == ("info", "2026", "bank")


def test_percent_signs_and_braces_are_no_formatting(folder: Path, log: Logger) -> None:
    log.info(Event.NIGHT_DUE, why="100 %s {0} %(x)d")
    assert only(folder)["why"] == "100 %s {0} %(x)d"


def test_an_unknown_event_is_written_all_the_same(folder: Path, log: Logger) -> None:
    """The type checker refuses it; a daemon that runs does not."""
    log.info("no.such.event")  # type: ignore[arg-type]
    assert only(folder)["event"] == "no.such.event"


# Exceptions


def test_an_exception_is_one_line_with_text_and_traceback(folder: Path, log: Logger) -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise DaemonError("two\nlines") from error
    except DaemonError as error:
        log.error(Event.DAEMON_ERROR, error=error, where="here")
        log.error(Event.DAEMON_ERROR, exc_info=error)
        log.error(Event.DAEMON_ERROR, exc_info=True)
        log.error(Event.DAEMON_ERROR, exc_info=sys.exc_info())
        log.error(Event.DAEMON_ERROR, error="my words", exc_info=True)
    assert len((folder / NAME).read_bytes().splitlines()) == 5
    found = lines(folder)
    assert [line["error"] for line in found] == ["DaemonError: two\nlines"] * 4 + ["my words"]
    for line in found:
        assert line["traceback"].startswith("Traceback (most recent call last):\n")
        assert "KeyError: 'first'" in line["traceback"]
        assert line["traceback"].endswith("daemon.errors.DaemonError: two\nlines\n")
        assert "exc_info" not in line


def test_without_an_exception_there_is_no_traceback(folder: Path, log: Logger) -> None:
    log.error(Event.DAEMON_ERROR, error="just words")
    log.error(Event.DAEMON_ERROR, exc_info=True)
    log.error(Event.DAEMON_ERROR, exc_info=None)
    assert [(line.get("error"), line.get("traceback")) for line in lines(folder)] == [
        ("just words", None),
        (None, None),
        (None, None),
    ]


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_an_exception_that_cannot_be_shown_is_logged_all_the_same(folder: Path, log: Logger) -> None:
    log.error(Event.DAEMON_ERROR, error=BrokenError())
    assert only(folder)["error"] == "BrokenError: [cannot be shown]"


def test_a_huge_traceback_keeps_its_end(folder: Path, log: Logger) -> None:
    log.error(Event.DAEMON_ERROR, error=ValueError("x" * 100_000 + "the end"))
    line = only(folder)
    assert len(line["error"]) == LONGEST
    assert len(line["traceback"]) == 4 * LONGEST
    assert line["traceback"].endswith("the end\n")


# Values of any kind


class Colour(Enum):
    RED = "red"


class Settings(BaseModel):
    model: str = "qwen"
    api_key: str = "sk-1"
    hidden: str = Field(default="h", repr=False)
    password_file: SecretStr = SecretStr("sk-2")
    seen: SecretStr = SecretStr("sk-3")


@dataclass
class Account:
    user: str = "me"
    hf_token: str = "sk-4"
    notes: str = field(default="sk-5", repr=False)


class Shown:
    def __repr__(self) -> str:
        return "<shown\nso>"


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Treacherous(Mapping[str, int]):
    """A mapping that another thread changes while it is read."""

    def __getitem__(self, name: str) -> int:
        return 1

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        yield "a"
        raise RuntimeError("dictionary changed size during iteration")


def cycle() -> list[object]:
    found: list[object] = [1]
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (-7, -7),
        (2**63, "0x8000000000000000"),
        (0.1, 0.1),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("a\nb\r\u2028\0ünï🦉", "a\nb\r\u2028\0ünï🦉"),
        ("half \ud83d character", "half \\ud83d character"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
        (b"\xff\n", "b'\\xff\\n'"),
        (NOON, "2026-03-01T12:00:00.000005+00:00"),
        (date(2026, 3, 1), "2026-03-01"),
        (PurePosixPath("/tmp/x"), "/tmp/x"),
        (Event.NIGHT_DUE, "night.due"),
        (Colour.RED, "red"),
        ((1, "two"), [1, "two"]),
        ({3}, [3]),
        ({1: {None: [NOON.date()]}}, {"1": {"None": ["2026-03-01"]}}),
        (cycle(), [1, [1, [1, [1, [1, [1, [1, [1, "[list of 2]"]]]]]]]]),
        (ValueError("bad"), "ValueError: bad"),
        (Shown(), "<shown\nso>"),
        (Unshowable(), "[cannot be shown: RuntimeError]"),
        (Treacherous(), "[cannot be shown: RuntimeError]"),
        (BrokenError(), "BrokenError: [cannot be shown]"),
        (Settings(), {"model": "qwen", "api_key": "[redacted]", "password_file": "[redacted]", "seen": "[redacted]"}),
        (Account(), {"user": "me", "hf_token": "[redacted]"}),
        (Account, repr(Account)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_shown_as_json_has_them(folder: Path, log: Logger, value: object, shown: object) -> None:
    log.info(Event.NIGHT_DUE, value=value, after="intact")
    line = only(folder)
    assert line["value"] == shown
    assert type(line["value"]) is type(shown)
    assert line["after"] == "intact"
    assert "NaN" not in (folder / NAME).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * 20_000_000,
        lambda: "\ud800" * 100_000,
        lambda: b"x" * 20_000_000,
        lambda: list(range(100_000)),
        lambda: {str(n): "y" * 50 for n in range(10_000)},
        lambda: {"k" * 1_000_000: 1},
        lambda: [["z" * 1_500] * 3, ["z" * 1_500] * 3],
        lambda: [[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]],
        lambda: [[]] * 100_000,
        lambda: [None, True] * 100_000,
        lambda: 10**100_000,
        lambda: [10**17] * 1_000,
        cycle,
        lambda: Path("p" * 1_000_000),
    ],
    ids="str surrogates bytes list dict key nested deep empties constants int ints cycle path".split(),
)
def test_no_value_takes_more_than_its_room(folder: Path, log: Logger, make: Callable[[], object]) -> None:
    log.info(Event.NIGHT_DUE, value=make(), after="intact")
    line = only(folder)
    assert len(json.dumps(line["value"], ensure_ascii=False).replace("\\\\", "\\")) <= LONGEST + 250
    assert line["after"] == "intact"


def test_a_value_that_just_fits_is_whole_and_one_that_does_not_says_how_long_it_was(folder: Path, log: Logger) -> None:
    log.info(Event.NIGHT_DUE, fits="x" * LONGEST, cut="y" * (LONGEST + 1))
    line = only(folder)
    assert line["fits"] == "x" * LONGEST
    assert line["cut"].endswith("yyy... [2001 characters]")
    assert len(line["cut"]) == LONGEST


def test_long_lists_say_how_much_is_missing() -> None:
    shown = redact({"numbers": list(range(1_000))})["numbers"]
    assert shown[:3] == [0, 1, 2]
    assert shown[-1] == f"[{1_000 - (len(shown) - 1)} more]"


# Secrets


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "apikey", "apiKey", "API_KEY", "APIKey", "X-Api-Key", "anthropic_api_key", "token", "hf_token", "HFToken"),
        *("password", "DB_PASSWORD", "authorization", "Authorization", "proxy-authorization", "patch", "test_patch"),
        *("testPatch", "model.patch", "secret", "client_secret", "AWS_SECRET_ACCESS_KEY", "TaskSecret"),
    ],
)
def test_what_lies_under_a_name_of_secrets_is_not_shown(folder: Path, log: Logger, name: str) -> None:
    secret = "hunter2"
    log.info(Event.NIGHT_DUE, **{name: secret})
    log.info(Event.NIGHT_DUE, headers={name: [secret]}, rows=[{"deep": ({name: {"x": secret}},)}])
    get_logger(**{name: secret}).info(Event.NIGHT_DUE)
    text = (folder / NAME).read_text()
    assert text.count("[redacted]") == 4
    assert secret not in text


@pytest.mark.parametrize("name", ["tokens", "prompt_tokens", "dispatch", "patches", "key", "keys", "secretary", "author"])
def test_names_that_only_resemble_secrets_are_shown(name: str) -> None:
    assert redact({name: 7}) == {name: 7}


def test_no_task_secret_reaches_the_log(folder: Path, log: Logger) -> None:
    fix = MergedFix(task_id="t", symbol="s", path="p", before="hidden-before", after="hidden-after")
    secret = TaskSecret(
        task_id="t", kind="k", fix=fix, tests={"t.py": "hidden-test"}, fail_to_pass=("hidden-id",), pass_to_pass=()
    )
    log.info(Event.NIGHT_DUE, why=secret, more=[{"x": secret}], text=f"{secret}")
    log.error(Event.NIGHT_FAILED, error=ValueError(secret))
    assert len(lines(folder)) == 2
    assert "hidden" not in (folder / NAME).read_text()


# Changing the configuration


def test_a_reload_changes_hash_level_and_size_for_loggers_that_are_there(folder: Path, log: Logger) -> None:
    log.debug(Event.NIGHT_DUE, why="no")
    bind_config("decaf")
    reconfigure(LogConfig(level="debug", max_bytes=4096, backups=1))
    for _ in range(100):
        log.debug(Event.NIGHT_DUE, why="x" * 100)
    assert {line["config"] for line in lines(folder)} == {"decaf"}
    assert [path.stat().st_size <= 4096 for path in folder.iterdir()] == [True, True]


def test_loggers_are_quiet_before_and_after(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = get_logger()
    log.error(Event.NIGHT_DUE)
    bind_config("unheard")
    reconfigure(LogConfig())
    shutdown()
    configure(folder, LogConfig(), None)
    log.error(Event.NIGHT_DUE, why="heard")
    shutdown()
    shutdown()
    log.error(Event.NIGHT_DUE)
    assert only(folder)["why"] == "heard"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("bad", [{"level": "warn"}, {"max_bytes": 1}, {"backups": 0}, {"levels": "info"}])
def test_a_configuration_that_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LogConfig.model_validate(bad)


# Libraries


def test_libraries_are_heard_from_warnings_upwards(folder: Path, log: Logger) -> None:
    library = logging.getLogger("apscheduler.executors.test")
    library.setLevel(logging.DEBUG)
    library.info("not this")
    library.warning("late by %d s", 3)
    library.critical("no format %s")
    try:
        raise OSError("gone")
    except OSError:
        library.exception("job failed")
    found = lines(folder)
    assert {line["event"] for line in found} == {"library.message"}
    assert {line["logger"] for line in found} == {"apscheduler.executors.test"}
    said = [(line["level"], line["message"]) for line in found]
    assert said == [("warning", "late by 3 s"), ("error", "no format %s"), ("error", "job failed")]
    assert found[-1]["error"] == "OSError: gone"
    assert "Traceback" in found[-1]["traceback"]


def test_a_library_whose_message_does_not_fit_its_arguments_is_heard(folder: Path, log: Logger) -> None:
    # Not through the root logger: pytest has a handler there that raises.
    ours = [handler for handler in logging.getLogger().handlers if type(handler).__module__ == "daemon.logs"]
    library = logging.Logger("strange")
    library.addHandler(*ours)
    library.warning("two %s", "many", "arguments")
    assert only(folder)["message"] == "two %s"


def test_libraries_are_heard_once_and_no_longer_after_the_end(folder: Path) -> None:
    before = list(logging.getLogger().handlers)
    for _ in range(3):
        configure(folder, LogConfig(), None)
    logging.getLogger("watchdog").warning("once")
    shutdown()
    assert only(folder)["message"] == "once"
    assert logging.getLogger().handlers == before


# The console


def test_the_console_gets_lines_for_people(folder: Path) -> None:
    console = io.StringIO()
    configure(folder, LogConfig(), console, "c0ffee", now=lambda: NOON).warning(Event.DISK_LOW, free_mb=3, floor_mb=10)
    assert console.getvalue() == "2026-03-01 12:00:00.000005Z  warning  disk.low              free_mb=3 floor_mb=10\n"
    assert only(folder)["free_mb"] == 3


def test_a_console_alone_is_enough(folder: Path) -> None:
    console = io.StringIO()
    configure(None, LogConfig(), console).info(Event.NIGHT_DUE)
    assert "night.due" in console.getvalue()
    assert not folder.exists()


def on_terminal(act: Callable[[Any], object]) -> str:
    """What appears on a real terminal that `act` is given."""
    main, side = os.openpty()
    try:
        with os.fdopen(side, "w", encoding="utf-8") as terminal:
            act(terminal)
            return os.read(main, 65_536).decode()
    finally:
        os.close(main)


def test_colours_only_on_a_terminal_and_not_where_they_are_unwelcome(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def speak(console: Any) -> None:
        configure(None, LogConfig(), console).error(Event.NIGHT_FAILED)

    monkeypatch.delenv("NO_COLOR", raising=False)
    console = io.StringIO()
    speak(console)
    assert "\x1b" not in console.getvalue()
    assert "\x1b[1;31merror" in on_terminal(speak)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in on_terminal(speak)


def test_a_console_of_few_letters_shows_the_others_escaped(folder: Path) -> None:
    raw = io.BytesIO()
    log = configure(None, LogConfig(), io.TextIOWrapper(raw, encoding="ascii"))
    log.info(Event.NIGHT_DUE, why="ünï")
    assert b"why=\\xfcn\\xef" in raw.getvalue()


def test_a_console_that_is_gone_does_no_harm(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    broken = os.fdopen(writer, "w")
    log = configure(folder, LogConfig(), broken)
    log.info(Event.NIGHT_DUE, number=1)
    with pytest.raises(BrokenPipeError):
        broken.close()  # it was broken indeed
    log.info(Event.NIGHT_DUE, number=2)
    assert [line["number"] for line in lines(folder)] == [1, 2]


def test_a_line_logged_while_a_line_is_written_comes_after_it(folder: Path) -> None:
    """As a finaliser or a signal handler may: the same thread, in the middle of a line."""

    class Chatty(io.StringIO):
        def write(self, text: str) -> int:
            if "outer" in text:
                logger.info(Event.NIGHT_DUE, why="inner")
            return super().write(text)

    console = Chatty()
    logger = configure(folder, LogConfig(), console)
    logger.info(Event.NIGHT_DUE, why="outer")
    logger.info(Event.NIGHT_DUE, why="next")
    assert [line["why"] for line in lines(folder)] == ["outer", "inner", "next"]
    assert re.findall("outer|inner|next", console.getvalue()) == ["outer", "inner", "next"]


# Disks and threads


def test_rotation_under_many_threads_loses_and_tears_nothing(folder: Path) -> None:
    log = configure(folder, LogConfig(max_bytes=4096, backups=1000), None)
    together = threading.Barrier(8)

    def write(writer: int) -> None:
        together.wait()
        for number in range(400):
            log.info(Event.TRAINING_PROGRESS, writer=writer, number=number, text="x" * (number % 97))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines(folder)
    assert len(found) == 8 * 400
    for writer in range(8):
        assert [line["number"] for line in found if line["writer"] == writer] == list(range(400))
    sizes = [path.stat().st_size for path in folder.iterdir()]
    assert len(sizes) > 50
    assert max(sizes) <= 4096


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_once_and_what_was_lost_is_counted(folder: Path) -> None:
    folder.mkdir()
    (folder / NAME).symlink_to(FULL)
    console = io.StringIO()
    log = configure(folder, LogConfig(), console, "c0ffee", now=lambda: NOON)
    for number in range(3):
        log.info(Event.NIGHT_DUE, number=number)
    said = console.getvalue()
    assert said.count("cannot be written") == 1
    assert "No space left on device" in said
    assert [f"number={number}" in said for number in range(3)] == [True] * 3
    (folder / NAME).unlink()
    log.info(Event.NIGHT_DUE, number=3)
    log.info(Event.NIGHT_DUE, number=4)
    gap, *rest = lines(folder)
    assert gap == {
        "at": "2026-03-01T12:00:00.000005Z",
        "level": "warning",
        "event": "logs.gap",
        "config": "c0ffee",
        "lines": 3,
        "error": "[Errno 28] No space left on device",
    }
    assert [line["number"] for line in rest] == [3, 4]
    (folder / NAME).unlink()
    (folder / NAME).symlink_to(FULL)
    log.info(Event.NIGHT_DUE, number=5)
    assert console.getvalue().count("cannot be written") == 2, "a second time is told again"


def test_a_disk_that_fills_in_the_middle_of_a_line_leaves_no_half_of_it(tmp_path: Path) -> None:
    """The kernel cuts the write short, as a disk does that has some bytes left; then there is room again."""
    code = """
import resource, sys
from pathlib import Path
from daemon.events import Event
from daemon.logs import LogConfig, configure
log = configure(Path(sys.argv[1]), LogConfig(), None)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
for number in range(20):
    log.info(Event.NIGHT_STEP, number=number)
print(Path(sys.argv[1], "sleepyd.jsonl").read_bytes()[-2:])
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for number in range(20, 23):
    log.info(Event.NIGHT_STEP, number=number)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "b'}\\n'\n"
    found = lines(tmp_path)
    written = next(place for place, line in enumerate(found) if line["event"] == "logs.gap")
    assert 5 < written < 20
    assert [line.get("number") for line in found] == [*range(written), None, 20, 21, 22]
    assert found[written]["lines"] == 20 - written
    notice, *shown = done.stderr.splitlines()
    assert "File too large" in notice
    assert [re.findall(r"number=(\d+)", line) for line in shown] == [[str(number)] for number in range(written, 20)]


def test_a_folder_that_cannot_be_written_to_does_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    try:
        log = configure(tmp_path / "file" / "logs", LogConfig(), None)
        log.info(Event.NIGHT_DUE, why="first")
        log.info(Event.NIGHT_DUE, why="second")
        notice, *shown = capsys.readouterr().err.splitlines()
        assert str(tmp_path / "file" / "logs" / NAME) in notice
        assert "make room, or let this user write there" in notice
        assert [line.rpartition("=")[2] for line in shown] == ["first", "second"]
        (tmp_path / "file").unlink()
        log.info(Event.NIGHT_DUE, why="third")
        assert [line["event"] for line in lines(tmp_path / "file" / "logs")] == ["logs.gap", "night.due"]
        assert capsys.readouterr().err == ""
    finally:
        shutdown()


def test_without_a_file_and_without_streams_nothing_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "stderr", None)  # as for a process started without one
    try:
        configure(tmp_path / "file" / "logs", LogConfig(), None).error(Event.NIGHT_DUE)
    finally:
        shutdown()


def test_a_strange_folder_in_the_error_does_not_break_the_line_after_it(tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"caf\xe9")
    strange.touch()
    console = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        logger = configure(strange / "logs", LogConfig(), console)
        logger.info(Event.NIGHT_DUE)
        strange.unlink()
        logger.info(Event.NIGHT_DUE)
        assert lines(strange / "logs")[0]["lines"] == 1
    finally:
        shutdown()


def test_log_files_are_for_the_owner_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        log = configure(folder, LogConfig(max_bytes=4096), None)
        for _ in range(100):
            log.info(Event.NIGHT_DUE, why="x" * 100)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) > 2


# What it costs


def test_the_configuration_of_logs_can_be_loaded_without_what_logs() -> None:
    code = """
import sys
import daemon.logs
print([name for name in ("structlog", "rich", "asyncio", "torch", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
