"""Several candidates compete (seeds, checkpoints): the winner is chosen on some items, and judged on the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from consolidation.answers import Answers
from consolidation.claims import Item, Side, Unheld, ask, changed, listed
from consolidation.errors import AdapterError, ConsolidationError
from consolidation.gate import GateConfig
from consolidation.guards import Guard, Routes
from memory.hashing import content_hash


@dataclass(frozen=True)
class Winner:
    """Who won. `scores` are mean scores on the choice items, by candidate; `failed` says who could not be examined and why.

    `spent` are the items that anybody was chosen on: they must judge nothing (`Gate.judge(spent=...)`).
    """

    name: str
    scores: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    spent: frozenset[Item] = frozenset()


def choice(guard: str, items: Iterable[str], config: GateConfig) -> list[str]:
    """The items of a guard that choose: those whose hash falls below the share, the lowest hashes where there are too many."""
    placed = sorted((int(content_hash([config.seed, "choice", guard, item]), 16) / 16**16, item) for item in items)
    return [item for place, item in placed if place < config.choice_share][: config.choice_items]


def compete(
    candidates: Mapping[str, Routes],
    guards: Sequence[Guard],
    config: GateConfig,
    answers: Answers,
    gain: Guard | None = None,
    live: Routes | None = None,
) -> Winner:
    """The candidate with the best score on the choice items of the capability guards; ties go to the earlier.

    A score is the mean over all these items, plus the mean over those of `gain` (what the night should have taught). With one
    candidate nothing is asked and nothing spent.

    Raises:
        ConsolidationError: there is no candidate, or none could be examined.
        ModelUnavailable: the model's server is away; what was answered is kept.
    """
    if len(candidates) == 1:
        return Winner(next(iter(candidates)))
    groups = [[guard for guard in guards if guard.role == "capability"], [gain] if gain else []]
    scores: dict[str, float] = {}
    failed: dict[str, str] = {}
    spent: set[Item] = set()
    for name, routes in candidates.items():
        try:
            side = Side.of(routes)
            new = changed(routes, live or {})
            scores[name] = sum(_score(group, side, new, config, answers, spent) for group in groups if group)
        except (Unheld, AdapterError) as error:
            failed[name] = str(error)
    if not scores:
        raise ConsolidationError(f"no candidate could be examined: {failed or 'there is none'}")
    return Winner(max(scores, key=lambda name: scores[name]), scores, failed, frozenset(spent))


def _score(guards: Sequence[Guard], side: Side, new: Routes, config: GateConfig, answers: Answers, spent: set[Item]) -> float:
    found: list[float] = []
    for guard in guards:
        items = choice(guard.name, listed(guard, new), config)
        spent |= {(guard.name, item) for item in items}
        found += [answer.score for answer in ask(guard, items, side, answers).values()] if items else []
    if not found:
        raise Unheld(f"{', '.join(guard.name for guard in guards)}: too few items to choose by")
    return sum(found) / len(found)
