"""Reader "swe-agent/1": SWE-agent's `.traj` files (0.x and 1.x), one JSON object each.

`trajectory` holds the steps (thought, action, observation), `history` the messages, `info` how it ended, `replay_config`
what was asked (an object, or one written as text). Source: SWE-agent, docs/usage/trajectories.md and sweagent/types.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from memory.ingest.sessions import (
    NOT_GRADED,
    Session,
    SessionError,
    Skipped,
    Turn,
    entries,
    instance_of,
    name,
    parsed,
    plain,
    repo_of,
    statement,
    table,
)
from memory.trajectories import Outcome

READER = "swe-agent/1"
AHEAD = 20
"""Answers in the history among which a step's own is looked for; those asked again are not in both lists."""
_GITHUB = re.compile(r"github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?(?:/|$)")
_BUDGET = ("exit_cost", "exit_context", "exit_total_execution_time", "exit_command_timeout")


def is_file(value: object) -> bool:
    """Whether a parsed file is one of SWE-agent's."""
    found = table(value)
    return isinstance(found.get("trajectory"), list) or ("history" in found and "messages" not in found) or "attempts" in found


def read(value: dict[str, Any], stem: str, skipped: Skipped) -> list[Session]:
    """The sessions of a parsed file (several attempts are several); `stem` is the file's name, often the instance id.

    Raises:
        SessionError: if it has no steps.
    """
    attempts = [value] if isinstance(value.get("trajectory"), list) else [table(one) for one in entries(value.get("attempts"))]
    sessions = [_session(attempt, value, stem, skipped) for attempt in attempts]
    told = [session for session in sessions if session.turns]
    if not told:
        raise SessionError("it has no steps (trajectory)")
    return told


def _session(attempt: dict[str, Any], whole: dict[str, Any], stem: str, skipped: Skipped) -> Session:
    history = [table(message) for message in entries(attempt.get("history"))]
    config = _config(attempt.get("replay_config") or whole.get("replay_config"))
    problem, agent = table(config.get("problem_statement")), table(config.get("agent"))
    source = table(table(config.get("env")).get("repo"))
    identity = name(problem.get("id")) or name(attempt.get("instance_id"))
    instance = instance_of(identity, attempt.get("instance_id"), agent.get("name"), stem)
    asked = problem.get("text") or statement(_first_user(history))
    outcome, reason = _end(table(attempt.get("info")).get("exit_status"))
    return Session(
        READER,
        identity,
        instance,
        repo_of(instance) or _github(problem.get("github_url"), source.get("github_url")) or name(source.get("repo_name")),
        asked if isinstance(asked, str) else "",
        name(table(agent.get("model")).get("name")),
        turns=list(_turns(entries(attempt.get("trajectory")), history, skipped)),
        outcome=outcome,
        reason=reason,
    )


def _turns(steps: list[Any], history: list[dict[str, Any]], skipped: Skipped) -> Iterator[Turn]:
    said = [message for message in history if message.get("role") == "assistant" and not message.get("is_demo")]
    place = 0
    for number, step in enumerate(steps, start=1):
        if not isinstance(step, dict) or not isinstance(step.get("action", ""), str):
            skipped.bad(f"step {number}", "no step with an action")
            continue
        action, observation = step.get("action", ""), plain(step.get("observation"))
        prose = plain(step.get("thought")) or plain(step.get("response"))
        calls: list[Any] = []
        for index in range(place, min(place + AHEAD, len(said))):
            if said[index].get("action") == action:
                calls, place = entries(said[index].get("tool_calls")), index + 1
                break
        if calls and (tool := name(table(table(calls[0]).get("function")).get("name"))):
            yield Turn(prose, tool, arguments(table(calls[0]["function"]).get("arguments")), observation)
        elif action.strip():
            yield Turn(prose, "bash", {"command": action.strip("\n")}, observation)
        else:
            yield Turn(prose, observation=observation)


def arguments(value: object) -> object:
    """A call's arguments: an object, often written as text; what is none stays as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parsed(value.encode("utf-8", "replace"))
    except SessionError:
        return value


def _config(value: object) -> dict[str, Any]:
    return table(arguments(value))


def _first_user(history: list[dict[str, Any]]) -> str:
    asked = (plain(one.get("content")) for one in history if one.get("role") == "user" and not one.get("is_demo"))
    return next((text for text in asked if text.strip()), "")


def _github(*addresses: object) -> str:
    for address in addresses:
        if isinstance(address, str) and (match := _GITHUB.search(address)):
            return f"{match[1]}/{match[2]}"
    return ""


def _end(status: object) -> tuple[Outcome, str]:
    text = status if isinstance(status, str) else "" if status is None else json.dumps(status)[:100]
    if any(one in text for one in _BUDGET):
        return Outcome.OUT_OF_BUDGET, f"{NOT_GRADED}; its agent ended with {text[:100]}"
    if text and not text.startswith("submitted"):
        return Outcome.GAVE_UP, f"{NOT_GRADED}; its agent ended with {text[:100]}"
    return Outcome.UNRESOLVED, NOT_GRADED
