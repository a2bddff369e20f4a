"""What paid answers cost, and a budget in dollars that they cannot exceed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, NonNegativeInt

from agent.errors import ModelError


class Usage(BaseModel):
    """Tokens of a call; the prompt is the sum of the first three."""

    input_tokens: NonNegativeInt
    cache_creation_input_tokens: NonNegativeInt | None = None
    cache_read_input_tokens: NonNegativeInt | None = None
    output_tokens: NonNegativeInt


@dataclass(frozen=True)
class Price:
    """Dollars per million tokens. By default a cache entry costs 1.25 times the input to write and 0.1 times to read."""

    input: float
    output: float
    write: float | None = None
    read: float | None = None

    def of(self, usage: Usage) -> float:
        """Dollars of one call."""
        write = 1.25 * self.input if self.write is None else self.write
        read = 0.1 * self.input if self.read is None else self.read
        parts = (
            (usage.input_tokens, self.input),
            (usage.cache_creation_input_tokens or 0, write),
            (usage.cache_read_input_tokens or 0, read),
            (usage.output_tokens, self.output),
        )
        return sum(tokens * price for tokens, price in parts) / 1e6

    def at_most(self, prompt: int, answer: int) -> float:
        """Dollars that a call cannot exceed: all of the prompt at its dearest."""
        return (prompt * max(self.input, 1.25 * self.input if self.write is None else self.write) + answer * self.output) / 1e6


class Purse:
    """A budget in dollars that calls at the same time share; each sets aside the most it can cost until its cost is known."""

    def __init__(self, limit: float, spent: float = 0.0) -> None:
        self.limit, self.spent = limit, spent
        self._aside, self._open = 0.0, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def bill(self, worst: float) -> Iterator[list[float]]:
        """Run a call that costs `worst` dollars at most; it puts its cost into the list, and without one pays the worst.

        Raises:
            ModelError: it might exceed the limit.
        """
        with self._changed:
            while self._open and self.spent + self._aside + worst > self.limit:
                self._changed.wait()
            if self.spent + worst > self.limit:
                raise ModelError(
                    f"the budget is spent: ${self.spent:.4f} of ${self.limit:.2f}, and the next call may cost ${worst:.4f}; "
                    "raise the budget, or use a model of your own"
                )
            self._aside, self._open = self._aside + worst, self._open + 1
        cost: list[float] = []
        try:
            yield cost
        finally:
            with self._changed:
                self._aside, self._open = self._aside - worst, self._open - 1
                self.spent += sum(cost) if cost else worst
                self._changed.notify_all()
