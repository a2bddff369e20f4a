"""The shelf: memories in the store, with the words they are found by, and every state they were ever in.

A state of the knowledge is a numbered *version*; each change makes the next one, in one transaction. A memory is active
in the versions of its spans, so that any earlier version can be restored, and restoring it can be undone. Memories lie in
a *space* (an arm under a configuration); what is in one space is never seen from another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, exists, func, insert, select

from memory.errors import RecordError
from memory.knowledge.literal import RAREST, Found, Literal
from memory.knowledge.memories import Handbook, Kind, Memory
from memory.knowledge.states import States, Version
from memory.knowledge.tables import BATCH, DISTILLED, HANDBOOKS, MEMORIES, SPANS, TRAJECTORIES, USES, VERSIONS, row_space
from memory.store import FORGOTTEN, Store
from memory.trajectories import Outcome


@dataclass(frozen=True)
class Use:
    """How often a memory was recalled, and how many of those attempts that are over were resolved."""

    recalled: int = 0
    ended: int = 0
    resolved: int = 0


class Shelf:
    """The memories of one space in the store. Any thread may use it."""

    def __init__(self, store: Store, space: str) -> None:
        self.store, self.space = store, space
        self._literal, self._states = Literal(store, space), States(space)

    # Looking.

    def version(self) -> Version:
        """The state it is in; number 0 where nothing was remembered yet."""
        with self.store.reading() as connection:
            return self._states.version(connection)

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
                    row_space == self.space, MEMORIES.c.number.in_(wanted[start : start + BATCH])
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
        """See `Literal.match`."""
        return self._literal.match(repo, query, before, most)

    def rarest(self, query: Sequence[str], most: int = RAREST) -> list[str]:
        """See `Literal.rarest`."""
        return self._literal.rarest(query, most)

    def rarities(self, query: Sequence[str]) -> dict[str, float]:
        """See `Literal.rarities`."""
        return self._literal.rarities(query)

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
            .where(row_space == self.space, USES.c.cited.is_(False))
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
            return self._states.changed(connection, why, add=memories)[1]

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
            return self._states.changed(connection, why, close or {}, list(reopen), add, books)

    def restore(self, number: int, why: str) -> Version:
        """Make active what was active in version `number`, as a new version. Raises `RecordError` if there was none.

        What is made after a restoring comes, in the order of versions, right after the one that was restored, before all
        that had followed that one until then. Going back in this order is exact: what was learnt since is closed. Going
        forward, which undoes a going back, also keeps what is active now and was first learnt after version `number`: it is
        no part of what was gone back on. Where the last restoring was of the version just before it, and so changed
        nothing, restoring that version once more counts as undoing it. A restoring always makes a version.
        """
        with self.store.writing("the knowledge") as connection:
            return self._states.restored(connection, number, why)

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
        """See `Literal.reindex`."""
        return self._literal.reindex()

    def made_anew(self, connection: Connection, why: str, reopen: Sequence[int], removed: Sequence[int]) -> Version:
        """The version after something was removed for good, inside the transaction that removed it."""
        return self._states.made_anew(connection, why, reopen, removed)

    def _done(self, connection: Connection, ids: Sequence[str]) -> set[str]:
        mine = and_(DISTILLED.c.space == self.space, DISTILLED.c.trajectory_id.in_(ids))
        done = set(connection.execute(select(DISTILLED.c.trajectory_id).where(mine)).scalars())
        return done | set(
            connection.execute(select(FORGOTTEN.c.trajectory_id).where(FORGOTTEN.c.trajectory_id.in_(ids))).scalars()
        )
