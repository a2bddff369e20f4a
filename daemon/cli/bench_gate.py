"""`sleepyctl bench gate`: how often the gate is right, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import Json, print_table


def bench_gate(
    nights: Annotated[int, typer.Option(min=1, help="Simulated nights of each kind.")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, help="Decides what is simulated.")] = 0,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; its table night.gate counts.")] = None,
    as_json: Json = False,
) -> None:
    """Simulate the gate: true drops and discordances (as shares), how often it accepts, and how many items it asks."""
    from daemon.config import load_config
    from eval.bench_gate import bench_gate as measure

    report = measure(load_config(config).night.gate, nights, seed)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    columns = ("true drop", "discordance", "accepted", "undecided", "rejected", "best possible", "items")
    rows = [
        (
            *(
                f"{share:.1%}"
                for share in (s.true_drop, s.discordance, s.accept_rate, s.undecided_rate, s.reject_rate, s.best_power)
            ),
            f"{s.items_mean:.0f} of {s.items_full}",
        )
        for s in report.scenarios
    ]
    print_table(columns, rows, "")
    typer.echo(f"asked: {report.cost:.0%} of the items on average, {report.cost_no_drop:.0%} where there is no drop")
