"""The service under a real systemd, in a container that is booted over a copy-on-write view of this machine's files.

What is under test is the unit, and the code that installs it. The program in it is a stand-in that speaks
`daemon.notify`; another one is one line in `CANDIDATES`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.service import Scope, ServiceStatus
from daemon.service.texts import UNIT
from tests.daemon import services

pytestmark = pytest.mark.nspawn

REPOSITORY = Path(__file__).resolve().parents[2]
NASTY = """a "b" 'c' 50% %n $HOME ${HOME} d\\e ; \u00e9"""
FOLDER = Path("/opt", NASTY.translate({ord(char): None for char in "\"'\\"}))  # which systemd starts nothing with
OWNER = "sleeper"
HOMES = {Scope.SYSTEM: Path("/srv", NASTY), Scope.USER: Path("/home", OWNER, NASTY)}
UNITS = {Scope.SYSTEM: Path("/etc/systemd/system"), Scope.USER: Path("/home", OWNER, ".config/systemd/user")}
QUICK = "[Service]\nRestartSec=200ms\nWatchdogSec=2s\n"

scope = services.scope

# Before it says that it is ready, it writes down what it sees of its surroundings.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path
from agent.errors import SandboxError
from agent.sandbox import probe
from daemon.notify import Notifier, watchdog_seconds

flags = set()
signal.signal(signal.SIGTERM, lambda *_: flags.add("stop"))
signal.signal(signal.SIGUSR1, lambda *_: flags.add("hang"))
home = Path(sys.argv[sys.argv.index("--home") + 1])
if (home / "broken").exists():
    sys.exit("the configuration is broken")

def works(action):
    try:
        return str(action())
    except (OSError, SandboxError) as error:
        return f"{type(error).__name__}: {error}"

names = ("NoNewPrivs", "Seccomp", "CapBnd")
status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
(home / "seen.json").write_text(json.dumps({
    "argv": sys.argv[1:], "home": os.environ["SLEEPYD_HOME"], "umask": os.umask(0o077), "nice": os.nice(0),
    "sandbox": works(lambda: probe(trusted_generated=False).name),
    "outside": {path: works(lambda: Path(path, "made-by-service").touch()) for path in ("/opt/open", "/home/open", "/tmp")},
    **{name: status[name] for name in names},
}))
notifier = Notifier()
notifier.ready("awake")
while "stop" not in flags:
    if "hang" not in flags:
        notifier.watchdog()
    time.sleep((watchdog_seconds() or 1) / 2)
notifier.stopping()
(home / "stopped").touch()
"""


@dataclass(frozen=True)
class Candidate:
    """A program for the unit; `hang` is the signal after which it feeds the watchdog no more."""

    executable: Path
    hang: signal.Signals


CANDIDATES = {
    "stand-in": Candidate(FOLDER / "sleepyd", signal.SIGUSR1),
    "sleepyd": Candidate(Path(sys.executable).with_name("sleepyd"), signal.SIGSTOP),
}


def eventually(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.1)


# The machine

# What the container must show, also where it lies in a file system that the overlay does not reach into.
PYTHONS = {Path(sys.prefix), Path(sys.base_prefix)}
BOUND = sorted({REPOSITORY, *(path for path in PYTHONS if not path.is_relative_to("/usr"))})
HOST_SYSTEMD = Path("/run/systemd/system").is_dir()
ALONE = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
if not HOST_SYSTEMD:  # which gives a container a control group, and for that must see its PIDs as it does
    ALONE += ["--pid", "--fork", "--kill-child", "--mount-proc"]
KERNEL = ("systemd.unit=multi-user.target", "systemd.mask=console-getty.service")
BOOT = """
set -e
mount -t tmpfs -o size=512m,mode=755 tmpfs "$BASE"
mkdir "$BASE/upper" "$BASE/work" "$BASE/root"
mount -t overlay -o lowerdir=/,upperdir="$BASE/upper",workdir="$BASE/work" overlay "$BASE/root"
# Nothing that this machine's owner has enabled is to run a second time.
rm -rf "$BASE/root/etc/systemd/system" "$BASE/root/etc/systemd/user" "$BASE/root"/etc/rc?.d
status=133  # what nspawn ends with when the container is to boot again
while [ "$status" -eq 133 ]; do
    status=0
    systemd-nspawn --quiet --directory="$BASE/root" --boot --private-network --link-journal=no \\
        --resolv-conf=off --timezone=off --register=no "$@" || status=$?
done
"""


def ancestors(pid: int, parents: dict[int, int]) -> list[int]:
    return [pid, *ancestors(parents[pid], parents)] if pid in parents else []


class Machine:
    """A booted container. Mounts and processes live in namespaces of their own and end with this one, however it ends."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._log = base.with_suffix(".log")
        self._name = f"sleepyd-{uuid.uuid4().hex[:8]}"
        flags = [f"--bind-ro={str(path).replace(':', chr(92) + ':')}" for path in BOUND]
        if not HOST_SYSTEMD:
            flags.append("--keep-unit")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*ALONE, "sh", "-c", BOOT, "boot", *flags, f"--machine={self._name}", *KERNEL],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "BASE": str(base)},
            )
        self.leader = 0

    def wait_for_boot(self, previous: int = 0) -> None:
        """Until systemd says that it is up; `previous` is the first process of an earlier boot."""
        try:
            eventually(lambda: self._find_leader(previous), "the container's first process")
            eventually(lambda: self.run(["systemctl", "is-system-running"]).stdout.strip() == "running", "it is up", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._log.read_text(errors='replace')[-3000:]}") from error

    def _find_leader(self, previous: int) -> bool:
        assert self._process.poll() is None, "the container ended"
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
        rows = [line.split(None, 2) for line in listed.splitlines()]
        parents = {int(pid): int(parent) for pid, parent, _ in rows}
        for nspawn in [int(pid) for pid, _, name in rows if name == "systemd-nspawn"]:
            if self._process.pid not in ancestors(nspawn, parents):
                continue
            for pid in [pid for pid, parent in parents.items() if parent == nspawn and pid not in (1, previous)]:
                with suppress(OSError):
                    spaces = re.search(r"^NSpid:(.*)", Path(f"/proc/{pid}/status").read_text(), re.M)
                    if spaces and spaces[1].split()[-1] == "1":
                        self.leader = pid
                        return True
        return False

    def run(self, argv: Sequence[str], user: str = "root", seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """A command inside; another user gets what `su` without a login would give."""
        assert self.leader > 1
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        folder = "/root" if user == "root" else f"/home/{user}"
        environment = [
            "env",
            "-i",
            f"HOME={folder}",
            f"USER={user}",
            f"PYTHONPATH={REPOSITORY}",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ]
        inside = ["nsenter", "--target", str(self.leader), "--all", "--wdns=/", "--", *become, *environment, *argv]
        return subprocess.run(inside, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)

    def do(self, *argv: str, user: str = "root") -> str:
        result = self.run(argv, user)
        assert result.returncode == 0, f"{argv}: {result.stdout}{result.stderr}"
        return result.stdout

    def write(self, path: Path, text: str, owner: str = "root", mode: str = "644") -> None:
        script = 'mkdir -p "$(dirname "$1")"; printf %s "$2" > "$1"; chmod "$3" "$1"; chown "$4": "$1"'
        self.do("sh", "-ec", script, "write", str(path), text, mode, owner)

    def kill(self, pid: int | None, number: signal.Signals) -> None:
        assert pid is not None
        assert pid > 1, "that would be the machine itself"
        self.do("kill", f"-{number.value}", str(pid))

    def power_off(self) -> None:
        """End it: asked first, killed if that takes long, and sweep up what nspawn leaves behind."""
        if self.leader > 1:
            with suppress(subprocess.TimeoutExpired):
                self.run(["systemctl", "poweroff", "--no-block"], seconds=10)
                self._process.wait(15)
        if self._process.poll() is None:
            if self.leader > 1:
                with suppress(ProcessLookupError):
                    os.kill(self.leader, signal.SIGKILL)
            self._process.kill()
            self._process.wait(15)
        self._log.unlink()
        shutil.rmtree(Path("/run/systemd/nspawn/propagate", self._name), ignore_errors=True)


def control_groups() -> set[Path]:
    """Control groups that nspawn makes beside its own one and leaves there."""
    found = set()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        own = line.split(":", 2)[2].strip("/")
        for hierarchy in ("", "unified", "systemd"):
            found |= {Path("/sys/fs/cgroup", hierarchy, own, name) for name in ("payload", "supervisor")}
    return {path for path in found if path.is_dir()}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if os.geteuid() != 0:
        pytest.skip("only root can boot a container")
    missing = [name for name in ("systemd-nspawn", "nsenter", "unshare", "setpriv", "useradd") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (apt-get install systemd-container)")
    mounts = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    if mounts.returncode != 0:
        pytest.skip("root may not mount anything here")
    before = control_groups()
    base = Path(tempfile.mkdtemp(prefix="sleepyd-machine-", dir="/var/tmp"))
    machine = Machine(base)
    try:
        machine.wait_for_boot()
        prepare(machine)
        yield machine
    finally:
        machine.power_off()
        base.rmdir()
        for group in sorted(control_groups() - before):
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()


def prepare(machine: Machine) -> None:
    machine.do("useradd", "--create-home", OWNER)
    above = {folder for path in BOUND for folder in path.parents if not any(map(folder.is_relative_to, BOUND))}
    machine.do("chmod", "o+x", *map(str, above))  # in the container's own layer
    for folder in HOMES.values():
        machine.do("install", "-d", "-m", "700", "-o", OWNER, str(folder))
    machine.do("install", "-d", "-m", "777", "/opt/open", "/home/open")
    machine.write(FOLDER / "stand_in.py", STAND_IN)
    words = shlex.join([sys.executable, str(FOLDER / "stand_in.py")])
    machine.write(FOLDER / "sleepyd", f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(REPOSITORY))} exec {words} "$@"\n', mode="755")
    for folder in UNITS.values():
        machine.write(folder / f"{UNIT}.d/quick.conf", QUICK)
    machine.do("chown", "-R", f"{OWNER}:", f"/home/{OWNER}")


# The service


class Service:
    """Our own code, run inside the machine as the one whom the scope belongs to."""

    def __init__(self, machine: Machine, scope: Scope, candidate: Candidate) -> None:
        self.machine = machine
        self.scope = scope
        self.home = HOMES[scope]
        self.candidate = candidate
        self.user = "root" if scope is Scope.SYSTEM else OWNER

    def call(self, expression: str) -> Any:
        """The JSON of an expression on `manager`; a DaemonError's text as an AssertionError."""
        code = f"""
import json, sys
from pathlib import Path
from daemon.errors import DaemonError
from daemon.service import Scope, plan_service, service_manager
scope, home, executable = Scope({self.scope.value!r}), Path({str(self.home)!r}), Path({str(self.candidate.executable)!r})
manager = service_manager(scope)
try:
    answer = {expression}
except DaemonError as error:
    sys.exit(f"refused: {{error}}")
print(json.dumps(answer) if isinstance(answer, bool) else answer.model_dump_json())
"""
        result = self.machine.run([sys.executable, "-c", code], self.user)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def install(self) -> tuple[str, ...]:
        answer = self.call("manager.install(plan_service(home, scope, executable))")
        assert ServiceStatus.model_validate(answer["status"]).active
        return tuple(answer["advice"])

    def uninstall(self) -> bool:
        removed = self.call("manager.uninstall()")
        assert isinstance(removed, bool)
        return removed

    def status(self) -> ServiceStatus:
        return ServiceStatus.model_validate(self.call("manager.status()"))

    def systemctl(self, *arguments: str) -> str:
        environment = [] if self.scope is Scope.SYSTEM else ["env", f"XDG_RUNTIME_DIR={self._runtime()}"]
        return self.machine.do(*environment, "systemctl", f"--{self.scope}", *arguments, user=self.user).strip()

    def _runtime(self) -> str:
        return f"/run/user/{self.machine.do('id', '-u', OWNER).strip()}"

    def pid(self) -> int:
        return int(self.systemctl("show", UNIT, "--property=MainPID", "--value"))

    def is_active(self) -> bool:
        return self.systemctl("show", UNIT, "--property=ActiveState", "--value") == "active"

    def restarted_after(self, pid: int) -> int:
        eventually(lambda: self.is_active() and self.pid() not in (0, pid), f"restarted after {pid}")
        return self.pid()

    def seen(self) -> dict[str, Any]:
        seen = json.loads(self.machine.do("cat", str(self.home / "seen.json")))
        assert isinstance(seen, dict)
        return seen


@pytest.fixture(scope="module")
def logind(machine: Machine) -> None:
    if machine.run(["loginctl", "list-users"]).returncode != 0:
        pytest.skip("no logind in the container (apt-get install dbus libpam-systemd)")


@pytest.fixture(scope="module")
def lingering(machine: Machine, logind: None) -> None:
    machine.do("loginctl", "enable-linger", OWNER)
    uid = machine.do("id", "-u", OWNER).strip()
    eventually(
        lambda: machine.run(["test", "-S", f"/run/user/{uid}/systemd/private"]).returncode == 0, "the user's own systemd"
    )


@pytest.fixture
def service(scope: Scope, machine: Machine, lingering: None) -> Iterator[Service]:
    service = Service(machine, scope, CANDIDATES["stand-in"])
    yield service
    service.uninstall()


def test_a_user_without_a_systemd_of_their_own_is_told_what_to_do(machine: Machine) -> None:
    service = Service(machine, Scope.USER, CANDIDATES["stand-in"])
    with pytest.raises(AssertionError, match=r"refused: your own systemd cannot be reached .*enable-linger"):
        service.install()
    assert machine.run(["test", "-e", str(UNITS[Scope.USER] / UNIT)]).returncode == 1


def test_a_user_who_may_log_out_is_told_about_lingering(machine: Machine, logind: None) -> None:
    uid = machine.do("id", "-u", OWNER).strip()
    machine.do("systemctl", "start", f"user@{uid}.service")
    service = Service(machine, Scope.USER, CANDIDATES["stand-in"])
    (advice,) = service.install()
    assert f"sudo loginctl enable-linger {OWNER}" in advice
    machine.do("loginctl", "enable-linger", OWNER)
    assert service.install() == ()
    assert service.uninstall()


@pytest.mark.parametrize("name", CANDIDATES)
def test_lifecycle(machine: Machine, lingering: None, scope: Scope, name: str) -> None:
    service = Service(machine, scope, CANDIDATES[name])
    machine.do("find", str(service.home), "-mindepth", "1", "-delete")  # the daemon wants no folder of another program
    assert not service.status().installed
    assert service.install() == ()
    status = service.status()
    assert (status.installed, status.enabled, status.active, status.state) == (True, True, True, "active (running)")
    assert status.path == UNITS[scope] / UNIT
    assert status.pid is not None
    assert status.since is not None
    assert timedelta(seconds=-2) < datetime.now(UTC) - status.since < timedelta(minutes=1)

    machine.kill(status.pid, signal.SIGKILL)
    second = service.restarted_after(status.pid)

    machine.kill(second, service.candidate.hang)
    third = service.restarted_after(second)
    told = machine.do("journalctl", "--quiet", "--output=cat", f"USER_UNIT={UNIT}" if scope is Scope.USER else f"UNIT={UNIT}")
    assert f"{UNIT}: Watchdog timeout" in told
    assert service.systemctl("show", UNIT, "--property=NRestarts", "--value") == "2"

    service.systemctl("stop", UNIT)
    time.sleep(0.5)  # longer than RestartSec: it stays down
    status = service.status()
    assert (status.active, status.state, status.pid, status.since) == (False, "inactive (dead)", None, None)
    assert service.systemctl("show", UNIT, "--property=Result", "--property=ExecMainStatus", "--value").split() == [
        "success",
        "0",
    ]
    assert machine.run(["kill", "-0", str(third)]).returncode != 0

    service.systemctl("start", UNIT)
    last = service.status().pid
    assert service.uninstall()
    assert machine.run(["kill", "-0", str(last)]).returncode != 0
    status = service.status()
    assert (status.installed, status.enabled, status.active) == (False, False, False)
    assert service.systemctl("show", UNIT, "--property=LoadState", "--value") == "not-found"
    assert not service.uninstall()
    assert machine.run(["test", "-d", str(service.home)]).returncode == 0, "the state directory stays"


def test_paths_arrive_as_they_are(service: Service) -> None:
    service.install()
    seen = service.seen()
    assert seen["argv"] == ["--home", str(service.home)]
    assert seen["home"] == str(service.home)


def test_it_stops_by_itself_when_asked(service: Service) -> None:
    service.install()
    service.machine.do("rm", "-f", str(service.home / "stopped"))
    service.systemctl("stop", UNIT)
    assert service.machine.run(["test", "-e", str(service.home / "stopped")]).returncode == 0


def test_confined_and_modest(service: Service) -> None:
    service.machine.do("rm", "-f", "/tmp/made-by-service")
    service.install()
    seen = service.seen()
    assert (seen["NoNewPrivs"], seen["Seccomp"], seen["umask"], seen["nice"]) == ("1", "2", 0o077, 10)
    if service.scope is Scope.SYSTEM:
        assert int(seen["CapBnd"], 16) == 0
        assert "Read-only file system" in seen["outside"]["/opt/open"]
        assert "Read-only file system" in seen["outside"]["/home/open"]
        assert service.machine.run(["test", "-e", "/tmp/made-by-service"]).returncode == 1, "its /tmp is its own"
    user = service.machine.do("ps", "-o", "user=", "-p", str(service.pid())).strip()
    assert user == OWNER


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt-get install bubblewrap)")
def test_bubblewrap_works_inside_the_hardened_unit(service: Service) -> None:
    # systemd-nspawn keeps containers from the kernel's settings; machines that are not containers do not.
    service.machine.do("mount", "-o", "remount,bind,rw", "/proc/sys")
    ask = "from agent.sandbox import probe; print(probe(trusted_generated=False).name)"
    assert service.machine.do(sys.executable, "-c", ask, user=OWNER) == "bubblewrap\n", "not even without the unit"
    service.install()
    assert service.seen()["sandbox"] == "bubblewrap", service.seen()["sandbox"]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed (apt-get install bubblewrap)")
@pytest.mark.parametrize(
    ("setting", "works"),
    [
        ("NoNewPrivileges=yes", True),
        ("RestrictNamespaces=cgroup ipc net mnt pid user uts", True),
        ("RestrictNamespaces=cgroup ipc net mnt pid user", False),
        ("ProtectHostname=yes", False),
        ("ProcSubset=pid", False),
        ("ProtectKernelTunables=yes", False),
        ("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6", False),
        ("SystemCallFilter=@system-service @mount sethostname", True),
        ("SystemCallFilter=@system-service sethostname", False),
        ("SystemCallFilter=@system-service @mount", False),
    ],
)
def test_what_the_unit_leaves_out_would_break_bubblewrap(machine: Machine, setting: str, works: bool) -> None:
    machine.do("mount", "-o", "remount,bind,rw", "/proc/sys")
    ask = "from agent.sandbox import probe; print(probe(trusted_generated=False).name)"
    options = [f"--uid={OWNER}", f"--setenv=PYTHONPATH={REPOSITORY}", "--property=SystemCallErrorNumber=EPERM"]
    argv = ["systemd-run", "--quiet", "--wait", "--pipe", *options, f"--property={setting}", sys.executable, "-c", ask]
    answer = machine.run(argv)
    assert (answer.stdout == "bubblewrap\n") == works, answer.stderr
    assert works or "SandboxError" in answer.stderr


# What only the machine's manager can do


def run_by_a_users_own(machine: Machine, settings: Sequence[str], *argv: str) -> subprocess.CompletedProcess[str]:
    runtime = f"XDG_RUNTIME_DIR=/run/user/{machine.do('id', '-u', OWNER).strip()}"
    options = [f"--property={setting}" for setting in settings]
    return machine.run(["env", runtime, "systemd-run", "--user", "--quiet", "--wait", "--pipe", *options, *argv], OWNER)


@pytest.mark.parametrize(
    ("setting", "capability"),
    [("CapabilityBoundingSet=", 0), ("PrivateDevices=yes", 27), ("ProtectClock=yes", 25), ("ProtectKernelModules=yes", 16)],
)
def test_a_users_own_systemd_drops_no_capability(machine: Machine, lingering: None, setting: str, capability: int) -> None:
    """Numbers as in capability.h; a container lacks some, and what is not there need not be dropped."""
    found = re.search(r"^CapBnd:\t(\w+)$", machine.do("cat", "/proc/1/status"), re.M)
    assert found is not None
    has = bool(int(found[1], 16) >> capability & 1)
    assert run_by_a_users_own(machine, [setting], "true").returncode == (218 if has else 0)


def test_a_users_own_systemd_hides_nothing_without_a_user_namespace(machine: Machine, lingering: None) -> None:
    look = ["readlink", "/proc/self/ns/mnt", "/proc/self/ns/user"]
    settings = ["ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes"]
    plain, hidden = (run_by_a_users_own(machine, chosen, *look).stdout.split() for chosen in ([], settings))
    assert len(plain) == len(hidden) == 2
    assert hidden == plain or hidden[1] != plain[1]
    if machine.do("systemctl", "--version").startswith("systemd 252 "):
        assert hidden == plain


def test_a_daemon_that_cannot_start_does_not_try_for_ever(service: Service) -> None:
    broken = service.home / "broken"
    service.machine.write(broken, "", OWNER)
    with pytest.raises(AssertionError, match=r"refused: .* does not start: the configuration is broken"):
        service.install()
    eventually(lambda: service.status().state == "failed (exit-code)", "given up")
    assert service.systemctl("show", UNIT, "--property=NRestarts", "--value") == "5"
    service.machine.do("rm", str(broken))
    service.install()


def test_a_unit_of_somebody_else_is_left_alone(service: Service) -> None:
    path, text = UNITS[service.scope] / UNIT, "[Service]\nExecStart=/bin/true\n"
    service.machine.write(path, text, service.user)
    for action in (service.install, service.uninstall):
        with pytest.raises(AssertionError, match="was not written by `sleepyctl service install`"):
            action()
    assert service.machine.do("cat", str(path)) == text
    service.machine.do("rm", str(path))
    service.machine.do("ln", "-s", "/dev/null", str(path))  # as `systemctl mask` does
    with pytest.raises(AssertionError, match="was not written by `sleepyctl service install`"):
        service.install()
    service.machine.do("rm", str(path))


def test_it_is_back_after_a_boot(machine: Machine, lingering: None) -> None:
    services = [Service(machine, scope, CANDIDATES["stand-in"]) for scope in Scope]
    for service in services:
        service.install()
    previous = machine.leader
    machine.do("systemctl", "reboot")
    machine.wait_for_boot(previous)
    for service in services:
        eventually(service.is_active, f"{service.scope} service after the boot")
        assert service.uninstall()
