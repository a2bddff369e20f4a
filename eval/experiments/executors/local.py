"""The executor of one machine: worker processes, each with one thread and one job at a time.

Workers are spawned, not forked: a forked torch can hang on locks of threads that are not there any more. Each leads a process
group, so that what it started ends with it. A worker ends when its parent does, however that ended.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from eval.experiments.executor import Done, Job, Work
from eval.experiments.executors.attempt import ONE_THREAD, TRIES, attempt, explained, here, packed, returned
from eval.experiments.life import Life, LifeConfig

GRACE = 3.0
"""Seconds that a worker has to tidy up when it is told to end, before it is killed."""


class LocalExecutor:
    """`workers` processes of this machine. What jobs need is not placed: everything is here, and each worker has one core.

    Raises:
        ValueError: there is to be no worker.
    """

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"{workers} workers live nothing; give at least 1")
        self.workers = workers
        self.name = f"local:{workers}"

    def map(self, work: Work, jobs: Sequence[Job[LifeConfig]]) -> Iterator[Done]:
        """See `Executor`. A job whose worker died is begun again, `TRIES` times in all."""
        body = packed(work)
        waiting = deque((job, 1) for job in jobs)
        busy: list[_Worker] = []
        idle: list[_Worker] = []

        def begin() -> None:
            while waiting and len(busy) < self.workers:
                worker = idle.pop() if idle else _Worker(body)
                busy.append(worker)
                worker.begin(*waiting.popleft())

        try:
            begin()
            while busy:
                ended = []
                for worker in _ready(busy):
                    busy.remove(worker)
                    done = worker.done()
                    if done is not None:
                        idle.append(worker)
                        ended.append(done)
                    elif worker.tries < TRIES:
                        waiting.appendleft((worker.job, worker.tries + 1))
                    else:
                        ended.append(Done(worker.job.key, None, worker.death(), worker.place, worker.tries))
                begin()  # before the caller does anything with what came back
                yield from ended
        finally:
            _end([*busy, *idle])


class _Worker:
    """A worker process as its parent sees it, and the job that it has."""

    job: Job[LifeConfig]
    tries: int

    def __init__(self, work: bytes) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, work), name="living")
        self.process.start()
        theirs.close()
        self.pid = self.process.pid or 0
        self.place = ":".join((here().rpartition(":")[0], str(self.pid)))

    def begin(self, job: Job[LifeConfig], tries: int) -> None:
        """Give it a job; that it is dead is seen later."""
        self.job, self.tries = job, tries
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(job.given)

    def done(self) -> Done | None:
        """What came of its job, or None if it died meanwhile."""
        try:
            found: Life | str = pickle.loads(self.pipe.recv_bytes()) if self.pipe.poll() else ""
        except (EOFError, OSError):
            found = ""
        if found == "":
            self.kill(signal.SIGKILL)  # what it started lives on without it
            self.process.join()
            self.pipe.close()
            return None
        return returned(self.job.key, found, self.place, self.tries)

    def death(self) -> str:
        """How it died."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"its process ended with exit status {code}, {self.tries} times; live this cell by itself to see why"
        name = signal.Signals(-code).name
        hint = "; most often the system's memory ran out: use fewer workers" if -code == signal.SIGKILL else ""
        return f"its process was killed by {name}, {self.tries} times{hint}"

    def kill(self, how: signal.Signals) -> None:
        """Send a signal to it, and to what it started."""
        try:
            os.killpg(self.pid, how)
        except (ProcessLookupError, PermissionError):  # it has no group of its own yet, or is gone
            with suppress(ProcessLookupError):
                os.kill(self.pid, how)


def _ready(workers: list[_Worker]) -> list[_Worker]:
    by_handle: dict[Any, _Worker] = {worker.pipe: worker for worker in workers}
    by_handle |= {worker.process.sentinel: worker for worker in workers}
    seen = dict.fromkeys(by_handle[handle] for handle in wait(list(by_handle)))
    return list(seen)


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        if worker.process.exitcode is None:
            worker.kill(signal.SIGTERM)
    patience = time.monotonic() + GRACE
    for worker in workers:
        worker.process.join(max(0.0, patience - time.monotonic()))
        if worker.process.exitcode is None:
            worker.kill(signal.SIGKILL)
        worker.process.join()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)  # what it started and did not end
        worker.pipe.close()


def _serve(pipe: Connection, work: bytes) -> None:
    """What a worker does: one job after another, until its parent sends no more."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(ONE_THREAD)
    warnings.simplefilter("ignore", FutureWarning)  # what the environment says of warnings is read when Python starts
    os.dup2(2, 1)  # what is printed must not get between the lines of the parent's JSON
    while True:
        try:
            given: LifeConfig = pipe.recv()
        except (EOFError, OSError):
            return
        found = attempt(work, given)
        try:
            answer = pickle.dumps(found)
        except Exception as error:  # noqa: BLE001  (anything can be wrong with what a job gave back)
            answer = pickle.dumps(explained(error))
        pipe.send_bytes(answer)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)
