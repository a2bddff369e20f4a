"""What the daemon tells the service manager: ready, alive, reloading, stopping (protocol: sd_notify(3)).

Without a manager that listens (launchd, a terminal, a test) nothing is sent and nothing fails.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

SEND_SECONDS = 1.0
"""How long a message may wait for a manager whose queue is full."""


class Notifier:
    """Sends messages to the socket that `NOTIFY_SOCKET` names.

    Every method returns whether the message was taken. A message that was not is no reason to stop
    working: a manager that misses it acts by its own time limits.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))

    @property
    def listened_to(self) -> bool:
        """Whether there is a manager to tell anything."""
        return self._address is not None

    def ready(self, status: str = "") -> bool:
        """The daemon is up, or done with reloading."""
        return self._send("READY=1", *_status(status))

    def status(self, text: str) -> bool:
        """One line for people, shown by `systemctl status`."""
        return self._send(f"STATUS={_line(text)}")

    def watchdog(self) -> bool:
        """The daemon is alive; due every `watchdog_seconds()`."""
        return self._send("WATCHDOG=1")

    def reloading(self) -> bool:
        """The daemon reads its configuration again; `ready` ends this."""
        # systemd compares this with the moment at which it asked, on the same clock.
        return self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str = "") -> bool:
        """The daemon is on its way out."""
        return self._send("STOPPING=1", *_status(status))

    def extend_timeout(self, seconds: float) -> bool:
        """Ask for this much time from now on, because starting or stopping takes longer than the unit allows."""
        return self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def _send(self, *assignments: str) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)
        except OSError:
            return False
        return True


def watchdog_seconds(environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """How often `Notifier.watchdog` is due: half the time after which the manager would act.

    None if the manager does not watch, or watches another process than `pid` (default: this one),
    which is how a child sees the variables that it inherited.
    """
    watched = environ.get("WATCHDOG_PID", "")
    if watched and watched != str(os.getpid() if pid is None else pid):
        return None
    text = environ.get("WATCHDOG_USEC", "")
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) / 2_000_000 or None


def _address(text: str) -> bytes | None:
    """A path, or after `@` an abstract name. Other families (vsock) are for whole machines, not for services."""
    if len(text) < 2 or text[0] not in "/@":
        return None
    return os.fsencode(text if text[0] == "/" else f"\0{text[1:]}")


def _status(text: str) -> tuple[str, ...]:
    return (f"STATUS={_line(text)}",) if text else ()


def _line(text: str) -> str:
    # A line break would begin another assignment, and the text may come from a model.
    return " ".join(text.split())
