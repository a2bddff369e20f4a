"""One contract for every rung of the ladder, then what only bubblewrap promises, then the ladder itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.errors import SandboxError
from agent.sandbox import ExecResult, Limits, Sandbox, probe
from agent.sandbox.base import _family_from_proc, _family_from_ps
from agent.sandbox.bubblewrap import Bubblewrap
from agent.sandbox.cgroup import Group
from agent.sandbox.docker import LABEL, Docker
from agent.sandbox.ladder import tried
from agent.sandbox.process import ProcessSandbox
from agent.sandbox.seatbelt import profile
from agent.workspace import Workspace, write_tree

MIB = 2**20
SHORT = Limits(seconds=1.0)
REPOSITORY = Path(__file__).resolve().parents[2]


def bubblewrap() -> Bubblewrap:
    """The rung; skipped only where bwrap itself, asked without our flags, is missing or cannot work."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    bare = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    answer = subprocess.run(bare, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"bubblewrap does not work on this machine: {answer.stderr.strip()}")
    return Bubblewrap()


@pytest.fixture(params=["process", "bubblewrap"])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return ProcessSandbox() if request.param == "process" else bubblewrap()


@pytest.fixture
def confined() -> Bubblewrap:
    return bubblewrap()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "workspace"
    write_tree(root, {"shop/fees.py": "FEE = 7\n"})
    return Workspace(root)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def pids_of(marker: str) -> list[int]:
    """Living processes that have `marker` on their command line, wherever they hide; never PID 0 or 1."""
    listed = subprocess.run(["ps", "axww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines() if marker in line]
    return [int(pid) for pid, state, _ in rows if int(pid) > 1 and not state.startswith("Z")]


def gone(marker: str, within: float = 5.0) -> bool:
    until = time.monotonic() + within
    while pids_of(marker):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def marker() -> Iterator[str]:
    """A word for the command lines of a test's processes, none of which outlives the test."""
    word = f"marker-{uuid.uuid4().hex}"
    yield word
    for pid in pids_of(word):
        os.kill(pid, signal.SIGKILL)


# The contract of every rung


def test_output_of_both_streams_arrives_in_order_with_the_exit_code(sandbox: Sandbox, workspace: Workspace) -> None:
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr, flush=True); print('three'); sys.exit(3)"
    result = sandbox.run(python(code), workspace, Limits())
    assert (result.stdout, result.returncode) == ("one\ntwo\nthree\n", 3)
    assert not result.timed_out
    assert not result.truncated
    assert 0 < result.seconds < 10


def test_death_by_signal_is_told_as_a_shell_tells_it(sandbox: Sandbox, workspace: Workspace) -> None:
    result = sandbox.run(python("import os; os.kill(os.getpid(), 11)"), workspace, Limits())
    assert result.returncode == 128 + 11


def test_a_missing_program_is_a_failed_run_and_not_a_broken_sandbox(sandbox: Sandbox, workspace: Workspace) -> None:
    result = sandbox.run(["no-such-program"], workspace, Limits())
    assert result.returncode == 127
    assert "no-such-program" in result.stdout


def test_a_program_named_without_a_path_is_found(sandbox: Sandbox, workspace: Workspace) -> None:
    assert sandbox.run(["cat", "shop/fees.py"], workspace, Limits()).stdout == "FEE = 7\n"


def test_the_workspace_is_the_current_directory_and_writable(sandbox: Sandbox, workspace: Workspace) -> None:
    code = "import os, sys; open('made.txt', 'w').write(os.getcwd()); print(open(sys.argv[1] + '/shop/fees.py').read())"
    result = sandbox.run(python(code, str(workspace.root)), workspace, Limits())
    assert result.stdout == "FEE = 7\n\n"
    assert (workspace.root / "made.txt").read_text() == str(workspace.root)


def test_standard_input_is_empty(sandbox: Sandbox, workspace: Workspace) -> None:
    assert sandbox.run(python("import sys; print(repr(sys.stdin.read()))"), workspace, SHORT).stdout == "''\n"


def test_no_other_file_descriptor_is_open(sandbox: Sandbox, workspace: Workspace) -> None:
    code = """
import os
for number in range(3, 64):
    try:
        os.fstat(number)
        print(number)
    except OSError:
        pass
"""
    assert sandbox.run(python(code), workspace, Limits()).stdout == ""


def test_bytes_that_are_no_text_are_shown_all_the_same(sandbox: Sandbox, workspace: Workspace) -> None:
    result = sandbox.run(python(r"import os; os.write(1, b'a\xff\x00b')"), workspace, Limits())
    assert result.stdout == "a\ufffd\0b"


def test_the_environment_is_cleared(sandbox: Sandbox, workspace: Workspace) -> None:
    os.environ["SLEEPY_TEST_SECRET"] = "do not tell"
    try:
        result = sandbox.run(python("import os; print(*sorted(os.environ))"), workspace, Limits())
    finally:
        del os.environ["SLEEPY_TEST_SECRET"]
    by_shells = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE", "__CF_USER_TEXT_ENCODING"}
    assert set(result.stdout.split()) - by_shells == {"HOME", "LANG", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"}


def test_resource_limits_hold_inside(sandbox: Sandbox, workspace: Workspace) -> None:
    code = """
import resource
for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CPU):
    soft, hard = resource.getrlimit(kind)
    print(soft if soft == hard else "soft is not hard")
"""
    limits = Limits(seconds=2, file_bytes=MIB)
    core, size, files, cpu = map(int, sandbox.run([sys.executable, "-I", "-c", code], workspace, limits).stdout.split())
    assert (core, size) == (0, MIB)
    assert 16 <= files <= 256
    assert cpu == 3 * (os.cpu_count() or 1)


def test_the_wall_clock_ends_a_program_with_its_grandchildren(sandbox: Sandbox, workspace: Workspace, marker: str) -> None:
    grandchild = "import sys, time; open('ran-' + sys.argv[1], 'w').close(); time.sleep(60)"
    child = f"""
import subprocess, sys, time
for name in ("same-session", "own-session"):
    subprocess.Popen([sys.executable, "-I", "-S", "-c", {grandchild!r}, name, sys.argv[1]], start_new_session="own" in name)
print("started", flush=True)
time.sleep(60)
"""
    result = sandbox.run(python(child, marker), workspace, Limits(seconds=2))
    assert gone(marker)
    assert result.timed_out
    assert result.returncode == 137
    assert result.stdout == "started\n"
    assert 2 <= result.seconds < 8
    assert (workspace.root / "ran-same-session").exists(), "the grandchild never ran, so nothing was shown"
    assert (workspace.root / "ran-own-session").exists(), "the grandchild never ran, so nothing was shown"


def test_what_a_program_leaves_behind_is_ended_and_not_waited_for(sandbox: Sandbox, workspace: Workspace, marker: str) -> None:
    code = """
import subprocess, sys
subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", sys.argv[1]])
print("done")
"""
    result = sandbox.run(python(code, marker), workspace, Limits())
    assert gone(marker)
    assert (result.returncode, result.stdout, result.timed_out) == (0, "done\n", False)
    assert result.seconds < 5


def test_closing_the_output_does_not_end_the_run(sandbox: Sandbox, workspace: Workspace) -> None:
    code = "import os, time; os.close(1); os.close(2); time.sleep(0.3); open('late', 'w').close(); os._exit(4)"
    assert sandbox.run(python(code), workspace, Limits()).returncode == 4
    assert (workspace.root / "late").exists()


def test_closing_the_output_does_not_escape_the_wall_clock(sandbox: Sandbox, workspace: Workspace) -> None:
    result = sandbox.run(python("import os, time; os.close(1); os.close(2); time.sleep(60)"), workspace, SHORT)
    assert result.timed_out
    assert result.seconds < 6


def test_endless_output_is_cut_and_ended(sandbox: Sandbox, workspace: Workspace) -> None:
    limits = Limits(output_bytes=10_000)
    result = sandbox.run(python("while True: print('x' * 1000)"), workspace, limits)
    assert result.truncated
    assert not result.timed_out
    assert result.returncode == 137
    assert result.seconds < 5
    text, _, mark = result.stdout.rpartition("\n")
    assert len(text) == limits.output_bytes
    assert mark == "[output cut at 10000 bytes]"


def test_output_of_exactly_the_limit_is_whole(sandbox: Sandbox, workspace: Workspace) -> None:
    result = sandbox.run(python("print('x' * 9_999)"), workspace, Limits(output_bytes=10_000))
    assert (len(result.stdout), result.truncated, result.returncode) == (10_000, False, 0)


def test_a_program_that_wants_too_much_memory_fails(sandbox: Sandbox, workspace: Workspace) -> None:
    code = "block = b'x' * (300 * 2**20); print('got', len(block)); import time; time.sleep(5)"
    result = sandbox.run(python(code), workspace, Limits(memory_bytes=150 * MIB))
    assert result.returncode != 0
    assert not result.timed_out
    assert "MemoryError" in result.stdout or "[stopped: more than" in result.stdout


def test_the_memory_of_all_processes_together_is_bounded(sandbox: Sandbox, workspace: Workspace, marker: str) -> None:
    code = """
import subprocess, sys, time
hold = "import time; block = b'x' * (60 * 2**20); time.sleep(20)"
for _ in range(4):
    subprocess.Popen([sys.executable, "-I", "-S", "-c", hold, sys.argv[1]])
time.sleep(20)
"""
    result = sandbox.run(python(code, marker), workspace, Limits(memory_bytes=150 * MIB))
    assert gone(marker)
    assert result.stdout.endswith(f"[stopped: more than {150 * MIB} bytes of memory]")
    assert (result.returncode, result.timed_out) == (137, False)


def test_too_many_processes_are_ended(sandbox: Sandbox, workspace: Workspace, marker: str) -> None:
    code = """
import os, time
started = 0
for _ in range(40):
    try:
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
        started += 1
    except OSError:
        break
print(started, flush=True)
time.sleep(20 if started == 40 else 0)
"""
    result = sandbox.run(python(code, marker), workspace, Limits(processes=8))
    assert gone(marker)
    assert not result.timed_out
    if "[stopped" in result.stdout:  # counted from outside
        assert result.stdout.endswith("[stopped: more than 8 processes]")
        assert result.returncode == 137
    else:  # RLIMIT_NPROC
        assert int(result.stdout) < 8


def test_few_processes_are_left_alone(sandbox: Sandbox, workspace: Workspace) -> None:
    code = """
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(0.4)"]) for _ in range(4)]
print([child.wait() for child in children])
"""
    result = sandbox.run(python(code), workspace, Limits(processes=5))
    assert (result.returncode, result.stdout) == (0, "[0, 0, 0, 0]\n")


def test_a_huge_file_is_bounded(sandbox: Sandbox, workspace: Workspace) -> None:
    code = """
with open("huge", "wb", buffering=0) as file:
    for _ in range(8):
        file.write(b"x" * 2**20)
"""
    result = sandbox.run(python(code), workspace, Limits(file_bytes=MIB))
    assert result.returncode != 0
    assert (workspace.root / "huge").stat().st_size <= MIB


def test_runs_from_several_threads_do_not_mix(sandbox: Sandbox, tmp_path: Path) -> None:
    spaces = [Workspace(tmp_path / str(number)) for number in range(6)]
    for space in spaces:
        write_tree(space.root, {"name.txt": space.root.name})

    def run(space: Workspace) -> ExecResult:
        return sandbox.run(python("print(open('name.txt').read() * 3)"), space, Limits())

    with ThreadPoolExecutor(max_workers=3) as pool:
        results = list(pool.map(run, spaces))
    assert [result.stdout for result in results] == [f"{number}" * 3 + "\n" for number in range(6)]


def test_an_empty_command_is_refused(sandbox: Sandbox, workspace: Workspace) -> None:
    with pytest.raises(SandboxError, match="test_argv"):
        sandbox.run([], workspace, Limits())


def test_a_lost_workspace_is_the_sandboxs_failure(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="check that both exist"):
        sandbox.run(["true"], Workspace(tmp_path / "lost"), Limits())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only one way to count processes here")
def test_both_ways_to_count_processes_agree(marker: str) -> None:
    code = """
import subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(20)"]) for _ in range(2)]
print("started", flush=True)
time.sleep(20)
"""
    with subprocess.Popen(python(code, marker), stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            by_proc, by_ps = _family_from_proc(process.pid, 100), _family_from_ps(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert len(by_proc) == 3
    assert by_proc.keys() == by_ps.keys()
    assert by_ps[process.pid] / 2 < by_proc[process.pid] < by_ps[process.pid] * 2, "not both in bytes"


# What only bubblewrap promises


def test_no_network_not_even_loopback(confined: Bubblewrap, workspace: Workspace) -> None:
    code = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
    print("connected")
except OSError as error:
    print("refused", error)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        argv = [sys.executable, "-I", "-c", code, str(server.getsockname()[1])]
        unconfined = ProcessSandbox().run(argv, workspace, Limits())
        result = confined.run(argv, workspace, Limits())
    assert unconfined.stdout == "connected\n", "the listener does not listen, so nothing was shown"
    assert result.stdout.startswith("refused")


def test_abstract_sockets_of_the_host_are_out_of_reach(confined: Bubblewrap, workspace: Workspace) -> None:
    name = f"\0sleepy-{uuid.uuid4().hex}"
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({name!r}); print('connected')"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        argv = [sys.executable, "-I", "-c", code]
        unconfined = ProcessSandbox().run(argv, workspace, Limits())
        result = confined.run(argv, workspace, Limits())
    assert unconfined.stdout == "connected\n", "the listener does not listen, so nothing was shown"
    assert "ConnectionRefusedError" in result.stdout


def test_files_outside_cannot_be_read(confined: Bubblewrap, workspace: Workspace, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the key")
    for path in (str(secret), "../secret", "/etc/passwd", str(REPOSITORY / "pyproject.toml")):
        assert ProcessSandbox().run(["cat", path], workspace, Limits()).returncode == 0, "nothing there to protect"
        result = confined.run(["cat", path], workspace, Limits())
        assert result.returncode != 0, path
        assert "No such file" in result.stdout


def test_a_symbolic_link_out_of_the_workspace_leads_nowhere(confined: Bubblewrap, workspace: Workspace, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the key")
    (workspace.root / "file").symlink_to(secret)
    (workspace.root / "folder").symlink_to(tmp_path)
    for path in ("file", "folder/secret"):
        assert confined.run(["cat", path], workspace, Limits()).returncode != 0, path
    confined.run(["sh", "-c", "echo changed > file; echo changed > folder/new"], workspace, Limits())
    assert secret.read_text() == "the key"
    assert not (tmp_path / "new").exists()


def test_nothing_outside_can_be_written(confined: Bubblewrap, workspace: Workspace, tmp_path: Path) -> None:
    name = f"sleepy-{uuid.uuid4().hex}"
    for folder in (str(tmp_path), sys.prefix, sys.base_prefix, "/", "/usr", "/etc", "/dev", "/proc"):
        path = Path(folder, name)
        result = confined.run(["touch", str(path)], workspace, Limits())
        escaped = path.exists()
        path.unlink(missing_ok=True)
        assert not escaped, folder
        # The folders above the workspace may lie in the sandbox's own /tmp, which is thrown away.
        assert result.returncode != 0 or folder.startswith("/tmp/"), folder


def test_the_kernels_settings_cannot_be_written(confined: Bubblewrap, workspace: Workspace) -> None:
    """As root, a writable /proc/sys/kernel/core_pattern would be a way to run code on the host."""
    code = """
import os
for folder, _, names in os.walk("/proc/sys"):
    for name in names:
        try:
            os.close(os.open(f"{folder}/{name}", os.O_WRONLY))
            print(folder, name)
        except OSError:
            pass
print("looked at", os.path.exists("/proc/sys/kernel/core_pattern"))
"""
    assert confined.run(python(code), workspace, Limits()).stdout == "looked at True\n"


def test_mounts_can_be_read_and_not_written(confined: Bubblewrap, workspace: Workspace, tmp_path: Path) -> None:
    outside, inside = tmp_path / "tools", workspace.root / "vendored"
    write_tree(outside, {"runner.py": "print('runs')\n"})
    write_tree(inside, {"given.txt": "given\n"})
    mounted = Workspace(workspace.root, mounts=(outside, inside))
    assert confined.run([sys.executable, "-I", "-S", str(outside / "runner.py")], mounted, Limits()).stdout == "runs\n"
    for path in (outside / "runner.py", inside / "given.txt"):
        before = path.read_text()
        result = confined.run(["sh", "-c", f"echo changed > {path}"], mounted, Limits())
        assert "Read-only" in result.stdout
        assert path.read_text() == before


def test_temporary_files_are_bounded_together_and_forgotten(confined: Bubblewrap, workspace: Workspace) -> None:
    code = """
import sys
written = 0
try:
    for number in range(8):
        with open(f"{sys.argv[1]}/{number}", "wb", buffering=0) as file:
            written += file.write(b"x" * 2**20)
except OSError:
    pass
print(written)
"""
    for folder in ("/tmp", "/dev/shm"):
        for _ in range(2):  # the second run finds it empty again
            result = confined.run(python(code, folder), workspace, Limits(file_bytes=4 * MIB))
            assert 3 * MIB < int(result.stdout) <= 4 * MIB, folder


def test_other_processes_are_invisible(confined: Bubblewrap, workspace: Workspace) -> None:
    result = confined.run(python("import os; print(*[n for n in os.listdir('/proc') if n.isdigit()])"), workspace, Limits())
    assert len(result.stdout.split()) == 2  # bwrap's init and the program


def test_no_user_namespace_inside(confined: Bubblewrap, workspace: Workspace) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    if "--disable-userns" not in subprocess.run(["bwrap", "--help"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("this bwrap is older than --disable-userns")
    result = confined.run(["unshare", "--user", "true"], workspace, Limits())
    assert result.returncode != 0
    assert "unshare failed" in result.stdout


def test_a_program_that_talks_like_bwrap_is_still_a_failed_program(confined: Bubblewrap, workspace: Workspace) -> None:
    code = "import sys; print('bwrap: setting up uid map: Permission denied', file=sys.stderr); sys.exit(1)"
    assert confined.run(python(code), workspace, Limits()).returncode == 1


def test_a_sandbox_that_cannot_be_set_up_is_an_error(confined: Bubblewrap, workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="could not set the sandbox up"):
        confined.run(["true"], Workspace(workspace.root, mounts=(tmp_path / "missing",)), Limits())


def test_the_program_dies_with_a_killed_daemon(confined: Bubblewrap, workspace: Workspace, marker: str) -> None:
    daemon = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from agent.sandbox.base import Limits
from agent.sandbox.bubblewrap import Bubblewrap
from agent.workspace import Workspace
program = [sys.executable, "-I", "-S", "-c", "import time; open('began', 'w').close(); time.sleep(60)", {marker!r}]
Bubblewrap().run(program, Workspace(Path({str(workspace.root)!r})), Limits(seconds=50))
"""
    with subprocess.Popen([sys.executable, "-c", daemon]) as process:
        until = time.monotonic() + 10
        while not (workspace.root / "began").exists() and time.monotonic() < until:
            time.sleep(0.05)
        alive = pids_of(marker)
        process.kill()
    assert alive, "the program never ran, so nothing was shown"
    assert gone(marker)


# The ladder


def test_the_best_rung_is_taken() -> None:
    bubblewrap()
    assert probe(trusted_generated=True).name == "bubblewrap"
    assert probe(trusted_generated=False).name == "bubblewrap"


def test_without_bubblewrap_only_generated_code_is_run(tmp_path: Path) -> None:
    missing = str(tmp_path / "bwrap")
    assert probe(True, missing).name == "process"
    with pytest.raises(SandboxError, match="apt-get install bubblewrap"):
        probe(False, missing)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return str(path)


def test_a_bubblewrap_that_fails_is_not_taken(tmp_path: Path) -> None:
    broken = script(tmp_path / "bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    assert probe(True, broken).name == "process"
    with pytest.raises(SandboxError, match="No permissions to create new namespace"):
        probe(False, broken)


NO_CONFINEMENT = """
while [ "$1" != -- ]; do [ "$1" = --json-status-fd ] && status=$2; shift; done
shift
"$@" && echo '{"exit-code": 0}' > "/dev/fd/$status"
"""
ALL_FILES = """
while [ "$1" != -- ]; do [ "$1" = --json-status-fd ] && status=$2; shift; done
exec bwrap --unshare-all --dev-bind / / --json-status-fd "$status" "$@"
"""
THE_NETWORK = """
shift
exec bwrap --unshare-all --share-net "$@"
"""


@pytest.mark.parametrize("gap", [NO_CONFINEMENT, ALL_FILES, THE_NETWORK])
def test_a_bubblewrap_that_leaves_a_gap_is_not_taken(tmp_path: Path, gap: str) -> None:
    if gap != NO_CONFINEMENT:
        bubblewrap()
    if gap == THE_NETWORK and len(Path("/proc/net/route").read_text().splitlines()) <= 1:
        pytest.skip("this machine has no network that could be left open")
    leaky = script(tmp_path / "bwrap", f'[ "$1" = --help ] && exec bwrap --help\n{gap}')
    with pytest.raises(SandboxError, match="does not confine"):
        tried(Bubblewrap(leaky), isolates=True)
    with pytest.raises(SandboxError, match="does not confine"):
        probe(False, leaky)


class Pretender:
    """A rung that answers what the probe wants to hear."""

    name = "pretender"

    def __init__(self, exit_code: int, writes: bool) -> None:
        self.exit_code = exit_code
        self.writes = writes

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        if self.writes:
            (workspace.root / "written").touch()
        return ExecResult(self.exit_code, "confined\n", False, False, 0.0)


def test_a_rung_that_runs_nothing_is_not_taken() -> None:
    for pretender in (Pretender(1, writes=True), Pretender(0, writes=False)):
        with pytest.raises(SandboxError, match="does not run programs"):
            tried(pretender, isolates=True)
    assert tried(Pretender(0, writes=True), isolates=True).name == "pretender"


def test_a_docker_that_does_not_answer_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    assert probe(True, str(tmp_path / "bwrap"), "image:1").name == "process"
    with pytest.raises(SandboxError, match=r"docker.*bwrap not found.*SLEEPY_DOCKER_IMAGE"):
        probe(False, str(tmp_path / "bwrap"), "image:1")


# Docker


@pytest.fixture
def docker() -> Docker:
    image = os.environ.get("SLEEPY_DOCKER_IMAGE")
    if image is None:
        pytest.skip("no Docker image: set SLEEPY_DOCKER_IMAGE (and DOCKER_HOST)")
    return Docker(image, os.environ.get("DOCKER_HOST"))


def containers(docker: Docker) -> list[str]:
    return docker._ask("ps", "--all", "--quiet", "--filter", f"label={LABEL}").split()


@pytest.mark.docker
def test_docker_is_the_top_of_the_ladder_and_its_name_has_the_image(docker: Docker) -> None:
    image = os.environ["SLEEPY_DOCKER_IMAGE"]
    assert probe(False, image=image).name == f"docker:{image}"


@pytest.mark.docker
def test_docker_keeps_the_contract_and_leaves_no_container(docker: Docker, workspace: Workspace) -> None:
    code = "import os, sys; open('made', 'w').write(os.getcwd()); print('one', flush=True); sys.exit(3)"
    result = docker.run(python(code), workspace, Limits())
    assert (result.stdout, result.returncode) == ("one\n", 3)
    assert (workspace.root / "made").read_text() == str(workspace.root)
    assert docker.run(python("import time; time.sleep(60)"), workspace, Limits(seconds=1)).timed_out
    assert docker.run(["no-such-program"], workspace, Limits()).returncode == 127
    assert docker.run(python("while True: print('x' * 999)"), workspace, Limits(output_bytes=9_999)).truncated
    assert containers(docker) == []


@pytest.mark.docker
def test_docker_reaps_what_dead_owners_left_and_nothing_else(docker: Docker) -> None:
    with subprocess.Popen(["true"]) as dead:
        pass
    for owner in (dead.pid, os.getpid()):
        docker._ask("create", "--network", "none", "--label", f"{LABEL}={owner}", docker._identity, "true")
    docker._reap()
    left = containers(docker)
    assert len(left) == 1
    docker._ask("rm", "--force", left[0])


@pytest.mark.docker
def test_docker_without_the_image_says_so(docker: Docker) -> None:
    with pytest.raises(SandboxError, match="docker load"):
        Docker("no-such-image:0", os.environ.get("DOCKER_HOST"))


# The control group, and the macOS profile


def test_a_group_bounds_and_ends_its_members_however_they_detach(marker: str) -> None:
    group = Group.made(6, 256 * MIB)
    if group is None:
        pytest.skip("no control group can be made here")
    code = """
import os, time
for n in range(40):
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(60)
    except OSError:
        break
print(n, flush=True)
"""
    with subprocess.Popen(group.entering(python(code, marker)), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert int(process.stdout.readline()) == 5
        finally:
            group.close()
    assert pids_of(marker) == []
    assert not any(folder.exists() for folder in group.folders)


def test_the_disk_and_the_entries_of_a_workspace_are_bounded(sandbox: Sandbox, workspace: Workspace) -> None:
    many = "import time\nfor n in range(200): open(f'f{n}', 'wb').write(b'x' * 2**20); time.sleep(0.02)"
    result = sandbox.run(python(many), workspace, Limits(disk_bytes=8 * MIB))
    assert result.stdout.endswith(f"[stopped: more than {8 * MIB} bytes on disk]")
    few = "import time\nfor n in range(2000): open(f'e{n}', 'w').close(); time.sleep(0.002)"
    result = sandbox.run(python(few), workspace, Limits(entries=400))
    assert result.stdout.endswith("[stopped: more than 400 files and folders]")


def test_the_profile_denies_first_and_names_real_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / 'we"ird').mkdir()
    (tmp_path / "link").symlink_to("real")
    text = profile(tmp_path / "link", [tmp_path / 'we"ird'], tmp_path / "scratch")
    lines = text.splitlines()
    assert lines[:3] == ["(version 1)", "(deny default)", "(deny network*)"]
    writes = [line for line in lines if line.startswith("(allow file-write*")]
    assert writes == [f'(allow file-write* (subpath "{tmp_path}/real") (subpath "{tmp_path}/scratch"))']
    assert f'(subpath "{tmp_path}/we\\"ird")' in text
    assert not any(line.startswith("(allow network") for line in lines)
    assert text.count("(") == text.count(")")
    with pytest.raises(SandboxError, match="plain path"):
        profile(tmp_path / "a\nb", [], tmp_path)
