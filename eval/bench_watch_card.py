"""Writes what the limits of the online watch mean into the documents.

    python -m eval.bench_watch_card --bench BENCH.json --write docs/results/watch.md

BENCH.json is what `sleepyctl bench watch --json` printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from eval.bench_watch import BEFORE, PATIENCE, PROMOTED_AFTER, Case, WatchReport
from eval.watch import MEANING

ALLOWED = 1.0
"""Alarms for nothing in 1,000 tasks, at most."""
BOUND = 0.95


def card(bench: WatchReport) -> str:
    """The document."""
    return f"""# The watch after a promotion: false alarms and delays

Written by `python -m eval.bench_watch_card` from what `sleepyctl bench watch --json` printed: {bench.tasks:,} simulated tasks
in {len(bench.cases)} cases, seed {bench.seed}, configuration {bench.config_hash}. The attempts are simulated, one like the
other but for chance; promise and charts are those that the daemon runs.

An alarm rolls an adapter back, so what counts is the case with the most of them. A case is a repository with a rate of
resolved tasks, a number of attempts before the promotion from which the promise is made, and a promotion (a new promise, a new
canary) every so many tasks and after every alarm. Nothing ever changes in it: every alarm is one for nothing.

## Alarms for nothing, per 1,000 tasks

| tasks resolved | {" | ".join(f"{before} before, every {after:,}" for before in BEFORE for after in PROMOTED_AFTER)} |
|---|{"---|" * (len(BEFORE) * len(PROMOTED_AFTER))}
{_cases(bench.cases)}

{_worst(bench.cases)}

By chart, over all cases:

| chart | what it looks for | limit (nats) | alarms |
|---|---|---|---|
{_charts(bench)}

## Tasks from a change to the alarm

The median over repositories of which {bench.delay_from:.0%} of the tasks were resolved before; nothing else changes, but
failures take more turns. Changes are in points of the share. Not found: most were not within {PATIENCE:,} tasks.

| change | median tasks |
|---|---|
{_delays("resolved tasks, down by", bench.delay)}
{_delays("attempts with calls that contradict the workspace, up by", bench.conflict_delay)}

One repository in two is found later than its median. The watch finds what is large, or came after the gate; that it says
nothing is no proof that nothing was lost.
"""


def _cases(cases: list[Case]) -> str:
    rows = []
    for rate in sorted({case.rate for case in cases}):
        found = {(case.before, case.promoted_after): case for case in cases if case.rate == rate}
        cells = [f"{found[before, after].per_1000:.2f}" for before in BEFORE for after in PROMOTED_AFTER]
        rows.append(f"| {rate:.0%} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _worst(cases: list[Case]) -> str:
    """The worst case with its bound, and the mean."""
    worst = max(cases, key=lambda case: case.per_1000)
    mean = 1000 * sum(case.alarms for case in cases) / sum(case.tasks for case in cases)
    bound = 1000 * upper_rate(worst.alarms, worst.tasks)
    return f"""Worst case: {worst.alarms} alarms in {worst.tasks:,} tasks, {worst.per_1000:.2f} per 1,000; with {BOUND:.0%}
confidence fewer than {bound:.2f} (exact, Poisson, one-sided; of this case by itself, not corrected for having been picked).
Wanted: {ALLOWED:g}. Mean over all cases: {mean:.2f}."""


def upper_rate(events: int, tasks: int) -> float:
    """Upper bound of a rate per task from a count (Garwood 1936), one-sided at `BOUND`."""
    from scipy.stats import chi2

    return float(chi2.ppf(BOUND, 2 * (events + 1)) / 2 / tasks)


def _charts(bench: WatchReport) -> str:
    rows = []
    for chart in bench.charts:
        what = "resolved, fewer" if chart.chart == "resolved" else MEANING[chart.chart]
        rows.append(f"| {chart.chart}{' (canary)' if chart.canary else ''} | {what} | {chart.limit:g} | {chart.alarms} |")
    return "\n".join(rows)


def _delays(what: str, found: dict[str, float | None]) -> str:
    return "\n".join(
        f"| {what} {100 * float(change):g} points | {'not found' if tasks is None else f'{tasks:g}'} |"
        for change, tasks in found.items()
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True)
    parser.add_argument("--write", type=Path, default=Path("docs/results/watch.md"))
    options = parser.parse_args()
    bench = WatchReport.model_validate_json(options.bench.read_text(encoding="utf-8"))
    options.write.parent.mkdir(parents=True, exist_ok=True)
    options.write.write_text(card(bench), encoding="utf-8")


if __name__ == "__main__":
    main()
