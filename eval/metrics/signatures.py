"""How an attempt failed, in few words: a class of error that different attempts can have in common, and no text of theirs."""

from __future__ import annotations

import re

from agent.session import MALFORMED, NOT_DONE
from eval.behaviour import CHANGES
from eval.koans.signatures import normalised, signature
from memory.trajectories import Outcome, Step, Trajectory

MAX_CHARS = 80
ASSERTION = "AssertionError"
PASSED = "the tests it ran passed"
_RUSTC = re.compile(r"^error\[E\d{4}\]|^ *--> \S+\.rs:\d|panicked at \S+\.rs:|^error: aborting due to", re.MULTILINE)
_CLASS = r"(?:\w+\.)*(\w*(?:Error|Exception|Warning|Exit|Failed|Failure|Fault|Interrupt|Iteration|Timeout))(?=:|$| in line \d)"
_RAISED = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"^E {{2,}}(?:{_CLASS}|assert\b)",  # pytest, the error itself
        rf"^(?:FAILED|ERROR) .*?(?:: | - )(?:{_CLASS}|assert\b)",  # pytest's summary; the pocket world's runner
        rf"^{_CLASS}",  # the end of a traceback
        r"^FAILED \S+: ()\S",  # the pocket world's runner: the comparison that did not hold
    )
)
_OTHERWISE = {"the tests did not end": "timeout", "no tests": "no tests"}
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_PATH = re.compile(r"\S*/\S*|\S+\.[A-Za-z]\w{0,4}(?=[\s,;:]|$)")


def signature_of(trajectory: Trajectory) -> str:
    """How an attempt failed: its outcome, and the error that the last failing test run or refused call showed.

    `PASSED` is in its place where tests passed since; nothing where there was no error, or where the infrastructure failed.
    Empty for an attempt that resolved its task.
    """
    outcome = trajectory.outcome
    if outcome is None or outcome is Outcome.RESOLVED:
        return ""
    if outcome is Outcome.INFRASTRUCTURE_FAILURE:
        return str(outcome)
    last = next((said for step in reversed(trajectory.steps) if (said := PASSED if step.tests_passed else error_of(step))), "")
    return f"{outcome}: {last}" if last else str(outcome)


def errors_made(trajectory: Trajectory) -> tuple[str, ...]:
    """Errors of the agent's own making, each once, in order: of every failing test run after its first change of a file.

    What a test run shows before is the task's own error (as in `eval.koans.signatures`).
    """
    changed = False
    found: dict[str, None] = {}
    for step in trajectory.steps:
        changed = changed or (step.tool in CHANGES and not is_refused(step))
        if changed and step.tests_passed is False:
            found[error_of(step)] = None
    return tuple(found)


def error_of(step: Step) -> str:
    """The error that a turn was answered with; empty if with none."""
    if step.tests_passed is not None:
        return "" if step.tests_passed else failure(step.observation)
    return refusal(step.observation) if is_refused(step) else ""


def is_refused(step: Step) -> bool:
    """Whether no call was read from the turn, or it was not carried out."""
    return step.malformed or step.tool == MALFORMED or step.observation.startswith(NOT_DONE)


def failure(output: str) -> str:
    """The first error in the output of a failing test run: rustc's codes and message, or the class of the exception."""
    if _RUSTC.search(output) and (found := signature(output)):
        return str(found)[:MAX_CHARS]
    for pattern in _RAISED:
        if raised := pattern.search(output):
            return raised.group(1) or ASSERTION
    return next((name for words, name in _OTHERWISE.items() if output.startswith(words)), "tests failed")


def refusal(observation: str) -> str:
    """Why a call was not carried out, in the program's words, with names as `_` and numbers as 0."""
    first = observation.removeprefix(NOT_DONE).partition("\n")[0].partition(";")[0][: 4 * MAX_CHARS]
    return f"refused: {normalised(_PATH.sub('_', _QUOTED.sub('_', first)))}"[:MAX_CHARS]
