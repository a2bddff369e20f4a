"""Which rank a session needs: short trainings at several ranks, and the knee of their validation losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from consolidation.errors import TrainingRefused
from consolidation.strategies.bench import Bench
from consolidation.trainers.base import Item, Job, LoraConfig


class Probed(BaseModel):
    """What probing found: validation losses (nats per own token) by rank, and the tokens that were trained on for it."""

    model_config = ConfigDict(frozen=True)

    rank: int
    losses: dict[int, float]
    tokens: int = 0


def at_rank(lora: LoraConfig, rank: int) -> LoraConfig:
    """The recipe at another rank with the same scale alpha / rank, so that a rank alone makes the difference."""
    return lora.model_copy(update={"rank": rank, "alpha": lora.alpha / lora.rank * rank})


def knee(losses: Mapping[int, float], tolerance: float) -> int:
    """The smallest rank r with `L(r) <= (1 + tolerance) * min L`, L being a validation loss of at least 0 by rank.

    Raises:
        TrainingRefused: a loss is negative or not finite, or there is none.
    """
    bad = [rank for rank, loss in losses.items() if not (math.isfinite(loss) and loss >= 0)]
    if bad or not losses:
        raise TrainingRefused(f"the validation losses of ranks {bad} are no losses; lower the learning rate")
    bound = (1 + tolerance) * min(losses.values())
    return min(rank for rank, loss in losses.items() if loss <= bound)


def probe(bench: Bench, items: Sequence[Item], job: Job, ranks: Sequence[int], tolerance: float) -> Probed:
    """Train at every rank with the job's validation split, the same for all, and take the knee.

    Raises:
        TrainingRefused: there are too few examples to hold some out.
    """
    losses, tokens = {}, 0
    for rank in sorted(ranks):
        trained = bench.fit(f"probe-{rank}", items, job.model_copy(update={"lora": at_rank(job.lora, rank)}))
        found = trained.checkpoints[-1].validation if trained.checkpoints else None
        if found is None:
            raise TrainingRefused("nothing was held out to compare the ranks on; set validation above 0")
        losses[rank], tokens = found, tokens + trained.tokens
    return Probed(rank=knee(losses, tolerance), losses=losses, tokens=tokens)
