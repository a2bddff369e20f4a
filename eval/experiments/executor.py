"""The `Executor` seam: where the cells of an experiment are lived."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from eval.experiments.life import Life, LifeConfig

T = TypeVar("T")
Work = Callable[[LifeConfig], Life]
"""Lives a life; it must be a function of a module, or a picklable object, because it is called in other processes."""


@dataclass(frozen=True)
class Resources:
    """What one cell needs. `custom` names are those of the nodes (an engine, a model that only one of them holds)."""

    cpus: float = 1.0
    gpus: float = 0.0
    custom: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job(Generic[T]):
    """One piece of work, under a key of its own."""

    key: str
    given: T
    needs: Resources = field(default_factory=Resources)


@dataclass(frozen=True)
class Done:
    """What came of a job: a life, or why there is none. `worker` says where it was lived, `tries` how often it was begun."""

    key: str
    life: Life | None
    error: str = ""
    worker: str = ""
    tries: int = 1


class Executor(Protocol):
    """Lives cells somewhere, `workers` at once. Only the caller writes results."""

    name: str
    workers: int

    def map(self, work: Work, jobs: Sequence[Job[LifeConfig]]) -> Iterator[Done]:
        """Do the jobs and give what came of each, as they end. A job that fails is given with its error and sinks no other; one
        whose worker was lost is begun again, up to a limit. Closing the iterator ends what is going on."""
        ...
