"""The knowledge's tables in the store; `memory.migrations` defines them."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import ColumnElement, column, literal_column, table

MEMORIES = table(
    "memories", *(column(n) for n in ("number", "space", "id", "trajectory_id", "repo", "kind", "created_at", "body"))
)
SPANS = table("memory_spans", *(column(name) for name in ("memory", "since", "until", "why")))
USES = table("memory_uses", column("memory"), column("trajectory_id"), column("cited"))
VERSIONS = table("knowledge_versions", *(column(name) for name in ("space", "number", "hash", "at", "why", "restored")))
HANDBOOKS = table("handbooks", *(column(name) for name in ("number", "space", "repo", "since", "until", "body")))
DISTILLED = table("distilled", column("space"), column("trajectory_id"))
WORDS = table("memory_words", column("rowid"), column("place"), column("words"))
NUMBERED = table("sqlite_sequence", column("name"), column("seq"))
TRAJECTORIES = table("trajectories", column("id"), column("outcome"))

row_space: ColumnElement[str] = literal_column("+memories.space")
"""The sign keeps SQLite from walking through all memories of a space where their numbers are known."""

BATCH = 500
"""Numbers or ids that one statement names at most."""


def stamp(when: datetime) -> str:
    """A time as the tables hold it."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")
