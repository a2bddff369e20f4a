"""Splits A-E of the pre-registered experiments (phase 2): which tasks of one sequence are trained on, which are the test.

They are defined there for 50 tasks. A sequence of any other length n is halved the same way: ⌈n/2⌉ tasks to train on,
in B (A with its halves exchanged) ⌊n/2⌋. Only A, over tasks in chronological order, trains on nothing that is younger
than a test task.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Generic, TypeVar

from eval.errors import EvalError

T = TypeVar("T")


@dataclass(frozen=True)
class Split(Generic[T]):
    """Two disjoint halves, together the whole sequence, each in the order the tasks came in."""

    train: tuple[T, ...]
    test: tuple[T, ...]


def first_half(n: int) -> frozenset[int]:
    """A: 0-based places of the tasks to train on; of 50 the first 25."""
    return frozenset(range((n + 1) // 2))


def second_half(n: int) -> frozenset[int]:
    """B: what A tests on; of 50 the last 25."""
    return frozenset(range(n)) - first_half(n)


def odd(n: int) -> frozenset[int]:
    """C: the 1st, 3rd, 5th ... task (0-based places 0, 2, 4 ...)."""
    return frozenset(range(0, n, 2))


def random_half(n: int, seed: int) -> frozenset[int]:
    """Half of the places, drawn without replacement by Python's generator; the same for every sequence of this length."""
    return frozenset(random.Random(seed).sample(range(n), (n + 1) // 2))


def random_42(n: int) -> frozenset[int]:
    """D: drawn with seed 42."""
    return random_half(n, 42)


def random_123(n: int) -> frozenset[int]:
    """E: drawn with seed 123."""
    return random_half(n, 123)


SPLITS: Mapping[str, Callable[[int], frozenset[int]]] = MappingProxyType(
    {"A": first_half, "B": second_half, "C": odd, "D": random_42, "E": random_123}
)


def split(name: str, tasks: Sequence[T]) -> Split[T]:
    """Split one sequence's tasks, or their ids, given in the order the run plays them.

    Raises:
        EvalError: if there is no split of this name, or too few tasks (one to train on, one to test).
    """
    if name not in SPLITS:
        raise EvalError(f"no split {name!r}; there are {', '.join(SPLITS)}")
    if len(tasks) < 2:
        raise EvalError(f"{len(tasks)} tasks cannot be split; it takes two at least")
    train = SPLITS[name](len(tasks))
    places = range(len(tasks))
    return Split(tuple(tasks[i] for i in places if i in train), tuple(tasks[i] for i in places if i not in train))
