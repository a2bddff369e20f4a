"""The knowledge layer: recalls what fits a task and may be known by then, and remembers what attempts taught."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from memory.errors import KnowledgeError
from memory.hashing import content_hash, source_hash
from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.embedders import Embedder
from memory.knowledge.handbook import holds
from memory.knowledge.held import Near
from memory.knowledge.index import ChromaIndex, Synced
from memory.knowledge.memories import RECALLED, Entry, Memory, Recalled
from memory.knowledge.ranking import Candidate, chosen, covered, fused, trust
from memory.knowledge.seam import SCRUB
from memory.knowledge.shelf import Shelf, Use
from memory.knowledge.words import words
from memory.store import Store
from memory.tasks import Task

OWNER = "knowledge.owner"
"""Note of an id of this store, by which a Chroma server tells it from others."""
CANDIDATES = 40
"""Memories that each of the two searches gives for the fusion."""
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class Ranked:
    """A memory that was looked for, with what speaks for it."""

    number: int
    memory: Memory
    similarity: float
    covered: float
    score: float
    fits: bool


class Knowledge:
    """The knowledge of one arm under one configuration (`space`): memories in the store, found through Chroma and BM25.

    `folder` is where the embedded Chroma lies. `held_out` are tasks whose attempts are never remembered or recalled.
    `cost` is how many characters a memory takes when it is shown, `fact_cost` a fact. One process at a time may have one
    open; within it, any thread may use it.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        embedder: Embedder,
        config: KnowledgeConfig,
        space: str,
        held_out: Set[str] = frozenset(),
        cost: Callable[[Memory], int] = lambda memory: len(memory.text),
        fact_cost: Callable[[Entry], int] = lambda entry: len(entry.fact) + 1,
    ) -> None:
        self.store, self.config, self.embedder = store, config, embedder
        self.shelf = Shelf(store, space)
        self.index = ChromaIndex(space, embedder, folder, config.url, owner=_owner(store))
        self._held_out, self._cost, self._fact_cost = held_out, cost, fact_cost
        self._synced = -1

    @property
    def digest(self) -> str:
        """See `memory.knowledge.seam.KnowledgeLayer`."""
        told = self.config.model_dump(exclude={"url", "embedder"})
        return content_hash([told, self.embedder.name, source_hash((Path(__file__).parent,))])

    def close(self) -> None:
        """Let go of the index."""
        self.index.close()

    # Recall.

    def recall(self, task: Task, now: datetime) -> Recalled:
        """See `memory.knowledge.seam.KnowledgeLayer`.

        Raises:
            KnowledgeError: the index or its server cannot be used.
        """
        version = self.sync()
        fitting = [found for found in self._look_up(task.repo, task.issue, task.created_at, now, task.id) if found.fits]
        room = self.config.tokens * CHARACTERS_PER_TOKEN
        facts = self._facts(task, now, room // 2)
        room -= sum(self._fact_cost(fact) for fact in facts)
        picked = chosen(
            (Candidate(f.number, f.memory, f.similarity, f.covered, f.score) for f in fitting),
            self.config.most,
            room,
            self.config.diversity,
            self._cost,
        )
        return Recalled(version=version, memories=tuple(c.memory for c in picked), facts=tuple(facts))

    def used(self, trajectory_id: str, recalled: Recalled) -> None:
        """See `memory.knowledge.seam.KnowledgeLayer`."""
        if recalled:
            cited = [cite for fact in recalled.facts for cite in fact.cites]
            self.shelf.used(trajectory_id, [memory.id for memory in recalled.memories], cited=cited)

    def search(self, query: str, repo: str, at: datetime, most: int = 10) -> list[Ranked]:
        """Memories for a text, best first, those below the floor included."""
        self.sync()
        return self._look_up(repo, query, at, at)[:most]

    def _look_up(self, repo: str, query: str, before: datetime, now: datetime, itself: str = "") -> list[Ranked]:
        config = self.config
        asked = words(query)
        near = {found.number: found.similarity for found in self._near(query, repo, before)}
        literal = [found.number for found in self.shelf.match(repo, asked, before, CANDIDATES)]
        memories = {
            number: memory
            for number, memory in self.shelf.get([*near, *literal]).items()
            if self._may(memory, repo, before, now, itself)
        }
        uses = self.shelf.uses(memories)
        weights = self.shelf.rarities(asked)
        floor = self.embedder.floor if config.floor < 0 else config.floor
        scores = fused([n for n in near if n in memories], [n for n in literal if n in memories])
        ranked = []
        for number, memory in memories.items():
            share = covered(weights, memory)
            ranked.append(
                Ranked(
                    number=number,
                    memory=memory,
                    similarity=near.get(number, 0.0),
                    covered=share,
                    score=scores[number] * trust(memory, uses.get(number, Use())),
                    fits=near.get(number, 0.0) >= floor or share >= config.words_floor,
                )
            )
        return sorted(ranked, key=lambda found: (-found.score, found.number))

    def _near(self, query: str, repo: str, before: datetime) -> list[Near]:
        try:
            return self.index.query(query, repo, before, CANDIDATES)
        except KnowledgeError:  # what broke once is brought in line once, and asked again
            self._sync()
            return self.index.query(query, repo, before, CANDIDATES)

    def _may(self, memory: Memory, repo: str, before: datetime, now: datetime, itself: str) -> bool:
        """Whether a memory may be recalled at all. The searches look at most of this too; here it is decided."""
        return (
            memory.kind in RECALLED
            and memory.repo == repo
            and memory.created_at <= before
            and memory.recorded_at <= now
            and memory.task_id != itself
            and memory.task_id not in self._held_out
        )

    def _facts(self, task: Task, now: datetime, room: int) -> list[Entry]:
        """The handbook's facts that were known by then, each with the citations that were."""
        book = self.shelf.handbook(task.repo)
        found: list[Entry] = []
        if book is None:
            return found
        cited = self.shelf.by_id({cite for entry in book.entries for cite in entry.cites})
        for entry in book.entries:
            known = tuple(cite for cite in entry.cites if cite in cited and self._known(cited[cite], task, now))
            if holds(entry, set(known)) and (size := self._fact_cost(entry)) <= room:
                found.append(entry.model_copy(update={"cites": known}))
                room -= size
        return found

    def _known(self, memory: Memory, task: Task, now: datetime) -> bool:
        before = memory.created_at <= task.created_at and memory.recorded_at <= now
        return before and memory.task_id != task.id and memory.task_id not in self._held_out

    # Remembering.

    def remember(self, distilled: Mapping[str, Sequence[Memory]]) -> list[int]:
        """Keep what attempts taught (id of the attempt to its memories); what is known already is left as it is.

        It is in the store when this returns; if the process dies before the index has it, the next start adds it.
        """
        allowed = {
            identity: [memory for memory in memories if memory.task_id not in self._held_out]
            for identity, memories in distilled.items()
        }
        self.sync()
        numbers = self.shelf.put(allowed)
        if numbers:
            self.index.add(self._recallable(numbers))
            if self.shelf.version().number == self._synced + 1:  # nobody else has changed anything meanwhile
                self._synced += 1
        return numbers

    def _recallable(self, numbers: Iterable[int]) -> dict[int, Memory]:
        return {number: memory for number, memory in self.shelf.get(numbers).items() if memory.kind in RECALLED}

    # The index.

    def sync(self) -> str:
        """Bring the index to what is active in the store, if another process or a kill has parted them; the version."""
        if self._synced < 0 and self.store.note(SCRUB):  # something was forgotten while the index could not be reached
            self.index.scrub()
            self.store.set_note(SCRUB, "")
        version = self.shelf.version()
        if version.number != self._synced:
            self._sync()
            self._synced = version.number
        return str(version)

    def rebuild(self, on_progress: Callable[[int, int], None] = lambda done, all_: None) -> Synced:
        """Make the index anew from the store."""
        self.index.drop()
        self.shelf.reindex_words()
        version = self.shelf.version().number
        done = self._sync(on_progress)
        self._synced = version
        return done

    def scrub(self) -> str:
        """Remove every trace of what was forgotten from the index, by making it anew; the version."""
        self.store.set_note(SCRUB, "1")
        self._synced = -1
        return self.sync()

    def _sync(self, on_progress: Callable[[int, int], None] = lambda done, all_: None) -> Synced:
        return self.index.sync(self.shelf.active(kinds=RECALLED), self.shelf.get, on_progress)


def _owner(store: Store) -> str:
    known = store.note(OWNER)
    if known is None:
        known = uuid4().hex[:16]
        store.set_note(OWNER, known)
    return known
