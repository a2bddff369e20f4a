"""The listening side of the control socket: who may open it, and how long it is served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from daemon.errors import DaemonError

BACKLOG = 64
GRACE_SECONDS = 2


@contextlib.asynccontextmanager
async def serving(app: FastAPI, path: Path) -> AsyncIterator[None]:
    """Serve the application on a Unix socket at `path` as long as the block runs. The caller owns the place.

    Raises:
        DaemonError: if something else lies there.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=GRACE_SECONDS, loop="none"
    )
    server = _Server(config)
    with contextlib.closing(bind(path)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.stop()
            await task
            path.unlink(missing_ok=True)


def bind(path: Path) -> socket.socket:
    """The listening socket, for the owner alone. The caller holds the lock, so an old socket there is a dead one.

    Raises:
        DaemonError: if something else lies in its place.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
            raise DaemonError(f"{path} is not a socket of ours; move it away")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise DaemonError(f"{path}: no socket can be made there ({error})") from error
    finally:
        os.umask(before)
    listener.listen(BACKLOG)
    return listener


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the daemon, and waits for its end instead of asking ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    def stop(self) -> None:
        """Finish what is being answered, and end."""
        self.should_exit = True
        self._end.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end."""
        await self._end.wait()
