"""`sleepyctl guard`: hold the examinations by hand, and see that the programming benchmarks can be trusted here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import HomeOption, Json, note, print_json, print_table

if TYPE_CHECKING:
    from consolidation.guards import Answer, Guard
    from daemon.config import Config
    from daemon.home import Home
    from eval.open_guards import Opened

guard = typer.Typer(no_args_is_help=True, help="What candidates are examined on.")
BLOCK = 32
Limit = Annotated[int, typer.Option(min=0, help="Only the first so many items, in the seeded order; 0 for all.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(guard, name="guard")


@guard.command("run")
def guard_run(
    named: Annotated[str, typer.Option("--guard", help="Only this one; by default all that apply to the model.")] = "",
    adapter: Annotated[str, typer.Option(help="Whom to examine: live, base, or an adapter's id (served everywhere).")] = "live",
    limit: Limit = 0,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Examine what is live, the bare base, or one adapter; nothing is changed by it."""
    from daemon.home import Home
    from daemon.run import read_config

    place = Home.at(home)
    config = read_config(place)
    opened, routes = _opened(place, config, adapter)
    for text in opened.left_out:
        note(f"left out: {text}")
    found = [_held(one, routes, limit) for one in ((opened.named(named),) if named else opened.guards)]
    if as_json:
        whom = {repo: folder.name for repo, folder in routes.items()}
        print_json({"adapters": whom, "guards": found, "left_out": list(opened.left_out)})
        return
    for told in found:
        facts = ", ".join(f"{name} {value:g}" for name, value in told["facts"].items())
        scored = f"{told['guard']}: {told['score']:.1%} of {told['items']} items (seeds ± {told['spread']:.1%})"
        typer.echo(f"{scored}, {told['seconds']:.2f} s each; {facts}")
        if told["categories"]:
            print_table(("category", "score"), [(name, f"{score:.1%}") for name, score in told["categories"].items()], "")


def _opened(place: Home, config: Config, adapter: str) -> tuple[Opened, dict[str, Path]]:
    from agent.models.engines import open_model, open_weights
    from agent.sandbox.ladder import probe
    from consolidation.adapters import AdapterStore
    from consolidation.skill import ALL, Publisher
    from daemon.work import server_of
    from eval.coding.problems import data_folder
    from eval.open_guards import open_guards
    from eval.play import Player

    store = AdapterStore(place.adapters)
    if adapter in ("live", "base"):
        routes = Publisher(place.live, store).routes() if adapter == "live" else {}
    else:
        routes = {ALL: store.get(adapter, open_weights(config.model).hash).folder}
    server = server_of(place, config.model) if routes else None
    model = open_model(config.model, config.night.threads, server.provide if server else None)
    player = Player(model, probe(trusted_generated=True), budget=config.budget, mixtures=place.mixtures)
    return open_guards(config.guard, player, data_folder(place.places), config.tasks.pocket_repos, config.tasks.seed), routes


def _held(one: Guard, routes: dict[str, Path], limit: int) -> dict[str, Any]:
    """One examination, block by block; what came of it, summed up."""
    from eval.exams import summarise

    items = list(one.items(routes))[: limit or None]
    answers: dict[str, Answer] = {}
    with _bar(one.name, len(items)) as advance:
        for at in range(0, len(items), BLOCK):
            answers |= one.answer(items[at : at + BLOCK], routes)
            advance(len(items[at : at + BLOCK]))
    return {**summarise(one, answers).model_dump(), "claim": one.claim, "role": one.role, "digest": one.digest}


@guard.command("verify")
def guard_verify(
    name: Annotated[str, typer.Argument(help="humaneval or mbpp.")],
    limit: Limit = 0,
    programs: Annotated[int, typer.Option(min=1, help="Programs that run at once.")] = 2,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """See that every canonical solution passes, and that spoilt ones fail. Exit status 1 if not."""
    from dataclasses import asdict

    from agent.sandbox.ladder import probe
    from daemon.home import Home
    from eval.coding.problems import data_folder, problems
    from eval.coding.run import mutants, verify
    from eval.open_guards import BENCHMARKS

    known = {benchmark: benchmark for benchmark in BENCHMARKS}
    if name not in known:
        raise typer.BadParameter(f"there is no benchmark {name!r}; write {' or '.join(known)}")
    chosen = problems(known[name], data_folder(Home.at(home).places))[: limit or None]
    with _bar(name, sum(1 + len(mutants(problem)) for problem in chosen)) as advance:
        found = verify(chosen, probe(trusted_generated=False), programs, lambda: advance(1))
    if as_json:
        print_json({"name": name, "sound": found.sound, **asdict(found)})
    else:
        passed = f"{found.problems - len(found.failed)} of {found.problems} canonical solutions pass ({found.seconds:.0f} s)"
        typer.echo(f"{passed}; {found.survivors} of {found.mutants} mutants survive")
        for text, names in (("fail", found.failed), ("told apart from no mutant", found.unharmed)):
            if names:
                typer.echo(f"{text}: {', '.join(names)}")
    if not found.sound:
        raise typer.Exit(1)


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task(name, total=total)
        yield lambda count: bar.advance(shown, count)
