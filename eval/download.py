"""Downloads that go on where they were cut off. What arrives is not checked here beyond its length."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import IO

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from eval.errors import EvalError

LARGEST = 64 << 20
ATTEMPTS = 6
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_ANOTHER_WAY = "get the file another way and use --from FILE"

Progress = Callable[[int, int | None], None]
"""Called with the bytes there so far and the bytes there will be, if that is known."""


class _Cut(Exception):
    """The server or the way to it failed; another attempt goes on where this one ended."""


def download(url: str, size: int | None, part: IO[bytes], progress: Progress, pause: Callable[[float], None]) -> None:
    """Append to `part` what it lacks of the file at `url`, which has `size` bytes or, with None, at most `LARGEST`.

    Raises:
        EvalError: if the server refuses, has a file of another size, or fails `ATTEMPTS` times (`part` keeps what came).
    """
    attempts = Retrying(
        retry=retry_if_exception_type(_Cut),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_exponential(max=30),
        sleep=pause,
        reraise=True,
    )
    try:
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
            attempts(_attempt, client, url, size, part, progress)
    except _Cut as error:
        raise EvalError(
            f"{url}: {error}; {ATTEMPTS} attempts failed. Try again, it goes on where it ended, or {_ANOTHER_WAY}"
        ) from error


def _attempt(client: httpx.Client, url: str, size: int | None, part: IO[bytes], progress: Progress) -> None:
    begun = part.seek(0, os.SEEK_END)
    if size is not None and begun >= size:
        part.truncate(size)
        return
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={begun}-"} if begun else {})}
    try:
        with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and begun:
                return  # there is no more of it
            total = _begin(answer, size, part, begun)
            done = part.tell()
            progress(done, total)
            for block in answer.iter_raw():
                done += len(block)
                if done > (LARGEST if total is None else total):
                    part.truncate(0)
                    raise EvalError(f"{url}: the server sends more bytes than the file has; {_ANOTHER_WAY}")
                part.write(block)
                progress(done, total)
    except httpx.RequestError as error:
        raise _Cut(f"the connection failed ({type(error).__name__}: {error})") from error
    finally:
        part.flush()
    if total is not None and done < total:
        raise _Cut(f"the answer ended after {done:,} of {total:,} bytes")


def _begin(answer: httpx.Response, size: int | None, part: IO[bytes], begun: int) -> int | None:
    """Set `part` to where the answer's bytes belong; returns the size of the whole file, if it is known."""
    code = answer.status_code
    if code in BUSY:
        raise _Cut(f"the server answered {code}")
    if code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        raise EvalError(f"{answer.url}: the server answered {code} {answer.reason_phrase}; {_ANOTHER_WAY}")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise EvalError(f"{answer.url}: the server encodes the file, against the request; {_ANOTHER_WAY}")
    if code == httpx.codes.OK:  # the whole file, asked for or not
        part.seek(0)
        part.truncate()
        told = re.fullmatch(r"(\d{1,15})", answer.headers.get("Content-Length", ""))
    else:
        span = re.fullmatch(r"bytes (\d{1,15})-\d{1,15}/(?:\d{1,15}|\*)", answer.headers.get("Content-Range", ""))
        if span is None or int(span[1]) != begun:
            part.truncate(0)
            raise _Cut("the server sent another range than was asked for")
        told = re.fullmatch(r".*/(\d+)", span[0])
    total = int(told[1]) if told else size
    if total is not None and (total > LARGEST or size not in (None, total)):
        raise EvalError(f"{answer.url}: a file of {total:,} bytes, not the one that was published; {_ANOTHER_WAY}")
    return total
