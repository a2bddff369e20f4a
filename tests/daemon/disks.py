"""Small file systems of their own, for tests: full, or read-only."""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def fill(file: Path) -> None:
    """Let a file grow until its file system is full."""
    with contextlib.suppress(OSError), file.open("ab", buffering=0) as ballast:
        while ballast.write(b"\0" * 4096):
            pass


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at `folder`; skips the test where none can be mounted."""
    name = f"test-{uuid.uuid4().hex}"
    folder.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", options, name, str(folder)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount program")
    if made.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        # Looked up by its name: it moves with the folders above it.
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in (place for source, place, *_ in mounts if source == name):
            subprocess.run(["umount", "--lazy", place], check=True)
