"""What an attempt did, whoever made it: the same few kinds of action for every protocol and every agent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from agent.distil.foreign import Deed, deeds, refused, verdict
from agent.distil.sheets import Sheet, Sheets
from agent.errors import CallError
from agent.recalled import plain
from agent.session import NOT_DONE
from agent.turns import MAX_TURN_CHARS, Call, parse_call, parse_full
from memory.trajectories import Step, Trajectory

Kind = Literal["look", "search", "edit", "create", "delete", "test", "run", "submit", "other"]
MAX_SEEN = 100_000
_KINDS: Mapping[str, Kind] = {
    "map": "look",
    "view": "look",
    "diff": "look",
    "search": "search",
    "edit": "edit",
    "create": "create",
    "delete": "delete",
    "test": "test",
    "submit": "submit",
    "undo": "other",
}
_NUMBERED = re.compile(r" {0,8}(\d{1,7})[|→\t:](.*)")
_CUT = re.compile(r"\[\d+ (?:characters cut|lines)\]")
_CLIPPED = re.compile(r"… \[\d+ characters\]$")
_OPEN = re.compile(r"^\[File: (.{1,400}?) \(\d+ lines total\)\]$", re.MULTILINE)
_REPLACED = re.compile(r".{1,1000}?: (?:replaced|removed) (?:lines (\d{1,7})-(\d{1,7})|before line (\d{1,7}))")


@dataclass(frozen=True)
class Action:
    """One thing that was done, and what was seen in return.

    `old` and `new` are texts of an edit (`old` is empty where it is not known), `command` is what was run: the targets
    of a test run of this program's own. `ok` says that it did what it was to do; of tests, that they were seen to pass.
    """

    kind: Kind
    path: str = ""
    old: str = ""
    new: str = ""
    command: str = ""
    observation: str = ""
    ok: bool = False


@dataclass(frozen=True)
class Work:
    """All that an attempt did, in order, and the files as it left them."""

    done: list[Action] = field(default_factory=list)
    sheets: Sheets = field(default_factory=Sheets)


def actions(trajectory: Trajectory) -> list[Action]:
    """What an attempt did, in order; what cannot be read is `other` and not `ok`."""
    return work(trajectory).done


def work(trajectory: Trajectory) -> Work:
    """What an attempt did, and what became of the files."""
    found = Work()
    take = _foreign if trajectory.imported else _own
    for step in trajectory.steps:
        take(found, step, terse=not trajectory.system)
    return found


def _own(found: Work, step: Step, terse: bool) -> None:
    seen = plain(step.observation, MAX_SEEN)
    try:
        call = (parse_call if terse else parse_full)(plain(step.said, MAX_TURN_CHARS))
    except CallError:
        found.done.append(Action("other", observation=seen))
        return
    ok = not step.malformed and not seen.startswith(NOT_DONE)
    old = _carried_out(found.sheets, call, seen) if ok else call.old or ""
    found.done.append(
        Action(
            _KINDS[call.tool],
            call.within if call.tool == "search" else call.target,
            old,
            call.body,
            " ".join(call.targets) if call.tool == "test" else call.target if call.tool == "search" else "",
            seen,
            ok and (call.tool != "test" or step.tests_passed is True),
        )
    )


def _carried_out(sheets: Sheets, call: Call, seen: str) -> str:
    """Do to the sheets what was done to the files; returns the old text of an edit."""
    if call.tool == "view":
        sheets.of(call.target).reveal(shown(seen))
    elif call.tool == "edit":
        return sheets.change(call.target, lambda sheet: _edited(sheet, call, seen))
    elif call.tool == "create":
        sheets.change(call.target, lambda sheet: sheet.write(call.body.split("\n"), anew=True))
    elif call.tool == "delete":
        sheets.change(call.target, lambda sheet: sheet.write([]))
    elif call.tool == "undo":
        sheets.undo()
    return ""


def _edited(sheet: Sheet, call: Call, seen: str) -> str:
    new = call.body.split("\n") if call.body else []
    lines = shown(seen)
    start, end = call.start or 0, call.end or 0
    told = _REPLACED.match(seen)
    if told and told.group(1):
        start, end = int(told.group(1)), int(told.group(2))
    elif told:
        start, end = int(told.group(3)), int(told.group(3)) - 1
    elif call.old is not None and lines:
        start = min(lines)
        end = start + call.old.count("\n")
    if not start:
        sheet.replace(call.old or "", call.body)
        return call.old or ""
    if call.old is not None and end - start == call.old.count("\n"):
        sheet.reveal(dict(enumerate(call.old.split("\n"), start)) if not told or "; now" in seen[: told.end() + 5] else {})
    if told and "found nearly" in seen[: told.end() + 20] and lines:  # lines of the file may have been put between
        new = [lines.get(at, "") for at in range(start, max(lines) - 2)]
    old = sheet.splice(start, end, new)
    sheet.reveal(lines if told else {})
    return old or call.old or ""


def _foreign(found: Work, step: Step, terse: bool) -> None:
    seen = plain(step.observation, MAX_SEEN)
    made = deeds(step.said)
    if not made or step.malformed:
        found.done.append(Action("other", observation=seen))
    for deed in made if not step.malformed else ():
        ok = not refused(seen)
        if deed.kind == "test":
            ok = verdict(seen) if step.tests_passed is None else step.tests_passed
        if not deed.path and (deed.start or deed.kind == "look") and (opened := _OPEN.search(seen)):
            deed = replace(deed, path=opened.group(1))
        old = _put(found.sheets, deed, seen) if ok else deed.old
        found.done.append(Action(deed.kind, deed.path, old, deed.new, deed.command, seen, ok and deed.kind != "other"))


def _put(sheets: Sheets, deed: Deed, seen: str) -> str:
    if deed.kind == "look" and deed.path:
        sheet = sheets.of(deed.path)
        if sheet.before is None and not sheet.loose:  # a command may have changed it since, which no number tells
            sheet.reveal(shown(seen))
    elif deed.kind == "edit" and deed.start:
        return sheets.change(deed.path, lambda sheet: sheet.splice(deed.start, deed.end, deed.new.split("\n")))
    elif deed.kind == "edit" and (deed.old or deed.new):
        sheets.change(deed.path, lambda sheet: sheet.replace(deed.old, deed.new))
    elif deed.kind == "create":
        anew = not sheets.of(deed.path).now
        sheets.change(deed.path, lambda sheet: sheet.write(deed.new.removesuffix("\n").split("\n"), anew=anew))
    elif deed.kind == "delete":
        sheets.change(deed.path, lambda sheet: sheet.write([]))
    return deed.old


def shown(seen: str) -> dict[int, str]:
    """Lines that an observation shows with their numbers; where it was cut, its neighbours are left out."""
    found: dict[int, str] = {}
    last, doubtful = 0, False
    for line in seen.split("\n"):
        match = _NUMBERED.fullmatch(line)
        if match is None:
            if _CUT.fullmatch(line):
                found.pop(last, None)
                doubtful = True
            continue
        number, text = int(match.group(1)), match.group(2)
        if not doubtful and (not found or number > last) and not _CLIPPED.search(text):
            found[number] = text
        last, doubtful = number, False
    return found
