"""Commands about what is remembered: search, show, stats, handbook, versions, rebuild, forget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer

from daemon.cli.options import HomeOption, Json, Last, note, print_json, print_table
from daemon.cli.reading import read

if TYPE_CHECKING:
    from daemon.home import Home
    from memory.knowledge.layer import Knowledge
    from memory.knowledge.shelf import Shelf
    from memory.store import Store

memory = typer.Typer(no_args_is_help=True, help="What is remembered of past attempts.")
REBUILD_SECONDS = 3_600.0
Repo = Annotated[str, typer.Option(help="Only this repository.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(memory, name="memory")


@memory.command("stats")
def memory_stats(home: HomeOption = None, as_json: Json = False) -> None:
    """How much is known of what, and how it was used."""
    from daemon.memory_views import stats

    found = read(home, "/memory", lambda place, store: stats(_shelf(place, store)))
    if as_json:
        print_json(found)
        return
    rows = [(repo, count, found["handbooks"].get(repo, 0)) for repo, count in found["by_repo"].items()]
    print_table(("repository", "memories", "facts in its handbook"), rows, "nothing is remembered yet")
    kinds = ", ".join(f"{count} {kind}" for kind, count in found["by_kind"].items()) or "none"
    kept = ", ".join(f"{count} {why}" for why, count in found["not_recalled"].items()) or "none"
    typer.echo(f"{found['memories']} memories ({kinds}), {found['verified']} verified; kept but no longer recalled: {kept}")
    typer.echo(f"shown {found['uses']} times, {found['uses_resolved']} of them to attempts that were resolved")
    typer.echo(f"space {found['space']}, version {found['version']}")


@memory.command("search")
def memory_search(
    query: Annotated[str, typer.Argument(help="An issue's text, an error message, names.")],
    repo: Repo = "",
    home: HomeOption = None,
    last: Annotated[int, typer.Option("--most", "-n", min=1, max=100, help="At most so many.")] = 10,
    as_json: Json = False,
) -> None:
    """What would be found for a text, best first; `fits` says whether it would be recalled."""
    from daemon.knowing import found_rows
    from daemon.memory_views import found as table

    body = {"query": query[:20_000], "repo": repo, "most": last}
    rows = _asked(home, "/memory/search", body, lambda layer: found_rows(layer, query, repo, last))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("id", "kind", "repository", "fits", "similar, words", "what"), table(rows), "nothing is remembered that is like it"
    )


@memory.command("show")
def memory_show(identity: Annotated[str, typer.Argument(metavar="ID")], home: HomeOption = None, as_json: Json = False) -> None:
    """One memory: what it says, where it comes from, how it was used."""
    from daemon.memory_views import detail

    target = f"/memory/show/{quote(identity, safe='')}"
    found = read(home, target, lambda place, store: detail(_shelf(place, store), identity))
    if as_json:
        print_json(found)
        return
    told = found["memory"]
    standing = "verified" if told["verified"] else "not verified"
    typer.echo(f"{found['id']}  {told['kind']}, {standing}, {'active' if found['active'] else 'no longer recalled'}")
    typer.echo(f"from attempt {told['trajectory_id']} ({told['origin']}) at {told['task_id']}: {told['outcome']}")
    typer.echo(f"task of {told['created_at'][:19]}, written by {told['distiller']}")
    for name in ("symptom", "fact", "change"):
        if told[name]:
            typer.echo(f"\n{name}:\n" + "\n".join(f"    {line}" for line in told[name].splitlines()))
    if told["where"]:
        typer.echo(f"\nwhere: {', '.join(told['where'])}" + (f" ({told['shape']})" if told["shape"] else ""))
    for tried in told["tried"]:
        typer.echo(f"did not work: {tried}")
    typer.echo(f"\nshown {found['recalled']} times, resolved {found['resolved']}")
    for since, until, why in found["spans"]:
        typer.echo(f"active from version {since} " + (f"until {until}: {why}" if until else "on"))


@memory.command("handbook")
def memory_handbook(
    repo: Annotated[str, typer.Argument(help="A repository; all of them if left out.")] = "",
    home: HomeOption = None,
    history: Annotated[bool, typer.Option("--all", help="Earlier handbooks too.")] = False,
    as_json: Json = False,
) -> None:
    """What is known about a repository as a whole, with the memories that each fact rests on."""
    from daemon.memory_views import handbooks

    target = "/memory/handbook?" + urlencode({"repo": repo})
    rows = read(home, target, lambda place, store: handbooks(_shelf(place, store), repo))
    rows = rows if history else [row for row in rows if row["until"] is None]
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo("no handbook was written yet; nights write them")
    for row in rows:
        book = row["handbook"]
        until = f" until {row['until']}" if row["until"] else ""
        typer.echo(f"{book['repo']} (written {book['written_at'][:19]}, from version {row['since']}{until})")
        for entry in book["entries"]:
            typer.echo(f"  - {entry['fact']}  [{', '.join(cite[:8] for cite in entry['cites'])}]")


@memory.command("versions")
def memory_versions(home: HomeOption = None, last: Last = 20, as_json: Json = False) -> None:
    """The states the knowledge was in; attempts name theirs."""
    from daemon.memory_views import VersionRow

    def offline(place: Home, store: Store) -> list[VersionRow]:
        return [VersionRow(version=str(v), at=at, why=why) for v, at, why in _shelf(place, store).versions()]

    rows = read(home, "/memory/versions", offline)[-last:]
    if as_json:
        print_json(rows)
        return
    print_table(("version", "at", "why"), [(r["version"], r["at"][:19], r["why"]) for r in rows], "nothing is remembered yet")


@memory.command("rebuild")
def memory_rebuild(home: HomeOption = None, as_json: Json = False) -> None:
    """Make Chroma's index and the words anew from the store; nothing is lost if they were damaged or deleted."""
    from rich.console import Console
    from rich.progress import Progress

    from daemon.knowing import rebuilt

    def anew(layer: Knowledge) -> dict[str, Any]:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("memories", total=None)
            return rebuilt(layer, lambda done, whole: bar.update(task, completed=done, total=whole))

    done = _asked(home, "/memory/rebuild", None, anew)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{done['memories']} memories are indexed, embedded by {done['embedder']}; version {done['version']}")


@memory.command("forget")
def memory_forget(
    trajectory: Annotated[str, typer.Argument(metavar="TRAJECTORY", help="Id of an attempt.")],
    retire: Annotated[bool, typer.Option("--retire", help="Adapters that learnt from it serve no longer.")] = False,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Remove what an attempt said and taught, for good; its outcome stays. Lists the adapters that learnt from it."""
    from daemon.client import ask
    from daemon.errors import NoDaemonError
    from daemon.home import Home

    place = Home.at(home)
    try:
        body = {"trajectory": trajectory, "retire": retire}
        done = ask(place.socket, "POST", "/memory/forget", body, timeout=REBUILD_SECONDS)
    except NoDaemonError:
        done = _forgotten(place, trajectory, retire)
    if as_json:
        print_json(done)
        return
    typer.echo(f"attempt {trajectory} is forgotten, and {done['memories']} memories of it")
    left = [identity for identity in done["adapters"] if identity not in done["retired"]]
    if done["retired"]:
        typer.echo(f"no longer in service: {', '.join(done['retired'])}")
    if left:
        typer.echo(f"these adapters learnt from it: {', '.join(left)}; --retire takes them out of service")


def _forgotten(place: Home, trajectory: str, retire: bool) -> dict[str, Any]:
    from consolidation.adapters import AdapterStore
    from consolidation.skill import Publisher
    from daemon.forgetting import forget
    from daemon.run import read_config

    with _alone(place) as store:
        done = forget(place, store, Publisher(place.live, AdapterStore(place.adapters)), trajectory, retire)
        if place.chroma.is_dir() or read_config(place).knowledge.url:
            with _layer(place, store) as layer:
                layer.scrub()
    return done.model_dump(mode="json")


def _shelf(place: Home, store: Store) -> Shelf:
    from daemon.run import read_config
    from daemon.space import space_of
    from memory.knowledge.shelf import Shelf

    return Shelf(store, space_of(read_config(place)))


def _asked(home: Path | None, target: str, body: dict[str, Any] | None, offline: Callable[[Knowledge], Any]) -> Any:
    """The daemon's answer; without one, the same from the knowledge, which this process owns meanwhile."""
    from daemon.client import ask
    from daemon.errors import NoDaemonError
    from daemon.home import Home

    place = Home.at(home)
    try:
        return ask(place.socket, "POST", target, body, timeout=REBUILD_SECONDS)
    except NoDaemonError:
        note(f"no daemon runs on {place.root}; this process opens its knowledge")
    with _alone(place) as store, _layer(place, store) as layer:
        return offline(layer)


@contextmanager
def _alone(place: Home) -> Iterator[Store]:
    """The store, for a process that is the owner of the state directory meanwhile."""
    from daemon.errors import DaemonError
    from daemon.home import alone_in, owned
    from memory.store import Store

    if not place.store.is_file():
        raise DaemonError(f"there is no store at {place.store}; check --home, or start the daemon once to make one")
    with alone_in(place), owned(place.lock, "a daemon"), Store(place.store) as store:
        yield store


@contextmanager
def _layer(place: Home, store: Store) -> Iterator[Knowledge]:
    from daemon.knowing import open_knowledge, take_imported
    from daemon.run import read_config

    layer, why = open_knowledge(place.chroma, read_config(place), store)
    note(why)
    try:
        take_imported(layer, store)
        yield layer
    finally:
        layer.close()
