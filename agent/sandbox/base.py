"""The `Sandbox` seam, and the part every local rung shares: run one command and never lose control of it.

`run_bounded` reads at most `Limits.output_bytes`, stops at the wall clock, counts the processes and
the memory of the whole family while it runs, and kills what is left of the family when it is over.
What a rung adds is what the command may *see*.
"""

from __future__ import annotations

import math
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from agent.errors import SandboxError
from agent.sandbox.cgroup import Group
from agent.sandbox.disk import prune, use_of
from agent.workspace import Workspace

PYTHON = os.path.normpath(sys.executable)
"""This interpreter as sandboxes must name it: no `..` in the path, and a virtual environment's link kept."""

OPEN_FILES = 256
_ROOMS = ("daemon", "eval", "consolidation", "agent", "memory")
TICK_SECONDS = 0.05
LOOK_SECONDS = 0.1
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    `seconds` is wall time; `memory_bytes` bounds the address space of each process (Linux) and the
    resident memory of all of them together; `processes` counts those alive at one time; `file_bytes`
    bounds each written file, and the whole of `/tmp` where a rung gives the run its own. `disk_bytes`
    and `entries` bound the whole workspace, what was there before included; they are looked at a few
    times a second, and a file that was deleted but is still open is not seen.
    """

    seconds: float = 10.0
    memory_bytes: int = 512 * 2**20
    processes: int = 32
    file_bytes: int = 16 * 2**20
    output_bytes: int = 64 * 2**10
    disk_bytes: int = 2**30
    entries: int = 100_000


@dataclass(frozen=True)
class ExecResult:
    """How a run ended.

    `returncode` follows the shell: 128 + N when signal N ended the program, so 137 when it was killed.
    `stdout` holds standard output and error as they were written; if it was cut, or if the run was
    stopped for what it used, the last line says so in brackets.
    """

    returncode: int
    stdout: str
    timed_out: bool
    truncated: bool
    seconds: float


class Sandbox(Protocol):
    """Runs commands inside a workspace, within limits; from several threads at once, if need be."""

    name: str

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """Run `argv` in `workspace.root` and wait until it, and what it started, has been ended.

        A program that fails is a result.

        Raises:
            SandboxError: the sandbox itself failed, and the program was not run.
        """
        ...


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a sandboxed program, `more` included; nothing of the daemon's own leaks into it."""
    return {
        "PATH": f"{Path(PYTHON).parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        **(more or {}),
    }


def own_packages() -> list[Path]:
    """This project's packages, where they are installed inside an interpreter's folder, which sandboxes show.

    Sandboxes hide them: they hold the answers to koans.
    """
    place = Path(__file__).resolve().parents[2]
    homes = {Path(os.path.abspath(prefix)) for prefix in (sys.prefix, sys.base_prefix)}  # noqa: PTH100 - links kept
    homes |= {home.resolve() for home in homes}
    within = [home / place.relative_to(home.resolve()) for home in homes if place.is_relative_to(home.resolve())]
    return sorted(there / room for there in within for room in _ROOMS if (there / room).is_dir())


def with_rlimits(argv: Sequence[str], limits: Limits, processes: int | None = None) -> list[str]:
    """`argv`, started by a shell that first lowers its own resource limits, soft and hard.

    Why a shell: a `preexec_fn` is Python between fork and exec, which may deadlock in a process with
    threads, and a Python launcher would start the interpreter twice. `ulimit` and `exec` cost 1 ms,
    need no further program, and work the same inside and outside of a namespace.

    Args:
        argv: the command; found through `PATH` if it has no slash.
        limits: `seconds` on every core become the CPU seconds of each process, a second line behind
            the wall clock, for the day when the daemon dies during a run.
        processes: RLIMIT_NPROC, only where it counts this sandbox alone; `None` leaves it.
    """
    if not argv:
        raise SandboxError("there is no command to run; give the workspace a test_argv")
    steps = [
        "ulimit -c 0",
        f"ulimit -t {_allowed(resource.RLIMIT_CPU, (math.ceil(limits.seconds) + 1) * (os.cpu_count() or 1))}",
        f"ulimit -n {_allowed(resource.RLIMIT_NOFILE, OPEN_FILES)}",
        # POSIX counts blocks of 512 bytes here (bash 3.2, the macOS shell, counts 1024).
        f"ulimit -f {max(1, _allowed(resource.RLIMIT_FSIZE, limits.file_bytes) // 512)}",
    ]
    if sys.platform != "darwin":  # macOS does not enforce it; there `_used` alone watches the memory
        steps.append(f"ulimit -v {max(1, _allowed(resource.RLIMIT_AS, limits.memory_bytes) // 1024)}")
    if processes is not None:
        count = _allowed(resource.RLIMIT_NPROC, processes)
        steps.append(f"{{ ulimit -p {count} 2>/dev/null || ulimit -u {count}; }}")  # dash, then bash
    return ["/bin/sh", "-c", " && ".join([*steps, 'exec "$@"']), "sh", *argv]


def _allowed(kind: int, wanted: int) -> int:
    """`wanted`, or less where this process itself may not have that much."""
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def run_bounded(
    command: Sequence[str],
    directory: Path,
    limits: Limits,
    pass_fds: Sequence[int] = (),
    helpers: int = 0,
    env: Mapping[str, str] | None = None,
) -> ExecResult:
    """Run `command` in `directory` to its end or to a limit, then kill whatever it left behind.

    `helpers` processes of the sandbox itself are not counted as the program's; `env` is added to its `environment`.

    Raises:
        SandboxError: the command could not be started.
    """
    began = time.monotonic()
    group = Group.made(limits.processes + helpers, limits.memory_bytes + 2 * limits.file_bytes)
    try:
        process = subprocess.Popen(
            group.entering(command) if group is not None else command,
            cwd=directory,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        if group is not None:
            group.close()
        raise SandboxError(f"cannot start {command[0]} in {directory}: {error.strerror}; check that both exist") from error
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    output = bytearray()
    try:
        stopped = _watch(process, process.stdout, output, limits, began, helpers, directory)
    finally:
        _kill(process)
        if group is not None:
            group.close()
        with process.stdout:
            _read(process.stdout, output, limits.output_bytes)
        process.wait()
        use = use_of(directory, limits.disk_bytes, limits.entries)
        prune(use)
    timed_out = stopped == "time"
    truncated = len(output) > limits.output_bytes
    text = bytes(output[: limits.output_bytes]).decode("utf-8", errors="replace")
    if truncated:
        text += f"\n[output cut at {limits.output_bytes} bytes]"
    elif stopped and not timed_out:
        text += f"\n[stopped: {stopped}]"
    code = process.returncode
    return ExecResult(code if code >= 0 else 128 - code, text, timed_out, truncated, time.monotonic() - began)


def _watch(
    process: subprocess.Popen[bytes],
    pipe: IO[bytes],
    output: bytearray,
    limits: Limits,
    began: float,
    helpers: int,
    directory: Path,
) -> str:
    """Read until the program ends by itself (empty answer) or has to be stopped (why)."""
    look_at = scan_at = began + LOOK_SECONDS
    reading = True
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while process.poll() is None:
            now = time.monotonic()
            if now >= began + limits.seconds:
                return "time"
            if now >= look_at:
                count, memory = _used(process.pid, limits.processes + helpers)
                if count > limits.processes + helpers:
                    return f"more than {limits.processes} processes"
                if memory > limits.memory_bytes:
                    return f"more than {limits.memory_bytes} bytes of memory"
                look_at = time.monotonic() + LOOK_SECONDS
            if now >= scan_at:
                use = use_of(directory, limits.disk_bytes, limits.entries)
                if use.size > limits.disk_bytes:
                    return f"more than {limits.disk_bytes} bytes on disk"
                if use.entries > limits.entries:
                    return f"more than {limits.entries} files and folders"
                scan_at = time.monotonic() + max(LOOK_SECONDS, 20 * (time.monotonic() - now))
            pause = max(0.0, min(TICK_SECONDS, began + limits.seconds - now))
            if not reading:  # it closed its output and works on
                with suppress(subprocess.TimeoutExpired):
                    process.wait(pause)
            elif selector.select(pause):
                reading = _read(pipe, output, limits.output_bytes)
                if len(output) > limits.output_bytes:
                    return "output"
    return ""


def _read(pipe: IO[bytes], output: bytearray, at_most: int) -> bool:
    """Take what the pipe holds now, one byte past `at_most` at the most; False at its end."""
    while len(output) <= at_most:
        try:
            chunk = os.read(pipe.fileno(), min(65_536, at_most + 1 - len(output)))
        except BlockingIOError:
            return True
        if not chunk:
            return False
        output += chunk
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the family: descendants first found by parentage, then the whole process group.

    The group also reaches orphans of a program that has already ended; parentage also reaches
    children that made a group of their own. The group's number stays taken while it has members.
    """
    family = _family(process.pid, 10_000) if process.poll() is None else {}
    with suppress(ProcessLookupError, PermissionError):
        if process.pid > 1:
            os.killpg(process.pid, signal.SIGKILL)
    for pid in family:
        with suppress(ProcessLookupError, PermissionError):
            if pid > 1 and pid != process.pid:
                os.kill(pid, signal.SIGKILL)


def _used(pid: int, processes: int) -> tuple[int, int]:
    """Processes alive below and including `pid`, and their resident bytes together.

    Pages shared after a fork count once for each process: this errs towards stopping too early.
    """
    family = _family(pid, processes + 1)
    return len(family), sum(family.values())


def _family(pid: int, at_most: int) -> dict[int, int]:
    """`pid` and its living descendants, with their resident bytes; no more than about `at_most`."""
    if Path(f"/proc/self/task/{os.getpid()}/children").exists():
        return _family_from_proc(pid, at_most)
    return _family_from_ps(pid)


def _family_from_proc(pid: int, at_most: int) -> dict[int, int]:
    found: dict[int, int] = {}
    waiting = [pid]
    while waiting and len(found) < at_most:
        member = waiting.pop()
        with suppress(OSError):  # it may end while we look
            found[member] = int(Path(f"/proc/{member}/statm").read_text().split()[1]) * _PAGE_BYTES
            for task in Path(f"/proc/{member}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return found


def _family_from_ps(pid: int) -> dict[int, int]:
    """The same where there is no /proc: macOS."""
    try:
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True, timeout=5, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SandboxError(f"cannot watch the processes of a run ({error}); install ps (procps)") from error
    rows = [[int(word) for word in line.split()] for line in listed.splitlines()]
    found = {member: kilobytes * 1024 for member, _, kilobytes in rows if member == pid}
    grew = bool(found)
    while grew:
        young = {m: kilobytes * 1024 for m, parent, kilobytes in rows if parent in found and m not in found}
        found |= young
        grew = bool(young)
    return found
