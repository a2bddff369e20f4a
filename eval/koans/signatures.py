"""Error signatures, and what they say about learning: pure functions over trajectories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.metrics.counting import finite_median, share_repeated
from memory.trajectories import Outcome, Trajectory

_ERROR = re.compile(r"^error(?:\[(E\d{4})\])?: (.+)$", re.MULTILINE)
_PANIC = re.compile(r"^thread '[^\n]*' (?:\(\d+\) )?panicked at [^\n]*:\n([^\n]+)", re.MULTILINE)
_SUMMARY = "aborting due to"


@dataclass(frozen=True)
class Signature:
    """What went wrong, without names and numbers: rustc's codes in order, and the first message normalised.

    A program that builds and panics has no codes and the panic's message.
    """

    codes: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"{', '.join(self.codes)}: {self.message}" if self.codes else self.message


def signature(output: str) -> Signature | None:
    """The signature of one compiler or test output, or nothing if it shows no error."""
    errors = [(code, said) for code, said in _ERROR.findall(output) if not said.startswith(_SUMMARY)]
    if errors:
        return Signature(tuple(sorted({code for code, _ in errors if code})), normalised(errors[0][1]))
    panic = _PANIC.search(output)
    return Signature((), normalised(panic.group(1)).partition(": ")[0]) if panic else None


def normalised(message: str) -> str:
    """A message in lower case, with quoted names as `_` and numbers as 0."""
    return re.sub(r"\d+", "0", re.sub(r"`[^`]*`", "_", message)).strip().lower()


def errors_made(trajectory: Trajectory) -> list[Signature]:
    """Signatures of the agent's own making: of each test run after its first edit, in order.

    What a test run shows before is the koan's own error.
    """
    edited = False
    found: list[Signature] = []
    for step in trajectory.steps:
        edited = edited or step.tool == "edit"
        seen = signature(step.observation) if edited and step.tool == "test" and not step.tests_passed else None
        if seen is not None:
            found.append(seen)
    return found


def repeat_error_rate(trajectories: Sequence[Trajectory]) -> float | None:
    """Share of the errors made that had been made before in an *earlier task* of the same family.

    Each signature counts once for each trajectory; the trajectories come in the order they were lived.
    The first task of a family cannot repeat anything and is not counted; None where nothing is left.
    Infrastructure failures are left out.
    """
    lived = (t for t in trajectories if t.outcome is not Outcome.INFRASTRUCTURE_FAILURE)
    return share_repeated((t.repo, t.task_id, set(errors_made(t))) for t in lived)


def steps_to_green(trajectory: Trajectory) -> int | None:
    """Turns up to and including the first test run that passed; None if there was none."""
    return next((place for place, step in enumerate(trajectory.steps, start=1) if step.tests_passed), None)


def median_steps_to_green(trajectories: Sequence[Trajectory]) -> float | None:
    """Median over all trajectories; one that never got green counts as infinitely long, not as absent.

    None if the median is such a one, or if there are no trajectories. Infrastructure failures are left out.
    """
    return finite_median(steps_to_green(t) for t in trajectories if t.outcome is not Outcome.INFRASTRUCTURE_FAILURE)
