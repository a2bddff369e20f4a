"""The states of the knowledge: how a change makes the next version, and how an earlier one is made again.

All of it happens inside a transaction of the caller's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, TableClause, and_, func, insert, or_, select, update

from memory.errors import RecordError
from memory.hashing import content_hash
from memory.knowledge.literal import words_row
from memory.knowledge.memories import Handbook, Memory
from memory.knowledge.tables import HANDBOOKS, MEMORIES, NUMBERED, SPANS, VERSIONS, WORDS, stamp


@dataclass(frozen=True)
class Version:
    """A state of the knowledge: its number in its space, and a hash over all changes up to it."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}-{self.hash[:8]}"


class States:
    """The states of one space."""

    def __init__(self, space: str) -> None:
        self.space = space

    def version(self, connection: Connection) -> Version:
        """The newest."""
        newest = select(VERSIONS).where(VERSIONS.c.space == self.space).order_by(VERSIONS.c.number.desc()).limit(1)
        row = connection.execute(newest).first()
        return Version(0, content_hash(self.space)) if row is None else Version(row.number, row.hash)

    def changed(
        self,
        connection: Connection,
        why: str,
        close: Mapping[int, str] | None = None,
        reopen: Sequence[int] = (),
        add: Sequence[Memory] = (),
        books: Sequence[Handbook] = (),
        gone: Sequence[str] = (),
        restored: int | None = None,
    ) -> tuple[Version, list[int]]:
        """Make a change, and the next version; see `Shelf.change`."""
        close = close or {}
        before = self.version(connection)
        if not (close or reopen or add or books or gone) and restored is None:
            return before, []
        number = before.number + 1
        added = self._added(connection, add, number)
        for memory, reason in close.items():
            ended = update(SPANS).where(SPANS.c.memory == memory, SPANS.c.until.is_(None))
            if connection.execute(ended.values(until=number, why=reason)).rowcount != 1:
                raise RecordError(f"memory {memory} is not active; look at the knowledge again")
        if reopen:
            connection.execute(insert(SPANS), [{"memory": m, "since": number, "until": None, "why": ""} for m in reopen])
        for repo in (*gone, *(book.repo for book in books)):
            mine = and_(HANDBOOKS.c.space == self.space, HANDBOOKS.c.repo == repo, HANDBOOKS.c.until.is_(None))
            connection.execute(update(HANDBOOKS).where(mine).values(until=number))
        for book in books:
            row = {"space": self.space, "repo": book.repo, "since": number, "body": book.model_dump_json()}
            connection.execute(insert(HANDBOOKS).values(row))
        ids = [memory.id for memory in add]
        return self._next(connection, before, why, [sorted(close), sorted(reopen), ids, books, gone], restored), added

    def restored(self, connection: Connection, number: int, why: str) -> Version:
        """See `Shelf.restore`."""
        now = self.version(connection)
        if not 0 <= number <= now.number:
            raise RecordError(f"there is no version {number} of this knowledge; the newest is {now.number}")
        forward = self._is_forward(connection, number, now.number)
        mine = MEMORIES.c.space == self.space
        joined = select(SPANS.c.memory).join_from(SPANS, MEMORIES, MEMORIES.c.number == SPANS.c.memory).where(mine)
        then = set(connection.execute(joined.where(_during(SPANS, number))).scalars())
        active = set(connection.execute(joined.where(SPANS.c.until.is_(None))).scalars())
        if forward:
            first = joined.group_by(SPANS.c.memory).having(func.min(SPANS.c.since) > number)
            then |= active & set(connection.execute(first).scalars())
        held = select(HANDBOOKS.c.repo, HANDBOOKS.c.body).where(HANDBOOKS.c.space == self.space)
        old = {row.repo: row.body for row in connection.execute(held.where(_during(HANDBOOKS, number)))}
        present = {row.repo: row.body for row in connection.execute(held.where(HANDBOOKS.c.until.is_(None)))}
        books = [Handbook.model_validate_json(body) for repo, body in sorted(old.items()) if present.get(repo) != body]
        gone = sorted(present.keys() - old.keys())
        ended = select(SPANS.c.memory, SPANS.c.why).join_from(SPANS, MEMORIES, MEMORIES.c.number == SPANS.c.memory)
        past = connection.execute(ended.where(mine, SPANS.c.until <= number).order_by(SPANS.c.until))
        reasons = {row.memory: row.why for row in past}
        close = {memory: reasons.get(memory, "rolled back") for memory in sorted(active - then)}
        return self.changed(connection, why, close, sorted(then - active), (), books, gone, restored=number)[0]

    def made_anew(self, connection: Connection, why: str, reopen: Sequence[int], removed: Sequence[int]) -> Version:
        """The version after something was removed for good, inside the transaction that removed it."""
        before = self.version(connection)
        if reopen:
            spans = [{"memory": m, "since": before.number + 1, "until": None, "why": ""} for m in reopen]
            connection.execute(insert(SPANS), spans)
        return self._next(connection, before, why, [list(reopen), list(removed)])

    def _is_forward(self, connection: Connection, number: int, now: int) -> bool:
        """Whether version `number` comes later in order than the newest; see `restore`."""
        made = select(VERSIONS.c.number, VERSIONS.c.restored).where(VERSIONS.c.space == self.space)
        rows = connection.execute(made.where(VERSIONS.c.restored.is_not(None)).order_by(VERSIONS.c.number)).all()
        runs: list[tuple[int, tuple[int, ...]]] = [(0, ())]  # the first version of each, and where it was inserted

        def place(version: int) -> tuple[int, ...]:
            first, inserted = runs[bisect_right(runs, version, key=lambda run: run[0]) - 1]
            return *inserted, version - first

        for row in rows:
            runs.append((row.number, (*place(row.restored), -row.number)))
        changed_nothing = bool(rows) and rows[-1].number - 1 == rows[-1].restored == number
        return changed_nothing or place(number) > place(now)

    def _next(self, connection: Connection, before: Version, why: str, what: object, restored: int | None = None) -> Version:
        version = Version(before.number + 1, content_hash([before.hash, why, what]))
        row = {"space": self.space, "number": version.number, "hash": version.hash, "why": why, "restored": restored}
        connection.execute(insert(VERSIONS).values(row | {"at": stamp(datetime.now(UTC))}))
        return version

    def _added(self, connection: Connection, memories: Sequence[Memory], version: int) -> list[int]:
        """Insert what is new, with its words; what is known but closed is active again."""
        numbers: list[int] = []
        # The number of a forgotten memory is not given again: an index may still hold its row.
        newest = connection.execute(select(NUMBERED.c.seq).where(NUMBERED.c.name == MEMORIES.name)).scalar() or 0
        rows, lines, spans = [], [], []
        for memory in {memory.id: memory for memory in memories}.values():
            known = select(MEMORIES.c.number).where(MEMORIES.c.space == self.space, MEMORIES.c.id == memory.id)
            number = connection.execute(known).scalar()
            if number is None:
                newest += 1
                number = newest
                rows.append(self._row(number, memory))
                lines.append(words_row(number, self.space, memory))
            elif connection.execute(select(SPANS.c.since).where(SPANS.c.memory == number, SPANS.c.until.is_(None))).first():
                continue
            spans.append({"memory": number, "since": version, "until": None, "why": ""})
            numbers.append(number)
        if rows:
            connection.execute(insert(MEMORIES), rows)
            connection.execute(insert(WORDS), lines)
        if spans:
            connection.execute(insert(SPANS), spans)
        return numbers

    def _row(self, number: int, memory: Memory) -> dict[str, object]:
        return {
            "number": number,
            "space": self.space,
            "id": memory.id,
            "trajectory_id": memory.trajectory_id,
            "repo": memory.repo,
            "kind": memory.kind,
            "created_at": stamp(memory.created_at),
            "body": memory.model_dump_json(),
        }


def _during(spans: TableClause, number: int) -> ColumnElement[bool]:
    """Spans that cover a version."""
    return and_(spans.c.since <= number, or_(spans.c.until.is_(None), spans.c.until > number))
