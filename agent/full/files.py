"""What files there are, which of them matter, and new ones: all within a workspace, through no link."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from agent.errors import CallError
from agent.full.grep import read
from agent.workspace import MAX_FILE_BYTES, Workspace

MAX_FILES = 100_000
MAX_DEPTH = 40
MAX_NEAR = 4
_CACHES = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox", ".nox", ".eggs"}
)
_GIT = re.compile(r"\.git[ .]*|git~\d+", re.IGNORECASE)
_VENDORED = re.compile(
    r"(^|/)(vendor(ed)?|_vendor|third_?party|extern(al|s)?|node_modules|site-packages|\.venv|venv|build|dist|generated|locale)/"
    r"|[.-]min\.(js|css)$|\.(lock|map|svg|po|pot)$|(^|/)package-lock\.json$"
)
_TESTS = re.compile(
    r"(^|/)(tests?|testing|spec|fixtures|testdata)/|(^|/)(test_[^/]*|conftest\.py|[^/]*[._]test\.\w+)$", re.IGNORECASE
)
SOURCE = re.compile(
    r"\.(pyi?|pyx|pxd|rs|go|c|h|cc|cpp|hpp|cxx|hh|m|mm|java|kt|scala|swift|cs|rb|php|pl|lua|jl|r|[cm]?[jt]sx?|vue|sh|ex|exs|erl|hs|ml)$",
    re.IGNORECASE,
)


def walk(workspace: Workspace, folder: str = "") -> list[str]:
    """Regular files below a folder, as relative POSIX paths in sorted order: no links, no caches, no unprintable names."""
    found: list[str] = []
    waiting = [(str(workspace.root / folder), f"{folder}/" if folder else "", 0)]
    while waiting and len(found) < MAX_FILES:
        where, prefix, depth = waiting.pop()
        with suppress(OSError), os.scandir(where) as entries:
            for entry in entries:
                if not entry.name.isprintable() or entry.name in _CACHES:
                    continue
                if entry.is_file(follow_symlinks=False):
                    found.append(prefix + entry.name)
                elif depth < MAX_DEPTH and entry.is_dir(follow_symlinks=False):
                    waiting.append((entry.path, f"{prefix}{entry.name}/", depth + 1))
    return sorted(found)


def rank(path: str) -> int:
    """How much a file matters: 0 source, 1 its tests, 2 other text, 3 what others wrote or a program did."""
    if _VENDORED.search(path):
        return 3
    if _TESTS.search(path):
        return 1
    return 0 if SOURCE.search(path) else 2


def folder_of(workspace: Workspace, path: str) -> str | None:
    """The folder that a model-written path names, normalised (the top is empty); `None` if it is no folder."""
    parts = PurePosixPath(path).parts
    if path.startswith("/") or ".." in parts or "\0" in path:
        return None
    target = workspace.root
    try:
        for part in parts:
            target = target / part
            if target.is_symlink():
                return None
        return "/".join(parts) if target.is_dir() else None
    except OSError:
        return None


def named(workspace: Workspace, path: str) -> str:
    """The file that a model-written path names, as `walk` spells it.

    Raises:
        CallError: it is none; with the nearest ones.
    """
    try:
        workspace.resolve(path)
    except CallError as error:
        name = PurePosixPath(path).name
        near = [file for file in walk(workspace) if name and PurePosixPath(file).name == name]
        near.sort(key=lambda file: (not path.endswith(file), rank(file), file))
        hint = f"; there is {', '.join(near[:MAX_NEAR])}" if near else ""
        if folder_of(workspace, path) is not None:
            hint = "; it is a folder: map it"
        raise CallError(f"{error}{hint}") from error
    return PurePosixPath(path).as_posix()


def raw(workspace: Workspace, path: str) -> bytes:
    """The bytes of a file of `walk`, or nothing if it is binary, too large, or no file any more."""
    return read(str(workspace.root / path), MAX_FILE_BYTES)


def text_of(workspace: Workspace, path: str) -> str:
    """The text of a file as `Workspace.read` gives it.

    Raises:
        CallError: there is none, or it is binary.
    """
    text = workspace.read(named(workspace, path))
    if "\0" in text[:8192]:
        raise CallError(f"{path} is binary")
    return text


def create(workspace: Workspace, path: str, text: str) -> list[Path]:
    """Make a new file and the folders it needs; gives the folders that are new.

    Raises:
        CallError: it is there already, or its place is none: outside, behind a link, in a git directory.
    """
    parts = PurePosixPath(path).parts
    if path.startswith("/") or not parts or ".." in parts or not path.isprintable() or path.endswith("/"):
        raise CallError(f"{path[:200]!r} is no path of a new file; give one relative to the repository")
    if len(parts) > MAX_DEPTH or any(_GIT.fullmatch(part) for part in parts):
        raise CallError(f"{path[:200]!r} may not be made")
    try:
        data = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise CallError("the text is not valid Unicode") from error
    if len(data) > MAX_FILE_BYTES:
        raise CallError(f"{path} would be larger than {MAX_FILE_BYTES} bytes")
    target, made = workspace.root, list[Path]()
    try:
        for part in parts[:-1]:
            target = target / part
            if target.is_symlink():
                raise CallError(f"{path!r} goes through a symbolic link")
            if not target.exists():
                target.mkdir()
                made.append(target)
        descriptor = os.open(target / parts[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except FileExistsError as error:
        raise CallError(f"{path} is there already; edit it") from error
    except OSError as error:
        remove_folders(workspace, made)
        raise CallError(f"{path[:200]} cannot be made ({error.strerror})") from error
    return made


def remove_folders(workspace: Workspace, made: Sequence[Path]) -> None:
    """Remove folders that `create` made, the deepest first, as far as they are empty and still reached through no link."""
    for folder in reversed(made):
        if folder_of(workspace, folder.relative_to(workspace.root).as_posix()) is not None:
            with suppress(OSError):
                folder.rmdir()
