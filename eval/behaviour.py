"""How an attempt went: its turns, tests, edits, and where it contradicted the workspace. Needs no model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from agent.errors import CallError
from agent.session import MALFORMED, NOT_DONE, SUBMIT
from agent.turns import parse_call
from memory.trajectories import Outcome, Step, Trajectory

FACTS = ("steps", "tests", "edits", "untested", "malformed", "conflicts", "calls")
CHANGES = frozenset({"edit", "create", "delete", "undo"})
_ABSENT = re.compile(
    r"no file ['\"]|no match(?: of |$)|the old lines are not in the file|\S.* has (?:\d+ lines(?:;|$)|no files)"
)
_UNKNOWN = re.compile(
    r"No module named '([\w.]+)'|cannot import name '(\w+)'|name '(\w+)' is not defined"
    r"|module '[\w.]+' has no attribute '(\w+)'"
)
_TOO_LONG = re.compile(r"turn of \d+ characters; ")


def facts_of(trajectory: Trajectory) -> dict[str, float]:
    """What was counted of an attempt, by the names of `FACTS`; all numbers, none negative.

    `steps`: turns. `malformed`: turns from which no call could be read. `calls`: the other turns. `tests`: test runs.
    `edits`: changes of files that were carried out. `untested`: 1 if it was submitted without a test run that passed after
    its last edit. `conflicts`: calls that contradict the workspace: files, lines, or symbols that are not there, and test
    runs that fail because a name which the agent wrote itself does not exist.
    """
    tests = edits = malformed = conflicts = 0
    passed, written = False, ""
    for step in trajectory.steps:
        if is_malformed(step):
            malformed += 1
        elif step.tests_passed is not None:
            tests += 1
            passed = step.tests_passed
            conflicts += _wrote_unknown(step, written)
        elif _changed(step):
            edits += 1
            passed, written = False, f"{written}\n{step.said}"
        else:
            conflicts += _misses(step)
    return {
        "steps": len(trajectory.steps),
        "tests": tests,
        "edits": edits,
        "untested": float(_submitted(trajectory) and not passed),
        "malformed": malformed,
        "conflicts": conflicts,
        "calls": len(trajectory.steps) - malformed,
    }


def total(facts: Sequence[dict[str, float]], name: str) -> float:
    """Sum of one fact over attempts."""
    return sum(fact.get(name, 0.0) for fact in facts)


def is_malformed(step: Step) -> bool:
    """Whether no call could be read from a turn. The terse protocol also marks calls so that could not be carried out."""
    if step.tool != MALFORMED:
        return False
    if _TOO_LONG.match(step.observation):
        return True
    try:
        parse_call(step.said)
    except CallError:
        return True
    return False


def _changed(step: Step) -> bool:
    return step.tool in CHANGES and not step.observation.startswith(NOT_DONE)


def _misses(step: Step) -> bool:
    """Whether a call was refused, or answered in vain, because what it names is not there."""
    first = step.observation.split("\n", 1)[0]
    refused = step.tool == MALFORMED or first.startswith(NOT_DONE) or first == "no match"
    return refused and _ABSENT.match(first.removeprefix(NOT_DONE)) is not None


def _submitted(trajectory: Trajectory) -> bool:
    last = trajectory.steps[-1].tool if trajectory.steps else ""
    return last == SUBMIT and trajectory.outcome not in (None, Outcome.OUT_OF_BUDGET)


def _wrote_unknown(step: Step, written: str) -> bool:
    names = {name for found in _UNKNOWN.findall(step.observation) for name in found if name}
    return any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", written) for name in names)
