"""Native tool calls, as text and back: a trajectory stays text, so that storing, training and replaying know nothing of them.

An answer's call becomes a turn of the full protocol, with what the model said before it; the next request tells the server of
that turn as a call again, and of the observation as its result. Of several calls in one answer only the first counts: it is
what is stored, carried out and shown again, so that the model sees no other as made. What is no call of ours (unknown tool,
arguments that are no JSON or do not fit) becomes a turn that is none, which the agent corrects. Turns that cannot be told as
a call are told as text, so that every request is one that its API takes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from agent.errors import CallError, ModelError
from agent.model import Message
from agent.models.remote import EMPTY, clean
from agent.toolset import Tool
from agent.turns import REFUSED, Call, arguments_of, call_of, read_full, render_full, render_refused


@dataclass(frozen=True)
class Use:
    """A native call. `id` pairs it with its result: 9 letters and digits, which every template takes."""

    id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class Said:
    """A message as chat servers take it: an assistant's may have a call, and a tool's text is the result of `use`."""

    role: str
    text: str
    use: Use | None = None


def turn(prose: str, calls: Sequence[tuple[str, object]], whole: bool = True) -> str:
    """The text of an answer: its prose, and the first of its calls (name; arguments as an object or its JSON).

    With `whole` false the answer was cut, and so perhaps its call, which is then never carried out.
    """
    if not calls:
        return prose
    name, given = calls[0]
    arguments = _object(given)
    try:
        if arguments is None or not whole:
            raise CallError("no whole arguments")
        call = call_of(name, arguments)
        bare = render_full(call)
        text = f"{prose.strip()}\n\n{bare}" if prose.strip() else bare
        return text if _read(text) == (prose.strip(), call) else bare
    except CallError:
        return clean(render_refused(name, given if arguments is None or whole else json.dumps(given)[:-1]))


def conversation(messages: Sequence[Message], tools: Sequence[Tool] = ()) -> list[Said]:
    """Messages as chat servers take them. Without tools, observations are the user's words, and roles alternate.

    With tools, a turn with a call is told as one, and the observation after it as its result.

    Raises:
        ModelError: there is nothing to answer.
    """
    names = {tool.name for tool in tools}
    found: list[Said] = []
    for at, message in enumerate(messages):
        last = found[-1] if found else None
        text = clean(message.content) if message.content.strip() else EMPTY
        answered = message.role == "assistant" and at + 1 < len(messages) and messages[at + 1].role == "tool"
        if names and answered and (made := _made(text, names, f"call{at:05d}")):
            found.append(made)
        elif message.role == "tool" and last and last.role == "assistant" and last.use:
            found.append(Said("tool", text, last.use))
        else:
            role = "user" if message.role == "tool" else message.role
            if last and last.role == role and not last.use:
                text = f"{found.pop().text}\n\n{text}"
            found.append(Said(role, text))
    if not any(said.role != "system" for said in found):
        raise ModelError("an empty conversation cannot be answered")
    return found


def _made(text: str, names: set[str], identity: str) -> Said | None:
    """The call of an earlier turn, with what was said before it; of one that is none of ours, if there is the tool at least."""
    if text.startswith(REFUSED):
        made = _object(text)
        name, arguments = (made.get("name"), made.get("arguments")) if made else (None, None)
        fits = isinstance(name, str) and name in names and isinstance(arguments, dict)
        return Said("assistant", "", Use(identity, name, arguments)) if fits else None  # type: ignore[arg-type]
    prose, call = _read(text)
    return Said("assistant", prose, Use(identity, call.tool, arguments_of(call))) if call and call.tool in names else None


def _read(text: str) -> tuple[str, Call | None]:
    try:
        return read_full(text)
    except CallError:
        return text, None


def _object(given: object) -> dict[str, object] | None:
    """Arguments as an object that can be sent back as JSON, its texts cleaned; None if they are none."""
    try:
        made = json.loads(given, parse_constant=_no_number) if isinstance(given, str) else given
        json.dumps(made, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return None
    if not isinstance(made, dict):
        return None
    return {clean(str(key)): clean(value) if isinstance(value, str) else value for key, value in made.items()}


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
