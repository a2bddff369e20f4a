"""The service's files, key by key; plans that cannot work; launchd through a stand-in for launchctl.

What systemd makes of the unit is in test_nspawn.py.
"""

from __future__ import annotations

import os
import plistlib
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.config import LifeConfig
from daemon.errors import DaemonError
from daemon.service import Scope, ServiceLimits, ServicePlan, default_executable, plan_service, run_command, service_manager
from daemon.service.launchd import Launchd
from daemon.service.plan import LONGEST
from daemon.service.texts import LABEL, MARKER, plist_text, unit_text
from tests.daemon import services

REPOSITORY = Path(__file__).resolve().parents[2]
NASTY = """a "b" 'c' 50% %n $HOME ${HOME} d\\e ; @HOME@ <x>&amp; #if \u00e9"""
ONLY_SYSTEM = (
    "User CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome ReadWritePaths PrivateTmp PrivateMounts "
    "PrivateUsers ProtectClock ProtectControlGroups ProtectKernelModules ProtectProc DevicePolicy DeviceAllow RequiresMountsFor"
).split()
BREAKS_BUBBLEWRAP = "RestrictNamespaces ProtectHostname ProtectKernelTunables ProtectKernelLogs ProcSubset".split()
EXPOSURE = {Scope.SYSTEM: 29, Scope.USER: 75}
"""What `systemd-analyze security` of systemd 252 finds, of 100."""
OTHER_VERSIONS = 5
"""How much more another version may find; each has its own list."""

scope = services.scope


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def executable(tmp_path: Path) -> Path:
    return program(tmp_path / "sleepyd")


@pytest.fixture
def plan(home: Path, executable: Path, scope: Scope) -> ServicePlan:
    return ServicePlan(home, executable, "somebody", scope)


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def settings(unit: str) -> dict[str, list[str]]:
    """Values by key, comments left out."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


def seconds(value: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(s|min|h)", value).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "min": 60, "h": 3600}[unit]


# The unit


def test_everything_is_filled_in_and_marked_as_ours(plan: ServicePlan) -> None:
    text = unit_text(plan)
    assert MARKER in text.splitlines()[0]
    assert not re.search(r"@[A-Z]|^#if|^#end", text, re.M)
    assert settings(text)["WantedBy"] == ["multi-user.target" if plan.scope is Scope.SYSTEM else "default.target"]


def test_what_only_the_machines_manager_can_do_is_not_asked_of_a_users(plan: ServicePlan) -> None:
    keys = settings(unit_text(plan)).keys()
    assert [key for key in ONLY_SYSTEM if (key in keys) != (plan.scope is Scope.SYSTEM)] == []


def test_nothing_that_bubblewrap_could_not_live_with(plan: ServicePlan) -> None:
    found = settings(unit_text(plan))
    assert [key for key in BREAKS_BUBBLEWRAP if key in found] == []
    assert "AF_NETLINK" in found["RestrictAddressFamilies"][0].split()
    assert {"@mount", "sethostname"} <= set(found["SystemCallFilter"][0].split())


def test_a_start_that_always_fails_ends(plan: ServicePlan) -> None:
    """However long each start takes: at once, until its time limit, or until the watchdog."""
    slow = replace(plan, limits=ServiceLimits(stop_seconds=LONGEST - 200, watchdog_seconds=200))
    found = {key: values[0] for key, values in settings(unit_text(slow)).items()}
    ends = seconds(found["TimeoutStartSec"]) + seconds(found["WatchdogSec"]) + seconds(found["TimeoutAbortSec"])
    longest = ends + seconds(found["TimeoutStopSec"]) + seconds(found["RestartSec"])
    assert int(found["StartLimitBurst"]) * longest < seconds(found["StartLimitIntervalSec"])


def test_a_stop_has_more_time_than_the_daemon_gives_itself(plan: ServicePlan) -> None:
    limits = ServiceLimits(stop_seconds=77)
    assert ServiceLimits().stop_seconds > 2 * LifeConfig().grace_seconds
    assert settings(unit_text(replace(plan, limits=limits)))["TimeoutStopSec"] == ["77s"]
    assert plistlib.loads(plist_text(replace(plan, limits=limits)).encode())["ExitTimeOut"] == 77


def test_memory_is_limited_where_asked(plan: ServicePlan) -> None:
    assert not {"MemoryHigh", "MemoryMax"} & settings(unit_text(plan)).keys()
    limited = settings(unit_text(replace(plan, limits=ServiceLimits(memory_max="8G"))))
    assert (limited["MemoryMax"], "MemoryHigh" in limited) == (["8G"], False)


def test_paths_are_quoted_for_systemd(plan: ServicePlan) -> None:
    found = settings(unit_text(replace(plan, home=Path('/a "b" \\ 50% $HOME'), executable=Path("/c d/50%/sleepyd"))))
    quoted = '"/a \\"b\\" \\\\ 50%% $HOME"'
    assert found["ExecStart"] == [f'":/c d/50%%/sleepyd" --home {quoted}']
    assert found["Environment"][0] == f'"SLEEPYD_HOME={quoted[1:]}'


@pytest.mark.parametrize("char", ['"', "'", "\\"])
def test_an_executable_that_systemd_would_not_start_is_refused(plan: ServicePlan, char: str) -> None:
    with pytest.raises(DaemonError, match="install it elsewhere"):
        unit_text(replace(plan, executable=Path(f"/opt/{char}/sleepyd")))


def analyze(*arguments: str, scope: Scope, runtime: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt-get install systemd)")
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_COLORS": "0"}
    argv = ["systemd-analyze", f"--{scope}", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=environment)


@pytest.mark.parametrize("folder", ["plain", NASTY])
def test_systemd_has_nothing_to_say_against_it(plan: ServicePlan, tmp_path: Path, folder: str) -> None:
    home = tmp_path / folder.replace("/", "")
    home.mkdir()
    limits = ServiceLimits(memory_high="60%", memory_max="8G")
    unit = tmp_path / "sleepyd.service"
    unit.write_text(unit_text(replace(plan, home=home, limits=limits)))
    result = analyze("verify", str(unit), scope=plan.scope, runtime=tmp_path)
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "")


def test_systemd_would_say_so_if_there_were(plan: ServicePlan, tmp_path: Path) -> None:
    unit = tmp_path / "sleepyd.service"
    unit.write_text(unit_text(plan).replace("KillMode=", "KilMode="))
    assert "KilMode" in analyze("verify", str(unit), scope=plan.scope, runtime=tmp_path).stderr


def test_it_is_as_little_exposed_as_we_say(plan: ServicePlan, tmp_path: Path) -> None:
    unit = tmp_path / "sleepyd.service"
    unit.write_text(unit_text(plan))
    version = analyze("--version", scope=plan.scope, runtime=tmp_path).stdout.split()[1]
    threshold = EXPOSURE[plan.scope] + (0 if version == "252" else OTHER_VERSIONS)
    check = ("security", "--offline=true", "--no-pager", f"--threshold={threshold}", str(unit))
    result = analyze(*check, scope=plan.scope, runtime=tmp_path)
    assert result.returncode == 0, result.stdout[-200:] + result.stderr


# The property list


def test_every_key_of_the_property_list(home: Path, executable: Path, scope: Scope) -> None:
    job = plistlib.loads(plist_text(ServicePlan(home, executable, "somebody", scope)).encode())
    expected: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": [str(executable), "--home", str(home)],
        "EnvironmentVariables": {
            "PATH": "/opt/homebrew/bin:/opt/homebrew/sbin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "SLEEPYD_HOME": str(home),
        },
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 90,
        "ProcessType": "Background",
        "LowPriorityIO": True,
        "Umask": 0o077,
        "StandardOutPath": str(home / "logs" / "launchd.log"),
        "StandardErrorPath": str(home / "logs" / "launchd.log"),
    }
    if scope is Scope.SYSTEM:
        expected["UserName"] = "somebody"
    assert job == expected
    assert {key: type(value) for key, value in job.items()} == {
        key: type(value) for key, value in expected.items()
    }  # True == 1
    assert type(job["KeepAlive"]["SuccessfulExit"]) is bool
    paths = [job["ProgramArguments"][0], job["ProgramArguments"][2], job["StandardOutPath"], job["StandardErrorPath"]]
    paths += [*job["EnvironmentVariables"]["PATH"].split(":"), job["EnvironmentVariables"]["SLEEPYD_HOME"]]
    assert all(path.startswith("/") for path in paths)


def test_any_path_survives_the_property_list(plan: ServicePlan) -> None:
    home, executable = Path("/srv", NASTY), Path("/opt", NASTY, "sleepyd")
    text = plist_text(replace(plan, home=home, executable=executable))
    assert MARKER in text
    job = plistlib.loads(text.encode())
    assert job["ProgramArguments"] == [str(executable), "--home", str(home)]
    assert job["EnvironmentVariables"]["SLEEPYD_HOME"] == str(home)


# Plans


def test_a_plan_names_who_runs_it(home: Path, executable: Path) -> None:
    import pwd

    plan = plan_service(home, executable=executable)
    assert plan == ServicePlan(home.resolve(), executable, pwd.getpwuid(os.getuid()).pw_name, Scope.USER, ServiceLimits())


def test_links_of_the_home_are_followed_and_those_of_a_virtual_environment_kept(home: Path, executable: Path) -> None:
    (home.parent / "link").symlink_to(home)
    (home.parent / "venv-sleepyd").symlink_to(executable)
    plan = plan_service(home.parent / "link", executable=home / ".." / "venv-sleepyd")
    assert plan.home == home.resolve()
    assert plan.executable == home.parent / "venv-sleepyd"


def test_the_executable_is_the_one_beside_this_python() -> None:
    assert default_executable() == Path(sys.executable).parent / "sleepyd"


def test_a_missing_home_is_told_how_to_be_made(tmp_path: Path, executable: Path) -> None:
    with pytest.raises(DaemonError, match=r"no such folder; make it with `sleepyctl init --home .*/home`"):
        plan_service(tmp_path / "home", executable=executable)


def test_a_missing_program_is_named(home: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path in (tmp_path / "missing", tmp_path, plain):
        with pytest.raises(DaemonError, match=rf"{path}: no such program; install the package"):
            plan_service(home, executable=path)


@pytest.mark.parametrize("name", ["line\nbreak", "bell\x07", os.fsdecode(b"latin-\xe9")])
def test_a_path_that_no_service_file_can_hold_is_refused(tmp_path: Path, executable: Path, name: str) -> None:
    with pytest.raises(DaemonError, match="printable"):
        plan_service(tmp_path / name, executable=executable)


@pytest.mark.parametrize("memory", ["8 G", "8G\nExecStartPre=/bin/true", "-1", "much", "8GB", "8G\n"])
def test_memory_that_systemd_would_not_understand_is_refused(home: Path, executable: Path, memory: str) -> None:
    for limits in (ServiceLimits(memory_high=memory), ServiceLimits(memory_max=memory)):
        with pytest.raises(DaemonError, match="no amount of memory"):
            plan_service(home, executable=executable, limits=limits)


def test_times_that_would_defeat_the_limit_of_starts_are_refused(home: Path, executable: Path) -> None:
    for limits in (
        ServiceLimits(stop_seconds=LONGEST),
        ServiceLimits(watchdog_seconds=LONGEST),
        ServiceLimits(watchdog_seconds=0),
    ):
        with pytest.raises(DaemonError, match="together at most 500"):
            plan_service(home, executable=executable, limits=limits)


def owned_by_another(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(home, 65534, -1)


def test_a_user_cannot_run_it_on_somebody_elses_home(home: Path, executable: Path) -> None:
    owned_by_another(home)
    with pytest.raises(DaemonError, match=r"belongs to \w+; install the service as \w+"):
        plan_service(home, executable=executable)


def test_the_machines_service_does_not_run_as_root(home: Path, executable: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root has folders of root's")
    with pytest.raises(DaemonError, match="does not run as root; make a user"):
        plan_service(home, Scope.SYSTEM, executable)


def test_the_machines_service_cannot_live_in_tmp(home: Path, executable: Path) -> None:
    if not home.resolve().is_relative_to("/tmp"):
        pytest.skip("the tests' own folders are not in /tmp here")
    owned_by_another(home)
    with pytest.raises(DaemonError, match="a /tmp of its own"):
        plan_service(home, Scope.SYSTEM, executable)


def test_a_home_of_nobody_is_told(home: Path, executable: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(home, 3_999_999_999, -1)
    with pytest.raises(DaemonError, match=r"belongs to user 3999999999, who does not exist"):
        plan_service(home, executable=executable)


# Managers


def test_the_manager_of_this_machine_or_what_to_do_without_one(scope: Scope) -> None:
    if sys.platform == "darwin":
        assert service_manager(scope).name == "launchd"
    elif Path("/run/systemd/system").is_dir():
        assert service_manager(scope).name == "systemd"
    else:
        with pytest.raises(DaemonError, match="run `sleepyd --home DIR`"):
            service_manager(scope)


def test_commands_answer_in_english_and_utc() -> None:
    result = run_command(["sh", "-c", 'echo "$LC_ALL $TZ"; echo no >&2; exit 3'], 10)
    assert (result.stdout, result.stderr, result.returncode) == ("C UTC\n", "no\n", 3)


def test_a_command_that_is_missing_or_silent_is_an_error() -> None:
    with pytest.raises(DaemonError, match=r"no-such-ctl cannot be run \(No such file or directory\)"):
        run_command(["no-such-ctl"], 10)
    with pytest.raises(DaemonError, match="`sleep 30` gave no answer in 1 s"):
        run_command(["sleep", "30"], 1)


class Launchctl:
    """launchctl as far as we use it: one job; a bootout that takes two looks to be over; a bootstrap that insists on that."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.loaded = ""
        self.leaving = 0
        self.disabled = False
        self.refuses = ""

    def __call__(self, argv: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        assert argv[0] == "launchctl"
        self.called.append(argv[1])
        code, out, errors = self._answer(*argv[1:])
        return subprocess.CompletedProcess(list(argv), code, out, errors)

    def _answer(self, verb: str, *words: str) -> tuple[int, str, str]:
        domain = words[0].removesuffix(f"/{LABEL}")
        assert domain in ("system", f"gui/{os.getuid()}")
        if verb == "print":
            if self.leaving:
                self.leaving -= 1
                self.loaded = self.loaded if self.leaving else ""
            shown = f"{words[0]} = {{\n\tactive count = 1\n\tpath = {self.loaded}\n\tstate = running\n\n\tpid = 4242\n"
            nested = "\tendpoints = {\n\t\tstate = waiting\n\t\tpid = 1\n\t}\n}\n"
            return (0, shown + nested, "") if self.loaded else (113, "", f'Could not find service "{LABEL}"')
        if verb == "print-disabled":
            state = "disabled" if self.disabled else "enabled"
            return 0, f'disabled services = {{\n\t"com.example.other" => disabled\n\t"{LABEL}" => {state}\n}}\n', ""
        if verb == "enable":
            self.disabled = False
        elif verb == "bootout":
            self.leaving = self.leaving or 2
        elif verb == "bootstrap":
            if self.loaded or self.refuses:
                return 5, "", self.refuses or "Bootstrap failed: 5: Input/output error"
            plistlib.loads(Path(words[1]).read_bytes())
            self.loaded = words[1]
        return 0, "", ""


@pytest.fixture
def launchctl() -> Launchctl:
    return Launchctl()


@pytest.fixture
def launchd(launchctl: Launchctl, tmp_path: Path) -> Launchd:
    return Launchd(Scope.USER, launchctl, tmp_path / "Library")


@pytest.fixture
def agent(home: Path, executable: Path) -> ServicePlan:
    return plan_service(home, executable=executable)


def test_where_launchd_looks() -> None:
    assert Launchd(Scope.SYSTEM, Launchctl()).path == Path("/Library/LaunchDaemons", f"{LABEL}.plist")
    assert Launchd(Scope.USER, Launchctl()).path == Path.home() / "Library/LaunchAgents" / f"{LABEL}.plist"


def test_launchd_installs_asks_and_uninstalls(launchd: Launchd, launchctl: Launchctl, agent: ServicePlan) -> None:
    launchctl.disabled = True
    done = launchd.install(agent)
    assert launchd.path.read_text() == plist_text(agent)
    assert stat.S_IMODE(launchd.path.stat().st_mode) == 0o644
    assert [file.name for file in launchd.path.parent.iterdir()] == [launchd.path.name]
    assert stat.S_IMODE((agent.home / "logs").stat().st_mode) == 0o700
    assert done.status == launchd.status()
    assert (done.status.installed, done.status.enabled, done.status.active, done.status.pid) == (True, True, True, 4242)
    assert (done.status.manager, done.status.state, done.status.since) == ("launchd", "running", None)
    assert "--system" in done.advice[0]
    assert launchd.uninstall()
    status = launchd.status()
    assert (status.installed, status.enabled, status.active, status.pid, status.state) == (
        False,
        False,
        False,
        None,
        "not loaded",
    )
    assert not launchd.uninstall()


def test_launchd_is_waited_for_before_a_job_is_loaded_again(launchd: Launchd, launchctl: Launchctl, agent: ServicePlan) -> None:
    launchd.install(agent)
    launchctl.called.clear()
    assert launchd.install(agent).status.active
    assert launchctl.called[:7] == ["print", "bootout", "print", "bootout", "print", "enable", "bootstrap"]


def test_a_job_that_was_switched_off_is_not_enabled(launchd: Launchd, launchctl: Launchctl, agent: ServicePlan) -> None:
    launchd.install(agent)
    launchctl.disabled = True
    assert not launchd.status().enabled


def test_what_launchd_says_is_passed_on(launchd: Launchd, launchctl: Launchctl, agent: ServicePlan) -> None:
    launchctl.refuses = "Bootstrap failed: 125: Domain does not support specified action"
    with pytest.raises(DaemonError, match=r"`launchctl bootstrap gui/.*` failed: Bootstrap failed: 125"):
        launchd.install(agent)


@pytest.mark.parametrize("content", ["<plist/>", ""])
def test_a_property_list_of_somebody_else_is_left_alone(
    launchd: Launchd, launchctl: Launchctl, agent: ServicePlan, content: str
) -> None:
    launchd.path.parent.mkdir(parents=True)
    launchd.path.write_text(content)
    for action in (lambda: launchd.install(agent), launchd.uninstall):
        with pytest.raises(DaemonError, match="was not written by `sleepyctl service install`"):
            action()
    assert launchd.path.read_text() == content
    assert launchctl.called == []
    assert not launchd.status().installed


def test_only_root_changes_the_machines_services(launchctl: Launchctl, plan: ServicePlan, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may")
    with pytest.raises(DaemonError, match="run this with sudo"):
        Launchd(Scope.SYSTEM, launchctl, tmp_path).install(plan)
    assert launchctl.called == []


# The package


def test_the_templates_are_in_the_wheel() -> None:
    tool = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    for folder in ("systemd", "launchd"):
        assert folder in tool["packages"]["find"]["include"]
        assert tool["package-data"][folder] == ["*.in"]
