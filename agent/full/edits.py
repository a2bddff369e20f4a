"""Changes to files, each of which can be taken back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import CallError
from agent.full.files import create, named, remove_folders, text_of
from agent.full.matching import Match, match
from agent.full.syntax import broken
from agent.full.view import window
from agent.tools import around, lines_of
from agent.turns import Call
from agent.workspace import Workspace

DEEP = 100
AROUND = 3
MAX_SHOWN = 60


@dataclass(frozen=True)
class Change:
    """What a file was before a change (`None`: not there), and the folders that were made for it."""

    path: str
    before: str | None
    folders: tuple[Path, ...] = ()


@dataclass
class Desk:
    """The changes of one attempt, the last one on top."""

    workspace: Workspace
    done: list[Change] = field(default_factory=list)
    edited: set[str] = field(default_factory=set)

    def edit(self, call: Call) -> str:
        """Replace lines by range or by quoted text; shows them as they are now.

        Raises:
            CallError: the place is not found, or the file would be broken; nothing was changed.
        """
        path = named(self.workspace, call.target)
        before = text_of(self.workspace, path)
        lines = before.removesuffix("\n").split("\n")
        new = call.body.split("\n") if call.body else []
        found = self._found(path, lines, call, new)
        there = lines[found.start - 1 : found.end]
        carriage = "\r" if sum(line.endswith("\r") for line in there or lines) * 2 > len(there or lines) else ""
        put = [f"{line.removesuffix(carriage)}{carriage}" for line in found.new]
        if there == put:
            raise CallError(f"these lines already read so; nothing was changed\n{_around(lines, found)}")
        edited = [*lines[: found.start - 1], *put, *lines[found.end :]]
        after = "\n".join(edited) + ("\n" if edited and (before.endswith("\n") or not before) else "")
        if (error := broken(path, after)) and not broken(path, before):
            raise CallError(f"{error}; nothing was changed. The lines are\n{_around(lines, found)}")
        self.workspace.write(path, after)
        self._note(Change(path, before))
        what = f"lines {found.start}-{found.end}" if there else f"before line {found.start}"
        head = f"{path}: replaced {what}" if put else f"{path}: removed {what}"
        gone = [f"-{line.removesuffix(carriage)}" for line in there] if found.how != "exactly" else []
        return "\n".join(
            [
                head + (f", found {found.how}; they were" if gone else "; now"),
                *_middle_cut(gone),
                *(["now"] if gone else []),
                *_middle_cut(
                    window(edited, max(1, found.start - AROUND), min(len(edited), found.start - 1 + len(put) + AROUND))
                ),
            ]
        )

    def _found(self, path: str, lines: list[str], call: Call, new: list[str]) -> Match:
        if call.old is not None:
            plain = [line.removesuffix("\r") for line in lines]
            return match(plain, call.old.split("\n"), new)
        start, end = call.start or 1, call.end or 1
        if end > len(lines):
            raise CallError(
                f"{path} has {len(lines)} lines; to add some at the end, replace the last one by it and the new ones"
            )
        return Match(start, end, new, "exactly")

    def create(self, path: str, body: str) -> str:
        """Make a file of these lines.

        Raises:
            CallError: it is there, may not be, or cannot be parsed; nothing was made.
        """
        text = f"{body}\n" if body else ""
        if error := broken(path, text):
            raise CallError(f"{error}; the file was not made")
        folders = create(self.workspace, path, text)
        self._note(Change(Path(path).as_posix(), None, tuple(folders)))
        return f"{path}: made, {len(lines_of(text)) if text else 0} lines"

    def delete(self, path: str) -> str:
        """Remove a text file.

        Raises:
            CallError: there is none.
        """
        path = named(self.workspace, path)
        before = text_of(self.workspace, path)
        try:
            self.workspace.resolve(path).unlink()
        except OSError as error:
            raise CallError(f"{path} cannot be removed ({error.strerror})") from error
        self._note(Change(path, before))
        return f"{path}: removed"

    def undo(self) -> str:
        """Take the last change back.

        Raises:
            CallError: there is none (any more), or its place is gone.
        """
        if not self.done:
            raise CallError("nothing to undo")
        last = self.done[-1]
        if last.before is None:
            with suppress(CallError, OSError):
                self.workspace.resolve(last.path).unlink()
            remove_folders(self.workspace, last.folders)
            told = "removed again"
        elif (self.workspace.root / last.path).is_file():
            self.workspace.write(last.path, last.before)
            told = "as it was before the last edit"
        else:
            create(self.workspace, last.path, last.before)
            told = "there again"
        self.done.pop()
        return f"{last.path}: {told}; {len(self.done)} earlier changes left"

    def _note(self, change: Change) -> None:
        self.done = [*self.done, change][-DEEP:]
        self.edited.add(change.path)


def _around(lines: list[str], found: Match) -> str:
    return around([line.removesuffix("\r") for line in lines], found.start, found.end)


def _middle_cut(lines: list[str]) -> list[str]:
    if len(lines) <= MAX_SHOWN:
        return lines
    half = MAX_SHOWN // 2
    return [*lines[:half], f"[{len(lines) - 2 * half} lines]", *lines[-half:]]
