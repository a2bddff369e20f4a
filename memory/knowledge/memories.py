"""Memories: lessons of finished attempts, each with its provenance."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from memory.hashing import content_hash
from memory.nights import Utc
from memory.tasks import Text
from memory.trajectories import Outcome


class Kind(StrEnum):
    """What a memory tells."""

    CASE = "case"
    """A task that was solved: its symptom, where the fix was, and what changed."""
    WARNING = "warning"
    """An attempt that failed: what was tried, and why it did not work."""
    COMMAND = "command"
    """A command that works in this repository."""
    CONVENTION = "convention"
    """How things are done in this repository."""


RECALLED = (Kind.CASE, Kind.WARNING)
"""The kinds that are recalled because a task is like theirs; the others are facts, and make up the handbook."""

MERGED = "merged into "
"""Why a near-duplicate is no longer active; the id of the memory that stands for it follows."""

Origin = Literal["agent", "merged_fix", "imported"]


class Memory(BaseModel):
    """One lesson of one finished attempt.

    `created_at` is when its source task came up: no earlier task may know it. `recorded_at` is when the attempt ended.
    `verified` says that the task's hidden tests passed with what it tells (or that upstream merged it); what is not
    verified is never shown as fact. `distiller` names what wrote it: rules and their version, or a model with its
    prompt's hash. `where` are places such as "shop/fees.py:total_fee"; `change` is the new text or the diff, `shape`
    its size in words; `tried` is what failed first and why, in order; `fact` is what a command or convention states.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    repo: Text
    task_id: Text
    trajectory_id: Text
    outcome: Outcome
    verified: bool
    origin: Origin = "agent"
    created_at: Utc
    recorded_at: Utc
    distiller: Text
    symptom: str = ""
    where: tuple[str, ...] = ()
    change: str = ""
    shape: str = ""
    tried: tuple[str, ...] = ()
    fact: str = ""

    @property
    def id(self) -> str:
        """Hash of all it says and where it comes from; when it was recorded does not matter."""
        return content_hash(self.model_dump(mode="json", exclude={"recorded_at"}))

    @property
    def text(self) -> str:
        """What it is found by: everything that it says, a line each."""
        parts = (self.symptom, self.fact, *self.where, self.change, *self.tried)
        return "\n".join(part for part in parts if part)


class Entry(BaseModel):
    """One fact of a handbook, and the ids of the memories that state it, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fact: Text
    kind: Kind
    cites: tuple[str, ...] = Field(min_length=1)


class Handbook(BaseModel):
    """What is known about a repository as a whole, in a bounded number of facts, best supported first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: Text
    entries: tuple[Entry, ...]
    written_at: Utc
    night: str = ""


class Recalled(BaseModel):
    """What was recalled for one task: memories, best first, and facts of the handbook that were known by then.

    `version` is the state of the knowledge that they come from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = ""
    memories: tuple[Memory, ...] = ()
    facts: tuple[Entry, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.memories or self.facts)
