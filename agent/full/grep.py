"""A program, started by `agent.full.search`: which lines of which files match a regular expression.

A pattern can take for ever, and nothing in this process could stop it; so it runs in one that can be killed. Standard
input is one JSON object: `pattern`, `files` (relative paths), `at_most` (bytes of a file). Each line of output is the
number of a file and those of its lines (from 1). Only the standard library is here: it starts isolated, in 20 ms.
"""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import sys
from contextlib import suppress

MEMORY_BYTES = 2**30
MAX_LINES = 1_000


def read(path: str, at_most: int) -> bytes:
    """The bytes of a regular file, through no link; nothing if it is binary, too large, or not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with suppress(OSError), os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_size <= at_most:
            data = file.read(at_most)
            return b"" if b"\0" in data[:8192] else data
    return b""


def main() -> int:
    """2 if the pattern is none."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    asked = json.loads(sys.stdin.buffer.read())
    pattern = asked["pattern"]
    try:
        wanted = re.compile(pattern)
        plain = "(?" not in pattern and "\\A" not in pattern and "\\Z" not in pattern
        quick = re.compile(pattern, re.MULTILINE) if plain else None
    except (re.error, OverflowError, RecursionError, MemoryError, ValueError):
        return 2
    for index, path in enumerate(asked["files"]):
        text = read(path, asked["at_most"]).decode("utf-8", "surrogateescape")
        if not text or (quick and not quick.search(text)):
            continue
        lines = text.removesuffix("\n").split("\n")
        hits = [number for number, line in enumerate(lines, start=1) if wanted.search(line)]
        if hits:
            print(index, *hits[:MAX_LINES], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
