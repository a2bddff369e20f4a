"""The net change of an attempt: what it left changed, file by file, and how that is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath

from agent.distil.actions import Action, Work
from agent.distil.sheets import changes, span, symbol_at
from agent.full.files import rank
from agent.recalled import plain

MAX_WHERE = 8
MAX_FILES = 20
_ABSOLUTE = ("/", "~/")
_ELSEWHERE = ("/tmp/", "/var/", "/etc/", "/usr/", "/opt/", "/dev/")


@dataclass(frozen=True)
class Change:
    """The net change of one file: its lines before and after (tokens for what was never seen), and loose text."""

    path: str
    before: list[str]
    after: list[str]
    loose: tuple[tuple[str, str], ...] = ()


def net_of(done: Work, root: str = "") -> list[Change]:
    """Files that the attempt left changed, sources first, then in order of their paths below `root`."""
    found = []
    for path, sheet in done.sheets.files.items():
        before, after = sheet.edits()
        loose = tuple((old, new) for old, new in sheet.loose if old != new)
        away = path.startswith(_ABSOLUTE) and not _inside(path, root)
        if path and not away and (before != after or loose):
            found.append(Change(plain(below(path, root), 200), before, after, loose))
    return sorted(found, key=lambda change: (rank(change.path), change.path))[:MAX_FILES]


def body(change: Change) -> str:
    """The new lines of the one edit that makes the change."""
    at = span(change.before, change.after)
    new = [line for line in change.after[at[2] : at[3]] if not line.startswith("\0")] if at else []
    return "\n".join([*new, *(text for _, text in change.loose)])


def diff(net: Sequence[Change]) -> str:
    """All changed lines with `-` and `+`, below their paths where there are several files."""
    lines: list[str] = []
    for change in net:
        lines += [f"{change.path}:"] if len(net) > 1 else []
        for start, end, new_start, new_end in changes(change.before, change.after):
            lines += [f"- {line}" for line in change.before[start:end] if not line.startswith("\0")]
            lines += [f"+ {line}" for line in change.after[new_start:new_end] if not line.startswith("\0")]
        for old, new in change.loose:
            gone, come = trimmed(old, new)
            lines += [*(f"- {line}" for line in gone), *(f"+ {line}" for line in come)]
    return "\n".join(lines)


def trimmed(old: str, new: str) -> tuple[list[str], list[str]]:
    """Lines of a replacement that differ."""
    gone, come = old.split("\n") if old else [], new.split("\n") if new else []
    blocks = changes(gone, come)
    return [line for a, b, _, _ in blocks for line in gone[a:b]], [line for _, _, c, d in blocks for line in come[c:d]]


def places_of(net: Sequence[Change]) -> tuple[str, ...]:
    """Where the changes are: "path:symbol", or the path where no class or function is seen."""
    found: list[str] = []
    for change in net:
        after = ["" if line.startswith("\0") else line for line in change.after]
        names = [symbol_at(after, start + 1) for _, _, start, _ in changes(change.before, change.after)]
        names += [symbol_at([*new.split("\n")], 1) for _, new in change.loose]
        found += [f"{change.path}:{name}" for name in names if name] or [change.path]
    return tuple(dict.fromkeys(found))[:MAX_WHERE]


def shape_of(net: Sequence[Change]) -> str:
    """How large a change is, in words: "1 file, +3 -1"."""
    if not net:
        return ""
    plus = minus = 0
    for change in net:
        for start, end, new_start, new_end in changes(change.before, change.after):
            minus, plus = minus + end - start, plus + new_end - new_start
        for old, new in change.loose:
            gone, come = trimmed(old, new)
            minus, plus = minus + len(gone), plus + len(come)
    return f"{len(net)} file{'' if len(net) == 1 else 's'}, +{plus} -{minus}"


def root_of(done: Sequence[Action]) -> str:
    """The folder that another agent worked in, where it named files by absolute paths: no path of a machine is kept."""
    named = [action.path for action in done if action.path.startswith(_ABSOLUTE)]
    parents = [PurePosixPath(path).parent.parts for path in named if not path.startswith(_ELSEWHERE)]
    went = re.findall(r"(?:^|[;&\n])\s{0,8}cd ([/~][\w./~-]{1,200})", "\n".join(action.command for action in done)[:50_000])
    for folder in went:
        parts = PurePosixPath(folder).parts
        if parents and 2 * sum(place[: len(parts)] == parts for place in parents) > len(parents):
            return str(PurePosixPath(folder))
    common = [names[0] for names in takewhile(lambda names: len(set(names)) == 1, zip(*parents, strict=False))]
    if parents and len(set(parents)) == 1:
        common = common[: max(1, len(common) - 1)]
    return str(PurePosixPath(*common)) if common else ""


def below(path: str, root: str) -> str:
    """A path within the folder that was worked in; of one outside it the name alone."""
    if _inside(path, root):
        return path[len(root.rstrip("/")) + 1 :]
    return PurePosixPath(path).name if path.startswith(_ABSOLUTE) else path


def _inside(path: str, root: str) -> bool:
    return bool(root) and path.startswith(f"{root.rstrip('/')}/")
