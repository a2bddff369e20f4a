"""Readers "mini-swe-agent/1" and "/2": mini-swe-agent's `.traj.json` files, one JSON object each.

Version 1 (`trajectory_format` "mini-swe-agent-1", or none) has its commands in fenced blocks of the messages; version 2
("mini-swe-agent-1.1", written since 2.0) lists them as `extra.actions`. Source: mini-swe-agent, docs/usage/output_files.md.
"""

from __future__ import annotations

import re
from typing import Any

from memory.ingest.sessions import (
    NOT_GRADED,
    Session,
    SessionError,
    Skipped,
    Turn,
    entries,
    instance_of,
    moment,
    name,
    plain,
    repo_of,
    statement,
    table,
)
from memory.trajectories import Outcome

READERS = {"mini-swe-agent-1": "mini-swe-agent/1", "mini-swe-agent-1.1": "mini-swe-agent/2"}
_FENCE = re.compile(r"```(?:mswea_bash_command|bash|sh)[ \t]*\r?\n(.*?)\r?\n?```", re.DOTALL)
_BUDGET = ("LimitsExceeded", "TimeExceeded", "ContextWindowExceededError")


def is_file(value: object) -> bool:
    """Whether a parsed file is one of mini-swe-agent's; the oldest are bare lists of messages."""
    if isinstance(value, list):
        return bool(value) and all("role" in table(one) for one in value[:3])
    return isinstance(table(value).get("messages"), list)


def read(value: Any, stem: str, skipped: Skipped) -> list[Session]:
    """The one session of a parsed file; `stem` is the file's name, which is the instance id in benchmark runs.

    Raises:
        SessionError: if its format is unknown, or no assistant says anything in it.
    """
    whole = table(value)
    version = str(whole.get("trajectory_format") or "mini-swe-agent-1")
    if version not in READERS:
        raise SessionError(f"its format is {version[:60]!r}; known are {', '.join(READERS)}")
    messages = []
    for number, message in enumerate(entries(value if isinstance(value, list) else whole.get("messages")), start=1):
        if isinstance(message, dict):
            messages.append(message)
        else:
            skipped.bad(f"message {number}", "no message")
    info = table(whole.get("info"))
    config = table(info.get("config"))
    instance = instance_of(whole.get("instance_id"), stem)
    outcome, reason = _end(info.get("exit_status"))
    session = Session(
        READERS[version],
        name(whole.get("instance_id")),
        instance,
        repo_of(instance),
        statement(next((_text(one) for one in messages if one.get("role") == "user" and _text(one).strip()), "")),
        name(table(config.get("model")).get("model_name")),
        next((when for one in messages if (when := moment(table(one.get("extra")).get("timestamp")))), None),
        _turns(messages),
        outcome,
        reason,
    )
    if not session.turns:
        raise SessionError("no assistant says anything in it (messages)")
    return [session]


def _turns(messages: list[dict[str, Any]]) -> list[Turn]:
    turns: list[Turn] = []
    waiting: dict[str, Turn] = {}
    queue: list[Turn] = []
    for message in messages:
        if _is_answer(message):
            new = _answer(message, waiting)
            turns, queue = turns + new, [turn for turn in new if turn.tool] or new[-1:]
        elif turns and (text := _text(message)):
            identity = name(message.get("tool_call_id")) or name(message.get("call_id"))
            turn = waiting.pop(identity, None) or (queue[0] if queue else turns[-1])
            queue = [other for other in queue if other is not turn]
            turn.observation = f"{turn.observation}\n\n{text}".lstrip("\n") if turn.observation else text
    return turns


def _is_answer(message: dict[str, Any]) -> bool:
    return message.get("role") == "assistant" or message.get("object") == "response"


def _answer(message: dict[str, Any], waiting: dict[str, Turn]) -> list[Turn]:
    text = _text(message)
    actions = [one for one in entries(table(message.get("extra")).get("actions")) if isinstance(table(one).get("command"), str)]
    if not actions and (match := _FENCE.search(text)):
        actions = [{"command": match[1]}]
    prose = _FENCE.sub("", text).strip() if actions else text
    turns: list[Turn] = []
    for action in actions:
        turn = Turn(prose if not turns else "", "bash", {"command": action["command"]})
        turns.append(turn)
        if identity := name(action.get("tool_call_id")):
            waiting[identity] = turn
    return turns or [Turn(prose)]


def _text(message: dict[str, Any]) -> str:
    """A message's text, in the form of either of OpenAI's interfaces."""
    output = message.get("output")
    if isinstance(output, str):
        return output
    said = [plain(table(item).get("content")) for item in entries(output) if table(item).get("type") == "message"]
    return "\n".join([plain(message.get("content")), *said]).strip("\n")


def _end(status: object) -> tuple[Outcome, str]:
    text = status if isinstance(status, str) else ""
    if text in ("", "Submitted"):
        return Outcome.UNRESOLVED, NOT_GRADED
    return (Outcome.OUT_OF_BUDGET if text in _BUDGET else Outcome.GAVE_UP), f"{NOT_GRADED}; its agent ended with {text[:100]}"
