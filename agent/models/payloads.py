"""Tools, calls and results as each API writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agent.models.calls import Said
from agent.toolset import Tool

CACHED = {"cache_control": {"type": "ephemeral"}}
"""Marks where Anthropic's prompt cache may end."""


def functions(tools: Iterable[Tool]) -> list[dict[str, object]]:
    """Tools as Chat Completions and Ollama take them."""
    told = ({"name": tool.name, "description": tool.description, "parameters": tool.schema} for tool in tools)
    return [{"type": "function", "function": one} for one in told]


def chat_message(said: Said) -> dict[str, object]:
    """A message of Chat Completions."""
    if said.use is None:
        return {"role": said.role, "content": said.text}
    if said.role == "tool":
        return {"role": "tool", "tool_call_id": said.use.id, "content": said.text}
    function = {"name": said.use.name, "arguments": json.dumps(said.use.arguments, ensure_ascii=False)}
    calls = [{"id": said.use.id, "type": "function", "function": function}]
    return {"role": "assistant", "content": said.text or None, "tool_calls": calls}


def ollama_message(said: Said) -> dict[str, object]:
    """A message of Ollama's."""
    message: dict[str, object] = {"role": said.role, "content": said.text}
    if said.use and said.role == "tool":
        message["tool_name"] = said.use.name
    elif said.use:
        message["tool_calls"] = [{"function": {"name": said.use.name, "arguments": said.use.arguments}}]
    return message


def described(tool: Tool) -> dict[str, object]:
    """A tool as the API takes it."""
    return {"name": tool.name, "description": tool.description, "input_schema": tool.schema}


def block_messages(turns: Sequence[Said]) -> list[dict[str, Any]]:
    """Blocks of user and assistant in turns; a result comes first in the message after its call. The last one is marked."""
    messages: list[dict[str, Any]] = []
    for said in turns:
        if said.role == "system":
            continue
        role = "assistant" if said.role == "assistant" else "user"
        if not messages or messages[-1]["role"] != role:
            messages.append({"role": role, "content": []})
        messages[-1]["content"] += _blocks(said)
    messages[-1]["content"][-1] |= CACHED
    return messages


def _blocks(said: Said) -> list[dict[str, Any]]:
    if said.role == "tool" and said.use:
        return [{"type": "tool_result", "tool_use_id": said.use.id, "content": said.text}]
    blocks: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    if said.use:
        blocks.append({"type": "tool_use", "id": said.use.id, "name": said.use.name, "input": said.use.arguments})
    return blocks


def bytes_of(said: Said) -> int:
    """Bytes of what is told of a message: its text, and the arguments of its call."""
    called = json.dumps(said.use.arguments, ensure_ascii=False) if said.use and said.role == "assistant" else ""
    return len(said.text.encode()) + len(called.encode())
