"""What metrics are computed from: one row for each attempt, made of its stored trajectory and of nothing else."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from eval.behaviour import facts_of
from eval.metrics.signatures import errors_made, is_refused, signature_of
from memory.trajectories import Outcome, Step, Trajectory


class Attempted(BaseModel):
    """One attempt, counted.

    `kind` names the group its task belongs to ("" where there are none). Tokens are summed over its turns, `seconds` are of
    model and tools together. A turn is useful if a call could be read from it and was carried out: `useful_calls` of
    `calls`, and `useful_seconds` of `seconds`. `green` is the number of turns up to and with the first test run that passed
    (None: none did). `signature` says how a failed attempt failed, and is empty for one that resolved its task; `errors` are
    those it made itself on its way, whatever became of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: str
    repo: str
    kind: str = ""
    outcome: Outcome
    steps: int = Field(ge=0)
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    seconds: float = Field(default=0.0, ge=0)
    useful_seconds: float = Field(default=0.0, ge=0)
    calls: int = Field(default=0, ge=0)
    useful_calls: int = Field(default=0, ge=0)
    malformed: int = Field(default=0, ge=0)
    conflicts: int = Field(default=0, ge=0)
    tests: int = Field(default=0, ge=0)
    edits: int = Field(default=0, ge=0)
    green: int | None = None
    signature: str = ""
    errors: tuple[str, ...] = ()
    recalled: bool = False
    adapter: str = ""
    config_hash: str

    @property
    def resolved(self) -> bool:
        """Whether grading saw every required test pass."""
        return self.outcome is Outcome.RESOLVED

    @property
    def graded(self) -> bool:
        """Whether it says anything about the agent: the infrastructure did not fail it."""
        return self.outcome is not Outcome.INFRASTRUCTURE_FAILURE


def attempted(trajectory: Trajectory, kind: str = "", recalled: bool = False) -> Attempted:
    """The row of an attempt that ended.

    Raises:
        ValueError: it has no outcome yet.
    """
    if trajectory.outcome is None:
        raise ValueError(f"attempt {trajectory.id} has no outcome yet; measure it when it ended")
    facts = facts_of(trajectory)
    useful = [step for step in trajectory.steps if is_useful(step)]
    return Attempted(
        task_id=trajectory.task_id,
        repo=trajectory.repo,
        kind=kind,
        outcome=trajectory.outcome,
        steps=len(trajectory.steps),
        prompt_tokens=sum(step.prompt_tokens for step in trajectory.steps),
        completion_tokens=sum(step.completion_tokens for step in trajectory.steps),
        seconds=sum(step.seconds for step in trajectory.steps),
        useful_seconds=sum(step.seconds for step in useful),
        calls=len(trajectory.steps),
        useful_calls=len(useful),
        malformed=int(facts["malformed"]),
        conflicts=int(facts["conflicts"]),
        tests=int(facts["tests"]),
        edits=int(facts["edits"]),
        green=next((number for number, step in enumerate(trajectory.steps, 1) if step.tests_passed), None),
        signature=signature_of(trajectory),
        errors=errors_made(trajectory),
        recalled=recalled,
        adapter=trajectory.adapter or "",
        config_hash=trajectory.config_hash,
    )


def is_useful(step: Step) -> bool:
    """Whether a call was read from the turn and carried out."""
    return not is_refused(step)
