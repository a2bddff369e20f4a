"""How well memories are found: the same questions to every method, and what their answers are worth.

`chance` takes any three; `reference` is the usual design (the raw log of an attempt as one document, the three nearest,
whatever their similarity); `dense`, `bm25` and `hybrid` search the memories made of it, of which `hybrid` is
`Knowledge.recall` as an attempt gets it, with its floor. All of them know the time.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from agent.recalled import cost, fact_cost
from eval.bench_memory_past import Past
from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.embedders import Embedder
from memory.knowledge.layer import Knowledge
from memory.knowledge.memories import RECALLED, Kind, Memory
from memory.knowledge.words import words
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome

METHODS = ("chance", "reference", "dense", "bm25", "hybrid")
SHOWN = 3
RESAMPLES = 2_000


class Estimate(BaseModel):
    """A mean over queries with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """From one value a query."""
        if not values:
            return cls(mean=0.0, low=0.0, high=0.0)
        means = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
        low, high = np.percentile(means, (2.5, 97.5))
        return cls(mean=round(float(np.mean(values)), 4), low=round(float(low), 4), high=round(float(high), 4))


class Quality(BaseModel):
    """One method on one stream. Queries are tasks of whose repository something is remembered that is no later.

    Over those with anything relevant: `recall_at_3` is the share of the relevant tasks (of three, where there are more)
    among the first three memories, `mrr` the mean of 1 / the rank of the first relevant one (0 where none is shown).
    Over all: `shown_mean` is how many memories are shown, `precision` the share of these that is relevant.
    `empty_when_nothing_fits` is the share of the others for which nothing is shown.
    """

    stream: str
    method: str
    repositories: list[str]
    queries: int
    queries_with_relevant: int
    recall_at_3: float
    recall_at_3_interval: tuple[float, float]
    mrr: float
    mrr_interval: tuple[float, float]
    shown_mean: float
    precision: float
    empty_when_nothing_fits: float


class Difference(BaseModel):
    """`hybrid` minus another method, query by query."""

    stream: str
    against: str
    recall_at_3: Estimate
    mrr: Estimate


@dataclass(frozen=True)
class Score:
    """One query: `hits` of the memories `shown` are relevant; `relevant` says whether any could have been."""

    recall: float
    reciprocal_rank: float
    shown: int
    hits: int
    relevant: bool


def scored(pasts: Iterable[Past], embedder: Embedder, config: KnowledgeConfig) -> dict[str, list[Score]]:
    """The scores of every method, query by query: each task is asked about, and then remembered."""
    found: dict[str, list[Score]] = {method: [] for method in METHODS}
    for past in pasts:
        with _open(embedder, config) as layer, _open(embedder, config) as raw:
            for task in past.tasks:
                if past.known(task):
                    relevant = past.relevant(task)
                    for method, memories in _answers(layer, raw, task).items():
                        found[method].append(score([memory.task_id for memory in memories], relevant))
                layer.remember({task.id: past.lessons[task.id]})
                raw.remember({task.id: [_document(task, past.logs[task.id])]})
    return found


def _answers(layer: Knowledge, raw: Knowledge, task: Task) -> dict[str, Sequence[Memory]]:
    literal = layer.shelf.match(task.repo, words(task.issue), task.created_at, SHOWN)
    earlier = list(layer.shelf.active(task.repo, RECALLED))
    return {
        "chance": _ranked(layer, random.Random(task.id).sample(earlier, min(SHOWN, len(earlier)))),
        "reference": _nearest(raw, task),
        "dense": _nearest(layer, task),
        "bm25": _ranked(layer, [found.number for found in literal]),
        "hybrid": layer.recall(task, datetime.now(UTC)).memories,
    }


@contextmanager
def _open(embedder: Embedder, config: KnowledgeConfig) -> Iterator[Knowledge]:
    with (
        tempfile.TemporaryDirectory(prefix="bench-memory-") as name,
        closing(Store(Path(name) / "store.db")) as store,
        closing(Knowledge(store, Path(name) / "chroma", embedder, config, "bench", cost=cost, fact_cost=fact_cost)) as layer,
    ):
        yield layer


def _document(task: Task, text: str) -> Memory:
    """A raw log as if it were a memory."""
    return Memory(
        kind=Kind.CASE,
        repo=task.repo,
        task_id=task.id,
        trajectory_id=task.id,
        outcome=Outcome.RESOLVED,
        verified=True,
        created_at=task.created_at,
        recorded_at=task.created_at,
        distiller="none",
        symptom=text,
    )


def _nearest(layer: Knowledge, task: Task) -> list[Memory]:
    return _ranked(layer, [near.number for near in layer.index.query(task.issue, task.repo, task.created_at, SHOWN)])


def _ranked(layer: Knowledge, numbers: Sequence[int]) -> list[Memory]:
    memories = layer.shelf.get(numbers)
    return [memories[number] for number in numbers]


def score(shown: Sequence[str], relevant: Set[str]) -> Score:
    """Of the tasks whose memories are shown, best first, and of those that help."""
    hits = [rank for rank, task in enumerate(shown, 1) if task in relevant]
    recall = len(relevant & set(shown[:SHOWN])) / min(SHOWN, len(relevant)) if relevant else 0.0
    return Score(recall, 1 / hits[0] if hits else 0.0, len(shown), len(hits), bool(relevant))


def quality(stream: str, method: str, repositories: Sequence[str], scores: Sequence[Score]) -> Quality:
    """A row of the report."""
    asked, idle = [s for s in scores if s.relevant], [s for s in scores if not s.relevant]
    recall, rank = Estimate.of([s.recall for s in asked]), Estimate.of([s.reciprocal_rank for s in asked])
    shown = sum(s.shown for s in scores)
    return Quality(
        stream=stream,
        method=method,
        repositories=list(repositories),
        queries=len(scores),
        queries_with_relevant=len(asked),
        recall_at_3=recall.mean,
        recall_at_3_interval=(recall.low, recall.high),
        mrr=rank.mean,
        mrr_interval=(rank.low, rank.high),
        shown_mean=round(shown / max(len(scores), 1), 4),
        precision=round(sum(s.hits for s in scores) / max(shown, 1), 4),
        empty_when_nothing_fits=round(sum(not s.shown for s in idle) / max(len(idle), 1), 4),
    )


def difference(stream: str, against: str, scores: Mapping[str, Sequence[Score]]) -> Difference:
    """What `hybrid` gains or loses, paired."""
    pairs = [(one, other) for one, other in zip(scores["hybrid"], scores[against], strict=True) if one.relevant]
    return Difference(
        stream=stream,
        against=against,
        recall_at_3=Estimate.of([one.recall - other.recall for one, other in pairs]),
        mrr=Estimate.of([one.reciprocal_rank - other.reciprocal_rank for one, other in pairs]),
    )
