"""Options that many commands share, and how they print."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

HomeOption = Annotated[Path | None, typer.Option("--home", help="State directory (SLEEPYD_HOME, or ~/.sleepyd).")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON value on stdout.")]
Last = Annotated[int, typer.Option("--last", "-n", min=1, help="Only the last so many.")]


def note(text: str) -> None:
    """Something for the person at the terminal that is no part of the answer."""
    typer.secho(text, fg=typer.colors.YELLOW, err=True)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """While a report is written there.

    Raises:
        DaemonError: it cannot be.
    """
    from daemon.errors import DaemonError

    try:
        yield
    except OSError as error:
        raise DaemonError(f"{folder} cannot be written ({error.strerror}); name a folder that can be, with --out") from error


def print_json(value: Any) -> None:
    """One JSON value."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """A table for people, or a sentence if there is nothing in it."""
    if not rows:
        typer.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)
