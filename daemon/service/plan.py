"""What is to run as a service, and for whom; checked before anything is written."""

from __future__ import annotations

import os
import pwd
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from daemon.errors import DaemonError

LONGEST = 500
"""Seconds of `ServiceLimits` together, so that the unit's limit of starts per hour can still be reached."""

_EMPTIED = tuple(map(Path, ("/tmp", "/var/tmp")))


class Scope(StrEnum):
    """Whose service it is: one user's, or the machine's."""

    USER = "user"
    SYSTEM = "system"


@dataclass(frozen=True)
class ServiceLimits:
    """How long the manager waits, and how much memory the daemon may have with all that it starts."""

    stop_seconds: int = 90
    """From the wish to stop to the kill; must be more than the daemon's own grace."""
    watchdog_seconds: int = 120
    """Longest silence of a daemon that lives; launchd is not told."""
    memory_high: str = ""
    """Slowed down above this, like `8G` or `60%`; empty for no limit. launchd is not told."""
    memory_max: str = ""
    """Processes are killed above this."""


@dataclass(frozen=True)
class ServicePlan:
    """What is to run and for whom. Made by `plan_service`, which checks it. `user` owns `home` and runs the daemon."""

    home: Path
    executable: Path
    user: str
    scope: Scope = Scope.USER
    limits: ServiceLimits = ServiceLimits()


def default_executable() -> Path:
    """The `sleepyd` that was installed together with this Python, whether or not it is there."""
    return Path(sys.executable).with_name("sleepyd")


def plan_service(
    home: Path,
    scope: Scope = Scope.USER,
    executable: Path | None = None,
    limits: ServiceLimits = ServiceLimits(),
) -> ServicePlan:
    """A plan that can work: everything it names is there, and the service may use it.

    Raises:
        DaemonError: naming what is missing or wrong, and what to do.
    """
    # Links of the home are followed, so that the service's rules are about the real folder; the
    # executable's are not, because a virtual environment knows itself by its link.
    home, program = home.expanduser().resolve(), Path(os.path.abspath((executable or default_executable()).expanduser()))  # noqa: PTH100
    for path in (home, program):
        _check_text(path)
    if not home.is_dir():
        raise DaemonError(f"{home}: no such folder; make it with `sleepyctl init --home {home}` and install again")
    if not program.is_file() or not os.access(program, os.X_OK):
        raise DaemonError(f"{program}: no such program; install the package in this environment, or name its sleepyd")
    if min(limits.stop_seconds, limits.watchdog_seconds) < 1 or limits.stop_seconds + limits.watchdog_seconds > LONGEST:
        raise DaemonError(f"stop_seconds and watchdog_seconds are at least 1 and together at most {LONGEST}; choose less")
    for value in (limits.memory_high, limits.memory_max):
        if not re.fullmatch(r"(\d+(\.\d+)?[KMGT%]?|infinity)?", value):
            raise DaemonError(f"{value!r} is no amount of memory; write it like 8G or 60%")
    uid = home.stat().st_uid
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError as error:
        raise DaemonError(f"{home} belongs to user {uid}, who does not exist; give it to somebody with chown") from error
    if scope is Scope.USER and uid != os.getuid():
        raise DaemonError(f"{home} belongs to {user}; install the service as {user}, or choose another --home")
    if scope is Scope.SYSTEM:
        if uid == 0:
            raise DaemonError(
                f"{home} belongs to root, and the machine's service does not run as root; make a user for it and give it "
                f"the folder (useradd --system --create-home sleepyd; chown -R sleepyd: {home})"
            )
        for path in (home, program):
            if any(path.is_relative_to(folder) for folder in _EMPTIED):
                raise DaemonError(f"{path}: the service has a /tmp of its own and would not see it; choose another place")
    return ServicePlan(home, program, user, scope, limits)


def _check_text(path: Path) -> None:
    text = os.fspath(path)
    if not text.isprintable():  # line breaks, control characters, and bytes that are no UTF-8
        raise DaemonError(f"{text!r}: a service file cannot hold this path; choose one of printable characters")
