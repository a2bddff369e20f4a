"""A local double of Ollama's HTTP API (https://docs.ollama.com/api): the same requests, answers, files and habits.

What it does was read off the documentation and the source of v0.33; what newer versions do differently can be switched.
Answers are computed by a real network from the GGUF files in its store, so that a hot swap changes them.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.doubles.ollama_chat import Scheduler, answer
from tests.doubles.ollama_engine import Engine, PocketEngine, metadata, quantized
from tests.doubles.ollama_store import CONFIG_KIND, KIND, MANIFEST_KIND, ApiError, Layer, ModelStore, Name, Progress

CUT = "cut"
"""A fault: the connection breaks in the middle of the answer."""
HALF = "half"
"""A fault of /api/copy: the disk is full when half of the manifest is written."""
Body = dict[str, Any]


@dataclass
class Habits:
    """What differs between versions, and what can be made to go wrong.

    `faults` lists, by path, what the next requests meet: a status with a text, `CUT` or `HALF`.
    """

    version: str = "0.33.0"
    adapters: str = "build"
    """What `create` does with adapters: `build`, `refuse`, or `ignore`."""
    counts: str = "whole"
    """What prompt_eval_count counts: the `whole` prompt, or only what was `computed` (0.30.0 did)."""
    truncate: bool = True
    """Whether `truncate: false` and `shift: false` in a request are known (since October 2025)."""
    thinks: bool = False
    tools: bool = False
    """Whether the model's template knows tools."""
    unload_seconds: float = 0.0
    stuck: bool = False
    """Whether a model never leaves memory."""
    faults: dict[str, list[tuple[int, str] | str]] = field(default_factory=dict)


class OllamaDouble:
    """One server. `engine` makes a loaded model out of a base file and adapter files."""

    def __init__(self, root: Path, habits: Habits, engine: Callable[[Path, Sequence[Path]], Engine] = PocketEngine) -> None:
        self.store = ModelStore(root)
        self.habits = habits
        self.asked: list[tuple[str, Body]] = []
        """Paths and bodies of the requests so far."""
        self.scheduler = Scheduler(self.store, habits, engine)
        self.host = ""
        posts = ("show", "chat", "generate", "create", "pull", "push", "copy")
        self.app = Starlette(
            routes=[
                Route("/", lambda _: Response("Ollama is running")),
                Route("/api/version", lambda _: JSONResponse({"version": habits.version})),
                Route("/api/tags", self._handler(lambda _: {"models": [self._listed(name) for name in self.store.names()]})),
                Route("/api/ps", self._handler(lambda _: {"models": self.scheduler.listed()})),
                Route("/api/delete", self._handler(self._delete), methods=["DELETE"]),
                Route("/api/blobs/{digest}", self._blob, methods=["HEAD", "POST"]),
                *[Route(f"/api/{name}", self._handler(getattr(self, f"_{name}")), methods=["POST"]) for name in posts],
            ]
        )

    def reset(self) -> None:
        """Old habits again, and nothing asked yet; the models stay."""
        self.habits.__dict__.update(Habits().__dict__)
        self.asked.clear()

    def _handler(self, work: Callable[[Body], Body | Generator[Body, None, None] | None]) -> Callable[[Request], Any]:
        async def handle(request: Request) -> Response:
            content = await request.body()
            try:
                body = json.loads(content) if content else {}
            except ValueError as error:
                return JSONResponse({"error": str(error)}, 400)
            self.asked.append((request.url.path, body))
            fault = next(iter(self.habits.faults.get(request.url.path, [])), None)
            if fault is not None:
                self.habits.faults[request.url.path].pop(0)
            if isinstance(fault, tuple):
                return JSONResponse({"error": fault[1]}, fault[0])
            try:
                found = await run_in_threadpool(self._copy_half if fault == HALF else work, body)
            except ApiError as error:
                return JSONResponse({"error": error.text}, error.status)
            if found is None:
                return Response()
            if isinstance(found, dict):
                return JSONResponse(found)
            if body.get("stream", True):
                return StreamingResponse(_lines(found, fault == CUT), media_type="application/x-ndjson")
            try:
                return await run_in_threadpool(_last, found)
            except ApiError as error:
                return JSONResponse({"error": error.text}, error.status)

        return handle

    async def _blob(self, request: Request) -> Response:
        digest = str(request.path_params["digest"])
        fault = next(iter(self.habits.faults.get("/api/blobs", [])), None)
        try:
            if request.method == "HEAD":
                return Response(status_code=200 if self.store.blob(digest).exists() else 404)
            if fault is not None:
                self.habits.faults["/api/blobs"].pop(0)
            if isinstance(fault, tuple):
                return JSONResponse({"error": fault[1]}, fault[0])
            if self.store.blob(digest).exists():
                return Response()
            self.store.keep(iter([await request.body()]), digest)
        except ApiError as error:
            return JSONResponse({"error": error.text}, error.status)
        return Response(status_code=201)

    def _listed(self, name: Name) -> Body:
        manifest = self.store.manifest(name)
        return {
            "name": name.shown,
            "model": name.shown,
            "modified_at": datetime.now(UTC).isoformat(),
            "size": sum(layer["size"] for layer in [*manifest["layers"], manifest["config"]]),
            "digest": self.scheduler.digest(name),
            "details": self.store.details(name),
        }

    def _show(self, body: Body) -> Body:
        name = Name.parse(str(body.get("model", "")))
        layers = self.store.manifest(name)["layers"]
        read = {
            kind: [self.store.blob(layer["digest"]) for layer in layers if layer["mediaType"] == KIND + kind]
            for kind in ("model", "adapter", "template", "system", "params")
        }
        told = {key: value for key, value in metadata(read["model"][0]).items() if key != "general.name"}
        texts = {kind: "".join(path.read_text() for path in read[kind]) for kind in ("template", "system")}
        options = json.loads(read["params"][0].read_bytes()) if read["params"] else {}
        lines = [f"FROM {path}" for path in read["model"]] + [f"ADAPTER {path}" for path in read["adapter"]]
        lines += [f'TEMPLATE """{texts["template"]}"""'] if texts["template"] else []
        return {
            "modelfile": f'# Modelfile generated by "ollama show"\n# FROM {name.shown}\n\n' + "\n".join(lines) + "\n",
            "parameters": "\n".join(
                f"{key:<30} {json.dumps(one)}"
                for key, value in options.items()
                for one in (value if isinstance(value, list) else [value])
            ),
            **texts,
            "details": self.store.details(name),
            "model_info": told,
            "capabilities": ["completion", *["tools"] * self.habits.tools, *["thinking"] * self.habits.thinks],
            "modified_at": datetime.now(UTC).isoformat(),
        }

    def _chat(self, body: Body) -> Body | Generator[Body, None, None]:
        return answer(self.scheduler, body, "message")

    def _generate(self, body: Body) -> Body | Generator[Body, None, None]:
        return answer(self.scheduler, body, "response")

    def _copy(self, body: Body) -> None:
        source, target = Name.parse(str(body.get("source"))), Name.parse(str(body.get("destination")))
        content = self.store.raw(source)
        self.store.write(target, content)

    def _copy_half(self, body: Body) -> None:
        content = self.store.raw(Name.parse(str(body.get("source"))))
        self.store.write(Name.parse(str(body.get("destination"))), content[: len(content) // 2])
        raise ApiError(500, "write manifest: no space left on device")

    def _delete(self, body: Body) -> None:
        self.store.remove(Name.parse(str(body.get("model"))))

    def _pull(self, body: Body) -> Generator[Body, None, None]:
        name = Name.parse(str(body.get("model")))
        return _progress(lambda tell: self.store.pull(name, bool(body.get("insecure")), tell))

    def _push(self, body: Body) -> Generator[Body, None, None]:
        name = Name.parse(str(body.get("model")))
        return _progress(lambda tell: self.store.push(name, bool(body.get("insecure")), tell))

    def _create(self, body: Body) -> Generator[Body, None, None]:
        return _progress(lambda tell: self.create(body, tell))

    def create(self, body: Body, tell: Progress) -> None:
        """A model from another (`from`, its adapter layers included) or from files, with at most one GGUF adapter."""
        name, layers = Name.parse(str(body["model"])), list[Layer]()
        if body.get("adapters") and self.habits.adapters == "refuse":
            raise ApiError(400, "creating models with adapters is no longer supported")
        if body.get("from"):
            origin = Name.parse(str(body["from"]))
            layers = [{**layer, "from": origin.shown} for layer in self.store.manifest(origin)["layers"]]
        elif body.get("files"):
            for file, digest in body["files"].items():
                tell({"status": "parsing GGUF"})
                if self._kind(file, digest) != "model":
                    raise ApiError(400, "supplied file was not in GGUF format")
                layers.append(self.store.known(digest, f"{KIND}model", file))
        else:
            raise ApiError(400, "neither 'from' or 'files' was specified")
        if body.get("adapters") and self.habits.adapters == "build":
            if len(body["adapters"]) > 1:
                raise ApiError(400, "only one adapter is currently supported")
            ((file, digest),) = body["adapters"].items()
            if self._kind(file, digest) != "adapter":
                raise ApiError(400, "supplied file was not in GGUF format")
            layers.append(self.store.known(digest, f"{KIND}adapter", file))
        (model,) = [i for i, layer in enumerate(layers) if layer["mediaType"] == f"{KIND}model"]
        if body.get("quantize"):
            layers[model] = self._quantized(layers[model], str(body["quantize"]).upper(), tell)
        for kind in ("template", "system"):
            if body.get(kind):
                layers = [layer for layer in layers if layer["mediaType"] != KIND + kind]
                layers.append(self.store.layer(KIND + kind, str(body[kind]).encode()))
        if body.get("parameters"):
            old = [layer for layer in layers if layer["mediaType"] == f"{KIND}params"]
            known = json.loads(self.store.blob(old[0]["digest"]).read_bytes()) if old else {}
            layers = [layer for layer in layers if layer not in old]
            layers.append(self.store.layer(f"{KIND}params", json.dumps({**known, **body["parameters"]}).encode()))
        told = metadata(self.store.blob(layers[model]["digest"]))
        family = str(told["general.architecture"])
        config = {
            "model_format": "gguf",
            "model_family": family,
            "model_families": [family],
            "model_type": "4M",
            "file_type": {0: "F32", 1: "F16", 7: "Q8_0"}.get(int(told.get("general.file_type", 0)), "unknown"),
            "architecture": "amd64",
            "os": "linux",
        }
        tell({"status": "writing manifest"})
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_KIND, "layers": layers}
        manifest["config"] = self.store.layer(CONFIG_KIND, json.dumps(config).encode())
        self.store.write(name, json.dumps(manifest).encode())
        tell({"status": "success"})

    def _kind(self, file: str, digest: str) -> str:
        path = self.store.blob(digest)
        if file.endswith(".safetensors"):
            raise ApiError(400, "unsupported architecture")
        if not path.exists() or path.read_bytes()[:4] != b"GGUF":
            raise ApiError(400, "supplied file was not in GGUF format")
        try:
            return str(metadata(path).get("general.type", "model"))
        except Exception as error:  # the reader raises whatever it likes
            raise ApiError(500, f"invalid file magic or size ({error})") from error

    def _quantized(self, layer: Layer, kind: str, tell: Progress) -> Layer:
        source = self.store.blob(layer["digest"])
        if int(metadata(source).get("general.file_type", 0)) > 1:
            raise ApiError(500, "quantization is only supported for F16, BF16 and F32 models")
        tell({"status": f"quantizing model to {kind}"})
        made = source.with_name("quantizing")
        quantized(source, made, kind)
        digest, size = self.store.keep(iter([made.read_bytes()]))
        made.unlink()
        return {**layer, "digest": digest, "size": size}


def _progress(work: Callable[[Progress], None]) -> Generator[Body, None, None]:
    """What `work` tells, as it tells it; an error as the last line."""
    told: SimpleQueue[Body | ApiError | None] = SimpleQueue()

    def run() -> None:
        try:
            work(told.put)
            told.put(None)
        except ApiError as error:
            told.put(error)
        except Exception as error:  # noqa: BLE001 - it becomes an answer, as in any server
            told.put(ApiError(500, f"{type(error).__name__}: {error}"))

    threading.Thread(target=run, daemon=True).start()
    while (line := told.get()) is not None:
        if isinstance(line, ApiError):
            raise line
        yield line


def _lines(found: Generator[Body, None, None], cut: bool) -> Iterator[str]:
    try:
        with closing(found):
            for line in found:
                yield json.dumps(line) + "\n"
                if cut:
                    raise ConnectionError("the double was told to cut the connection")
    except ApiError as error:
        yield json.dumps({"error": error.text}) + "\n"


def _last(found: Generator[Body, None, None]) -> Response:
    """A streamed answer in one piece."""
    lines = list(found)
    whole = lines[-1]
    if "message" in whole:
        parts = [line["message"] for line in lines]
        whole["message"] = {**whole["message"], "content": "".join(part["content"] for part in parts)}
        if any("thinking" in part for part in parts):
            whole["message"]["thinking"] = "".join(part.get("thinking", "") for part in parts)
    elif "response" in whole:
        whole["response"] = "".join(line["response"] for line in lines)
    return JSONResponse(whole)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def serving(double: OllamaDouble, port: int = 0) -> Iterator[OllamaDouble]:
    """Serve it on loopback as long as the block runs."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:  # asyncio hurries only TCP by name
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        config = uvicorn.Config(double.app, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        server = _Server(config)
        double.host = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield double
        finally:
            server.should_exit = True
            thread.join(10)
