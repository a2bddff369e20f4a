"""A small machine to be attacked, for controls: what gets its way here is an attack that works.

It has what the escape suite's attacks go for (listeners, keys, devices, a resolver's file, other processes, privileges),
and every part of it is its own: bubblewrap gives it namespaces of processes, network, names, mounts and *users*, so that
root's privileges inside are nobody's outside. Nothing inside is contained any further: no resource limits, no dropped
capability, no read-only workspace. A control group and the clock of `run_bounded` bound it from without.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from agent.sandbox import ExecResult, Limits
from agent.sandbox.base import PYTHON, run_bounded
from agent.sandbox.bubblewrap import _SYSTEM, _interpreter
from agent.workspace import Workspace

FAKED = ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger")
"""Of these there is one in the whole machine; the arena has a plain file in its place."""
STAGE = r"""
import fcntl, json, os, pathlib, pty, socket, struct, subprocess, sys, termios, time
if os.getpid() != 1 or pathlib.Path("/proc/self/uid_map").read_text().split()[2] != "1" or socket.gethostname() != "sandbox":
    sys.exit("this is no arena: nothing is run")
told, argv = json.loads(sys.argv[1]), sys.argv[2:]
for path in ("etc/shadow", "root/diary", "run/docker.sock", "run/dbus/system_bus_socket", "dev/vda", "dev/mem"):
    os.makedirs(os.path.dirname("/" + path), exist_ok=True)
    pathlib.Path("/" + path).touch()
pathlib.Path("/etc/hosts").write_text("192.0.2.1 example.org\n")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:  # addresses for the loopback interface, with ioctl
    fcntl.ioctl(s, 0x8916, struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton("192.0.2.1")))
if os.path.exists("/proc/net/if_inet6"):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, 0x8916, struct.pack("16sIi", socket.inet_pton(socket.AF_INET6, "2001:db8::1"), 128, 1))
listeners = [socket.create_server(("127.0.0.1", told["port"])), socket.create_server(("192.0.2.1", 80))]
for name in ("\0" + told["name"], "/tmp/" + told["name"]):
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(name)
    listeners[-1].listen()
master, slave = pty.openpty()
def own():
    os.setsid()
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
def neighbours():
    for n in os.listdir("/proc"):
        if n.isdigit() and n != "1":
            try: yield told["name"].encode() in pathlib.Path("/proc", n, "cmdline").read_bytes()
            except OSError: pass
if told["seconds"] is None:
    others = [subprocess.Popen(["sleep", "60"]) for _ in range(4)]
    sys.exit(subprocess.Popen(argv, preexec_fn=own).wait())
if os.fork() == 0:  # a careless sandbox: it asks its child to end, and believes that was all
    child = subprocess.Popen(argv, start_new_session=True)
    try: child.wait(told["seconds"])
    except subprocess.TimeoutExpired: child.terminate()
    os._exit(0)
until = time.monotonic() + told["seconds"]
while time.monotonic() < until + 0.3: time.sleep(0.05)
print("\nSURVIVED", max(sum(neighbours()) for _ in range(20)), flush=True)
"""


class Arena:
    """Runs commands, as a sandbox would, in a machine of their own in which they may do all there is to do.

    Args:
        port, name: what listens inside: on loopback, and on an abstract name and a path in `/tmp`.
        secret: what the environment of its first process holds.
        careless_seconds: end the program as a careless sandbox would, and report what survived it.
    """

    name = "arena"

    def __init__(self, port: int, name: str, secret: str, careless_seconds: float | None = None) -> None:
        self._told = json.dumps({"port": port, "name": name, "seconds": careless_seconds})
        self._secret = secret

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """Run `argv`; everything beside the workspace is shown, and writable, too."""
        command = ["bwrap", *self._flags(workspace.root), "--", PYTHON, "-I", "-c", STAGE, self._told, *argv]
        return run_bounded(command, workspace.root, limits)

    def _flags(self, root: Path) -> list[str]:
        beside = root.parent
        flags = ["--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0", "--cap-add", "ALL", "--as-pid-1"]
        flags += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
        flags += ["--setenv", "PATH", os.defpath, "--setenv", "SLEEPY_TEST_SECRET", self._secret]
        for path in map(Path, _SYSTEM):
            if path.is_symlink():
                flags += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                flags += ["--ro-bind", str(path), str(path)]
        flags += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm", "--tmpfs", "/tmp", "--dir", "/sys/fs/cgroup"]
        for home in _interpreter():
            flags += ["--ro-bind", str(home), str(home)]
        library = Path(os.__file__).parent
        flags += ["--ro-bind", str(library), "/library", "--bind", str(_writable(library, beside / "library")), str(library)]
        for setting in (path for path in map(Path, FAKED) if path.exists()):
            (beside / setting.name).touch()
            flags += ["--bind", str(beside / setting.name), str(setting)]
        flags += ["--remount-ro", "/proc"]  # but for those: the kernel asks for root's number there, and this is root
        return [*flags, "--bind", str(beside), str(beside), "--chdir", str(root)]


def _writable(library: Path, copy: Path) -> Path:
    """The standard library as a folder to write to: a copy of `os.py`, and links to where the rest is shown."""
    if not copy.exists():
        copy.mkdir()
        for path in library.iterdir():
            (copy / path.name).symlink_to(f"/library/{path.name}")
        (copy / "os.py").unlink()
        shutil.copy2(library / "os.py", copy / "os.py")
    return copy
