"""systemd, through `systemctl`."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from daemon.errors import DaemonError
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
from daemon.service.texts import UNIT, unit_text


class Systemd:
    """systemd: `systemctl --user` or the machine's."""

    name = "systemd"

    def __init__(self, scope: Scope, run: Run = run_command) -> None:
        self.scope = scope
        self._run = run
        user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "systemd/user"
        self.path = (Path("/etc/systemd/system") if scope is Scope.SYSTEM else user) / UNIT

    def install(self, plan: ServicePlan) -> Installation:
        """See `ServiceManager`."""
        check_rights(self.scope)
        self._ask()
        write(self.path, unit_text(plan))
        self._do("daemon-reload")
        self._do("enable", UNIT)
        self._systemctl("reset-failed", UNIT)  # or earlier failures would count; says no when there are none
        began = int(time.time())
        try:
            self._do("restart", UNIT, seconds=LONG_PATIENCE)
        except DaemonError as error:
            raise DaemonError(
                f"{self.path} is installed, but the daemon does not start: {self._last_words(began) or error}\n"
                f"mend that and install again; all it said: journalctl {self._flag} --unit {UNIT}"
            ) from error
        return Installation(status=self.status(), advice=self._advice(plan))

    def uninstall(self) -> bool:
        """See `ServiceManager`."""
        if not ours(self.path):
            return False
        check_rights(self.scope)
        self._ask()
        self._do("disable", UNIT)
        stopped = self._systemctl("stop", UNIT, seconds=LONG_PATIENCE)
        if self._ask("ActiveState")["ActiveState"] not in ("inactive", "failed"):  # what is broken and down may go
            said(stopped)
        self.path.unlink()
        self._do("daemon-reload")
        self._systemctl("reset-failed", UNIT)
        return True

    def status(self) -> ServiceStatus:
        """See `ServiceManager`."""
        shown = self._ask("UnitFileState", "ActiveState", "SubState", "Result", "MainPID", "ActiveEnterTimestamp")
        active = shown["ActiveState"] in ("active", "reloading", "refreshing")
        why = shown["Result"] if shown["ActiveState"] == "failed" else shown["SubState"]
        return ServiceStatus(
            manager=self.name,
            scope=self.scope,
            path=self.path,
            installed=self.path.exists() and is_ours(self.path),
            enabled=shown["UnitFileState"].startswith("enabled"),
            active=active,
            state=f"{shown['ActiveState']} ({why})",
            pid=int(shown["MainPID"]) or None,
            since=_timestamp(shown["ActiveEnterTimestamp"]) if active else None,
        )

    @property
    def _flag(self) -> str:
        return f"--{self.scope}"

    def _systemctl(self, *arguments: str, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        return self._run(["systemctl", self._flag, "--no-ask-password", *arguments], seconds)

    def _do(self, *arguments: str, seconds: float = PATIENCE) -> str:
        return said(self._systemctl(*arguments, seconds=seconds))

    def _ask(self, *properties: str) -> dict[str, str]:
        """Properties of the unit; without any, whether somebody answers at all."""
        answer = self._systemctl("show", UNIT, f"--property={','.join(properties or ('LoadState',))}")
        if answer.returncode != 0 and self.scope is Scope.USER:
            raise DaemonError(
                f"your own systemd cannot be reached ({answer.stderr.strip()}); log in as yourself and not through su or sudo, "
                "or run `sudo loginctl enable-linger $USER` and try again, or install for the whole machine (--system)"
            )
        return dict(line.split("=", 1) for line in said(answer).splitlines() if "=" in line)

    def _last_words(self, since: int) -> str:
        """The last lines that the daemon itself wrote since then, as far as this user may read the journal."""
        with suppress(DaemonError):
            unit = "--user-unit" if self.scope is Scope.USER else "--unit"
            only = [f"--since=@{since}", "--lines=3", "--output=cat", "--no-pager", "--quiet", "_TRANSPORT=stdout"]
            return self._run(["journalctl", unit, UNIT, *only], PATIENCE).stdout.strip()
        return ""

    def _advice(self, plan: ServicePlan) -> tuple[str, ...]:
        if self.scope is Scope.SYSTEM:
            return ()
        with suppress(DaemonError):
            lingers = self._run(["loginctl", "show-user", plan.user, "--property=Linger", "--value"], PATIENCE)
            if lingers.stdout.strip() == "yes":
                return ()
        return (f"it runs only while you are logged in; to have it always, run: sudo loginctl enable-linger {plan.user}",)


def _timestamp(text: str) -> datetime | None:
    """systemd's `Sat 2026-11-21 02:00:00 UTC`; the day's name is not looked at."""
    with suppress(ValueError):
        return datetime.strptime(text.partition(" ")[2], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    return None
