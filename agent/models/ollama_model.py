"""A model that Ollama serves (native API), with adapters that somebody publishes to it.

Whether a prompt was cut. Ollama cuts what does not fit into `num_ctx`, and says nothing: it leaves out the oldest messages,
then shortens the last one. Every request therefore asks it to refuse instead (`truncate: false`; known since 0.12.6), and
what it answers is checked against `prompt_eval_count`. That field counts the whole prompt from 0.4 to 0.29 and from 0.30.1;
before and between (0.30.0 took llama-server's own figure, ollama issue 16414) only what was not in the cache, and it is missing
where that is nothing (issues 2068 and 3427). So:
- with a tokenizer, our own count decides before anything is sent. What was sent fits; a smaller count afterwards is a cache
  hit where the server counts so, and a cut prompt where it counts whole prompts.
- without one, a prompt with fewer bytes than the context has tokens fits, because a token is at least one byte. A longer one
  is believed to be whole if the server refuses what is not; else its tokens are estimated from the bytes per token of earlier
  answers, and if they may not fit, the answer is thrown away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ollama import ChatResponse

from agent.adapters import adapter_digest, read_peft
from agent.errors import ModelError
from agent.model import Completion, Message, Sampling, Speech
from agent.models.calls import conversation, turn
from agent.models.chat import ChatTokenizer, speech_of
from agent.models.ollama_server import HOST, OllamaServer, Version, adapters_in, full_name, trained_context
from agent.models.payloads import functions, ollama_message
from agent.models.remote import Patience, Refused, clean, guessed_tokens, seed_of, side_by_side
from agent.models.thinking import split_thinking
from agent.pocket.tokenizer import PocketTokenizer
from agent.toolset import Tool
from agent.turns import render_refused
from memory.hashing import content_hash

OURS = "sleepy-"
"""Names of the models that we publish begin so."""
REFUSES_CUTS: Version = (0, 12, 6)
MARKS, TEMPLATE = 32, 256
"""Tokens that a template may add to a message, and to a conversation."""
SLACK = 0.05
"""How far our count and the server's may be apart, as a part of ours."""
SPARSE, DENSE = 8.0, 2.0
"""Bytes per token: more and fewer than any byte-pair vocabulary has on code and English."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Known:
    """What the server told of the model that is served."""

    version: Version
    window: int
    thinks: bool

    @property
    def refuses_cuts(self) -> bool:
        return self.version >= REFUSES_CUTS

    @property
    def counts_whole(self) -> bool:
        return (0, 4) <= self.version < (0, 30) or self.version >= (0, 30, 1)


class OllamaModel:
    """A model by its name in Ollama; `context` tokens fit, prompt and answer together.

    `provide` has Ollama serve an adapter folder, and returns under which name. `tokenizer` is that of the weights nights train
    on: it makes token counts exact, and as nights train text, such a model is not spoken to natively; `speaks` None asks the
    server of every other whether it takes tools. `width` requests are under way
    at once; Ollama queues those it does not compute at once (OLLAMA_NUM_PARALLEL), and `timeout` (seconds) includes that.
    `think` None leaves thinking to the model. The server is first asked when it is first needed.
    """

    def __init__(
        self,
        name: str,
        host: str = HOST,
        context: int = 16_384,
        keep_alive: float | str = "15m",
        timeout: float = 600.0,
        provide: Callable[[Path], str] | None = None,
        width: int = 4,
        think: bool | None = None,
        tokenizer: ChatTokenizer | None = None,
        patience: Patience | None = None,
        speaks: Speech | None = None,
    ) -> None:
        self.name = f"ollama:{name}"
        self._speaks = speech_of(tokenizer) if tokenizer is not None and speaks is None else speaks
        self.server = OllamaServer(host, timeout, patience)
        self.adapter: Path | None = None
        self.served = name
        """The name under which Ollama has what is served: the base's, or that of the published adapter."""
        self._base, self._context, self._keep = name, context, keep_alive
        self._provide, self._width, self._think, self._tokenizer = provide, width, think, tokenizer
        self._adapter_hash = ""
        self._known: _Known | None = None
        self._density, self._drift = DENSE, 0

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    @property
    def speaks(self) -> Speech:
        """How it calls tools; see the `Model` seam. Natively if Ollama says it can, and cuts no prompt in silence."""
        if self._speaks is None:
            able = "tools" in (self.server.show(self._base).capabilities or [])
            self._speaks = "native" if able and self.server.version() >= REFUSES_CUTS else "text"
        return self._speaks

    @property
    def fingerprint(self) -> str:
        """Hash of the server's version, the manifests of base and served model, adapter, context, thinking, and speech.

        Raises:
            ModelUnavailable: the server is not running.
            ModelError: the model is not there.
        """
        there = (self.server.digest(self._base), self.server.digest(self.served))
        return content_hash([self.server.version(), *there, self._adapter_hash, self._context, self._think, self.speaks])

    def use(self, adapter: Path | None) -> None:
        """Serve the pristine base (None), or an adapter folder as it was published.

        Raises:
            ModelError: nothing publishes adapters here, or it could not be published; what was served goes on.
        """
        if adapter == self.adapter:
            return
        served, digest = self._base, ""
        if adapter is not None:
            if self._provide is None:
                raise ModelError(f"{self.name}: adapters must be published to Ollama first, and nothing here does that")
            read_peft(adapter)
            served, digest = self._provide(adapter), adapter_digest(adapter)
            self.server.digest(served)
        self.served, self.adapter, self._adapter_hash, self._known = served, adapter, digest, None

    def forget(self, keys: Sequence[str]) -> None:
        """Ollama keeps what it likes."""

    def warm(self) -> float:
        """Load what is served, with its context; how long that took (seconds).

        Raises:
            ModelUnavailable, ModelError: it cannot be loaded.
        """
        began = time.monotonic()
        shown = self.server.show(self.served)
        if self.served == self._base and adapters_in(shown):
            raise ModelError(f"{self._base} already carries an adapter; name the pristine model that it was made from")
        window = min(self._context, trained_context(shown) or self._context)
        self.server.chat(self.served, [], {"num_ctx": window}, self._keep)
        told = [one.context for one in self.server.resident() if one.name == full_name(self.served) and one.context]
        window = min([window, *told])
        if window < self._context:
            log.warning("%s: Ollama gives a context of %d tokens, not %d", self.name, window, self._context)
        self._known = _Known(self.server.version(), window, "thinking" in (shown.capabilities or []))
        return time.monotonic() - began

    def resident(self) -> int:
        """Bytes that the base and everything of ours takes in memory."""
        return sum(one.size for one in self.server.resident() if self._is_ours(one.name))

    def unload(self, seconds: float = 30.0) -> None:
        """Have Ollama let go of the base and everything of ours, and see that it is gone.

        Raises:
            ModelError: it is still there after so many seconds.
            ModelUnavailable: the server is not running.
        """
        ends, held = time.monotonic() + seconds, self._held()
        self._known = None
        for name in held:
            self.server.chat(name, [], {}, 0)
        while held := self._held():
            if time.monotonic() > ends:
                raise ModelError(f"Ollama still holds {', '.join(held)} after {seconds:g} s; run `ollama stop {held[0]}`")
            time.sleep(min(0.2, seconds / 10))

    def _held(self) -> list[str]:
        return [one.name for one in self.server.resident() if self._is_ours(one.name)]

    def _is_ours(self, name: str) -> bool:
        return name in (full_name(self._base), full_name(self.served)) or name.startswith(OURS)

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """Answer every conversation; see the `Model` seam. A prompt that was or may have been cut is `context`, no answer.

        Raises:
            ModelUnavailable: the server stays away.
            ModelError: it refuses.
        """
        if not conversations:
            return []
        if self._known is None:
            self.warm()
        sampling = replace(sampling, tools=sampling.tools if sampling.tools and self.speaks == "native" else ())
        names = list(keys) or [str(i) for i in range(len(conversations))]
        return side_by_side(lambda i: self._complete(conversations[i], sampling, names[i]), len(names), self._width)

    def _complete(self, messages: Sequence[Message], sampling: Sampling, key: str) -> Completion:
        known = self._known
        assert known is not None
        if not messages:
            raise ModelError("an empty conversation cannot be answered")
        messages = [Message(message.role, clean(message.content)) for message in messages]
        drift = 0 if sampling.tools else self._drift  # what calls and their description take on top differs from turn to turn
        own = len(self._tokenizer.prompt(messages)) + drift if self._tokenizer is not None else 0
        size = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
        guess = own or guessed_tokens("x" * size)
        if own >= known.window:
            return self._cut(guess, 0.0, f"{own} tokens do not fit into {known.window}")
        began = time.monotonic()
        try:
            options = self._options(messages, sampling, key, own)
            think = self._think if known.thinks else None
            turns = self._turns(messages, sampling.tools)
            reply = self.server.chat(self.served, turns, options, self._keep, think, functions(sampling.tools))
        except Refused as error:
            if sampling.tools and error.garbled:
                seconds = time.monotonic() - began
                return Completion(render_refused("", error.said), guess, guessed_tokens(error.said), 0, seconds)
            if not error.overflow:
                raise
            return self._cut(guess, time.monotonic() - began, error.said)
        seconds = time.monotonic() - began
        seen = reply.prompt_eval_count or 0
        doubt = self._doubt(known, own, size, len(messages), seen, bool(sampling.tools))
        return self._cut(max(guess, seen), seconds, doubt) if doubt else self._completion(reply, own, guess, seconds, sampling)

    def _cut(self, tokens: int, seconds: float, why: str) -> Completion:
        log.warning("%s: the conversation does not fit its context: %s", self.name, why)
        return Completion("", tokens, 0, 0, seconds, "context")

    def _turns(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[dict[str, object]]:
        if tools:
            return [ollama_message(said) for said in conversation(messages, tools)]
        own = isinstance(self._tokenizer, PocketTokenizer)
        return [{"role": "user" if m.role == "tool" and not own else m.role, "content": m.content} for m in messages]

    def _options(self, messages: Sequence[Message], sampling: Sampling, key: str, own: int) -> dict[str, float]:
        assert self._known is not None
        window = self._known.window
        return {
            "num_ctx": window,
            "num_predict": min(sampling.max_tokens, window - own) if own else sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": seed_of(sampling, key, len(messages)),
        }

    def _doubt(self, known: _Known, own: int, size: int, messages: int, seen: int, native: bool) -> str:
        """Why the server may not have seen the whole prompt of `size` bytes; nothing if it has. `seen` is its own count."""
        if own:
            self._drift = max(self._drift, 0 if native else seen - own)
            if known.counts_whole and seen < own * (1 - SLACK) - MARKS:
                return f"the server saw {seen} of {own} tokens"
            return f"{seen} tokens leave no room in {known.window}" if seen >= known.window else ""
        if size + messages * MARKS + TEMPLATE <= known.window:
            if known.counts_whole and seen:
                self._density = max(self._density, min(0.9 * size / seen, SPARSE))
            return ""
        if known.counts_whole and seen * SPARSE < size:
            return f"the server saw {seen} tokens of {size} bytes"
        if known.refuses_cuts or size / self._density <= known.window:
            return ""
        return f"{size} bytes may be more than {known.window} tokens, and this version of Ollama does not say when it cuts"

    def _completion(self, reply: ChatResponse, own: int, guess: int, seconds: float, sampling: Sampling) -> Completion:
        assert self._known is not None
        said, seen, spoken = reply.message, reply.prompt_eval_count or 0, reply.eval_count or 0
        thinking, text = said.thinking or "", said.content or ""
        if not thinking:
            thinking, text = split_thinking(text)
        calls = [(call.function.name, dict(call.function.arguments)) for call in said.tool_calls or ()]
        text = turn(text, calls, reply.done_reason != "length")
        prompt = max(own, seen) or guess
        reason: Literal["stop", "length", "context"] = "stop"
        if reply.done_reason == "length":
            reason = "length" if spoken >= sampling.max_tokens else "context"
        if prompt + spoken > self._known.window:  # an older server shifted the context, and forgot the beginning
            reason = "context"
        cached = max(0, own - seen) if own and not self._known.counts_whole else 0
        return Completion(text, prompt, spoken, cached, seconds, reason, thinking)
