"""Files as an attempt saw and changed them: put together from views and edits, without a workspace.

A line that was never seen is a token (NUL and a number, which no text here holds), so that it is equal to itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from functools import lru_cache

MAX_LINES = 10_000
MAX_FILES = 200
MAX_LOOSE = 200
MAX_COMPARED = 1_000
_DEFINES = re.compile(
    r"(\s*)(?:(?:pub|export|default|public|private|protected|static|async|abstract|final|unsafe)\s+)*"
    r"(?:class|def|fn|func|function|struct|enum|trait|impl|interface|module)\s+([^\W\d]\w*)"
)


@dataclass
class Sheet:
    """One file: its lines `now`, what they were before the first change (`None`: not changed), and what is `loose`.

    Loose changes are pairs of old and new text of which it is not known where in the file they are.
    """

    now: list[str] = field(default_factory=list)
    before: list[str] | None = None
    known: dict[str, str] = field(default_factory=dict)
    loose: list[tuple[str, str]] = field(default_factory=list)
    tokens: int = 0
    limit: int = MAX_LINES

    def reveal(self, lines: Mapping[int, str]) -> None:
        """Lines as they were shown, by number (from 1)."""
        for number, line in lines.items():
            if 0 < number <= self.limit:
                self._reach(number)
                there = self.now[number - 1]
                if there.startswith("\0"):
                    self.known[there] = line
                else:
                    self.now[number - 1] = line

    def splice(self, start: int, end: int, new: Sequence[str]) -> str:
        """Put lines in the place of others; returns the old text as far as it is known."""
        if not 0 < start <= self.limit or end > self.limit:
            return ""
        self._reach(max(start - 1, end))
        self._changing()
        old = self.now[start - 1 : end]
        self.now[start - 1 : end] = new
        return "\n".join(self.text(line) for line in old)

    def replace(self, old: str, new: str) -> None:
        """Put text in the place of another, where it is known; else it is kept as a loose change."""
        lines = [self.text(line, line) for line in self.now]
        whole = "\n".join(lines)
        if old and whole.count(old) == 1:
            at = whole.index(old)
            first, last = whole.count("\n", 0, at), whole.count("\n", 0, at + len(old))
            head, tail = whole[:at].rpartition("\n")[2], whole[at + len(old) :].partition("\n")[0]
            self.splice(first + 1, last + 1, f"{head}{new}{tail}".split("\n") if head + new + tail else [])
            return
        for number, (was, became) in enumerate(self.loose):
            if old and old in became:
                self.loose[number] = (was, became.replace(old, new, 1))
                return
        if len(self.loose) < MAX_LOOSE:
            self.loose.append((old, new))

    def write(self, lines: Sequence[str], *, anew: bool = False) -> None:
        """All of its lines at once; `anew` where there was no such file."""
        if anew and self.before is None:
            self.before = []
        self._changing()
        self.now, self.loose = list(lines)[: self.limit], []

    def edits(self) -> tuple[list[str], list[str]]:
        """Lines before and after, as far as they are known (tokens where not)."""
        before = self.now if self.before is None else self.before
        return [self.text(line, line) for line in before], [self.text(line, line) for line in self.now]

    def text(self, line: str, unknown: str = "") -> str:
        """A line, or what stands for it where it was never seen."""
        return self.known.get(line, unknown) if line.startswith("\0") else line

    def symbol(self, number: int) -> str:
        """The class or function that the line (from 1) of the present text is in, as far as it was seen."""
        lines = [self.text(line) for line in self.now]
        return symbol_at(lines, number)

    def _reach(self, number: int) -> None:
        for _ in range(len(self.now), number):
            self.tokens += 1
            self.now.append(_token(self.tokens))
            if self.before:
                self.before.append(self.now[-1])

    def _changing(self) -> None:
        if self.before is None:
            self.before = list(self.now)


@dataclass
class Sheets:
    """All files of an attempt by path, and the way back of each change (of the full toolkit's `undo`)."""

    files: dict[str, Sheet] = field(default_factory=dict)
    _undo: list[tuple[str, Sheet]] = field(default_factory=list)

    def of(self, path: str) -> Sheet:
        """The sheet of a file; of one too many, one that is not kept."""
        return self.files.setdefault(path, Sheet()) if path in self.files or len(self.files) < MAX_FILES else Sheet(limit=0)

    def change(self, path: str, how: Callable[[Sheet], str | None]) -> str:
        """Change a file; it can be taken back. Returns what `how` does."""
        sheet = self.of(path)
        kept = replace(sheet, now=list(sheet.now), before=sheet.before and list(sheet.before), loose=list(sheet.loose))
        self._undo = [*self._undo[-99:], (path, kept)]
        return how(sheet) or ""

    def undo(self) -> None:
        """Take the last change back."""
        if self._undo:
            path, sheet = self._undo.pop()
            self.files[path] = sheet


@lru_cache(maxsize=4 * MAX_LINES)
def _token(number: int) -> str:
    return f"\0{number}"


def span(old: Sequence[str], new: Sequence[str]) -> tuple[int, int, int, int] | None:
    """Start and end (from 0, exclusive) in both texts of the one edit between them; `None` if they are equal.

    A pure insertion takes the following line of its block along (or the one before it), as in a call of `edit`.
    """
    blocks = changes(old, new)
    if not blocks:
        return None
    start, new_start = blocks[0][0], blocks[0][2]
    end, new_end = blocks[-1][1], blocks[-1][3]
    if start == end:
        if start == 0 or (end < len(old) and old[end].strip()):
            end, new_end = end + 1, new_end + 1
        else:
            start, new_start = start - 1, new_start - 1
    return start, end, new_start, new_end


def changes(old: Sequence[str], new: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """The blocks of lines that differ: start and end in both. Of long texts the like ends are not compared."""
    head = tail = 0
    if max(len(old), len(new)) > MAX_COMPARED:
        least = min(len(old), len(new))
        while head < least and old[head] == new[head]:
            head += 1
        while tail < least - head and old[-1 - tail] == new[-1 - tail]:
            tail += 1
    a, b = old[head : len(old) - tail], new[head : len(new) - tail]
    if max(len(a), len(b)) > MAX_COMPARED:
        return [(head, len(old) - tail, head, len(new) - tail)]
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return [(i + head, j + head, k + head, m + head) for kind, i, j, k, m in blocks if kind != "equal"]


def symbol_at(lines: Sequence[str], number: int) -> str:
    """The name of the class or function that a line (from 1) is in, by indentation; empty if none is seen."""
    number = min(number, len(lines))
    line = next((text for text in lines[max(0, number - 1) :] if text.strip()), "")
    depth = len(line) - len(line.lstrip())
    for at in range(number - 1, -1, -1):
        if head := _DEFINES.match(lines[at][:300]):
            if at == number - 1 or len(head.group(1)) < depth:
                return head.group(2)[:80]
        elif lines[at].strip():
            depth = min(depth, len(lines[at]) - len(lines[at].lstrip()))
    return ""
