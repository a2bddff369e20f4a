"""View: a window of a file, and where in it the window stands."""

from __future__ import annotations

import re

from agent.errors import CallError
from agent.full.files import named, text_of
from agent.tools import lines_of
from agent.workspace import Workspace

WINDOW = 150
MAX_LINES = 300
MAX_CHARS = 12_000
MAX_WIDTH = 500
_HEAD = re.compile(
    r"\s*(?:(?:pub|export|public|private|protected|static|async|abstract|final|unsafe)\s+)*"
    r"(?:class|def|fn|func|function|struct|enum|trait|impl|interface|module|mod)\b"
)


def view(workspace: Workspace, path: str, start: int | None = None, end: int | None = None) -> str:
    """The lines from `start` to `end`; around `start`, if both are the same; the first window, if there are none.

    Raises:
        CallError: no such file or lines.
    """
    path = named(workspace, path)
    lines = lines_of(text_of(workspace, path))
    total = len(lines)
    if start is not None and start > total:
        raise CallError(f"{path} has {total} lines")
    if start is None or end is None:
        first, last = 1, total if total <= MAX_LINES else WINDOW
    elif start == end:
        first, last = max(1, start - WINDOW // 3), start + WINDOW // 3
    else:
        first, last = start, min(end, start + MAX_LINES - 1)
    shown = window(lines, first, min(last, total))
    last = first + len(shown) - 1
    head = f"{path}, lines {first}-{last} of {total}" + (f", in {around}" if (around := enclosing(lines, first)) else "")
    below = [f"[{total - last} more lines: view {path} {last + 1}-{min(total, last + WINDOW)}]"] if last < total else []
    if below and start is None:
        below.append(f"[map {path} lists what is in it]")
    return "\n".join([head, *shown, *below])


def window(lines: list[str], first: int, last: int) -> list[str]:
    """Lines (1-based, inclusive) with their numbers, as many as an observation holds, at least one."""
    shown: list[str] = []
    size = 0
    for number in range(first, last + 1):
        line = lines[number - 1].removesuffix("\r")
        text = f"{number}|{line}" if len(line) <= MAX_WIDTH else f"{number}|{line[:MAX_WIDTH]}… [{len(line)} characters]"
        size += len(text) + 1
        if shown and size > MAX_CHARS:
            break
        shown.append(text)
    return shown


def enclosing(lines: list[str], number: int) -> str:
    """The classes and functions around a line, the outermost first, as far as indentation tells."""
    heads: list[str] = []
    line = next((text for text in lines[number - 1 : number + 20] if text.strip()), "")
    depth = _depth(line)
    for at in range(number - 1, 0, -1):
        text = lines[at - 1]
        if depth == 0:
            break
        if text.strip() and _depth(text) < depth:
            depth = _depth(text)
            if _HEAD.match(text):
                heads.append(f"`{text.strip()[:80].rstrip(':{ ')}` (line {at})")
    return " > ".join(reversed(heads[:4]))


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))
