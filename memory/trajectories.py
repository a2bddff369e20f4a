"""Trajectories: everything one attempt said and saw, and how it ended."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Outcome(StrEnum):
    """The one terminal outcome of an attempt."""

    RESOLVED = "resolved"
    UNRESOLVED = "unresolved"
    GAVE_UP = "gave_up"
    OUT_OF_BUDGET = "out_of_budget"
    INFRASTRUCTURE_FAILURE = "infrastructure_failure"


class Step(BaseModel):
    """One turn: what the model said, what it saw in return.

    `malformed` marks a turn that was no executable call; `seconds` is model time plus tool time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0)
    said: str
    observation: str
    tool: str
    malformed: bool = False
    tests_passed: bool | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class Trajectory(BaseModel):
    """One attempt at one task.

    `origin` says whose turns these are: the agent's own, or a merged fix told as turns.
    `config_hash` covers model, adapter, prompt, budgets and code; only equal ones are compared. `arm` says what it worked
    with (skill, knowledge, both, neither), `knowledge` is the state of the knowledge that was asked. `imported` names the
    reader of another agent's session, and is empty for this program's own attempts.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    task_id: str
    repo: str
    prompt: str
    system: str = ""
    model: str
    adapter: str | None = None
    origin: Literal["agent", "merged_fix"] = "agent"
    attempt: int = 0
    started_at: datetime
    config_hash: str
    sandbox: str = ""
    steps: list[Step] = []
    outcome: Outcome | None = None
    reason: str = ""
    arm: str = ""
    knowledge: str = ""
    imported: str = ""

    @property
    def resolved(self) -> bool:
        """Whether grading saw every required test pass."""
        return self.outcome is Outcome.RESOLVED


class Result(BaseModel):
    """The one result of a task: its `number` in the order of results, and the attempt that decided it and its start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    task_id: str
    trajectory_id: str
    repo: str
    outcome: Outcome
    started_at: datetime
