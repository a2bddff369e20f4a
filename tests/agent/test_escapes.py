"""Attacks as small programs, on every rung this machine has: all contained.

Each prints ESCAPED when it got what it wanted; some are judged from outside, by what the host looks like afterwards.
`why` says what contains it. Docker runs where SLEEPY_DOCKER_IMAGE names an image (DOCKER_HOST its engine).
"""

# ruff: noqa: E501 - programs in strings
from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.errors import SandboxError
from agent.sandbox import Limits, Sandbox
from agent.sandbox.base import PYTHON
from agent.sandbox.bubblewrap import Bubblewrap
from agent.sandbox.docker import Docker
from agent.sandbox.ladder import tried
from agent.sandbox.seatbelt import Seatbelt
from agent.workspace import Workspace, write_tree
from eval.grading import grade
from eval.pocket.stream import PocketStream
from memory.trajectories import Outcome

MIB = 2**20
LIMITS = Limits(
    seconds=2, memory_bytes=256 * MIB, processes=24, file_bytes=4 * MIB, output_bytes=20_000, disk_bytes=24 * MIB, entries=2_000
)
IMAGE = os.environ.get("SLEEPY_DOCKER_IMAGE")


def rung(name: str) -> Sandbox:
    try:
        if name == "docker":
            if IMAGE is None:
                pytest.skip("no Docker image: set SLEEPY_DOCKER_IMAGE (and DOCKER_HOST)")
            return tried(Docker(IMAGE, os.environ.get("DOCKER_HOST")), isolates=True)
        return tried(Bubblewrap() if name == "bubblewrap" else Seatbelt(), isolates=True)
    except SandboxError as error:
        pytest.skip(str(error))


@pytest.fixture(
    scope="module",
    params=[
        "bubblewrap",
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("sandbox-exec", marks=pytest.mark.skipif(sys.platform != "darwin", reason="macOS only; never run here")),
    ],
)
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return rung(request.param)


@dataclass(frozen=True)
class Host:
    """What there is to get: files and sockets outside of the workspace."""

    workspace: Workspace
    outside: Path
    secret: str
    port: int
    abstract: str


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
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
        (outside / "socket").symlink_to(short)
        yield Host(Workspace(root), outside, secret, tcp.getsockname()[1], name)
    Path(short).unlink()


CLIB = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"

ATTACKS: dict[str, tuple[str, str]] = {
    "loopback": ("own network namespace", "socket.create_connection(('127.0.0.1', PORT), 1); escaped()"),
    "internet": ("no interface but a bare loopback", "socket.create_connection(('192.0.2.1', 80), 1); escaped()"),
    "route": (
        "no route, so not even an unanswered datagram",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9)); escaped()",
    ),
    "ipv6": ("no route", "s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.connect(('2001:db8::1', 9)); escaped()"),
    "names": ("no resolver is reachable, no resolv.conf shown", "socket.getaddrinfo('example.org', 80); escaped()"),
    "raw packets": ("no CAP_NET_RAW", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW); escaped()"),
    "abstract socket": (
        "abstract names belong to the network namespace",
        "s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + NAME); escaped()",
    ),
    "path socket": (
        "the host's /tmp is not mounted",
        "s = socket.socket(socket.AF_UNIX); s.connect('/tmp/' + NAME); escaped()",
    ),
    "system bus": (
        "/run is not mounted",
        "[escaped() for p in ('/run/dbus/system_bus_socket', '/run/systemd/private', '/run/user') if os.path.exists(p)]",
    ),
    "docker socket": (
        "/run and /var are not mounted",
        "[escaped() for p in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd') if os.path.exists(p)]",
    ),
    "shadow": ("/etc is not mounted; in an image it is the image's, and root's", "open('/etc/shadow').read(); escaped()"),
    "home": (
        "homes are not mounted, but for an interpreter that lives in one",
        "[escaped() for p in ('/root', '/home') if os.path.isdir(p) for n in os.listdir(p)\n"
        " if not any(h.startswith(f'{p}/{n}') for h in (sys.prefix, sys.base_prefix, WORK))]",
    ),
    "ssh keys": ("only the workspace is mounted", "open(OUTSIDE + '/.ssh/id_ed25519').read(); escaped()"),
    "state directory": ("only the workspace is mounted", "open(OUTSIDE + '/state/store.db').read(); escaped()"),
    "up from the workspace": ("the parent is an empty folder", "open('../outside/victim').read(); escaped()"),
    "process list": ("own PID namespace", "len([n for n in os.listdir('/proc') if n.isdigit()]) > 4 and escaped()"),
    "root of another process": (
        "own PID namespace: the root of process 1 is the sandbox's",
        "[escaped() for n in os.listdir('/proc') if n.isdigit() and os.path.exists(f'/proc/{n}/root' + OUTSIDE)]",
    ),
    "environments": (
        "the environment is cleared, also that of the sandbox's init",
        "[escaped() for n in os.listdir('/proc') if n.isdigit() and readable(f'/proc/{n}/environ', b'secret-')]",
    ),
    "symlink out, read": ("leads nowhere inside", "os.symlink(OUTSIDE, 'l'); open('l/victim').read(); escaped()"),
    "symlink out, write": ("leads nowhere inside", "os.symlink(OUTSIDE + '/victim', 'm'); open('m', 'w').write('x')"),
    "hardlink out": ("nothing outside can be named", "os.link(OUTSIDE + '/victim', 'h'); escaped()"),
    "hardlink to the system": (
        "another mount",
        "os.link(os.path.realpath(sys.executable), 'p'); escaped()",
    ),
    "write outside": ("only the workspace is mounted", "open(OUTSIDE + '/new', 'w').write('x')"),
    "write the interpreter": ("mounted read-only", "open(os.__file__, 'a').write('x'); escaped()"),
    "write the library folder": ("mounted read-only", "open(os.path.dirname(os.__file__) + '/evil.pth', 'w'); escaped()"),
    "disks": (
        "a /dev of its own",
        "[escaped() for n in os.listdir('/dev') if n.startswith(('vd', 'sd', 'nvme', 'dm', 'loop'))]",
    ),
    "memory device": (
        "a /dev of its own",
        "[escaped() for n in ('mem', 'kmem', 'port', 'kmsg', 'fuse') if os.path.exists('/dev/' + n)]",
    ),
    "make a device": (
        "no CAP_MKNOD, and nodev",
        "os.mknod('d', 0o60600, os.makedev(254, 0)); open('d', 'rb').read(1); escaped()",
    ),
    "mount": ("no CAP_SYS_ADMIN", CLIB + "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 and escaped()"),
    "unmount": ("no CAP_SYS_ADMIN", CLIB + "libc.umount2(b'/proc', 2) == 0 and escaped()"),
    "user namespace": ("--disable-userns; in Docker seccomp", CLIB + "libc.unshare(0x10000000) == 0 and escaped()"),
    "mount namespace": ("no CAP_SYS_ADMIN", CLIB + "libc.unshare(0x00020000) == 0 and escaped()"),
    "chroot": ("no CAP_SYS_CHROOT", "os.chroot('/tmp'); escaped()"),
    "trace the init": (
        "not its child, other credentials, or it is the sandbox's own",
        CLIB
        + "libc.ptrace(16, 1, 0, 0) == 0 and libc.ptrace(17, 1, 0, 0) == 0 and open('/proc/1/root' + OUTSIDE + '/victim') and escaped()",
    ),
    "host name": ("no CAP_SYS_ADMIN", "socket.sethostname('evil'); escaped()"),
    "clock": ("no CAP_SYS_TIME", "time.clock_settime(time.CLOCK_REALTIME, 1e9); escaped()"),
    "kernel settings": ("/proc is read-only", "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/evil'); escaped()"),
    "sysrq": ("/proc is read-only", "open('/proc/sysrq-trigger', 'w').write('h'); escaped()"),
    "control groups": ("/sys is not mounted or read-only", "os.mkdir('/sys/fs/cgroup/evil'); escaped()"),
    "become another user": ("no CAP_SETUID", "os.setuid(12345); escaped()"),
    "setuid program": (
        "no new privileges",
        "[escaped() for line in open('/proc/self/status') if line.startswith('NoNewPrivs') and line.split()[1] != '1']",
    ),
    "capabilities": (
        "all dropped",
        "[escaped() for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'CapBnd', 'CapAmb')) and int(l.split()[1], 16)]",
    ),
    "raise own limits": (
        "hard limits are set, no CAP_SYS_RESOURCE",
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40)); escaped()",
    ),
    "core dump": (
        "RLIMIT_CORE is 0",
        "pid = os.fork()\nif pid == 0: os.abort()\nos.WCOREDUMP(os.waitpid(pid, 0)[1]) and escaped()",
    ),
    "open files": (
        "RLIMIT_NOFILE",
        "import itertools\ntry:\n    for n in itertools.count(): os.dup(1)\nexcept OSError: n > 300 and escaped()",
    ),
    "load a module": ("no CAP_SYS_MODULE", CLIB + "libc.syscall(175, 0, 0, b'') == 0 and escaped()"),
    "type on the terminal": ("a session of its own, no terminal", "import fcntl; open('/dev/tty'); escaped()"),
}
PRELUDE = """
import os, signal, socket, sys, time
WORK = os.getcwd()
OUTSIDE, PORT, NAME = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def escaped(): print("ESCAPED", flush=True)
def readable(path, word):
    try: return word in open(path, "rb").read()
    except OSError: return False
if sys.platform == "linux" and socket.gethostname() != "sandbox":
    sys.exit("not in a sandbox: some of these would hurt this machine")
print("began", flush=True)
try:
    exec(sys.argv[4])
except (OSError, ValueError, AttributeError, MemoryError) as error:
    print("stopped by", repr(error))
"""


def attack(sandbox: Sandbox, host: Host, code: str, limits: Limits = LIMITS) -> str:
    """Run it; the host must be as before."""
    argv = [PYTHON, "-I", "-c", PRELUDE, str(host.outside), str(host.port), host.abstract, code]
    result = sandbox.run(argv, host.workspace, limits)
    assert result.stdout.startswith("began"), f"the attack never ran: {result.stdout}"
    assert result.seconds < limits.seconds + 6
    assert (host.outside / "victim").read_text() == host.secret
    assert not (host.outside / "new").exists()
    assert host.secret not in result.stdout
    return result.stdout


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_contained(sandbox: Sandbox, host: Host, name: str) -> None:
    why, code = ATTACKS[name]
    assert "ESCAPED" not in attack(sandbox, host, code), f"expected to hold: {why}"


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


SURVIVALS = {  # all: the last process of a PID namespace takes the rest with it; the group's members are killed until none is left
    "double fork": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\n",
    "deaf to signals": "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 3, 15)]\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\n",
    "ever new processes": "while True:\n    if os.fork(): os._exit(0)\n    os.setsid(); time.sleep(0.01)\n",
    "kill the parent": "os.kill(os.getppid(), 9)\ntime.sleep(0.2)\nif os.fork() == 0: os.setsid(); time.sleep(60)\n",
    "kill everyone": "os.fork() or (os.setsid(), time.sleep(60))\nos.kill(-1, 9)\ntime.sleep(60)\n",
    "past the time": "os.fork(); os.setsid() if os.getpgrp() != os.getpid() else None\ntime.sleep(60)\n",
}


@pytest.mark.parametrize("name", SURVIVALS)
def test_nothing_survives(sandbox: Sandbox, host: Host, name: str) -> None:
    attack(sandbox, host, SURVIVALS[name], Limits(seconds=1, processes=24))
    until = time.monotonic() + 5
    while (left := alive(host.abstract)) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


FLOODS = {
    "fork bomb": ("the group's pids limit; RLIMIT_NPROC", "while True:\n    try: os.fork()\n    except OSError: pass\n"),
    "threads": (
        "threads count as processes in the group",
        "import threading\ntry:\n    [threading.Thread(target=time.sleep, args=(9,), daemon=True).start() for _ in range(4000)]\n"
        "except RuntimeError: raise OSError('no more')\nescaped()\n",
    ),
    "memory, one process": ("RLIMIT_AS, or the group", "b = []\nwhile True: b.append(bytearray(b'x' * 2**23))\n"),
    "memory, many": (
        "counted together, and the group",
        "for _ in range(8): os.fork()\nb = bytearray(b'x' * 180 * 2**20); time.sleep(5); escaped()\n",
    ),
    "output": ("read no further than the limit", "while True: os.write(1, b'x' * 65536)\n"),
    "one huge file": (
        "RLIMIT_FSIZE",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nf = open('big', 'wb')\n"
        "for n in range(64): f.write(b'x' * 2**20)\nescaped()\n",
    ),
    "many files": (
        "the watcher counts the workspace",
        "for n in range(4000): open(f'f{n}', 'wb').write(b'x' * 2**20); time.sleep(0.004)\nescaped()\n",
    ),
    "many inodes": (
        "the watcher counts entries",
        "for n in range(10**6): open(f'i{n}', 'w').close(); time.sleep(0.0002)\nescaped()\n",
    ),
    "temporary files": (
        "a tmpfs with a size",
        "for n in range(64): open(f'/tmp/{n}', 'wb').write(b'x' * 2**20)\nescaped()\n",
    ),
    "shared memory": (
        "a tmpfs with a size",
        "for n in range(64): open(f'/dev/shm/{n}', 'wb').write(b'x' * 2**20)\nescaped()\n",
    ),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_bounded(sandbox: Sandbox, host: Host, name: str) -> None:
    why, code = FLOODS[name]
    most, done = 0, threading.Event()

    def count() -> None:
        nonlocal most
        while not done.wait(0.05):
            most = max(most, len(alive(host.abstract)))

    watcher = threading.Thread(target=count)
    watcher.start()
    try:
        said = attack(sandbox, host, code)
    finally:
        done.set()
        watcher.join()
    assert "ESCAPED" not in said, f"expected to hold: {why}"
    assert len(said) < LIMITS.output_bytes + 200
    assert most <= LIMITS.processes + 6  # and the sandbox's own helpers
    size = sum(p.stat().st_size for p in host.workspace.root.rglob("*") if p.is_file())
    assert size < 40 * LIMITS.disk_bytes
    assert alive(host.abstract) == []


def test_folders_too_deep_to_remove_are_gone_when_the_run_is_over(sandbox: Sandbox, host: Host) -> None:
    code = "for n in range(600): os.mkdir('d' * 20); os.chdir('d' * 20)\nopen('deep', 'w').write('x')"
    attack(sandbox, host, code)
    assert max(len(p.parts) for p in host.workspace.root.rglob("*")) < 200
    shutil.rmtree(host.workspace.root)


def test_odd_names_break_nobody(sandbox: Sandbox, host: Host) -> None:
    code = (
        r"[open(n, 'w').close() for n in (b'-rf', b'a\nb', b'\x1b[2J', b'\xff\xfe', b'$(touch x)', b' ', b'~', b'n' * 255)]"
        "\nos.mkfifo('fifo'); s = socket.socket(socket.AF_UNIX); s.bind('sock'); os.symlink('loop', 'loop'); os.mkdir('shut', 0)"
    )
    attack(sandbox, host, code)
    assert set(host.workspace.snapshot()) >= {"shop/fees.py", "-rf"}
    assert "fifo" not in host.workspace.snapshot()


def test_a_poisoned_git_folder_runs_nothing_on_the_host(sandbox: Sandbox, host: Host) -> None:
    """Contained by never asking git about a workspace: what is graded is a copy of text files without it."""
    code = (
        "os.makedirs('.git/hooks'); open('.git/config', 'w').write('[core]\\n\\tfsmonitor = touch ' + OUTSIDE + '/new\\n')\n"
        "open('.git/hooks/post-checkout', 'w').write('#!/bin/sh\\ntouch ' + OUTSIDE + '/new'); os.chmod('.git/hooks/post-checkout', 0o755)\n"
        "open('.gitattributes', 'w').write('* filter=evil'); open('.git/HEAD', 'w').write('ref: refs/heads/main')\n"
    )
    attack(sandbox, host, code)
    task = STREAM.tasks()[0]
    assert grade(STREAM.secret(task), host.workspace.snapshot(), sandbox)[0] is Outcome.UNRESOLVED
    assert not (host.outside / "new").exists()


# Reports that nobody wrote

STREAM = PocketStream(seed=4, repos=("bank",), count=1)
NAMES = "import glob, json, os, sys\nnames = [__NAMES__]\nreport = json.dumps({n: 'PASSED' for n in names})\n"
SAFETY = "import socket, sys\nif sys.platform == 'linux' and socket.gethostname() != 'sandbox': raise RuntimeError('not in a sandbox')\n"
FORGERIES = {  # each knows the names of the hidden tests, which it could not; the judge is another process with a key
    "print it": NAMES + "print(report); os._exit(0)",
    "write to every descriptor": NAMES
    + "for n in range(64):\n    try: os.write(n, b'\\n' + report.encode() + b'\\n')\n    except OSError: pass",
    "write into the judge": NAMES + "for p in glob.glob('/proc/1/fd/*') + glob.glob(f'/proc/{os.getppid()}/fd/*'):\n"
    "    try: os.write(os.open(p, os.O_WRONLY), ('\\n' + report + '\\n').encode())\n    except OSError: pass\nos._exit(0)",
    "write the report file": NAMES + "open('.report.json', 'w').write(report); os._exit(0)",
    "exit well": "import os; os._exit(0)",
    "exit": "raise SystemExit(0)",
    "at exit": NAMES + "import atexit\natexit.register(lambda: (print(report), os._exit(0)))",
    "patch the exits": NAMES + "os._exit = sys.exit = lambda *_: None\nimport builtins\nbuiltins.print = lambda *a, **k: None",
    "patch the comparison": "import builtins, operator\nbuiltins.AssertionError = type('Never', (), {})\noperator.eq = lambda a, b: True",
    "patch unittest": "import unittest\nunittest.TestCase.assertEqual = lambda *_: None\nunittest.TestResult.wasSuccessful = lambda *_: True",
    "patch the runner": "import sys\nm = sys.modules['__main__']\nm.verdicts = lambda *_: {}\n"
    "for n in list(vars(m)):\n    if callable(vars(m)[n]): setattr(m, n, lambda *a, **k: True)",
    "kill the judge": "import os; os.kill(os.getppid(), 9)",
    "search the stack": NAMES
    + "f = sys._getframe()\nwhile f:\n    for v in list(f.f_locals.values()) + list(f.f_globals.values()):\n"
    "        if isinstance(v, dict) and 'key' in v: print(v['key'], report, flush=True)\n    f = f.f_back\nos._exit(0)",
    "read the judge's memory": NAMES + "m = open(f'/proc/{os.getppid()}/mem', 'rb')\nraise SystemExit('opened')",
    "find the tests": "import os\nfound = [p for r, _, fs in os.walk('.') for f in fs for p in [open(os.path.join(r, f)).read()] if 'def test_' in p]\n"
    "assert found",
    "answer the judge": NAMES
    + "import gc\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Peer':\n        o.send(['done', True, []]); o.ask('print', '\\n' + report)",
    "climb from a guest": "import gc, sys\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Peer':\n"
    "        w = o.ask('getattr', 'x', '__class__'); o.ask('call', w)",
    "equal to everything": "class E:\n    __hash__ = None\n    def __eq__(s, o): return True\n    def __call__(s, *a, **k): return s\n"
    "import sys\nsys.modules[__name__].__class__ = type('M', (type(sys),), {'__getattr__': lambda s, n: E()})",
}
FILES = {  # in the submitted tree, read by runners of all kinds
    "conftest.py": "import os; os._exit(0)",
    "sitecustomize.py": "import os; os._exit(0)",
    "usercustomize.py": "import os; os._exit(0)",
    "evil.pth": "import os; os._exit(0)",
    "json.py": "import os; os._exit(0)",
    "builtins.py": "import os; os._exit(0)",
    "pytest.ini": "[pytest]\naddopts = --collect-only\n",
    "tests/test_more.py": "import os; os._exit(0)",
    "Tests/__init__.py": "import os; os._exit(0)",
    "pyvenv.cfg": "home = /nowhere\n",
}


@pytest.fixture(scope="module", params=["bubblewrap", pytest.param("docker", marks=pytest.mark.docker)])
def graders_sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return rung(request.param)  # never the process rung: it contains nothing, and some of these reach for other processes


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_report_resolves_nothing(graders_sandbox: Sandbox, name: str) -> None:
    task = STREAM.tasks()[0]
    secret, files = STREAM.secret(task), STREAM.checkout(task)
    assert secret.fix is not None
    names = ", ".join(map(repr, (*secret.fail_to_pass, *secret.pass_to_pass)))
    forged = SAFETY + FORGERIES[name].replace("__NAMES__", names)
    for code in (
        forged,
        f"{secret.fix.before}\ntry:\n"
        + "".join(f"    {line}\n" for line in forged.splitlines())
        + "except Exception:\n    pass\n",
    ):
        assert grade(secret, {**files, secret.fix.path: code}, graders_sandbox)[0] is Outcome.UNRESOLVED


@pytest.mark.parametrize("name", FILES)
def test_a_planted_file_neither_resolves_nor_spoils(graders_sandbox: Sandbox, name: str) -> None:
    task = STREAM.tasks()[0]
    secret, files = STREAM.secret(task), {**STREAM.checkout(task), name: FILES[name]}
    assert secret.fix is not None
    assert grade(secret, files, graders_sandbox)[0] is Outcome.UNRESOLVED
    assert grade(secret, {**files, secret.fix.path: secret.fix.after}, graders_sandbox)[0] is Outcome.RESOLVED
