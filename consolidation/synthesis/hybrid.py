"""Two makers of pairs: an external model for some of the attempts, the agent's own for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from consolidation.pairs import Format, Pair
from consolidation.synthesis.offline import OfflineSynthesiser
from consolidation.synthesis.seam import Lived, Synthesiser
from consolidation.synthesis.self_made import SelfSynthesiser
from memory.hashing import content_hash


class HybridSynthesiser:
    """An external model makes the pairs of a `share` of the attempts, chosen by the seed, the own one those of the others.

    With `nights` above 0 it is the external one for all of them until that many nights are over (`night` counts from 0), and
    the own one from then on. What the external one makes is checked as the own pairs are, by the base without an adapter: its
    errors are taken out, and counted in `problems` as `unverified`.
    """

    def __init__(
        self, external: Synthesiser, own: SelfSynthesiser, *, share: float = 0.5, seed: int = 0, nights: int = 0, night: int = 0
    ) -> None:
        self.external, self._own = external, own
        self._share, self._seed, self._nights, self._night = share, seed, nights, night
        self._ready: dict[tuple[str, Format, int], list[Pair]] = {}

    @property
    def problems(self) -> Counter[str]:
        """Of both."""
        return Counter(getattr(self.external, "problems", {})) + self._own.problems

    @property
    def name(self) -> str:
        """Both, who makes what, and that all is verified."""
        phase = ("external" if self._night < self._nights else "own") if self._nights else f"{self._share:g}/{self._seed}"
        return f"hybrid({self.external.name}+verified, {self._own.name}, {phase})"

    @property
    def unanswered(self) -> set[str]:
        """Of both."""
        return set(getattr(self.external, "unanswered", ())) | self._own.unanswered

    def is_external(self, lived: Lived) -> bool:
        """Whether the external model makes the pairs of an attempt."""
        if self._nights:
            return self._night < self._nights
        return int(content_hash([self._seed, lived.taught.id])[:8], 16) < self._share * 16**8

    def prepare(self, day: Sequence[Lived], how: Format, budget: int) -> None:
        """Have both make ahead what they will be asked for."""
        if how == "T":
            return
        external = [lived for lived in day if self.is_external(lived)]
        ahead = getattr(self.external, "prepare", None)
        if ahead is not None and external:
            ahead(external, how, budget)
        made = [pair for lived in external for pair in self.external.pairs(lived, how, budget)]
        passed = self._own.check(made) if made else []
        for lived in external:
            self._ready[lived.taught.id, how, budget] = [p for p in passed if p.trajectory_id == lived.taught.id]
        if own := [lived for lived in day if not self.is_external(lived)]:
            self._own.prepare(own, how, budget)

    def pairs(self, lived: Lived, how: Format, budget: int) -> list[Pair]:
        """See the seam."""
        if how == "T":
            return OfflineSynthesiser().pairs(lived, how, budget)
        if not self.is_external(lived):
            return self._own.pairs(lived, how, budget)
        if (lived.taught.id, how, budget) not in self._ready:
            self.prepare([lived], how, budget)
        made_by = f"{self.external.name}+verified"
        return [pair.model_copy(update={"made_by": made_by}) for pair in self._ready.pop((lived.taught.id, how, budget))]
