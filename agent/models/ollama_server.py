"""One Ollama server, asked patiently through its own client; what goes wrong there, in our words.

Retried are broken connections, overload and, twice, internal errors: a runner that died is started anew, and a name whose
manifest is just being rewritten (Ollama's copy writes in place) can be read a moment later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx
from ollama import ChatResponse, Client, ProgressResponse, ResponseError, ShowResponse
from pydantic import BaseModel, TypeAdapter, ValidationError

from agent.errors import ModelError
from agent.models.remote import PASSING, Passing, Patience, Refused, clean, decode, persist

T = TypeVar("T")

HOST = "http://127.0.0.1:11434"
PORT = 11434
START = "start it with `ollama serve`"
INTERNAL = 500
TRIES = 3
GREEDY: Final[Mapping[str, float]] = {
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What a model's own parameters would else change about an answer; so every engine samples alike."""
Version = tuple[int, ...]


class _Version(BaseModel):
    version: str


_VERSION = TypeAdapter(_Version)


@dataclass(frozen=True)
class Resident:
    """A model in memory: its name, the digest of its manifest, bytes in all, and its context (tokens; 0 if not told)."""

    name: str
    digest: str
    size: int
    context: int


class _Uncut(httpx.HTTPTransport):
    """Adds to chats what the client has no argument for: to refuse a conversation that does not fit, instead of cutting it.

    Servers older than October 2025 (0.12.6) do not know these fields, and pass over them.
    """

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/api/chat"):
            body = {**json.loads(request.read()), "truncate": False, "shift": False}
            kept = [(name, text) for name, text in request.headers.items() if name != "content-length"]
            request = httpx.Request(request.method, request.url, headers=kept, json=body, extensions=request.extensions)
        return super().handle_request(request)


class OllamaServer:
    """A server by its address, such as http://127.0.0.1:11434; `timeout` is for one answer, or one line of a long one.

    Raises:
        ModelError: the address is none.
    """

    def __init__(self, host: str = HOST, timeout: float = 600.0, patience: Patience | None = None) -> None:
        self.host = _url(host)
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, 10.0))
        self._patience = patience or Patience()
        self.loopback = httpx.URL(self.host).host in ("127.0.0.1", "::1", "localhost")
        alone = self.loopback  # a proxy has no business between this machine and itself
        self._client = Client(host=self.host, timeout=self._timeout, transport=_Uncut(), trust_env=not alone)
        self._plain = httpx.Client(base_url=self.host, timeout=self._timeout, trust_env=not alone)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()  # type: ignore[no-untyped-call]
        self._plain.close()

    def ask(self, call: Callable[[Client], T], model: str = "") -> T:
        """What a call of the client gives.

        Raises:
            ModelUnavailable: the server stays away; it says how to start it.
            Refused: it says no; for a model that is not there, how to get it.
        """
        internal, tries = 0, min(TRIES, self._patience.attempts)

        def attempt() -> T:
            nonlocal internal
            try:
                return call(self._client)
            except (ConnectionError, httpx.TransportError) as error:
                raise Passing(f"{type(error).__name__}: {_short(str(error))}") from error
            except ResponseError as error:
                status, said = error.status_code, _short(error.error)
                internal += status == INTERNAL
                no = Refused(f"Ollama at {self.host} refuses ({status} {said})", status, said)
                if status in PASSING and not no.garbled and (status != INTERNAL or internal < tries):
                    raise Passing(f"{status} {said}") from error
                if status == httpx.codes.NOT_FOUND and model:
                    text = f"Ollama at {self.host} has no model {model!r}; get it with `ollama pull {model}`"
                    raise Refused(text, status, said) from error
                raise no from error
            except (ValidationError, ValueError, TypeError, AttributeError, RecursionError) as error:
                raise ModelError(
                    f"{self.host} answers in a form that is not Ollama's ({_short(str(error))}); check the address"
                ) from error

        return persist(attempt, f"Ollama at {self.host} ({START})", self._patience)

    def follow(self, call: Callable[[Client], Iterator[ProgressResponse]], model: str = "") -> None:
        """Run a long task (create, pull, push) to its end.

        Raises:
            ModelUnavailable, Refused: see `ask`; also where it ends without having told of success.
        """

        def run(client: Client) -> str:
            last = ""
            for line in call(client):
                last = line.status or last
            return last

        last = self.ask(run, model)
        if last != "success" and not last.startswith("pushing manifest"):
            raise Refused(f"Ollama at {self.host} broke off ({_short(last)}); look into its log", 0, last)

    def version(self) -> Version:
        """Its version as numbers; empty for one that was built without."""

        def get(_: Client) -> bytes:
            answer = self._plain.get("/api/version")
            if answer.is_error:
                raise ResponseError(answer.text, answer.status_code)
            return answer.content

        found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", decode(_VERSION, self.ask(get), self.host).version)
        return () if found is None or not any(map(int, found.groups())) else tuple(map(int, found.groups()))

    def has_blob(self, digest: str) -> bool:
        """Whether a blob is there."""
        return self.ask(lambda _: self._plain.head(f"/api/blobs/{digest}").is_success)

    def digests(self) -> dict[str, str]:
        """Digests of the manifests of all models, by name."""
        return {str(m.model): str(m.digest) for m in self.ask(lambda client: client.list()).models}

    def digest(self, model: str) -> str:
        """Digest of a model's manifest: everything that Ollama knows of it.

        Raises:
            ModelError: it is not there; get it with `ollama pull`.
        """
        found = self.digests().get(full_name(model))
        if found is None:
            raise ModelError(f"Ollama at {self.host} has no model {model!r}; get it with `ollama pull {model}`")
        return found

    def show(self, model: str) -> ShowResponse:
        """What Ollama tells of a model."""
        return self.ask(lambda client: client.show(model), model)

    def resident(self) -> list[Resident]:
        """Models in memory."""
        found = self.ask(lambda client: client.ps()).models
        return [Resident(str(m.model), str(m.digest), int(m.size or 0), int(m.context_length or 0)) for m in found]

    def chat(
        self,
        model: str,
        messages: Sequence[Mapping[str, object]],
        options: Mapping[str, float],
        keep_alive: float | str,
        think: bool | None = None,
        tools: Sequence[Mapping[str, object]] = (),
    ) -> ChatResponse:
        """One answer, whole; without messages the model is loaded, and with `keep_alive` 0 unloaded."""
        given = {**GREEDY, **options}
        offered = list(tools) or None
        return self.ask(
            lambda c: c.chat(model, messages, tools=offered, options=given, keep_alive=keep_alive, think=think), model
        )


def full_name(model: str) -> str:
    """A model's name as Ollama lists it, tag included."""
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


def adapters_in(shown: ShowResponse) -> list[str]:
    """Digests (hex) of the adapters that a model carries, as its Modelfile tells."""
    return re.findall(r"(?m)^ADAPTER .*sha256-([0-9a-f]{64})", shown.modelfile or "")


def architecture_of(shown: ShowResponse) -> str:
    """`general.architecture`, such as qwen2."""
    told: Any = (shown.modelinfo or {}).get("general.architecture", "")
    return str(told)


def trained_context(shown: ShowResponse) -> int:
    """Tokens that the model was trained on; 0 if not told. Ollama silently makes no longer context."""
    told = (shown.modelinfo or {}).get(f"{architecture_of(shown)}.context_length", 0)
    return told if isinstance(told, int) else 0


def _short(text: str) -> str:
    return " ".join(clean(text).split())[:300]


def _url(host: str) -> str:
    text = host.strip() if "://" in host else f"http://{host.strip()}"
    try:
        url = httpx.URL(text.rstrip("/"))
    except (httpx.InvalidURL, ValueError) as error:
        raise ModelError(f"{host[:200]!r} is no address ({error}); write one such as {HOST}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ModelError(f"{host[:200]!r} is no address of a server; write one such as {HOST}")
    return str(url.copy_with(port=PORT) if url.port is None and url.scheme == "http" and "://" not in host else url)
