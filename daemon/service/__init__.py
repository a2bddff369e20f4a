"""The daemon as a service: a systemd unit or a launchd job, written from a template, started and asked about.

`service_manager(scope)` is the manager of this machine. What it is told goes through `systemctl` and
`launchctl`, as an owner would do it by hand; the templates lie in `systemd/` and `launchd/`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from daemon.errors import DaemonError
from daemon.service.launchd import Launchd
from daemon.service.manager import Installation, Run, ServiceManager, ServiceStatus, run_command
from daemon.service.plan import Scope, ServiceLimits, ServicePlan, default_executable, plan_service
from daemon.service.systemd import Systemd

__all__ = [
    "Installation",
    "Run",
    "Scope",
    "ServiceLimits",
    "ServiceManager",
    "ServicePlan",
    "ServiceStatus",
    "default_executable",
    "plan_service",
    "run_command",
    "service_manager",
]


def service_manager(scope: Scope = Scope.USER, run: Run = run_command) -> ServiceManager:
    """The manager of this machine.

    Raises:
        DaemonError: it has none that we know.
    """
    if sys.platform == "darwin":
        return Launchd(scope, run)
    if Path("/run/systemd/system").is_dir() and shutil.which("systemctl"):  # what sd_booted(3) asks
        return Systemd(scope, run)
    raise DaemonError(
        "neither systemd nor launchd runs here, so nothing can be installed; have what starts your programs "
        "(a container's entry point, a supervisor, tmux) run `sleepyd --home DIR`"
    )
