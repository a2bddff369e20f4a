"""The shelf: memories in the store, with the words they are found by, and every state they were ever in.

A state of the knowledge is a numbered *version*; each change makes the next one, in one transaction. A memory is active
in the versions of its spans, so that any earlier version can be restored, and restoring it can be undone. Memories lie in
a *space* (an arm under a configuration); what is in one space is never seen from another.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections import Counter
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
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    table,
    update,
)

from memory.errors import RecordError
from memory.hashing import content_hash
from memory.knowledge.memories import RECALLED, Handbook, Kind, Memory
from memory.knowledge.words import bm25, words
from memory.migrations import make_words
from memory.store import FORGOTTEN, Store
from memory.trajectories import Outcome

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

_row_space: ColumnElement[str] = literal_column("+memories.space")
"""The sign keeps SQLite from walking through all memories of a space where their numbers are known."""

BATCH = 500
RAREST = 14
"""Words of a query that are looked up at most: the rarest ones decide."""
POSTINGS = 4000
"""Memories of the space that the words looked up may occur in, all together and repetitions counted."""
READ = 4
"""Memories that are read to be ranked, for each that is wanted."""
LOOKUP = f"""
SELECT {{0}}, memories.number FROM memory_words CROSS JOIN memories ON memories.number = memory_words.rowid
WHERE memory_words MATCH :word{{0}} AND space = :space AND repo = :repo AND created_at <= :before
AND kind IN ({", ".join(f"'{kind}'" for kind in RECALLED)})
AND EXISTS (SELECT 1 FROM memory_spans WHERE memory = memories.number AND until IS NULL)
"""
"""Active memories with a word of a query; CROSS JOIN has SQLite begin with the word."""


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


@dataclass(frozen=True)
class Counts:
    """How many memories of a space have a word, how many memories there are, and how many words in all of them.

    Memories numbered up to `read_to` are counted; `forgotten` attempts were forgotten by then.
    """

    memories_with: Mapping[str, int]
    memories: int
    length: int
    read_to: int
    forgotten: int

    @property
    def usual(self) -> float:
        """Mean number of words of a memory."""
        return self.length / self.memories if self.memories else 0.0

    def weight(self, word: str) -> float:
        """Inverse document frequency; a word that none has counts as if one had it."""
        return math.log1p(max(self.memories, 1) / max(self.memories_with.get(word, 0), 1))

    def rarest(self, query: Sequence[str]) -> list[str]:
        """The known words of a query, the rarest first, at most `RAREST`."""
        known = [word for word in dict.fromkeys(query) if word in self.memories_with]
        return sorted(known, key=lambda word: (self.memories_with[word], word))[:RAREST]

    def more(self, lines: Iterable[str], read_to: int) -> Counts:
        """These, and the words of further memories, a line for each."""
        memories_with, memories, length = Counter(self.memories_with), self.memories, self.length
        for line in lines:
            said = line.split()
            memories_with.update(set(said))
            memories, length = memories + 1, length + len(said)
        return Counts(memories_with, memories, length, read_to, self.forgotten)


class Shelf:
    """The memories of one space in the store. Any thread may use it."""

    def __init__(self, store: Store, space: str) -> None:
        self.store, self.space = store, space
        self._counting = threading.Lock()
        self._counts: Counts | None = None

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
                    _row_space == self.space, MEMORIES.c.number.in_(wanted[start : start + BATCH])
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

    def kinds(self) -> dict[str, int]:
        """Kinds with how many active memories are of each; those without any are left out."""
        mine = select(MEMORIES.c.kind, func.count()).join_from(MEMORIES, SPANS, SPANS.c.memory == MEMORIES.c.number)
        counted = mine.where(MEMORIES.c.space == self.space, SPANS.c.until.is_(None)).group_by(MEMORIES.c.kind)
        with self.store.reading() as connection:
            return {kind: int(count) for kind, count in connection.execute(counted.order_by(MEMORIES.c.kind))}

    def verified(self) -> int:
        """How many active memories are verified."""
        mine = select(func.count()).select_from(MEMORIES).join(SPANS, SPANS.c.memory == MEMORIES.c.number)
        true = func.json_extract(MEMORIES.c.body, "$.verified") == 1
        with self.store.reading() as connection:
            found = connection.execute(mine.where(MEMORIES.c.space == self.space, SPANS.c.until.is_(None), true))
            return int(found.scalar_one())

    def history(self, number: int) -> list[tuple[int, int | None, str]]:
        """The spans of a memory: since which version, until before which (None: still), and why it ended."""
        chosen = select(SPANS.c.since, SPANS.c.until, SPANS.c.why).where(SPANS.c.memory == number).order_by(SPANS.c.since)
        with self.store.reading() as connection:
            return [(row.since, row.until, row.why) for row in connection.execute(chosen)]

    def match(self, repo: str, query: Sequence[str], before: datetime, most: int) -> list[Found]:
        """Active memories of a repository with any of these words, best first by BM25; none whose task is later than `before`.

        FTS5 finds them, and they are ranked here: its own rank counts words in all spaces, and arms must not depend on one
        another. Only the rarest words of the query are looked up (`RAREST`, `POSTINGS`), and `READ` times as many memories as
        wanted are read for it, those first whose matching words weigh most; that hardly changes who is first.
        """
        counts = self._counted()
        rare = counts.rarest(query)
        postings = accumulate(counts.memories_with[word] for word in rare)
        if not (rare := rare[: max(1, sum(each <= POSTINGS for each in postings))]):
            return []
        weights = {word: counts.weight(word) for word in rare}
        here = place(self.space, repo)
        at = (
            f"place : {here} AND " if counts.memories_with.get(here, 0) <= POSTINGS else ""
        )  # beyond, it costs more than it saves
        asked = {f"word{n}": f'{at}words : "{word}"' for n, word in enumerate(rare)}
        lookup = " UNION ALL ".join(LOOKUP.format(n) for n in range(len(rare)))
        has: dict[int, float] = {}
        with self.store.reading() as connection:
            own = {"space": self.space, "repo": repo, "before": _stamp(before)}
            for n, number in connection.exec_driver_sql(lookup, asked | own):
                has[number] = has.get(number, 0.0) + weights[rare[n]]
            heaviest = sorted(has, key=lambda number: (-has[number], number))[: READ * most]
            said = select(WORDS.c.rowid, WORDS.c.words).where(WORDS.c.rowid.in_(heaviest))
            found = [Found(row.rowid, bm25(row.words.split(), weights, counts.usual)) for row in connection.execute(said)]
        return sorted(found, key=lambda each: (-each.score, each.number))[:most]

    def rarest(self, query: Sequence[str], most: int = RAREST) -> list[str]:
        """The words of a query that are known in this space at all, the rarest first, at most so many."""
        return self._counted().rarest(query)[:most]

    def rarities(self, query: Sequence[str]) -> dict[str, float]:
        """The rarest words of a query with their weights: inverse document frequency, log(1 + memories / memories with it).

        Words that no memory of this space has are the rarest, and weigh as much as those that one has.
        """
        counts = self._counted()
        ordered = sorted(dict.fromkeys(query), key=lambda word: (counts.memories_with.get(word, 0), word))
        return {word: counts.weight(word) for word in ordered[:RAREST]}

    def _counted(self) -> Counts:
        """The words of this space as they are now: those of new memories are added, and all counted anew after a forgetting."""
        of_space = MEMORIES.c.space == self.space
        with self._counting, self.store.reading() as connection:
            forgotten = int(connection.execute(select(func.count()).select_from(FORGOTTEN)).scalar_one())
            newest = int(connection.execute(select(func.max(MEMORIES.c.number))).scalar() or 0)
            counts = self._counts
            if counts is None or counts.forgotten != forgotten or newest < counts.read_to:
                counts = Counts({}, 0, 0, 0, forgotten)
            if newest > counts.read_to or counts is not self._counts:
                line = WORDS.c.place + " " + WORDS.c.words  # so that places are counted too
                added = select(line).join_from(MEMORIES, WORDS, MEMORIES.c.number == WORDS.c.rowid)
                lines = connection.execute(added.where(of_space, MEMORIES.c.number > counts.read_to)).scalars()
                self._counts = counts = counts.more(lines, newest)
            return counts

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
            .where(_row_space == self.space, USES.c.cited.is_(False))
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
        """Make active what was active in version `number`, as a new version. Raises `RecordError` if there was none.

        What is made after a restoring comes, in the order of versions, right after the one that was restored, before all
        that had followed that one until then. Going back in this order is exact: what was learnt since is closed. Going
        forward, which undoes a going back, also keeps what is active now and was first learnt after version `number`: it is
        no part of what was gone back on. Where the last restoring was of the version just before it, and so changed
        nothing, restoring that version once more counts as undoing it. A restoring always makes a version.
        """
        with self.store.writing("the knowledge") as connection:
            now = self._version(connection)
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
            return self._changed(connection, why, close, sorted(then - active), (), books, gone, restored=number)[0]

    def used(self, trajectory_id: str, memory_ids: Iterable[str], cited: Iterable[str] = ()) -> None:
        """Record that these memories were shown to an attempt, and others as facts of the handbook that cite them.

        What was only cited is forgotten with the prompt it is in, but is no use that is counted.
        """
        shown = set(memory_ids)
        mine = and_(MEMORIES.c.space == self.space, MEMORIES.c.id.in_(shown.union(cited)))
        with self.store.writing("the use of memories") as connection:
            found = connection.execute(select(MEMORIES.c.number, MEMORIES.c.id).where(mine)).all()
            known = set(connection.execute(select(USES.c.memory).where(USES.c.trajectory_id == trajectory_id)).scalars())
            rows = [
                {"memory": row.number, "trajectory_id": trajectory_id, "cited": row.id not in shown}
                for row in found
                if row.number not in known
            ]
            if rows:
                connection.execute(insert(USES), rows)

    def reindex_words(self) -> int:
        """Make the words of every memory of every space anew, whatever became of them; returns of how many memories."""
        with self._counting, self.store.writing("the words of memories") as connection:
            make_words(connection)
            numbers = connection.execute(select(MEMORIES.c.number).order_by(MEMORIES.c.number)).scalars().all()
            for start in range(0, len(numbers), BATCH):
                part = MEMORIES.c.number.in_(numbers[start : start + BATCH])
                rows = connection.execute(select(MEMORIES.c.number, MEMORIES.c.space, MEMORIES.c.body).where(part))
                lines = [_words(row.number, row.space, Memory.model_validate_json(row.body)) for row in rows]
                connection.execute(insert(WORDS), lines)
            self._counts = None
            return len(numbers)

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
        restored: int | None = None,
    ) -> tuple[Version, list[int]]:
        close = close or {}
        before = self._version(connection)
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

    def made_anew(self, connection: Connection, why: str, reopen: Sequence[int], removed: Sequence[int]) -> Version:
        """The version after something was removed for good, inside the transaction that removed it."""
        before = self._version(connection)
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
                lines.append(_words(number, self.space, memory))
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


def _words(number: int, space: str, memory: Memory) -> dict[str, object]:
    return {"rowid": number, "place": place(space, memory.repo), "words": " ".join(words(memory.text))}


def place(space: str, repo: str) -> str:
    """The word under which a repository's memories in a space are found."""
    return f"at{content_hash([space, repo])}"


def _during(spans: TableClause, number: int) -> ColumnElement[bool]:
    """Spans that cover a version."""
    return and_(spans.c.since <= number, or_(spans.c.until.is_(None), spans.c.until > number))


def _stamp(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="microseconds")
