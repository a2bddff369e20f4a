"""What training refuses (FACTS 10.6): absence of a problem is not taken for success."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.errors import ModelError
from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Example, Item, Job, Preference

if TYPE_CHECKING:
    from agent.adapters import Lora

MIN_MOVEMENT = 1e-6


def check_examples(job: Job, examples: Sequence[Item]) -> None:
    """Refuse data that cannot be trained on: too few, nothing to learn from, too long, of another kind.

    Raises:
        TrainingRefused: naming the first problem.
    """
    batch = job.lora.batch_size * job.lora.accumulate
    held = held_out(len(examples), job.lora.validation)
    if len(examples) - held < batch:
        less = f" (without {held} for validation)" if held else ""
        raise TrainingRefused(
            f"{len(examples) - held} examples{less}, fewer than one batch of {batch}; wait for more verified trajectories"
        )
    check_rows(job, examples, Preference if job.lora.objective == "dpo" else Example)


def check_rows(job: Job, examples: Sequence[Item], kind: type[Example] | type[Preference] = Example) -> None:
    """Refuse examples from which no loss can be computed.

    Raises:
        TrainingRefused: naming the first problem.
    """
    if not examples:
        raise TrainingRefused("there are no examples; wait for verified trajectories")
    for number, item in enumerate(examples):
        if not isinstance(item, kind):
            raise TrainingRefused(f"example {number} is no {kind.__name__}, which is what is needed here")
        for row in rows_of(item):
            _check_row(job, number, row)
        if isinstance(item, Preference):
            _check_preference(number, item)


def rows_of(item: Item) -> list[Example]:
    """What is computed for an item: itself, or what was chosen and what was rejected."""
    return [item] if isinstance(item, Example) else [item.chosen, item.rejected]


def _check_row(job: Job, number: int, example: Example) -> None:
    if len(example.ids) != len(example.own):
        raise TrainingRefused(f"example {number}: {len(example.ids)} tokens but a mask of {len(example.own)}")
    if not any(example.own[1:]):
        raise TrainingRefused(f"example {number}: the loss mask is empty")
    if len(example.ids) > job.context:
        raise TrainingRefused(
            f"example {number}: {len(example.ids)} tokens do not fit {job.context}; filter it, it is never truncated"
        )
    if min(example.ids) < 0:
        raise TrainingRefused(f"example {number}: {min(example.ids)} is no token id")


def _check_preference(number: int, pair: Preference) -> None:
    prompt = pair.chosen.own.index(True, 1)
    if pair.rejected.own.index(True, 1) != prompt or pair.chosen.ids[:prompt] != pair.rejected.ids[:prompt]:
        raise TrainingRefused(f"example {number}: what is chosen and what is rejected have different prompts")
    if pair.chosen.ids == pair.rejected.ids:
        raise TrainingRefused(f"example {number}: what is chosen and what is rejected are the same")


def held_out(count: int, share: float) -> int:
    """How many of the examples are for validation: at least one, if any shall be."""
    return max(1, int(count * share)) if share else 0


def check_vocabulary(examples: Sequence[Item], size: int) -> None:
    """Refuse token ids that the model does not have.

    Raises:
        TrainingRefused: naming the first.
    """
    for number, item in enumerate(examples):
        for row in rows_of(item):
            if max(row.ids) >= size:
                raise TrainingRefused(
                    f"example {number}: the base has {size} tokens and no {max(row.ids)}; encode with the base's own tokenizer"
                )


def check_step(loss: float, norm: float, step: int) -> None:
    """Refuse a step that teaches nothing.

    Raises:
        TrainingRefused: the loss is zero or not finite, or there is no gradient.
    """
    if not math.isfinite(loss):
        raise TrainingRefused(f"the loss is not finite at step {step}; lower the learning rate")
    if loss == 0.0:
        raise TrainingRefused(f"the loss is exactly zero at step {step}; the mask or the data is wrong")
    if norm == 0.0 or not math.isfinite(norm):
        raise TrainingRefused(f"the gradient is {norm} at step {step}; nothing would be learnt")


def check_whole(losses: Sequence[float], lora: Lora) -> None:
    """Refuse a training that taught nothing.

    Raises:
        TrainingRefused: the loss did not move, or the adapter is not finite or changes nothing.
    """
    if len(losses) > 1 and max(losses) - min(losses) < MIN_MOVEMENT:
        raise TrainingRefused(f"the loss stayed at {losses[0]:g}; nothing was learnt")
    try:
        lora.check("what was trained")
    except ModelError as error:
        raise TrainingRefused(f"{error} (try a lower learning rate)") from error
