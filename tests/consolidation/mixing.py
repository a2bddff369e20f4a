"""A mixture without training: random experts, and a router that knows three topics and one thing to leave alone."""

from __future__ import annotations

from pathlib import Path

from agent.adapters import Lora
from agent.model import Message, Model, Sampling
from agent.pocket import WEIGHTS
from consolidation.layouts import made_whole
from consolidation.layouts.peft import write_peft
from consolidation.mixture.experts import mean_of
from consolidation.mixture.query import Query, vectors_of
from consolidation.mixture.router import NONE, Router, Routing, fit_router
from memory.knowledge.embedders import HashingEmbedder
from tests.consolidation.adapting import random_lora

TOPICS = ("total of fees wrong", "name in upper case", "list order sorted")
ELSEWHERE = "crashes on empty input"
EMBEDDER = HashingEmbedder()
RANKS = (3, 2, 2)


def issue(topic: int, number: int) -> Query:
    """One of a topic, or with `NONE` one that no expert should answer."""
    if topic == NONE:
        return Query("river", f"`g{number}` {ELSEWHERE}")
    return Query("bank", f"`f{number}` has its {TOPICS[topic]}")


def issues(count: int) -> list[tuple[Query, int]]:
    """So many of each kind."""
    return [(issue(topic, number), topic) for number in range(count) for topic in (0, 1, 2, NONE)]


def routing(top_k: int = 1, floor: float = 0.5, hidden: int = 16, embedder: str = EMBEDDER.name) -> Routing:
    return Routing(
        taxonomy="clusters",
        categories=("cluster_0", "cluster_1", "cluster_2"),
        ranks=RANKS,
        top_k=top_k,
        floor=floor,
        embedder=embedder,
        dimensions=EMBEDDER.dimensions,
        hidden=hidden,
    )


def router(how: Routing, seed: int = 0, count: int = 6) -> Router:
    known = issues(count)
    return fit_router(how, vectors_of([q for q, _ in known], EMBEDDER.embed), [n for _, n in known], seed, 60, 1e-2)


def experts() -> list[Lora]:
    return [
        random_lora(kinds=("self_attn.q_proj", "mlp.down_proj"), rank=r, alpha=2.0 * r, seed=r + 10 * i)
        for i, r in enumerate(RANKS)
    ]


def mixture(folder: Path, how: Routing | None = None) -> Path:
    """An artefact."""
    with made_whole(folder) as made:
        write_peft(mean_of(experts()), made, WEIGHTS.name)
        router(how or routing()).save(made)
    return folder


def answers(model: Model, adapter: Path | None) -> list[str]:
    """What is said greedily to two issues of each kind."""
    model.use(adapter)
    asked = [[Message("user", f"issue in {q.repo}\n{q.issue}")] for q, _ in issues(2)]
    return [done.text for done in model.complete(asked, Sampling(max_tokens=12))]
