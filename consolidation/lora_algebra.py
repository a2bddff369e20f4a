"""Sums of adapters: side by side without loss, and compressed to a lower rank with the least one.

The weight change of an adapter is `scale * b @ a`; a sum of them is one with stacked factors (Hu et al. 2021, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from agent.adapters import Factors, Lora


@dataclass(frozen=True)
class Truncated:
    """A compressed adapter; `kept` and `lost` are squared singular values of the weight changes, summed over the layers."""

    lora: Lora
    kept: float
    lost: float

    @property
    def energy(self) -> float:
        """Share of the squared Frobenius norm that was kept, 0 to 1."""
        return self.kept / (self.kept + self.lost) if self.kept + self.lost else 1.0


def concatenated(parts: Sequence[Lora]) -> Lora:
    """One adapter whose weight change is the sum of the parts'; the ranks add up, float32, at the first part's scale.

    What another scale differs by goes into `b`; a layer that a part does not adapt is zero there.
    """
    scale, rank = parts[0].scale, sum(part.rank for part in parts)
    layers = {}
    for path in sorted({path for part in parts for path in part.layers}):
        like = next(part.layers[path] for part in parts if path in part.layers)
        a, b = [], []
        for part in parts:
            f = part.layers.get(path)
            if f is None:
                a.append(torch.zeros(part.rank, like.a.shape[1]))
                b.append(torch.zeros(like.b.shape[0], part.rank))
            else:
                a.append(f.a.float())
                b.append(f.b.float() if part.scale == scale else f.b.float() * (part.scale / scale))
        layers[path] = Factors(torch.cat(a), torch.cat(b, 1))
    return Lora(rank, scale * rank, layers)


def divided(lora: Lora, ranks: Sequence[int]) -> list[Lora]:
    """The parts that `concatenated` put together, by their ranks, all at its scale.

    Raises:
        ValueError: the ranks do not add up to the adapter's.
    """
    if sum(ranks) != lora.rank or min(ranks, default=0) < 1:
        raise ValueError(f"ranks {list(ranks)} do not make up rank {lora.rank}")
    ends = [sum(ranks[: i + 1]) for i in range(len(ranks))]
    return [
        Lora(
            rank,
            lora.scale * rank,
            {p: Factors(f.a[end - rank : end], f.b[:, end - rank : end]) for p, f in lora.layers.items()},
        )
        for rank, end in zip(ranks, ends, strict=True)
    ]


def truncated(lora: Lora, rank: int) -> Truncated:
    """The adapter of a rank whose weight changes are nearest in every layer: truncated SVD (Eckart and Young 1936).

    At the adapter's own rank nothing is lost but rounding; it is never raised. The scale stays.
    """
    rank, kept, lost, layers = min(rank, lora.rank), 0.0, 0.0, {}
    for path, f in lora.layers.items():
        left, values, right = svd_of(f, lora.scale)
        kept += values[:rank].square().sum().item()
        lost += values[rank:].square().sum().item()
        root = (values[:rank] / lora.scale).sqrt()
        b, a = left[:, :rank] * root, root[:, None] * right[:rank]
        if (short := rank - a.shape[0]) > 0:  # a layer that is narrower than the rank
            a, b = torch.cat([a, a.new_zeros(short, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], short)], 1)
        layers[path] = Factors(a.float().contiguous(), b.float().contiguous())
    return Truncated(Lora(rank, lora.scale * rank, layers), kept, lost)


def svd_of(factors: Factors, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """SVD of `scale * b @ a` in float64: (out, k), singular values (k,), (k, in), with k at most the rank.

    By QR of both factors the large product is never made: its singular values are those of `r_b @ r_a.T` (rank, rank).
    """
    q_b, r_b = torch.linalg.qr(factors.b.double())
    q_a, r_a = torch.linalg.qr(factors.a.double().T)
    u, values, vh = torch.linalg.svd(scale * (r_b @ r_a.T), full_matrices=False)
    return q_b @ u, values, vh @ q_a.T
