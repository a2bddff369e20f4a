"""An adapter put to work in Ollama: as a tagged model that never changes, and an alias that is flipped to it.

Three routes lead to the tag, of which the running version takes at least one:
`create` builds it from the pristine base and a GGUF adapter (refused since 0.34.1); `pull` has Ollama fetch a manifest of the
base's own layers and the adapter from a registry on loopback; `merge` makes it from a GGUF with the adapter merged in.
Which one, is tried, seen by what the server then tells of the tag, and remembered for its version.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agent.adapters import Lora, adapter_digest, read_peft
from agent.errors import ModelError, ModelUnavailable
from agent.model import Message
from agent.models.ollama_server import HOST, OllamaServer
from agent.models.remote import Patience, Refused
from consolidation.errors import AdapterError
from consolidation.fuse import verify
from consolidation.publishing import PublishError
from consolidation.publishing.aliases import Aliases
from consolidation.publishing.desk import Desk, Entry, Route, State, slug
from consolidation.publishing.routes import Base, Built, build, build_fused
from memory.hashing import content_hash

ROUTES: tuple[Route, ...] = ("create", "pull", "merge")
NO_ADAPTERS = (0, 34, 1)
"""The first version that builds no adapter models."""
PROMPTS: tuple[tuple[Message, ...], ...] = tuple(
    (Message("user", text),)
    for text in (
        "issue in shop\n`total_fee` always gives None.",
        "Write a Python function that returns the second largest number of a list.",
        "The test test_limit fails: expected 3, got 2. What is the first thing you do?",
    )
)
KEEP_ALIVE = "5m"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """A model in Ollama: its name, how it came to be, how long that took (seconds), digest of its manifest."""

    tag: str
    route: Route | Literal["fused"]
    seconds: float
    digest: str


class OllamaPublisher(Aliases):
    """Publishes adapters of one base model to one server; `folder` holds its lock and what it remembers.

    `route` forces one of the three. `base_gguf` is the base's file, for merging, if this process cannot read Ollama's own.
    `prompts` are the canary, best taken from what adapters learn: greedy answers of up to `tokens` tokens, at a context of
    `context`, which should be that of the served model, because Ollama loads it anew for another.
    """

    def __init__(
        self,
        host: str,
        base: str,
        folder: Path,
        route: Route | None = None,
        base_gguf: Path | None = None,
        prompts: Sequence[Sequence[Message]] = PROMPTS,
        context: int = 16_384,
        tokens: int = 16,
        timeout: float = 600.0,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(OllamaServer(host or HOST, timeout, patience), base, Desk(folder))
        self._route, self._base_gguf = route, base_gguf
        self._prompts, self._context, self._tokens = prompts, context, tokens

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    def ask_with(self, prompts: Sequence[Sequence[Message]]) -> None:
        """Take these as the canary from now on: an adapter answers what it learnt from otherwise than its base."""
        self._prompts = tuple(prompts) or PROMPTS

    def tag(self, adapter: Path) -> str:
        """The name an adapter folder is published under: the base's, and 16 digits of the adapter's hash."""
        return f"sleepy-{slug(self.base)}:{adapter_digest(adapter)[:16]}"

    def provide(self, adapter: Path) -> str:
        """For `OllamaModel`: publish, and return the name.

        Raises:
            ModelError: it could not be published.
        """
        try:
            return self.publish(adapter).tag
        except PublishError as error:
            away = isinstance(error.__cause__, ModelUnavailable)
            raise (ModelUnavailable if away else ModelError)(str(error)) from error

    def publish(self, adapter: Path, expected: Sequence[str] | None = None) -> Published:
        """Have Ollama serve an adapter folder under its tag; nothing that is live changes.

        At least one canary must be answered otherwise than by the base, and each as `expected` has it: the greedy answers of
        the engine on which the adapter was guarded.

        Raises:
            PublishError: no route worked, the canary was wrong, or another publish is running.
        """
        began = time.monotonic()
        with self._changing(f"{adapter} was not published") as state:
            lora, digest, tag = read_peft(adapter), adapter_digest(adapter), self.tag(adapter)
            base, there = Base.of(self.server, self.base, self._base_gguf), self.server.digests()
            known = state.published.get(tag)
            if known is None or (there.get(tag), there[base.name]) != (known.digest, known.base) or not self._may(known.route):
                entry = Entry(route="create", digest="", adapter=digest, base=there[base.name])
                known = self._make(state, base, lora, entry, tag, expected)
            elif expected is not None:
                self._compare(tag, self._answers(base, tag), expected)
            return Published(tag, known.route, time.monotonic() - began, known.digest)

    def publish_fused(self, folder: Path, quantise: str = "") -> Published:
        """Have Ollama serve a model that `fuse` wrote, quantised by Ollama (q8_0, q5_K_M, q4_K_M) if asked to.

        It is another model than the adapter beside its base: guard what this tag answers before it is made live.

        Raises:
            PublishError: the folder is not what was fused, or the server failed.
        """
        began = time.monotonic()
        with self._changing(f"{folder} was not published") as state:
            signed = verify(folder)
            tag = f"sleepy-{slug(self.base)}:{signed.output[:16]}{f'-{quantise.lower()}' if quantise else ''}"
            base = Base.of(self.server, self.base, self._base_gguf)
            there, known = self.server.digests(), state.published.get(tag)
            if known is None or there.get(tag) != known.digest:
                with tempfile.TemporaryDirectory(prefix=".publish-", dir=self.desk.folder) as work:
                    built = build_fused(self.server, base, folder, quantise, tag, Path(work))
                digest = self.server.digest(tag)
                known = Entry(route="fused", digest=digest, adapter=built.blob, base=there[base.name])
                state.published[tag] = known
                self.desk.save(state)
            return Published(tag, "fused", time.monotonic() - began, known.digest)

    def _may(self, route: Route | Literal["fused"]) -> bool:
        return self._route in (None, route)

    def _make(self, state: State, base: Base, lora: Lora, entry: Entry, tag: str, expected: Sequence[str] | None) -> Entry:
        """Build the model under another name; the tag is given to it once it has answered as it should."""
        numbers, staged, reasons = self.server.version(), f"{tag}-new", list[str]()
        version = ".".join(map(str, numbers)) or "unknown"
        plain = self._plain(state, base, version, entry.base)
        state.begun.add(staged)
        self.desk.save(state)
        possible = [route for route in ROUTES if self._route == route or (self._may(route) and not _refused(route, numbers))]
        for route in sorted(possible, key=lambda route: route != state.routes.get(version)):
            try:
                with tempfile.TemporaryDirectory(prefix=".publish-", dir=self.desk.folder) as work:
                    built = build(route, self.server, base, lora, staged, Path(work))
                self._check(route, base, built, staged)
                answers = self._answers(base, staged)
                if answers == plain:
                    raise Refused(f"{tag} answers all canaries as its base does", 0)
                if expected is not None:
                    self._compare(tag, answers, expected)
                digest = self.server.digest(staged)
                self._point(tag, staged, digest)
            except (Refused, AdapterError) as error:
                log.info("publishing by %s: %s", route, error)
                reasons.append(f"{route}: {error}")
                continue
            finally:
                with suppress(ModelError):
                    self._delete(staged)
            state.begun.discard(staged)
            state.routes[version] = route
            state.published[tag] = entry.model_copy(update={"route": route, "digest": digest})
            self.desk.save(state)
            return state.published[tag]
        raise PublishError(f"no way into Ollama {version} for {tag}: {'; '.join(reasons)}")

    def _check(self, route: Route, base: Base, built: Built, tag: str) -> None:
        """Whether the server has what it was given: a version may pass over what it does not know."""
        made = Base.of(self.server, tag, None, pristine=False)
        if route == "merge" and (made.adapters or made.model == base.model):
            raise Refused(f"the server made {tag} without the merged weights", 0)
        if route != "merge" and (made.adapters != [built.blob] or made.model != base.model):
            raise Refused(f"the server made {tag} without the adapter", 0)

    def _answers(self, base: Base, model: str) -> list[str]:
        options: Mapping[str, float] = {
            "num_ctx": min(self._context, base.trained or self._context),
            "num_predict": self._tokens,
            "temperature": 0.0,
            "seed": 0,
        }
        turns = [[{"role": m.role, "content": m.content} for m in prompt] for prompt in self._prompts]
        return [self.server.chat(model, turn, options, KEEP_ALIVE).message.content or "" for turn in turns]

    def _plain(self, state: State, base: Base, version: str, digest: str) -> list[str]:
        """The bare base's answers, remembered: asking for them again would load it again."""
        prompts = [[(m.role, m.content) for m in prompt] for prompt in self._prompts]
        key = content_hash([digest, version, prompts, self._tokens])
        if key not in state.answers:
            state.answers = {key: self._answers(base, self.base)}
        return state.answers[key]

    def _compare(self, tag: str, answers: Sequence[str], expected: Sequence[str]) -> None:
        if len(expected) != len(self._prompts):
            raise PublishError(f"{len(expected)} answers are expected to {len(self._prompts)} canaries; give one for each")
        for number, (found, wanted) in enumerate(zip(answers, expected, strict=True)):
            if found != wanted:
                raise PublishError(
                    f"canary {number} of {tag} is answered {found[:80]!r}, but was guarded as {wanted[:80]!r}; "
                    "guard the adapter on what Ollama serves"
                )


def _refused(route: Route, version: tuple[int, ...]) -> bool:
    return route == "create" and version >= NO_ADAPTERS
