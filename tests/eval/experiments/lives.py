"""Lives written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.experiments.life import ExamRow, Life, NightRow
from eval.metrics.rows import Attempted
from memory.arms import Arm
from memory.trajectories import Outcome

Marks = Mapping[str, str | Sequence[str]]
"""By block: one character for each task (`+` resolved, `-` not, `!` infrastructure failure), in the order of the tasks."""


def attempt(task: str, mark: str, **changes: Any) -> Attempted:
    """One attempt; a resolved one takes 4 turns of 25 tokens and 0.5 seconds, another 8."""
    outcome = {"+": Outcome.RESOLVED, "-": Outcome.UNRESOLVED, "!": Outcome.INFRASTRUCTURE_FAILURE}[mark]
    turns = 4 if mark == "+" else 8
    body: dict[str, Any] = {
        "task_id": task,
        "repo": "r",
        "outcome": outcome,
        "steps": turns,
        "calls": turns,
        "useful_calls": turns - 1,
        "prompt_tokens": 20 * turns,
        "completion_tokens": 5 * turns,
        "seconds": 0.5 * turns,
        "useful_seconds": 0.25 * turns,
        "green": 3 if mark == "+" else None,
        "signature": "" if mark == "+" else "unresolved: assertionerror",
        "config_hash": "c",
    }
    return Attempted(**(body | changes))


def exam(arm: str, night: int, marks: Mapping[str, str], **changes: Any) -> list[ExamRow]:
    """One examination: tasks are named after their block and their place in it, so that all examinations have the same."""
    return [
        ExamRow(arm=Arm(arm), night=night, block=block, attempt=attempt(f"{block}/{place}", mark, **changes))
        for block, row in marks.items()
        for place, mark in enumerate(row)
    ]


def life(
    exams: Mapping[tuple[str, int], Mapping[str, str]],
    learnt: Mapping[str, int | None],
    nights: Sequence[NightRow] | int = 1,
    **changes: Any,
) -> Life:
    """A life of examinations by arm and night."""
    rows = [NightRow(night=k + 1, block="") for k in range(nights)] if isinstance(nights, int) else nights
    body: dict[str, Any] = {
        "digest": "d",
        "model": "m",
        "code": "code",
        "blocks": tuple(learnt),
        "learnt": dict(learnt),
        "exams": tuple(row for (arm, night), marks in exams.items() for row in exam(arm, night, marks)),
        "nights": tuple(rows),
    }
    return Life(**(body | changes))
