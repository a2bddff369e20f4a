"""The file watcher: a changed configuration is taken over, and what is put into the inbox is taken in.

watchdog's thread only says that something happened; the looking is done by the event loop, a
moment later, so that half-written files and editors that save in several steps do no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

SETTLE_SECONDS = 0.3
QUIET = ("opened", "closed_no_write")


class Watcher:
    """Has `look` done in the event loop soon after something changed in one of the folders; once at a time."""

    def __init__(self, folders: list[Path], look: Callable[[], Awaitable[None]]) -> None:
        self._folders = folders
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._planned: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self._again = False
        self._observer = Observer()

    def start(self) -> None:
        """Begin to watch."""

        def happened() -> None:
            self._loop.call_soon_threadsafe(self._plan)

        handler = _Handler(happened)
        for folder in self._folders:
            self._observer.schedule(handler, str(folder), recursive=False)
        self._observer.start()

    async def stop(self) -> None:
        """Watch no more; what is being looked at is finished."""
        self._observer.stop()
        self._observer.join(timeout=5)
        if self._planned is not None:
            self._planned.cancel()
        self._again = False
        if self._looking is not None:
            await self._looking

    def _plan(self) -> None:
        if self._planned is not None:
            self._planned.cancel()
        self._planned = self._loop.call_later(SETTLE_SECONDS, self.look_now)

    def look_now(self) -> None:
        """Look without waiting for a change; if it is looking just now, once more after that."""
        self._again = True
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look_on())

    async def _look_on(self) -> None:
        while self._again:
            self._again = False
            await self._look()


class _Handler(FileSystemEventHandler):
    def __init__(self, happened: Callable[[], None]) -> None:
        self._happened = happened

    def on_any_event(self, event: FileSystemEvent) -> None:
        """See watchdog; reading a file is no change."""
        if event.event_type not in QUIET:
            self._happened()
