"""What is held in memory of Chroma's collections: times and vectors, so that they are not asked for again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.knowledge.chroma import Chroma

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection
    from numpy.typing import NDArray

BATCH = 500
PAGE = 10_000
"""Times that are asked for at once; of more than 32,766 Chroma's SQL fails."""
KEPT = 16_384
"""Vectors in memory; with 384 dimensions they take 25 MB."""


@dataclass(frozen=True)
class Near:
    """A memory near a text, with their cosine similarity."""

    number: int
    similarity: float


@dataclass
class Held:
    """A collection, and once it was asked, when the tasks of its memories were (by number; and both by time)."""

    collection: Collection
    times: dict[int, float] | None = None
    ordered: tuple[NDArray[np.int64], NDArray[np.float64]] | None = None

    def until(self, latest: float) -> list[int]:
        """Numbers of those that are early enough, earliest first."""
        assert self.times is not None
        if self.ordered is None:
            numbers = np.fromiter(self.times, np.int64, len(self.times))
            times = np.fromiter(self.times.values(), np.float64, len(self.times))
            order = np.argsort(times, kind="stable")
            self.ordered = numbers[order], times[order]
        numbers, times = self.ordered
        return numbers[: np.searchsorted(times, latest, side="right")].tolist()  # type: ignore[no-any-return, unused-ignore]


class Kept:
    """What is known of the collections of one space, by repository. Hold Chroma's lock around every use."""

    def __init__(self, chroma: Chroma) -> None:
        self._chroma = chroma
        self.collections: dict[str, Held] = {}
        self._vectors: dict[int, NDArray[np.float32]] = {}

    def clear(self) -> None:
        """Forget all of it."""
        self.collections.clear()
        self._vectors.clear()

    def times(self, held: Held) -> dict[int, float]:
        """When the tasks of its memories were; asked for once."""
        if held.times is None:
            times: dict[int, float] = {}
            part: Any = None
            while part is None or len(part["ids"]) == PAGE:
                with self._chroma.asking():
                    part = held.collection.get(include=["metadatas"], limit=PAGE, offset=len(times))
                times.update((int(n), float(about["at"])) for n, about in zip(part["ids"], part["metadatas"], strict=True))
            held.times = times
        return held.times

    def nearest(self, collection: Collection, numbers: Sequence[int], vector: NDArray[np.float32], most: int) -> list[Near]:
        """The nearest of these, by their exact similarity."""
        found: list[int] = []
        similarities: list[NDArray[np.float32]] = []
        for part in batches(numbers):
            if missing := [str(number) for number in part if number not in self._vectors]:
                with self._chroma.asking():
                    got: Any = collection.get(ids=missing, include=["embeddings"])
                fresh = zip(got["ids"], got["embeddings"], strict=True)
                self._vectors.update((int(number), np.asarray(row, np.float32)) for number, row in fresh)
            there = [number for number in part if number in self._vectors]
            rows = np.array([self._vectors[number] for number in there], np.float32).reshape(len(there), len(vector))
            found.extend(there)
            similarities.append(rows @ vector)
            if len(self._vectors) > KEPT:
                for number in list(self._vectors)[:-KEPT]:
                    del self._vectors[number]
        every = np.concatenate([np.zeros(0, np.float32), *similarities])
        return [Near(found[at], float(every[at])) for at in np.lexsort((np.array(found), -every))[:most]]

    def changed(self, held: Held, numbers: Iterable[int]) -> None:
        """Forget what was known of these."""
        held.ordered = None
        for number in numbers:
            self._vectors.pop(number, None)
            if held.times is not None:
                held.times.pop(number, None)


def batches(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Numbers in order, as many at once as Chroma is told of."""
    ordered = sorted(numbers)
    return (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))
