"""The index: memories by their meaning, in Chroma. It holds vectors and times, no text, and can be made anew at any time.

Each repository of a space has a collection of its own, so that no query need filter by either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memory.errors import KnowledgeError
from memory.hashing import content_hash
from memory.knowledge.chroma import ADVICE, Chroma
from memory.knowledge.embedders import Embedder
from memory.knowledge.memories import Memory
from memory.knowledge.words import LONGEST_TEXT

if TYPE_CHECKING:
    from chromadb.api.collection_configuration import CreateHNSWConfiguration
    from chromadb.api.models.Collection import Collection

BATCH = 500
HNSW: CreateHNSWConfiguration = {"space": "cosine", "ef_construction": 200, "max_neighbors": 32}
LEAST = 200
"""Vectors that are looked at for any query. A collection with fewer is searched exactly."""
WIDER = (4, 32)
"""How many times as many as wanted are looked at, in turn, before Chroma has to filter by time (50-150 ms)."""


@dataclass(frozen=True)
class Near:
    """A memory near a text, with their cosine similarity."""

    number: int
    similarity: float


@dataclass(frozen=True)
class Synced:
    """What it took to bring the index in line. `embedded_anew`: the embedder had changed, or the folder was damaged."""

    added: int
    removed: int
    embedded_anew: bool


class ChromaIndex:
    """The memories of one space, embedded in `folder`, or on the Chroma server at `url`.

    Spaces may share a folder within one process, and any thread may use it. Every method raises `KnowledgeError` if
    Chroma fails.
    """

    def __init__(self, space: str, embedder: Embedder, folder: Path, url: str = "") -> None:
        self.space, self.embedder = space, embedder
        self._chroma = Chroma(folder, url)
        self._collections: dict[str, Collection] = {}
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
            for collection in self._held().values() if gone else ():
                self._delete(collection, gone)

    def query(self, text: str, repo: str, before: datetime, most: int) -> list[Near]:
        """Memories of a repository nearest to a text, best first; none whose task is later than `before`."""
        with self._chroma.lock:
            collection = self._collection(repo)
            if collection is None or most <= 0:
                return []
            vector = self.embedder.embed([text[:LONGEST_TEXT]])[0]
            early: Any = {"at": {"$lte": before.timestamp()}}
            asked: list[dict[str, Any]] = [{"n_results": max(times * most, LEAST)} for times in WIDER]
            for how in (*asked, {"n_results": most, "where": early}):
                with self._chroma.asking():
                    answer: Any = collection.query(query_embeddings=[vector], include=["metadatas", "distances"], **how)
                rows = list(zip(answer["ids"][0], answer["metadatas"][0], answer["distances"][0], strict=True))
                found = [Near(int(number), 1 - far) for number, about, far in rows if about["at"] <= before.timestamp()]
                if len(rows) < how["n_results"]:  # all there are, but for those that HNSW cannot reach: look at each
                    with self._chroma.asking():
                        few: Any = collection.get(where=early, include=["embeddings"])
                    found = [Near(int(n), float(v @ vector)) for n, v in zip(few["ids"], few["embeddings"], strict=True)]
                    break
                if len(found) >= most:
                    break
            return sorted(found, key=lambda near: (-near.similarity, near.number))[:most]

    def drop(self) -> None:
        """Remove everything of this space."""
        with self._chroma.lock:
            self._start_anew()
            try:
                with self._chroma.writing():
                    for repo, collection in self._held().items():
                        self._drop(repo, collection)
            except KnowledgeError:
                if not self._start_anew():
                    raise

    def count(self) -> int:
        """How many memories it holds."""
        with self._chroma.lock:
            held = self._held().values()
            with self._chroma.asking():
                return sum(collection.count() for collection in held)

    def close(self) -> None:
        """Let go of the folder or the server; closing twice does nothing."""
        self._collections.clear()
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
                    self._delete(collection, gone)
            for repo, numbers in missing.items():
                for part in _batches(numbers):
                    memories = load(part)
                    self._put(repo, memories)
                    added, done = added + len(memories), done + len(part)
                    on_progress(done, total)
        return added, removed

    def _start_anew(self) -> bool:
        """Begin anew if Chroma failed over what it holds."""
        if not self._chroma.start_anew():
            return False
        self._collections.clear()
        self._anew = True
        return True

    def _held(self) -> dict[str, Collection]:
        """The collections of this space, by repository."""
        every: list[Collection] = []
        with self._chroma.asking() as client:
            while part := client.list_collections(limit=100, offset=len(every)):
                every.extend(part)
        return {str(c.metadata["repo"]): c for c in every if c.metadata and c.metadata.get("space") == self.space}

    def _numbers(self, collection: Collection) -> set[int]:
        with self._chroma.asking():
            return {int(number) for number in collection.get(include=[])["ids"]}

    def _is_foreign(self, collection: Collection) -> bool:
        return bool(collection.metadata["embedder"] != self.embedder.name)

    def _collection(self, repo: str) -> Collection | None:
        from chromadb.errors import NotFoundError

        if repo not in self._collections:
            with self._chroma.asking() as client:
                try:
                    collection = client.get_collection(self._name(repo), embedding_function=None)
                except NotFoundError:
                    return None
            if self._is_foreign(collection):
                raise KnowledgeError(f"the index was made with {collection.metadata['embedder']}; {ADVICE}")
            self._collections[repo] = collection
        return self._collections[repo]

    def _name(self, repo: str) -> str:
        return f"k-{content_hash([self.space, repo])}"

    def _put(self, repo: str, memories: Mapping[int, Memory]) -> None:
        if not memories:
            return
        collection = self._collection(repo)
        if collection is None:
            about = {"space": self.space, "repo": repo, "embedder": self.embedder.name}
            with self._chroma.asking() as client:
                collection = client.create_collection(
                    self._name(repo), metadata=about, configuration={"hnsw": HNSW}, embedding_function=None
                )
            self._collections[repo] = collection
        for part in _batches(memories):
            vectors = self.embedder.embed([memories[number].text[:LONGEST_TEXT] for number in part])
            times: list[Mapping[str, Any]] = [{"at": memories[number].created_at.timestamp()} for number in part]
            with self._chroma.asking():
                collection.upsert(ids=[str(number) for number in part], embeddings=vectors, metadatas=times)

    def _delete(self, collection: Collection, numbers: Iterable[int]) -> None:
        for part in _batches(numbers):
            with self._chroma.asking():
                if ids := collection.get(ids=[str(number) for number in part], include=[])["ids"]:
                    collection.delete(ids=ids)

    def _drop(self, repo: str, collection: Collection) -> None:
        self._collections.pop(repo, None)
        with self._chroma.asking() as client:
            client.delete_collection(collection.name)


def _by_repo(repos: Mapping[int, str]) -> dict[str, set[int]]:
    parts: dict[str, set[int]] = {}
    for number, repo in repos.items():
        parts.setdefault(repo, set()).add(number)
    return parts


def _batches(numbers: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(numbers)
    return (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))
