"""The `Synthesiser` seam: from what was lived through to training pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from consolidation.pairs import Format, Pair, Source
from memory.tasks import Task
from memory.trajectories import Trajectory


@dataclass(frozen=True)
class Lived:
    """A task that is over, as a night may tell it.

    `taught` resolves it, and is verified: an own success, or the merged fix told as turns (`source` says which); its id is
    that of the attempt it goes back to, its prompt holds nothing that was recalled. `failed` are own attempts at the same
    task that were graded and did not resolve it, or only after detours that `taught` tells without; oldest first.
    """

    task: Task
    taught: Trajectory
    source: Source
    failed: tuple[Trajectory, ...] = ()


class Synthesiser(Protocol):
    """Makes pairs of what was lived through.

    Every call that a pair teaches was executed in `taught`: a synthesiser chooses and explains, it invents no calls.
    """

    @property
    def name(self) -> str:
        """Changes whenever the same experience would give other pairs: the model, its prompt, the rules."""
        ...

    def pairs(self, lived: Lived, how: Format, budget: int) -> list[Pair]:
        """At most `budget` pairs, in the order of the attempt; none where the format needs what this experience has not.

        Format T is the exception: it tells the whole attempt, however it is cut (`pairs_of`), and spends one of the budget.

        Raises:
            SynthesisError: the model that makes them cannot be used; none of its pairs are lost.
        """
        ...
