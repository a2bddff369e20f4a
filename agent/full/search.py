"""Search: a text, or else a regular expression, or else the text in any case; and names of files.

Where ripgrep is installed it narrows the files down; which lines match is decided here, so that the answer
is the same without it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from agent.errors import CallError
from agent.full.files import folder_of, named, rank, raw, walk
from agent.workspace import MAX_FILE_BYTES, Workspace

MAX_LINES = 40
MAX_LINES_OF_ONE = 6
MAX_NAMES = 6
MAX_WIDTH = 200
SECONDS = 10.0
PATTERN_SECONDS = 5.0
MAX_HELD_BYTES = 128 * 2**20
_SPECIAL = re.compile(r"[\\^$.|?*+()\[\]{}]")
_DEFINES = (
    r"(?:(?:pub(?:\([^)]*\))?|export|default|public|private|protected|internal|static|final|abstract|async|unsafe|const|extern|inline)\s+)*"
    r"(?:def|class|fn|func|function|struct|enum|trait|interface|type|module|mod|macro_rules!|object|cdef\s+class|cpdef)\s+"
)
Matches = Callable[[str], bool]


@dataclass(frozen=True)
class Found:
    """The matching lines of a file: number and text."""

    path: str
    lines: tuple[tuple[int, str], ...]


def search(workspace: Workspace, pattern: str, within: str = "") -> str:
    """The observation of a search.

    Raises:
        CallError: there is no such place, or nothing matches.
    """
    place, pattern = _place(workspace, pattern, within)
    files = walk(workspace, place) if place is None or folder_of(workspace, place) is not None else [place]
    started = time.monotonic()
    held: dict[str, bytes] = {}
    how, found = "contain", _literal(workspace, pattern, files, place, held)
    if not found and _SPECIAL.search(pattern):
        how, found = "match", _expression(workspace, pattern, files)
    if not found:
        how, found = "contain, in other capitals,", _any_case(workspace, pattern, files, place, held)
    names = _names(pattern, files) if len(files) > 1 else []
    spent = time.monotonic() - started
    late = " [time was up: not all files were looked at]" if spent > PATTERN_SECONDS else ""
    if not found and not names:
        raise CallError(f"no match of {pattern!r} in {place or 'the repository'} ({len(files)} files){late}")
    shown = [f"files named so: {', '.join(names[:MAX_NAMES])}{_more(len(names) - MAX_NAMES)}"] if names else []
    if found:
        lines = sum(len(file.lines) for file in found)
        shown += [f"{_count(lines, 'line')} of {_count(len(found), 'file')} {how} it{late}", *_shown(pattern, found)]
    return "\n".join(shown)


def _place(workspace: Workspace, pattern: str, within: str) -> tuple[str, str]:
    if not within or (folder := folder_of(workspace, within)) == "":
        return "", pattern
    if folder is not None:
        return folder, pattern
    try:
        return named(workspace, within), pattern
    except CallError:
        if "/" in within or within.endswith((".py", ".rs", ".md", ".txt")):
            raise
        return "", f"{pattern} in {within}"  # the text itself had an "in"


def _literal(workspace: Workspace, pattern: str, files: list[str], place: str, held: dict[str, bytes]) -> list[Found]:
    needle = pattern.encode("utf-8", "surrogateescape")
    files = _narrowed(workspace, needle, files, place)
    return _grep(workspace, files, lambda data: needle in data, lambda line: pattern in line, held)


def _any_case(workspace: Workspace, pattern: str, files: list[str], place: str, held: dict[str, bytes]) -> list[Found]:
    wanted = re.compile(re.escape(pattern), re.IGNORECASE | (re.ASCII if pattern.isascii() else 0))
    if not pattern.isascii():
        return _grep(workspace, files, bool, lambda line: bool(wanted.search(line)), held)
    needle = pattern.lower().encode()
    files = _narrowed(workspace, needle, files, place, "--ignore-case")
    return _grep(workspace, files, lambda data: needle in data.lower(), lambda line: bool(wanted.search(line)), held)


def _expression(workspace: Workspace, pattern: str, files: list[str]) -> list[Found]:
    """Files in order of their rank, as long as there is time."""
    files = sorted(files, key=lambda path: (rank(path), path))
    asked = json.dumps({"pattern": pattern, "files": files, "at_most": MAX_FILE_BYTES}).encode()
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("grep.py"))]
    try:
        done = subprocess.run(
            command,
            input=asked,
            cwd=workspace.root,
            env={},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATTERN_SECONDS,
            check=False,
        )
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        if not late.stdout:
            raise CallError(f"{pattern!r} takes too long as a regular expression; search a plain text") from late
        output = late.stdout
    except OSError:
        return []
    found: list[Found] = []
    for row in output.decode("ascii").split("\n")[:-1]:
        index, *numbers = map(int, row.split())
        lines = _lines(raw(workspace, files[index]))
        found.append(Found(files[index], tuple((number, lines[number - 1]) for number in numbers if number <= len(lines))))
    return sorted(found, key=lambda file: file.path)


def _grep(
    workspace: Workspace, files: Iterable[str], quick: Callable[[bytes], bool], matches: Matches, held: dict[str, bytes]
) -> list[Found]:
    """What matches; `held` are bytes that were read before, and those read now."""
    deadline = time.monotonic() + SECONDS
    room = MAX_HELD_BYTES - sum(map(len, held.values()))
    found: list[Found] = []
    for path in files:
        data = held[path] if path in held else raw(workspace, path)
        if path not in held and len(data) < room:
            held[path] = data
            room -= len(data)
        lines = _lines(data) if data and quick(data) else []
        if hits := tuple((number, line) for number, line in enumerate(lines, start=1) if matches(line)):
            found.append(Found(path, hits))
        if time.monotonic() > deadline:
            break
    return sorted(found, key=lambda file: file.path)


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")


def _narrowed(workspace: Workspace, needle: bytes, files: list[str], place: str, *options: str) -> list[str]:
    """Those files that ripgrep finds the bytes in; all of them where it cannot be asked."""
    program = shutil.which("rg")
    if program is None or len(files) < 50:
        return files
    command = [
        *(program, "--no-config", "--no-messages", "--no-ignore", "--hidden", "--no-follow", "--text", "--encoding=none"),
        *("--fixed-strings", "--files-with-matches", "--null", f"--max-filesize={MAX_FILE_BYTES}", *options),
    ]
    try:
        done = subprocess.run(
            [*(part.encode() for part in command), b"--regexp=" + needle, b"--", (place or ".").encode()],
            cwd=workspace.root,
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError, ValueError):
        return files
    if done.returncode not in (0, 1):
        return files
    hits = {name.removeprefix(b"./").decode("utf-8", "replace") for name in done.stdout.split(b"\0")}
    return [path for path in files if path in hits]


def _names(pattern: str, files: list[str]) -> list[str]:
    word = pattern.casefold().strip("/")
    if len(word) < 2 or " " in word:
        return []
    return sorted(
        (p for p in files if word in PurePosixPath(p).name.casefold() or ("/" in word and word in p.casefold())), key=_key
    )


def _key(path: str) -> tuple[int, int, str]:
    return rank(path), len(path), path


def _shown(pattern: str, found: list[Found]) -> list[str]:
    word = re.escape(pattern) if pattern.isidentifier() else r"\Z\A"
    defines = re.compile(rf"\s*{_DEFINES}{word}\b|{word}\s*(?::[^=]*)?=[^=]")
    most = MAX_LINES_OF_ONE if len(found) > 1 else MAX_LINES

    def order(file: Found) -> tuple[bool, int, str]:
        return not any(defines.match(line) for _, line in file.lines), rank(file.path), file.path

    shown: list[str] = []
    rest: list[Found] = []
    for file in sorted(found, key=order):
        room = min(most, MAX_LINES - len(shown))
        if room <= 0:
            rest.append(file)
            continue
        lines = sorted(file.lines, key=lambda at: not defines.match(at[1]))[:room]
        shown += [f"{file.path}:{number}: {_clipped(line, pattern)}" for number, line in sorted(lines)]
        if len(file.lines) > len(lines):
            shown.append(f"{file.path}: {len(file.lines) - len(lines)} more")
    if rest:
        some = ", ".join(f"{file.path} {len(file.lines)}" for file in rest[:MAX_NAMES])
        shown.append(f"[{_count(len(rest), 'more file')}: {some}{_more(len(rest) - MAX_NAMES)}]")
    return shown


def _clipped(line: str, pattern: str) -> str:
    line = line.rstrip()
    if len(line) <= MAX_WIDTH:
        return line
    at = max(0, line.find(pattern) - MAX_WIDTH // 2)
    return f"{'…' if at else ''}{line[at : at + MAX_WIDTH]}…"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _more(number: int) -> str:
    return f" and {number} more" if number > 0 else ""
