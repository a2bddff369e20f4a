"""Pairs that teach the same calls in nearly the same words."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.turns import render_full
from consolidation.encoding import taught_turns
from consolidation.leaks import grams_of, words
from consolidation.pairs import Pair
from consolidation.shortcuts import turns_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from consolidation.leaks import Grams

SHINGLE = 3
"""Words of a shingle (Broder 1997, "On the resemblance and containment of documents")."""


@dataclass(frozen=True)
class Close:
    """Finds pairs whose Jaccard similarity to one that is kept is at least `least`: exactly, by prefix filtering.

    Two sets of that similarity share one of their rarest shingles: of the first |x| - ceil(least |x|) + 1 in the order
    of how many have them (Bayardo et al. 2007, "Scaling Up All Pairs Similarity Search").
    """

    least: float

    def repeats(self, pairs: Sequence[Pair]) -> list[bool]:
        """For each pair whether one that is kept before it teaches the same calls in nearly the same words."""
        ranked = _rare_first([_shingles(pair) for pair in pairs])
        index: dict[tuple[str, int], list[int]] = defaultdict(list)
        found: list[bool] = []
        for number, (pair, shingles) in enumerate(zip(pairs, ranked, strict=True)):
            taught = _taught(pair)
            rare = [(taught, int(rank)) for rank in shingles[: len(shingles) - math.ceil(self.least * len(shingles)) + 1]]
            candidates = {other for key in rare for other in index.get(key, ())}
            repeat = any(self._close(shingles, ranked[other]) for other in candidates)
            found.append(repeat)
            if not repeat:
                for key in rare:
                    index[key].append(number)
        return found

    def _close(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
        import numpy as np

        small, large = sorted((len(one), len(other)))
        if small < self.least * large:
            return False
        both = len(np.intersect1d(one, other, assume_unique=True))
        return both >= self.least * (small + large - both)


def _shingles(pair: Pair) -> Grams:
    """Of all but the system prompt, which says nothing about the task."""
    said = [word for role, text in (*pair.messages, ("rejected", pair.rejected)) if role != "system" for word in words(text)]
    return grams_of(said, min(SHINGLE, len(said)) or SHINGLE)


def _taught(pair: Pair) -> str:
    """The calls that are learnt (and the one that is not), however they are laid out; words where there is no call."""
    texts = [text for role, text in pair.messages if role == "assistant"]
    calls = zip(taught_turns(pair), (turn for turn in turns_of(pair) if turn.taught), strict=True)
    said = [texts[number] if turn.call is None else render_full(turn.call) for number, turn in calls]
    return "\n".join(" ".join(text.split()) for text in (*said, pair.rejected))


def _rare_first(sets: Sequence[Grams]) -> list[NDArray[np.int64]]:
    """Each set as ranks in ascending order; the fewer sets have a shingle, the lower its rank."""
    import numpy as np

    if not sets:
        return []
    _, which, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    ends = np.cumsum([len(one) for one in sets])[:-1]
    return [np.sort(part) for part in np.split(rank[which], ends)]
