"""What the training loop needs of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from agent.adapters import Lora
from consolidation.trainers.base import Example, Item, Job
from consolidation.trainers.starts import Tensors


class Engine(Protocol):
    """A base model with one adapter beside it. Tensors that go in and out are float32 on the CPU, named as in PEFT's file."""

    @property
    def pads(self) -> bool:
        """Whether packed batches are padded to their longest example."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens the base knows."""
        ...

    def learn(self, batches: Sequence[Sequence[Item]]) -> tuple[float, float]:
        """Gradients of one optimiser step's batches together: the loss, and the gradient's norm before it was clipped."""
        ...

    def update(self, rate: float) -> None:
        """One step of AdamW along these gradients, and of the penalty if there is one."""
        ...

    def nats(self, batch: Sequence[Example], base: bool = False) -> list[float]:
        """Sum of -log p over the own tokens of each example, adapted or under the bare base."""
        ...

    def squares(self, batches: Iterable[Example]) -> Tensors:
        """Sum over the examples of the squared gradient of their nats per own token."""
        ...

    def penalise(self, fisher: Tensors, anchor: Tensors, weight: float) -> None:
        """Draw the adapter to `anchor` after each further step of AdamW, by the proximal step of the penalty.

        It minimises `weight / 2 * fisher * (x - anchor)^2 + (x - theta)^2 / (2 * rate)`, so that
        `x = anchor + (theta - anchor) / (1 + rate * weight * fisher)`: exact and stable for any weight. In the gradient
        AdamW would divide the weight out again, and with a large one step to and fro around the anchor.
        Decoupled as weight decay is (Loshchilov and Hutter 2019, algorithm 2).
        """
        ...

    def factors(self) -> Lora:
        """A copy of the adapter as it is."""
        ...

    def state(self) -> Tensors:
        """The adapter and the optimiser's memory."""
        ...

    def restore(self, tensors: Tensors) -> None:
        """Take over what `state` gave."""
        ...


OpenEngine = Callable[[Job, Lora], Engine]
