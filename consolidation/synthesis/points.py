"""What an attempt did, read back from its turns: the calls that were carried out, and what it knew of files by then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from agent.errors import CallError
from agent.session import MALFORMED, NOT_DONE
from agent.turns import Call, parse_call, parse_full, render_call, render_full
from memory.trajectories import Step, Trajectory

CHANGES = frozenset({"edit", "create", "delete"})
SEEN = -1
Lines = Mapping[int, tuple[str, int]]
"""What is known of a file: its lines by number (from 1), each with the turn that wrote it (`SEEN` if it was there)."""
_NUMBERED = re.compile(r"(\d{1,7})\|(.*)")
_CUT = re.compile(r"\[\d+ characters cut\]")
_LONG = re.compile(r"… \[\d+ characters\]$")
_REPLACED = re.compile(r": (?:replaced|removed) lines (\d{1,7})-(\d{1,7})(?:; now)?$")
NO_MATCH = "no match"


@dataclass(frozen=True)
class Tongue:
    """The protocol that an attempt spoke: the full one if it was told of its tools, else the terse one."""

    full: bool

    def read(self, said: str) -> Call | None:
        """The call of a turn; None if it is none."""
        try:
            return parse_full(said) if self.full else parse_call(said)
        except (CallError, RecursionError):
            return None

    def say(self, call: Call) -> str:
        """The call alone, as a turn."""
        return render_full(call) if self.full else render_call(call)

    def explain(self, prose: str, call: Call) -> str:
        """The call behind some words, in a fence. Not every call can be read back from there: check it."""
        return f"{prose}\n\n{self.say(call)}" if self.full else f"{prose}\n```\n{self.say(call)}\n```"


def tongue_of(trajectory: Trajectory) -> Tongue:
    """See `Tongue`."""
    return Tongue(bool(trajectory.system))


@dataclass(frozen=True)
class Deed:
    """A call that was carried out in turn `turn` (from 0), and what it showed.

    `before` and `after` are what was known of its file around it. An edit replaced the lines `start` to `end` by `put`;
    `start` is 0 where that is not known. `changed` are the files that had been changed before it.
    """

    turn: int
    call: Call
    observation: str
    passed: bool | None = None
    before: Lines = field(default_factory=dict)
    after: Lines = field(default_factory=dict)
    start: int = 0
    end: int = 0
    put: tuple[str, ...] = ()
    changed: frozenset[str] = frozenset()

    @property
    def found(self) -> bool:
        """Whether a search found something."""
        return self.observation != NO_MATCH


def executed(step: Step, call: Call | None) -> bool:
    """Whether a turn was this call, and it was carried out."""
    refused = step.malformed or step.tool == MALFORMED or step.observation.startswith(NOT_DONE)
    return call is not None and not refused and step.tool == call.tool


def path_of(call: Call) -> str:
    """The path that a call names, in the spelling in which paths are compared."""
    return PurePosixPath(call.target).as_posix() if call.target else ""


class Desk:
    """Follows an attempt turn by turn: what it knows of each file, and what it has changed."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.known: dict[str, Lines] = {}
        self.changes: list[tuple[str, Lines]] = []

    @property
    def changed(self) -> frozenset[str]:
        """The files that differ from how the attempt found them, as far as edits go."""
        return frozenset(path for path, _ in self.changes)

    def take(self, turn: int, call: Call, step: Step) -> Deed:
        """Take in a call that was carried out."""
        path = path_of(call)
        before, changed = self.known.get(path, {}), self.changed
        start, end, put = 0, 0, tuple(call.body.split("\n")) if call.body else ()
        if call.tool == "view":
            self.known[path] = viewed(before, step.observation)
        elif call.tool == "edit":
            start, end = self._place(call, before, step.observation)
            self._change(path, replaced(before, start, end, put, turn) if start else {})
        elif call.tool == "create":
            self._change(path, {number: (line, turn) for number, line in enumerate(put, 1)})
        elif call.tool == "delete":
            self._change(path, {})
        elif call.tool == "undo" and self.changes:
            back, lines = self.changes.pop()
            self.known[back] = lines
        after = self.known.get(path, {})
        return Deed(turn, call, step.observation, step.tests_passed, before, after, start, end, put, changed)

    def _change(self, path: str, after: Lines) -> None:
        self.changes.append((path, self.known.get(path, {})))
        self.known[path] = after

    def _place(self, call: Call, before: Lines, observation: str) -> tuple[int, int]:
        """The lines that an edit replaced; 0 where it does not say so, or put others than it was given."""
        if self.full:
            told = _REPLACED.search(observation.partition("\n")[0])
            return (int(told.group(1)), int(told.group(2))) if told else (0, 0)
        if call.start is not None:
            return call.start, call.end or call.start
        return located(before, call)


def located(lines: Lines, call: Call) -> tuple[int, int]:
    """Where an edit would act in lines that are known; zeros if that cannot be told."""
    if call.start is not None:
        end = call.end or call.start
        return (call.start, end) if all(number in lines for number in range(call.start, end + 1)) else (0, 0)
    old = (call.old or "").split("\n")
    at = [n for n in lines if all(lines.get(n + i, (None, 0))[0] == line for i, line in enumerate(old))]
    return (at[0], at[0] + len(old) - 1) if len(at) == 1 else (0, 0)


def replaced(lines: Lines, start: int, end: int, put: tuple[str, ...], turn: int) -> Lines:
    """Lines after `start` to `end` were replaced."""
    shift = len(put) - (end - start + 1)
    moved = {n + shift if n > end else n: line for n, line in lines.items() if not start <= n <= end}
    return moved | {start + offset: (line, turn) for offset, line in enumerate(put)}


def viewed(lines: Lines, observation: str) -> Lines:
    """Lines with those that an observation shows; lines that were cut are not known."""
    shown: dict[int, tuple[str, int]] = {}
    texts = observation.split("\n")
    for at, text in enumerate(texts):
        cut = any(_CUT.fullmatch(near) for near in texts[max(0, at - 1) : at + 2])
        match = _NUMBERED.fullmatch(text)
        if match and not cut and not _LONG.search(text):
            number, line = int(match.group(1)), match.group(2)
            shown[number] = (line, lines[number][1] if lines.get(number, ("", 0))[0] == line and number in lines else SEEN)
    return {**lines, **shown}


def deeds_of(trajectory: Trajectory, until: int | None = None) -> tuple[list[Deed], Desk]:
    """The calls of the first `until` turns that were carried out, and where they led."""
    tongue = tongue_of(trajectory)
    desk = Desk(tongue.full)
    deeds = [
        desk.take(turn, call, step)
        for turn, step in enumerate(trajectory.steps[:until])
        if (call := tongue.read(step.said)) is not None and executed(step, call)
    ]
    return deeds, desk


def lasting(deeds: list[Deed], desk: Desk) -> list[Deed]:
    """The changes that stand at the end: neither taken back nor written over."""
    open_: list[Deed] = []
    for deed in deeds:
        if deed.call.tool == "undo" and open_:
            open_.pop()
        elif deed.call.tool in CHANGES:
            open_.append(deed)
    return [deed for number, deed in enumerate(open_) if _stands(deed, open_[number + 1 :], desk)]


def _stands(deed: Deed, later: list[Deed], desk: Desk) -> bool:
    path = path_of(deed.call)
    again = any(path_of(other.call) == path for other in later)
    if not again:
        return True
    left = sum(turn == deed.turn for _, turn in desk.known.get(path, {}).values())
    return deed.call.tool == "edit" and bool(deed.start) and left == len(deed.put) > 0
