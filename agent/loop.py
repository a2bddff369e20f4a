"""The agent loop: ask the model, do what it says, show it what happened; until it submits.

`run` plays any number of attempts in lock-step, so that an engine can answer them as a batch;
one attempt is a batch of one. Every step is handed to the recorder the moment it happened, and
every attempt ends in exactly one outcome.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from agent.errors import AgentError, ChangeError
from agent.model import Completion, Message, Model, Sampling
from agent.session import MALFORMED, TERSE, Left, Toolkit
from agent.shown import opening as opening
from agent.shown import shown, told
from agent.turns import MAX_TURN_CHARS
from agent.workplace import Workplace
from memory.trajectories import Outcome, Step, Trajectory

GIVE_UP_AFTER = 3


class Budget(BaseModel):
    """Limits of one attempt."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    steps: int = Field(default=9, ge=1)
    """Turns the agent may take."""
    tokens: int = Field(default=12_000, ge=1)
    """Prompt tokens computed plus completion tokens, over the whole attempt."""
    seconds: float = Field(default=120.0, gt=0)
    """Wall time of model and tools."""
    turn_tokens: int = Field(default=96, ge=1)
    """Longest turn of the agent; what is longer is cut off."""


class Recorder(Protocol):
    """Where steps and outcomes are written as they happen."""

    def began(self, trajectory: Trajectory) -> None:
        """An attempt starts."""
        ...

    def stepped(self, trajectory: Trajectory, step: Step) -> None:
        """A turn was taken; called before the next one."""
        ...

    def ended(self, trajectory: Trajectory) -> None:
        """The attempt has its outcome."""
        ...


class NoRecorder:
    """Records nothing; for benchmarks that keep only the outcomes."""

    def began(self, trajectory: Trajectory) -> None:
        """Nothing to do."""

    def stepped(self, trajectory: Trajectory, step: Step) -> None:
        """Nothing to do."""

    def ended(self, trajectory: Trajectory) -> None:
        """Nothing to do."""


class Attempt:
    """One trajectory in the making: its conversation, its workplace, what is left of its budget.

    `place` makes the workplace when the attempt begins; one that cannot be made is a failure of the infrastructure.
    """

    def __init__(
        self, trajectory: Trajectory, place: Callable[[], Workplace], budget: Budget, toolkit: Toolkit = TERSE
    ) -> None:
        self.trajectory = trajectory
        self.budget = budget
        self.messages = shown(trajectory)
        self._make = place
        self._toolkit = toolkit
        self.tokens = 0
        self.seconds = 0.0
        self.malformed_in_a_row = 0

    def begin(self) -> None:
        """Make the workplace.

        Raises:
            AgentError, OSError: it cannot be made.
        """
        self.place = self._make()
        self.session = self._toolkit.session(self.place)

    def take(self, completion: Completion) -> bool:
        """Execute one turn and append it, with its observation, to the conversation; True if the agent submits."""
        began = time.monotonic()
        turn = self.session.take(completion.text, self.left())
        step = Step(
            number=len(self.trajectory.steps),
            said=completion.text[:MAX_TURN_CHARS],
            observation=turn.observation,
            tool=turn.tool,
            malformed=turn.tool == MALFORMED,
            tests_passed=turn.tests_passed,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            seconds=completion.seconds + time.monotonic() - began,
        )
        self.trajectory.steps.append(step)
        self.messages = shown(self.trajectory)
        self.tokens += completion.prompt_tokens - completion.cached_tokens + completion.completion_tokens
        self.seconds += step.seconds
        self.malformed_in_a_row = self.malformed_in_a_row + 1 if step.malformed else 0
        return turn.submits

    def left(self) -> Left:
        """What is left of the budget."""
        budget = self.budget
        return Left(budget.steps - len(self.trajectory.steps), budget.tokens - self.tokens, budget.seconds - self.seconds)

    def exhausted(self, completion: Completion | None = None) -> str:
        """Which limit is reached, or nothing."""
        if completion is not None and completion.finish_reason == "context":
            return "the conversation no longer fits the context"
        if len(self.trajectory.steps) >= self.budget.steps:
            return f"{self.budget.steps} steps"
        if self.tokens >= self.budget.tokens:
            return f"{self.budget.tokens} tokens"
        if self.seconds >= self.budget.seconds:
            return f"{self.budget.seconds:g} seconds"
        return ""


def conversation(trajectory: Trajectory) -> list[Message]:
    """The whole conversation of a finished attempt, as it stood at its end."""
    return list(told(trajectory)[-1].messages)


def run(
    attempts: Iterable[Attempt],
    model: Model,
    recorder: Recorder,
    sampling: Sampling | None = None,
    width: int = 32,
) -> Iterator[Trajectory]:
    """Play attempts to their ends, `width` at a time, and yield each trajectory as it ends.

    Attempts are taken from the iterable only when there is room, so that workplaces can be made
    late; each is closed when its attempt has ended. A sandbox that breaks ends only the attempts that needed it.
    """
    sampling = sampling or Sampling()
    waiting = iter(attempts)
    going: list[Attempt] = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        while True:
            for attempt in itertools.islice(waiting, width - len(going)):
                recorder.began(attempt.trajectory)
                try:
                    attempt.begin()
                except (AgentError, OSError) as error:
                    _lost(attempt.trajectory, error)
                    recorder.ended(attempt.trajectory)
                    yield attempt.trajectory
                else:
                    going.append(attempt)
            if not going:
                return
            completions = model.complete([a.messages for a in going], sampling, [a.trajectory.id for a in going])
            ends = list(pool.map(lambda a, c: _turn(a, c, recorder), going, completions))
            finished = [a for a, ended in zip(going, ends, strict=True) if ended]
            going = [a for a, ended in zip(going, ends, strict=True) if not ended]
            model.forget([a.trajectory.id for a in finished])
            for attempt in finished:
                recorder.ended(attempt.trajectory)
                attempt.place.close()
                yield attempt.trajectory


def _turn(attempt: Attempt, completion: Completion, recorder: Recorder) -> bool:
    """One turn of one attempt; True when the attempt has ended."""
    trajectory = attempt.trajectory
    try:
        submits = attempt.take(completion)
        recorder.stepped(trajectory, trajectory.steps[-1])
        if submits:
            if attempt.place.diff():
                trajectory.outcome, trajectory.reason = attempt.place.grade()
            else:
                trajectory.outcome, trajectory.reason = Outcome.GAVE_UP, "submitted without a change"
        elif attempt.malformed_in_a_row >= GIVE_UP_AFTER:
            trajectory.outcome, trajectory.reason = Outcome.GAVE_UP, f"{GIVE_UP_AFTER} turns in a row were no calls"
        elif reason := attempt.exhausted(completion):
            trajectory.outcome, trajectory.reason = Outcome.OUT_OF_BUDGET, reason
    except ChangeError as error:  # the agent's own doing
        trajectory.outcome, trajectory.reason = Outcome.UNRESOLVED, str(error)[:500]
    except (AgentError, OSError) as error:
        _lost(trajectory, error)
    return trajectory.outcome is not None


def _lost(trajectory: Trajectory, error: Exception) -> None:
    trajectory.outcome, trajectory.reason = Outcome.INFRASTRUCTURE_FAILURE, str(error)[:500]
