"""How well and how fast memories are found: `sleepyctl bench memory`. `eval.bench_memory_card` writes it down."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from agent.sandbox.base import Sandbox
from eval.bench_memory_past import POCKET, SWE_BENCH_CL, Past, pocket, swe_bench_cl
from eval.bench_memory_quality import METHODS, Difference, Quality, difference, quality, scored
from eval.bench_memory_scale import REPOSITORIES as SCALE_REPOSITORIES
from eval.bench_memory_scale import Scale, measure
from eval.pocket.stream import REPOSITORIES
from eval.swebench.dataset import Dataset
from memory.hashing import content_hash
from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.embedders import Embedder
from memory.knowledge.layer import CANDIDATES


class Skipped(BaseModel):
    """A stream that could not be measured here."""

    stream: str
    reason: str


class MemoryBench(BaseModel):
    """The whole report. `quality` and `differences` are of repositories on which nothing was tuned.

    `quality_tuned` is of the others. `scale_one_repository` is the largest size with everything in one repository.
    """

    config_hash: str
    embedder: str
    seeds: list[int]
    quality: list[Quality]
    differences: list[Difference]
    quality_tuned: list[Quality]
    differences_tuned: list[Difference]
    skipped: list[Skipped]
    scale: list[Scale]
    scale_one_repository: list[Scale]
    load_average: float
    wall_seconds: float


def bench_memory(
    embedder: Embedder,
    config: KnowledgeConfig,
    sandbox: Sandbox,
    data: Dataset | str,
    sizes: Sequence[int],
    seeds: Sequence[int],
    tasks: int,
    say: Callable[[str], None] = lambda line: None,
) -> MemoryBench:
    """Measure. `data` is the SWE-Bench-CL file, or why there is none; `tasks` how many of each pocket repository."""
    began, known = time.monotonic(), "" if isinstance(data, str) else data.sha256
    found: list[tuple[list[Quality], list[Difference]]] = []
    for tuned in (False, True):
        rows, differences = [], []
        for stream, pasts in _pasts(tuned, sandbox, data, seeds, tasks):
            scores = scored(pasts, embedder, config)
            repos = sorted({task.repo for past in pasts for task in past.tasks})
            rows += [quality(stream, method, repos, scores[method]) for method in METHODS]
            differences += [difference(stream, method, scores) for method in METHODS[:-1]]
            say(f"{stream}, {', '.join(repos)}: " + ", ".join(f"{r.method} {r.recall_at_3:.3f}" for r in rows[-len(METHODS) :]))
        found.append((rows, differences))
    jobs = [(count, SCALE_REPOSITORIES) for count in sizes] + ([(max(sizes), 1)] if sizes else [])
    scale: list[Scale] = []
    for count, repositories in jobs:
        with tempfile.TemporaryDirectory(prefix="bench-memory-") as name:

            def told(done: int, count: int = count) -> None:
                if done % 10_000 == 0:
                    say(f"{done:,} of {count:,} memories")

            scale.append(measure(count, Path(name), embedder, config, repositories, on_progress=told))
        say(f"{count:,} memories in {repositories} repositories: recall p95 {scale[-1].recall_p95_ms} ms")
    return MemoryBench(
        config_hash=content_hash([config.model_dump(exclude={"url"}), embedder.name, CANDIDATES, known, list(seeds), tasks]),
        embedder=embedder.name,
        seeds=list(seeds),
        quality=found[0][0],
        differences=found[0][1],
        quality_tuned=found[1][0],
        differences_tuned=found[1][1],
        skipped=[Skipped(stream=SWE_BENCH_CL, reason=data)] if isinstance(data, str) else [],
        scale=scale[: len(sizes)],
        scale_one_repository=scale[len(sizes) :],
        load_average=round(os.getloadavg()[0], 2),
        wall_seconds=round(time.monotonic() - began, 1),
    )


def half(names: Sequence[str], tuned: bool) -> list[str]:
    """Every second one, for tuning, or the others, for the report."""
    return list(names[0 if tuned else 1 :: 2])


def _pasts(
    tuned: bool, sandbox: Sandbox, data: Dataset | str, seeds: Sequence[int], tasks: int
) -> Iterator[tuple[str, list[Past]]]:
    yield POCKET, [pocket(seed, half(REPOSITORIES, tuned), tasks, sandbox) for seed in seeds]
    if not isinstance(data, str) and (repos := half(data.repos, tuned)):
        yield SWE_BENCH_CL, [swe_bench_cl(data, repos)]
