"""Pairs that are made once: kept with the attempts that they tell of, and forgotten with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from pydantic import TypeAdapter

from consolidation.pairs import Format, Pair
from consolidation.synthesis.offline import TELLS_OF_FAILURES
from consolidation.synthesis.seam import Lived, Synthesiser
from memory.hashing import content_hash

PAIRS = TypeAdapter(list[Pair])


class Keeper(Protocol):
    """Where pairs are kept (the store is one)."""

    def kept_pairs(self, synthesiser: str, trajectory_id: str, how: str, budget: int, told: str) -> str | None:
        """See `Store`."""
        ...

    def keep_pairs(
        self, synthesiser: str, trajectory_id: str, how: str, budget: int, told: str, failed: Sequence[str], body: str
    ) -> None:
        """See `Store`."""
        ...


class Kept:
    """What a synthesiser made is made once for each attempt, format and budget, and survives the process.

    What a model gave no answer to (`unanswered`) is not kept, and made another time. An attempt is another one when it says
    something else, or failed otherwise where failures are told of; what it saw may differ, for times are in it.
    """

    def __init__(self, inner: Synthesiser, keeper: Keeper) -> None:
        self.inner = inner
        self._keeper = keeper

    @property
    def name(self) -> str:
        """That of the synthesiser."""
        return self.inner.name

    @property
    def problems(self) -> Counter[str]:
        """Those of the synthesiser."""
        return Counter(getattr(self.inner, "problems", {}))

    @property
    def unanswered(self) -> set[str]:
        """Those of the synthesiser."""
        return set(getattr(self.inner, "unanswered", ()))

    def prepare(self, day: Sequence[Lived], how: Format, budget: int) -> None:
        """Have those made ahead that are not kept; see `ModelSynthesiser.prepare`."""
        prepare = getattr(self.inner, "prepare", None)
        if prepare is not None and how != "T":
            name = self.inner.name
            lacking = [lived for lived in day if self._known(name, lived, how, budget) is None]
            if lacking:
                prepare(lacking, how, budget)

    def pairs(self, lived: Lived, how: Format, budget: int) -> list[Pair]:
        """See the seam. Format T costs nothing to make, and is not kept."""
        if how == "T":
            return self.inner.pairs(lived, how, budget)
        name = self.inner.name
        known = self._known(name, lived, how, budget)
        if known is not None:
            return PAIRS.validate_json(known)
        made = self.inner.pairs(lived, how, budget)
        if lived.taught.id in self.unanswered:
            return made
        failed = [attempt.id for attempt in lived.failed] if how in TELLS_OF_FAILURES else []
        body = PAIRS.dump_json(made).decode()
        self._keeper.keep_pairs(name, lived.taught.id, how, budget, _told(lived, how), failed, body)
        return made

    def _known(self, name: str, lived: Lived, how: Format, budget: int) -> str | None:
        return self._keeper.kept_pairs(name, lived.taught.id, how, budget, _told(lived, how))


def _told(lived: Lived, how: Format) -> str:
    attempts = [lived.taught, *(lived.failed if how in TELLS_OF_FAILURES else ())]
    said = [[attempt.id, attempt.prompt, attempt.system, [step.said for step in attempt.steps]] for attempt in attempts]
    return content_hash([said, lived.source])
