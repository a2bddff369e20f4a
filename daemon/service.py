"""The daemon as a service: a systemd unit or a launchd job, written from a template, started and asked about.

`service_manager(scope)` is the manager of this machine. What it is told goes through `systemctl` and
`launchctl`, as an owner would do it by hand; the templates lie in `systemd/` and `launchd/`.
"""

from __future__ import annotations

import os
import plistlib
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from daemon.errors import DaemonError
from daemon.home import Home

UNIT = "sleepyd.service"
LABEL = "io.sleepy.sleepyd"
MARKER = "Written by `sleepyctl service install`"
"""Stands in every file that `install` writes; a file without it is somebody else's and stays as it is."""
PATIENCE = 30.0
"""Seconds that a question to the service manager may take."""
LONG_PATIENCE = 700.0
"""Seconds that a start or a stop may take; the unit's own time limits come first."""
LONGEST = 500
"""Seconds of `ServiceLimits` together, so that the unit's limit of starts per hour can still be reached."""

_CHECKOUT = Path(__file__).resolve().parents[1]  # or site-packages: the folders lie beside each other in both
_EMPTIED = tuple(map(Path, ("/tmp", "/var/tmp")))

Run = Callable[[Sequence[str], float], "subprocess.CompletedProcess[str]"]
"""Runs a command for at most that many seconds, and returns how it ended."""


class Scope(StrEnum):
    """Whose service it is: one user's, or the machine's."""

    USER = "user"
    SYSTEM = "system"


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


@dataclass(frozen=True)
class ServiceLimits:
    """How long the manager waits, and how much memory the daemon may have with all that it starts."""

    stop_seconds: int = 90
    """From the wish to stop to the kill; must be more than the daemon's own grace."""
    watchdog_seconds: int = 120
    """Longest silence of a daemon that lives; launchd has no watchdog."""
    memory_high: str = ""
    """Slowed down above this, like `8G` or `60%`; empty for no limit. launchd has none."""
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


# Texts


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


# Managers


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
        _check_rights(self.scope)
        self._ask()
        _write(self.path, unit_text(plan))
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
        if not _ours(self.path):
            return False
        _check_rights(self.scope)
        self._ask()
        self._do("disable", UNIT)
        stopped = self._systemctl("stop", UNIT, seconds=LONG_PATIENCE)
        if self._ask("ActiveState")["ActiveState"] not in ("inactive", "failed"):  # what is broken and down may go
            _said(stopped)
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
            installed=self.path.exists() and _is_ours(self.path),
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
        return _said(self._systemctl(*arguments, seconds=seconds))

    def _ask(self, *properties: str) -> dict[str, str]:
        """Properties of the unit; without any, whether somebody answers at all."""
        answer = self._systemctl("show", UNIT, f"--property={','.join(properties or ('LoadState',))}")
        if answer.returncode != 0 and self.scope is Scope.USER:
            raise DaemonError(
                f"your own systemd cannot be reached ({answer.stderr.strip()}); log in as yourself and not through su or sudo, "
                "or run `sudo loginctl enable-linger $USER` and try again, or install for the whole machine (--scope system)"
            )
        return dict(line.split("=", 1) for line in _said(answer).splitlines() if "=" in line)

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
        _check_rights(self.scope)
        logs = Home(plan.home).logs  # launchd opens the files in it and makes no folders
        if not logs.is_dir():
            logs.mkdir(mode=0o700)
            os.chown(logs, plan.home.stat().st_uid, plan.home.stat().st_gid)
        _write(self.path, plist_text(plan))
        self._bootout()
        self._do("enable", self._target)
        self._do("bootstrap", self._domain, str(self.path))
        advice = "it starts when you log in on the screen; for a machine where nobody does, install with --scope system"
        return Installation(status=self.status(), advice=(advice,) if self.scope is Scope.USER else ())

    def uninstall(self) -> bool:
        """See `ServiceManager`."""
        if not _ours(self.path):
            return False
        _check_rights(self.scope)
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
        installed = self.path.exists() and _is_ours(self.path)
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
        return _said(self._launchctl(*arguments))

    def _bootout(self) -> None:
        """End and forget the job. launchctl comes back before the job has ended, and a bootstrap then would fail."""
        until = time.monotonic() + LONG_PATIENCE
        while self._launchctl("print", self._target).returncode == 0:
            self._launchctl("bootout", self._target)
            if time.monotonic() > until:
                raise DaemonError(f"launchd does not let go of {self._target}; look with `launchctl print {self._target}`")
            time.sleep(0.2)


def _said(answer: subprocess.CompletedProcess[str]) -> str:
    if answer.returncode != 0:
        words = answer.stderr.strip() or answer.stdout.strip() or f"exit status {answer.returncode}"
        raise DaemonError(f"`{' '.join(answer.args)}` failed: {words}")
    return answer.stdout


def _timestamp(text: str) -> datetime | None:
    """systemd's `Sat 2026-11-21 02:00:00 UTC`; the day's name is not looked at."""
    with suppress(ValueError):
        return datetime.strptime(text.partition(" ")[2], "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    return None


def _check_rights(scope: Scope) -> None:
    if scope is Scope.SYSTEM and os.geteuid() != 0:
        raise DaemonError("only root may change the machine's services; run this with sudo, or use --scope user")


def _is_ours(path: Path) -> bool:
    try:
        return MARKER in path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DaemonError(f"{path}: cannot be read ({error.strerror}); look at it by hand") from error


def _ours(path: Path) -> bool:
    """Whether our file is there.

    Raises:
        DaemonError: somebody else's is.
    """
    if not path.is_symlink() and not path.exists():
        return False
    if not _is_ours(path):  # also when it is masked, that is, a link to /dev/null
        raise DaemonError(f"{path} was not written by `sleepyctl service install`, so it stays; move it away and try again")
    return True


def _write(path: Path, text: str) -> None:
    """Put a service file in its place, whole or not at all; one that is not ours is left alone."""
    _ours(path)
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
