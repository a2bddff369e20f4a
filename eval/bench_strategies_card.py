"""Writes the results of the strategies into the documents.

    python -m eval.bench_strategies_card --bench BENCH.json --write docs/results/strategies.md

BENCH.json is what `sleepyctl bench strategies --json` printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from eval.bench_strategies_summary import Points, StrategyBench, Summary


def card(bench: StrategyBench) -> str:
    """The document."""
    setup = bench.setup
    ages = "".join(f" | +{age}" for age in range(1, setup.nights))
    return f"""# Training strategies: pocket results

Written by `python -m eval.bench_strategies_card` from what `sleepyctl bench strategies --json` printed; seeds
{", ".join(map(str, bench.seeds))}, configuration {bench.config_hash}, load average {bench.load_average} at the end.

Each life is {setup.nights} nights. A night teaches one more repository's house convention ({setup.day} tasks lived by the bare
base, merged fixes included, the same for every strategy) to *one* adapter that serves all repositories; nothing routes a
repository back to the base, and no gate stands between the nights, so that what is lost is seen. After each night every
repository of the life is examined on {setup.conventions} new tasks about its convention, and {setup.base_skills} held-out tasks
examine the base's own skills. All differences are to the bare base on the same tasks, in points, with 95 % intervals over lives
(Student's t; with {len(bench.seeds)} lives they are wide, and differences between strategies within them mean nothing).

| strategy | gain after its night | all at the end | forgotten since | next one, before | base skills at the end | worst |
|---|---|---|---|---|---|---|
{_rows(bench.summaries, _effect)}

Retention: what is left of a night's gain, the night itself and so many nights later.

| strategy | its night{ages} |
|---|{"---|" * setup.nights}
{_rows(bench.summaries, lambda s: [_points(p) for p in s.retention])}

Cost of a whole life: tokens through training (each pass counts), seconds of training and beside it (probes, Fisher, routers,
replay priorities; on this machine, under its load), the largest night's bytes, and nights that training refused.

| strategy | tokens | seconds | beside | MB | refused |
|---|---|---|---|---|---|
{_rows(bench.summaries, _cost)}

`naive` goes on from the last adapter with new examples alone. `naive_dpo` learns from preference pairs (format C) instead of
turns, `full_replay_kl` is held to the base on rehearsed episodes; `mixture` rehearses the same ones, which its router needs.
All others are the defaults of their strategy, format T, and the same recipe. Pocket results: they say how these strategies
compare on a tiny model and synthetic repositories, and nothing about large ones.
"""


def _rows(summaries: Sequence[Summary], cells: object) -> str:
    assert callable(cells)
    return "\n".join(f"| {s.variant} | {' | '.join(cells(s))} |" for s in summaries)


def _effect(s: Summary) -> list[str]:
    found = (s.gain, s.final, s.forgetting, s.ahead, s.base_skills, s.base_skills_worst)
    return [_points(points) for points in found]


def _cost(s: Summary) -> list[str]:
    return [f"{s.tokens:,}", f"{s.seconds:.0f}", f"{s.extra_seconds:.0f}", f"{s.megabytes:.2f}", str(s.refused)]


def _points(points: Points | None) -> str:
    if points is None:
        return "-"
    if points.low is None or points.high is None:
        return f"{points.mean:+.1f}"
    return f"{points.mean:+.1f} ({points.low:+.1f} to {points.high:+.1f})"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--write", type=Path, required=True)
    chosen = parser.parse_args(argv)
    bench = StrategyBench.model_validate_json(chosen.bench.read_text(encoding="utf-8"))
    chosen.write.write_text(card(bench), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
