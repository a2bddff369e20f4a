"""The index: memories by their meaning, in Chroma. It holds vectors and times, no text, and can be made anew at any time.

Each repository of a space has a collection of its own, so that no query need filter by either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.errors import KnowledgeError
from memory.hashing import content_hash
from memory.knowledge.chroma import ADVICE, Chroma
from memory.knowledge.embedders import Embedder
from memory.knowledge.held import Held, Kept, Near, batches
from memory.knowledge.memories import Memory
from memory.knowledge.words import LONGEST_TEXT

if TYPE_CHECKING:
    from chromadb.api.collection_configuration import CreateHNSWConfiguration
    from chromadb.api.models.Collection import Collection

HNSW: CreateHNSWConfiguration = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32}
LEAST = 200
"""Vectors that are looked at for any query. If no more are early enough, they are searched exactly."""
SPARE = 1.5
"""How many times as many as should be needed HNSW is asked for, because later ones are dropped after it."""
WIDE = 800
"""If HNSW would be asked for more (10 ms), and ..."""
EXACT = 10_000
"""... no more than these are early enough, they are searched exactly: 20 ms, once their vectors are in memory (0.3 s)."""


@dataclass(frozen=True)
class Synced:
    """What it took to bring the index in line. `embedded_anew`: the embedder had changed, or the folder was damaged."""

    added: int
    removed: int
    embedded_anew: bool


class ChromaIndex:
    """The memories of one space, embedded in `folder`, or on the Chroma server at `url`.

    Spaces may share a folder within one process, owners (any name of a store) a server; each sees and changes its own only.
    One index at a time may be open for a space; any thread may use it. Every method raises `KnowledgeError` if Chroma
    fails; after that, `sync` repairs what can be repaired.

    A kill in the midst of a change makes a folder be filled anew: 30-90 s per 10,000 memories with the built-in embedder.
    """

    def __init__(self, space: str, embedder: Embedder, folder: Path, url: str = "", *, owner: str = "") -> None:
        self.space, self.embedder, self.owner = space, embedder, owner
        self._chroma = Chroma(folder, url)
        self._kept = Kept(self._chroma)
        self._anew = self._chroma.begun_anew

    def sync(
        self,
        wanted: Mapping[int, str],
        load: Callable[[Sequence[int]], Mapping[int, Memory]],
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Synced:
        """Hold just the wanted memories (number to repository): drop the others, load and embed what is missing.

        What another embedder made is made anew, and everything where Chroma fails over what it holds.
        """
        with self._chroma.lock:
            self._let_go()
            self._start_anew()
            try:
                added, removed = self._synced(wanted, load, on_progress)
            except KnowledgeError:
                if not self._start_anew():
                    raise
                added, removed = self._synced(wanted, load, on_progress)
            anew, self._anew = self._anew, False
            return Synced(added, removed, anew)

    def add(self, memories: Mapping[int, Memory]) -> None:
        """Hold these memories too."""
        with self._chroma.lock, self._chroma.writing():
            for repo, numbers in _by_repo({number: memory.repo for number, memory in memories.items()}).items():
                self._put(repo, {number: memories[number] for number in numbers})

    def remove(self, numbers: Iterable[int]) -> None:
        """Hold these no longer, whichever repository they are of; what it does not hold does not matter."""
        gone = set(numbers)
        with self._chroma.lock, self._chroma.writing():
            for repo, collection in self._held().items() if gone else ():
                self._delete(repo, collection, gone)

    def query(self, text: str, repo: str, before: datetime, most: int) -> list[Near]:
        """Memories of a repository nearest to a text, best first; none whose task is later than `before`.

        Raises `KnowledgeError` too if the index was begun anew, or scrubbed, and not filled by `sync` since.
        """
        with self._chroma.lock:
            if self._anew:
                raise KnowledgeError(f"the index was begun anew, and is not filled yet; {ADVICE}")
            held = self._collection(repo)
            if held is None or most <= 0:
                return []
            vector = self.embedder.embed([text[:LONGEST_TEXT]])[0]
            times, latest = self._kept.times(held), before.timestamp()
            early = held.until(latest)
            wide = max(LEAST, ceil(SPARE * most * len(times) / max(len(early), 1)))
            exact = len(early) <= LEAST or (wide > WIDE and len(early) <= EXACT)
            ways: list[dict[str, Any]] = [{"n_results": wide}, {"n_results": most, "where": {"at": {"$lte": latest}}}]
            for how in ways if not exact else ():
                with self._chroma.asking():
                    answer: Any = held.collection.query(query_embeddings=[vector], include=["distances"], **how)
                rows = ((int(number), far) for number, far in zip(answer["ids"][0], answer["distances"][0], strict=True))
                found = [Near(number, 1 - far) for number, far in rows if times.get(number, np.inf) <= latest]
                if len(found) >= min(most, len(early)):
                    break
            else:  # few, or HNSW cannot reach them
                found = self._kept.nearest(held.collection, early, vector, most)
            self._chroma.blank()
            return sorted(found, key=lambda near: (-near.similarity, near.number))[:most]

    def drop(self) -> None:
        """Remove everything of this space."""
        with self._chroma.lock:
            self._let_go()
            self._start_anew()
            try:
                with self._chroma.writing():
                    for repo, collection in self._held().items():
                        self._drop(repo, collection)
            except KnowledgeError:
                if not self._start_anew():
                    raise

    def scrub(self) -> None:
        """Leave no byte of what was removed. It is empty then, until `sync` fills it.

        The embedded folder is deleted for all its spaces, and what was damaged beside it. A server is told to delete the
        collections; what stays in its own files is for its operator to remove (`chroma vacuum`).

        Raises:
            KnowledgeError: also if another index of this process has the folder open; nothing was removed then.
        """
        with self._chroma.lock:
            if self._chroma.url:
                self.drop()
            else:
                self._chroma.erase()
                self._let_go()
            self._anew = True

    def count(self) -> int:
        """How many memories it holds."""
        with self._chroma.lock:
            held = self._held().values()
            with self._chroma.asking():
                return sum(collection.count() for collection in held)

    def close(self) -> None:
        """Let go of the folder or the server; closing twice does nothing."""
        self._let_go()
        self._chroma.close()

    # Bringing it in line.

    def _synced(
        self,
        wanted: Mapping[int, str],
        load: Callable[[Sequence[int]], Mapping[int, Memory]],
        on_progress: Callable[[int, int], None],
    ) -> tuple[int, int]:
        missing = _by_repo(wanted)
        surplus: list[tuple[str, Collection, set[int] | None]] = []
        added = removed = done = 0
        for repo, collection in self._held().items():
            held = self._numbers(collection)
            want = missing.get(repo, set())
            removed += len(held - want)
            if self._is_foreign(collection) or not want:
                self._anew |= self._is_foreign(collection)
                surplus.append((repo, collection, None))
                continue
            self._kept.collections[repo] = Held(collection)
            missing[repo] = want - held
            if held - want:
                surplus.append((repo, collection, held - want))
        total = sum(map(len, missing.values()))
        if not surplus and not total:
            return 0, 0
        with self._chroma.writing():
            for repo, collection, gone in surplus:
                if gone is None:
                    self._drop(repo, collection)
                else:
                    self._delete(repo, collection, gone)
            for repo, numbers in missing.items():
                for part in batches(numbers):
                    memories = load(part)
                    self._put(repo, memories)
                    added, done = added + len(memories), done + len(part)
                    on_progress(done, total)
        return added, removed

    def _start_anew(self) -> bool:
        """Begin anew if Chroma failed over what it holds."""
        if not self._chroma.start_anew():
            return False
        self._let_go()
        self._anew = True
        return True

    def _let_go(self) -> None:
        """Forget what was known of Chroma's collections: they may be gone, or others."""
        self._kept.clear()

    def _held(self) -> dict[str, Collection]:
        """The collections of this owner and space, by repository."""
        every: list[Collection] = []
        with self._chroma.asking() as client:
            while part := client.list_collections(limit=100, offset=len(every)):
                every.extend(part)
        mine = {"owner": self.owner, "space": self.space}
        return {str(c.metadata["repo"]): c for c in every if c.metadata and mine.items() <= dict(c.metadata).items()}

    def _numbers(self, collection: Collection) -> set[int]:
        with self._chroma.asking():
            return {int(number) for number in collection.get(include=[])["ids"]}

    def _is_foreign(self, collection: Collection) -> bool:
        return bool(collection.metadata["embedder"] != self.embedder.name)

    def _collection(self, repo: str) -> Held | None:
        from chromadb.errors import NotFoundError

        if repo not in self._kept.collections:
            with self._chroma.asking() as client:
                try:
                    collection = client.get_collection(self._name(repo), embedding_function=None)
                except NotFoundError:
                    return None
            if self._is_foreign(collection):
                raise KnowledgeError(f"the index was made with {collection.metadata['embedder']}; {ADVICE}")
            self._kept.collections[repo] = Held(collection)
        return self._kept.collections[repo]

    def _name(self, repo: str) -> str:
        return f"k-{content_hash([self.owner, self.space, repo])}"

    def _put(self, repo: str, memories: Mapping[int, Memory]) -> None:
        if not memories:
            return
        held = self._collection(repo)
        if held is None:
            about = {"owner": self.owner, "space": self.space, "repo": repo, "embedder": self.embedder.name}
            with self._chroma.asking() as client:
                collection = client.create_collection(
                    self._name(repo), metadata=about, configuration={"hnsw": HNSW}, embedding_function=None
                )
            held = self._kept.collections[repo] = Held(collection, {})
        for part in batches(memories):
            vectors = self.embedder.embed([memories[number].text[:LONGEST_TEXT] for number in part])
            times = {number: memories[number].created_at.timestamp() for number in part}
            abouts: list[Mapping[str, Any]] = [{"at": at} for at in times.values()]
            self._kept.changed(held, part)
            with self._chroma.asking():
                held.collection.upsert(ids=[str(number) for number in part], embeddings=vectors, metadatas=abouts)
            if held.times is not None:
                held.times |= times

    def _delete(self, repo: str, collection: Collection, numbers: Iterable[int]) -> None:
        for part in batches(numbers):
            if repo in self._kept.collections:
                self._kept.changed(self._kept.collections[repo], part)
            with self._chroma.asking():
                if ids := collection.get(ids=[str(number) for number in part], include=[])["ids"]:
                    collection.delete(ids=ids)

    def _drop(self, repo: str, collection: Collection) -> None:
        self._kept.collections.pop(repo, None)
        with self._chroma.asking() as client:
            client.delete_collection(collection.name)


def _by_repo(repos: Mapping[int, str]) -> dict[str, set[int]]:
    parts: dict[str, set[int]] = {}
    for number, repo in repos.items():
        parts.setdefault(repo, set()).add(number)
    return parts
