"""Commands that only look: logs, tasks, trajectories. They work without a daemon too."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from daemon.cli.options import HomeOption, Json, Last, note, print_json, print_table

if TYPE_CHECKING:
    from daemon.home import Home
    from memory.store import Store


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (logs, trajectories):
        app.command()(command)


def read(home: Path | None, target: str, offline: Callable[[Home, Store], Any]) -> Any:
    """The daemon's answer; without one, the same from the store, opened for reading only."""
    from daemon.client import ask
    from daemon.errors import NoDaemonError
    from daemon.home import Home

    place = Home.at(home)
    try:
        return ask(place.socket, "GET", target)
    except NoDaemonError:
        from memory.store import Store

        with Store(place.store, read_only=True) as store:
            note(f"no daemon runs on {place.root}; this is read from the store")
            found = offline(place, store)
    return [row.model_dump(mode="json") for row in found] if isinstance(found, list) else found.model_dump(mode="json")


def logs(
    home: HomeOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    event: Annotated[list[str] | None, typer.Option(help="Only these events, such as 'night.*'; may be given again.")] = None,
    level: Annotated[str, typer.Option(help="Only this level and above: debug, info, warning, error.")] = "debug",
    since: Annotated[str, typer.Option(help="Only from this time on: 15m, 2h, 3d, or 2026-03-01T08:00.")] = "",
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="Only the last so many.")] = 50,
    as_json: Json = False,
) -> None:
    """The structured log; with --json one object per line, as it is on disk."""
    import sys

    from daemon.home import Home
    from daemon.logfile import Filter, parse_since, read, render
    from daemon.logfile import follow as following

    wanted = Filter(tuple(event or ()), level, parse_since(since, datetime.now(UTC)) if since else None)
    folder = Home.at(home).logs
    records = following(folder, wanted, lambda: False, last=last) if follow else read(folder, wanted, last)
    try:
        for record in records:
            print_json(record) if as_json else typer.echo(render(record, sys.stdout.isatty()))
    except KeyboardInterrupt:
        return


def tasks(home: HomeOption = None, last: Last = 20, as_json: Json = False) -> None:
    """Tasks that are over, with their one outcome."""
    from daemon.views import task_rows

    rows = read(home, f"/tasks?last={last}", lambda _, store: task_rows(store, last))
    if as_json:
        print_json(rows)
        return
    table = [(r["number"], r["task"], r["outcome"], r["trajectory"]) for r in rows]
    print_table(("#", "task", "outcome", "trajectory"), table, "no task has ended yet")


def trajectories(
    identity: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this one, turn by turn.")] = None,
    home: HomeOption = None,
    out: Annotated[Path | None, typer.Option(help="Write every stored trajectory to this file, one JSON line each.")] = None,
    last: Last = 20,
    as_json: Json = False,
) -> None:
    """What the agent said and saw: a list, one of them, or all of them as a file."""
    if out is not None:  # read from the file also while a daemon runs: too much for its socket
        from daemon.home import Home
        from memory.store import Store

        with Store(Home.at(home).store, read_only=True) as store:
            typer.echo(f"wrote {store.export_jsonl(out)} trajectories to {out}")
        return
    if identity is not None:
        one = read(home, f"/trajectories/{quote(identity, safe='')}", lambda _, store: store.trajectory(identity))
        print_json(one) if as_json else typer.echo(_told(one))
        return
    from daemon.views import trajectory_rows

    found = read(home, f"/trajectories?last={last}", lambda _, store: trajectory_rows(store, last))
    if as_json:
        print_json(found)
        return
    rows = [(t["id"], t["task"], t["origin"], t["steps"], t["outcome"] or "going on", t["why"][:60]) for t in found]
    print_table(("id", "task", "origin", "steps", "outcome", "why"), rows, "there is no trajectory yet")


def _told(one: dict[str, Any]) -> str:
    lines = [f"{one['task_id']}  {one['model']}  adapter {one['adapter'] or 'none'}", "", one["prompt"]]
    for step in one["steps"]:
        lines += [f"\n[{step['number']}] {step['said']}", *(f"    {line}" for line in step["observation"].splitlines())]
    return "\n".join([*lines, "", f"{one['outcome'] or 'going on'}: {one['reason']}"])
