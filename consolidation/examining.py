"""Of the adapters that a night trained, one is chosen and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consolidation.answers import Answers
from consolidation.competition import compete
from consolidation.errors import AdapterError
from consolidation.filters import named, overlaps
from consolidation.gate import Gate, Look, Ruling
from consolidation.gate_config import GateConfig
from consolidation.guards import Guard, Routes
from consolidation.leaks import HeldOut
from consolidation.pairs import Pair
from consolidation.skill import Publisher
from memory.nights import Verdict

Tables = Mapping[str, Mapping[str, str]]
"""The routing tables that compete, by name."""


@dataclass(frozen=True)
class Examining:
    """Chooses and judges. `live` is the routing table in service, `overlap` the share of a held-out text that is a leak."""

    config: GateConfig
    publisher: Publisher
    guards: Sequence[Guard]
    answers: Answers
    live: Mapping[str, str]
    held_out: HeldOut
    overlap: float
    on_look: Callable[[Look], None] = lambda look: None

    def choose(self, tables: Tables) -> dict[str, Any]:
        """The best of the tables on the choice items, for the journal: `winner`, `scores`, `failed`, and the items `spent`.

        Raises:
            ConsolidationError: none could be examined.
        """
        routes = {name: self._routes(table) for name, table in tables.items()}
        won = compete(routes, self.guards, self.config, self.answers, live=self._routes(self.live))
        return {"winner": won.name, "scores": won.scores, "failed": won.failed, "spent": sorted(won.spent)}

    def judge(self, table: Mapping[str, str], chosen: Mapping[str, Any], pairs: Iterable[Pair]) -> Ruling:
        """What the gate says of the chosen table, which was trained on these pairs."""
        why = self._barred(table) or self._leaking(pairs)
        if why:
            return Ruling(verdict=Verdict(promoted=False, why=why))
        spent = frozenset((str(guard), str(item)) for guard, item in chosen["spent"])
        before = self.publisher.routes(self.live)
        return Gate(self.config).judge(self.guards, self._routes(table), self.answers, self.on_look, before, spent)

    def _barred(self, table: Mapping[str, str]) -> str:
        """Whether training gave an adapter again that was taken out of service for good."""
        for identity in sorted(set(table.values()) - set(self.live.values())):
            standing = self.publisher.adapters.get(identity).standing
            if standing.barred:
                return f"adapter {identity} was taken out of service for good: {standing.why}"
        return ""

    def _leaking(self, pairs: Iterable[Pair]) -> str:
        """Whether pairs are of tasks that are held out by now, however they came there."""
        found = sum(named(pair, self.held_out) or overlaps(pair, self.held_out, self.overlap) for pair in pairs)
        return f"pairs of held-out tasks among those trained on: {found}; nothing is promoted" if found else ""

    def _routes(self, table: Mapping[str, str]) -> Routes:
        return self.publisher.routes(table)


def judge_adapters(publisher: Publisher, tables: Tables, live: Mapping[str, str], won: str, verdict: Verdict) -> None:
    """Write down what became of every adapter that competed.

    Raises:
        AdapterError: a promoted one was changed meanwhile.
    """
    for identity in sorted({identity for table in tables.values() for identity in table.values()} - set(live.values())):
        mine = identity in tables[won].values()
        try:
            if mine and verdict.promoted:
                publisher.adapters.judge(identity, "passed", verdict.why, verdict.numbers)
            else:
                why = verdict.why if mine else "another candidate of its night was chosen"
                publisher.adapters.judge(identity, "rejected", why, verdict.numbers if mine else {})
        except AdapterError:
            if mine and verdict.promoted:
                raise  # a rejected one may be what was found to be changed
