"""The `Model` seam: what the loop needs from anything that can answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from agent.toolset import Tool

Role = Literal["system", "user", "assistant", "tool"]
Speech = Literal["terse", "text", "native"]
"""How a model calls tools: as it was trained to, in the terse protocol; as text that it is told how to write; or natively,
through its server's own tool calls, which are turned into text and back (agent/models/calls.py)."""


@dataclass(frozen=True)
class Message:
    """One message of a conversation; `tool` messages are observations."""

    role: Role
    content: str


@dataclass(frozen=True)
class Sampling:
    """`temperature` 0 is greedy; `max_tokens` bounds one completion; `seed` makes it repeatable.

    `tools` are offered to a model that speaks natively; every other learns of them from its system prompt.
    """

    temperature: float = 0.0
    max_tokens: int = 96
    seed: int = 0
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One answer. `prompt_tokens` counts the whole context, `cached_tokens` those not computed again.

    `text` is a turn of the turn protocol, whatever the model speaks. `thinking` is what a reasoning model said to itself;
    it counts as completion, and is never executed.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    seconds: float = 0.0
    finish_reason: Literal["stop", "length", "context"] = "stop"
    thinking: str = ""


class Model(Protocol):
    """Answers conversations, many at once where it can.

    `complete` takes one conversation per row and returns answers in the same order. `keys` name
    the conversations across calls, so that an engine can keep their KV cache between turns;
    `forget` frees what was kept.
    """

    name: str

    @property
    def speaks(self) -> Speech:
        """How it calls tools, so which toolkit's words it must be told.

        Raises:
            ModelUnavailable: its server has to be asked, and is away.
        """
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides an answer: weights, tokenizer, template, adapter, how it calls tools."""
        ...

    def use(self, adapter: Path | None) -> None:
        """Serve this adapter folder (PEFT layout) from the next completion on, or with None the bare base.

        Raises:
            ModelError: the engine cannot serve it; what was served before, or the bare base, goes on.
        """
        ...

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """One answer per conversation, in the same order."""
        ...

    def forget(self, keys: Sequence[str]) -> None:
        """Free what was kept of these conversations."""
        ...

    def unload(self) -> None:
        """Give the memory of the weights back, where it is this model's to give; the next completion takes it again.

        Raises:
            ModelError: it cannot be seen that the memory is free.
        """
        ...
