"""Anthropic's Message Batches API as documented, with the Messages API beside it; answers are given by a function."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "sk-test-0123456789abcdef"
KINDS = ("succeeded", "errored", "canceled", "expired")


def error(status: int, kind: str, text: str, **headers: str) -> Response:
    return JSONResponse({"type": "error", "error": {"type": kind, "message": text}}, status, headers)


def said(text: str, stop: str = "end_turn", tokens: tuple[int, int] = (100, 100)) -> dict[str, Any]:
    usage = {"input_tokens": tokens[0], "output_tokens": tokens[1], "service_tier": "batch"}
    content = [{"type": "text", "text": text}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": content, "stop_reason": stop, "usage": usage}


def succeeded(message: dict[str, Any]) -> dict[str, Any]:
    return {"type": "succeeded", "message": message}


def errored(kind: str) -> dict[str, Any]:
    return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": "no"}}}


class BatchDouble:
    """`answer(params, n)` is the result of a request that is processed for the n-th time (from 0); a batch ends after
    `polls` looks at it, and results come in reversed order."""

    def __init__(self, answer: Callable[[dict[str, Any], int], dict[str, Any]], polls: int = 1, batched: bool = True) -> None:
        self.answer, self.polls, self.batched = answer, polls, batched
        self.batches: dict[str, dict[str, Any]] = {}
        self.processed: list[dict[str, Any]] = []
        """Parameters of every request that had a result and is billed."""
        self.asked: list[tuple[str, str]] = []
        self.faults: deque[tuple[str, str, Callable[[], Response | int]]] = deque()
        """Method, end of the path, and what happens instead; a number is what follows the work: a status, or 0 for a cut."""
        self.mangle: Callable[[str], str] = lambda lines: lines
        self.app = Starlette(routes=[Route("/{path:path}", self._route, methods=["GET", "POST"])])

    async def _route(self, request: Request) -> Response:
        path, method = request.url.path, request.method
        self.asked.append((method, path))
        sent = request.headers.get("authorization", "").removeprefix("Bearer ") or request.headers.get("x-api-key")
        if sent != KEY:
            return error(401, "authentication_error", "invalid x-api-key")
        if "anthropic-version" not in request.headers:
            return error(400, "invalid_request_error", "anthropic-version: header is required")
        body = json.loads(await request.body() or b"null") if method == "POST" else None
        after = -1
        if self.faults and self.faults[0][0] == method and path.endswith(self.faults[0][1]):
            instead = self.faults.popleft()[2]()
            if isinstance(instead, Response):
                return instead
            after = instead
        response = self._answered(method, path.removeprefix("/v1/messages").strip("/").split("/"), body, str(request.base_url))
        if after == 0:
            return StreamingResponse(iter([b"{"]), headers={"content-length": "999"})
        return response if after < 0 else error(after, "api_error", "the gateway lost it")

    def _answered(self, method: str, parts: list[str], body: Any, base: str) -> Response:
        if method == "POST" and parts == [""]:
            self.processed.append(body)
            message = self.answer(body, 0).get("message")
            return JSONResponse(message) if message else error(529, "overloaded_error", "Overloaded")
        if not self.batched or parts[0] != "batches":
            return error(404, "not_found_error", "not found")
        if len(parts) == 1:
            return self._create(body) if method == "POST" else JSONResponse(self._page())
        batch = self.batches.get(parts[1])
        if batch is None:
            return error(404, "not_found_error", f"no batch {parts[1]}")
        if parts[2:] == ["cancel"] and method == "POST":
            batch["canceled"] = True
            return JSONResponse(self._told(batch))
        if parts[2:] == ["results"]:
            if not batch["results"]:
                return error(404, "not_found_error", "results are not available yet")
            return PlainTextResponse(self.mangle("".join(json.dumps(line) + "\n" for line in reversed(batch["results"]))))
        self._work(batch)
        return JSONResponse(self._told(batch))

    def _create(self, body: Any) -> Response:
        requests = body["requests"]
        names = [one["custom_id"] for one in requests]
        if not requests or len(set(names)) != len(names) or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", n) for n in names):
            return error(400, "invalid_request_error", "requests: custom_id must be unique and match the pattern")
        for one in requests:
            params = one["params"]
            if not {"model", "max_tokens", "messages"} <= params.keys() or params["messages"][0]["role"] != "user":
                return error(400, "invalid_request_error", "params: not a Messages request")
        batch = {
            "id": f"msgbatch_{len(self.batches) + 1:04}",
            "requests": requests,
            "seen": 0,
            "results": [],
            "canceled": False,
        }
        batch["created_at"] = datetime.now(UTC)
        self.batches[batch["id"]] = batch
        return JSONResponse(self._told(batch))

    def _work(self, batch: dict[str, Any]) -> None:
        batch["seen"] += 1
        if batch["results"] or (batch["seen"] <= self.polls and not batch["canceled"]):
            return
        for one in batch["requests"]:
            times = sum(params == one["params"] for params in self.processed)
            result = {"type": "canceled"} if batch["canceled"] else self.answer(one["params"], times)
            if result["type"] != "canceled":
                self.processed.append(one["params"])
            batch["results"].append({"custom_id": one["custom_id"], "result": result})

    def _told(self, batch: dict[str, Any]) -> dict[str, Any]:
        ended = bool(batch["results"])
        kinds = [line["result"]["type"] for line in batch["results"]]
        counts = {kind: kinds.count(kind) for kind in KINDS} | {"processing": 0 if ended else len(batch["requests"])}
        created = batch["created_at"]
        return {
            "id": batch["id"],
            "type": "message_batch",
            "processing_status": "ended" if ended else "canceling" if batch["canceled"] else "in_progress",
            "request_counts": counts,
            "created_at": created.isoformat(),
            "expires_at": (created + timedelta(hours=24)).isoformat(),
            "ended_at": created.isoformat() if ended else None,
            "results_url": f"/v1/messages/batches/{batch['id']}/results" if ended else None,
        }

    def _page(self) -> dict[str, Any]:
        told = [self._told(batch) for batch in reversed(self.batches.values())]
        return {"data": told, "has_more": False, "first_id": None, "last_id": None}
