"""What a cell of an experiment is: the life of one agent, said completely, and what is measured of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.models.engines import ModelConfig
from consolidation.night_config import NightConfig
from eval.metrics.rows import Attempted
from eval.task_config import TasksConfig
from memory.arms import Arm
from memory.hashing import content_hash
from memory.knowledge.config import KnowledgeConfig

Severity = Literal["minor", "moderate", "major"]
SplitName = Literal["A", "B", "C", "D", "E"]
Fault = Literal["", "leak", "labels", "shared_memory"]
FORMAT = 2
"""Raised when a life of the same configuration would be lived or measured otherwise; what was lived before is lived again."""


class SplitDesign(BaseModel):
    """One repository's first `tasks` tasks, split in two (programme, phases 1-3). The agent lives through the train half in
    `nights` equal parts, with a night after each, and is examined on both halves. Blocks: `train 1` ..., `test`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["split"] = "split"
    repo: str
    split: SplitName = "A"
    tasks: int = Field(default=0, ge=0)
    """0 for all that the source has."""
    nights: int = Field(default=1, ge=1)
    sessions: tuple[int, ...] = ()
    """Instead of equal parts: how many sessions were lived in all by each night (10, 20, 50 ...)."""


class SequenceDesign(BaseModel):
    """Repositories one after another: each night teaches one more, to an agent that is examined on `examined` unseen tasks
    of each after every night. Blocks are the repositories."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sequence"] = "sequence"
    repos: tuple[str, ...] = Field(min_length=2)
    lived: int = Field(ge=2)
    examined: int = Field(ge=1)


class DriftDesign(BaseModel):
    """A repository that changes once the agent has learnt it: `lived` sessions before and one night; then nights after
    `recovery` sessions (in all) of the changed one. Examined on `examined` unseen tasks of any kind of it as it was (`before`),
    and as it is (`after`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["drift"] = "drift"
    repo: str
    severity: Severity = "major"
    lived: int = Field(ge=2)
    recovery: tuple[int, ...] = (1, 5, 10, 20)
    examined: int = Field(ge=1)


Design = Annotated[SplitDesign | SequenceDesign | DriftDesign, Field(discriminator="kind")]


class LifeConfig(BaseModel):
    """Everything that decides a life.

    `arms` are those examined; `frozen` is the base examined once more in every row. `skills` asks for so many held-out tasks of
    the base's own skills (pocket world; elsewhere the programming benchmarks' problems, 0 for all of them), unless
    `guards` is off. `threads` is no part of what is decided. `fault` breaks the life on purpose, to see that it is found out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    design: Design
    seed: int = Field(ge=0)
    night: NightConfig = NightConfig()
    arms: tuple[Arm, ...] = (Arm.BASE, Arm.SKILL)
    model: ModelConfig = ModelConfig()
    tasks: TasksConfig = TasksConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig(embedder="hashing")
    guards: bool = True
    skills: int = Field(default=24, ge=0)
    every_row: bool = True
    """Examine after each night, or before the first and after the last only."""
    threads: int = Field(default=1, ge=1, exclude=True)
    fault: Fault = ""

    @model_validator(mode="after")
    def _whole(self) -> LifeConfig:
        if Arm.BASE not in self.arms:
            raise ValueError("arms must name base: everything is compared with it")
        return self

    def digest(self, model: str) -> str:
        """Hash of this configuration and of the model's fingerprint: a life that has it is not lived again."""
        return content_hash([FORMAT, self, model])


class ExamRow(BaseModel):
    """One attempt of an examination, by its place in the matrix: after `night` nights (0: before any), at a task of `block`.

    `block` is "" for the base's own skills.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: Arm
    night: int = Field(ge=0)
    block: str
    attempt: Attempted


class NightRow(BaseModel):
    """What a night of a life did, counted from 1. `sources` counts its examples by whose solutions they tell: the agent's own,
    merged fixes of tasks that were over, rehearsal. `losses` are mean losses (nats per own token) of what earlier nights taught
    (by block), under the new adapter. `refused` says why nothing was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    night: int = Field(ge=1)
    block: str
    examples: int = 0
    sources: dict[str, int] = {}
    dropped: dict[str, int] = {}
    tokens: int = 0
    seconds: float = 0.0
    extra_seconds: float = 0.0
    bytes: int = 0
    rank: int = 0
    loss_first: float | None = None
    loss_last: float | None = None
    losses: dict[str, float] = {}
    base_losses: dict[str, float] = {}
    adapters: dict[str, str] = {}
    notes: dict[str, float] = {}
    refused: str = ""


class Life(BaseModel):
    """A life that was lived: its rows, and what its own checks found (`problems`: each a sentence; a life with any counts
    for nothing). `blocks` are in order, `learnt` says after which night each was learnt (None: never)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: str
    model: str
    code: str
    blocks: tuple[str, ...]
    learnt: dict[str, int | None]
    exams: tuple[ExamRow, ...]
    nights: tuple[NightRow, ...]
    problems: tuple[str, ...] = ()
    seconds: float = 0.0
    load: float = 0.0
