"""The daemon's side of the worker process: start it, ask it, end it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from daemon.errors import DaemonError
from daemon.events import Event
from daemon.home import Home
from daemon.worker import Reply, Request

LINE_LIMIT = 16 << 20
ERRORS = "worker.stderr"
OnEvent = Callable[[str, dict[str, Any]], None]


class WorkerDied(DaemonError):
    """The worker process ended without an answer; what it was doing can be taken up again."""


class Worker:
    """At most one worker process, started when there is something to do."""

    def __init__(self, home: Home, on_event: OnEvent) -> None:
        self.home = home
        self.on_event = on_event
        self.busy = False
        self._leaving = False
        self._asked = 0
        self._starting = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """PID of the process, or None while there is none."""
        alive = self._process is not None and self._process.returncode is None
        return self._process.pid if alive and self._process is not None else None

    async def ask(self, request: Request) -> Reply:
        """Have a request carried out; events are handed on as they come.

        Raises:
            WorkerDied: the process ended before it answered, and nobody had asked it to.
        """
        self.busy, self._leaving = True, False
        try:
            process = await self._running()
        except BaseException:
            self.busy = False
            raise
        try:
            if self._leaving:  # the wish came while it was being started
                return Reply(stopped=True)
            reply = await self._answer(process, request)
            if self._leaving:  # it is on its way out
                await self.close()
            return reply
        except WorkerDied:
            if self._leaving:
                return Reply(stopped=True)
            raise
        except BaseException:  # what it says from now on must not be taken for the next answer
            self._end(process)
            self._process = None
            raise
        finally:
            self.busy = False

    async def ask_aside(self, request: Request) -> Reply:
        """Have a request carried out beside whatever is being done, which it neither waits for nor disturbs.

        Raises:
            WorkerDied: the process ended before it answered.
        """
        return await self._answer(await self._running(), request)

    async def _answer(self, process: asyncio.subprocess.Process, request: Request) -> Reply:
        """Send a request and wait for the reply with its number."""
        assert process.stdin is not None
        self._asked += 1
        number = self._asked
        waiting = self._waiting
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        waiting[number] = reply
        try:
            with contextlib.suppress(ConnectionError):  # its end is told by the reader
                process.stdin.write(request.model_copy(update={"number": number}).model_dump_json().encode() + b"\n")
                await process.stdin.drain()
            return await reply
        finally:
            waiting.pop(number, None)

    async def _listen(self, process: asyncio.subprocess.Process, waiting: dict[int, asyncio.Future[Reply]]) -> None:
        """Hand on what the process says until it ends; whoever still waits for a reply then learns of that."""
        assert process.stdout is not None
        problem: Exception | None = None
        try:
            while line := await process.stdout.readline():
                message = json.loads(line)
                if "reply" not in message:
                    self.on_event(message["event"], message["fields"])
                    continue
                reply = Reply.model_validate(message["reply"])
                if (asker := waiting.get(reply.number)) is not None and not asker.done():
                    asker.set_result(reply)
        except (ConnectionError, ValueError):  # the pipe is broken, or what came through it is no message
            self._end(process)
        except Exception as error:  # noqa: BLE001  (an event could not be handed on: that is for whoever asked)
            problem = error
            self._end(process)
        code = await process.wait()
        if self._process is process:
            self._process = None
        for asker in waiting.values():
            if not asker.done():
                asker.set_exception(problem or WorkerDied(f"the worker process ended with status {code}{self._last_words()}"))

    @staticmethod
    def _end(process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            return await self._started()

    async def _started(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            with (self.home.logs / ERRORS).open("ab") as errors:
                errors.truncate(0)
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "daemon.worker",
                    str(self.home.root),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=errors,
                    limit=LINE_LIMIT,
                    start_new_session=True,  # a Ctrl-C at the terminal is the daemon's to handle
                )
            self._waiting = {}
            self._listening = asyncio.create_task(self._listen(self._process, self._waiting))
            self.on_event(Event.WORKER_STARTED, {"pid": self._process.pid})
        return self._process

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.home.logs / ERRORS).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return f": {lines[-1]}" if lines else ""
        return ""

    def request_stop(self) -> None:
        """Ask for an end of what it is doing at the next safe point."""
        if self.busy:
            self._leaving = True
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End what it is doing now; it can be taken up again."""
        if self.busy:
            self._leaving = True
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def close(self) -> None:
        """End an idle worker and wait for it."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()
        self.on_event(Event.WORKER_EXITED, {"code": process.returncode})
