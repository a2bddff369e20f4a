"""EWC-LoRA: each night goes on from the last adapter, and holds fast to what the nights before found important."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from consolidation.adapters import Adapter
from consolidation.errors import TrainingRefused
from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Learnt, Lesson, items_of
from consolidation.strategies.single import learnt_from, starting_from
from consolidation.trainers.base import Example, Item, Penalty

if TYPE_CHECKING:
    from torch import Tensor

FISHER = "fisher.safetensors"
"""The attachment: accumulated Fisher information, with names and shapes of the adapter's tensors."""


class EwcLora(BaseModel):
    """Elastic weight consolidation on the factors of the adapter: go on from the live one with the new examples, under the
    penalty `weight / 2 * sum F (theta - theta*)^2` (Kirkpatrick et al. 2017, equation 3), with F of mean 1.

    theta* is the live adapter as it was trained. The first night, and one after another strategy, has no penalty.
    Each night's Fisher information is brought to mean 1 before it is accumulated, so that every night counts the same;
    trainers bring the sum to mean 1 again, so that `weight` means the same after any number of nights. It is taken at
    the end of training, also where an earlier checkpoint wins.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["ewc"] = "ewc"
    weight: float = Field(default=1000.0, ge=0, le=1e12)
    """λ; 0 trains as the naive strategy does. AdamW with rate η moves a weight of mean importance by about η in a step,
    and the penalty takes the share ηλ / (1 + ηλ) of its distance back."""
    fisher_samples: int = Field(default=100, ge=1)
    """Examples of the night that Fisher information is computed on, drawn by the seed; all, where there are fewer."""
    accumulate: Literal["replace", "average"] = "average"
    """`replace` keeps the last night's Fisher information alone; `average` adds it to `gamma` times what there was: online EWC
    (Schwarz et al. 2018, F* <- gamma F* + F), which at mean 1 is a running average with weights gamma^age."""
    gamma: float = Field(default=0.95, gt=0, le=1)
    """What remains of the earlier nights' importance with each night; 1 counts all nights the same."""

    def learn(self, lesson: Lesson, bench: Bench) -> Learnt:
        """See the `Strategy` seam."""
        job, before = starting_from(bench.job, lesson.previous), _left_by(lesson.previous)
        if before is not None and self.weight and lesson.previous is not None:
            penalty = Penalty(fisher=before, anchor=lesson.previous.folder, weight=self.weight)
            job = job.model_copy(update={"penalty": penalty})
        items = items_of(lesson.new)
        trained = bench.fit("ewc", items, job)
        drawn = self.drawn(items, job.seed)
        fisher = bench.fisher("fisher-tonight", drawn, trained.folder)
        out = bench.folder / FISHER
        found = bench.aside("accumulate", [self, fisher, before], lambda: self._accumulate(fisher, before, out))
        notes = {"lambda": self.weight if job.penalty else 0.0, "fisher_samples": float(len(drawn)), "fisher_mean": found}
        return learnt_from(trained, bench, {FISHER: out}, notes)

    def drawn(self, items: list[Item], seed: int) -> list[Example]:
        """What Fisher information is computed on; of a preference, what is to be said."""
        count = min(self.fisher_samples, len(items))
        kept = sorted(random.Random(f"fisher/{seed}").sample(range(len(items)), count))
        return [item if isinstance(item, Example) else item.chosen for item in (items[number] for number in kept)]

    def _accumulate(self, tonight: Path, before: Path | None, out: Path) -> float:
        """Write gamma F* + F / mean(F), or the second term alone; returns mean(F)."""
        from safetensors.torch import save_file

        from memory.files import sync

        fresh = _read(tonight)
        mean = mean_of(fresh, tonight)
        whole = {name: tensor / mean for name, tensor in fresh.items()}
        if before is not None and self.accumulate == "average":
            old = _read(before)
            if {n: t.shape for n, t in old.items()} != {n: t.shape for n, t in whole.items()}:
                raise TrainingRefused(f"{before} belongs to an adapter of other layers or shapes; begin again with full replay")
            whole = {name: self.gamma * old[name] + tensor for name, tensor in whole.items()}
            mean_of(whole, before)
        temporary = out.with_name(f".{out.name}.part")
        save_file(whole, temporary)
        sync(temporary)
        temporary.replace(out)
        return mean


def mean_of(fisher: dict[str, Tensor], where: Path) -> float:
    """Mean over all weights.

    Raises:
        TrainingRefused: it is not positive, or not finite.
    """
    mean = float(sum(t.double().sum().item() for t in fisher.values()) / max(1, sum(t.numel() for t in fisher.values())))
    if not 0 < mean < float("inf"):
        raise TrainingRefused(f"{where}: the mean of Fisher information is {mean:g}; begin again with full replay")
    return mean


def _left_by(previous: Adapter | None) -> Path | None:
    return previous.attachment(FISHER) if previous is not None else None


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise TrainingRefused(f"{path}: no readable Fisher information ({str(error)[:300]}); full replay needs none") from error
