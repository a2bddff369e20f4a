"""How fast training is, beside what the engines' own stock loops do with the same data: `sleepyctl bench train`.

Stock is, for torch, PEFT under transformers' `Trainer` as it comes (batches in random order, padded to their longest
example, logits for every token); for MLX, the training loop of `mlx_lm lora`, in the same precision. Each run has its own
process; contestants take turns, so that a busy machine slows down all of them. Tokens are those of the examples, never padding.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel

from agent.pocket import WEIGHTS
from agent.pocket.tokenizer import PocketTokenizer
from consolidation.filters import FilterConfig, Filters
from consolidation.trainers.base import Example, Item, Job, LoraConfig, read_job, write_job
from consolidation.trainers.child import ChildTrainer
from eval.errors import EvalError
from eval.pocket.rehearsal import rehearsal_pairs
from memory.hashing import content_hash

RESULT = "result.json"
ADAPTER = "adapter"
CONTESTANTS = {"torch": ("torch", "torch bucket", "peft"), "mlx": ("mlx", "mlx_lm")}
STOCK = {"torch": "peft", "mlx": "mlx_lm"}
Lengths = Literal["equal", "varying"]


class Run(BaseModel):
    """One training: `seconds` and `cpu_seconds` of its steps alone, `peak_mb` (MiB) of its whole process."""

    tokens: int
    seconds: float
    cpu_seconds: float
    peak_mb: int


class Row(BaseModel):
    """A contestant on one data set: medians over the rounds, and its loss (nats per own token) on examples it never saw."""

    engine: str
    contestant: str
    lengths: Lengths
    tokens: int
    tokens_per_second: float
    tokens_per_cpu_second: float
    seconds: float
    peak_mb: int
    unseen_loss: float
    speed_up: float
    """Tokens per second against stock: median over the rounds of the ratio within a round."""
    cpu_speed_up: float
    """The same per second of the processor."""


class TrainBench(BaseModel):
    """The whole report; `unseen_loss_of_base` belongs to the untrained model."""

    config_hash: str
    base: str
    rounds: int
    batch_size: int
    threads: int
    examples: dict[str, int]
    lengths: dict[str, tuple[int, int]]
    unseen_loss_of_base: float
    load_average: float
    rows: list[Row]


def bench(
    work: Path,
    examples: int = 32,
    rounds: int = 3,
    engines: Sequence[str] = ("torch", "mlx"),
    threads: int = 1,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> TrainBench:
    """Train the pocket model on episodes of equal and of varying length, with every contestant that is installed.

    MLX without Metal gets an eighth of the examples.

    Raises:
        EvalError: an engine is unknown, or a contestant failed.
    """
    if unknown := sorted(set(engines) - set(CONTESTANTS)):
        raise EvalError(f"no engine {unknown[0]!r}; choose from {', '.join(CONTESTANTS)}")
    lora = LoraConfig(learning_rate=1e-3, epochs=1, batch_size=8, serving_scale=1.0, batching="packed")
    job = Job(base=WEIGHTS, lora=lora, seed=seed, threads=threads)
    there = [engine for engine in engines if engine == "torch" or _has_mlx()]
    sizes = {engine: examples if engine == "torch" or _has_metal() else max(lora.batch_size, examples // 8) for engine in there}
    pool = _episodes(4 * examples + 8, seed)
    unseen, pool = pool[:8], pool[8:]
    rows: list[Row] = []
    spans: dict[str, tuple[int, int]] = {}
    for engine in there:
        for lengths in ("equal", "varying"):
            data = _chosen(pool, sizes[engine], lengths)
            spans[f"{engine} {lengths}"] = (min(e.width for e in data), max(e.width for e in data))
            rows += _contest(work, job, data, unseen, engine, lengths, rounds, say)
    return TrainBench(
        config_hash=content_hash([job.model_dump(mode="json", exclude={"base"}), sizes, rounds]),
        base="pocket",
        rounds=rounds,
        batch_size=lora.batch_size,
        threads=threads,
        examples=sizes,
        lengths=spans,
        unseen_loss_of_base=_mean(ChildTrainer().loss(job, unseen)),
        load_average=round(os.getloadavg()[0], 2),
        rows=rows,
    )


def _contest(
    work: Path,
    job: Job,
    data: Sequence[Example],
    unseen: Sequence[Example],
    engine: str,
    lengths: Lengths,
    rounds: int,
    say: Callable[[str], None],
) -> list[Row]:
    runs: dict[str, list[Run]] = {name: [] for name in CONTESTANTS[engine]}
    for number in range(rounds):
        for name in CONTESTANTS[engine]:
            runs[name].append(_run(work / f"{name} {lengths}", job, data, name))
            done = runs[name][-1]
            say(f"{lengths:8} {name:13} round {number + 1}: {done.tokens / done.seconds:7.0f} tokens/s, {done.peak_mb} MiB")
    stock = runs[STOCK[engine]]
    return [
        Row(
            engine=engine,
            contestant=name,
            lengths=lengths,
            tokens=mine[0].tokens,
            tokens_per_second=round(median(r.tokens / r.seconds for r in mine), 1),
            tokens_per_cpu_second=round(median(r.tokens / r.cpu_seconds for r in mine), 1),
            seconds=round(median(r.seconds for r in mine), 2),
            peak_mb=round(median(r.peak_mb for r in mine)),
            unseen_loss=round(_mean(ChildTrainer().loss(job, unseen, work / f"{name} {lengths}" / ADAPTER)), 4),
            speed_up=round(median(s.seconds / r.seconds * r.tokens / s.tokens for r, s in zip(mine, stock, strict=True)), 2),
            cpu_speed_up=round(
                median(s.cpu_seconds / r.cpu_seconds * r.tokens / s.tokens for r, s in zip(mine, stock, strict=True)), 2
            ),
        )
        for name, mine in runs.items()
    ]


def _run(folder: Path, job: Job, data: Sequence[Example], contestant: str) -> Run:
    shutil.rmtree(folder, ignore_errors=True)
    lora = job.lora.model_copy(update={"batching": "bucket" if contestant == "torch bucket" else "packed"})
    write_job(folder, job.model_copy(update={"lora": lora}), data)
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    argv = [sys.executable, "-m", "eval.bench_train", str(folder), contestant]
    ended = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        why = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise EvalError(f"{contestant} ended with status {ended.returncode}: {why}")
    return Run.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))


def _episodes(count: int, seed: int) -> list[Example]:
    """What an expert does in the pocket world, as nights rehearse it, but with the first word of each turn spelt backwards.

    The pocket model was trained on the like and has little left to learn from it; so there is a habit to be learnt.
    """
    pairs = [
        pair.model_copy(update={"messages": tuple((r, _backwards(t) if r == "assistant" else t) for r, t in pair.messages)})
        for pair in rehearsal_pairs("bench", count, seed)
    ]
    kept = Filters(FilterConfig(), PocketTokenizer(WEIGHTS / "tokenizer.json").example, 1024).filtered(pairs).samples
    return [sample.item.model_copy(update={"rehearsal": False}) for sample in kept if isinstance(sample.item, Example)]


def _backwards(turn: str) -> str:
    word, blank, rest = turn.partition(" ")
    return word[::-1] + blank + rest


def _chosen(pool: Sequence[Example], count: int, lengths: Lengths) -> list[Example]:
    """The first ones, or as many from the middle of their order by length."""
    if lengths == "varying":
        return list(pool[:count])
    begin = (len(pool) - count) // 2
    return sorted(pool, key=lambda example: example.width)[begin : begin + count]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _has_mlx() -> bool:
    from importlib.util import find_spec

    return find_spec("mlx_lm") is not None


def _has_metal() -> bool:
    import mlx.core as mx

    return bool(mx.metal.is_available())


@contextmanager
def _measured(folder: Path, items: Sequence[Item], epochs: int) -> Iterator[None]:
    """Measure what is inside, and leave the result in the folder."""
    began, cpu = time.perf_counter(), time.process_time()
    yield
    unit = 1 << 10 if sys.platform == "linux" else 1
    run = Run(
        tokens=epochs * sum(item.tokens for item in items),
        seconds=time.perf_counter() - began,
        cpu_seconds=time.process_time() - cpu,
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20,
    )
    (folder / RESULT).write_text(run.model_dump_json(), encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """One contestant's process."""
    from eval import bench_stock

    folder, contestant = Path(argv[1]), argv[2]
    job, items = read_job(folder)
    examples = [item for item in items if isinstance(item, Example)]
    train = {"peft": bench_stock.with_peft, "mlx_lm": bench_stock.with_mlx_lm}.get(contestant, bench_stock.with_this)
    train(job, examples, folder / ADAPTER, contestant, lambda: _measured(folder, examples, job.lora.epochs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
