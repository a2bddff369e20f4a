"""A router is trained on some issues and measured with others; what was measured is what is served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from consolidation.mixture.query import Query, vectors_of
from consolidation.mixture.router import NONE, Router, Routing, fit_router
from memory.hashing import content_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Labelled = tuple[Query, int]
"""An issue, and the number of its expert (`NONE` for the base)."""


def split(issues: Sequence[Labelled], held: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """To train on and to measure with: of every class the share `held` of its different issues, at least one of three or more.

    The same issue never stands on both sides.
    """
    away: set[Query] = set()
    first = dict(reversed(issues))
    for label in sorted(set(first.values())):
        mine = sorted((query for query, its in first.items() if its == label), key=lambda query: content_hash([seed, query]))
        away |= set(mine[: max(1, round(len(mine) * held)) if len(mine) > 2 else 0])
    return [i for i in issues if i[0] not in away], [i for i in issues if i[0] in away]


def taught_router(
    routing: Routing,
    issues: Sequence[Labelled],
    embed: Callable[[Sequence[str]], NDArray[np.float32]],
    *,
    held: float,
    seed: int,
    steps: int,
    learning_rate: float,
) -> tuple[Router, dict[str, float]]:
    """The router, and what is worth telling of it.

    `router_accuracy` is the share of held-out issues whose likeliest class is theirs (absent where none were held out),
    `router_usual` what always naming their commonest class would give, `router_none` how many issues were for the base.
    """
    learnt, asked = split(issues, held, seed)
    router = fit_router(
        routing, vectors_of([q for q, _ in learnt], embed), [label for _, label in learnt], seed, steps, learning_rate
    )
    notes = {"router_held": float(len(asked)), "router_none": float(sum(label == NONE for _, label in issues))}
    if asked:
        said = [router.choice(vector) for vector in vectors_of([query for query, _ in asked], embed)]
        truth = [label for _, label in asked]
        notes["router_accuracy"] = sum(a == b for a, b in zip(said, truth, strict=True)) / len(truth)
        notes["router_usual"] = max(map(truth.count, truth)) / len(truth)
    return router, notes
