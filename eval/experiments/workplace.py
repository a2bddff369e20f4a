"""Where a process works that may be killed: a folder of its own, and an end to what others left behind."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def workplace(parent: Path, name: str) -> Iterator[Path]:
    """A new, empty folder in `parent`, locked while it is worked in and gone afterwards.

    First the folders there that nobody holds are deleted: those of processes that died. The lock tells which they are and
    not a PID, for processes of other machines and containers may work in the same `parent`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    work = parent / name
    with ExitStack() as held:
        with _locked(parent, wait=True):  # nobody sweeps between the making of a folder and its lock
            for left in parent.iterdir():
                with _locked(left) as free:
                    if free:
                        shutil.rmtree(left, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            held.enter_context(_locked(work))
        held.callback(shutil.rmtree, work, ignore_errors=True)
        yield work


@contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Whether the lock of a folder could be had; False also where there is no folder, or its file system has no locks."""
    handle = -1
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        got = True
    except OSError:
        got = False
    try:
        yield got
    finally:
        if handle >= 0:
            os.close(handle)
