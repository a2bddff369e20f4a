"""The log file: nothing written is lost or told twice, whatever happens to the files meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import DaemonError, FilterError
from daemon.logfile import NAME, Filter, RotatingFile, follow, parse_since, read, render, timestamp

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERYTHING = Filter()
ROOT = Path(__file__).resolve().parents[2]


def line(number: int, **fields: object) -> bytes:
    head = {"at": timestamp(NOON + timedelta(seconds=number)), "level": "info", "event": "night.step", "number": number}
    return json.dumps(head | fields).encode() + b"\n"


def size_of(lines: int) -> int:
    """A size that holds so many lines with numbers of one digit, and not one more."""
    return lines * len(line(0)) + 1


def numbers(records: Iterator[dict[str, Any]]) -> list[int]:
    return [record["number"] for record in records]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / NAME


@pytest.fixture
def rotating(path: Path) -> Iterator[Callable[..., RotatingFile]]:
    made = []

    def make(lines: int = 2, backups: int = 100) -> RotatingFile:
        made.append(RotatingFile(path, size_of(lines), backups))
        return made[-1]

    yield make
    for file in made:
        file.close()


Rotating = Callable[..., RotatingFile]


# Writing


def test_files_are_rotated_before_they_grow_too_large_and_the_oldest_goes(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=2, backups=2)
    for number in range(9):
        file.write(line(number))
    files = {p.name: numbers(map(json.loads, p.read_bytes().splitlines())) for p in path.parent.iterdir()}
    assert files == {"sleepyd.jsonl": [8], "sleepyd.000004.jsonl": [6, 7], "sleepyd.000003.jsonl": [4, 5]}


def test_a_line_larger_than_a_file_is_written_all_the_same(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=2)
    for number in range(3):
        file.write(line(number, text="x" * 1_000))
    assert numbers(read(path.parent, EVERYTHING)) == [0, 1, 2]
    assert [p.stat().st_size > 1_000 for p in path.parent.iterdir()] == [True] * 3


def test_fewer_backups_than_before_remove_the_oldest_ones(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=1, backups=5)
    for number in range(6):
        file.write(line(number))
    file.backups = 2
    file.write(line(6))
    assert numbers(read(path.parent, EVERYTHING)) == [4, 5, 6]


def test_files_and_their_folder_are_for_the_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = RotatingFile(tmp_path / "logs" / NAME, size_of(1), 3)
        for number in range(3):
            file.write(line(number))
        file.close()
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "logs").iterdir()} == {0o600}
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("torn", [b'{"event": "night.st', b"\0\0\0", line(7).rstrip()])
def test_what_a_power_cut_left_does_not_swallow_the_next_line(rotating: Rotating, path: Path, torn: bytes) -> None:
    path.write_bytes(line(0) + torn)
    file = rotating(lines=9)
    file.write(line(1))
    file.write(line(2))
    assert path.read_bytes() == line(0) + torn + b"\n" + line(1) + line(2)


def test_a_file_that_was_removed_is_made_again(rotating: Rotating, path: Path) -> None:
    file = rotating()
    file.write(line(0))
    path.unlink()
    file.write(line(1))
    assert numbers(read(path.parent, EVERYTHING)) == [1]


def test_a_file_that_was_moved_away_is_not_written_to_any_more(rotating: Rotating, path: Path) -> None:
    file = rotating()
    file.write(line(0))
    path.rename(path.with_name("moved"))
    file.write(line(1))
    assert path.read_bytes() == line(1)
    assert path.with_name("moved").read_bytes() == line(0)


def test_an_emptied_file_is_filled_from_its_beginning(rotating: Rotating, path: Path) -> None:
    file = rotating()
    file.write(line(0))
    os.truncate(path, 0)
    file.write(line(1))
    assert path.read_bytes() == line(1)


def test_a_rotation_that_fails_costs_no_line(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=1, backups=1)
    highest = "9" * (255 - len("sleepyd..jsonl"))  # the name after this one is too long for a file
    path.with_name(f"sleepyd.{highest}.jsonl").write_bytes(line(0))
    for number in range(1, 5):
        file.write(line(number))
    assert numbers(read(path.parent, EVERYTHING)) == [0, 1, 2, 3, 4]


def test_a_full_file_that_cannot_be_removed_stops_nothing(rotating: Rotating, path: Path) -> None:
    path.with_name("sleepyd.000001.jsonl").mkdir()
    file = rotating(lines=1, backups=2)
    for number in range(5):
        file.write(line(number))
    assert numbers(read(path.parent, EVERYTHING)) == [2, 3, 4]


def test_closing_twice_is_harmless_and_writing_opens_again(rotating: Rotating, path: Path) -> None:
    file = rotating()
    file.close()
    file.write(line(0))
    file.close()
    file.close()
    file.write(line(1))
    assert numbers(read(path.parent, EVERYTHING)) == [0, 1]


# Reading


def test_files_are_read_oldest_first_and_by_number(rotating: Rotating, path: Path) -> None:
    path.with_name("sleepyd.999999.jsonl").write_bytes(line(0))
    path.with_name("sleepyd.000999.jsonl").write_bytes(line(9))
    file = rotating(lines=1)
    for number in range(1, 4):
        file.write(line(number))
    assert path.with_name("sleepyd.1000001.jsonl").exists()
    assert numbers(read(path.parent, EVERYTHING)) == [9, 0, 1, 2, 3]


@pytest.mark.parametrize("last", [0, 1, 3, 4, 7, 99])
def test_the_last_ones_are_the_newest_over_all_files_in_order(rotating: Rotating, path: Path, last: int) -> None:
    file = rotating(lines=2)
    for number in range(7):
        file.write(line(number))
    assert numbers(read(path.parent, EVERYTHING, last)) == list(range(7))[7 - min(last, 7) :]


def test_the_last_ones_are_counted_among_those_that_are_wanted(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=2)
    for number in range(8):
        file.write(line(number, level="error" if number % 3 == 0 else "info"))
    assert numbers(read(path.parent, Filter(level="error"), last=2)) == [3, 6]


@pytest.mark.parametrize("folder", ["nowhere", "file", "empty"])
def test_no_log_is_an_empty_log(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert list(read(tmp_path / folder, EVERYTHING)) == []
    assert list(read(tmp_path / folder, EVERYTHING, last=3)) == []


def test_other_files_are_no_part_of_the_log(rotating: Rotating, path: Path) -> None:
    rotating().write(line(1))
    for name in (f"{NAME}.1", "sleepyd.1.jsonl", "sleepyd.000001.jsonl.gz", "xsleepyd.000001.jsonl", "sleepyd-000001-jsonl"):
        path.with_name(name).write_bytes(line(9))
    path.with_name("sleepyd.000001.jsonl").mkdir()
    assert numbers(read(path.parent, EVERYTHING)) == [1]


def test_lines_that_are_no_objects_are_skipped_and_counted(path: Path) -> None:
    bad = [b"not json", b"", b"[1]", b"17", b'{"half": ', b"\xff\xfe", b"[" * 100_000, b"9" * 5_000, b"\0\0"]
    path.write_bytes(line(0) + b"".join(text + b"\n" for text in bad) + line(1))
    skipped: list[bytes] = []
    assert numbers(read(path.parent, EVERYTHING, on_skipped=skipped.append)) == [0, 1]
    assert skipped == bad
    again: list[bytes] = []
    assert numbers(read(path.parent, EVERYTHING, last=2, on_skipped=again.append)) == [0, 1]
    assert again == bad[::-1]


def test_a_half_written_last_line_is_not_told(path: Path) -> None:
    path.write_bytes(line(0) + line(1)[:-1])
    skipped: list[bytes] = []
    assert numbers(read(path.parent, EVERYTHING, on_skipped=skipped.append)) == [0]
    assert skipped == []


def test_line_separators_of_other_alphabets_end_no_line(path: Path) -> None:
    path.write_bytes(json.dumps({"number": 1, "why": "a\u2028b\x85c\x0bd\re"}, ensure_ascii=False).encode() + b"\n")
    assert [record["why"] for record in read(path.parent, EVERYTHING)] == ["a\u2028b\x85c\x0bd\re"]


def test_lines_longer_than_what_is_read_at_once_are_whole(path: Path) -> None:
    path.write_bytes(line(0, text="é" * 200_000) + line(1, text="x" * 65_535) + line(2))
    assert [len(record.get("text", "")) for record in read(path.parent, EVERYTHING)] == [200_000, 65_535, 0]


def test_a_reader_sees_every_line_once_while_files_are_rotated(rotating: Rotating, path: Path) -> None:
    """Consecutive numbers from 0 on, however the reading and the rotating interleave."""
    file = rotating(lines=3, backups=1_000)
    written = threading.Event()

    def write() -> None:
        for number in range(600):
            file.write(line(number))
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    passes = 0
    while not written.is_set():
        seen = numbers(read(path.parent, EVERYTHING))
        assert seen == list(range(len(seen)))
        end = numbers(read(path.parent, EVERYTHING, last=4))
        assert end == list(range(600))[end[0] : end[0] + 4] if len(end) == 4 else len(seen) < 4
        passes += 1
    writer.join()
    assert passes > 1
    assert numbers(read(path.parent, EVERYTHING)) == list(range(600))


@pytest.mark.parametrize("last", [None, 3, 2])
def test_a_file_that_is_renamed_while_the_reader_looks_is_told_once_and_in_its_place(path: Path, last: int | None) -> None:
    """Two names for one file are what such a reader sees: first the newest, then a full one, with a newer one above it."""
    path.write_bytes(line(0) + line(1))
    path.with_name("sleepyd.000001.jsonl").hardlink_to(path)
    path.with_name("sleepyd.000002.jsonl").write_bytes(line(2))
    assert numbers(read(path.parent, EVERYTHING, last)) == [0, 1, 2][-(last or 3) :]
    assert numbers(follow(path.parent, EVERYTHING, lambda: True, 0, last)) == [0, 1, 2][-(last or 3) :]


# Filters


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (Filter(), [0, 1, 2, 3, 4, 5]),
        (Filter(level="warning"), [2, 3, 5]),
        (Filter(level="info"), [1, 2, 3, 4, 5]),
        (Filter(events=("night.*",)), [0, 3]),
        (Filter(events=("night.*", "disk.low")), [0, 2, 3]),
        (Filter(events=("*",)), [0, 1, 2, 3, 4, 5]),
        (Filter(events=("task.ended",)), [1]),
        (Filter(since=NOON + timedelta(seconds=3)), [3, 4]),
        (Filter(since=(NOON + timedelta(seconds=3)).astimezone().replace(tzinfo=None)), [3, 4]),
        (Filter(events=("night.*",), level="error", since=NOON), [3]),
    ],
)
def test_filters(path: Path, wanted: Filter, seen: list[int]) -> None:
    lines = [
        line(0, level="debug"),
        line(1, event="task.ended"),
        line(2, level="warning", event="disk.low"),
        line(3, level="error", event="night.failed"),
        line(4, level="info", event="inbox.accepted"),
        json.dumps({"number": 5, "level": ["strange"], "event": None}).encode() + b"\n",
    ]
    path.write_bytes(b"".join(lines))
    assert numbers(read(path.parent, wanted)) == seen


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"level": "warn"}, "there is no log level 'warn'; did you mean 'warning'?"),
        ({"level": "loud"}, "there is no log level 'loud'; valid are debug, info, warning, error"),
        ({"level": ""}, "there is no log level ''; valid are"),
        ({"events": ("nigth.*",)}, "no event is named 'nigth.*'; did you mean 'night.*'?"),
        ({"events": ("night.*", "task.endet")}, "no event is named 'task.endet'; did you mean 'task.ended'?"),
        ({"events": ("Night.*",)}, "did you mean 'night.*'?"),
        ({"events": ("xyzzy",)}, "no event is named 'xyzzy'; valid are adapter.*, cleanup.*, clock.*"),
    ],
)
def test_filters_that_could_never_match_name_the_nearest_that_could(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(FilterError) as error:
        Filter(**wanted)
    assert message in str(error.value)
    assert isinstance(error.value, DaemonError)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("90s", NOON - timedelta(seconds=90)),
        ("15m", NOON - timedelta(minutes=15)),
        (" 2h ", NOON - timedelta(hours=2)),
        ("3d", NOON - timedelta(days=3)),
        ("1w", NOON - timedelta(days=7)),
        ("2026-02-28T10:00:00Z", datetime(2026, 2, 28, 10, tzinfo=UTC)),
        ("2026-02-28T10:00+02:00", datetime(2026, 2, 28, 8, tzinfo=UTC)),
        ("2026-02-28", datetime(2026, 2, 28).astimezone()),
    ],
)
def test_times_are_read_as_people_give_them(text: str, then: datetime) -> None:
    assert parse_since(text, NOON) == then


@pytest.mark.parametrize("text", ["", "yesterday", "2", "h", "-2h", "2 h", "2026-13-01", "999999w", "0001-01-01T00:00+14:00"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(FilterError, match="give one like 15m, 2h"):
        parse_since(text, NOON)


# Following: each look asks `stop` first, so a list of actions, one for each look, makes the order of things certain.


def looks(*actions: Callable[[], object]) -> Callable[[], bool]:
    """A `stop` that does one thing at each look, and ends after the last."""
    waiting = list(actions)

    def stop() -> bool:
        if waiting:
            waiting.pop(0)()
        return not waiting

    return stop


def append(path: Path, data: bytes) -> Callable[[], object]:
    def act() -> None:
        with path.open("ab") as file:
            file.write(data)

    return act


def writing(file: RotatingFile, first: int, end: int) -> Callable[[], object]:
    def act() -> None:
        for number in range(first, end):
            file.write(line(number))

    return act


def test_following_begins_with_what_comes_after_now(path: Path) -> None:
    path.write_bytes(line(0))
    assert numbers(follow(path.parent, EVERYTHING, looks(append(path, line(1)), append(path, line(2))), 0)) == [1, 2]


@pytest.mark.parametrize(("last", "seen"), [(0, [5]), (3, [2, 3, 4, 5]), (None, [0, 1, 2, 3, 4, 5])])
def test_following_may_begin_with_the_last_ones(rotating: Rotating, path: Path, last: int | None, seen: list[int]) -> None:
    file = rotating(lines=2)
    for number in range(5):
        file.write(line(number))
    stop = looks(lambda: file.write(line(5)), lambda: None)
    assert numbers(follow(path.parent, EVERYTHING, stop, 0, last)) == seen


def test_a_log_that_does_not_exist_yet_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    stop = looks(lambda: None, folder.mkdir, lambda: None, append(folder / NAME, line(1)))
    assert numbers(follow(folder, EVERYTHING, stop, 0)) == [1]


def test_a_half_written_line_is_told_when_it_is_whole_and_once(path: Path) -> None:
    half = len(line(1)) // 2
    parts = (line(1)[:half], line(1)[half:-1], b"\n" + line(2)[:3], line(2)[3:])
    told: list[int] = []
    after_each: list[int] = []

    def then(action: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            after_each.append(len(told))
            action()

        return act

    path.write_bytes(line(0))
    stop = looks(*(then(append(path, part)) for part in parts))
    for record in follow(path.parent, EVERYTHING, stop, 0):
        told.append(record["number"])
    assert told == [1, 2]
    assert after_each == [0, 0, 0, 1]


def test_many_rotations_between_two_looks_lose_nothing(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=1, backups=50)
    file.write(line(0))
    stop = looks(writing(file, 1, 2), writing(file, 2, 9), lambda: None, writing(file, 9, 30), writing(file, 30, 31))
    assert numbers(follow(path.parent, EVERYTHING, stop, 0)) == list(range(1, 31))


def test_a_file_rotated_out_of_existence_between_two_looks_is_told_to_its_end(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=2, backups=1)
    file.write(line(0))
    stop = looks(writing(file, 1, 6), lambda: None)
    # 0 and 1 were in the file that was open, 2 and 3 in the next, 4 and 5 are in the newest: the first is gone by name.
    assert numbers(follow(path.parent, EVERYTHING, stop, 0)) == [1, 2, 3, 4, 5]


def test_a_file_that_takes_the_inode_of_a_removed_one_is_new(rotating: Rotating, path: Path) -> None:
    """With one backup and one line to a file, each new file is likely to get the inode of the one just removed."""
    file = rotating(lines=1, backups=1)
    stop = looks(*(writing(file, number, number + 1) for number in range(40)))
    assert numbers(follow(path.parent, EVERYTHING, stop, 0)) == list(range(40))


def test_an_emptied_file_is_told_from_its_beginning(path: Path) -> None:
    path.write_bytes(line(0) + line(1))
    stop = looks(lambda: os.truncate(path, 0), append(path, line(2)), append(path, line(3)))
    assert numbers(follow(path.parent, EVERYTHING, stop, 0)) == [2, 3]


def test_a_removed_log_that_comes_back_is_told_and_its_backups_are_not_told_again(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=2)
    for number in range(5):
        file.write(line(number))
    stop = looks(path.unlink, lambda: None, lambda: file.write(line(5)))
    assert numbers(follow(path.parent, EVERYTHING, stop, 0)) == [5]


def test_half_a_line_that_the_writer_took_back_is_forgotten(path: Path) -> None:
    path.write_bytes(line(0))
    whole = path.stat().st_size
    stop = looks(append(path, line(1)[:20]), lambda: os.truncate(path, whole), append(path, line(2)))
    assert numbers(follow(path.parent, EVERYTHING, stop, 0)) == [2]


def test_following_filters_skips_and_counts(path: Path) -> None:
    skipped: list[bytes] = []
    path.write_bytes(b"")
    stop = looks(append(path, line(1) + b"nonsense\n" + line(2, level="error")), append(path, b"[]\n" + line(3)))
    assert numbers(follow(path.parent, Filter(level="error"), stop, 0, on_skipped=skipped.append)) == [2]
    assert skipped == [b"nonsense", b"[]"]


def test_readers_leave_no_file_open(rotating: Rotating, path: Path) -> None:
    descriptors = Path("/dev/fd")
    file = rotating(lines=1, backups=3)
    for number in range(4):
        file.write(line(number))
    before = len(list(descriptors.iterdir()))
    stop = looks(*[lambda: file.write(line(4))] * 9)
    assert len(numbers(follow(path.parent, EVERYTHING, stop, 0))) == 9
    next(broken_off := read(path.parent, EVERYTHING))
    broken_off.close()  # type: ignore[attr-defined]
    next(broken_off := follow(path.parent, EVERYTHING, lambda: False, 0, last=2))
    broken_off.close()  # type: ignore[attr-defined]
    assert len(list(descriptors.iterdir())) == before


def test_following_a_busy_writer_in_another_thread(rotating: Rotating, path: Path) -> None:
    file = rotating(lines=5, backups=1_000)
    written = threading.Event()

    def write() -> None:
        for number in range(1_000):
            file.write(line(number))
        written.set()

    writer = threading.Thread(target=write)
    seen = follow(path.parent, EVERYTHING, written.is_set, 0.001, last=None)
    writer.start()
    assert numbers(seen) == list(range(1_000))
    writer.join()


# For people


def test_a_record_is_one_line() -> None:
    record = json.loads(
        line(0, level="warning", why="too little", free_mb=3, config="c0ffee", night="n1", ok=True, x={"a": [1]})
    )
    assert render(record) == (
        "2026-03-01 12:00:00.000000Z  warning  night.step            "
        'number=0 why="too little" free_mb=3 night=n1 ok=true x={"a": [1]}'
    )


def test_a_traceback_is_shown_below_and_indented() -> None:
    text = render(json.loads(line(0, error="E: a\nb", traceback='Traceback:\n  File "x"\nE: a\nb\n')))
    assert text.splitlines()[1:] == ["    Traceback:", '      File "x"', "    E: a", "    b"]
    assert 'error="E: a\\nb"' in text.splitlines()[0]


@pytest.mark.parametrize("place", ["value", "name", "event", "level", "at", "nested", "traceback"])
@pytest.mark.parametrize("bad", ["\x1b[2J", "\r", "\x9b1m", "\u202e", "\x07", "\ud800", "\x7f", "\u2028", "\0"])
def test_nothing_in_a_record_reaches_the_terminal_as_a_command(place: str, bad: str) -> None:
    record: dict[str, Any] = {"at": "2026", "level": "info", "event": "night.step"}
    record |= (
        {place: f"a{bad}b"} if place not in ("name", "nested") else {f"n{bad}": 1} if place == "name" else {"x": [{bad: bad}]}
    )
    text = render(record)
    assert all(c.isprintable() for c in text.replace("\n    ", ""))
    text.encode()


def test_records_of_others_are_shown_as_well_as_can_be() -> None:
    assert render({}) == "?  ?        ?"
    assert "at=3" not in render({"at": 3, "level": None, "event": []})


def test_colour_only_on_request() -> None:
    record = json.loads(line(0, level="error"))
    assert "\x1b" not in render(record)
    coloured = render(record, colour=True)
    assert "\x1b[1;31merror" in coloured
    assert coloured.replace("\x1b[1;31m", "").replace("\x1b[0m", "") == render(record)


def test_the_reading_side_imports_only_the_standard_library() -> None:
    code = """
import sys
before = set(sys.modules)
import daemon.logfile
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(new - set(sys.stdlib_module_names)))
print(*sorted(name for name in sys.modules if name.startswith("daemon.")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["daemon", "daemon.errors daemon.events daemon.logfile"]
