"""The state directory: where everything of one daemon lies, and that it has one owner."""

from __future__ import annotations

import fcntl
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from daemon.client import ask
from daemon.errors import DaemonError, OwnedError
from eval.places import Places

VARIABLE = "SLEEPYD_HOME"
DEFAULT = Path("~/.sleepyd")
LONGEST_SOCKET = 100
"""Bytes of a Unix socket's path that every system accepts (sun_path: 104 on macOS, 108 on Linux)."""


@dataclass(frozen=True)
class Home:
    """Paths in one state directory. Only `make` writes anything."""

    root: Path

    @classmethod
    def at(cls, option: Path | None = None) -> Home:
        """The directory given on the command line, else by the environment, else the default.

        Raises:
            DaemonError: if it begins with a ~ that means nothing here.
        """
        chosen = option or Path(os.environ.get(VARIABLE) or DEFAULT)
        try:
            return cls(chosen.expanduser().absolute())
        except RuntimeError as error:
            raise DaemonError(f"{chosen}: {error}; give the whole path with --home or {VARIABLE}") from error

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "sleepyd.toml"

    @property
    def store(self) -> Path:
        """The store."""
        return self.root / "sleepy.db"

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.root / "control.sock"

    @property
    def lock(self) -> Path:
        """Held by the daemon as long as it lives; its text is the PID."""
        return self.root / "sleepyd.lock"

    @property
    def worker_lock(self) -> Path:
        """Held by the working process, so that there is never a second one."""
        return self.root / "worker.lock"

    @property
    def logs(self) -> Path:
        """The structured log's files."""
        return self.root / "logs"

    @property
    def live(self) -> Path:
        """What is live."""
        return self.root / "live"

    @property
    def adapters(self) -> Path:
        """Every admitted adapter."""
        return self.root / "adapters"

    @property
    def nights(self) -> Path:
        """Working files of nights, one folder each."""
        return self.root / "nights"

    @property
    def chroma(self) -> Path:
        """Chroma's folder: an index of the memories in the store, made again whenever it is gone."""
        return self.root / "chroma"

    @property
    def scratch(self) -> Path:
        """Workspaces of what is being done; the worker's alone, and gone when the next one starts."""
        return self.root / "scratch"

    @property
    def tasks(self) -> Path:
        """Tasks of the owner's own, one file each."""
        return self.root / "tasks"

    @property
    def inbox(self) -> Path:
        """Files put here are taken in."""
        return self.root / "inbox"

    @property
    def answers(self) -> Path:
        """What guards were answered; can be deleted between nights, and is then asked again."""
        return self.root / "answers"

    @property
    def mixtures(self) -> Path:
        """Mixtures of experts as they are served; can be deleted at any time."""
        return self.root / "mixtures"

    @property
    def lab(self) -> Path:
        """The laboratory: what experiments lived, and what of it is kept."""
        return self.root / "lab"

    @property
    def places(self) -> Places:
        """What task sources are made of."""
        return Places(self.root)

    def make(self) -> None:
        """Create the directory and its folders for the owner alone.

        Raises:
            DaemonError: if it cannot be made or written, or belongs to somebody else.
        """
        if self.is_too_long():
            raise DaemonError(f"{self.root}: the path is too long for a socket in it; choose a shorter one with --home")
        try:
            if (stranger := self.stranger()) is not None:  # asked before anything of theirs is changed
                raise DaemonError(f"{self.root} belongs to user {stranger}; run as that user, or choose another --home")
            if self.root.is_dir() and any(self.root.iterdir()) and not self.is_ours():
                raise DaemonError(f"{self.root} holds other things than a daemon's; choose an empty or new folder with --home")
            for folder in (self.root, self.logs, self.live, self.adapters, self.nights, self.tasks, self.inbox):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.root.chmod(0o700)
            probe = self.root / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise DaemonError(
                f"{self.root}: cannot be used as the state directory ({error}); choose another with --home"
            ) from error

    def is_too_long(self) -> bool:
        """Whether no socket can be made here, because its path would be too long."""
        return len(os.fsencode(self.socket)) > LONGEST_SOCKET

    def stranger(self) -> int | None:
        """The user to whom the directory belongs, if that is somebody else."""
        if not self.root.exists():
            return None
        uid = self.root.stat().st_uid
        return uid if uid != os.getuid() else None

    def is_ours(self) -> bool:
        """Whether a daemon, `init` or an experiment has been here."""
        return any(path.exists() for path in (self.config, self.lock, self.store, self.inbox, self.lab / "lab.db"))

    def is_private(self) -> bool:
        """Whether nobody but the owner can look in."""
        mode = stat.S_IMODE(self.root.stat().st_mode)
        return not mode & 0o077


@contextmanager
def owned(path: Path, what: str, seconds: float = 0.5) -> Iterator[None]:
    """Hold the lock file for as long as the block runs; the kernel lets go of it however the process ends.

    Whoever asks for the `owner` shares the lock in passing; that is waited for, however long it takes.

    Raises:
        OwnedError: another process holds it, and still does after `seconds`; the text names its PID.
        DaemonError: if there can be no lock file here.
    """
    try:
        # Not inherited by programs that are started (PEP 446), so that no child keeps the lock of a parent that died.
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        _take(handle, path, what, seconds)
        yield
    finally:
        os.close(handle)


@contextmanager
def alone_in(home: Home) -> Iterator[None]:
    """Hold the lock of the directory itself, which nobody can delete from under its owner as they can a file in it.

    Raises:
        OwnedError: another process holds it; the text names its PID.
        DaemonError: if folders cannot be locked here.
    """
    try:
        handle = os.open(home.root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unusable(home.root, error) from error
    try:
        patience = time.monotonic() + 0.5
        while not _locked(handle, fcntl.LOCK_EX):
            if time.monotonic() > patience and _is_taken(handle):
                raise OwnedError(f"a daemon is already running on {home.root} (PID {_named(home)})")
            time.sleep(random.uniform(0.01, 0.05))
        yield
    finally:
        os.close(handle)


def daemon_in(home: Home) -> int | None:
    """PID of the daemon that owns the directory, 0 if that is unknown, or None if there is none."""
    found = owner(home.lock)
    if found is None and home.root.is_dir():
        handle = os.open(home.root, os.O_RDONLY)
        try:
            return 0 if _is_taken(handle) else None
        finally:
            os.close(handle)
    return found


def _named(home: Home) -> str:
    """PID of the owner: as its lock file has it, or where that was deleted, as it says itself."""
    try:
        return home.lock.read_text(encoding="ascii", errors="replace").strip() or "unknown"
    except OSError:
        with suppress(DaemonError):
            return str(ask(home.socket, "GET", "/status", timeout=2)["pid"])
        return "unknown"


def _take(handle: int, path: Path, what: str, seconds: float) -> None:
    patience = time.monotonic() + seconds
    try:
        while not _locked(handle, fcntl.LOCK_EX):
            if time.monotonic() > patience and _is_taken(handle):
                raise OwnedError(f"{what} is already running (PID {_pid(handle)}, lock {path})")
            time.sleep(random.uniform(0.01, 0.05))  # two that wait must not keep step
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> DaemonError:
    return DaemonError(f"{path}: cannot be locked ({error}); choose a local, writable disk with --home")


def _locked(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_taken(handle: int) -> bool:
    """Whether a process holds the lock for itself, and not only shares it in passing."""
    if not _locked(handle, fcntl.LOCK_SH):
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False


def _pid(handle: int) -> str:
    return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"


def owner(path: Path) -> int | None:
    """PID of the process that holds the lock file, or None if nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DaemonError(f"{path}: cannot be read ({error}); are you the owner of this state directory?") from error
    try:
        if not _is_taken(handle):
            return None
        text = _pid(handle)
        return int(text) if text.isdigit() else 0
    finally:
        os.close(handle)
