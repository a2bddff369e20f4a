"""`sleepyctl metrics` and `sleepyctl report`: what a life measures by, and a report of it. They work without a daemon too."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import HomeOption, Json, print_json, print_table, writing_to
from daemon.cli.reading import read

if TYPE_CHECKING:
    from daemon.metrics_view import Measured
    from eval.metrics.lived import MatrixShown


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(metrics)
    app.command()(report)


def metrics(
    home: HomeOption = None,
    matrix: Annotated[bool, typer.Option("--matrix", help="The matrix: what serves after each night, at each day.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, with the reason of every value that is missing.")] = False,
    as_json: Json = False,
) -> None:
    """How it goes: rates, the metrics of continual learning, tool use, cost; each a value, or why there is none."""
    from daemon.errors import DaemonError

    if as_csv and as_json:
        raise DaemonError("--csv and --json exclude one another; choose one")
    found = measured(home)
    if as_json:
        whole = found.model_dump(mode="json")
        print_json({name: whole["life"][name] for name in ("matrix", "frozen")} if matrix else whole)
    elif matrix:
        _matrix_csv(found) if as_csv else _matrix_table(found)
    elif as_csv:
        rows = [(name, one.value, one.unit, one.why) for name, one in found.life.values.items()]
        _csv(("metric", "value", "unit", "why"), rows)
    else:
        _people(found)


def report(
    home: HomeOption = None,
    out: Annotated[Path, typer.Option(help="Folder for life.md, life.html and the plots.")] = Path("report"),
    as_json: Json = False,
) -> None:
    """A report of this daemon's life, as Markdown and as one HTML file: curves, matrix, nights and verdicts, errors, cost."""
    from daemon.cli.nights import night_rows
    from daemon.report import write_life
    from daemon.views import NightRow

    nights = [NightRow.model_validate(row) for row in night_rows(home)]
    life = measured(home)
    with writing_to(out):
        written = write_life(life, nights, out.expanduser())
    if as_json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        if path.suffix != ".svg":
            typer.echo(path)


def measured(home: Path | None) -> Measured:
    """What the daemon, or without one its store, tells of its metrics."""
    from daemon.metrics_view import Measured, measured_of

    return Measured.model_validate(read(home, "/metrics", lambda place, store: measured_of(place, store)))


def _people(found: Measured) -> None:
    def row(name: str, ended: int, resolved: int) -> tuple[object, ...]:
        return name, ended, resolved, f"{resolved / max(ended, 1):.0%}"

    rows = [row("all", found.all.ended, found.all.resolved), row("the last 50", found.recent.ended, found.recent.resolved)]
    rows += [row(repo, rate.ended, rate.resolved) for repo, rate in found.by_repo.items()]
    rows += [row(f"after night {n}", rate.ended, rate.resolved) for n, rate in enumerate(found.between_nights)]
    print_table(("tasks", "ended", "resolved", "rate"), rows, "")
    typer.echo(f"nights: {found.nights_promoted} promoted, {found.nights_rejected} rejected\n")
    table = [(name, one.shown, one.why) for name, one in found.life.values.items()]
    print_table(("metric", "value", "why there is none"), table, "")


def _matrix_table(found: Measured) -> None:
    for name, matrix in (("what was live", found.life.matrix), ("the bare base (frozen control)", found.life.frozen)):
        typer.echo(f"{name}: share resolved, in % (tasks)")
        rows = [(row, *(_cell(matrix, i, j) for j in range(len(matrix.columns)))) for i, row in enumerate(matrix.rows)]
        print_table(("after", *matrix.columns), rows if matrix.columns else [], "no night has ended with a verdict yet")
        reasons = sorted({why for line in matrix.why for why in line if why})
        for why in reasons:
            typer.echo(f"  -: {why}")
        typer.echo("")


def _cell(matrix: MatrixShown, i: int, j: int) -> str:
    value = matrix.values[i][j]
    return "-" if value is None else f"{value:.0%} ({matrix.tasks[i][j]})"


def _matrix_csv(found: Measured) -> None:
    rows = [
        (arm, row, column, shown.values[i][j], shown.tasks[i][j], shown.why[i][j])
        for arm, shown in (("live", found.life.matrix), ("frozen", found.life.frozen))
        for i, row in enumerate(shown.rows)
        for j, column in enumerate(shown.columns)
    ]
    _csv(("arm", "after", "day", "resolved", "tasks", "why"), rows)


def _csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
