"""The state directory: private, refused where it cannot work, and with one owner whatever happens to that owner."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.errors import DaemonError, OwnedError
from daemon.home import LONGEST_SOCKET, VARIABLE, Home, owned, owner
from tests.daemon.disks import mounted

REPOSITORY = Path(__file__).resolve().parents[2]
HOLD = """
import subprocess, sys
from pathlib import Path
from daemon.home import owned

with owned(Path(sys.argv[1]), "a daemon"):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "state")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "sleepyd.lock"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def in_child(script: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def holder(lock: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A real process that holds the lock, and the PID of a child of it; neither outlives the block."""
    process = in_child(HOLD, lock)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        process.kill()
        process.communicate()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Where it is


def test_the_command_line_comes_before_the_environment_and_that_before_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/var/by-environment")
    assert Home.at(Path("/var/by-option")).root == Path("/var/by-option")
    assert Home.at().root == Path("/var/by-environment")
    monkeypatch.setenv(VARIABLE, "")
    assert Home.at().root == Path.home() / ".sleepyd"
    monkeypatch.delenv(VARIABLE)
    assert Home.at().root == Path.home() / ".sleepyd"


def test_the_path_does_not_change_its_meaning_with_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home.at(Path("state"))
    monkeypatch.chdir("/")
    assert home.root == tmp_path / "state"


def test_a_tilde_that_means_nothing_is_one_clear_line() -> None:
    with pytest.raises(DaemonError, match=r"~nobody-of-this-name.*--home"):
        Home.at(Path("~nobody-of-this-name/state"))


# Making it


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_every_folder_is_for_the_owner_alone_whatever_the_umask(home: Home, umask: int) -> None:
    before = os.umask(umask)
    try:
        home.make()
    finally:
        os.umask(before)
    folders = [home.root, *(path for path in home.root.iterdir())]
    assert len(folders) == 7
    assert {mode(folder) for folder in folders} == {0o700}
    assert home.is_private()


def test_a_loose_folder_that_is_there_already_is_closed_and_keeps_what_it_has(home: Home) -> None:
    home.root.mkdir()
    home.root.chmod(0o777)
    home.config.write_text("[day]\n")
    assert not home.is_private()
    home.make()
    assert mode(home.root) == 0o700
    assert home.config.read_text() == "[day]\n"


def test_making_it_twice_changes_nothing(home: Home) -> None:
    home.make()
    before = tree(home.root)
    home.make()
    assert tree(home.root) == before == {"logs", "live", "adapters", "nights", "tasks", "inbox"}


def test_the_longest_path_that_is_taken_has_room_for_a_real_socket(tmp_path: Path) -> None:
    room = LONGEST_SOCKET - len(os.fsencode(tmp_path)) - len("//control.sock")
    if room < 2:
        pytest.skip("the folder for temporary files has too long a name itself")
    # Bytes count, not characters: an owl has four.
    fits, too_long = (Home(tmp_path / ("n" * (room - extra) + "🦉" * (extra // 2))) for extra in (0, 2))
    fits.make()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(fits.socket))
    with pytest.raises(DaemonError, match=r"too long for a socket.*--home"):
        too_long.make()
    assert not too_long.root.exists()


@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_a_file_in_its_place_is_named_and_left_alone(tmp_path: Path, inside: str) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    file.chmod(0o644)
    with pytest.raises(DaemonError, match=r"file.*cannot be used as the state directory.*--home"):
        Home(file / inside).make()
    assert file.read_text() == "mine"
    assert mode(file) == 0o644


def test_a_read_only_disk_is_named(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro") as disk:
        for home in (Home(disk), Home(disk / "state")):
            with pytest.raises(DaemonError, match=r"(?i)disk.*cannot be used.*read-only file system.*--home"):
                home.make()


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    no_space = pytest.raises(DaemonError, match=r"cannot be used.*[Nn]o space left")
    with mounted(tmp_path / "disk", "size=64k,nr_inodes=3") as disk, no_space:
        Home(disk / "state").make()


def test_somebody_elses_folder_is_refused_before_anything_in_it_is_changed(home: Home) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    home.root.mkdir()
    home.root.chmod(0o755)
    os.chown(home.root, 12345, 12345)
    with pytest.raises(DaemonError, match=r"belongs to user 12345.*--home"):
        home.make()
    assert (mode(home.root), tree(home.root)) == (0o755, set())


# One owner


def test_a_second_owner_is_told_the_pid_of_the_first(lock: Path) -> None:
    with holder(lock) as (process, _):
        refused = rf"a daemon is already running \(PID {process.pid}, lock .*sleepyd\.lock\)"
        with pytest.raises(OwnedError, match=refused), owned(lock, "a daemon", seconds=0.1):
            pytest.fail("two owners")
        assert owner(lock) == process.pid


def test_being_refused_takes_nothing_from_the_owner(lock: Path) -> None:
    with owned(lock, "a daemon"):
        for _ in range(3):
            with pytest.raises(OwnedError), owned(lock, "another", seconds=0):
                pytest.fail("two owners")
        assert owner(lock) == os.getpid()


def test_the_lock_of_a_killed_process_is_free_also_while_its_child_lives(lock: Path) -> None:
    with holder(lock) as (process, child):
        process.kill()
        process.wait()
        assert alive(child), "without a living child nothing is shown"
        assert owner(lock) is None
        with owned(lock, "a daemon", seconds=0):
            assert owner(lock) == os.getpid()
        assert alive(child)


def test_the_lock_is_free_again_after_the_block_however_it_ends(lock: Path) -> None:
    with pytest.raises(ZeroDivisionError), owned(lock, "a daemon"):
        _ = 1 // 0
    assert owner(lock) is None
    with owned(lock, "a daemon", seconds=0):
        pass
    assert owner(lock) is None


def test_whoever_waits_gets_the_lock_as_soon_as_its_holder_is_gone(lock: Path) -> None:
    with holder(lock) as (process, _):
        threading.Timer(0.3, process.kill).start()
        began = time.monotonic()
        with owned(lock, "a worker", seconds=60):
            assert 0.2 < time.monotonic() - began < 30
            assert owner(lock) == os.getpid()


def test_of_many_that_start_at_once_exactly_one_becomes_the_owner(lock: Path) -> None:
    script = """
import sys
from pathlib import Path
from daemon.errors import OwnedError
from daemon.home import owned

print("ready", flush=True)
sys.stdin.readline()
try:
    with owned(Path(sys.argv[1]), "a daemon", seconds=0.2):
        print("won", flush=True)
        sys.stdin.readline()
except OwnedError as error:
    print(error, flush=True)
"""
    starters = [in_child(script, lock) for _ in range(5)]
    for process in starters:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in starters:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.pid: process.stdout.readline() for process in starters if process.stdout is not None}
    for process in starters:
        process.communicate()
    (winner,) = [pid for pid, text in said.items() if text == "won\n"]
    assert sum(f"PID {winner}," in text for text in said.values()) == len(starters) - 1


def test_the_lock_file_is_for_the_owner_alone(lock: Path) -> None:
    before = os.umask(0)
    try:
        with owned(lock, "a daemon"):
            assert mode(lock) == 0o600
            assert lock.read_text() == f"{os.getpid()}\n"
    finally:
        os.umask(before)


@pytest.mark.parametrize("left", ["", "4194304000\n", "not a number", "9" * 400])
def test_what_a_dead_owner_left_in_the_file_means_nothing(lock: Path, left: str) -> None:
    lock.write_text(left)
    assert owner(lock) is None
    with owned(lock, "a daemon", seconds=0):
        assert lock.read_text() == f"{os.getpid()}\n"
        assert owner(lock) == os.getpid()


def test_an_owner_without_a_readable_pid_is_an_owner_all_the_same(lock: Path) -> None:
    with owned(lock, "a daemon"):
        lock.write_text("")
        assert owner(lock) == 0
        with pytest.raises(OwnedError, match="PID unknown"), owned(lock, "a daemon", seconds=0):
            pytest.fail("two owners")


def test_no_lock_file_means_no_owner(lock: Path) -> None:
    assert owner(lock) is None
    assert not lock.exists(), "asking must not make anything"


def test_where_there_can_be_no_lock_nobody_is_said_to_hold_it(lock: Path) -> None:
    lock.mkdir()
    with pytest.raises(DaemonError, match=r"sleepyd\.lock: cannot be locked") as error, owned(lock, "a daemon"):
        pytest.fail("a folder is no lock")
    assert not isinstance(error.value, OwnedError)
    with pytest.raises(DaemonError, match="cannot be locked"), owned(lock / "missing" / "lock", "a daemon"):
        pytest.fail("there is no such folder")


def test_an_error_of_the_work_is_not_taken_for_one_of_the_lock(lock: Path) -> None:
    with pytest.raises(FileNotFoundError), owned(lock, "a daemon"):
        lock.with_name("nothing").read_text()


def test_asking_for_the_owner_never_makes_a_starting_daemon_fail(lock: Path) -> None:
    lock.touch()
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            owner(lock)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(40):
            with owned(lock, "a daemon", seconds=0):
                assert owner(lock) == os.getpid()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_somebody_who_asks_and_is_slow_about_it_is_waited_for(lock: Path) -> None:
    lock.write_text("1\n")  # of one that died long ago, and must not be accused
    handle = os.open(lock, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    threading.Timer(0.5, os.close, [handle]).start()
    with owned(lock, "a daemon", seconds=0.1):
        assert owner(lock) == os.getpid()


def test_two_that_wait_for_one_that_asks_do_not_wait_for_each_other(lock: Path) -> None:
    handle = os.open(lock, os.O_RDONLY | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_SH)
    told: list[str] = []

    def start() -> None:
        try:
            with owned(lock, "a daemon", seconds=0.1):
                told.append("won")
                time.sleep(1)
        except OwnedError:
            told.append("refused")

    threads = [threading.Thread(target=start, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    os.close(handle)
    for thread in threads:
        thread.join(30)
    assert sorted(told) == ["refused"] * 3 + ["won"]
