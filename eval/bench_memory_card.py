"""Writes the results of the memory benchmark into the documents.

    python -m eval.bench_memory_card --bench BENCH.json --write docs/results/memory.md

BENCH.json is what `sleepyctl bench memory --json` printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval.bench_memory import MemoryBench
from eval.bench_memory_quality import Difference, Estimate, Quality
from eval.bench_memory_scale import Scale

LIMIT_MS = 50.0


def card(bench: MemoryBench) -> str:
    """The document."""
    skipped = "".join(f"\nNot measured: {each.stream} ({each.reason}).\n" for each in bench.skipped)
    return f"""# Finding memories: results

Written by `python -m eval.bench_memory_card` from what `sleepyctl bench memory --json` printed; embedder {bench.embedder},
seeds {", ".join(map(str, bench.seeds))}, configuration {bench.config_hash}, load average {bench.load_average} at the end,
{bench.wall_seconds:.0f} s in all.

## How well

Every task of a stream is asked about, by its issue alone, and then remembered. `reference` is the usual design: the raw log of
an attempt as one document, the three nearest, whatever their similarity. The others search the memories made of the same
attempts: `dense` by cosine, `bm25` by words, three each, whatever their score; `hybrid` is what an attempt is told: both fused,
above a floor, not the same twice, within the room that `knowledge.tokens` gives (the others have no such limit).

- *pocket*: played by a script in real workplaces, two of three tasks solved. An earlier task of the same repository is relevant
  if the fault is of the same kind (the house convention, or the same base kind).
- *swe-bench-cl*: each earlier task is told as solved with its gold patch (for this measurement alone, in a temporary folder).
  An earlier task of the same repository is relevant if the gold patches change a file in common. No memory is made by a model.

recall@3 is the share of the relevant tasks (of three, where there are more) among the first three memories, MRR the mean of 1 /
the rank of the first relevant one among them; both over the queries with anything relevant, with 95 % bootstrap intervals over
queries. *Silent* is the share of the other queries for which nothing is shown; *precision* is over all memories shown.

The built-in embedder's floor, `knowledge.words_floor` and `knowledge.diversity` were chosen on every second repository of each
stream, and are reported on the others. Wanted was: no worse than any single method in recall@3 and MRR, and silent where
nothing fits. The two pull against each other; what was chosen lies between them. Tried there, and not better on both streams
beyond chance: the heart of an issue or its title twice as the query; symptom and places alone as the document; other weights of
n-grams, long words and identifiers; other constants of the fusion, and the mean of cosine and shared words in its place. A
higher floor is silent more often, and soon costs more recall than it saves: by its words alone, a task that touches other files
of a repository looks much like one that touches the same.

### On repositories that nothing was tuned on

{_quality(bench.quality)}
{_differences(bench.differences)}
### On the repositories that the floors were chosen on

{_quality(bench.quality_tuned)}
{_differences(bench.differences_tuned)}{skipped}
{_verdict(bench)}
## What it costs

Made-up memories (names of a Zipf vocabulary, paths, errors) in eight repositories, and at the largest size all in one; half of
them are later than the task that asks. Time of `Knowledge.recall` without the embedding of the query; *index* is all of
remembering. *CPU* is the
processor time of the process, which other load hardly changes. Wanted: p95 of at most {LIMIT_MS:.0f} ms at the largest size.

{_scale([*bench.scale, *bench.scale_one_repository])}"""


def _quality(rows: Sequence[Quality]) -> str:
    lines = [
        "| stream | method | recall@3 | MRR | shown | precision | silent where nothing fits |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        recall = f"{row.recall_at_3:.3f} ({_span(row.recall_at_3_interval)})"
        mrr = f"{row.mrr:.3f} ({_span(row.mrr_interval)})"
        told = f"{row.shown_mean:.2f} | {row.precision:.1%} | {row.empty_when_nothing_fits:.1%}"
        lines.append(f"| {row.stream} | {row.method} | {recall} | {mrr} | {told} |")
    of = {row.stream: row for row in rows}.values()
    asked = [
        f"{row.stream}: {', '.join(row.repositories)}; {row.queries} queries, {row.queries_with_relevant} of them with "
        "anything relevant"
        for row in of
    ]
    return "\n".join([*lines, "", *(f"- {line}." for line in asked), ""])


def _differences(rows: Sequence[Difference]) -> str:
    lines = ["| stream | hybrid minus | recall@3 | MRR |", "|---|---|---|---|"]
    lines += [f"| {row.stream} | {row.against} | {_change(row.recall_at_3)} | {_change(row.mrr)} |" for row in rows]
    return "\n".join([*lines, ""])


def _verdict(bench: MemoryBench) -> str:
    """What was gained and what was lost, by the figures."""
    lines = []
    for row in bench.differences:
        told = [
            f"{name} {_word(change)} by {abs(change.mean):.3f}"
            for name, change in (("recall@3", row.recall_at_3), ("MRR", row.mrr))
        ]
        lines.append(f"- {row.stream}, hybrid beside {row.against}: {', '.join(told)}.")
    quiet = {row.stream: row for row in bench.quality if row.method == "hybrid"}
    lines += [
        f"- {stream}: the floor keeps silent in {row.empty_when_nothing_fits:.0%} of the queries without anything relevant, "
        f"and shows {row.shown_mean:.2f} memories for a query."
        for stream, row in quiet.items()
    ]
    return "\n".join(["### Gained and lost, where nothing was tuned", "", *lines, ""])


def _word(change: Estimate) -> str:
    sure = change.low > 0 or change.high < 0
    way = "higher" if change.mean > 0 else "lower" if change.mean < 0 else "the same"
    return way if sure else f"{way} (within chance)"


def _scale(rows: Sequence[Scale]) -> str:
    lines = [
        "| memories | repositories | p50 ms | p95 ms | CPU p95 ms | slowest ms | first ms | embedding ms | index s | MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.memories:,} | {row.repositories} | {row.recall_p50_ms} | {row.recall_p95_ms} | {row.recall_cpu_p95_ms} | "
        f"{row.recall_max_ms} | {row.first_recall_ms} | {row.embed_p50_ms} | {row.index_seconds} | {row.disk_mb} |"
        for row in rows
    ]
    return "\n".join([*lines, ""])


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _change(change: Estimate) -> str:
    return f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--write", type=Path, default=Path("docs/results/memory.md"))
    options = parser.parse_args()
    bench = MemoryBench.model_validate_json(options.bench.read_text(encoding="utf-8"))
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(card(bench), encoding="utf-8")


if __name__ == "__main__":
    main()
