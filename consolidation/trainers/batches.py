"""Which examples are computed together, in which order, and at which learning rate: functions of the job alone.

So a training that was killed needs no random numbers on its disk: the order is drawn again, and skipped to the step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from consolidation.trainers.base import Example, Item, LoraConfig
from consolidation.trainers.checks import held_out

WARM_UP = 0.05
NEAR = 32
"""Lengths (tokens) that count as the same when batches are drawn."""


def split(count: int, share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the examples to train on, in their order, and of those for validation."""
    held = set(random.Random(f"validation/{seed}").sample(range(count), held_out(count, share)))
    return [i for i in range(count) if i not in held], sorted(held)


def steps_of(count: int, lora: LoraConfig) -> int:
    """Optimiser steps of a training on so many examples."""
    return lora.epochs * (count // (lora.batch_size * lora.accumulate))


def rate_factor(step: int, steps: int) -> float:
    """Share of the peak learning rate at step 0 … steps - 1: linear warm-up, then linear decay."""
    return min(1.0, (step + 1) / max(1.0, WARM_UP * steps), (steps - step) / steps)


def plan(widths: Sequence[int], lora: LoraConfig, seed: int, row_tokens: int, padded: bool) -> Iterator[list[list[int]]]:
    """For each optimiser step the batches that make it up, as numbers of examples of these widths (tokens).

    Every epoch has its own order, and drops a remainder that fills no step. `bucket` puts examples of similar length
    together; `packed` does not, and lays each step's out in rows of at most `row_tokens`.
    """
    rng = random.Random(seed)
    size = lora.batch_size * lora.accumulate
    for _ in range(lora.epochs):
        order = list(range(len(widths)))
        rng.shuffle(order)
        order = order[: len(order) // size * size]
        if lora.batching == "packed":
            yield from (rows(order[i : i + size], widths, row_tokens, padded) for i in range(0, len(order), size))
            continue
        order.sort(key=lambda number: widths[number] // NEAR)
        groups = [order[i : i + size] for i in range(0, len(order), size)]
        rng.shuffle(groups)
        yield from ([group[i : i + lora.batch_size] for i in range(0, size, lora.batch_size)] for group in groups)


def rows(numbers: Sequence[int], widths: Sequence[int], limit: int, padded: bool) -> list[list[int]]:
    """Split examples into batches of at most `limit` tokens, or of one example.

    Without padding a batch costs the sum of its widths; `padded`, its size times the largest, so that similar ones go together.
    """
    made: list[list[int]] = []
    for number in sorted(numbers, key=lambda n: widths[n]) if padded else numbers:
        if made:
            batch = [widths[n] for n in (*made[-1], number)]
            if (len(batch) * max(batch) if padded else sum(batch)) <= limit:
                made[-1].append(number)
                continue
        made.append([number])
    return made


def shares(batches: Sequence[Sequence[Item]]) -> list[tuple[float, float]]:
    """What each of a step's batches weighs in the mean over all: by own tokens (or pairs), and by those of its rehearsal."""
    own = [_weight(batch) for batch in batches]
    quiet = [_weight([item for item in batch if isinstance(item, Example) and item.rehearsal]) for batch in batches]
    return [(size / sum(own), rehearsed / max(1, sum(quiet))) for size, rehearsed in zip(own, quiet, strict=True)]


def _weight(batch: Sequence[Item]) -> int:
    return sum(sum(item.own[1:]) if isinstance(item, Example) else 1 for item in batch)
