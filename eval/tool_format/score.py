"""Marks one turn: 1.0 for the right tool in the call format of the toolkit, 0.5 for the right tool in any other, 0.0 otherwise.

The agent's own parser decides what the right format is (`agent.turns`). Other formats are recognised by their marks: JSON,
XML tags, function calls, labels, a call in the middle of prose. A tool that is merely spoken of is no call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from agent.errors import CallError
from agent.model import Completion
from agent.models.thinking import split_thinking
from agent.turns import MAX_TURN_CHARS, REFUSED, Call

RIGHT, HALF, WRONG = 1.0, 0.5, 0.0
Parse = Callable[[str], Call]


@dataclass(frozen=True)
class Right:
    """A call that would be right: the tool, and what must hold of its arguments."""

    tool: str
    holds: Callable[[Call], bool] = lambda call: True


@dataclass(frozen=True)
class Mark:
    """What came of one turn. `timeout`: the tokens ran out while it was thinking, or right after."""

    score: float
    malformed: bool
    timeout: bool


def mark(said: Completion, parse: Parse, tools: Sequence[str], rights: Sequence[Right]) -> Mark:
    """Mark a turn against the calls that would be right."""
    inner, text = split_thinking(said.text)
    timeout = said.finish_reason == "length" and bool(said.thinking or inner)
    try:
        if said.text.startswith(REFUSED):  # the agent forgives it; but it is no format that any model is told of
            raise CallError("a call as JSON")
        call = parse(said.text)
    except CallError:
        named = called(text, tuple(tools))
        return Mark(HALF if named in {right.tool for right in rights} else WRONG, True, timeout)
    right = any(right.tool == call.tool and right.holds(call) for right in rights)
    return Mark(RIGHT if right else WRONG, False, timeout)


def called(text: str, tools: tuple[str, ...]) -> str:
    """The first tool that a text calls in any form that is known; empty if there is none."""
    matches = [found for pattern in _patterns(tools) if (found := pattern.search(text[:MAX_TURN_CHARS]))]
    return min(matches, key=lambda found: found.start(1)).group(1).lower() if matches else ""


@cache
def _patterns(tools: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """Their first group is the tool; every repetition is bounded."""
    tool = f"({'|'.join(map(re.escape, tools))})"
    keys = "name|tool|tool_name|function|function_name|action|command|method|recipient_name"
    begin = r"^[ \t]{0,8}"
    labels = "(?:(?:next |tool |function )?(?:call|action|tool|function|command))"
    anywhere = [
        rf"""["'](?:{keys})["']\s{{0,8}}:\s{{0,8}}["'](?:\w{{1,40}}[.:/]){{0,3}}{tool}["']""",
        rf"""^[ \t]{{0,8}}\{{\s{{0,8}}["']{tool}["']\s{{0,8}}:""",
        rf"<(?:{keys}|tool_call|function_call|invoke|call)\b[^<>\n]{{0,80}}[=:]\s?[\"']?{tool}\b",
        rf"<(?:{keys}|tool_call|function_call|invoke|call)>\s{{0,8}}{tool}\b",
        rf"<{tool}(?:\s[^<>\n]{{0,200}})?/?>",
        rf"{begin}(?:[-*>$`]{{1,4}} ?)?(?:\w{{1,40}} ?= ?)?(?:await )?(?:print\()?(?:\w{{1,40}}\.){{0,3}}{tool}\(",
        rf"{begin}[-*>`]{{0,4}} ?{labels}\*{{0,2}} ?:[ *`\"]{{0,4}}{tool}\b",
        rf"{begin}(?:[-*] )?(?:[$>] |`|\*\*){tool}\b",
    ]
    bare = [  # a call as it should be, but not where it should be: words after it must look like arguments
        rf"{begin}(?=(?:undo|diff|submit|test|map)[ \t]*$){tool}",
        rf"{begin}(?=search \S){tool}(?: \S{{1,200}}){{1,6}}[ \t]*$",
        rf"{begin}(?=(?:view|edit|create|delete|map|test) ){tool} [\w\"/-]{{0,100}}[./:]\w[^\n]{{0,200}}$",
    ]
    loud = [re.compile(pattern, re.MULTILINE | re.IGNORECASE) for pattern in anywhere]
    return (*loud, *(re.compile(pattern, re.MULTILINE) for pattern in bare))
