"""Merged fixes of tasks that are over, told as the agent's own turns (never as a raw diff)."""

from __future__ import annotations

import difflib
from typing import Literal

from agent.turns import Call
from memory.tasks import MergedFix

EditStyle = Literal["lines", "quoted"]


def edit_between(path: str, before: str, after: str, style: EditStyle = "lines") -> Call:
    """The one edit that turns `before` into `after`.

    All changes are covered by a single range. A pure insertion takes the following line of the
    same block along (or the one before it at the end of a block), because a range is never empty.

    Raises:
        ValueError: if the two texts are equal.
    """
    old, new = before.splitlines(), after.splitlines()
    blocks = [b for b in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if b[0] != "equal"]
    if not blocks:
        raise ValueError(f"{path}: the fix changes nothing")
    start, end = blocks[0][1], blocks[-1][2]
    new_start, new_end = blocks[0][3], blocks[-1][4]
    if start == end:
        if start == 0 or (end < len(old) and old[end].strip()):
            end, new_end = end + 1, new_end + 1
        else:
            start, new_start = start - 1, new_start - 1
    if style == "lines":
        return Call("edit", path, start + 1, end, body="\n".join(new[new_start:new_end]))
    while "\n".join(old).count("\n".join(old[start:end])) > 1 and start > 0:
        start, new_start = start - 1, new_start - 1
    return Call("edit", path, old="\n".join(old[start:end]), body="\n".join(new[new_start:new_end]))


def calls_for(fix: MergedFix, style: EditStyle = "lines") -> list[Call]:
    """How an agent that knows the answer would work: search, view, edit, test, submit."""
    return [
        Call("search", fix.symbol),
        Call("view", fix.path),
        edit_between(fix.path, fix.before, fix.after, style),
        Call("test"),
        Call("submit"),
    ]
