"""What was sent to be answered later: kept where it outlives the process, so that nothing is paid twice."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from pydantic import BaseModel, ConfigDict, TypeAdapter

from agent.models.remote import decode


class Notes(Protocol):
    """Where it is kept (the store is one)."""

    def note(self, name: str) -> str | None:
        """What is noted under a name."""
        ...

    def set_note(self, name: str, value: str) -> None:
        """Replace it."""
        ...


class Sent(BaseModel):
    """A batch, or a single request (`id` "direct"). `worst` is what each of its requests may cost at most (dollars), `cost`
    what all did, where that is known. Without an `id` it is not known whether it arrived.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    at: datetime
    worst: dict[str, float]
    cost: float | None = None

    @property
    def dollars(self) -> float:
        """What it counts with."""
        return sum(self.worst.values()) if self.cost is None else self.cost


SENT = TypeAdapter(list[Sent])


class Ledger:
    """Everything sent from one account, in order."""

    def __init__(self, notes: Notes, account: str) -> None:
        self._notes, self._name = notes, f"anthropic-batches/{account}"

    @property
    def sent(self) -> list[Sent]:
        """All of it."""
        text = self._notes.note(self._name)
        return decode(SENT, text, f"the note {self._name}") if text else []

    @property
    def dollars(self) -> float:
        """What all of it counts with."""
        return sum(sent.dollars for sent in self.sent)

    def add(self, sent: Sent) -> None:
        """Note it; before it is sent."""
        self._keep([*self.sent, sent])

    def drop(self, sent: Sent) -> None:
        """It was not sent after all."""
        self._keep([one for one in self.sent if one != sent])

    def named(self, sent: Sent, identity: str) -> Sent:
        """The same, now that its id is known."""
        return self._replace(sent, sent.model_copy(update={"id": identity}))

    def settle(self, sent: Sent, cost: float) -> None:
        """Note what it did cost (dollars)."""
        self._replace(sent, sent.model_copy(update={"cost": cost}))

    def _replace(self, old: Sent, new: Sent) -> Sent:
        self._keep([new if one == old else one for one in self.sent])
        return new

    def _keep(self, sent: Sequence[Sent]) -> None:
        self._notes.set_note(self._name, SENT.dump_json(list(sent)).decode())
