"""What the backends over a network share: patience with a server, its refusals, clean text, many requests at once."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, TypeVar

import httpx
from pydantic import BeforeValidator, TypeAdapter, ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_base, wait_exponential, wait_random

from agent.errors import ModelError, ModelUnavailable
from agent.model import Sampling

T = TypeVar("T")

PASSING = frozenset({408, 429, 500, 502, 503, 504, 529})
"""Statuses that a later attempt may not meet again (529 is Anthropic's "overloaded")."""
MAX_ANSWER_BYTES = 16 << 20
EMPTY = "(empty)"
_TOOLLESS = re.compile(r"\btools?\b|tool[ _-](?:choice|call|use)|--jinja|function.call", re.IGNORECASE)
_GARBLED = re.compile(r"error parsing tool call|failed to parse|invalid character|unexpected end of JSON", re.IGNORECASE)
_OVERFLOW = re.compile(r"context[ _](?:length|size|window)|prompt is too long|maximum model length", re.IGNORECASE)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for: `attempts` in all, and no attempt begins later than `seconds` after the first."""

    attempts: int = 6
    seconds: float = 60.0
    sleep: Callable[[float], None] = time.sleep


class Passing(Exception):
    """An attempt that failed for a reason that may pass; `after` is how long (seconds) the server asks to be left alone."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Refused(ModelError):
    """The server answered that it will not; asking again changes nothing."""

    def __init__(self, text: str, status: int = 0, said: str = "") -> None:
        super().__init__(text)
        self.status, self.said = status, said

    @property
    def overflow(self) -> bool:
        """Whether the conversation does not fit the server's context."""
        return self.status == 413 or (self.status == 400 and bool(_OVERFLOW.search(self.said)))

    @property
    def toolless(self) -> bool:
        """Whether the server, or its model, takes no tools (vLLM 400, llama-server 500, hosted ones 400, 404 or 422)."""
        return bool(_TOOLLESS.search(self.said))

    @property
    def garbled(self) -> bool:
        """Whether the server could not read its own model's call (llama-server and Ollama: 500)."""
        return self.status == 500 and bool(_GARBLED.search(self.said))


class _Wait(wait_base):
    """Twice as long each time, with jitter; never shorter than the server asked for."""

    def __init__(self) -> None:
        self._growing = wait_exponential(multiplier=0.5, max=8.0) + wait_random(0.0, 0.5)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        return max(self._growing(retry_state), error.after if isinstance(error, Passing) else 0.0)


def persist(attempt: Callable[[], T], where: str, patience: Patience) -> T:
    """The result of an attempt that is repeated as long as it fails with `Passing`.

    Raises:
        ModelUnavailable: patience is at its end.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(Passing),
        stop=stop_after_attempt(patience.attempts) | stop_before_delay(patience.seconds),
        wait=_Wait(),
        sleep=patience.sleep,
        reraise=True,
    )
    try:
        return retrying(attempt)
    except Passing as error:
        later = f"; it asks for {error.after:.0f} s of rest" if error.after else ""
        raise ModelUnavailable(
            f"{where} does not answer ({error}{later}); start the server, or wait until it is back: nothing is lost by waiting"
        ) from error


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to be left alone (RFC 9110 section 10.2.3: seconds or a date); 0 if it does not."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text).astimezone(UTC) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else max(0.0, seconds)


def clean(text: str) -> str:
    """Text that every server and store takes: halves of surrogate pairs and NULs become U+FFFD."""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.replace("\0", "\ufffd")


def printable(text: str, key: str = "") -> str:
    """A server's words, fit for an error: short, printable, without the key."""
    return _UNPRINTABLE.sub(" ", clean(text.replace(key, "***") if key else text))[:400]


def _clean(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_clean)]
"""A string of a server's answer, cleaned."""


def decode(kind: TypeAdapter[T], content: bytes | str, where: str) -> T:
    """A server's answer as a typed value.

    Raises:
        ModelError: it is no JSON, or has another form.
    """
    try:
        return kind.validate_python(json.loads(content))
    except (ValueError, RecursionError) as error:
        why = error.errors(include_url=False, include_input=False)[0] if isinstance(error, ValidationError) else error
        raise ModelError(f"{where} answers in a form that is not its API's ({str(why)[:200]}); check the URL") from error


def seed_of(sampling: Sampling, name: str, turn: int) -> int:
    """A seed (31 bits) for each conversation and turn, so that equal prompts may get different answers."""
    return int.from_bytes(hashlib.sha256(f"{sampling.seed}/{name}/{turn}".encode()).digest()[:4], "big") >> 1


def guessed_tokens(text: str) -> int:
    """Tokens of a text where the server does not count them: a quarter of its bytes."""
    return (len(text.encode("utf-8", "replace")) + 3) // 4


def side_by_side(work: Callable[[int], T], count: int, width: int) -> list[T]:
    """Results of work(0) … work(count - 1) in order, `width` at a time; the first failure stops what has not begun."""
    if count <= 1 or width <= 1:
        return [work(i) for i in range(count)]
    with ThreadPoolExecutor(min(width, count), thread_name_prefix="model") as pool:
        tasks = [pool.submit(work, i) for i in range(count)]
        try:
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            for task in tasks:
                if task in done:
                    task.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return [task.result() for task in tasks]


class Server:
    """An HTTP server, asked patiently. The key is sent in the Authorization header, and shown in no error.

    Raises:
        ModelError: the URL is none.
    """

    def __init__(self, url: str, key: str = "", timeout: float = 600.0, patience: Patience | None = None) -> None:
        try:
            self._url = httpx.URL(url.rstrip("/"))
        except (httpx.InvalidURL, ValueError) as error:
            raise ModelError(f"{url[:200]!r} is no URL ({error}); write one such as http://127.0.0.1:8000/v1") from error
        if self._url.scheme not in ("http", "https") or not self._url.host:
            raise ModelError(f"{url[:200]!r} is no URL of a server; write one such as http://127.0.0.1:8000/v1")
        self.shown = str(self._url.copy_with(userinfo=b"", query=None, fragment=None))
        self.loopback = self._url.host in ("127.0.0.1", "::1", "localhost")
        self.breaks = 0
        """How often the connection failed: what was known of the server may then be out of date."""
        self._key, self._timeout, self._patience = key, timeout, patience or Patience()
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            headers={"Authorization": f"Bearer {key}"} if key else {},
            trust_env=not self.loopback,  # a proxy has no business between this machine and itself
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, method: str, path: str, body: object = None, passing: frozenset[int] = PASSING) -> bytes:
        """The content of a successful answer. `path` is relative to the URL; `/..` leads to its root, without `/v1`.

        Raises:
            ModelUnavailable: the server stays away.
            Refused: it says no.
        """
        base = str(self._url)
        where = f"{base.removesuffix('/v1')}{path[3:]}" if path.startswith("/..") else f"{base}{path}"
        return persist(lambda: self._attempt(method, where, body, passing), self.shown, self._patience)

    def _attempt(self, method: str, where: str, body: object, passing: frozenset[int]) -> bytes:
        ends = time.monotonic() + self._timeout
        content = bytearray()
        try:
            with self._client.stream(method, where, json=body) as response:
                for block in response.iter_bytes():
                    content += block
                    if len(content) > MAX_ANSWER_BYTES:
                        raise ModelError(f"{self.shown} sends more than {MAX_ANSWER_BYTES >> 20} MB; this is no answer")
                    if time.monotonic() > ends:
                        raise Passing(f"no whole answer within {self._timeout:g} s")
        except httpx.TransportError as error:
            self.breaks += 1
            raise Passing(printable(f"{type(error).__name__}: {error}", self._key)) from error
        except httpx.HTTPError as error:
            raise ModelError(f"{self.shown}: {printable(str(error), self._key)}") from error
        if response.is_success:
            return bytes(content)
        said = printable(content.decode("utf-8", "replace"), self._key)
        no = Refused(f"{self.shown} refuses ({response.status_code} {said})", response.status_code, said)
        if response.status_code in passing and not (no.garbled or "--jinja" in said):
            raise Passing(f"{response.status_code} {said}", retry_after(response.headers))
        raise no
