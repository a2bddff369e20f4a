"""The experts of a mixture in one adapter: their mean, from which every weighted sum of them can be made again.

`W' = W + sum_i w_i B_i A_i` (Experiment 3 of the programme; Hu et al. 2021, section 4.1): a sum of adapters is an adapter
with stacked factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.adapters import Factors, Lora
from consolidation.errors import AdapterError
from consolidation.lora_algebra import concatenated, divided
from consolidation.mixture.router import PARTS


def mean_of(experts: Sequence[Lora]) -> Lora:
    """All experts side by side, their weight changes divided by how many there are."""
    whole = concatenated(experts)
    return replace(whole, alpha=whole.alpha / len(experts))


def mixed(mean: Lora, ranks: Sequence[int], quarters: Sequence[int], where: object) -> Lora:
    """The weighted sum of the experts in `mean`, whose ranks are given; those of weight 0 are left out.

    A single expert has its very factors.

    Raises:
        AdapterError: `where` says which artefact has other ranks than its router.
    """
    if sum(ranks) != mean.rank or len(ranks) != len(quarters):
        raise AdapterError(f"{where}: experts of ranks {list(ranks)} do not make up its rank {mean.rank}; roll back")
    experts = divided(replace(mean, alpha=mean.alpha * len(ranks)), ranks)
    return concatenated([_times(expert, q / PARTS) for expert, q in zip(experts, quarters, strict=True) if q])


def _times(lora: Lora, weight: float) -> Lora:
    return replace(lora, layers={path: Factors(f.a.contiguous(), f.b * weight) for path, f in lora.layers.items()})
