"""A machine to be attacked from inside a sandbox: what there is to get, how an attack is run, and what it left running."""

from __future__ import annotations

import os
import socket
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.sandbox import ExecResult, Limits, Sandbox
from agent.sandbox.base import PYTHON
from agent.workspace import Workspace, write_tree
from tests.agent.attacks import PRELUDE

MIB = 2**20
LIMITS = Limits(
    seconds=2, memory_bytes=256 * MIB, processes=24, file_bytes=4 * MIB, output_bytes=20_000, disk_bytes=24 * MIB, entries=500
)


@dataclass(frozen=True)
class Host:
    """What there is to get: files and sockets outside of the workspace."""

    workspace: Workspace
    outside: Path
    secret: str
    port: int
    abstract: str

    def unharmed(self) -> bool:
        return (self.outside / "victim").read_text() == self.secret and not (self.outside / "new").exists()


@contextmanager
def a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A home with keys, a state directory, listeners on loopback, on a path and on an abstract name, a secret variable."""
    secret, name = f"secret-{uuid.uuid4().hex}", f"sleepy-{uuid.uuid4().hex}"
    outside = tmp_path / "outside"
    write_tree(outside, {".ssh/id_ed25519": secret, "state/store.db": secret, "victim": secret})
    root = tmp_path / "workspace"
    write_tree(root, {"shop/fees.py": "FEE = 7\n"})
    monkeypatch.setenv("SLEEPY_TEST_SECRET", secret)
    short = f"/tmp/{name}"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX) as ab,
    ):
        path.bind(short)
        path.listen()
        if sys.platform == "linux":
            ab.bind("\0" + name)
            ab.listen()
        yield Host(Workspace(root), outside, secret, tcp.getsockname()[1], name)
    Path(short).unlink()


def run(sandbox: Sandbox, host: Host, code: str, limits: Limits) -> ExecResult:
    argv = [PYTHON, "-I", "-c", PRELUDE, str(host.outside), str(host.port), host.abstract, code]
    result = sandbox.run(argv, host.workspace, limits)
    assert "began" in result.stdout, f"the attack never ran: {result.stdout}"
    return result


def alive(marker: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) > 1 and int(folder.name) != os.getpid():
            try:
                if marker.encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


@contextmanager
def most_alive(marker: str) -> Iterator[list[int]]:
    """A list whose only element is how many processes were seen at one time."""
    most, done = [0], threading.Event()

    def count() -> None:
        while not done.wait(0.05):
            most[0] = max(most[0], len(alive(marker)))

    watcher = threading.Thread(target=count)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
