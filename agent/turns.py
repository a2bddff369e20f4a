"""The turn protocol: the one place that renders *and* parses what an agent says.

Prompting, training data and evaluation all go through this module, so that an adapter can
never be trained on a wording that the agent does not speak.

A turn is one call, written as plain text. The first line is the tool and its arguments; the
lines below it, if any, are the body::

    search total_fee
    view shop/fees.py
    edit shop/fees.py 7-7
        return price + fee
    test
    submit

`edit` replaces the lines START-END (1-based, inclusive) by the body; without a range the body
is ``OLD`` lines, a line ``=>``, and ``NEW`` lines (edit by quoted text). A larger model may write
prose around the call if the call stands in a block fenced by three backticks.

The full protocol (`agent.toolset`; `parse_full`, `render_full`) is for models that were not trained on
these five tools: there the call always stands in a fence, the last one of the turn. Servers that know
tool calls give name and arguments instead (`call_of`, `arguments_of`); what is kept of them is the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.errors import CallError
from agent.toolset import FULL_TOOLS as FULL_TOOLS
from agent.toolset import LINE, TEXT
from agent.toolset import Tool as Tool

TOOLS = ("view", "search", "edit", "test", "submit")
MAX_TURN_CHARS = 20_000
ARROW = "=>"

SYSTEM_TERSE = "Fix the issue."

_FENCE = "```"
_RANGE = re.compile(r"^(\d{1,6})(?:-(\d{1,6}))?$")
_THINK_END = "</think>"


@dataclass(frozen=True)
class Call:
    """One executable turn. `start`/`end` are 1-based inclusive lines; `old` is quoted text.

    `within` (where to search) and `targets` (what to test) are of the full protocol alone.
    """

    tool: str
    target: str = ""
    start: int | None = None
    end: int | None = None
    old: str | None = None
    body: str = ""
    within: str = ""
    targets: tuple[str, ...] = ()


def render_call(call: Call) -> str:
    """The exact text of a call; `parse_call(render_call(c)) == c` for every valid call."""
    head = call.tool if not call.target else f"{call.tool} {call.target}"
    if call.tool != "edit":
        return head
    if call.start is not None:
        lines = str(call.start) if call.start == call.end else f"{call.start}-{call.end}"
        return f"{head} {lines}\n{call.body}"
    return f"{head}\n{call.old}\n{ARROW}\n{call.body}"


def parse_call(text: str) -> Call:
    """Read the one call in a model's turn.

    Tolerant of what models get wrong (think blocks, prose around a fence, stray blank lines,
    a missing end of range, capitals in the tool name); strict about what it returns.

    Raises:
        CallError: with the correction to show to the model.
    """
    if len(text) > MAX_TURN_CHARS:
        raise CallError(f"turn of {len(text)} characters; at most {MAX_TURN_CHARS}")
    text = _unwrapped(text.replace("\r\n", "\n"))
    head, _, body = text.partition("\n")
    words = head.split()
    tool = words[0].lower() if words else ""
    if tool not in TOOLS:
        raise CallError(f"not a call; use one of: {', '.join(TOOLS)}")
    arguments = words[1:]
    if tool in ("test", "submit"):
        return Call(tool)
    if not arguments:
        raise CallError(f"{tool} needs {'text' if tool == 'search' else 'a path'}")
    if tool == "search":
        return Call(tool, " ".join(arguments))
    if tool == "view":
        if len(arguments) > 1:
            raise CallError("view takes one path")
        return Call(tool, arguments[0])
    return _parse_edit(arguments, body)


def _unwrapped(text: str) -> str:
    """The call itself: without a leading think block, and out of its fence if it stands in one."""
    text = text.strip("\n")
    if _is_call(text):
        return text
    if _THINK_END in text:  # the opening mark may have been part of the prompt
        text = text.partition(_THINK_END)[2].strip("\n")
        if _is_call(text):
            return text
    elif text.lstrip().startswith("<think>"):
        return ""
    blocks: list[list[str]] = []
    inside = False
    for line in text.split("\n"):
        if line.startswith(_FENCE):
            inside = not inside
            if inside:
                blocks.append([])
        elif inside:
            blocks[-1].append(line)
    if len(blocks) > 1:
        raise CallError("more than one call; send one")
    return "\n".join(blocks[0]).lstrip("\n") if blocks and not inside else text


def _is_call(text: str) -> bool:
    words = text.split(maxsplit=1)
    return bool(words) and words[0].lower() in TOOLS


def _parse_edit(arguments: list[str], body: str) -> Call:
    path, rest = arguments[0], arguments[1:]
    if not rest:
        old, arrow, new = body.partition(f"\n{ARROW}\n")
        if not arrow:
            old, arrow, new = (body[: -len(ARROW) - 1], ARROW, "") if body.endswith(f"\n{ARROW}") else ("", "", "")
        if not arrow or not old.strip():
            raise CallError(f"edit needs START-END, or old lines, a line {ARROW}, and new lines")
        return Call("edit", path, old=old, body=new)
    match = _RANGE.match(rest[0])
    if match is None or len(rest) > 1:
        raise CallError("edit needs a range of lines like 3-4")
    start = int(match.group(1))
    end = int(match.group(2) or start)
    if start < 1 or end < start:
        raise CallError("the range must go upwards from 1")
    return Call("edit", path, start, end, body=body)


def render_issue(repo: str, issue: str, cases: tuple[str, ...] = ()) -> str:
    """The first user message: retrieved past cases (if any), then the issue."""
    blocks = [f"past case\n{case}" for case in cases]
    return "\n".join([*blocks, f"issue in {repo}", issue])


def render_case(issue: str, change: str) -> str:
    """A solved case as it is shown in a later prompt: what was wrong, and the new lines."""
    return f"{issue}\n{change}"


MAX_WORD_CHARS = 1_000
REFUSED = '{"name": '
_FULL = {tool.name: tool for tool in FULL_TOOLS}
_OPENS = re.compile(r"(`{3,})[^`]*")
_CLOSES = re.compile(r"(`{3,})\s*")
_SPAN = re.compile(r"([1-9]\d{0,6})(?:\s*-\s*([1-9]\d{0,6}))?", re.ASCII)
_DIVIDER = re.compile(r"=+>")
_CARRIAGES = re.compile(r"\r+(?=\n|\Z)")
_CONFLICT = re.compile(r"<{5,}[^\n]*\n(.*)\n={5,}\n(?:(.*)\n)?>{5,}[^\n]*\s*", re.DOTALL)


def call_of(name: str, arguments: Mapping[str, object]) -> Call:
    """The call of the full protocol that a model made by name and arguments, as a server decoded them.

    Raises:
        CallError: there is no such tool, or it takes no such arguments; with the correction to show to the model.
    """
    tool = _FULL.get(name.strip().lower())
    if tool is None:
        raise CallError(f"there is no tool {name[:40]!r}; use one of: {', '.join(_FULL)}")
    known = tool.arguments
    given = {key: value for key, value in arguments.items() if value is not None}
    if odd := [str(key)[:40] for key in given if key not in known]:
        raise CallError(f"{tool.name} takes no {odd[0]!r}; its arguments are: {', '.join(known) or 'none'}")
    if lost := [key for key in tool.required if key not in given]:
        raise CallError(f"{tool.name} needs {lost[0]}")
    texts = {key: _text(tool, key, given[key]) for key in given if known[key][0] is TEXT}
    numbers = {key: _number(tool, key, given[key]) for key in given if known[key][0] is LINE}
    targets = _targets(given["targets"]) if "targets" in given else ()
    path, body, start = texts.get("path", ""), texts.get("new", texts.get("text", "")), numbers.get("start")
    target, within = (texts["pattern"], path) if tool.name == "search" else (path, "")
    return _valid(Call(tool.name, target, start, numbers.get("end", start), texts.get("old"), body, within, targets))


def arguments_of(call: Call) -> dict[str, object]:
    """The arguments of a call of the full protocol: `call_of(call.tool, arguments_of(call)) == call`."""
    told: dict[str, object] = {"pattern": call.target, "path": call.within} if call.tool == "search" else {"path": call.target}
    told |= {"start": call.start, "end": call.end, "targets": list(call.targets)}
    told |= {"old": f"{call.old}\n"} if call.old is not None else {}
    told |= {"text": _ended(call.body)} if call.tool == "create" else {"new": _ended(call.body)}
    tool = _FULL[call.tool]
    return {key: told[key] for key in tool.arguments if key in tool.required or told.get(key)}


def _ended(lines: str) -> str:
    return f"{lines}\n" if lines else ""


def _text(tool: Tool, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise CallError(f"{key} of {tool.name} must be a string")
    if key in ("new", "old", "text"):  # lines; that the last one is ended makes no line more
        return _CARRIAGES.sub("", value).removesuffix("\n")
    return value if key == "pattern" and value.strip() else value.strip()


def _number(tool: Tool, key: str, value: object) -> int:
    number = int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,7}", value) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise CallError(f"{key} of {tool.name} must be the number of a line")
    return number


def _targets(value: object) -> tuple[str, ...]:
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise CallError("targets of test must be a list of strings")
    return tuple(word.strip() for word in words if word.strip())


def _valid(call: Call) -> Call:
    """The call, if it is one that can be rendered and read back."""
    words = (call.target, call.within, *call.targets)
    if sum(len(word) + 1 for word in (*words, call.old or "", call.body)) > MAX_TURN_CHARS - 200:
        raise CallError(f"too long; a turn has at most {MAX_TURN_CHARS} characters: do it in parts")
    for word in words:
        if len(word) > MAX_WORD_CHARS or not word.replace("\t", " ").isprintable():
            raise CallError(f"{word[:40]!r} must be one line of at most {MAX_WORD_CHARS} printable characters")
    if not call.target and _FULL[call.tool].required:
        raise CallError(f"{call.tool} needs {next(iter(_FULL[call.tool].required))}")
    if any("\t" in path or '"' in path for path in (call.within, call.target if call.tool != "search" else "")):
        raise CallError("paths with tabs or quotes cannot be named here")
    if call.end is not None and (call.start is None or not 1 <= call.start <= call.end < 10**7):
        raise CallError("the range must go upwards from 1")
    if call.tool == "edit" and (call.start is None) == (call.old is None):
        raise CallError("edit needs either the old lines or a range of lines, and the new lines")
    if call.old is not None and not call.old.strip():
        raise CallError("the old lines are blank; quote some that are not, or give their numbers")
    return call


def render_full(call: Call) -> str:
    """The text of a call in the full protocol; `parse_full(render_full(c)) == c` for every call of `call_of`.

    The fence is longer than any line of backticks in it. The line between old and new is `=>`, or, where the old
    lines have such a line, a longer arrow, which then stands in the first line too.
    """
    words = [call.tool]
    lines: list[str] = []
    if call.tool == "search":
        quoted = '"' in call.target[:1] or " in " in f"{call.target} " or call.target != " ".join(call.target.split())
        words.append(f'"{call.target}"' if quoted or " " in call.within else call.target)
        words += ["in", call.within] if call.within else []
    elif call.target:
        words.append(f'"{call.target}"' if " " in call.target else call.target)
    if call.start is not None:
        words.append(str(call.start) if call.start == call.end else f"{call.start}-{call.end}")
    if any(" " in target or "\t" in target for target in call.targets):
        lines += call.targets
    else:
        words += call.targets
    if call.old is not None:
        old = call.old.split("\n")
        divider = ARROW
        while divider in old:
            divider = f"={divider}"
        words += [divider] if divider != ARROW else []
        lines += [*old, divider]
    lines += call.body.split("\n") if call.body else []
    longest = max((len(ticks.group(1)) for line in lines if (ticks := _OPENS.match(line))), default=2)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence, " ".join(words), *lines, fence])


def render_refused(name: str, arguments: object) -> str:
    """A native call that is none of ours, as it was made, in a line of JSON; `read_full` raises the correction."""
    try:
        text = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False, allow_nan=False)
    except (ValueError, RecursionError):
        text = json.dumps({"name": name, "arguments": ""})
    return text.replace("<", "\\u003c")  # nothing in it can be taken for the end of a thought


def parse_full(text: str) -> Call:
    """Read the one call of a turn in the full protocol. Tolerant and strict as `parse_call` is.

    Raises:
        CallError: with the correction to show to the model.
    """
    return read_full(text)[1]


def read_full(text: str) -> tuple[str, Call]:
    """The prose before the call of a turn (what a server that knows tool calls keeps as text), and the call.

    Raises:
        CallError: see `parse_full`.
    """
    if len(text) > MAX_TURN_CHARS:
        raise CallError(f"turn of {len(text)} characters; at most {MAX_TURN_CHARS}: do it in parts")
    if text.startswith(REFUSED):
        return "", _refused(text)
    text = _CARRIAGES.sub("", text)
    _, mark, rest = text.partition(_THINK_END)
    if text.lstrip().startswith("<think>"):
        return _read_full(rest)
    try:
        return _read_full(text)
    except CallError:
        if not mark:
            raise
        return _read_full(rest)  # the opening mark may have been part of the prompt


def _refused(text: str) -> Call:
    try:
        made = json.loads(text)
        name, arguments = str(made["name"]), made["arguments"]
    except (ValueError, KeyError, RecursionError):
        raise CallError(f"that is no call; make one: {', '.join(_FULL)}") from None
    if not isinstance(arguments, dict):
        raise CallError(f"the arguments of {name[:40]!r} are no whole JSON object; call again, if it was long in parts")
    return call_of(name, arguments)


def _read_full(text: str) -> tuple[str, Call]:
    lines = text.split("\n")
    blocks = _blocks(lines)
    if not blocks:  # a bare call, if there is nothing before it
        head, _, body = text.strip("\n").partition("\n")
        name = next(iter(head.split()), "")
        if name not in _FULL:
            raise CallError(f"no call; make one, in a block fenced by three backticks: {', '.join(_FULL)}")
        return "", _parse_full(head, body.rstrip("\n").split("\n") if body and name != "test" else [])
    calls = [block for block in blocks if _is_full_call(lines, *block)]
    if len(calls) > 1:
        raise CallError("more than one call; make one, and wait for what it shows")
    if not calls:
        raise CallError(f"the block begins with no tool; its first line is one of: {', '.join(_FULL)}")
    first, last = calls[0]
    if calls[0] != blocks[-1]:
        raise CallError(
            "the block of the call must be the last one; if its text has lines of backticks, fence it with more of them"
        )
    while not lines[first].strip():
        first += 1
    if last == len(lines) and any(line.strip() for line in lines[first + 1 :]):
        raise CallError("the block is not closed: was it cut off? do less in one turn")
    prose = "\n".join(lines[: calls[0][0] - 1]).strip()
    return prose, _parse_full(lines[first], lines[first + 1 : last])


def _blocks(lines: list[str]) -> list[tuple[int, int]]:
    """Fenced blocks as CommonMark has them: from their first line to before their last fence (or the end)."""
    found: list[tuple[int, int]] = []
    start, ticks = 0, 0
    for number, line in enumerate(lines):
        fence = (_CLOSES if ticks else _OPENS).fullmatch(line)
        if fence and not ticks:
            start, ticks = number + 1, len(fence.group(1))
        elif fence and len(fence.group(1)) >= ticks:
            found.append((start, number))
            ticks = 0
    return [*found, (start, len(lines))] if ticks else found


def _is_full_call(lines: list[str], first: int, last: int) -> bool:
    head = next((line for line in lines[first:last] if line.strip()), "")
    return head.split(maxsplit=1)[0].lower() in _FULL if head else False


def _parse_full(head: str, lines: list[str]) -> Call:
    """A call from its first line and the others."""
    name, rest = (*head.split(maxsplit=1), "")[:2]
    name, rest, body = name.lower(), rest.strip(), "\n".join(lines)
    if name == "search":
        if quoted := re.fullmatch(r'"(.*)"(?: in ([^"]+))?', rest):
            return call_of(name, {"pattern": quoted.group(1), "path": quoted.group(2)})
        pattern, _, within = rest.rpartition(" in ")
        place = pattern and " " not in within
        return call_of(name, {"pattern": pattern, "path": within} if place else {"pattern": rest})
    if name == "test":
        return call_of(name, {"targets": [*rest.split(), *lines]})
    if name in ("undo", "diff", "submit"):
        return call_of(name, {})
    path, tail = _path_and_tail(rest, name)
    if name in ("map", "delete"):
        return call_of(name, {"path": path})
    if name == "create":
        return call_of(name, {"path": path, "text": _ended(body)})
    span = _SPAN.fullmatch(tail)
    start, end = (span.group(1), span.group(2) or span.group(1)) if span else (None, None)
    if name == "view":
        return call_of(name, {"path": path, "start": start, "end": end})
    if span:
        return call_of(name, {"path": path, "start": start, "end": end, "new": _ended(body)})
    divider = tail or ARROW
    if divider in lines:
        at = lines.index(divider)
        return call_of(name, {"path": path, "old": "\n".join(lines[:at]) + "\n", "new": _ended("\n".join(lines[at + 1 :]))})
    if conflict := _CONFLICT.fullmatch(body):
        return call_of(name, {"path": path, "old": f"{conflict.group(1)}\n", "new": _ended(conflict.group(2) or "")})
    raise CallError(f"edit needs START-END after the path, or below it the old lines, a line {ARROW}, and the new lines")


def _path_and_tail(rest: str, name: str) -> tuple[str, str]:
    """A path, in quotes or not, and the range of lines or the divider behind it, if there is one."""
    if quoted := re.fullmatch(r'"([^"]*)"\s*([^"]*)', rest):
        return quoted.group(1), quoted.group(2)
    path, _, tail = rest.rpartition(" ")
    if path and ((name in ("view", "edit") and _SPAN.fullmatch(tail)) or (name == "edit" and _DIVIDER.fullmatch(tail))):
        return path.strip(), tail
    return rest, ""
