"""What a run leaves on the disk: counted while it runs, and cut to what other programs can handle when it is over."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

DEEPEST = 100
LONGEST_PATH = 3_000
PATIENCE_SECONDS = 2.0


@dataclass
class Use:
    """Allocated bytes and entries below a folder, and the folders that are too deep to go on."""

    size: int = 0
    entries: int = 0
    too_deep: list[str] = field(default_factory=list)


def use_of(root: Path, at_most_bytes: int, at_most_entries: int) -> Use:
    """Look through `root`, links not followed, until a bound is passed or two seconds are over."""
    use = Use()
    until = time.monotonic() + PATIENCE_SECONDS
    waiting = [(str(root), 0)]
    while waiting and use.size <= at_most_bytes and use.entries <= at_most_entries and time.monotonic() < until:
        folder, depth = waiting.pop()
        if depth > DEEPEST or len(folder) > LONGEST_PATH:
            use.too_deep.append(folder)
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    use.entries += 1
                    if use.entries > at_most_entries:
                        break
                    with suppress(OSError):
                        use.size += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append((entry.path, depth + 1))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                use.too_deep.append(folder)
    return use


def prune(use: Use) -> None:
    """Remove what is too deep: walking it would break `shutil.rmtree` and `Path.rglob`. Only when nothing runs there."""
    for folder in use.too_deep:
        while len(folder) > LONGEST_PATH:
            folder = os.path.dirname(folder)  # noqa: PTH120 - longer than a Path may be asked about
        subprocess.run(["rm", "-rf", "--", folder], stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
