"""`sleepyctl tasks mirror`: a repository of the benchmark, cloned once or taken from a clone on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import HomeOption
from daemon.cli.tasks import tasks


def register(app: typer.Typer) -> None:
    """Add the command to the group, which `daemon.cli.tasks` adds."""
    if all(known.callback is not mirror for known in tasks.registered_commands):
        tasks.command("mirror")(mirror)


def mirror(
    repo: Annotated[str, typer.Argument(help="The repository as the benchmark names it, such as django/django.")],
    source: Annotated[Path | None, typer.Option("--from", help="A clone on this machine, which must stay there.")] = None,
    home: HomeOption = None,
) -> None:
    """Have a bare mirror of a repository in the state directory; nothing is copied from a clone on this machine."""
    from agent.repositories import Mirrors
    from daemon.home import Home
    from eval.swebench.opening import ClonedMirrors

    place = Home.at(home)
    place.make()
    folder = place.places.mirrors
    found = Mirrors(folder).adopt(repo, source.expanduser()) if source else ClonedMirrors(folder).get(repo)
    typer.echo(f"{found.git_dir} at {found.commit()[:12]}")
