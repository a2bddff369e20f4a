"""The programs of the escape suite, with what contains each; Python source, run behind `PRELUDE`."""

# ruff: noqa: E501 - programs in strings
from __future__ import annotations

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
        + "libc.ptrace(16, 1, 0, 0) == 0 and os.waitpid(1, 0x40000000) and libc.ptrace(17, 1, 0, 0) == 0 and open('/proc/1/root' + OUTSIDE + '/victim') and escaped()",
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
        "import resource; hard = resource.getrlimit(resource.RLIMIT_CORE)[1]\nresource.setrlimit(resource.RLIMIT_CORE, (hard, hard))\n"
        "pid = os.fork()\nif pid == 0: os.abort()\nos.WCOREDUMP(os.waitpid(pid, 0)[1]) and escaped()",
    ),
    "open files": (
        "RLIMIT_NOFILE",
        "import itertools\ntry:\n    for n in itertools.count(): os.dup(1)\nexcept OSError: n > 300 and escaped()",
    ),
    "load a module": (
        "no CAP_SYS_MODULE",
        CLIB
        + "libc.syscall({'x86_64': 175, 'aarch64': 105}[os.uname().machine], b'', 0, b''); ctypes.get_errno() in (8, 14) and escaped()",
    ),
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

UNCONTROLLED = {  # not shown to work anywhere: who could, could do it to this machine
    "clock": "there is one clock",
    "load a module": "there is one kernel",
    "make a device": "no user namespace may",
    "become another user": "there is one user in the arena's namespace",
    "setuid program": "bubblewrap, which makes the arena, forbids new privileges as well",
    "hardlink to the system": "no file of the system lies on the arena's mount",
}

SURVIVALS = {  # all: the last process of a PID namespace takes the rest with it; the group's members are killed until none is left
    "double fork": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\n",
    "deaf to signals": "[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 3, 15)]\nif os.fork() == 0:\n    os.setsid(); time.sleep(60)\n",
    "ever new processes": "while True:\n    if os.fork(): os._exit(0)\n    os.setsid(); time.sleep(0.01)\n",
    "kill the parent": "os.kill(os.getppid(), 9)\ntime.sleep(0.2)\nif os.fork() == 0: os.setsid(); time.sleep(60)\n",
    "kill everyone": "os.fork() or (os.setsid(), time.sleep(60))\nos.kill(-1, 9)\ntime.sleep(60)\n",
    "past the time": "os.fork(); os.setsid() if os.getpgrp() != os.getpid() else None\ntime.sleep(60)\n",
}

FLOODS = {  # each wants a few times what `LIMITS` of the suite grants, and no more: the same programs are run unbounded
    "fork bomb": (
        "the group's pids limit; RLIMIT_NPROC",
        "while True:\n    try: os.fork()\n    except OSError: time.sleep(0.1)\n",
    ),
    "threads": (
        "threads count as processes in the group",
        "import threading\ntry:\n    [threading.Thread(target=time.sleep, args=(9,), daemon=True).start() for _ in range(100)]\n"
        "except RuntimeError: raise OSError('no more')\nescaped(); os._exit(0)\n",
    ),
    "memory, one process": (
        "RLIMIT_AS, or the group",
        "b = []\nfor _ in range(48): b.append(bytearray(b'x' * 2**23))\nescaped()\n",
    ),
    "memory, many": (
        "counted together, and the group",
        "r, w = os.pipe()\nchildren = []\nfor _ in range(8):\n    children.append(os.fork())\n    if children[-1] == 0:\n"
        "        b = bytearray(b'x' * 50 * 2**20); os.write(w, b'+'); time.sleep(60)\nfor _ in children: os.read(r, 1)\n"
        "time.sleep(0.3)\nall(os.waitpid(c, os.WNOHANG)[0] == 0 for c in children) and escaped()\n"
        "[os.kill(c, 9) for c in children]\n",
    ),
    "output": ("read no further than the limit", "for _ in range(64): os.write(1, b'x' * 65536)\n"),
    "one huge file": (
        "RLIMIT_FSIZE",
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nf = open('big', 'wb')\n"
        "for n in range(16): f.write(b'x' * 2**20)\nescaped()\n",
    ),
    "many files": (
        "the watcher counts the workspace",
        "for n in range(80): open(f'f{n}', 'wb').write(b'x' * 2**20); time.sleep(0.01)\ntime.sleep(0.5); escaped()\n",
    ),
    "many inodes": (
        "the watcher counts entries",
        "for n in range(1000): open(f'i{n}', 'w').close(); n % 50 or time.sleep(0.01)\ntime.sleep(0.5); escaped()\n",
    ),
    "temporary files": (
        "a tmpfs with a size",
        "for n in range(16): open(f'/tmp/{n}', 'wb').write(b'x' * 2**20)\nescaped()\n",
    ),
    "shared memory": (
        "a tmpfs with a size",
        "for n in range(16): open(f'/dev/shm/{n}', 'wb').write(b'x' * 2**20)\nescaped()\n",
    ),
}
POISON = (
    "[os.makedirs('.git/' + n) for n in ('hooks', 'objects', 'refs')]\n"
    "open('.git/config', 'w').write('[core]\\n\\tfsmonitor = touch ' + OUTSIDE + '/new\\n')\n"
    "open('.git/hooks/post-checkout', 'w').write('#!/bin/sh\\ntouch ' + OUTSIDE + '/new'); os.chmod('.git/hooks/post-checkout', 0o755)\n"
    "open('.gitattributes', 'w').write('* filter=evil'); open('.git/HEAD', 'w').write('ref: refs/heads/main')\n"
)
