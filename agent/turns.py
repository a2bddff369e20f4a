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
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.errors import CallError

TOOLS = ("view", "search", "edit", "test", "submit")
MAX_TURN_CHARS = 20_000
ARROW = "=>"

SYSTEM_TERSE = "Fix the issue."
SYSTEM_FULL = """You fix one issue in a small repository. Answer every turn with exactly one call \
in a block fenced by three backticks. The first line is the tool, lines below are its body:
- search TEXT            lists the lines that contain TEXT
- view PATH              shows a file with line numbers
- edit PATH START-END    replaces these lines by the body (or: edit PATH, with a body of the
                         old lines, a line `=>`, and the new lines)
- test                   runs the tests
- submit                 ends the work; do it once the tests pass"""

_FENCE = "```"
_RANGE = re.compile(r"^(\d{1,6})(?:-(\d{1,6}))?$")
_THINK_END = "</think>"


@dataclass(frozen=True)
class Call:
    """One executable turn. `start`/`end` are 1-based inclusive lines; `old` is quoted text."""

    tool: str
    target: str = ""
    start: int | None = None
    end: int | None = None
    old: str | None = None
    body: str = ""


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
