"""`sleepyctl tasks`: alone it lists what was worked on; its commands make and check streams of tasks."""

from __future__ import annotations

import typer

from daemon.cli import reading
from daemon.cli.options import HomeOption, Json, Last

tasks = typer.Typer(no_args_is_help=False)


def register(app: typer.Typer) -> None:
    """Add the group; its commands are added by the modules that have them."""
    app.add_typer(tasks, name="tasks")


@tasks.callback(invoke_without_command=True)
def listing(context: typer.Context, home: HomeOption = None, last: Last = 20, as_json: Json = False) -> None:
    """The last tasks with their outcomes; or a command about streams of tasks."""
    if context.invoked_subcommand is None:
        reading.tasks(home, last, as_json)
