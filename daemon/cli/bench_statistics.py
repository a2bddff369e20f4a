"""`sleepyctl bench statistics`: do equal arms come out equal, and better ones better?"""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli.options import Json, print_table


def bench_statistics(
    runs: Annotated[int, typer.Option(min=10, help="Simulated experiments of each kind.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is simulated.")] = 0,
    as_json: Json = False,
) -> None:
    """Simulate experiments: how often equal arms are called different at 5 %, and how often a true difference is found."""
    from eval.statistics.simulation import bench_statistics as measure

    report = measure(runs, seed)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    columns = (
        "equal arms",
        "lives",
        "tasks",
        "called different",
        "95 % interval",
        "paired t over lives",
        "McNemar over all pairs",
    )
    rows = [
        (
            row.scenario.name,
            row.scenario.lives,
            f"{row.scenario.tasks} of {row.scenario.distinct}",
            f"{row.primary:.1%}",
            f"{row.low:.1%} to {row.high:.1%}",
            f"{row.over_lives:.1%}",
            f"{row.pooled:.1%}",
        )
        for row in report.null
    ]
    print_table(columns, rows, "")
    found = [
        (
            row.scenario.name,
            f"{100 * row.difference:+.1f}",
            f"{100 * row.measured:+.1f}",
            f"{row.power:.1%}",
            f"{row.predicted:.1%}",
            f"{row.coverage:.1%}",
        )
        for row in report.recovery
    ]
    print_table(("true difference", "points", "measured", "found", "predicted", "interval holds it"), found, "")
    typer.echo(f"chance alone explains up to {report.bound:.1%}: {'honest' if report.honest else 'NOT honest'}")
