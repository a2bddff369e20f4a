"""The agent loop: ask the model, do what it says, show it what happened; until it submits.

`run` plays any number of attempts in lock-step, so that an engine can answer them as a batch;
one attempt is a batch of one. Every step is handed to the recorder the moment it happened, and
every attempt ends in exactly one outcome.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from agent.errors import CallError, SandboxError
from agent.model import Completion, Message, Model, Sampling
from agent.tools import TestRun, TestRunner, bounded, execute
from agent.turns import MAX_TURN_CHARS, parse_call
from agent.workspace import Workspace
from memory.trajectories import Outcome, Step, Trajectory

MALFORMED = "malformed"
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


Grader = Callable[[Trajectory, Mapping[str, str]], tuple[Outcome, str]]
"""From a trajectory and the files as submitted to resolved, unresolved or infrastructure failure, and why."""


class Attempt:
    """One trajectory in the making: its conversation, its workspace, what is left of its budget."""

    def __init__(self, trajectory: Trajectory, workspace: Workspace, budget: Budget) -> None:
        self.trajectory = trajectory
        self.workspace = workspace
        self.budget = budget
        self.messages = opening(trajectory)
        self.untouched = workspace.snapshot()
        self.tokens = 0
        self.seconds = 0.0
        self.malformed_in_a_row = 0

    def take(self, completion: Completion, run_tests: TestRunner) -> Step:
        """Execute one turn and append it, with its observation, to the conversation."""
        began = time.monotonic()
        tests: TestRun | None = None

        def recorded_tests(workspace: Workspace) -> TestRun:
            nonlocal tests
            tests = run_tests(workspace)
            return tests

        tool = MALFORMED
        try:
            call = parse_call(completion.text)
            tool = call.tool
            observation = "" if tool == "submit" else execute(call, self.workspace, recorded_tests)
        except CallError as error:
            observation = bounded(str(error))
        step = Step(
            number=len(self.trajectory.steps),
            said=completion.text[:MAX_TURN_CHARS],
            observation=observation,
            tool=tool,
            malformed=tool == MALFORMED,
            tests_passed=tests.passed if tests is not None else None,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            seconds=completion.seconds + time.monotonic() - began,
        )
        self.trajectory.steps.append(step)
        self.messages += [Message("assistant", step.said), Message("tool", step.observation)]
        self.tokens += completion.prompt_tokens - completion.cached_tokens + completion.completion_tokens
        self.seconds += step.seconds
        self.malformed_in_a_row = self.malformed_in_a_row + 1 if step.malformed else 0
        return step

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


def opening(trajectory: Trajectory) -> list[Message]:
    """The messages before the first turn."""
    system = [Message("system", trajectory.system)] if trajectory.system else []
    return [*system, Message("user", trajectory.prompt)]


def conversation(trajectory: Trajectory) -> list[Message]:
    """The whole conversation of a finished attempt, as training data sees it."""
    messages = opening(trajectory)
    for step in trajectory.steps:
        messages += [Message("assistant", step.said), Message("tool", step.observation)]
    return messages[:-1] if trajectory.steps and trajectory.steps[-1].tool == "submit" else messages


def run(
    attempts: Iterable[Attempt],
    model: Model,
    run_tests: TestRunner,
    grade: Grader,
    recorder: Recorder,
    sampling: Sampling | None = None,
    width: int = 32,
) -> Iterator[Trajectory]:
    """Play attempts to their ends, `width` at a time, and yield each trajectory as it ends.

    Attempts are taken from the iterable only when there is room, so that workspaces can be made
    late. A sandbox that breaks ends only the attempts that needed it.
    """
    sampling = sampling or Sampling()
    waiting = iter(attempts)
    going: list[Attempt] = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        while True:
            for attempt in itertools.islice(waiting, width - len(going)):
                recorder.began(attempt.trajectory)
                going.append(attempt)
            if not going:
                return
            completions = model.complete([a.messages for a in going], sampling, [a.trajectory.id for a in going])
            ends = list(pool.map(lambda a, c: _turn(a, c, run_tests, grade, recorder), going, completions))
            finished = [a for a, ended in zip(going, ends, strict=True) if ended]
            going = [a for a, ended in zip(going, ends, strict=True) if not ended]
            model.forget([a.trajectory.id for a in finished])
            for attempt in finished:
                recorder.ended(attempt.trajectory)
                yield attempt.trajectory


def _turn(attempt: Attempt, completion: Completion, run_tests: TestRunner, grade: Grader, recorder: Recorder) -> bool:
    """One turn of one attempt; True when the attempt has ended."""
    trajectory = attempt.trajectory
    try:
        step = attempt.take(completion, run_tests)
        recorder.stepped(trajectory, step)
        if step.tool == "submit":
            files = attempt.workspace.snapshot()
            if files == attempt.untouched:
                trajectory.outcome, trajectory.reason = Outcome.GAVE_UP, "submitted without a change"
            else:
                trajectory.outcome, trajectory.reason = grade(trajectory, files)
        elif attempt.malformed_in_a_row >= GIVE_UP_AFTER:
            trajectory.outcome, trajectory.reason = Outcome.GAVE_UP, f"{GIVE_UP_AFTER} turns in a row were no calls"
        elif reason := attempt.exhausted(completion):
            trajectory.outcome, trajectory.reason = Outcome.OUT_OF_BUDGET, reason
    except (SandboxError, OSError) as error:
        trajectory.outcome, trajectory.reason = Outcome.INFRASTRUCTURE_FAILURE, str(error)[:500]
    return trajectory.outcome is not None
