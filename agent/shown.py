"""What the model was shown before each turn: the conversation so far, its old observations shortened.

Long conversations are shortened by a rule that is part of the conversation: the system prompt states it, and it
depends on nothing but the turns. So what was shown can be told again from a stored trajectory at any time, for replays
and for training. It shortens much at a time and rarely, because each time an engine must read the conversation anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from agent.model import Message
from memory.trajectories import Step, Trajectory

KEEP = 6
WORTH = 400
SHORTENED = frozenset({"map", "search", "view", "test", "diff"})
_STATED = re.compile(r"^Once observations exceed (\d{1,9}) characters in all, old ones are left out", re.MULTILINE)


@dataclass(frozen=True)
class Told:
    """A conversation as it was shown; the agent's turns before number `first` (from 0) were said seeing more."""

    messages: tuple[Message, ...]
    first: int


def limit_of(system: str) -> int:
    """The characters of observations that a system prompt allows before old ones are left out; 0 if it states no rule."""
    stated = _STATED.search(system)
    return int(stated.group(1)) if stated else 0


def opening(trajectory: Trajectory) -> list[Message]:
    """The messages before the first turn."""
    system = [Message("system", trajectory.system)] if trajectory.system else []
    return [*system, Message("user", trajectory.prompt)]


def shown(trajectory: Trajectory, turn: int | None = None) -> list[Message]:
    """The messages that the model was shown before turn `turn` (from 0), or will be before the next one."""
    steps = trajectory.steps[: len(trajectory.steps) if turn is None else turn]
    return _messages(trajectory, steps, left_out(steps, limit_of(trajectory.system)))


def told(trajectory: Trajectory) -> list[Told]:
    """The attempt as examples: one conversation for each stretch of turns between two shortenings, in order."""
    limit = limit_of(trajectory.system)
    steps = trajectory.steps
    gone = [left_out(steps[:turn], limit) for turn in range(len(steps))]
    starts = [turn for turn in range(len(steps)) if turn == 0 or gone[turn] != gone[turn - 1]]
    told: list[Told] = []
    for start, end in pairwise([*starts, len(steps)]):
        messages = _messages(trajectory, steps[:end], gone[start])
        told.append(Told(tuple(messages[:-1] if end < len(steps) or steps[-1].tool == "submit" else messages), start))
    return told or [Told(tuple(opening(trajectory)), 0)]


def left_out(steps: Sequence[Step], limit: int) -> frozenset[int]:
    """Numbers of the steps whose observations are left out after these steps.

    When what is shown exceeds `limit` characters, the oldest observations of tools that can be asked again are left out
    until half of it remains, but for those of the last `KEEP` turns; and only if that gains a quarter of the limit.
    """
    gone: set[int] = set()
    size = 0
    for number, step in enumerate(steps):
        size += len(step.observation)
        if not limit or size <= limit:
            continue
        chosen: list[int] = []
        gain = 0
        for old in range(number + 1 - KEEP):
            if size - gain > limit // 2 and old not in gone and steps[old].tool in SHORTENED:
                saved = len(steps[old].observation) - len(_stub(steps[old]))
                if saved > WORTH:
                    chosen.append(old)
                    gain += saved
        if gain >= limit // 4:
            gone.update(chosen)
            size -= gain
    return frozenset(gone)


def _messages(trajectory: Trajectory, steps: Sequence[Step], gone: frozenset[int]) -> list[Message]:
    messages = opening(trajectory)
    for number, step in enumerate(steps):
        messages += [Message("assistant", step.said), Message("tool", _stub(step) if number in gone else step.observation)]
    return messages


def _stub(step: Step) -> str:
    lines = step.observation.count("\n") + 1
    return f"[{lines} line{'' if lines == 1 else 's'} of {step.tool}, no longer shown]"
