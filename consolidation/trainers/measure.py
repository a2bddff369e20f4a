"""Losses of examples and preferences, measured with any engine."""

from __future__ import annotations

import math
from collections.abc import Sequence

from consolidation.trainers.base import Example, Item, Job, Preference
from consolidation.trainers.batches import rows
from consolidation.trainers.engine import Engine


def losses_of(engine: Engine, job: Job, items: Sequence[Item], base: bool = False) -> list[float]:
    """Of each item: nats per own token, or the preference loss."""
    if items and isinstance(items[0], Preference):
        found = preferences_of(engine, job, [item for item in items if isinstance(item, Preference)])
        pairs = [(item, scores) for item, scores in zip(items, found, strict=True) if isinstance(item, Preference)]
        return [preference_loss(job.lora.beta, scores, pair.reference or (0.0, 0.0)) for pair, scores in pairs]
    examples = [item for item in items if isinstance(item, Example)]
    nats = _nats(engine, job, examples, base)
    return [n / sum(example.own[1:]) for n, example in zip(nats, examples, strict=True)]


def _nats(engine: Engine, job: Job, examples: Sequence[Example], base: bool) -> list[float]:
    found: dict[int, float] = {}
    for batch in rows(range(len(examples)), [e.width for e in examples], job.machine.row_tokens, padded=True):
        found.update(zip(batch, engine.nats([examples[i] for i in batch], base), strict=True))
    return [found[i] for i in range(len(examples))]


def preferences_of(engine: Engine, job: Job, pairs: Sequence[Preference], base: bool = False) -> list[tuple[float, float]]:
    """Log-probabilities of what was chosen and what was rejected."""
    nats = _nats(engine, job, [row for pair in pairs for row in (pair.chosen, pair.rejected)], base)
    return [(-one, -two) for one, two in zip(nats[::2], nats[1::2], strict=True)]


def preference_loss(beta: float, scores: tuple[float, float], reference: tuple[float, float]) -> float:
    """Of one pair's log-probabilities, chosen and rejected (Rafailov et al. 2023, equation 7)."""
    margin = beta * ((scores[0] - reference[0]) - (scores[1] - reference[1]))
    return max(-margin, 0.0) + math.log1p(math.exp(-abs(margin)))
