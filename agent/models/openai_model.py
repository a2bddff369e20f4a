"""Any server that speaks OpenAI's Chat Completions: vLLM (adapters at run time), llama-server, LM Studio, hosted ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from agent.adapters import adapter_digest, read_peft
from agent.errors import ModelError
from agent.model import Completion, Message, Sampling, Speech
from agent.models.calls import Said, conversation, turn
from agent.models.openai_server import REPLY, ChatServer, Reply, Usage
from agent.models.payloads import chat_message, functions
from agent.models.remote import Patience, Refused, Server, decode, guessed_tokens, seed_of, side_by_side
from agent.models.thinking import split_thinking
from agent.toolset import Tool
from agent.turns import render_refused
from memory.hashing import content_hash

KEY_VARIABLE = "OPENAI_API_KEY"
TRIAL = Tool("greet", "Greet somebody.")
"""What is offered to see whether the server takes tools."""


class OpenAIModel:
    """A model on a server; `width` requests are under way at once, `context` tokens fit, prompt and answer together.

    The key is read from the environment variable `key_variable`: by default OPENAI_API_KEY for https, none for http.
    `think` is passed on to chat templates that know it; `options` are sent with every request, and one that is None
    leaves its field out. `path_there` says where the server finds an adapter folder, if its file system is another.
    `speaks` None has the server tried with a tool when it is first of interest: one that refuses it is spoken to in text.

    Adapters: vLLM loads and unloads them while it runs (started with --enable-lora and
    VLLM_ALLOW_RUNTIME_LORA_UPDATING=True); llama-server switches between those it was started with, known by their
    file names (`sleepy-` and 16 digits of the adapter's hash).

    Raises:
        ModelError: the URL is none, or a key is needed and missing.
    """

    def __init__(
        self,
        url: str,
        name: str,
        context: int = 0,
        timeout: float = 600.0,
        width: int = 8,
        key_variable: str = "",
        think: bool | None = None,
        options: Mapping[str, object] | None = None,
        path_there: Callable[[Path], str] = lambda folder: str(folder.resolve()),
        patience: Patience | None = None,
        speaks: Speech | None = None,
    ) -> None:
        variable = key_variable or (KEY_VARIABLE if url.lower().startswith("https:") else "")
        key = os.environ.get(variable, "").strip() if variable else ""
        if variable and not key:
            raise ModelError(f"no API key: set {variable} in the environment of the service")
        self.name = f"openai:{name}"
        self.adapter: Path | None = None
        self._server = ChatServer(Server(url, key, timeout, patience), name)
        self._base, self._loaded = name, ""
        self._context, self._width, self._path_there = context, width, path_there
        self._options: dict[str, object] = {} if think is None else {"chat_template_kwargs": {"enable_thinking": think}}
        self._options |= options or {}
        self._limit = "max_tokens"
        self._speaks = speaks

    def close(self) -> None:
        """Close the connections."""
        self._server.http.close()

    @property
    def speaks(self) -> Speech:
        """How it calls tools; see the `Model` seam."""
        if self._speaks is None:
            self._server.facts()
            asked = {"messages": [{"role": "user", "content": "Hello."}], self._limit: 64, "tools": functions([TRIAL])}
            try:
                self._ask({**asked, **self._options})
                self._speaks = "native"
            except Refused as error:
                self._speaks = "text" if error.toolless else "native"  # what else is wrong, the first answer will tell
        return self._speaks

    @property
    def fingerprint(self) -> str:
        """Hash of URL, model, what the server says of its version and weights, adapter, options, and how it calls tools."""
        told, speaks = self._server.facts().told, self.speaks
        return content_hash([self._server.http.shown, self._base, told, self._loaded, self._context, self._options, speaks])

    def use(self, adapter: Path | None) -> None:
        """Serve the bare base (None), or an adapter folder under a name made of its hash.

        Raises:
            ModelError: the adapter is none, or the server cannot load it; what was served goes on.
        """
        if adapter == self.adapter:
            return
        name = ""
        if adapter is not None:
            read_peft(adapter)
            name = f"sleepy-{adapter_digest(adapter)[:16]}"
            self._server.load(name, self._path_there(adapter))
        before, self.adapter, self._loaded = self._loaded, adapter, name
        if before and before != name:
            self._server.unload(before)

    def unload(self) -> None:
        """The memory is the server's."""

    def forget(self, keys: Sequence[str]) -> None:
        """Servers keep what they like."""

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """Answer every conversation; see the `Model` seam.

        Raises:
            ModelUnavailable: the server stays away.
            ModelError: it refuses.
        """
        tools = sampling.tools if conversations and sampling.tools and self.speaks == "native" else ()
        sampling = replace(sampling, tools=tools)
        turns = [conversation(messages, tools) for messages in conversations]
        names = list(keys) or [f"anonymous-{i}" for i in range(len(turns))]
        if turns:
            self._server.facts()
        return side_by_side(lambda i: self._complete(turns[i], names[i], sampling), len(turns), self._width)

    def _complete(self, turns: list[Said], name: str, sampling: Sampling) -> Completion:
        body: dict[str, object] = {
            "messages": [chat_message(said) for said in turns],
            **({"tools": functions(sampling.tools)} if sampling.tools else {}),
            "temperature": sampling.temperature,
            "seed": seed_of(sampling, name, len(turns)),
            self._limit: sampling.max_tokens,
            **self._options,
        }
        began = time.monotonic()
        try:
            return self._completion(self._ask(body), turns, sampling.max_tokens, time.monotonic() - began)
        except Refused as error:
            if sampling.tools and error.garbled:
                text, seconds = render_refused("", error.said), time.monotonic() - began
                return Completion(text, _guess(turns), guessed_tokens(error.said), 0, seconds)
            if not error.overflow:
                raise
        try:  # without a limit the answer takes what is left of the context, if the prompt leaves anything
            reply = self._ask({name: value for name, value in body.items() if name != self._limit})
            return self._completion(reply, turns, None, time.monotonic() - began)
        except Refused as error:
            if not error.overflow:
                raise
            return Completion("", _guess(turns), 0, 0, time.monotonic() - began, "context")

    def _ask(self, body: dict[str, object]) -> Reply:
        body = dict(body)
        for last in (False, False, True):
            whole = {"model": self._base, **body, **self._server.switches(self._loaded)}
            if self._loaded and "lora" not in whole:
                whole["model"] = self._loaded
            try:
                wanted = {name: value for name, value in whole.items() if value is not None}
                return decode(REPLY, self._server.http.ask("POST", "/chat/completions", wanted), self._server.http.shown)
            except Refused as error:
                if last:
                    raise
                if error.status == 404 and self.adapter is not None and whole["model"] == self._loaded:
                    self._server.load(self._loaded, self._path_there(self.adapter))  # the server was started anew
                elif error.status == 400 and "max_completion_tokens" in error.said and "max_tokens" in body:
                    self._limit = "max_completion_tokens"
                    body[self._limit] = body.pop("max_tokens")
                else:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _completion(self, reply: Reply, turns: list[Said], limit: int | None, seconds: float) -> Completion:
        said, ended = reply.choices[0].message, reply.choices[0].finish_reason
        inline, prose = split_thinking(said.content or "")
        calls = [(call.function.name, call.function.arguments) for call in said.tool_calls or ()]
        text = turn(prose, calls, ended != "length")
        thinking = "\n".join(part for part in (said.reasoning_content or said.reasoning, inline) if part)
        usage = reply.usage or Usage(prompt_tokens=_guess(turns), completion_tokens=guessed_tokens(thinking + text))
        prompt, answer = usage.prompt_tokens, usage.completion_tokens
        reason: Literal["stop", "length", "context"] = "length" if ended == "length" else "stop"
        if reason == "length" and (limit is None or (reply.usage is not None and answer < limit)):
            reason = "context"
        if self._context and prompt + answer >= self._context:
            reason = "context"
        cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
        return Completion(text, prompt, answer, min(cached, prompt), seconds, reason, thinking)


def _guess(turns: list[Said]) -> int:
    return guessed_tokens("".join(said.text for said in turns))
