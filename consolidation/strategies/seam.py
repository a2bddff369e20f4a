"""The `Strategy` seam: one night's lesson for one scope becomes one adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from consolidation.adapters import Adapter
from consolidation.pairs import Pair
from consolidation.strategies.bench import Bench
from consolidation.trainers.base import Item, Trained


@dataclass(frozen=True)
class Sample:
    """A pair that passed the filters, encoded for training. A replayed or rehearsed example has `item.rehearsal` set
    where the strategy wants it held to the base (KL)."""

    pair: Pair
    item: Item


@dataclass(frozen=True)
class Lesson:
    """What one night has to teach for one scope.

    `new` was not part of any night that was promoted, `past` was; both in the order in which it was lived. `rehearsal` are
    old episodes of the base's own skills. `previous` is the adapter that is live for the scope: the only one that training
    may start from (a rejected one never is), and the bearer of what earlier nights left (`Adapter.attachment`).
    """

    scope: tuple[str, ...]
    new: tuple[Sample, ...]
    past: tuple[Sample, ...] = ()
    rehearsal: tuple[Sample, ...] = ()
    previous: Adapter | None = None

    @property
    def all(self) -> tuple[Sample, ...]:
        """Everything, in order."""
        return (*self.past, *self.new, *self.rehearsal)


class Cost(BaseModel):
    """What a lesson cost: tokens that went through training (every epoch counts), seconds of training, seconds beside it
    (probing, Fisher, SVD, embedding), bytes of what is kept."""

    model_config = ConfigDict(frozen=True)

    tokens: int = 0
    seconds: float = 0.0
    extra_seconds: float = 0.0
    bytes: int = 0


class Learnt(BaseModel):
    """What came of a lesson: `folder` holds the adapter in PEFT's layout (for a mixture with its router).

    `attachments` are files that the strategy's next night needs, by name. `rank` and `alpha` are as served. `trained` are
    the trainings it is made of, in order. `candidates` are further adapters that may compete with it, such as checkpoints.
    """

    model_config = ConfigDict(frozen=True)

    folder: Path
    rank: int
    alpha: float
    trained: tuple[Trained, ...]
    cost: Cost
    examples: int
    loss_first: float
    loss_last: float
    attachments: dict[str, Path] = {}
    candidates: tuple[Path, ...] = ()
    notes: dict[str, float] = {}
    """What is worth telling of it, by name: ranks, λ, router accuracy, energy kept."""


class Strategy(Protocol):
    """Says what to train. A strategy is its own settings: a frozen pydantic model with a literal `kind`."""

    @property
    def kind(self) -> str:
        """Its name."""
        ...

    def learn(self, lesson: Lesson, bench: Bench) -> Learnt:
        """Train. The same lesson in the same folder goes on where it was broken off.

        Raises:
            TrainingRefused: the lesson cannot be learnt; nothing is wrong with what is live.
            TrainingCrashed: the training process died; it can go on.
        """
        ...


def items_of(samples: Sequence[Sample]) -> list[Item]:
    """What is trained on."""
    return [sample.item for sample in samples]
