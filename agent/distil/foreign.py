"""Other agents' calls: what the tools of SWE-agent, mini-swe-agent and Claude Code do, in this program's own terms.

A turn is prose and, as its last line, one JSON object `{"name": ..., "arguments": {...}}`: the call as it was made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from agent.recalled import plain

DeedKind = Literal["look", "search", "edit", "create", "delete", "test", "run", "submit", "other"]
MAX_CALL_CHARS = 200_000
MAX_COMMAND_CHARS = 2_000
MAX_TEXT_CHARS = 50_000
_PATHS = ("file_path", "path", "filename", "file_name", "notebook_path", "file")
_TOOLS: Mapping[DeedKind, str] = {
    "look": "read view open cat goto scroll_down scroll_up",
    "search": "grep glob ls search search_dir search_file find_file",
    "edit": "edit multiedit str_replace insert",
    "create": "write create",
    "delete": "delete",
    "submit": "submit",
}
_PROGRAMS: Mapping[DeedKind, str] = {
    "look": "cat head tail less more nl bat open goto scroll_down scroll_up",
    "search": "grep egrep rg find ls ag fd tree search_dir search_file find_file",
    "delete": "rm",
}
_NAMES = {name: kind for kind, names in _TOOLS.items() for name in names.split()}
_FIRST = {name: kind for kind, names in _PROGRAMS.items() for name in names.split()}
_EDITORS = frozenset({"str_replace_editor", "str_replace_based_edit_tool", "str_replace_editor_tool", "edit_anthropic"})
_SHELLS = frozenset({"bash", "shell", "execute_bash", "run_command", "terminal"})
_SEGMENTS = re.compile(r"&&|\|\||[;\n]")
_WRAPPED = re.compile(
    r"(?:[A-Za-z_]\w*=\S*\s+|(?:timeout(?: -\S+)* \S+|time|env|uv run|poetry run|pdm run|hatch run|pipenv run|coverage run"
    r"|xvfb-run|python[\d.]*|-[A-Za-z]\S*)\s+)*"
)
_TESTS = re.compile(
    r"(?:\./|\S{0,200}/)?(?:pytest|py\.test|tox|nox|unittest|nosetests|nose2|trial|runtests(?:\.py)?|rspec|phpunit|jest|vitest"
    r"|ctest|manage\.py test|bin/test|test_runner\.py)(?=\s|$)"
    r"|(?:cargo|go|npm|yarn|pnpm|make|mvn|gradle|\./gradlew|dotnet|mix|swift|npm run|bundle exec rake)\s+(?:test|check)\b"
)
_SUBMITS = re.compile(r"COMPLETE_TASK_AND_SUBMIT|MINI_SWE_AGENT_FINAL_OUTPUT|^submit$")
_HEREDOC = re.compile(
    r"cat\s+(?:>\s*(\S+)\s+<<|<<)\s*-?['\"]?(\w+)['\"]?(?:\s*>\s*(\S+))?[ \t]*\n(.*?)\n?^\2[ \t]*$", re.M | re.S
)
_WRITES = re.compile(r"cat {1,8}(?:>|<<)")
_SED = re.compile(r"s/([\w =,:()'\"<>+-]{1,300})/([\w =,:()'\"<>+-]{0,300})/g?")
_RANGE = re.compile(r"edit (\d{1,6}):(\d{1,6})[ \t]*\n(.*?)\n?end_of_edit\s*", re.DOTALL)
_REFUSED = re.compile(
    r"\s*(?:<tool_use_error>|error\b|no replacement was performed|string to replace not found|file has not been read|no changes"
    r"|your proposed edit has introduced|invalid|the user doesn't want|<returncode>\s*[1-9]|exit (?:code|status):? [1-9])",
    re.IGNORECASE,
)
_BAD = re.compile(
    r"\b[1-9]\d* (?:failed|failures?|errors?)\b|^FAILED\b|^E {2,}\S|^(?:FAIL|ERROR): |^--- FAIL|test result: FAILED|^FAIL\b"
    r"|^Traceback \(|panicked at|(?:exit(?:ed with)? (?:code|status):?|<returncode>)\s*[1-9]|no tests ran|command not found",
    re.MULTILINE | re.IGNORECASE,
)
_GOOD = re.compile(
    r"\b[1-9]\d* passed\b|^OK(?: \(.*\))?$|test result: ok|^PASS$|^ok\s+\S+\s+[\d.]+s|\bTests:.{0,200} [1-9]\d* passed", re.M
)


@dataclass(frozen=True)
class Deed:
    """One call of another agent. `start` and `end` are lines (from 1) where an edit names them, else 0."""

    kind: DeedKind
    path: str = ""
    old: str = ""
    new: str = ""
    command: str = ""
    start: int = 0
    end: int = 0


def deeds(said: str) -> list[Deed]:
    """What a turn did: nothing if its last line is no call, several where one call makes several edits."""
    line = said.rstrip().rpartition("\n")[2]
    if not line.startswith("{") or len(line) > MAX_CALL_CHARS:
        return []
    try:
        made = json.loads(line)
    except (ValueError, RecursionError):
        return []
    name, arguments = (made.get("name"), made.get("arguments")) if isinstance(made, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return []
    name = name.strip().lower().removesuffix("_tool") if name.lower() not in _EDITORS else name.lower()
    if name in _SHELLS:
        return [_shell(_text(arguments, "command", "cmd"))]
    if name in _EDITORS:
        command = _text(arguments, "command")
        name = command if command in _NAMES else {"undo_edit": "undo"}.get(command, command)
    kind = _NAMES.get(name, "other")
    path = _path(_text(arguments, *_PATHS))
    if kind == "edit":
        return _edits(arguments, path)
    new = _text(arguments, "content", "file_text", "text", "contents") if kind == "create" else ""
    asked = _text(arguments, "pattern", "search_term", "query") if kind == "search" else ""
    return [Deed(kind, path, new=new, command=asked[:MAX_COMMAND_CHARS])]


def refused(seen: str) -> bool:
    """Whether a tool answered that it did not do it."""
    return bool(_REFUSED.match(seen[:2_000]))


def verdict(seen: str) -> bool:
    """Whether tests were seen to pass: some did, and nothing says that one did not."""
    return bool(_GOOD.search(seen)) and not _BAD.search(seen)


def _edits(arguments: Mapping[str, object], path: str) -> list[Deed]:
    several = arguments.get("edits")
    if isinstance(several, list):
        parts = [part for part in several[:50] if isinstance(part, dict)]
        return [deed for part in parts for deed in _edits({**part, "edits": None}, path)]
    old = _text(arguments, "old_string", "old_str", "search", "old")
    new = _text(arguments, "new_string", "new_str", "replace", "new", "replacement_text", "text", "insert_text")
    start, end = (_number(arguments, *names) for names in (("start_line", "start"), ("end_line", "end")))
    at = _number(arguments, "insert_line")
    if at or (arguments.get("insert_line") == 0 and not old):
        return [Deed("edit", path, new=new.removesuffix("\n"), start=at + 1, end=at)]
    return [Deed("edit", path, old, new, start=start if end >= start and not old else 0, end=end)]


def _shell(command: str) -> Deed:
    """A command of the shell: tests, a look, a search, a plain edit; anything else is `run`."""
    short = command[:MAX_COMMAND_CHARS].strip()
    if _SUBMITS.search(short):
        return Deed("submit", command=short)
    writes = _WRITES.search(command)
    if writes and (written := _HEREDOC.match(command, writes.start())):
        return Deed("create", _path(written.group(1) or written.group(3) or ""), new=written.group(4), command=short)
    if lines := _RANGE.fullmatch(command):  # of the open file, which is named in what was seen
        return Deed("edit", new=lines.group(3), command=short, start=int(lines.group(1)), end=int(lines.group(2)))
    parts = [part.strip() for part in _SEGMENTS.split(short)]
    if any(_TESTS.match(part, _WRAPPED.match(part).end()) for part in parts if part):  # type: ignore[union-attr]
        return Deed("test", command=short)
    words = next((part for part in parts if part and not part.startswith("cd ")), "").split()
    first = words[0] if words else ""
    named = [word for word in words[1:] if not word.startswith("-") and not word.isdigit()]
    place = _path(named[-1]) if named and first != "goto" else ""
    if first == "sed" and any(word.startswith("-i") for word in words):
        swap = _SED.search(short)  # of expressions only those that are plain text
        old, new = swap.groups() if swap else ("", "")
        return Deed("edit", place, old, new, short)
    if first == "sed" and "-n" in words:
        return Deed("look", place, command=short)
    kind = _FIRST.get(first, "run") if len(parts) <= 2 and ">" not in short else "run"
    return Deed(kind, place if kind in ("look", "delete") else "", command=short)


def _path(text: str) -> str:
    text = plain(text, 400).strip().strip("'\"").removeprefix("./")
    return text if text.isprintable() else ""


def _text(arguments: Mapping[str, object], *names: str) -> str:
    found = next((arguments[name] for name in names if isinstance(arguments.get(name), str)), "")
    return plain(str(found), MAX_TEXT_CHARS)


def _number(arguments: Mapping[str, object], *names: str) -> int:
    found = next((arguments[name] for name in names if name in arguments), 0)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < 10**6 else 0
