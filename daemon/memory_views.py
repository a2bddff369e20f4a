"""What the owner may look at of the knowledge, computed from the store alone."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from memory.errors import RecordError
from memory.knowledge.memories import Handbook, Memory
from memory.knowledge.shelf import Shelf


class MemoryStats(BaseModel):
    """The knowledge of the configured arm at a glance. `uses` counts how often any of it was shown to an attempt."""

    model_config = ConfigDict(extra="forbid")

    space: str
    version: str
    memories: int
    by_repo: dict[str, int]
    by_kind: dict[str, int]
    verified: int
    not_recalled: dict[str, int]
    """Memories that are kept and no longer recalled, by reason."""
    uses: int
    uses_resolved: int
    handbooks: dict[str, int]
    """Repository to how many facts its handbook has."""


class MemoryDetail(BaseModel):
    """One memory with its provenance, how it was used, and when it was active (versions of the knowledge)."""

    model_config = ConfigDict(extra="forbid")

    id: str
    active: bool
    memory: Memory
    recalled: int
    resolved: int
    spans: list[tuple[int, int | None, str]]


class HandbookRow(BaseModel):
    """A handbook, and from which version of the knowledge until before which it held."""

    model_config = ConfigDict(extra="forbid")

    since: int
    until: int | None
    handbook: Handbook


class VersionRow(BaseModel):
    """A state of the knowledge."""

    model_config = ConfigDict(extra="forbid")

    version: str
    at: datetime
    why: str


def stats(shelf: Shelf) -> MemoryStats:
    """How much is known of what."""
    uses = shelf.uses()
    books = {repo: shelf.handbook(repo) for repo in shelf.booked()}
    return MemoryStats(
        space=shelf.space,
        version=str(shelf.version()),
        memories=shelf.count(),
        by_repo=shelf.repos(),
        by_kind=shelf.kinds(),
        verified=shelf.verified(),
        not_recalled=dict(sorted(Counter(why.partition(" ")[0] for _, _, why in shelf.closed().values()).items())),
        uses=sum(use.recalled for use in uses.values()),
        uses_resolved=sum(use.resolved for use in uses.values()),
        handbooks={repo: len(book.entries) for repo, book in books.items() if book is not None},
    )


def detail(shelf: Shelf, memory_id: str) -> MemoryDetail:
    """One memory. Raises `RecordError` unless just one has an id that begins so."""
    number = shelf.number_of(memory_id)
    memory = shelf.get([number], active=False).get(number)
    if memory is None:
        raise RecordError(f"no memory begins with {memory_id!r}; `sleepyctl memory search` shows their ids")
    use = shelf.uses([number]).get(number)
    spans = shelf.history(number)
    return MemoryDetail(
        id=memory.id,
        active=bool(spans) and spans[-1][1] is None,
        memory=memory,
        recalled=use.recalled if use else 0,
        resolved=use.resolved if use else 0,
        spans=spans,
    )


def handbooks(shelf: Shelf, repo: str) -> list[HandbookRow]:
    """The handbooks that a repository ever had, oldest first; those of all repositories that hold now if none is named."""
    if repo:
        return [HandbookRow(since=s, until=u, handbook=book) for (s, u), book in shelf.handbooks(repo)]
    return [row for name in shelf.booked() for row in handbooks(shelf, name) if row.until is None]


def found(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, str, str, str]]:
    """What a search found, as rows of a table."""
    return [
        (
            str(row["id"]),
            str(row["kind"]) + ("" if row["verified"] else " (not verified)"),
            str(row["repo"]),
            "yes" if row["fits"] else "no",
            f"{row['similarity']:.2f} {row['covered']:.2f}",
            " ".join((row["fact"] or row["symptom"]).split())[:70],
        )
        for row in rows
    ]
