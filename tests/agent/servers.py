"""Local servers that speak the documented APIs of chat servers; the pocket model answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from agent.errors import ModelError
from agent.model import Completion, Message, Sampling
from agent.pocket.model import PocketModel
from tests.doubles.tool_calls import bad_functions, block_words, blocks_problem, chat_problem, chat_words, heard

Kind = Literal["vllm", "llama", "lmstudio", "hosted"]
KEY = "sk-test-0123456789abcdef"
NAME = "pocket"
TOOLLESS: dict[Kind, tuple[int, str, str]] = {
    "vllm": (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', "BadRequestError"),
    "llama": (500, "tools param requires --jinja flag", "server_error"),
    "lmstudio": (400, "this model does not support tools", "invalid_request_error"),
    "hosted": (400, "pocket does not support tools", "invalid_request_error"),
}


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """Serve an application on a free port of the loopback interface; its URL."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:  # asyncio: no delay for TCP only
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


class Brain:
    """The pocket model, one request at a time, with any adapter."""

    def __init__(self, context: int = 1280) -> None:
        self.model = PocketModel(slots=2, capacity=context, threads=1)
        self.context = context
        self._lock = threading.Lock()

    def tokens(self, turns: Sequence[Mapping[str, Any]]) -> int:
        return len(self.model.tokenizer.prompt([Message(t["role"], t["content"]) for t in turns]))

    def check(self, adapter: Path) -> None:
        with self._lock:
            self.model.use(adapter)
            self.model.use(None)

    def answer(self, turns: Sequence[Mapping[str, Any]], sampling: Sampling, adapter: Path | None = None) -> Completion:
        with self._lock:
            self.model.use(adapter)
            return self.model.complete([[Message(t["role"], t["content"]) for t in turns]], sampling)[0]


@dataclass
class Faults:
    """What happens instead of the next answers: status, headers and body, or `None` for a cut connection."""

    coming: deque[tuple[int, dict[str, str], str]] = field(default_factory=deque)
    asked: list[tuple[str, Any, dict[str, str]]] = field(default_factory=list)
    """Path, body and headers of every request."""

    def add(self, status: int, body: str = "{}", count: int = 1, **headers: str) -> None:
        self.coming.extend([(status, {k.replace("_", "-"): v for k, v in headers.items()}, body)] * count)

    async def met(self, request: Request) -> Response | None:
        content = await request.body()
        self.asked.append((request.url.path, json.loads(content) if content else None, dict(request.headers)))
        if not self.coming or request.method != "POST":
            return None
        status, headers, body = self.coming.popleft()
        return Response(body, status, headers, media_type="application/json")

    def bodies(self, end: str) -> list[Any]:
        return [body for path, body, _ in self.asked if path.endswith(end)]


class ChatDouble:
    """Chat Completions as vLLM, llama-server, LM Studio or a hosted service do it.

    `started_with` are llama-server's adapters: the name of the GGUF file, and the folder of the same adapter.
    """

    def __init__(self, brain: Brain, kind: Kind = "vllm", started_with: Mapping[str, Path] | None = None) -> None:
        self.brain, self.kind = brain, kind
        self.faults = Faults()
        self.loaded: dict[str, Path] = {}
        self.given = list((started_with or {}).items())
        self.scales = [0.0] * len(self.given)
        self.alternate = False
        self.tools = True
        """Whether it takes tools: vLLM only with a parser for the model's calls, llama-server only with --jinja."""
        self.key = KEY if kind == "hosted" else ""
        self.version = "0.30.0"
        self._cache: dict[str, Completion] = {}
        self.app = Starlette(routes=[Route("/{path:path}", self._route, methods=["GET", "POST"])])

    async def _route(self, request: Request) -> Response:
        if (instead := await self.faults.met(request)) is not None:
            return instead
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            given = request.headers.get("authorization", "")
            return _refusal(401, f"Incorrect API key provided: {given}.", "invalid_request_error", code="invalid_api_key")
        body = self.faults.asked[-1][1]
        found = {
            ("GET", "v1/models"): self._models,
            ("POST", "v1/chat/completions"): self._chat,
            **{
                "vllm": {
                    ("GET", "version"): lambda _: JSONResponse({"version": self.version}),
                    ("POST", "v1/load_lora_adapter"): self._load,
                    ("POST", "v1/unload_lora_adapter"): self._unload,
                },
                "llama": {
                    ("GET", "props"): lambda _: JSONResponse(
                        {"build_info": f"b{self.version}", "model_path": "/m/pocket.gguf"}
                    ),
                    ("GET", "lora-adapters"): self._adapters,
                    ("POST", "lora-adapters"): self._scale,
                },
            }.get(self.kind, {}),
        }.get((request.method, request.path_params["path"]))
        if found is not None:
            return await run_in_threadpool(found, body)
        if self.kind == "lmstudio":
            return JSONResponse({"error": f"Unexpected endpoint or method. ({request.method} {request.url.path})"})
        if self.kind == "llama":
            return JSONResponse({"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}, 404)
        return JSONResponse({"detail": "Not Found"}, 404)

    def _models(self, _: Any) -> Response:
        cards: list[dict[str, Any]] = [
            {"id": NAME, "object": "model", "root": "/m/pocket", "max_model_len": self.brain.context}
        ]
        cards += [{"id": name, "root": str(path), "parent": NAME} for name, path in self.loaded.items()]
        return JSONResponse({"object": "list", "data": cards})

    def _load(self, body: Any) -> Response:
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.loaded:
            return _refusal(400, f"The lora adapter '{name}' has already been loaded.", "InvalidUserInput")
        if not path.is_dir():
            return _refusal(404, f"Loading lora {name} failed: No adapter found for {path}", "NotFoundError")
        try:
            self.brain.check(path)
        except ModelError as error:
            return _refusal(500, str(error), "InternalServerError")
        self.loaded[name] = path
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    def _unload(self, body: Any) -> Response:
        if self.loaded.pop(body["lora_name"], None) is None:
            return _refusal(404, f"The lora adapter '{body['lora_name']}' cannot be found.", "NotFoundError")
        return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' removed successfully.")

    def _adapters(self, _: Any) -> Response:
        rows = zip(self.given, self.scales, strict=True)
        return JSONResponse([{"id": i, "path": name, "scale": scale} for i, ((name, _), scale) in enumerate(rows)])

    def _scale(self, body: Any) -> Response:
        self.scales = [next((row["scale"] for row in body if row["id"] == i), 0.0) for i in range(len(self.given))]
        return JSONResponse({"success": True})

    def _chat(self, body: Any) -> Response:
        turns, limit = body["messages"], body.get("max_tokens")
        if self.kind == "hosted" and limit is not None:
            return _refusal(
                400,
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                "invalid_request_error",
                code="unsupported_parameter",
            )
        limit = limit if limit is not None else body.get("max_completion_tokens")
        tools = body.get("tools")
        if tools is not None and not self.tools:
            return _refusal(*TOOLLESS[self.kind])
        if problem := (bad_functions(tools) if tools is not None else "") or chat_problem(turns):
            return _refusal(400, problem, "invalid_request_error")
        turns = chat_words(turns)
        roles = [turn["role"] for turn in turns if turn["role"] != "system"]
        if self.alternate and any((role == "user") == bool(i % 2) for i, role in enumerate(roles)):
            return _refusal(400, "Conversation roles must alternate user/assistant/user/assistant/...", "BadRequestError")
        adapter = self.loaded.get(body["model"])
        if self.kind != "llama" and body["model"] != NAME and adapter is None:
            return _refusal(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        scales = self.scales
        if self.kind == "llama" and body.get("lora"):
            scales = [next((row["scale"] for row in body["lora"] if row["id"] == i), 0.0) for i in range(len(self.given))]
        if self.kind == "llama":
            adapter = next((path for (_, path), scale in zip(self.given, scales, strict=True) if scale), None)
        size, most = self.brain.tokens(turns), self.brain.context
        if self.kind == "llama" and size >= most:
            text = f"request ({size} tokens) exceeds the available context size ({most} tokens), try increasing it"
            return _refusal(400, text, "exceed_context_size_error", n_prompt_tokens=size, n_ctx=most)
        if self.kind != "llama" and (size >= most or (limit is not None and size + limit > most)):
            text = f"This model's maximum context length is {most} tokens. However, your request has {size} input tokens."
            return _refusal(400, text, "BadRequestError")
        sampling = Sampling(body.get("temperature", 1.0), limit or most, body.get("seed", 0))
        known = json.dumps([turns, limit, tools])
        if self.kind == "llama" and body.get("cache_prompt", True) and known in self._cache:
            answer = self._cache[known]  # llama.cpp issue 30129: whatever adapter it was computed with
        else:
            answer = self._cache[known] = self.brain.answer(turns, sampling, adapter)
        usage = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": 0} if self.kind != "lmstudio" else None,
        }
        ended = "stop" if answer.finish_reason == "stop" else "length"
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if tools and ended == "stop" and (call := heard(answer.text)):
            function = {"name": call[1], "arguments": json.dumps(call[2])}
            calls = [{"id": "chatcmpl-tool-1", "type": "function", "function": function}]
            message, ended = {"role": "assistant", "content": call[0] or None, "tool_calls": calls}, "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": ended}
        return JSONResponse({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": usage})


class AnthropicDouble:
    """The Messages API, with prompt caching: a marked prefix of at least `least` tokens is written once and then read."""

    def __init__(self, brain: Brain, least: int = 16) -> None:
        self.brain, self.least = brain, least
        self.faults = Faults()
        self.thought = "Look before you leap."
        self._kept: set[str] = set()
        routes = [Route("/v1/messages", self._messages, methods=["POST"]), Route("/v1/models/{name}", self._model)]
        self.app = Starlette(routes=routes)

    async def _model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not name.startswith("claude"):
            return _error(404, "not_found_error", f"model: {name}")
        return JSONResponse({"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"})

    async def _messages(self, request: Request) -> Response:
        if (instead := await self.faults.met(request)) is not None:
            return instead
        sent = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        if sent != KEY:
            return _error(401, "authentication_error", f"invalid x-api-key: {sent}")
        if "anthropic-version" not in request.headers:
            return _error(400, "invalid_request_error", "anthropic-version: header is required")
        return await run_in_threadpool(self._answer, self.faults.asked[-1][1])

    def _answer(self, body: Any) -> Response:
        blocks = [("system", block) for block in body.get("system", [])]
        blocks += [(turn["role"], block) for turn in body["messages"] for block in turn["content"]]
        if problem := self._problem(body, blocks) or blocks_problem(body):
            return _error(400, "invalid_request_error", problem)
        turns = [{"role": role, "content": block_words(block)} for role, block in blocks]
        size = self.brain.tokens(turns)
        if size >= self.brain.context:
            return _error(400, "invalid_request_error", f"prompt is too long: {size} tokens > {self.brain.context} maximum")
        thinks = body.get("thinking", {}).get("type") == "enabled"
        limit = body["max_tokens"] - (body["thinking"]["budget_tokens"] if thinks else 0)
        answer = self.brain.answer(turns, Sampling(body.get("temperature", 1.0), limit))
        content = [{"type": "thinking", "thinking": self.thought, "signature": "c2ln"}] * thinks
        call = heard(answer.text) if body.get("tools") and answer.finish_reason == "stop" else None
        said = call[0].strip() if call else answer.text
        content += [{"type": "text", "text": said}] if said else []
        content += [{"type": "tool_use", "id": "toolu_1", "name": call[1], "input": call[2]}] if call else []
        ends = {"stop": "end_turn", "length": "max_tokens", "context": "model_context_window_exceeded"}
        ended = "tool_use" if call else ends[answer.finish_reason]
        usage = self._usage(blocks, size) | {"output_tokens": answer.completion_tokens}
        return JSONResponse(
            {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": content}
            | {"stop_reason": ended, "stop_sequence": None, "usage": usage}
        )

    def _problem(self, body: Any, blocks: list[tuple[str, Any]]) -> str:
        if not body["messages"] or body["messages"][0]["role"] != "user":
            return "messages: first message must use the user role"
        if any(turn["role"] not in ("user", "assistant") for turn in body["messages"]):
            return "messages: roles must be user or assistant"
        if any(not block["text"].strip() for _, block in blocks if block["type"] == "text"):
            return "messages: text content blocks must contain non-whitespace text"
        if sum("cache_control" in block for _, block in blocks) > 4:
            return "A maximum of 4 blocks with cache_control may be provided."
        thinking = body.get("thinking", {"type": "disabled"})
        if thinking["type"] == "enabled" and not 1024 <= thinking["budget_tokens"] < body["max_tokens"]:
            return "thinking.enabled.budget_tokens: must be at least 1024 and less than max_tokens"
        return ""

    def _usage(self, blocks: list[tuple[str, Any]], size: int) -> dict[str, int]:
        """Tokens read from the cache, written to it, and neither; looks back 20 blocks from each mark."""
        prefixes, running = [], hashlib.sha256()
        for at, (role, block) in enumerate(blocks):
            running.update(json.dumps([role, block_words(block)]).encode())
            turns = [{"role": role, "content": block_words(block)} for role, block in blocks[: at + 1]]
            prefixes.append((running.hexdigest(), self.brain.tokens(turns) - 1))
        marks = [at for at, (_, block) in enumerate(blocks) if "cache_control" in block and prefixes[at][1] >= self.least]
        hits = [p[1] for mark in marks for p in prefixes[max(0, mark - 20) : mark + 1] if p[0] in self._kept]
        read = max(hits, default=0)
        last = max((prefixes[mark][1] for mark in marks), default=0)
        self._kept |= {prefixes[mark][0] for mark in marks}
        written = max(0, last - read)
        return {"cache_read_input_tokens": read, "cache_creation_input_tokens": written, "input_tokens": size - read - written}


def _refusal(status: int, message: str, kind: str, **more: Any) -> Response:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status} | more}, status)


def _error(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}, status)
