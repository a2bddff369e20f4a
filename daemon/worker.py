"""The worker process: does what the daemon asks, one thing at a time, and tells what happens.

Requests come as one JSON object per line on standard input, events and one reply per request go
out the same way. SIGTERM asks for an end at the next safe point; the end of standard input is the
end of the daemon, and ends this process at once, wherever it is.

    python -m daemon.worker STATE_DIRECTORY
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from agent.workspace import remove_tree
from daemon.config import Config
from daemon.home import Home, owned

PREDECESSOR_SECONDS = 20.0


class Request(BaseModel):
    """What the daemon asks for. What is in `SIDE` is answered beside the work in hand."""

    model_config = ConfigDict(extra="forbid")

    do: Literal["play", "night", "rehearse", "align", "search", "rebuild", "scrub"]
    config: Config
    count: int = 0
    query: str = ""
    repo: str = ""
    number: int = 0
    """Given back with the reply."""


SIDE = ("search", "scrub")


class Reply(BaseModel):
    """How a request ended. `error` is for the owner; `kind` names the exception, `stopped` an end that was asked for."""

    number: int = 0
    done: dict[str, Any] | None = None
    stopped: bool = False
    error: str = ""
    kind: str = ""


class Desk:
    """The worker's side of the two pipes."""

    def __init__(self) -> None:
        self.stopping = False
        self._out = threading.Lock()
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._waiting = 0
        self._counting = threading.Lock()
        self._aside = ThreadPoolExecutor(max_workers=1)
        self._ready = threading.Event()
        self._beside: Callable[[Request], dict[str, Any]] | None = None
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=self._listen, daemon=True).start()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _listen(self) -> None:
        try:
            for line in sys.stdin:
                request = Request.model_validate_json(line)
                if request.do in SIDE and self._waiting:
                    self._aside.submit(self._beside_the_work, request)
                else:
                    self._put(request)
        except ValueError:  # a daemon of another version
            os._exit(1)
        os._exit(0)  # the daemon is gone; what is open stays open for the next one

    def _put(self, request: Request) -> None:
        with self._counting:
            self._waiting += 1
        self._requests.put(request)

    @contextmanager
    def next(self) -> Iterator[Request]:
        """Wait for a request; as long as the block runs, what can be done beside it is."""
        request = self._requests.get()
        try:
            yield request
        finally:
            with self._counting:
                self._waiting -= 1

    def beside(self, do: Callable[[Request], dict[str, Any]] | None) -> None:
        """From now on this answers requests of `SIDE` while another one is carried out; None while nothing can."""
        self._beside = do
        self._ready.set() if do is not None else self._ready.clear()

    def _beside_the_work(self, request: Request) -> None:
        while not self._ready.wait(0.1):
            if not self._waiting:  # what was being done has failed before anything could
                self._put(request)
                return
        if (do := self._beside) is not None:
            self.carry_out(request, do)
        else:
            self._put(request)

    def carry_out(self, request: Request, do: Callable[[Request], dict[str, Any]]) -> None:
        """Do it, and reply, whatever comes of it."""
        try:
            done = do(request)
        except Exception as error:  # noqa: BLE001  (whatever it is, the daemon decides what becomes of it)
            self.reply(Reply(number=request.number, error=str(error)[:2_000] or repr(error), kind=type(error).__name__))
        else:
            self.reply(Reply(number=request.number, done=done))

    def emit(self, event: str, **fields: object) -> None:
        """Tell the daemon about an event."""
        self._write({"event": event, "fields": fields})

    def reply(self, reply: Reply) -> None:
        """Answer the request."""
        self._write({"reply": reply.model_dump()})

    def _write(self, message: dict[str, object]) -> None:
        with self._out:
            sys.stdout.write(json.dumps(message, default=str) + "\n")
            sys.stdout.flush()


def serve(home: Home, desk: Desk) -> None:
    """Answer requests until a stop is asked for; attempts that were left open are closed before each."""
    from daemon.events import Event
    from daemon.work import Stopped, Work
    from memory.store import Store

    with suppress(FileNotFoundError):
        remove_tree(home.scratch)  # what a worker that was killed left behind
    home.scratch.mkdir(mode=0o700)
    tempfile.tempdir = str(home.scratch)
    with ExitStack() as stack:
        store: Store | None = None
        work: Work | None = None

        def do(request: Request) -> dict[str, Any]:
            nonlocal store, work
            store = store or stack.enter_context(Store(home.store))
            if lost := store.interrupted():
                desk.emit(Event.TASK_INTERRUPTED, attempts=lost)
            if work is None or work.config != request.config:
                desk.beside(None)
                if work is not None:
                    work.close()
                work = None
                work = Work(home, request.config, store, desk.emit, lambda: desk.stopping)
                desk.beside(work.do)
            return work.do(request)

        while not desk.stopping:
            with desk.next() as request:
                try:
                    desk.carry_out(request, do)
                except Stopped:
                    desk.reply(Reply(number=request.number, stopped=True))
        if work is not None:
            work.close()


def main() -> None:
    """Command line."""
    home = Home(Path(sys.argv[1]))
    desk = Desk()
    with owned(home.worker_lock, "a worker", PREDECESSOR_SECONDS):
        serve(home, desk)
    os._exit(0)  # Python's own end would wait for the lock of standard input, which the listening thread holds


if __name__ == "__main__":
    main()
