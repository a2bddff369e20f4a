"""Native tool calls of the doubles: the pocket model's own words as a call, as a server's parser has it, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from agent.errors import CallError
from agent.models.thinking import split_thinking
from agent.turns import arguments_of, call_of, parse_call, render_call

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def heard(text: str) -> tuple[str, str, dict[str, object]] | None:
    """What the model said before a call, the tool, and the arguments; None if it made none."""
    _, said = split_thinking(text)
    try:
        call = parse_call(said)
        return (text.removesuffix(said), call.tool, arguments_of(call)) if render_call(call) == said else None
    except CallError:
        return None


def words(name: str, arguments: Mapping[str, object]) -> str:
    """A call as the pocket model says it; anything else as JSON."""
    try:
        return render_call(call_of(name, arguments))
    except CallError:
        return json.dumps([name, arguments])


def bad_functions(tools: Any) -> str:
    """What is wrong with tools as Chat Completions and Ollama take them; nothing if nothing is."""
    if not isinstance(tools, list) or not tools:
        return "Invalid 'tools': empty array. Expected an array with minimum length 1"
    for at, tool in enumerate(tools):
        function = tool.get("function", {}) if isinstance(tool, dict) and tool.get("type") == "function" else {}
        if not NAME.fullmatch(str(function.get("name", ""))) or function.get("parameters", {}).get("type") != "object":
            return f"Invalid value: 'tools[{at}]'"
    return ""


def chat_problem(messages: Sequence[Mapping[str, Any]]) -> str:
    """How messages break the rules of Chat Completions: every call has its result right after it, every result its call."""
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        if message["role"] == "tool":
            if message.get("tool_call_id") not in open_calls:
                return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            return "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'."
        calls = message.get("tool_calls", [])
        if message.get("content") is None and not calls:
            return f"messages[{at}].content: expected a string, got null"
        for call in calls:
            function = call["function"]
            if message["role"] != "assistant" or call["type"] != "function" or not NAME.fullmatch(function["name"]):
                return f"Invalid value: messages[{at}].tool_calls"
            try:
                fits = isinstance(json.loads(function["arguments"], parse_constant=int), dict)
            except ValueError:
                fits = False
            if not fits:
                return f"messages[{at}].tool_calls: arguments are no JSON object"
        open_calls += [call["id"] for call in calls]
    return "An assistant message with 'tool_calls' must be followed by tool messages" if open_calls else ""


def chat_words(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Messages of Chat Completions as the model reads them: calls in its own words, results as the user's."""
    told = []
    for message in messages:
        calls = [call["function"] for call in message.get("tool_calls", [])]
        said = [words(call["name"], json.loads(call["arguments"])) for call in calls]
        role = "user" if message["role"] == "tool" else message["role"]
        told.append({"role": role, "content": "\n".join([*filter(None, [message.get("content")]), *said])})
    return told


def block_words(block: Mapping[str, Any]) -> str:
    """A block of Anthropic's messages as the model reads it."""
    if block["type"] == "tool_use":
        return words(block["name"], block["input"])
    return str(block["content"] if block["type"] == "tool_result" else block["text"])


def blocks_problem(body: Mapping[str, Any]) -> str:
    """How the messages break the rules of Anthropic's tool use."""
    for tool in body.get("tools", []):
        if not NAME.fullmatch(tool["name"]) or tool["input_schema"].get("type") != "object":
            return f"tools: {tool['name']}: invalid"
    waiting: list[str] = []
    for at, message in enumerate(body["messages"]):
        uses = [block for block in message["content"] if block["type"] == "tool_use"]
        results = [block["tool_use_id"] for block in message["content"] if block["type"] == "tool_result"]
        if (uses or results) and not body.get("tools"):
            return "Requests which include `tool_use` or `tool_result` blocks must define tools"
        if any(not NAME.fullmatch(use["id"]) or not isinstance(use["input"], dict) for use in uses):
            return f"messages.{at}.content: tool_use: Input should be a valid dictionary"
        if lost := [one for one in waiting if one not in results]:
            return f"messages.{at - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: {lost[0]}."
        if odd := [one for one in results if one not in waiting]:
            return f"messages.{at}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {odd[0]}."
        if any(block["type"] != "tool_result" for block in message["content"][: len(results)]):
            return f"messages.{at}: tool_result blocks must come first"
        if uses and body.get("thinking", {}).get("type") == "enabled" and message["content"][0]["type"] != "thinking":
            return "Expected `thinking` or `redacted_thinking`, but found `tool_use`."
        waiting = [use["id"] for use in uses]
    return "`tool_use` ids were found without `tool_result` blocks" if waiting else ""
