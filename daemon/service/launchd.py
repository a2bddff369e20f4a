"""launchd, through `launchctl`.

Not run on a Mac: written from launchd.plist(5) and launchctl(1); the tests have a stand-in for launchctl.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

from daemon.errors import DaemonError
from daemon.home import Home
from daemon.service.manager import (
    LONG_PATIENCE,
    PATIENCE,
    Installation,
    Run,
    ServiceStatus,
    check_rights,
    is_ours,
    ours,
    run_command,
    said,
    write,
)
from daemon.service.plan import Scope, ServicePlan
from daemon.service.texts import LABEL, plist_text


class Launchd:
    """launchd: a LaunchAgent of the user's session, or a LaunchDaemon of the machine."""

    name = "launchd"

    def __init__(self, scope: Scope, run: Run = run_command, library: Path | None = None) -> None:
        """`library` is where the property lists lie; by default the user's or the machine's Library folder."""
        self.scope = scope
        self._run = run
        self._domain = "system" if scope is Scope.SYSTEM else f"gui/{os.getuid()}"
        self._target = f"{self._domain}/{LABEL}"
        home, folder = (Path("/"), "LaunchDaemons") if scope is Scope.SYSTEM else (Path.home(), "LaunchAgents")
        self.path = (library or home / "Library") / folder / f"{LABEL}.plist"

    def install(self, plan: ServicePlan) -> Installation:
        """See `ServiceManager`."""
        check_rights(self.scope)
        logs = Home(plan.home).logs  # launchd opens the files in it and makes no folders
        if not logs.is_dir():
            logs.mkdir(mode=0o700)
            os.chown(logs, plan.home.stat().st_uid, plan.home.stat().st_gid)
        write(self.path, plist_text(plan))
        self._bootout()
        self._do("enable", self._target)
        self._do("bootstrap", self._domain, str(self.path))
        advice = "it starts when you log in on the screen; for a machine where nobody does, install with --system"
        return Installation(status=self.status(), advice=(advice,) if self.scope is Scope.USER else ())

    def uninstall(self) -> bool:
        """See `ServiceManager`."""
        if not ours(self.path):
            return False
        check_rights(self.scope)
        self._bootout()
        self.path.unlink()
        return True

    def status(self) -> ServiceStatus:
        """See `ServiceManager`."""
        loaded = self._launchctl("print", self._target)
        # launchctl(1) warns that this is for people; only the job's own lines, one tab deep, are looked at.
        job = dict(re.findall(r"^\t(state|pid) = (.+)$", loaded.stdout, re.M)) if loaded.returncode == 0 else {}
        switched = self._launchctl("print-disabled", self._domain).stdout  # "true" before macOS 13
        disabled = re.search(rf'"{re.escape(LABEL)}" => (disabled|true)', switched)
        installed = self.path.exists() and is_ours(self.path)
        return ServiceStatus(
            manager=self.name,
            scope=self.scope,
            path=self.path,
            installed=installed,
            enabled=installed and not disabled,
            active=job.get("state") == "running",
            state=job.get("state", "not loaded"),
            pid=int(job["pid"]) if job.get("pid", "").isdigit() else None,
            since=None,
        )

    def _launchctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(["launchctl", *arguments], PATIENCE)

    def _do(self, *arguments: str) -> str:
        return said(self._launchctl(*arguments))

    def _bootout(self) -> None:
        """End and forget the job. launchctl comes back before the job has ended, and a bootstrap then would fail."""
        until = time.monotonic() + LONG_PATIENCE
        while self._launchctl("print", self._target).returncode == 0:
            self._launchctl("bootout", self._target)
            if time.monotonic() > until:
                raise DaemonError(f"launchd does not let go of {self._target}; look with `launchctl print {self._target}`")
            time.sleep(0.2)
