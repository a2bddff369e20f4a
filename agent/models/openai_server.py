"""What differs between the servers that speak Chat Completions: what they say of themselves, and how they take adapters."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, Field, JsonValue, NonNegativeInt, TypeAdapter

from agent.errors import ModelError, ModelUnavailable
from agent.models.remote import PASSING, Refused, Server, Text, decode

T = TypeVar("T")
ONCE = PASSING - {500}
"""vLLM answers 500 when an adapter does not fit; asking again would not help."""


class Function(BaseModel):
    """What a call names; some servers give the arguments as an object, not as its JSON."""

    name: Text = ""
    arguments: JsonValue = ""


class ToolCall(BaseModel):
    """One native call."""

    function: Function = Field(default_factory=Function)


class Said(BaseModel):
    """The message of an answer; what was thought comes under either name."""

    content: Text | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None


class Choice(BaseModel):
    """One answer."""

    message: Said
    finish_reason: str | None = None


class Details(BaseModel):
    """Where the prompt's tokens came from."""

    cached_tokens: NonNegativeInt | None = None


class Usage(BaseModel):
    """Tokens of prompt and answer."""

    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt = 0
    prompt_tokens_details: Details | None = None


class Reply(BaseModel):
    """What POST /chat/completions answers."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


class Card(BaseModel):
    """One model of GET /models; `root` and `max_model_len` are vLLM's."""

    id: Text
    root: Text | None = None
    max_model_len: NonNegativeInt | None = None


class Cards(BaseModel):
    """What GET /models answers."""

    data: list[Card]


class Given(BaseModel):
    """An adapter that llama-server took at its start."""

    id: int
    path: Text


REPLY, CARDS, GIVEN = TypeAdapter(Reply), TypeAdapter(Cards), TypeAdapter(list[Given])
ANYTHING: TypeAdapter[Any] = TypeAdapter(JsonValue)


@dataclass(frozen=True)
class Facts:
    """What a server says of itself. `given` are llama-server's adapters; None for every other server."""

    told: str
    given: tuple[Given, ...] | None


class ChatServer:
    """A server asked for `base`; `url` ends with /v1 where the server has it so."""

    def __init__(self, server: Server, base: str) -> None:
        self.http, self._base = server, base
        self._facts: tuple[int, Facts] | None = None

    def facts(self) -> Facts:
        """What the server says of itself; asked again when the connection failed meanwhile, as it may be another then.

        Raises:
            ModelUnavailable: it stays away.
            ModelError: it wants a key.
        """
        if self._facts is None or self._facts[0] != self.http.breaks:
            models = self._probe("/models", CARDS)
            cards = [card.model_dump() for card in models.data if card.id == self._base] if models else []
            props = self._probe("/../props", ANYTHING)
            build = {name: props.get(name) for name in ("build_info", "model_path")} if isinstance(props, dict) else None
            told = json.dumps([cards, self._probe("/../version", ANYTHING), build], sort_keys=True)
            given = self._probe("/../lora-adapters", GIVEN)
            self._facts = self.http.breaks, Facts(told, None if given is None else tuple(given))
        return self._facts[1]

    def _probe(self, path: str, kind: TypeAdapter[T]) -> T | None:
        """What an endpoint says, or None where the server does not have it."""
        try:
            return decode(kind, self.http.ask("GET", path), self.http.shown)
        except ModelUnavailable:
            raise
        except ModelError as error:
            if isinstance(error, Refused) and error.status in (401, 403) and path == "/models":
                raise
            return None

    def load(self, name: str, path: str) -> None:
        """Have the adapter at a path of the server's file system served under a name.

        Raises:
            ModelError: the server cannot, or does not take this one.
        """
        given = self.facts().given
        if given is not None:
            if self.given_id(name) is None:
                raise ModelError(
                    f"{self.http.shown} is a llama-server, which takes adapters only at its start, and {name} is not among "
                    f"them; export it with `sleepyctl adapters export ID --format gguf`, name the file {name}.gguf, "
                    "and start the server with `--lora FILE --lora-init-without-apply --cache-ram 0`"
                )
            return
        lacks = (
            f"{self.http.shown} cannot load adapters while it runs; start vLLM with --enable-lora and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or serve the fused model"
        )
        try:
            self.http.ask("POST", "/load_lora_adapter", {"lora_name": name, "lora_path": path}, ONCE)
        except Refused as error:
            if error.status in (404, 405, 501) and name not in error.said and path not in error.said:
                raise ModelError(lacks) from error
            if "already been loaded" not in error.said:  # the name is made of the content, so that is as good
                raise ModelError(f"{path}: {error}; train the adapter on this base") from error
        cards = self._probe("/models", CARDS)
        if cards is None or name not in {card.id for card in cards.data}:
            raise ModelError(lacks)  # LM Studio answers 200 to whatever it does not know

    def unload(self, name: str) -> None:
        """Have the server forget an adapter; if it does not, that only takes up room there."""
        with contextlib.suppress(ModelError):
            if self.facts().given is None:
                self.http.ask("POST", "/unload_lora_adapter", {"lora_name": name}, ONCE)

    def given_id(self, name: str) -> int | None:
        """llama-server's number of the adapter whose file has this name."""
        return next((one.id for one in self.facts().given or () if name and name in one.path), None)

    def switches(self, name: str) -> dict[str, object]:
        """llama-server: which of its adapters a request uses, and that no other's cache may serve it.

        Its cache in memory does not know which adapter it was computed with (llama.cpp issue 30129).

        Raises:
            ModelError: it was started anew, without the adapter that is served.
        """
        given, chosen = self.facts().given, self.given_id(name)
        if given is not None and name and chosen is None:
            self.load(name, name)
        if not given:
            return {}
        return {"lora": [{"id": one.id, "scale": float(one.id == chosen)} for one in given], "cache_prompt": False}
