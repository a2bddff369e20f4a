"""Commands about benchmark files: fetch them, and say what is in them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import HomeOption, Json, note, print_json, print_table

data = typer.Typer(no_args_is_help=True, help="Benchmark files; they are read where they lie and never trained on.")
Name = Annotated[str, typer.Argument(help="swe-bench-cl, humaneval or mbpp.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(data, name="data")


@data.command("fetch")
def fetch(
    name: Name,
    source: Annotated[Path | None, typer.Option("--from", help="Take a copy from this file instead of the publisher.")] = None,
    accept_rebuilt: Annotated[
        bool, typer.Option("--accept-rebuilt", help="Also a copy that is not the published file.")
    ] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Bring a benchmark file into the state directory, checked; an interrupted download goes on where it stopped."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from daemon.home import Home
    from eval.fetch import fetch as bring

    place = Home.at(home)
    place.make()
    with Progress(TextColumn(name), BarColumn(), DownloadColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def advance(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        found = bring(name, place.root / "data", source, accept_rebuilt=accept_rebuilt, progress=advance)
    if found.note:
        note(found.note)
    if as_json:
        print_json({"path": str(found.path), "sha256": found.sha256, "size": found.size, "note": found.note})
        return
    typer.echo(f"{found.path} ({found.size} bytes, sha256 {found.sha256})")


@data.command("contents")
def contents(
    path: Annotated[Path, typer.Argument(help="A SWE-Bench-CL file.")],
    as_json: Json = False,
) -> None:
    """The sequences of a SWE-Bench-CL file, and whether they are the published ones."""
    from eval.swebench.dataset import PUBLISHED, read

    found = read(path.expanduser())
    rows = [asdict(row) for row in found.contents()]
    same = found.contents() == PUBLISHED
    if as_json:
        print_json({"sha256": found.sha256, "as_published": same, "sequences": rows})
        return
    print_table(tuple(rows[0]) if rows else (), [tuple(row.values()) for row in rows], "there is no sequence in it")
    typer.echo("as published" if same else "NOT the published counts")
