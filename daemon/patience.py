"""What to wait for before the next attempt: longer after each failure in a row, and until the disk has room."""

from __future__ import annotations

import time
from pathlib import Path

from daemon.events import Event
from daemon.logs import Logger
from daemon.resources import free_mb

BACKOFF_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0, 300.0)
LOW = "MiB free"


class Patience:
    """Something broke that is nobody's fault. `holding` says what is waited for, empty if for nothing."""

    def __init__(self, log: Logger) -> None:
        self.holding = ""
        self._log = log
        self._failures = 0
        self._until = 0.0

    @property
    def left(self) -> float:
        """Seconds until the next attempt; not positive when it may be made now."""
        return self._until - time.monotonic()

    def failed(self, why: str) -> None:
        """Wait longer each time, and say why."""
        delay = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        self.holding = f"waiting {delay:g} s after: {why}"
        self._until = time.monotonic() + delay
        self._log.error(Event.DAEMON_ERROR, error=why, retry_seconds=delay)

    def worked(self) -> None:
        """The next failure is the first again."""
        self._failures = 0

    def low_disk(self, root: Path, floor: int) -> bool:
        """Whether there is less than `floor` MiB of space at `root`; told once when it comes and once when it goes."""
        free = free_mb(root)
        low = free < floor
        if low and LOW not in self.holding:
            self._log.warning(Event.DISK_LOW, free_mb=free, floor_mb=floor)
        elif not low and LOW in self.holding:
            self._log.info(Event.DISK_RECOVERED, free_mb=free)
            self.holding = ""
        if low:
            self.holding = f"{free} {LOW}, resources.free_disk_mb asks for {floor}: free some space"
        return low
