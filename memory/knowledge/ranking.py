"""From what two searches found to what is shown: fused, above a floor, not the same twice, within the room there is.

Fusion is reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009): the sum of 1 / (60 + rank). Diversity is
maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) over shared words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from memory.knowledge.memories import Kind, Memory
from memory.knowledge.shelf import Use
from memory.knowledge.words import words

FUSION = 60
SAME = 0.9
"""Two memories that share so large a part of their words say the same."""


@dataclass(frozen=True)
class Candidate:
    """A memory that may be shown. `similarity` is the cosine, `covered` the share of the query's rare words it has."""

    number: int
    memory: Memory
    similarity: float
    covered: float
    score: float


def fused(*rankings: Sequence[int]) -> dict[int, float]:
    """Reciprocal rank fusion of rankings of numbers, each best first."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (FUSION + rank)
    return scores


def trust(memory: Memory, use: Use) -> float:
    """How much a memory counts: verified ones above the others, warnings below, and what helped above what did not.

    Of a memory's uses the share that was resolved counts as if one of two earlier uses had been.
    """
    kind = 1.0 if memory.verified else (0.7 if memory.kind is Kind.CASE else 0.6)
    return kind * (0.75 + 0.5 * (use.resolved + 1) / (use.ended + 2))


def covered(query: Mapping[str, float], memory: Memory) -> float:
    """The share of the query's words, weighted, that a memory has."""
    whole = sum(query.values())
    return sum(query.get(word, 0.0) for word in _said(memory.text)) / whole if whole else 0.0


def chosen(
    candidates: Iterable[Candidate], most: int, room: int, diversity: float, cost: Callable[[Memory], int]
) -> list[Candidate]:
    """The candidates to show, best first: at most so many, within `room` characters, none that repeats a better one."""
    left = sorted(candidates, key=lambda candidate: (-candidate.score, candidate.number))
    best = left[0].score if left else 1.0
    said = {candidate.number: _said(candidate.memory.text) for candidate in left}
    taken: list[Candidate] = []
    while left and len(taken) < most:

        def gain(candidate: Candidate) -> float:
            repeats = max((_shared(said[candidate.number], said[other.number]) for other in taken), default=0.0)
            if repeats >= SAME:
                return float("-inf")
            return (1 - diversity) * candidate.score / best - diversity * repeats

        pick = max(left, key=gain)
        if gain(pick) == float("-inf"):
            break
        left.remove(pick)
        if (size := cost(pick.memory)) <= room:
            room -= size
            taken.append(pick)
    return taken


@lru_cache(maxsize=1_000)
def _said(text: str) -> frozenset[str]:
    return frozenset(words(text))


def _shared(one: Set[str], other: Set[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0
