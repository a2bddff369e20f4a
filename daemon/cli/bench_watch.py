"""`sleepyctl bench watch`: what the limits of the online watch mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import Json, print_table


def bench_watch(
    runs: Annotated[int, typer.Option(min=1, help="Repositories of each case; 1,000 tasks are simulated in each.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is simulated.")] = 0,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; its table watch counts.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate the online watch: false alarms per 1,000 tasks in the worst case, and tasks until a drop is found."""
    from daemon.config import load_config
    from eval.bench_watch import bench_watch as measure

    report = measure(load_config(config).watch, seed, runs)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    cases = [(f"{c.rate:.1f}", c.before, c.promoted_after, f"{c.per_1000:.2f}") for c in report.cases]
    print_table(("resolved", "attempts before", "promoted after", "false alarms per 1,000 tasks"), cases, "")
    found = [("resolved", f"-{drop}", tasks) for drop, tasks in report.delay.items()]
    found += [("conflicts", f"+{rise}", tasks) for rise, tasks in report.conflict_delay.items()]
    rows = [(chart, change, "over 2,000" if tasks is None else f"{tasks:g}") for chart, change, tasks in found]
    print_table(("chart", "change", "median tasks to the alarm"), rows, "")
    typer.echo(f"worst case: {report.false_alarms_per_1000} false alarms per 1,000 tasks")
