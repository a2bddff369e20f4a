"""The laboratory: the demo, and measurements in the pocket world."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.bench_gate import bench_gate
from daemon.cli.bench_statistics import bench_statistics
from daemon.cli.bench_strategies import bench_strategies
from daemon.cli.bench_watch import bench_watch
from daemon.cli.options import HomeOption, Json, print_table

bench = typer.Typer(no_args_is_help=True, help="Measure.")
DEMO_HOME = Path("~/.sleepyd-demo")


class Engine(StrEnum):
    """Engines that run the pocket model in this process."""

    POCKET = "pocket"
    TORCH = "torch"
    MLX = "mlx"


Seed = Annotated[int, typer.Option(min=0, help="Decides tasks and training.")]
ConfigFile = Annotated[Path | None, typer.Option(help="TOML file with settings.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    bench.command("gate")(bench_gate)
    bench.command("statistics")(bench_statistics)
    bench.command("strategies")(bench_strategies)
    bench.command("watch")(bench_watch)
    app.add_typer(bench, name="bench")


def demo(
    seed: Seed = 0,
    tasks_per_day: Annotated[int, typer.Option(min=4, help="Tasks of each day, over all repositories.")] = 200,
    home: Annotated[Path, typer.Option(help="Folder of the demo's store, adapters and results.")] = DEMO_HOME,
    engine: Annotated[Engine, typer.Option(help="What serves and trains the pocket model.")] = Engine.POCKET,
    config: ConfigFile = None,
    arms: Annotated[
        bool, typer.Option("--arms", help="Also with what it remembers: base, knowledge, skill, both, frozen.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Day, night, day in the pocket world: is the agent better the next day?"""
    from rich.console import Console

    from daemon.config import load_config
    from daemon.demo import Demo

    console = Console(stderr=as_json)
    chosen = {} if engine is Engine.POCKET else {"SLEEPYD_MODEL__KIND": f"{engine}:pocket"}
    settings = load_config(config, {**os.environ, **chosen})
    run = Demo(home.expanduser().resolve(), seed, tasks_per_day, settings, console, arms)
    result = run.run()
    if as_json:
        typer.echo(result.model_dump_json())
    else:
        run.show(result)


@bench.command("pocket")
def bench_pocket(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 3,
    first_seed: Seed = 0,
    repos: Annotated[str, typer.Option(help="Comma-separated pocket repositories; all of them by default.")] = "",
    day: Annotated[int, typer.Option(min=16, help="Tasks per repository that are lived through.")] = 120,
    examined: Annotated[int, typer.Option(min=1, help="Examined tasks of each group per repository and seed.")] = 12,
    home: Annotated[Path, typer.Option(help="Folder for every trained adapter.")] = Path("build/bench"),
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
        typer.echo(report.model_dump_json())
    else:
        Console().print_json(report.model_dump_json())


@bench.command("train")
def bench_train(
    examples: Annotated[int, typer.Option(min=8, help="Examples of each run; MLX without Metal gets an eighth.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="How often every contestant runs; they take turns.")] = 3,
    engines: Annotated[str, typer.Option(help="Comma-separated: torch, mlx.")] = "torch,mlx",
    threads: Annotated[int, typer.Option(min=1, help="Threads of each contestant.")] = 1,
    seed: Seed = 0,
    home: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("build/bench-train"),
    as_json: Json = False,
) -> None:
    """Our trainers beside the engines' own stock loops, on the same data: tokens per second, time, memory."""
    from rich.console import Console

    from eval.bench_train import bench as measure

    console = Console(stderr=True)
    report = measure(home.expanduser().resolve(), examples, rounds, engines.split(","), threads, seed, console.print)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    columns = ("engine", "contestant", "lengths", "tokens/s", "x stock", "x stock (CPU)", "s", "peak MiB", "unseen loss")
    rows = [
        (
            row.engine,
            row.contestant,
            row.lengths,
            f"{row.tokens_per_second:.0f}",
            f"{row.speed_up:.2f}",
            f"{row.cpu_speed_up:.2f}",
            f"{row.seconds:.1f}",
            row.peak_mb,
            f"{row.unseen_loss:.3f}",
        )
        for row in report.rows
    ]
    print_table(columns, rows, "")


@bench.command("koans")
def bench_koans(home: HomeOption = None, as_json: Json = False) -> None:
    """The frozen evaluation set of Rust koans, played by the configured model without an adapter."""
    from rich.console import Console

    from agent.models.engines import open_model
    from agent.sandbox.ladder import probe
    from daemon.home import Home
    from daemon.run import read_config
    from eval.bench_koans import bench as measure
    from eval.play import Player

    config, console = read_config(Home.at(home)), Console(stderr=True)
    model = open_model(config.model, config.night.threads)
    player = Player(model, probe(trusted_generated=False), budget=config.budget, width=config.day.batch)
    report = measure(player, lambda trajectory: console.print(f"{trajectory.task_id} {trajectory.outcome}"))
    if as_json:
        typer.echo(report.model_dump_json())
        return
    rows = [(family, row["tasks"], row["resolved"]) for family, row in report.families.items()]
    print_table(("family", "koans", "resolved"), [*rows, ("all", report.tasks, report.resolved)], "")
    typer.echo(f"repeat-error rate {report.repeat_error_rate}, median steps to green {report.median_steps_to_green}")


@bench.command("memory")
def bench_memory(
    data: Annotated[Path | None, typer.Option(help="SWE-Bench-CL file, if not in SLEEPYD_DATA or the home.")] = None,
    sizes: Annotated[str, typer.Option(help="Comma-separated numbers of memories to measure time with.")] = "1000,10000,100000",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of the pocket world.")] = 3,
    tasks: Annotated[int, typer.Option(min=2, help="Tasks of each pocket repository.")] = 40,
    home: HomeOption = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """How well memories are found, beside the usual design, and what recall costs as they grow."""
    from rich.console import Console

    from agent.sandbox.ladder import probe
    from daemon.config import load_config
    from daemon.home import Home
    from eval.bench_memory import bench_memory as measure
    from eval.errors import EvalError
    from eval.swebench.dataset import KIND, Dataset, read
    from memory.knowledge.embedders import open_embedder

    try:
        counts = [int(size) for size in sizes.split(",") if size]
    except ValueError:
        counts = [0]
    if any(count < 1 for count in counts):
        raise typer.BadParameter(f"{sizes!r}: write numbers of memories with commas between them, as 1000,10000")
    console, settings = Console(stderr=True), load_config(config).knowledge
    named = os.environ.get("SLEEPYD_DATA")
    folder = Path(named) if named else Home.at(home).places.data
    found: Dataset | str
    try:
        found = read(data.expanduser() if data else folder / f"{KIND}.json")
    except EvalError as error:
        if data is not None:
            raise
        found = str(error)
    embedder, why = open_embedder(settings.embedder)
    console.print(f"embedder: {why}")
    report = measure(embedder, settings, probe(trusted_generated=True), found, counts, range(seeds), tasks, console.print)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    columns = ("stream", "method", "recall@3", "MRR", "shown", "precision", "silent where nothing fits")
    rows = [
        (
            row.stream,
            row.method,
            f"{row.recall_at_3:.3f}",
            f"{row.mrr:.3f}",
            f"{row.shown_mean:.2f}",
            f"{row.precision:.3f}",
            f"{row.empty_when_nothing_fits:.2f}",
        )
        for row in report.quality
    ]
    print_table(columns, rows, "")
    times = ("memories", "repositories", "recall p50 ms", "p95 ms", "index s", "MB")
    costs = [
        (row.memories, row.repositories, row.recall_p50_ms, row.recall_p95_ms, row.index_seconds, row.disk_mb)
        for row in (*report.scale, *report.scale_one_repository)
    ]
    print_table(times, costs, "no size was measured")
    for skipped in report.skipped:
        typer.echo(f"{skipped.stream} was left out: {skipped.reason}")
