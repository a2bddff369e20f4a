"""Claude through Anthropic's API: prompt caching, and a budget in dollars that is never exceeded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, JsonValue, TypeAdapter

from agent.errors import ModelError
from agent.model import Completion, Message, Sampling, Speech
from agent.models.calls import Said, conversation, turn
from agent.models.payloads import CACHED, block_messages, bytes_of, described
from agent.models.purse import Price, Purse, Usage
from agent.models.remote import (
    PASSING,
    Passing,
    Patience,
    Refused,
    Text,
    decode,
    guessed_tokens,
    persist,
    printable,
    retry_after,
    side_by_side,
)
from agent.models.thinking import split_thinking
from memory.hashing import content_hash

KEY_VARIABLE = "ANTHROPIC_API_KEY"
OVERHEAD_TOKENS = 64
"""What a message may cost beyond the bytes of its text."""
TOOLS_TOKENS = 1_024
"""What the API's own instructions for tools may cost, beyond the bytes of their description."""
MIN_THINKING = 1_024
REASONS: Mapping[str | None, Literal["stop", "length", "context"]] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "context",
}
PRICES: Mapping[str, Price] = {
    "claude-opus-4-1": Price(15.0, 75.0),
    "claude-opus-4-": Price(5.0, 25.0),
    "claude-sonnet-4-": Price(3.0, 15.0),
    "claude-haiku-4-": Price(1.0, 5.0),
}
"""By the beginning of the model's name (the first that fits), as published for standard requests in 2026. They change
without notice: it is the owner's part to check them against the bill, and to give the price of any other model."""


class Block(BaseModel):
    """One block of an answer."""

    type: str
    text: Text = ""
    thinking: Text = ""
    name: Text = ""
    input: JsonValue = None


class Reply(BaseModel):
    """What POST /v1/messages answers."""

    content: list[Block]
    stop_reason: str | None = None
    usage: Usage


class Info(BaseModel):
    """What GET /v1/models/NAME answers."""

    id: Text
    created_at: Text = ""


REPLY, INFO = TypeAdapter(Reply), TypeAdapter(Info)


class _Lost(Passing):
    """The connection broke after the request was sent: the answer may have to be paid for."""


class AnthropicModel:
    """A Claude model, `width` requests at once, for at most `budget_usd` dollars in all (`spent_usd` of them already spent).

    The system prompt and the conversation so far are marked for the prompt cache. `thinking_tokens` (0, or at least
    1,024) are granted on top of an answer's own. A temperature or seed is not sent, as current models take neither;
    `options` are added to every request for those that do, such as {"temperature": 0}. Tools are called natively, unless
    `native` is false or the model thinks: the API wants its signed thoughts back with every call, and a trajectory keeps none.

    Raises:
        ModelError: the key is missing, or the price is not known.
    """

    def __init__(
        self,
        name: str,
        budget_usd: float,
        timeout: float = 600.0,
        width: int = 4,
        price: Price | None = None,
        spent_usd: float = 0.0,
        thinking_tokens: int = 0,
        options: Mapping[str, object] | None = None,
        url: str | None = None,
        key_variable: str = KEY_VARIABLE,
        patience: Patience | None = None,
        native: bool = True,
    ) -> None:
        key = os.environ.get(key_variable, "").strip()
        if not key:
            raise ModelError(f"no API key: set {key_variable} in the environment of the service")
        known = price or next((there for start, there in PRICES.items() if name.startswith(start)), None)
        if known is None:
            raise ModelError(f"no price is known for {name!r}; give one, so that the budget means something")
        if thinking_tokens and thinking_tokens < MIN_THINKING:
            raise ModelError(f"{thinking_tokens} tokens to think are too few; grant 0, or at least {MIN_THINKING}")
        import anthropic

        self.name = f"anthropic:{name}"
        self._model, self._price, self._width = name, known, width
        self._purse = Purse(budget_usd, spent_usd)
        self._patience, self._key, self._timeout = patience or Patience(), key, timeout
        self._library: Any = anthropic
        self._client = anthropic.Anthropic(api_key=key, base_url=url, timeout=timeout, max_retries=0)
        self._options: dict[str, object] = dict(options or {})
        self._thinking = thinking_tokens
        if thinking_tokens:
            self._options = {"thinking": {"type": "enabled", "budget_tokens": thinking_tokens}} | self._options
        self._told = ""
        self.speaks: Speech = "native" if native and self._options.get("thinking") in (None, {"type": "disabled"}) else "text"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def spent_usd(self) -> float:
        """Dollars spent so far; a call whose answer never came counts with the most it can have cost."""
        return self._purse.spent

    @property
    def fingerprint(self) -> str:
        """Hash of URL, model as the server names it, options, and how it calls tools."""
        if not self._told:
            retrieve = self._client.models.with_raw_response.retrieve
            content = persist(lambda: self._once(lambda: retrieve(self._model)), self._where, self._patience)
            self._told = decode(INFO, content, self._where).model_dump_json()
        return content_hash([self._where, self._model, self._told, self._options, self.speaks])

    @property
    def _where(self) -> str:
        return str(self._client.base_url.copy_with(userinfo=b"", query=None)).rstrip("/")

    def use(self, adapter: Path | None) -> None:
        """Serve the bare base; there is nothing else.

        Raises:
            ModelError: an adapter was asked for.
        """
        if adapter is not None:
            raise ModelError(f"{self.name} takes no adapters; serve a model of your own, such as ollama:NAME")

    def unload(self) -> None:
        """There is nothing of it on this machine."""

    def forget(self, keys: Sequence[str]) -> None:
        """The cache there forgets by itself, after five minutes."""

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """Answer every conversation; see the `Model` seam.

        Raises:
            ModelUnavailable: the server stays away, or wants to be left alone for long.
            ModelError: it refuses, or the budget would be exceeded.
        """
        tools = sampling.tools if self.speaks == "native" else ()
        told = [described(tool) for tool in tools]
        turns = [conversation(messages, tools) for messages in conversations]
        return side_by_side(lambda i: self._complete(turns[i], sampling.max_tokens, told), len(turns), self._width)

    def _complete(self, turns: list[Said], max_tokens: int, tools: list[dict[str, Any]]) -> Completion:
        system = "\n\n".join(said.text for said in turns if said.role == "system")
        body: dict[str, Any] = {
            "model": self._model,
            "max_tokens": max_tokens + self._thinking,
            "messages": block_messages(turns),
        }
        if system:
            body["system"] = [{"type": "text", "text": system, **CACHED}]
        if tools:
            body |= {"tools": tools, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}
        size = sum(bytes_of(said) + OVERHEAD_TOKENS for said in turns)  # no token is less than a byte
        size += len(json.dumps(tools, ensure_ascii=False).encode()) + TOOLS_TOKENS if tools else 0
        worst = self._price.at_most(size, max_tokens + self._thinking)
        began = time.monotonic()

        def attempt() -> Reply:
            with self._purse.bill(worst) as cost:
                try:
                    content = self._once(
                        lambda: self._client.messages.with_raw_response.create(
                            **body, extra_body=self._options, timeout=self._timeout
                        )
                    )
                except (Refused, Passing) as error:
                    if not isinstance(error, _Lost):
                        cost.append(0.0)
                    raise
                reply = decode(REPLY, content, self._where)
                cost.append(self._price.of(reply.usage))
                return reply

        try:
            return _completion(persist(attempt, self._where, self._patience), time.monotonic() - began)
        except Refused as error:
            if not error.overflow:
                raise
            guess = guessed_tokens("".join(said.text for said in turns))
            return Completion("", guess, 0, 0, time.monotonic() - began, "context")

    def _once(self, call: Callable[[], Any]) -> str:
        """The text of one answer; the library's errors become ours."""
        try:
            return str(call().http_response.text)
        except self._library.APIStatusError as error:
            said = printable(f"{error.status_code} {getattr(error, 'api_message', None) or error.message}", self._key)
            if error.status_code in PASSING:
                raise Passing(said, retry_after(error.response.headers)) from error
            raise Refused(f"{self._where} refuses ({said})", error.status_code, said) from error
        except self._library.APIConnectionError as error:
            why = printable(f"{type(error.__cause__).__name__}: {error.__cause__ or error}", self._key)
            unsent = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
            raise (Passing if unsent else _Lost)(why) from error
        except self._library.AnthropicError as error:
            raise ModelError(f"{self._where}: {printable(str(error), self._key)}") from error


def _completion(reply: Reply, seconds: float) -> Completion:
    inline, prose = split_thinking("".join(block.text for block in reply.content if block.type == "text"))
    calls = [(block.name, block.input) for block in reply.content if block.type == "tool_use"]
    thoughts = [*(block.thinking for block in reply.content if block.type == "thinking"), inline]
    usage = reply.usage
    cached = usage.cache_read_input_tokens or 0
    prompt = usage.input_tokens + (usage.cache_creation_input_tokens or 0) + cached
    reason = REASONS.get(reply.stop_reason, "stop")
    text = turn(prose, calls, reason == "stop")
    return Completion(text, prompt, usage.output_tokens, cached, seconds, reason, "\n".join(filter(None, thoughts)))
