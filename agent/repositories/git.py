"""The host's git, so that nothing a repository or a workspace contains can make it run anything.

Every call names its git directory; no system, user or XDG configuration is read; hooks, fsmonitor,
external diffs, text conversion, replacement objects and every transport but the ones a call asks
for are off. What is left to decide is the configuration of the git directory itself, which is ours:
`agent.repositories` never runs git with a foreign one, but for three questions of `adopt`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.errors import AgentError

SECONDS = 120.0
MAX_OUTPUT_BYTES = 64 * 2**20
_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.autocrlf": "false",
    "core.safecrlf": "false",
    "core.symlinks": "true",
    "core.fileMode": "true",
    "core.ignoreCase": "false",
    "core.precomposeUnicode": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.logAllRefUpdates": "false",
    "core.pager": "cat",
    "log.showSignature": "false",
    "commit.gpgSign": "false",
    "diff.external": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
    "safe.directory": "*",
}
_IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "workspace"), ("EMAIL", "workspace@localhost"), ("DATE", "2000-01-01T00:00:00Z"))
}


class RepositoryError(AgentError):
    """A repository cannot be used, or git failed; the text says what to do next."""


class GitMissing(RepositoryError):
    """There is no git on the PATH."""


def environment(transports: str = "") -> dict[str, str]:
    """The whole environment of git. `transports` are the protocols it may speak, joined by colons."""
    return {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        # ssh keys and certificates of the owner; git itself finds no configuration there.
        "HOME": str(Path.home()) if transports else "/nonexistent",
        "XDG_CONFIG_HOME": "/nonexistent",
        "LC_ALL": "C",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": transports,
        "GIT_LITERAL_PATHSPECS": "1",
        **_IDENTITY,
    }


def command(git_dir: Path | None, *arguments: str, work_tree: Path | None = None) -> list[str]:
    """The argument list of one hardened call."""
    found = shutil.which("git")
    if found is None:
        raise GitMissing("git not found; install it (apt, dnf or brew install git)")
    settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
    where = [f"--git-dir={git_dir}"] if git_dir is not None else []
    where += [f"--work-tree={work_tree}"] if work_tree is not None else []
    return [found, "--no-pager", *settings, *where, *arguments]


def git(
    git_dir: Path | None,
    *arguments: str,
    work_tree: Path | None = None,
    given: bytes = b"",
    variables: Mapping[str, str] | None = None,
    transports: str = "",
    at_most: int = MAX_OUTPUT_BYTES,
    seconds: float = SECONDS,
) -> bytes:
    """Run git and return its standard output.

    Args:
        git_dir: the git directory, always named; `None` only for `init` and `clone`.
        arguments: the subcommand and its arguments.
        work_tree: the work tree, which is then also the current directory.
        given: standard input.
        variables: added to the environment.
        transports: protocols it may speak; none by default.
        at_most: bytes of output, above which it is stopped.
        seconds: wall time, after which it is stopped.

    Raises:
        RepositoryError: it failed, or was stopped; the text has what it said.
    """
    with tempfile.TemporaryFile() as source:
        source.write(given)
        source.seek(0)
        process = _start(
            command(git_dir, *arguments, work_tree=work_tree),
            work_tree or git_dir or Path("/"),
            {**environment(transports), **(variables or {})},
            source.fileno(),
        )
        return finish([process], arguments[0], at_most, seconds)


def pipe(first: Sequence[str], then: Sequence[str], given: bytes, seconds: float = SECONDS) -> bytes:
    """Run one git into another; the standard output of the second. Raises as `git` does."""
    with tempfile.TemporaryFile() as source:
        source.write(given)
        source.seek(0)
        writer = _start(first, Path("/"), environment(), source.fileno())
        assert writer.stdout is not None
        try:
            reader = _start(then, Path("/"), environment(), writer.stdout.fileno())
        except BaseException:
            _kill(writer)
            raise
        writer.stdout.close()
        return finish([writer, reader], "pack", MAX_OUTPUT_BYTES, seconds)


def _start(argv: Sequence[str], directory: Path, variables: Mapping[str, str], stdin: int) -> subprocess.Popen[bytes]:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `finish`; a pipe could fill up and block git
    try:
        process = subprocess.Popen(
            argv, cwd=directory, env=variables, stdin=stdin, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
    except OSError as error:
        errors.close()
        raise RepositoryError(f"git cannot be started in {directory}: {error.strerror}") from error
    process.stderr = errors
    return process


def finish(chain: Sequence[subprocess.Popen[bytes]], what: str, at_most: int, seconds: float) -> bytes:
    """Wait for the last of a chain, within limits, and for the others; its standard output."""
    last = chain[-1]
    assert last.stdout is not None
    late = threading.Event()

    def stop() -> None:
        late.set()
        for process in chain:
            _kill(process)

    timer = threading.Timer(seconds, stop)
    timer.daemon = True  # an interruption between any two of these lines must not keep the process for its time
    try:
        timer.start()
        output = last.stdout.read(at_most + 1)
        if len(output) > at_most:
            raise RepositoryError(f"git {what}: more than {at_most} bytes of output; this repository is too large")
        codes = [process.wait() for process in chain]
        said = b" ".join(_said(process) for process in chain).decode("utf-8", "replace").strip()
    finally:
        timer.cancel()
        for process in chain:
            _kill(process)
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
    if late.is_set():
        raise RepositoryError(f"git {what} did not end within {seconds:g} s; try again when the machine is idle")
    if any(codes):
        raise RepositoryError(f"git {what} failed: {said[-500:] or f'exit codes {codes}'}")
    return output


def _said(process: subprocess.Popen[bytes]) -> bytes:
    if process.stderr is None:
        return b""
    process.stderr.seek(0)
    return process.stderr.read(65_536)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if process.poll() is None and process.pid > 1:
            os.killpg(process.pid, signal.SIGKILL)
