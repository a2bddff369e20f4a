"""How the Ollama double loads models, keeps and unloads them, cuts prompts to the context, and answers."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.model import Message
from agent.models.thinking import split_thinking
from tests.doubles.ollama_engine import Engine
from tests.doubles.ollama_store import KIND, ApiError, ModelStore, Name
from tests.doubles.tool_calls import bad_functions, heard, words

if TYPE_CHECKING:
    from tests.doubles.ollama import Habits

KEEP = 4
"""num_keep: tokens at the beginning that survive a shift of the context."""
DEFAULT_CONTEXT, DEFAULT_PREDICT, FIVE_MINUTES = 4096, 512, 300.0
TOO_LONG = "the request exceeds the available context size, try increasing it"
Body = dict[str, Any]


@dataclass
class Runner:
    """A loaded model, keyed by its base blob; other adapters or another context make it load anew."""

    name: Name
    digest: str
    files: tuple[Path, ...]
    window: int
    engine: Engine
    lock: threading.Lock
    details: Body
    size: int
    expires: float = 0.0
    leaving: float = 0.0


class Scheduler:
    """What is in memory."""

    def __init__(self, store: ModelStore, habits: Habits, engine: Callable[[Path, Sequence[Path]], Engine]) -> None:
        self.store, self.habits = store, habits
        self._engine = engine
        self._runners: dict[Path, Runner] = {}
        self._lock = threading.Lock()
        self.loads = 0

    def digest(self, name: Name) -> str:
        return hashlib.sha256(self.store.raw(name)).hexdigest()

    def runner(self, name: Name, context: int, keep: float | None) -> tuple[Runner, float]:
        """The model, loaded, and how long that took (seconds)."""
        began = time.monotonic()
        layers = self.store.manifest(name)["layers"]
        paths = {
            kind: [self.store.blob(layer["digest"]) for layer in layers if layer["mediaType"] == KIND + kind]
            for kind in ("model", "adapter")
        }
        files = (*paths["model"], *paths["adapter"])
        missing = [path for path in files if not path.exists()]
        if missing:
            raise ApiError(500, f"unable to load model: {missing[0]}")
        with self._lock:
            self._expire()
            found = self._runners.get(files[0])
            if found is None or found.files != files or found.window != min(context, found.engine.trained) or found.leaving:
                try:
                    engine = self._engine(files[0], files[1:])
                except Exception as error:  # whatever is wrong with the file, the server goes on
                    raise ApiError(500, f"llama runner process has terminated: {type(error).__name__}: {error}") from error
                self.loads += 1
                found = Runner(
                    name,
                    "",
                    files,
                    min(context, engine.trained),
                    engine,
                    threading.Lock(),
                    self.store.details(name),
                    sum(path.stat().st_size for path in files),
                )
                self._runners[files[0]] = found
            found.name, found.digest = name, self.digest(name)
            found.expires = time.monotonic() + (FIVE_MINUTES if keep is None else keep)
        return found, time.monotonic() - began

    def unload(self, name: Name) -> None:
        layers = self.store.manifest(name)["layers"]
        models = {self.store.blob(layer["digest"]) for layer in layers if layer["mediaType"] == f"{KIND}model"}
        with self._lock:
            for path in models & set(self._runners):
                self._runners[path].leaving = time.monotonic() + self.habits.unload_seconds

    def listed(self) -> list[Body]:
        with self._lock:
            self._expire()
            return [
                {
                    "name": runner.name.shown,
                    "model": runner.name.shown,
                    "digest": runner.digest,
                    "size": runner.size,
                    "size_vram": runner.size,
                    "expires_at": (datetime.now(UTC) + timedelta(seconds=runner.expires - time.monotonic())).isoformat(),
                    "context_length": runner.window,
                    "details": runner.details,
                }
                for runner in self._runners.values()
            ]

    def _expire(self) -> None:
        now = time.monotonic()
        for path, runner in list(self._runners.items()):
            if not self.habits.stuck and (runner.expires <= now or 0 < runner.leaving <= now):
                del self._runners[path]


def answer(scheduler: Scheduler, body: Body, place: str) -> Body | Generator[Body, None, None]:
    """/api/chat (`place` "message") and /api/generate ("response")."""
    began = time.monotonic()
    habits, name, keep = scheduler.habits, Name.parse(str(body.get("model", ""))), duration(body.get("keep_alive"))
    scheduler.digest(name)
    given = (
        body.get("messages")
        if place == "message"
        else [{"role": "user", "content": body["prompt"]}]
        if body.get("prompt")
        else []
    )
    head: Body = {"model": body["model"], "created_at": datetime.now(UTC).isoformat()}
    empty: Body = {"role": "assistant", "content": ""} if place == "message" else {}
    if not given and keep == 0:
        scheduler.unload(name)
        return {**head, place: empty or "", "done": True, "done_reason": "unload"}
    if body.get("think") and not habits.thinks:
        raise ApiError(400, f'"{body["model"]}" does not support thinking')
    options = body.get("options") or {}
    runner, loading = scheduler.runner(name, int(options.get("num_ctx") or DEFAULT_CONTEXT), keep)
    if not given:
        return {**head, place: empty or "", "done": True, "done_reason": "load"}
    if (tools := body.get("tools")) and not habits.tools:
        raise ApiError(400, f"registry.ollama.ai/library/{name.shown} does not support tools")
    if tools and (problem := bad_functions(tools)):
        raise ApiError(400, problem)
    messages = [Message(str(m["role"]), _read(m)) for m in given]  # type: ignore[arg-type]
    ids = fitted(runner, messages, habits.truncate and body.get("truncate") is False)
    shift = not (habits.truncate and body.get("shift") is False)

    def stream() -> Iterator[Body]:
        with runner.lock:
            think = bool(body.get("think", habits.thinks))
            yield from _stream(runner, ids, options, shift, habits, head, place, think, bool(tools))

    def timed() -> Generator[Body, None, None]:
        for line in stream():
            if line["done"]:
                line |= {"total_duration": _ns(time.monotonic() - began), "load_duration": _ns(loading)}
            yield line
        if keep == 0:
            scheduler.unload(name)

    return timed()


def _stream(
    runner: Runner,
    ids: list[int],
    options: Body,
    shift: bool,
    habits: Habits,
    head: Body,
    place: str,
    think: bool,
    tools: bool,
) -> Iterator[Body]:
    limit = int(options.get("num_predict") or DEFAULT_PREDICT)
    engine, out, told = runner.engine, list[int](), ""
    temperature, seed = float(options.get("temperature", 0.8)), int(options.get("seed", 0))
    prompt, began, computed, evaluated = ids, time.monotonic(), 0, 0
    while True:
        for token in engine.tokens(prompt, runner.window, temperature, seed + len(out)):
            computed, evaluated = computed or engine.computed, evaluated or _ns(time.monotonic() - began)
            out.append(token)
            text = engine.text(out)
            if not (habits.thinks or tools or text.endswith("\ufffd")):
                yield {**head, place: _part(place, text[len(told) :]), "done": False}
                told = text
            if len(out) >= limit:
                break
        if engine.ended or len(out) >= limit or not shift:
            break
        prompt = shifted([*prompt, *out[len(out) - (runner.window - len(prompt)) :]], runner.window)
    computed, evaluated = computed or engine.computed, evaluated or _ns(time.monotonic() - began)
    whole = engine.text(out)
    thought, said = split_thinking(whole) if habits.thinks and think else ("", whole)
    call = heard(said) if tools and engine.ended else None
    last = _part(place, call[0] if call else said[len(told) :])
    if call and isinstance(last, dict):
        last["tool_calls"] = [{"id": "call_1", "function": {"index": 0, "name": call[1], "arguments": call[2]}}]
    if thought and isinstance(last, dict):
        last["thinking"] = thought
    count = len(ids) if habits.counts == "whole" else computed
    yield {
        **head,
        place: last,
        "done": True,
        "done_reason": "stop" if engine.ended else "length",
        **({"prompt_eval_count": count} if count else {}),
        "prompt_eval_duration": evaluated,
        "eval_count": len(out),
        "eval_duration": _ns(time.monotonic() - began) - evaluated,
    }


def _read(message: Body) -> str:
    """A message as the model reads it: calls in its own words."""
    calls = [call["function"] for call in message.get("tool_calls") or []]
    if any(not isinstance(call["arguments"], dict) for call in calls):
        raise ApiError(400, "json: cannot unmarshal string into Go struct field ToolCallFunction.arguments")
    said = [words(call["name"], call["arguments"]) for call in calls]
    return "\n".join([*filter(None, [str(message.get("content") or "")]), *said])


def _part(place: str, text: str) -> Body | str:
    return {"role": "assistant", "content": text} if place == "message" else text


def fitted(runner: Runner, messages: list[Message], refuse: bool) -> list[int]:
    """Token ids of the prompt: the oldest messages are silently left out until the rest fits, the last one is cut.

    System messages and the last message stay. With `refuse` nothing is left out.
    """
    engine, window = runner.engine, runner.window
    ids = engine.ids(messages)
    if refuse:
        if len(ids) >= window:
            raise ApiError(400, TOO_LONG)
        return ids
    for first in range(len(messages)):
        ids = engine.ids([m for m in messages[:first] if m.role == "system"] + messages[first:])
        if len(ids) <= window:
            break
    return ids if len(ids) < window else shifted(ids, window)


def shifted(ids: list[int], window: int) -> list[int]:
    """The beginning and the end of what does not fit; half of the context is freed."""
    limit = window - max((window - KEEP) // 2, 1)
    return [*ids[:KEEP], *ids[len(ids) - (limit - KEEP) :]]


def duration(value: object) -> float | None:
    """Seconds of "5m", "10s" or a number; negative is forever, None the default."""
    if value is None:
        return None
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(ms|s|m|h)?", str(value))
    if not found:
        raise ApiError(400, f'time: invalid duration "{value}"')
    seconds = float(found[1]) * {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}[found[2]]
    return seconds if seconds >= 0 else 1e9


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
