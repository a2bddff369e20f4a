"""What every service manager does, and what doing it takes: commands of the system, and files that are whole and ours."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from daemon.errors import DaemonError
from daemon.service.plan import Scope, ServicePlan
from daemon.service.texts import MARKER

PATIENCE = 30.0
"""Seconds that a question to the service manager may take."""
LONG_PATIENCE = 700.0
"""Seconds that a start or a stop may take; the unit's own time limits come first."""

Run = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]
"""Runs a command for at most that many seconds, and returns how it ended."""


class ServiceStatus(BaseModel):
    """What the service manager says about the daemon."""

    model_config = ConfigDict(frozen=True)

    manager: str
    scope: Scope
    path: Path
    """The unit or property list."""
    installed: bool
    """The file is there and was written by `install`."""
    enabled: bool
    """It will be started at boot, or when the user logs in."""
    active: bool
    """It runs, and has said that it is ready."""
    state: str
    """The manager's own word for it."""
    pid: int | None
    since: datetime | None
    """When it became active (UTC); launchd does not tell."""


class Installation(BaseModel):
    """What `install` did, and what is left for the owner to decide."""

    model_config = ConfigDict(frozen=True)

    status: ServiceStatus
    advice: tuple[str, ...] = ()


class ServiceManager(Protocol):
    """What looks after services on a machine, in one scope.

    Every method raises DaemonError when the manager refuses or does not answer, with its own words.
    """

    name: str
    scope: Scope
    path: Path
    """Where the unit or property list lies, or would lie."""

    def install(self, plan: ServicePlan) -> Installation:
        """Write the file, have the daemon started now (again, if it runs) and whenever the machine starts."""

    def uninstall(self) -> bool:
        """Stop the daemon and remove the file; whether there was one. The state directory stays."""

    def status(self) -> ServiceStatus:
        """What the manager knows."""


def run_command(argv: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command of the system and wait for it; how it ended is the caller's to judge.

    Raises:
        DaemonError: it is not there, or did not end in time.
    """
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}  # times are printed in the client's zone
    runtime = Path(f"/run/user/{os.getuid()}")
    if "XDG_RUNTIME_DIR" not in environment and runtime.is_dir():  # not set by su, sudo and cron
        environment["XDG_RUNTIME_DIR"] = str(runtime)
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False, env=environment
        )
    except OSError as error:
        raise DaemonError(f"{argv[0]} cannot be run ({error.strerror}); is it on the PATH?") from error
    except subprocess.TimeoutExpired as error:
        raise DaemonError(f"`{' '.join(argv)}` gave no answer in {seconds:.0f} s; run it by hand to see why") from error
    out, errors = (stream.decode(errors="replace") for stream in (ended.stdout, ended.stderr))
    return subprocess.CompletedProcess(argv, ended.returncode, out, errors)


def said(answer: subprocess.CompletedProcess[str]) -> str:
    """What a command printed.

    Raises:
        DaemonError: it failed; with its own words.
    """
    if answer.returncode != 0:
        words = answer.stderr.strip() or answer.stdout.strip() or f"exit status {answer.returncode}"
        raise DaemonError(f"`{' '.join(answer.args)}` failed: {words}")
    return answer.stdout


def check_rights(scope: Scope) -> None:
    """Raises DaemonError where the service may not be changed by this user."""
    if scope is Scope.SYSTEM and os.geteuid() != 0:
        raise DaemonError("only root may change the machine's services; run this with sudo, or leave out --system")


def is_ours(path: Path) -> bool:
    """Whether `install` wrote this file."""
    try:
        return MARKER in path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DaemonError(f"{path}: cannot be read ({error.strerror}); look at it by hand") from error


def ours(path: Path) -> bool:
    """Whether our file is there.

    Raises:
        DaemonError: somebody else's is.
    """
    if not path.is_symlink() and not path.exists():
        return False
    if not is_ours(path):  # also when it is masked, that is, a link to /dev/null
        raise DaemonError(f"{path} was not written by `sleepyctl service install`, so it stays; move it away and try again")
    return True


def write(path: Path, text: str) -> None:
    """Put a service file in its place, whole or not at all; one that is not ours is left alone."""
    ours(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".sleepyd-", delete=False) as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink()
                raise
    except OSError as error:
        raise DaemonError(f"{path}: cannot be written ({error.strerror}); check who owns the folder") from error
