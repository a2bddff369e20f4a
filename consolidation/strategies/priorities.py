"""In which order old examples are worth keeping; where two are worth the same, the newer one comes first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from consolidation.adapters import Adapter
from consolidation.pairs import Source
from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Sample
from consolidation.trainers.base import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Priority = Literal["recency", "difficulty", "diversity", "confidence"]
_SURE: dict[Source, int] = {"agent": 0, "rehearsal": 1, "merged_fix": 2}


def by_priority(priority: Priority, samples: Sequence[Sample], previous: Adapter | None, bench: Bench) -> list[int]:
    """Numbers of the samples (in the order in which they were lived), the highest priority first."""
    newest = list(reversed(range(len(samples))))
    if priority == "recency":
        return newest
    if priority == "confidence":
        return sorted(newest, key=lambda number: _doubt(samples[number]))
    if priority == "difficulty":
        examples = [s.item if isinstance(s.item, Example) else s.item.chosen for s in samples]
        losses = bench.loss("replay-loss", examples, previous.folder if previous is not None else None)
        return sorted(newest, key=lambda number: -losses[number])
    texts = [told(sample) for sample in samples]
    return [int(number) for number in bench.aside("replay-cover", texts, lambda: covering(bench.embed(texts)))]


def told(sample: Sample) -> str:
    """What an example is about: the issue, and what is learnt to say of it."""
    pair = sample.pair
    issue = next((text for role, text in pair.messages if role == "user"), "")
    own = [text for role, text in pair.messages if role == "assistant"]
    return "\n".join([issue, *(text for turn, text in enumerate(own) if turn not in pair.untaught)])


def covering(vectors: NDArray[np.float32]) -> list[int]:
    """Rows (vectors of length 1), so that every beginning of the list covers them all well: greedy k-centre.

    The newest first, then always the one farthest from those before (Gonzalez 1985, "Clustering to minimize the maximum
    intercluster distance": at most twice the radius of the best choice of as many).
    """
    import numpy as np

    count = len(vectors)
    chosen: list[int] = []
    nearest = np.full(count, -np.inf)  # cosine to the nearest one that is chosen; infinite for those themselves
    at = count - 1
    while len(chosen) < count:
        chosen.append(at)
        nearest = np.maximum(nearest, vectors @ vectors[at])
        nearest[at] = np.inf
        at = count - 1 - int(np.argmin(nearest[::-1]))
    return chosen


def _doubt(sample: Sample) -> tuple[float, int, int]:
    turns = sum(role == "assistant" for role, _ in sample.pair.messages)
    return -sample.pair.confidence, _SURE[sample.pair.source], turns
