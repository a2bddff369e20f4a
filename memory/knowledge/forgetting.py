"""Forgetting an attempt: out of every memory, every handbook and every later dataset, for good."""

from __future__ import annotations

from collections.abc import Iterable, Set
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, column, delete, func, insert, select, table, update

from memory.knowledge.handbook import holds
from memory.knowledge.memories import MERGED, Handbook
from memory.knowledge.shelf import Shelf
from memory.knowledge.tables import HANDBOOKS, MEMORIES, SPANS, USES, WORDS
from memory.store import FORGOTTEN, IMPORTED, KEPT, RESULTS, STEPS, TASKS, Store
from memory.store import TRAJECTORIES as ATTEMPTS
from memory.tasks import Task

REASON = "forgotten"
WORDS_THEMSELVES = table("memory_words", column("memory_words"))
"""By this column of its own name FTS5 takes commands (https://sqlite.org/fts5.html#special_insert_commands)."""


def forget(store: Store, trajectory_id: str) -> dict[str, int]:
    """Remove what an attempt said and all that was made of it; returns how many memories went, by space.

    An attempt that decided a task leaves its outcome behind, and nothing that it said. An imported session's own task goes
    with it, unless another version of the session is there. The prompts in which its memories were shown become the bare
    issue. Training pairs that a model made of it, or in which it is told as a failure, go too. Near-duplicates that were
    merged into one of its memories are active again. It can be neither remembered nor imported again, nor can a longer version
    of the same session. No byte of it stays in the file, which is written anew. Forgetting what is not there, or twice,
    removes nothing more and is no error.
    """
    with store.writing(f"the forgetting of {trajectory_id}") as connection:
        found = connection.execute(select(ATTEMPTS.c.task_id).where(ATTEMPTS.c.id == trajectory_id)).scalar() or ""
        task_id = found if found.startswith(IMPORTED) else ""
        if not connection.execute(select(FORGOTTEN.c.at).where(FORGOTTEN.c.trajectory_id == trajectory_id)).first():
            row = {"trajectory_id": trajectory_id, "at": datetime.now(UTC).isoformat(), "task_id": task_id}
            connection.execute(insert(FORGOTTEN).values(row))
        _bare(connection, _shown_to(connection, trajectory_id))
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
        connection.execute(delete(KEPT).where((KEPT.c.trajectory_id == trajectory_id) | _tells_of(trajectory_id)))
        attempt = ATTEMPTS.c.id == trajectory_id
        if connection.execute(select(RESULTS.c.number).where(RESULTS.c.trajectory_id == trajectory_id)).first():
            connection.execute(update(ATTEMPTS).where(attempt).values(prompt="", system="", reason=REASON))
        else:
            connection.execute(delete(ATTEMPTS).where(attempt))
            others = select(ATTEMPTS.c.id).where(ATTEMPTS.c.task_id == task_id)
            if task_id and not connection.execute(others).first():
                connection.execute(delete(TASKS).where(TASKS.c.id == task_id))
        connection.execute(insert(WORDS_THEMSELVES).values(memory_words="optimize"))  # deleted words go at a merge only
    store.scrub()
    return removed


def _tells_of(trajectory_id: str) -> ColumnElement[bool]:
    """Whether kept pairs were also made of this attempt, which failed."""
    others = func.json_each(KEPT.c.failed).table_valued("value")
    return select(others.c.value).where(others.c.value == trajectory_id).exists()


def shown_to(store: Store, trajectory_id: str) -> list[str]:
    """Ids of the attempts whose prompts its memories were shown in; none once it is forgotten."""
    with store.reading() as connection:
        return _shown_to(connection, trajectory_id)


def _shown_to(connection: Connection, trajectory_id: str) -> list[str]:
    joined = select(USES.c.trajectory_id).distinct().join_from(USES, MEMORIES, MEMORIES.c.number == USES.c.memory)
    chosen = joined.where(MEMORIES.c.trajectory_id == trajectory_id).order_by(USES.c.trajectory_id)
    return list(connection.execute(chosen).scalars())


def _bare(connection: Connection, trajectory_ids: Iterable[str]) -> None:
    """Leave of these attempts' prompts nothing but their end, the issue.

    How a memory was shown need not be known for that: whatever stands before the issue goes.
    """
    for identity in trajectory_ids:
        attempt = ATTEMPTS.c.id == identity
        row = connection.execute(select(ATTEMPTS.c.prompt, ATTEMPTS.c.repo, ATTEMPTS.c.task_id).where(attempt)).first()
        if row is None:
            continue
        body = connection.execute(select(TASKS.c.body).where(TASKS.c.id == row.task_id)).scalar()
        bare = _issue(row.prompt, row.repo, Task.model_validate_json(body).issue if body else None)
        if bare != row.prompt:
            connection.execute(update(ATTEMPTS).where(attempt).values(prompt=bare))


def _issue(prompt: str, repo: str, issue: str | None) -> str:
    """The issue at the end of a prompt; if the store does not know it, from the last line that can begin one; or nothing."""
    head = f"issue in {repo}\n"
    if issue is not None and prompt.endswith(head + issue):
        return head + issue
    _, found, issue = f"\n{prompt}".rpartition(f"\n{head}")
    return head + issue if found else ""


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
