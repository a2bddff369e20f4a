"""The bubblewrap rung: own namespaces, an almost empty file system, no network, no privileges.

The program sees the interpreter and the system's libraries (read-only), the workspace (writable, at
its own path), what the workspace mounts (read-only), and a `/tmp` of its own with a fixed size.
There is no network at all, not even loopback, and no other process.

Not contained: the number of files (each is bounded, their sum on the host's disk only by time), and
CPU time of others on the machine. RLIMIT_NPROC is not enforced for root, so processes and their
memory are also counted from outside, ten times a second; a cgroup around the whole daemon
(`TasksMax=`, `MemoryMax=` in its unit) is the line behind that.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import SandboxError
from agent.sandbox.base import ExecResult, Limits, environment, own_packages, run_bounded, with_rlimits
from agent.workspace import Workspace

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc/ld.so.cache", "/etc/alternatives")
_HOSTS = Path(__file__).resolve().with_name("hosts")
_HELPERS = 2  # bwrap outside of the namespace, and its init inside
_NEWER = ("--disable-userns",)  # since 0.8; takes the kernel code behind nested namespaces out of reach


class Bubblewrap:
    """Runs commands with `bwrap`.

    `--die-with-parent` follows the *thread* that started bwrap, not the process. `run` blocks that
    thread until the end, so any thread will do, also one of a pool; but nobody may split `run` into
    a start on one thread and a wait on another.
    """

    name = "bubblewrap"

    def __init__(self, executable: str | None = None) -> None:
        """Uses `executable`, or the `bwrap` on the PATH.

        Raises:
            SandboxError: there is none, or it does not start.
        """
        found = shutil.which(executable or "bwrap")
        if found is None:
            raise SandboxError(f"{executable or 'bwrap'} not found; install bubblewrap (apt or dnf install bubblewrap)")
        try:
            options = subprocess.run([found, "--help"], capture_output=True, text=True, timeout=10, check=False).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError(f"{found} does not start ({error}); install bubblewrap again") from error
        self._executable = found
        self._newer = [option for option in _NEWER if option in options]

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """Run `argv` in the workspace; see `agent.sandbox.base.Sandbox`."""
        # Of the two helpers only init is counted by the namespace.
        inner = with_rlimits(argv, limits, processes=limits.processes + 1 if _own_process_count() else None)
        status_end, status_fd = os.pipe()
        with os.fdopen(status_end, "rb") as status:
            try:
                command = [self._executable, *self._flags(workspace, limits), "--json-status-fd", str(status_fd), "--", *inner]
                result = run_bounded(command, workspace.root, limits, pass_fds=(status_fd,), helpers=_HELPERS)
            finally:
                os.close(status_fd)
            os.set_blocking(status.fileno(), False)
            started = b'"exit-code"' in (status.read(65_536) or b"")
        # On a pipe that only bwrap holds, so a program that prints "bwrap: ..." is still a program that failed.
        if not started and result.returncode < 128:
            raise SandboxError(f"bubblewrap could not set the sandbox up: {result.stdout.strip()[:300]}; {_ADVICE}")
        return result

    def _flags(self, workspace: Workspace, limits: Limits) -> list[str]:
        flags = ["--unshare-all", "--unshare-user", *self._newer, "--die-with-parent", "--new-session"]
        flags += ["--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"]
        for name, value in environment(workspace.env).items():
            flags += ["--setenv", name, value]
        for path in map(Path, _SYSTEM):
            if path.is_symlink():  # /bin is usr/bin where /usr is merged
                flags += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                flags += ["--ro-bind", str(path), str(path)]
        flags += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", str(_HOSTS), "/etc/hosts"]
        for path in map(Path, ("/dev/shm", "/tmp")):
            flags += ["--perms", "1777", "--size", str(limits.file_bytes), "--tmpfs", str(path)]
        binds = dict.fromkeys([*_interpreter(), *(_absolute(path) for path in workspace.mounts)], "--ro-bind")
        binds[_absolute(workspace.root)] = "--bind"
        binds |= dict.fromkeys((path for path in own_packages() if path not in binds), "--tmpfs")
        for path in sorted(binds, key=lambda path: len(path.parts)):  # what lies inside covers what lies around
            flags += ["--tmpfs", str(path)] if binds[path] == "--tmpfs" else [binds[path], str(path), str(path)]
        # Else the root and /dev would be writable memory without a limit, and a program of root's could
        # write the *host's* /proc/sys, core_pattern included: the kernel asks for root's number there,
        # not for a capability, and bwrap by itself leaves it writable.
        for path in map(Path, ("/proc", "/dev", "/")):
            flags += ["--remount-ro", str(path)]
        return [*flags, "--chdir", str(_absolute(workspace.root))]


_ADVICE = (
    "if user namespaces are forbidden here, allow them (sysctl kernel.unprivileged_userns_clone=1; on Ubuntu an AppArmor "
    "profile for bwrap, or kernel.apparmor_restrict_unprivileged_userns=0), or install a newer bubblewrap"
)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - the same path as in argv: no links resolved, no `..` left


def _interpreter() -> list[Path]:
    """Where this Python lives, outside of /usr: its environment and the installation behind it."""
    homes = {_absolute(Path(prefix)) for prefix in (sys.prefix, sys.base_prefix)}
    homes |= {home.resolve() for home in homes}
    homes = {home for home in homes if not home.is_relative_to("/usr")}
    for home in homes:
        if Path.home().is_relative_to(home):
            raise SandboxError(f"this Python is installed in {home}, all of which the sandbox would show; install it elsewhere")
    return sorted(homes)


def _own_process_count() -> bool:
    """Whether RLIMIT_NPROC counts inside the user namespace alone (Linux 5.14) and holds for this user."""
    release = [int(number) for number in re.findall(r"\d+", os.uname().release)[:2]]
    return os.geteuid() != 0 and release >= [5, 14]
