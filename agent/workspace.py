"""A workspace: the one directory an attempt may read and write.

Every attempt gets a fresh one. All access by path goes through `resolve`, which refuses
absolute paths, `..` and symbolic links that lead out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import CallError

MAX_FILE_BYTES = 1_000_000


@dataclass(frozen=True)
class Workspace:
    """`root` holds the files; `test_argv` runs the visible tests with `root` as its directory.

    `mounts` are host paths that the test command must be able to read (never write); `env` are variables
    it gets besides those of every sandboxed program.
    """

    root: Path
    test_argv: tuple[str, ...] = ()
    mounts: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, path: str) -> Path:
        """The file behind a model-written path.

        Raises:
            CallError: if it is absolute, climbs out, passes through a link, or is a directory.
        """
        try:
            relative = Path(path)
            if relative.is_absolute() or ".." in relative.parts or "\0" in path:
                raise CallError(f"{path!r} is outside the workspace; use a path as search shows it")
            target = self.root
            for part in relative.parts:
                target = target / part
                if target.is_symlink():
                    raise CallError(f"{path!r} goes through a symbolic link")
            if not target.is_file():
                raise CallError(f"no file {path[:200]!r}")
        except OSError as error:
            raise CallError(f"no file {path[:80]!r} ({error.strerror})") from error
        return target

    def read(self, path: str) -> str:
        """Exact text of a file: line ends are kept, bytes that are no UTF-8 become lone surrogates."""
        target = self.resolve(path)
        try:
            if target.stat().st_size > MAX_FILE_BYTES:
                raise CallError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
            return target.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise CallError(f"{path} cannot be read ({error.strerror})") from error

    def write(self, path: str, text: str) -> None:
        """Replace the text of an existing file; `read` gives back exactly what was written."""
        target = self.resolve(path)
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise CallError("the new text is not valid Unicode") from error
        if len(data) > MAX_FILE_BYTES:
            raise CallError(f"that would make {path} larger than {MAX_FILE_BYTES} bytes")
        try:
            target.write_bytes(data)
        except OSError as error:
            raise CallError(f"{path} cannot be written ({error.strerror})") from error

    def files(self) -> list[str]:
        """All regular files, as relative POSIX paths in sorted order; no links, no names that are not UTF-8."""
        found: list[str] = []
        waiting = [(str(self.root), "")]
        while waiting:
            folder, before = waiting.pop()
            with contextlib.suppress(OSError), os.scandir(folder) as entries:  # unreadable, or its path is too long
                for entry in entries:
                    name = before + entry.name
                    if entry.name == "__pycache__" or not entry.name.isprintable():
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, f"{name}/"))
                    elif entry.is_file(follow_symlinks=False):
                        found.append(name)
        return sorted(found)

    def snapshot(self) -> dict[str, str]:
        """Path to text of every file that can be read; what grading copies into its own clean directory."""
        texts: dict[str, str] = {}
        for name in self.files():
            with contextlib.suppress(CallError):  # too large or unreadable: no part of a solution
                texts[name] = self.read(name)
        return texts


def write_tree(root: Path, files: Mapping[str, str]) -> None:
    """Create `root` afresh with exactly these files."""
    if root.exists():
        remove_tree(root)
    for name, text in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode("utf-8", "surrogateescape"))


def remove_tree(root: Path) -> None:
    """Remove `root` and all below it, however deep a program has made it.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        shutil.rmtree(root)  # before Python 3.13 one call and one open folder for each level
    except (RecursionError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EMFILE, errno.ENAMETOOLONG):
            raise
        done = subprocess.run(["rm", "-rf", "--", root.absolute()], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise OSError(f"cannot remove {root}: {done.stderr.strip()[:300]}") from error
