"""`sleepyctl tasks mine`: a repository's own history as a stream of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import HomeOption, Json, note, print_json, print_table
from daemon.cli.tasks import tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from eval.mining import Event
    from eval.mining.schema import StreamFile

INTERRUPTED = 130
Since = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="Only commits of this day (UTC) and later."),
]


def register(app: typer.Typer) -> None:
    """Add the command to the group, which `daemon.cli.tasks` adds."""
    if all(known.callback is not mine for known in tasks.registered_commands):
        tasks.command("mine")(mine)


def mine(
    path: Annotated[Path, typer.Argument(help="A git repository whose tests run with pytest.")],
    python: Annotated[
        Path | None, typer.Option(help="A Python with pytest and what the repository needs; its own .venv by default.")
    ] = None,
    tests: Annotated[
        str, typer.Option(help="How pytest is called, and where: 'pytest -m \"not slow\" tests/unit'.")
    ] = "pytest",
    most: Annotated[int | None, typer.Option("--max", min=1, help="Stop when the newest so many tasks are found.")] = None,
    since: Since = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="Time limit of one run of a commit's tests; each is run four times.")
    ] = 300,
    revision: Annotated[str, typer.Option(help="The commit, branch or tag whose history is walked.")] = "HEAD",
    name: Annotated[str, typer.Option(help="The repository's name in the stream; its folder's by default.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the stream file here; it is played from the state directory.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the commits that would be tried; run nothing.")
    ] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Find tasks in a repository's own history: commits whose tests fail without them and pass with them.

    Each is proven in the sandbox, newest first. What was found out is kept: Ctrl-C loses nothing, and the
    next call goes on. Use them with `sleepyctl init --tasks repo:PATH`.
    """
    from dataclasses import replace

    from agent.repositories import Mirrors
    from agent.sandbox import probe
    from daemon.home import Home
    from eval.mining import Environment, Options
    from eval.mining import mine as find
    from eval.mining.environment import python_of, split_command
    from eval.mining.running import LIMITS
    from eval.places import Places, key_of, name_of

    repository = path.expanduser().resolve()
    repo = name or name_of(repository)
    place = Home.at(home)
    place.make()
    places = Places(place.root)
    mirror = Mirrors(places.mirrors).adopt(key_of(repository), repository)
    arguments, where = split_command(tests, mirror)
    day = since.replace(tzinfo=UTC) if since else None
    options = Options(revision=revision, where=where, since=day, tasks=most)
    if dry_run:
        _foresee(mirror, options, as_json)
        return
    environment = Environment.at(python or python_of(repository), mirror, arguments)
    note(f"{environment.versions}: {environment.python}")
    if environment.also_installed:
        names = ", ".join(environment.also_installed)
        note(f"{names}: installed in that Python too; an agent could read the fixes there; uninstall it or use pip install -e")
    to = out.expanduser().absolute() if out else places.streams / f"{key_of(repository)}.json"
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    limits = replace(LIMITS, seconds=seconds)
    with _watched() as seen:
        file = find(repo, mirror, to, probe(trusted_generated=False), environment, options, limits, seen)
    _tell(file, to, as_json)


@contextmanager
def _watched() -> Iterator[Callable[[Event], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found = 0
    with Progress(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task("commits", total=None)

        def seen(event: Event) -> None:
            nonlocal found
            found += bool(event.task)
            bar.update(row, completed=event.done, total=event.total, description=f"commits, {found} tasks")

        yield seen


def _foresee(mirror: Any, options: Any, as_json: bool) -> None:
    from eval.mining.mine import foreseen

    counts = foreseen(mirror, options)
    if as_json:
        print_json(counts)
    else:
        print_table(("commits", ""), [(count, reason) for reason, count in counts.items()], "no commits in that range")


def _tell(file: StreamFile | None, to: Path, as_json: bool) -> None:
    facts: dict[str, Any] = file.metadata if file is not None else {"complete": False, "total_tasks": 0, "refused": {}}
    complete = bool(facts["complete"])
    keys = ("repository", "head", "complete", "total_tasks", "commits", "refused", "ignored", "python", "sandbox")
    if as_json:
        print_json({"path": str(to) if file else None, **{key: facts[key] for key in keys if key in facts}})
    else:
        rows = [(count, reason) for reason, count in Counter(facts["refused"]).most_common()]
        print_table(("commits", "no task because"), rows, "no commit was refused")
        typer.echo(f"{facts['total_tasks']} tasks in {to}" if file else "no task yet")
    for option in facts.get("ignored", ()):
        note(f"left out: {option} (its plugin is not installed in that Python, and decides nothing)")
    if not complete:
        note("stopped before the end; the same command goes on from here")
        raise typer.Exit(INTERRUPTED)
