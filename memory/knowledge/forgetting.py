"""Forgetting an attempt: out of every memory, every handbook and every later dataset, for good."""

from __future__ import annotations

from collections.abc import Iterable, Set
from datetime import UTC, datetime

from sqlalchemy import Connection, column, delete, insert, select, table, update

from memory.knowledge.handbook import holds
from memory.knowledge.memories import Handbook
from memory.knowledge.shelf import HANDBOOKS, MEMORIES, SPANS, USES, WORDS, Shelf
from memory.store import FORGOTTEN, RESULTS, STEPS, Store
from memory.store import TRAJECTORIES as ATTEMPTS

MERGED = "merged into "
"""Why a near-duplicate is no longer active; the id of the memory that stands for it follows."""
REASON = "forgotten"
WORDS_THEMSELVES = table("memory_words", column("memory_words"))
"""By this column of its own name FTS5 takes commands (https://sqlite.org/fts5.html#special_insert_commands)."""


def forget(store: Store, trajectory_id: str) -> dict[str, int]:
    """Remove what an attempt said and all that was made of it; returns how many memories went, by space.

    An attempt that decided a task leaves its outcome behind, and nothing that it said. Near-duplicates that were merged
    into one of its memories are active again. It can be neither remembered nor imported again. No byte of it stays in the
    file, which is written anew. Forgetting what is not there, or twice, removes nothing more and is no error.
    """
    with store.writing(f"the forgetting of {trajectory_id}") as connection:
        if not connection.execute(select(FORGOTTEN.c.at).where(FORGOTTEN.c.trajectory_id == trajectory_id)).first():
            connection.execute(insert(FORGOTTEN).values(trajectory_id=trajectory_id, at=datetime.now(UTC).isoformat()))
        mine = select(MEMORIES.c.number, MEMORIES.c.space, MEMORIES.c.id).where(MEMORIES.c.trajectory_id == trajectory_id)
        rows = connection.execute(mine).all()
        removed: dict[str, int] = {}
        for space in sorted({row.space for row in rows}):
            numbers = [row.number for row in rows if row.space == space]
            ids = {row.id for row in rows if row.space == space}
            _drop(connection, numbers)
            _strike_from_handbooks(connection, space, ids)
            Shelf(store, space).made_anew(connection, REASON, _stood_for(connection, space, ids), numbers)
            removed[space] = len(numbers)
        connection.execute(delete(STEPS).where(STEPS.c.trajectory_id == trajectory_id))
        attempt = ATTEMPTS.c.id == trajectory_id
        if connection.execute(select(RESULTS.c.number).where(RESULTS.c.trajectory_id == trajectory_id)).first():
            connection.execute(update(ATTEMPTS).where(attempt).values(prompt="", system="", reason=REASON))
        else:
            connection.execute(delete(ATTEMPTS).where(attempt))
        connection.execute(insert(WORDS_THEMSELVES).values(memory_words="optimize"))  # deleted words go at a merge only
    store.scrub()
    return removed


def _drop(connection: Connection, numbers: list[int]) -> None:
    connection.execute(delete(WORDS).where(WORDS.c.rowid.in_(numbers)))
    connection.execute(delete(USES).where(USES.c.memory.in_(numbers)))
    connection.execute(delete(SPANS).where(SPANS.c.memory.in_(numbers)))
    connection.execute(delete(MEMORIES).where(MEMORIES.c.number.in_(numbers)))


def _stood_for(connection: Connection, space: str, ids: Iterable[str]) -> list[int]:
    """Numbers of the memories that were merged into these ones last, and are not active."""
    found: list[int] = []
    for identity in sorted(ids):
        mine = select(SPANS.c.memory, SPANS.c.until).join_from(SPANS, MEMORIES, MEMORIES.c.number == SPANS.c.memory)
        closed = connection.execute(mine.where(MEMORIES.c.space == space, SPANS.c.why == MERGED + identity))
        for memory, until in closed.all():
            later = select(SPANS.c.since).where(SPANS.c.memory == memory, SPANS.c.since >= until)
            if not connection.execute(later).first():
                found.append(memory)
    return found


def _strike_from_handbooks(connection: Connection, space: str, ids: Set[str]) -> None:
    """Take citations of these memories out of every handbook, past ones too, and facts that nothing else supports."""
    for number, body in connection.execute(
        select(HANDBOOKS.c.number, HANDBOOKS.c.body).where(HANDBOOKS.c.space == space)
    ).all():
        book = Handbook.model_validate_json(body)
        kept = []
        for entry in book.entries:
            if holds(entry, known := set(entry.cites) - ids):
                kept.append(entry.model_copy(update={"cites": tuple(cite for cite in entry.cites if cite in known)}))
        if tuple(kept) != book.entries:
            text = book.model_copy(update={"entries": tuple(kept)}).model_dump_json()
            connection.execute(update(HANDBOOKS).where(HANDBOOKS.c.number == number).values(body=text))
