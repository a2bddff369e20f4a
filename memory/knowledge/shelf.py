"""The shelf: memories in the store, with the words they are found by, and every state they were ever in.

A state of the knowledge is a numbered *version*; each change makes the next one, in one transaction. A memory is active
in the versions of its spans, so that any earlier version can be restored, and restoring it can be undone. Memories lie in
a *space* (an arm under a configuration); what is in one space is never seen from another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate

from sqlalchemy import (
    ColumnElement,
    Connection,
    TableClause,
    and_,
    column,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    table,
    text,
    update,
)

from memory.errors import RecordError
from memory.hashing import content_hash
from memory.knowledge.memories import RECALLED, Handbook, Kind, Memory
from memory.knowledge.words import words
from memory.store import FORGOTTEN, Store
from memory.trajectories import Outcome

MEMORIES = table(
    "memories", *(column(n) for n in ("number", "space", "id", "trajectory_id", "repo", "kind", "created_at", "body"))
)
SPANS = table("memory_spans", *(column(name) for name in ("memory", "since", "until", "why")))
USES = table("memory_uses", column("memory"), column("trajectory_id"))
VERSIONS = table("knowledge_versions", *(column(name) for name in ("space", "number", "hash", "at", "why")))
HANDBOOKS = table("handbooks", *(column(name) for name in ("number", "space", "repo", "since", "until", "body")))
DISTILLED = table("distilled", column("space"), column("trajectory_id"))
WORDS = table("memory_words", column("rowid"), column("place"), column("words"))
TERMS = table("memory_terms", column("term"), column("doc"))
NUMBERED = table("sqlite_sequence", column("name"), column("seq"))
TRAJECTORIES = table("trajectories", column("id"), column("outcome"))

BATCH = 500
RAREST = 14
"""Words of a query that are looked up at most: the rarest ones decide."""
POSTINGS = 4000
"""Memories that the words looked up may occur in, all together and repetitions counted: each costs microseconds."""


@dataclass(frozen=True)
class Version:
    """A state of the knowledge: its number in its space, and a hash over all changes up to it."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{self.number}-{self.hash[:8]}"


@dataclass(frozen=True)
class Use:
    """How often a memory was recalled, and how many of those attempts that are over were resolved."""

    recalled: int = 0
    ended: int = 0
    resolved: int = 0


@dataclass(frozen=True)
class Found:
    """A memory found by its words. `score` is BM25 (higher is better)."""

    number: int
    score: float


class Shelf:
    """The memories of one space in the store."""

    def __init__(self, store: Store, space: str) -> None:
        self.store, self.space = store, space
        self._documents: dict[str, int] = {}
        self._counted_at = self._read_to = -1

    # Looking.

    def version(self) -> Version:
        """The state it is in; number 0 where nothing was remembered yet."""
        with self.store.reading() as connection:
            return self._version(connection)

    def versions(self) -> list[tuple[Version, datetime, str]]:
        """Every state, oldest first, with when and why it came to be."""
        chosen = select(VERSIONS).where(VERSIONS.c.space == self.space).order_by(VERSIONS.c.number)
        with self.store.reading() as connection:
            rows = connection.execute(chosen).all()
        return [(Version(row.number, row.hash), datetime.fromisoformat(row.at), row.why) for row in rows]

    def active(self, repo: str | None = None, kinds: Sequence[Kind] = tuple(Kind)) -> dict[int, str]:
        """Numbers of the memories that are active now, with their repositories, oldest first."""
        where = [MEMORIES.c.space == self.space, MEMORIES.c.kind.in_(kinds), SPANS.c.until.is_(None)]
        if repo is not None:
            where.append(MEMORIES.c.repo == repo)
        chosen = select(MEMORIES.c.number, MEMORIES.c.repo).join_from(MEMORIES, SPANS, SPANS.c.memory == MEMORIES.c.number)
        with self.store.reading() as connection:
            return {row.number: row.repo for row in connection.execute(chosen.where(*where).order_by(MEMORIES.c.number))}

    def active_ids(self) -> set[str]:
        """Ids of the memories that are active now."""
        chosen = select(MEMORIES.c.id).join_from(MEMORIES, SPANS, SPANS.c.memory == MEMORIES.c.number)
        with self.store.reading() as connection:
            return set(connection.execute(chosen.where(MEMORIES.c.space == self.space, SPANS.c.until.is_(None))).scalars())

    def closed(self) -> dict[int, tuple[str, str, str]]:
        """Numbers of the memories that are not active now, with id, repository, and why they last ceased to be."""
        still_open = select(SPANS.c.memory).where(SPANS.c.until.is_(None))
        chosen = (
            select(MEMORIES.c.number, MEMORIES.c.id, MEMORIES.c.repo, SPANS.c.why)
            .join_from(MEMORIES, SPANS, SPANS.c.memory == MEMORIES.c.number)
            .where(MEMORIES.c.space == self.space, MEMORIES.c.number.not_in(still_open))
            .order_by(MEMORIES.c.number, SPANS.c.since)
        )
        with self.store.reading() as connection:
            return {row.number: (row.id, row.repo, row.why) for row in connection.execute(chosen)}

    def get(self, numbers: Iterable[int], *, active: bool = True) -> dict[int, Memory]:
        """Memories by number; only those active now, unless asked otherwise."""
        found: dict[int, Memory] = {}
        wanted = list(dict.fromkeys(numbers))
        with self.store.reading() as connection:
            for start in range(0, len(wanted), BATCH):
                chosen = select(MEMORIES.c.number, MEMORIES.c.body).where(
                    MEMORIES.c.space == self.space, MEMORIES.c.number.in_(wanted[start : start + BATCH])
                )
                if active:
                    chosen = chosen.where(exists().where(SPANS.c.memory == MEMORIES.c.number, SPANS.c.until.is_(None)))
                for row in connection.execute(chosen):
                    found[row.number] = Memory.model_validate_json(row.body)
        return found

    def by_id(self, memory_ids: Iterable[str]) -> dict[str, Memory]:
        """Active memories by id; those that are not active are left out."""
        mine = and_(MEMORIES.c.space == self.space, MEMORIES.c.id.in_(list(memory_ids)))
        with self.store.reading() as connection:
            numbers = list(connection.execute(select(MEMORIES.c.number).where(mine)).scalars())
        return {memory.id: memory for memory in self.get(numbers).values()}

    def number_of(self, memory_id: str) -> int:
        """The number of a memory, by its id or the beginning of it. Raises `RecordError` unless just one fits."""
        mine = and_(MEMORIES.c.space == self.space, MEMORIES.c.id.startswith(memory_id, autoescape=True))
        with self.store.reading() as connection:
            rows = connection.execute(select(MEMORIES.c.number).where(mine).limit(2)).scalars().all()
        if len(rows) != 1 or not memory_id:
            many = "more than one memory begins" if rows else "no memory begins"
            raise RecordError(f"{many} with {memory_id!r}; `sleepyctl memory search` shows their ids")
        return int(rows[0])

    def of_trajectory(self, trajectory_id: str) -> list[int]:
        """Numbers of the memories that came from an attempt, active or not."""
        chosen = select(MEMORIES.c.number).where(MEMORIES.c.space == self.space, MEMORIES.c.trajectory_id == trajectory_id)
        with self.store.reading() as connection:
            return list(connection.execute(chosen).scalars())

    def count(self) -> int:
        """How many memories are active now."""
        mine = select(func.count()).select_from(MEMORIES).join(SPANS, SPANS.c.memory == MEMORIES.c.number)
        with self.store.reading() as connection:
            found = connection.execute(mine.where(MEMORIES.c.space == self.space, SPANS.c.until.is_(None)))
            return int(found.scalar_one())

    def repos(self) -> dict[str, int]:
        """Repositories with how many active memories each has."""
        counts: dict[str, int] = {}
        for repo in self.active().values():
            counts[repo] = counts.get(repo, 0) + 1
        return dict(sorted(counts.items()))

    def history(self, number: int) -> list[tuple[int, int | None, str]]:
        """The spans of a memory: since which version, until before which (None: still), and why it ended."""
        chosen = select(SPANS.c.since, SPANS.c.until, SPANS.c.why).where(SPANS.c.memory == number).order_by(SPANS.c.since)
        with self.store.reading() as connection:
            return [(row.since, row.until, row.why) for row in connection.execute(chosen)]

    def match(self, repo: str, query: Sequence[str], before: datetime, most: int) -> list[Found]:
        """Active memories of a repository with any of these words, best first by BM25; none whose task is later than `before`.

        Only the rarest words of the query are looked up (`RAREST`, `POSTINGS`), which hardly changes who is first.
        """
        rare = self.rarest(query)
        if not rare:
            return []
        postings = accumulate(self._documents[word] for word in rare)
        rare = rare[: max(1, sum(each <= POSTINGS for each in postings))]
        asked = "words : (" + " OR ".join(f'"{word}"' for word in rare) + ")"
        here = place(self.space, repo)
        if self._documents.get(here, 0) <= POSTINGS:  # beyond that, FTS5's counting of the place costs more than it saves
            asked = f"place : {here} AND {asked}"
        wanted = (
            select(WORDS.c.rowid, text("memory_words.rank AS score"))
            .join_from(WORDS, MEMORIES, MEMORIES.c.number == WORDS.c.rowid)
            .where(
                text("memory_words MATCH :asked").bindparams(asked=asked),
                MEMORIES.c.space == self.space,
                MEMORIES.c.repo == repo,
                MEMORIES.c.created_at <= _stamp(before),
                MEMORIES.c.kind.in_(RECALLED),
                exists().where(SPANS.c.memory == MEMORIES.c.number, SPANS.c.until.is_(None)),
            )
            .order_by(text("memory_words.rank"))
            .limit(most)
        )
        with self.store.reading() as connection:
            return [Found(int(row.rowid), -float(row.score)) for row in connection.execute(wanted)]

    def rarest(self, query: Sequence[str], most: int = RAREST) -> list[str]:
        """The words of a query that are known here at all, the rarest first, at most so many."""
        documents = self._frequencies()
        known = [word for word in dict.fromkeys(query) if word in documents]
        return sorted(known, key=lambda word: (documents[word], word))[:most]

    def rarities(self, query: Sequence[str]) -> dict[str, float]:
        """The rarest words of a query with their weights: inverse document frequency, log(1 + memories / memories with it)."""
        documents = self._frequencies()
        return {word: math.log1p(max(self._counted_at, 1) / documents[word]) for word in self.rarest(query)}

    def _frequencies(self) -> Mapping[str, int]:
        """In how many memories a word occurs; counted anew when a tenth more memories are there."""
        with self.store.reading() as connection:
            newest = connection.execute(select(func.max(MEMORIES.c.number))).scalar() or 0
            if self._counted_at < 0 or not self._counted_at <= newest < self._counted_at * 1.1 + 10:
                self._documents = {row.term: row.doc for row in connection.execute(select(TERMS.c.term, TERMS.c.doc))}
                self._counted_at = self._read_to = newest
            elif newest > self._read_to:  # the few that came since are counted here
                recent = select(WORDS.c.words).where(WORDS.c.rowid > self._read_to)
                for line in connection.execute(recent).scalars():
                    for word in set(line.split()):
                        self._documents[word] = self._documents.get(word, 0) + 1
                self._read_to = newest
        return self._documents

    def uses(self, numbers: Iterable[int] | None = None) -> dict[int, Use]:
        """How the memories were used; those never recalled are left out."""
        attempts = (TRAJECTORIES.c.outcome.is_not(None), TRAJECTORIES.c.outcome != Outcome.INFRASTRUCTURE_FAILURE)
        counted = (
            select(
                USES.c.memory,
                func.count().label("recalled"),
                func.count().filter(*attempts).label("ended"),
                func.count().filter(TRAJECTORIES.c.outcome == Outcome.RESOLVED).label("resolved"),
            )
            .select_from(USES)
            .join(MEMORIES, MEMORIES.c.number == USES.c.memory)
            .outerjoin(TRAJECTORIES, TRAJECTORIES.c.id == USES.c.trajectory_id)
            .where(MEMORIES.c.space == self.space)
            .group_by(USES.c.memory)
        )
        wanted = None if numbers is None else set(numbers)
        if wanted is not None and len(wanted) <= BATCH:
            counted = counted.where(USES.c.memory.in_(wanted))
        with self.store.reading() as connection:
            rows = connection.execute(counted).all()
        return {r.memory: Use(r.recalled, r.ended, r.resolved) for r in rows if wanted is None or r.memory in wanted}

    def handbook(self, repo: str) -> Handbook | None:
        """The handbook of a repository, if it has one."""
        books = self.handbooks(repo)
        return books[-1][1] if books and books[-1][0][1] is None else None

    def handbooks(self, repo: str) -> list[tuple[tuple[int, int | None], Handbook]]:
        """Every handbook a repository ever had, oldest first, with the versions in which it held."""
        mine = and_(HANDBOOKS.c.space == self.space, HANDBOOKS.c.repo == repo)
        with self.store.reading() as connection:
            rows = connection.execute(select(HANDBOOKS).where(mine).order_by(HANDBOOKS.c.number)).all()
        return [((row.since, row.until), Handbook.model_validate_json(row.body)) for row in rows]

    def booked(self) -> list[str]:
        """Repositories that have a handbook now."""
        mine = and_(HANDBOOKS.c.space == self.space, HANDBOOKS.c.until.is_(None))
        with self.store.reading() as connection:
            return list(connection.execute(select(HANDBOOKS.c.repo).where(mine).order_by(HANDBOOKS.c.repo)).scalars())

    def is_distilled(self, trajectory_id: str) -> bool:
        """Whether an attempt was made into memories here, or must never be."""
        with self.store.reading() as connection:
            return trajectory_id in self._done(connection, [trajectory_id])

    def undistilled(self, trajectory_ids: Sequence[str]) -> list[str]:
        """Those attempts that were not made into memories here yet, in the order given; forgotten ones left out."""
        done: set[str] = set()
        with self.store.reading() as connection:
            for start in range(0, len(trajectory_ids), BATCH):
                done |= self._done(connection, trajectory_ids[start : start + BATCH])
        return [identity for identity in trajectory_ids if identity not in done]

    # Changing. Each change is one transaction and makes the next version.

    def put(self, distilled: Mapping[str, Sequence[Memory]], why: str = "remembered") -> list[int]:
        """Keep the memories of these attempts (id to memories); returns the numbers of those that are new.

        Attempts that were made into memories before, and forgotten ones, are left as they are.
        """
        with self.store.writing("the memories") as connection:
            done: set[str] = set()
            for start in range(0, len(ids := list(distilled)), BATCH):
                done |= self._done(connection, ids[start : start + BATCH])
            fresh = {identity: memories for identity, memories in distilled.items() if identity not in done}
            if not fresh:
                return []
            connection.execute(insert(DISTILLED), [{"space": self.space, "trajectory_id": identity} for identity in fresh])
            memories = [memory for found in fresh.values() for memory in found]
            if not memories:
                return []
            return self._changed(connection, why, add=memories)[1]

    def change(
        self,
        why: str,
        *,
        close: Mapping[int, str] | None = None,
        reopen: Iterable[int] = (),
        add: Sequence[Memory] = (),
        books: Sequence[Handbook] = (),
    ) -> tuple[Version, list[int]]:
        """Close memories (number to reason), have closed ones active again, add some, replace handbooks; all or nothing.

        Returns the version it makes, or the present one where there is nothing to change, and the numbers of the added.
        """
        with self.store.writing("the knowledge") as connection:
            return self._changed(connection, why, close or {}, list(reopen), add, books)

    def restore(self, number: int, why: str) -> Version:
        """Make active just what was active in version `number`, as a new version. Raises `RecordError` if there was none."""
        with self.store.writing("the knowledge") as connection:
            now = self._version(connection)
            if not 0 <= number <= now.number:
                raise RecordError(f"there is no version {number} of this knowledge; the newest is {now.number}")
            mine = MEMORIES.c.space == self.space
            joined = select(SPANS.c.memory).join_from(SPANS, MEMORIES, MEMORIES.c.number == SPANS.c.memory).where(mine)
            then = set(connection.execute(joined.where(_during(SPANS, number))).scalars())
            active = set(connection.execute(joined.where(SPANS.c.until.is_(None))).scalars())
            held = select(HANDBOOKS.c.repo, HANDBOOKS.c.body).where(HANDBOOKS.c.space == self.space)
            old = {row.repo: row.body for row in connection.execute(held.where(_during(HANDBOOKS, number)))}
            present = {row.repo: row.body for row in connection.execute(held.where(HANDBOOKS.c.until.is_(None)))}
            books = [Handbook.model_validate_json(body) for repo, body in sorted(old.items()) if present.get(repo) != body]
            gone = sorted(present.keys() - old.keys())
            ended = select(SPANS.c.memory, SPANS.c.why).join_from(SPANS, MEMORIES, MEMORIES.c.number == SPANS.c.memory)
            past = connection.execute(ended.where(mine, SPANS.c.until <= number).order_by(SPANS.c.until))
            reasons = {row.memory: row.why for row in past}
            close = {memory: reasons.get(memory, "rolled back") for memory in sorted(active - then)}
            return self._changed(connection, why, close, sorted(then - active), (), books, gone)[0]

    def used(self, trajectory_id: str, memory_ids: Iterable[str]) -> None:
        """Record that these memories were shown to an attempt."""
        mine = and_(MEMORIES.c.space == self.space, MEMORIES.c.id.in_(list(memory_ids)))
        with self.store.writing("the use of memories") as connection:
            numbers = connection.execute(select(MEMORIES.c.number).where(mine)).scalars().all()
            known = set(connection.execute(select(USES.c.memory).where(USES.c.trajectory_id == trajectory_id)).scalars())
            if rows := [{"memory": n, "trajectory_id": trajectory_id} for n in numbers if n not in known]:
                connection.execute(insert(USES), rows)

    def reindex_words(self) -> int:
        """Write the words of every memory of this space anew; returns of how many."""
        with self.store.writing("the words of memories") as connection:
            numbers = select(MEMORIES.c.number).where(MEMORIES.c.space == self.space)
            connection.execute(delete(WORDS).where(WORDS.c.rowid.in_(numbers)))
            rows = connection.execute(select(MEMORIES.c.number, MEMORIES.c.body).where(MEMORIES.c.space == self.space)).all()
            for start in range(0, len(rows), BATCH):
                part = [(row.number, Memory.model_validate_json(row.body)) for row in rows[start : start + BATCH]]
                connection.execute(insert(WORDS), [self._words(number, memory) for number, memory in part])
            self._counted_at = -1
            return len(rows)

    # Inside a transaction.

    def _version(self, connection: Connection) -> Version:
        newest = select(VERSIONS).where(VERSIONS.c.space == self.space).order_by(VERSIONS.c.number.desc()).limit(1)
        row = connection.execute(newest).first()
        return Version(0, content_hash(self.space)) if row is None else Version(row.number, row.hash)

    def _done(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        mine = and_(DISTILLED.c.space == self.space, DISTILLED.c.trajectory_id.in_(ids))
        done = set(connection.execute(select(DISTILLED.c.trajectory_id).where(mine)).scalars())
        return done | set(
            connection.execute(select(FORGOTTEN.c.trajectory_id).where(FORGOTTEN.c.trajectory_id.in_(ids))).scalars()
        )

    def _changed(
        self,
        connection: Connection,
        why: str,
        close: Mapping[int, str] | None = None,
        reopen: Sequence[int] = (),
        add: Sequence[Memory] = (),
        books: Sequence[Handbook] = (),
        gone: Sequence[str] = (),
    ) -> tuple[Version, list[int]]:
        close = close or {}
        before = self._version(connection)
        if not (close or reopen or add or books or gone):
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
        return self._next(connection, before, why, [sorted(close), sorted(reopen), ids, books, gone]), added

    def made_anew(self, connection: Connection, why: str, reopen: Sequence[int], removed: Sequence[int]) -> Version:
        """The version after something was removed for good, inside the transaction that removed it."""
        before = self._version(connection)
        if reopen:
            spans = [{"memory": m, "since": before.number + 1, "until": None, "why": ""} for m in reopen]
            connection.execute(insert(SPANS), spans)
        self._counted_at = -1
        return self._next(connection, before, why, [list(reopen), list(removed)])

    def _next(self, connection: Connection, before: Version, why: str, what: object) -> Version:
        version = Version(before.number + 1, content_hash([before.hash, why, what]))
        row = {"space": self.space, "number": version.number, "hash": version.hash, "why": why}
        connection.execute(insert(VERSIONS).values(row | {"at": _stamp(datetime.now(UTC))}))
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
                lines.append(self._words(number, memory))
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
            "created_at": _stamp(memory.created_at),
            "body": memory.model_dump_json(),
        }

    def _words(self, number: int, memory: Memory) -> dict[str, object]:
        return {"rowid": number, "place": place(self.space, memory.repo), "words": " ".join(words(memory.text))}


def place(space: str, repo: str) -> str:
    """The word under which a repository's memories in a space are found."""
    return f"at{content_hash([space, repo])}"


def _during(spans: TableClause, number: int) -> ColumnElement[bool]:
    """Spans that cover a version."""
    return and_(spans.c.since <= number, or_(spans.c.until.is_(None), spans.c.until > number))


def _stamp(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds")
