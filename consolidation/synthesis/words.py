"""What a model is shown to make pairs from, and the objects and words that are read from its answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.recalled import QUOTE, _mute, plain
from consolidation.pairs import Format
from consolidation.synthesis.seam import Lived
from memory.trajectories import Trajectory

MAX_ANSWER_CHARS = 60_000
MAX_OPENED = 400
MAX_ISSUE, MAX_SAID, MAX_SEEN = 4_000, 800, 1_200
STEPS = 24
"""Turns of an attempt that are shown, half of them from the beginning."""
MOST_FAILED = 3
_OPENS = re.compile(r"\{")


class Told(BaseModel):
    """What a model is asked for; fields that it adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    turn: int = -1
    attempt: int = -1
    question: str = ""
    reasoning: str = ""
    diagnosis: str = ""
    context: str = ""


def asked_for(lived: Lived, how: Format, budget: int, turns: Sequence[int], mistakes: Sequence[tuple[int, int]]) -> str:
    """The attempt, and the failures where they matter, each shortened, and what is wanted of them.

    Why they were graded so is not in it.
    """
    lines = ["The issue:", *_quoted(lived.task.issue, MAX_ISSUE), "", "The attempt that succeeded:"]
    lines += _attempt(lived.taught, turns)
    numbers = sorted({number for number, _ in mistakes})[:MOST_FAILED]
    for number in numbers:
        lines += ["", f"Failed attempt {number}:"]
        lines += _attempt(lived.failed[number], [turn for failed, turn in mistakes if failed == number])
    if mistakes:
        may = "; ".join(f"attempt {number} turn {turn}" for number, turn in mistakes if number in numbers)
    else:
        may = ", ".join(map(str, turns))
    lines += ["", f"Kind {how}, at most {budget} {'exercise' if budget == 1 else 'exercises'}."]
    return "\n".join([*lines, *([f"You may name: {may}."] if may else []), "Your JSON objects:"])


def _attempt(trajectory: Trajectory, named: Sequence[int]) -> Iterator[str]:
    """The first and last turns, and those that may be named."""
    last = len(trajectory.steps) - STEPS // 2
    hidden = 0
    for turn, step in enumerate(trajectory.steps):
        if STEPS // 2 <= turn < last and turn not in named:
            hidden += 1
            continue
        if hidden:
            yield from ("", f"({hidden} turns are left out here)")
            hidden = 0
        yield from (
            "",
            f"Turn {turn}, it said:",
            *_quoted(step.said, MAX_SAID),
            "It saw:",
            *_quoted(step.observation, MAX_SEEN),
        )


def objects(answer: str) -> Iterator[Told]:
    """The objects of an answer that are of the form that was asked for, in order."""
    answer = answer[:MAX_ANSWER_CHARS].rpartition("</think>")[2]
    decoder, at = json.JSONDecoder(strict=False), 0
    for _ in range(MAX_OPENED):
        if (opened := _OPENS.search(answer, at)) is None:
            return
        try:
            found, at = decoder.raw_decode(answer, opened.start())
            told = Told.model_validate(found)
        except (ValidationError, ValueError, RecursionError):
            at = opened.end()
            continue
        if told.model_fields_set:
            yield told
        else:  # what is wanted may be within it
            at = opened.end()


def words(text: str, most: int) -> str:
    """A model's words, clean and bounded: no mark of a chat template, no fence, no blank lines."""
    lines = [" ".join(line.split()) for line in _mute(text).split("\n")]
    return plain("\n".join(line for line in lines if line and not line.startswith(("```", "~~~"))), most)


def _quoted(text: str, most: int) -> list[str]:
    half = most // 2
    text = plain(text, most) if len(text) <= most else f"{plain(text[:half])}\n[...]\n{plain(text[-half:])}"
    return [f"{QUOTE}{line}" for line in text.split("\n")]
