"""What recall costs as memories grow: made-up memories of realistic shape, asked for through `Knowledge.recall`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from agent.recalled import cost, fact_cost
from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.embedders import Embedder
from memory.knowledge.layer import Knowledge
from memory.knowledge.memories import Kind, Memory
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPOSITORIES = 8
BATCH = 2_000
QUERIES = 200
STEMS = 6_000
ZIPF = 1.1
START = datetime(2020, 1, 1, tzinfo=UTC)
ERRORS = ("ValueError", "KeyError", "TypeError", "AttributeError", "IndexError", "RuntimeError", "AssertionError")
_SOUNDS = [first + vowel for first in "bcdfghklmnprstvz" for vowel in "aeiou"]


class Scale(BaseModel):
    """One size. Recall is without the embedding of the query, which `embed_p50_ms` is; the first one opens what it needs.

    `recall_cpu_p95_ms` is the processor time of this process, which hardly depends on what else the machine does.
    `index_seconds` is all of remembering: store, words, embedding and index; `disk_mb` both of them.
    """

    memories: int
    repositories: int
    queries: int
    recall_p50_ms: float
    recall_p95_ms: float
    recall_cpu_p95_ms: float
    recall_max_ms: float
    first_recall_ms: float
    embed_p50_ms: float
    index_seconds: float
    disk_mb: float


class Timed:
    """An embedder that adds up how long it took, and how much processor time."""

    def __init__(self, embedder: Embedder) -> None:
        self.name, self.dimensions, self.floor = embedder.name, embedder.dimensions, embedder.floor
        self.seconds, self.cpu, self._embedder = 0.0, 0.0, embedder

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `Embedder`."""
        began, cpu = time.perf_counter(), time.process_time()
        try:
            return self._embedder.embed(texts)
        finally:
            self.seconds += time.perf_counter() - began
            self.cpu += time.process_time() - cpu


class Writer:
    """Memories and issues with words of a Zipf vocabulary: names, paths, names of errors. The same for the same seed."""

    def __init__(self, seed: int, repositories: int) -> None:
        rng = random.Random(seed)
        self._stems = np.array(["".join(rng.choices(_SOUNDS, k=rng.choice((2, 3, 3, 4)))) for _ in range(STEMS)])
        weights = 1 / np.arange(1, STEMS + 1) ** ZIPF
        self._bounds = np.cumsum(weights / weights.sum())
        self._rng, self._repositories = np.random.default_rng(seed), repositories

    def memory(self, number: int) -> Memory:
        """The memory of task `number`; one in five warns."""
        warns = number % 5 == 4
        plain, name, other, path = self._words(26), self._name(), self._name(), self._path()
        error = ERRORS[number % len(ERRORS)]
        symptom = f"{' '.join(plain[:8])} {name}\n{' '.join(plain[8:])}\n{error}: {plain[0]} has no {other}"
        body = "\n".join(f"+     {self._name()} = {self._name()}({self._name()}, {self._name()})" for _ in range(5))
        when = START + timedelta(minutes=number)
        return Memory(
            kind=Kind.WARNING if warns else Kind.CASE,
            repo=f"owner/repo-{number % self._repositories}",
            task_id=f"task-{number}",
            trajectory_id=f"attempt-{number}",
            outcome=Outcome.UNRESOLVED if warns else Outcome.RESOLVED,
            verified=not warns,
            created_at=when,
            recorded_at=when + timedelta(minutes=5),
            distiller="bench",
            symptom=symptom,
            where=(f"{path}:{name}", f"{path}:{other}"),
            change="" if warns else body,
            shape="1 file, 5 lines",
            tried=(f"changed `{other}` to `{name}` in {path}: {error}: {' '.join(self._words(4))}",) if warns else (),
        )

    def task(self, number: int, of: int) -> Task:
        """A task in the middle of `of` memories: half of them are later."""
        words = self._words(120)
        names = " ".join(f"`{self._name()}`" for _ in range(6))
        issue = f"{' '.join(words[:9])}\n\n{' '.join(words[9:])}\n{names}\n{self._path()}\n{ERRORS[number % 7]}: {self._name()}"
        repo = f"owner/repo-{number % self._repositories}"
        when = START + timedelta(minutes=of // 2)
        return Task(id=f"asked-{number}", repo=repo, issue=issue, created_at=when, position=0, difficulty="1-4 hours")

    def _words(self, count: int) -> list[str]:
        return [str(word) for word in self._stems[np.searchsorted(self._bounds, self._rng.random(count))]]

    def _name(self) -> str:
        return "_".join(self._words(2))

    def _path(self) -> str:
        return f"src/{'/'.join(self._words(2))}.py"


def measure(
    count: int,
    folder: Path,
    embedder: Embedder,
    config: KnowledgeConfig,
    repositories: int = REPOSITORIES,
    seed: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Scale:
    """Remember `count` memories in the new `folder`, and ask `QUERIES` times."""
    writer, timed = Writer(seed, repositories), Timed(embedder)
    with (
        closing(Store(folder / "store.db")) as store,
        closing(Knowledge(store, folder / "chroma", timed, config, "bench", cost=cost, fact_cost=fact_cost)) as layer,
    ):
        spent = filled(layer, writer, count, on_progress)
        first, *others = asked(layer, timed, writer, count)
    disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    p50, p95 = np.percentile([took.wall for took in others], (50, 95))
    cpu = np.percentile([took.cpu for took in others], 95)
    return Scale(
        memories=count,
        repositories=repositories,
        queries=QUERIES,
        recall_p50_ms=round(float(p50), 2),
        recall_p95_ms=round(float(p95), 2),
        recall_cpu_p95_ms=round(float(cpu), 2),
        recall_max_ms=round(max(took.wall for took in others), 2),
        first_recall_ms=round(first.wall, 1),
        embed_p50_ms=round(float(np.median([took.embedding for took in others])), 2),
        index_seconds=round(spent, 1),
        disk_mb=round(disk / 1e6, 1),
    )


def filled(layer: Knowledge, writer: Writer, count: int, on_progress: Callable[[int], None]) -> float:
    """Remember so many memories; the seconds that it took."""
    spent = 0.0
    for start in range(0, count, BATCH):
        lessons = {m.trajectory_id: [m] for m in map(writer.memory, range(start, min(start + BATCH, count)))}
        began = time.perf_counter()
        layer.remember(lessons)
        spent += time.perf_counter() - began
        on_progress(start + len(lessons))
    return spent


@dataclass(frozen=True)
class Took:
    """One recall, in ms: wall and processor time but for embedding, and embedding."""

    wall: float
    cpu: float
    embedding: float


def asked(layer: Knowledge, timed: Timed, writer: Writer, count: int) -> list[Took]:
    """The first recall and `QUERIES` others."""
    now = START + timedelta(minutes=count)
    found: list[Took] = []
    for number in range(QUERIES + 1):
        task, timed.seconds, timed.cpu = writer.task(number, count), 0.0, 0.0
        began, cpu = time.perf_counter(), time.process_time()
        layer.recall(task, now)
        wall, cpu = time.perf_counter() - began - timed.seconds, time.process_time() - cpu - timed.cpu
        found.append(Took(1e3 * wall, 1e3 * cpu, 1e3 * timed.seconds))
    return found
