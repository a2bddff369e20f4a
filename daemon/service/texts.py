"""The service's file, from the templates in `systemd/` and `launchd/`."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from daemon.errors import DaemonError
from daemon.home import Home
from daemon.service.plan import Scope, ServicePlan

UNIT = "sleepyd.service"
LABEL = "io.sleepy.sleepyd"
MARKER = "Written by `sleepyctl service install`"
"""Stands in every file that `install` writes; a file without it is somebody else's and stays as it is."""

_CHECKOUT = Path(__file__).resolve().parents[2]  # or site-packages: the folders lie beside each other in both


def unit_text(plan: ServicePlan) -> str:
    """The systemd unit.

    Raises:
        DaemonError: systemd could not start this executable.
    """
    if set(str(plan.executable)) & set("\"'\\"):
        raise DaemonError(
            f"{plan.executable}: systemd starts nothing with a quote or backslash in its path; install it elsewhere"
        )
    home = _quoted(str(plan.home))
    values = {
        "HOME": home,
        # The colon: no `$VARIABLE` is looked for in what follows.
        "COMMAND": f"{_quoted(f':{plan.executable}')} --home {home}",
        "ENVIRONMENT": _quoted(f"SLEEPYD_HOME={plan.home}"),
        "CACHE": _quoted(f"XDG_CACHE_HOME={plan.home}/cache"),
        "USER": plan.user,
        **{name.upper(): str(value) for name, value in asdict(plan.limits).items()},
    }
    true = {plan.scope.value, *(name.lower() for name in ("MEMORY_HIGH", "MEMORY_MAX") if values[name])}
    text = _template("systemd", f"{UNIT}.in")
    text = re.sub(r"^#if (\w+)\n(.*?)^#end\n", lambda m: m[2] if m[1] in true else "", text, flags=re.M | re.S)
    return _filled(text, values)


def plist_text(plan: ServicePlan) -> str:
    """The launchd property list: a LaunchAgent's, or in the system's scope a LaunchDaemon's."""
    values = {
        "LABEL": LABEL,
        "EXECUTABLE": str(plan.executable),
        "HOME": str(plan.home),
        "LOGS": str(Home(plan.home).logs),
        "USER": plan.user,
        "STOP_SECONDS": plan.limits.stop_seconds,
    }
    job = _filled_tree(plistlib.loads(_template("launchd", f"{LABEL}.plist.in").encode()), values)
    assert isinstance(job, dict)
    if plan.scope is Scope.USER:
        del job["UserName"]
    comment = f"<!-- {MARKER}, which writes it anew each time. -->\n"
    return plistlib.dumps(job, sort_keys=False).decode().replace("<plist", f"{comment}<plist", 1)


def _template(folder: str, name: str) -> str:
    try:
        return (_CHECKOUT / folder / name).read_text(encoding="utf-8")
    except OSError as error:
        raise DaemonError(f"{_CHECKOUT / folder / name}: the template cannot be read; install the package again") from error


def _quoted(text: str) -> str:
    """One word for systemd (systemd.syntax(7)); `%` is doubled, or it would stand for something else."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def _filled(text: str, values: Mapping[str, object]) -> str:
    return re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), text)


def _filled_tree(node: object, values: Mapping[str, object]) -> object:
    if isinstance(node, dict):
        return {key: _filled_tree(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_filled_tree(value, values) for value in node]
    if not isinstance(node, str):
        return node
    return values[node.strip("@")] if re.fullmatch(r"@[A-Z_]+@", node) else _filled(node, values)
