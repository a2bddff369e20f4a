"""The five tools. Each takes a workspace and a parsed call and returns the observation text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agent.errors import CallError
from agent.parsing import parsed
from agent.turns import Call
from agent.workspace import Workspace

MAX_HITS = 8
MAX_VIEW_LINES = 400
MAX_AROUND_LINES = 12
MAX_OBSERVATION_CHARS = 8_000
TestRunner = Callable[[Workspace], "TestRun"]


@dataclass(frozen=True)
class TestRun:
    """What one run of the visible tests said, and whether every one passed."""

    __test__ = False
    passed: bool
    text: str


def execute(call: Call, workspace: Workspace, run_tests: TestRunner) -> str:
    """Carry out one call (`submit` is the loop's own business).

    Raises:
        CallError: with the correction to show to the model.
    """
    if call.tool == "search":
        text = search(workspace, call.target)
    elif call.tool == "view":
        text = view(workspace, call.target)
    elif call.tool == "edit":
        text = edit(workspace, call)
    elif call.tool == "test":
        text = run_tests(workspace).text
    else:
        raise CallError(f"{call.tool} cannot be executed here")
    return bounded(text)


def lines_of(text: str) -> list[str]:
    """Lines as editors count them: only a line feed ends one, and the last line feed starts none."""
    return text.removesuffix("\n").split("\n")


def bounded(text: str, at_most: int = MAX_OBSERVATION_CHARS) -> str:
    """An observation within its limit, head and tail, saying what was cut; always valid Unicode."""
    text = text.replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")
    if len(text) <= at_most:
        return text
    half = at_most // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} characters cut]\n{text[-half:]}"


def search(workspace: Workspace, needle: str) -> str:
    """Where `needle` is defined, or else every line that contains it, at most `MAX_HITS`."""
    definition = re.compile(rf"\s*(?:async +def|def|class) {re.escape(needle)}\b")
    definitions: list[str] = []
    others: list[str] = []
    for name in workspace.files():
        if not name.endswith(".py"):
            continue
        try:
            lines = lines_of(workspace.read(name))
        except CallError:  # too large or unreadable: not worth failing the search
            continue
        for number, line in enumerate(lines, start=1):
            if needle in line:
                bucket = definitions if definition.match(line) else others
                bucket.append(f"{name}:{number}: {line.strip()[:200]}")
    hits = definitions or others
    if not hits:
        return "no match"
    extra = len(hits) - MAX_HITS
    return "\n".join(hits[:MAX_HITS] + ([f"[{extra} more]"] if extra > 0 else []))


def view(workspace: Workspace, path: str) -> str:
    """The file with line numbers."""
    lines = lines_of(workspace.read(path))
    if len(lines) > MAX_VIEW_LINES:
        raise CallError(f"{path} has {len(lines)} lines, too many to view; search it")
    return numbered(lines, 1)


def numbered(lines: list[str], first: int) -> str:
    """Lines as the agent sees them: number, bar, text."""
    return "\n".join(f"{first + offset}|{line}" for offset, line in enumerate(lines))


def edit(workspace: Workspace, call: Call) -> str:
    """Replace lines by range or by quoted text; shows the new lines. The file keeps its line ends."""
    text = workspace.read(call.target)
    carriage = "\r" if "\r\n" in text else ""
    lines = [line.removesuffix(carriage) if carriage else line for line in lines_of(text)]
    body = call.body.split("\n") if call.body else []
    if call.old is not None:
        start, end = _locate(lines, call.old.split("\n"))
    else:
        start, end = call.start or 0, call.end or 0
    if end > len(lines):
        raise CallError(f"{call.target} has {len(lines)} lines")
    if lines[start - 1 : end] == body:
        raise CallError(f"these lines already read so; change something else\n{around(lines, start, end)}")
    edited = [*lines[: start - 1], *body, *lines[end:]]
    changed = "".join(f"{line}{carriage}\n" for line in edited)
    if call.target.endswith(".py") and (error := syntax_error(changed)) and not syntax_error(text):
        raise CallError(f"{error}; nothing was changed\n{around(lines, start, end)}")
    workspace.write(call.target, changed)
    return f"now\n{numbered(body, start)}" if body else "lines removed"


def around(lines: list[str], start: int, end: int) -> str:
    """Lines `start` to `end` as they are, with one neighbour on either side; the middle of many is cut."""
    first, last = max(1, start - 1), min(len(lines), end + 1)
    shown = numbered(lines[first - 1 : last], first).split("\n")
    if len(shown) > MAX_AROUND_LINES:
        half = MAX_AROUND_LINES // 2
        shown = [*shown[:half], f"[{len(shown) - 2 * half} lines]", *shown[-half:]]
    return "\n".join(shown)


def syntax_error(source: str) -> str:
    """What keeps a Python file from being parsed, or nothing.

    An edit that breaks a file that was whole is refused: the interface of SWE-agent (Yang et al.
    2024, section 3) showed that agents rarely recover from one. The answer shows the lines that
    the edit aimed at, because most such edits are right but for the line number.
    """
    try:
        parsed(source)
    except SyntaxError as error:
        return f"{type(error).__name__} in line {error.lineno}"
    except (ValueError, RecursionError, MemoryError) as error:
        return type(error).__name__
    return ""


def _locate(lines: list[str], old: list[str]) -> tuple[int, int]:
    found = [i for i in range(len(lines) - len(old) + 1) if lines[i : i + len(old)] == old]
    if not found:
        raise CallError("the old lines are not in the file; copy them exactly")
    if len(found) > 1:
        raise CallError(f"the old lines occur {len(found)} times; quote more lines")
    return found[0] + 1, found[0] + len(old)
