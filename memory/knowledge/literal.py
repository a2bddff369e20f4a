"""Memories by their words: what is found literally, and how rare each word is in its space."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate

from sqlalchemy import func, insert, select

from memory.hashing import content_hash
from memory.knowledge.memories import RECALLED, Memory
from memory.knowledge.tables import BATCH, MEMORIES, WORDS, stamp
from memory.knowledge.words import bm25, words
from memory.migrations import make_words
from memory.store import FORGOTTEN, Store

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


class Literal:
    """The words of one space's memories. Any thread may use it."""

    def __init__(self, store: Store, space: str) -> None:
        self.store, self.space = store, space
        self._counting = threading.Lock()
        self._counts: Counts | None = None

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
            own = {"space": self.space, "repo": repo, "before": stamp(before)}
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

    def reindex(self) -> int:
        """Make the words of every memory of every space anew, whatever became of them; returns of how many memories."""
        with self._counting, self.store.writing("the words of memories") as connection:
            make_words(connection)
            numbers = connection.execute(select(MEMORIES.c.number).order_by(MEMORIES.c.number)).scalars().all()
            for start in range(0, len(numbers), BATCH):
                part = MEMORIES.c.number.in_(numbers[start : start + BATCH])
                rows = connection.execute(select(MEMORIES.c.number, MEMORIES.c.space, MEMORIES.c.body).where(part))
                lines = [words_row(row.number, row.space, Memory.model_validate_json(row.body)) for row in rows]
                connection.execute(insert(WORDS), lines)
            self._counts = None
            return len(numbers)

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


def words_row(number: int, space: str, memory: Memory) -> dict[str, object]:
    """The row of a memory's words."""
    return {"rowid": number, "place": place(space, memory.repo), "words": " ".join(words(memory.text))}


def place(space: str, repo: str) -> str:
    """The word under which a repository's memories in a space are found."""
    return f"at{content_hash([space, repo])}"
