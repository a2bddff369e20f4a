"""`sleepyctl`: the owner's command line. Heavy imports happen inside the commands."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

app = typer.Typer(
    name="sleepyctl",
    no_args_is_help=True,
    add_completion=True,
    help="A coding agent that works by day and learns by night.",
    pretty_exceptions_enable=False,
)
bench = typer.Typer(no_args_is_help=True, help="Measure.")
app.add_typer(bench, name="bench")

Home = Annotated[Path, typer.Option(help="Folder of the store, the adapters and the results.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides tasks and training.")]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.")]
ConfigFile = Annotated[Path | None, typer.Option(help="TOML file with settings.")]
DEFAULT_HOME = Path("~/.sleepy/demo")


@app.command()
def demo(
    seed: Seed = 0,
    tasks_per_day: Annotated[int, typer.Option(min=4, help="Tasks of each day, over all repositories.")] = 200,
    home: Home = DEFAULT_HOME,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Day, night, day in the pocket world: is the agent better the next day?"""
    from rich.console import Console

    from daemon.config import load_config
    from daemon.demo import Demo

    console = Console(stderr=as_json)
    run = Demo(home.expanduser().resolve(), seed, tasks_per_day, load_config(config), console)
    result = run.run()
    if as_json:
        print(result.model_dump_json())
    else:
        run.show(result)


@app.command()
def trajectories(
    home: Home = DEFAULT_HOME, out: Annotated[Path, typer.Option(help="File to write.")] = Path("trajectories.jsonl")
) -> None:
    """Write every stored trajectory as one JSON line."""
    from memory.store import Store

    with Store(home.expanduser() / "sleepy.db", read_only=True) as store:
        store.export_jsonl(out)
    typer.echo(f"wrote {out}")


@bench.command("pocket")
def bench_pocket(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    first_seed: Seed = 0,
    repos: Annotated[str, typer.Option(help="Comma-separated pocket repositories; all of them by default.")] = "",
    day: Annotated[int, typer.Option(min=16, help="Tasks per repository that are lived through.")] = 120,
    examined: Annotated[int, typer.Option(min=1, help="Examined tasks of each group per repository and seed.")] = 12,
    home: Home = Path("build/bench"),
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """The pocket model's gate numbers: base skills, conventions before and after a night."""
    from rich.console import Console

    from agent.pocket.model import PocketModel
    from agent.sandbox.ladder import probe
    from consolidation.trainers.child import ChildTrainer
    from daemon.config import load_config
    from eval.bench_pocket import BenchSize
    from eval.bench_pocket import bench_pocket as measure
    from eval.pocket.stream import REPOSITORIES

    console = Console(stderr=True)
    settings = load_config(config)
    report = measure(
        PocketModel(threads=settings.night.threads),
        probe(trusted_generated=True),
        ChildTrainer(),
        home.expanduser().resolve(),
        settings.night,
        range(first_seed, first_seed + seeds),
        tuple(repos.split(",")) if repos else REPOSITORIES,
        BenchSize(day, examined),
        console.print,
    )
    if as_json:
        print(report.model_dump_json())
    else:
        Console().print_json(report.model_dump_json())


def main() -> None:
    """Entry point: known errors are one line and exit code 1; usage errors exit 2; Ctrl-C exits 130."""
    from agent.errors import AgentError
    from consolidation.errors import ConsolidationError
    from daemon.errors import DaemonError
    from eval.errors import EvalError
    from memory.errors import StoreError

    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except (AgentError, ConsolidationError, DaemonError, EvalError, StoreError) as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        sys.exit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C: through the context managers, leaving a store that opens again."""
    raise KeyboardInterrupt
