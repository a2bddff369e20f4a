"""The Docker rung: a container per run, nothing of the host in it but the workspace and its read-only mounts.

No network, read-only root, every capability dropped, no new privileges, the engine's seccomp profile, not root, and
control groups for processes and memory. `/tmp` and `/dev/shm` have a fixed size. The program runs with the *image's*
Python; what the workspace mounts is shown at its own path, and so is the workspace, unless the image was built for another:
then arguments and variables that name its folder are told that one. A container outlives a killed client, so containers
carry a label with their owner's number, and those of dead owners are removed when a daemon starts.

The workspace is a folder of the host: its size is watched, as on the other rungs. `/var/run/docker.sock` is never shown.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.errors import SandboxError
from agent.sandbox.base import PYTHON, ExecResult, Limits, environment, run_bounded, with_rlimits
from agent.workspace import Workspace

LABEL = "sleepy.sandbox.owner"
NOBODY = 65_534
_CLIENT_BYTES = 2**30
_CLIENT_PROCESSES = 32
_BROKEN = 125  # `docker run`: the engine failed, not the program


class Docker:
    """Runs commands with `docker run` in `image`."""

    def __init__(
        self, image: str, host: str | None = None, python: str = "python3", executable: str = "docker", at: str | None = None
    ) -> None:
        """Uses the engine at `host` (as in DOCKER_HOST; the client's default otherwise); reaps what dead owners left.

        `at` is where programs see the workspace (an absolute path; its own by default).

        Raises:
            SandboxError: no client, no engine, or no such image; nothing is pulled.
        """
        found = shutil.which(executable)
        if found is None:
            raise SandboxError(f"{executable} not found; install Docker (apt-get install docker.io) or use bubblewrap")
        self.name = f"docker:{image}"
        self._image, self._python, self._at = image, python, at
        self._client = [found]
        # Runs do not get this process's environment, where the client would look.
        host = host or self._ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}", strict=False).strip()
        self._client += ["--host", host] if host else []
        self._identity = self._ask("image", "inspect", "--format", "{{.Id}}", image).strip()
        self._reap()

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """Run `argv` in the workspace; see `agent.sandbox.base.Sandbox`. A leading own `PYTHON` is the image's instead."""
        if argv and argv[0] in (PYTHON, sys.executable):
            argv = [self._python, *argv[1:]]
        if not workspace.root.is_dir():
            raise SandboxError(f"cannot start docker in {workspace.root}: No such folder; check that both exist")
        name = f"sleepy-{uuid.uuid4().hex}"
        command = [*self._client, "run", "--name", name, *self._flags(workspace, limits), self._identity]
        command += with_rlimits([self._told(word, workspace) for word in argv], limits)
        # The limits that count are the container's; these are for the client, which is ours.
        client = replace(limits, processes=_CLIENT_PROCESSES, memory_bytes=_CLIENT_BYTES)
        try:
            result = run_bounded(command, workspace.root, client)
        finally:
            self._ask("rm", "--force", "--volumes", name, strict=False)
        if result.returncode == _BROKEN and result.stdout.startswith("docker:"):
            raise SandboxError(f"docker could not set the sandbox up: {result.stdout.strip()[:300]}")
        return result

    def _flags(self, workspace: Workspace, limits: Limits) -> list[str]:
        root = _absolute(workspace.root)
        place = Path(self._at) if self._at is not None else root
        user, group = _owner(root)
        tmpfs = f"rw,nosuid,nodev,mode=1777,size={limits.file_bytes}"
        flags = ["--label", f"{LABEL}={os.getpid()}", "--network", "none", "--read-only", "--hostname", "sandbox", "--init"]
        flags += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user", f"{user}:{group}"]
        flags += ["--pids-limit", str(limits.processes + 1), "--ipc", "private", "--shm-size", str(limits.file_bytes)]
        flags += ["--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes), "--log-driver", "none"]
        flags += ["--tmpfs", f"/tmp:{tmpfs}", "--workdir", str(place), "--entrypoint", "", "--pull", "never"]
        for key, value in environment(workspace.env).items():
            flags += ["--env", f"{key}={self._told(value, workspace)}"]
        mounts = [(path, path, "readonly") for path in map(_absolute, workspace.mounts)]
        for path, target, mode in (*mounts, (root, place, "")):
            if any(mark in f"{path}{target}" for mark in ',"'):
                raise SandboxError(f"Docker cannot mount {path}: no commas or quotes, please")
            flags += ["--mount", ",".join(filter(None, ["type=bind", f"source={path}", f"target={target}", mode]))]
        return flags

    def _told(self, word: str, workspace: Workspace) -> str:
        """A word with the path that the program sees the workspace at."""
        if self._at is None:
            return word
        at = self._at
        return re.sub(rf"(?<![^:=]){re.escape(str(_absolute(workspace.root)))}(?=$|[/:])", lambda _: at, word)

    def _ask(self, *words: str, strict: bool = True) -> str:
        try:
            done = subprocess.run([*self._client, *words], capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            raise SandboxError(f"docker {words[0]} failed ({error}); is the engine running?") from error
        if strict and done.returncode != 0:
            raise SandboxError(
                f"docker {words[0]} failed: {done.stderr.strip()[:300]}; start the engine, or load the image (docker load)"
            )
        return done.stdout

    def _reap(self) -> None:
        listed = self._ask("ps", "--all", "--filter", f"label={LABEL}", "--format", '{{.ID}} {{.Label "' + LABEL + '"}}')
        for line in listed.splitlines():
            identity, _, owner = line.partition(" ")
            if not owner.isdigit() or not _alive(int(owner)):
                self._ask("rm", "--force", "--volumes", identity, strict=False)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - the same path as in argv


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 1


def _owner(root: Path) -> tuple[int, int]:
    """Who the program runs as: the owner of the workspace, which is given to nobody where that is root."""
    status = root.stat()
    if status.st_uid != 0:
        return status.st_uid, status.st_gid
    for folder, _, files in os.walk(root):
        for path in (folder, *(os.path.join(folder, name) for name in files)):  # noqa: PTH118 - many, and quick
            if os.lstat(path).st_nlink == 1 or path == folder:  # a hard link may be somebody else's file
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return NOBODY, NOBODY
