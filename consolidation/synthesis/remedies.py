"""Where a failed attempt could have been put right: the call of the success that could have been made there.

Calls are compared by what they do to the lines that are known of a file, so that none is proposed where its file had
been changed already, or had not been seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from agent.model import Message
from agent.shown import opening, shown
from agent.turns import Call
from consolidation.synthesis.forms import failure, told
from consolidation.synthesis.points import CHANGES, Deed, Desk, Lines, executed, located, path_of, replaced, tongue_of
from memory.trajectories import Trajectory

LIKELY = 0.5
"""Confidence that a turn was a mistake where no more is known than that its attempt failed, and a success went another way."""


@dataclass(frozen=True)
class Better:
    """After `before` (ending on turn `turn` of the failed attempt), `said` would have been better than `instead`."""

    turn: int
    before: tuple[Message, ...]
    said: str
    instead: str = ""
    confidence: float = 1.0


def comparable(taught: Trajectory, failed: Trajectory) -> bool:
    """Whether two attempts were told the same."""
    return taught.task_id == failed.task_id and opening(taught) == opening(failed)


def at_wrong_change(right: Sequence[Deed], failed: Trajectory) -> Better | None:
    """The first change that the success did not make, and the one that it did, if that could have been made there."""
    tongue = tongue_of(failed)
    desk = Desk(tongue.full)
    for turn, step in enumerate(failed.steps):
        call = tongue.read(step.said)
        if call is not None and call.tool in CHANGES and not any(_same(call, deed, desk) for deed in right):
            remedy = next((deed for deed in right if sayable(deed, desk)), None)
            if remedy is None or tongue.read(tongue.say(remedy.call)) != remedy.call:
                return None
            return Better(turn, tuple(shown(failed, turn)), tongue.say(remedy.call), tongue.say(call))
        if call is not None and executed(step, call):
            desk.take(turn, call, step)
    return None


def at_parting(taught: Trajectory, right: Sequence[Deed], deeds: Sequence[Deed], failed: Trajectory) -> Better | None:
    """The first turn in which two attempts differ after the same conversation."""
    pairs = zip(taught.steps, failed.steps, strict=False)
    turn = sum(1 for _ in takewhile(lambda p: (p[0].said, p[0].observation) == (p[1].said, p[1].observation), pairs))
    deed = next((deed for deed in deeds if deed.turn == turn), None)
    if deed is None or turn >= len(failed.steps) or not (deed.call.tool not in (*CHANGES, "undo") or deed in right):
        return None
    said, instead = taught.steps[turn].said, failed.steps[turn].said
    call = tongue_of(failed).read(instead)
    if not instead.strip() or any(call == other.call for other in deeds):  # the success said it too, sooner or later
        return None
    return Better(turn, tuple(shown(failed, turn)), said, instead, LIKELY)


def after_failures(right: Sequence[Deed], failed: Trajectory) -> list[Better]:
    """Each observation of a failure, a diagnosis made of it, and the change that mends it there."""
    tongue = tongue_of(failed)
    desk = Desk(tongue.full)
    found: list[Better] = []
    for turn, step in enumerate(failed.steps):
        call = tongue.read(step.said)
        if call is not None and executed(step, call):
            desk.take(turn, call, step)
            if step.tests_passed is not False:
                continue
        if not (why := failure(step.observation)):
            continue
        remedy = next((deed for deed in right if _mends(deed, desk)), None)
        if remedy is not None:
            diagnosis = f"That did not work: {why}. {told(remedy, desk.known.get(path_of(remedy.call), {}))}"
            said = tongue.explain(diagnosis, remedy.call)
            if tongue.read(said) == remedy.call:
                found.append(Better(turn, tuple(shown(failed, turn + 1)), said))
    return found


def sayable(deed: Deed, desk: Desk) -> bool:
    """Whether a change that a success made to an untouched file could be made at another desk: there the file is untouched
    too, and the same lines of it had been seen."""
    path = path_of(deed.call)
    if path in deed.changed or path in desk.changed:
        return False
    if deed.call.tool == "create":
        return path not in desk.known
    known = desk.known.get(path, {})
    if deed.call.tool == "delete":
        return bool(known)
    return _fits(deed, known)


def _fits(deed: Deed, known: Lines) -> bool:
    """Whether an edit would act on the same lines, and in the same surroundings as far as they are known."""
    place = located(known, deed.call)
    if not place[0] or (deed.start and place != (deed.start, deed.end)):
        return False
    around = range(place[0] - 1, place[1] + 2)
    return all(known[n][0] == deed.before[n][0] for n in around if n in known and n in deed.before)


def _same(call: Call, deed: Deed, desk: Desk) -> bool:
    """Whether a call does what a deed did."""
    if (call.tool, path_of(call), call.body) != (deed.call.tool, path_of(deed.call), deed.call.body):
        return False
    place = located(desk.known.get(path_of(call), {}), call)
    return call == deed.call or (place == (deed.start, deed.end) and place[0] > 0)


def _mends(deed: Deed, desk: Desk) -> bool:
    """Whether a change, made now, leaves what it left in the success: nothing of the failure stays behind."""
    path = path_of(deed.call)
    if not desk.changed:
        return sayable(deed, desk)
    if desk.changed != {path} or deed.call.tool != "edit" or path in deed.changed:
        return False
    known = desk.known.get(path, {})
    start, end = located(known, deed.call)
    if not start or not _fits(deed, desk.changes[0][1]):
        return False
    now = {n: text for n, (text, _) in known.items()}
    after = {n: text for n, (text, _) in replaced(known, start, end, deed.put, deed.turn).items()}
    return after != now and all(n in deed.after and deed.after[n][0] == text for n, text in after.items())
