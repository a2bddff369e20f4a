"""The macOS rung: `sandbox-exec` with a profile that denies what it does not name. **Not run by its authors' machines.**

Readable: the system, the interpreter, the workspace and its mounts. Writable: the workspace and a folder of the run's own
for temporary files. No network, no other processes' memory, no signals but to its own, no Mach services but a few.

Not contained: memory, processes and disk have no kernel bound here; the watcher of `agent.sandbox.base` counts them and
kills the process group. A child that detaches twice keeps the profile, so it can only compute until its CPU seconds end.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent.errors import SandboxError
from agent.sandbox.base import ExecResult, Limits, own_packages, run_bounded, with_rlimits
from agent.workspace import Workspace

_SYSTEM = (
    "/usr/lib",
    "/usr/bin",
    "/bin",
    "/usr/share",
    "/System",
    "/Library/Frameworks",
    "/Library/Developer",
    "/private/etc/localtime",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


class Seatbelt:
    """Runs commands with `sandbox-exec`."""

    name = "sandbox-exec"

    def __init__(self, executable: str = "/usr/bin/sandbox-exec") -> None:
        """Uses `executable`.

        Raises:
            SandboxError: there is none (it comes with macOS).
        """
        if shutil.which(executable) is None:
            raise SandboxError(f"{executable} not found; it is part of macOS")
        self._executable = executable

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """Run `argv` in the workspace; see `agent.sandbox.base.Sandbox`."""
        with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as scratch:
            rules = profile(workspace.root, [*workspace.mounts, *_interpreter()], Path(scratch))
            inner = ["/usr/bin/env", f"HOME={scratch}", f"TMPDIR={scratch}", *with_rlimits(argv, limits)]
            return run_bounded([self._executable, "-p", rules, *inner], workspace.root, limits, env=workspace.env)


def profile(root: Path, readable: Sequence[Path], scratch: Path) -> str:
    """The profile's text. Paths are resolved: the kernel compares real ones (`/private/tmp`, not `/tmp`).

    Raises:
        SandboxError: a path has a control character.
    """
    reads = [*_SYSTEM, *(str(path.resolve()) for path in readable)]
    writes = [str(path.resolve()) for path in (root, scratch)]
    hidden = [str(path.resolve()) for path in own_packages()]
    shown = [path for path in reads if any(Path(path).is_relative_to(folder) for folder in hidden)]
    # A lookup on the way to a path needs the metadata of its parents, and no more.
    parents = sorted({str(parent) for path in (*reads, *writes) for parent in Path(path).parents})
    return "\n".join(
        [
            "(version 1)",
            "(deny default)",
            "(deny network*)",
            "(deny mach-priv*)",
            "(deny process-info* (target others))",
            "(allow process-info* (target self))",
            "(allow process-fork)",
            f"(allow process-exec {_all('subpath', [*reads, *writes])})",
            "(allow signal (target same-sandbox))",
            "(allow sysctl-read)",
            f"(allow file-read-metadata {_all('literal', parents)})",
            '(allow file-read* (literal "/"))',
            f"(allow file-read* {_all('subpath', [*reads, *writes])} {_all('literal', _DEVICES)})",
            *(f"(deny file-read* {_all('subpath', hidden)})" for _ in hidden[:1]),
            *(f"(allow file-read* {_all('subpath', shown)})" for _ in shown[:1]),
            f"(allow file-write* {_all('subpath', writes)})",
            f"(allow file-write-data {_all('literal', _DEVICES[:2])})",
            f"(deny file-write-setugid {_all('subpath', writes)})",
            "",
        ]
    )


def _all(kind: str, paths: Sequence[str]) -> str:
    return " ".join(f"({kind} {_quoted(path)})" for path in paths)


def _quoted(path: str) -> str:
    if not path.isprintable():
        raise SandboxError(f"{path!r} cannot be named in a sandbox profile; use a plain path")
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _interpreter() -> list[Path]:
    homes = {Path(os.path.abspath(prefix)) for prefix in (sys.prefix, sys.base_prefix)}  # noqa: PTH100 - links kept
    if any(Path.home().is_relative_to(home) for home in homes):
        raise SandboxError(
            "this Python is installed around your home folder, which the sandbox would show; install it elsewhere"
        )
    return sorted(homes)
