"""`sleepyctl bench strategies`: every training strategy lives the same nights in the pocket world."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.options import Json, print_table


def bench_strategies(
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds; each is a life of its own for every strategy.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of them.")] = 0,
    nights: Annotated[int, typer.Option(min=1, max=8, help="Nights of a life; each teaches one more repository.")] = 4,
    day: Annotated[int, typer.Option(min=8, help="Tasks that are lived for each night.")] = 20,
    conventions: Annotated[int, typer.Option(min=1, help="Tasks that examine each repository's convention.")] = 8,
    base_skills: Annotated[int, typer.Option(min=1, help="Tasks that examine the base's own skills.")] = 32,
    only: Annotated[str, typer.Option(help="Comma-separated variants; all of them by default.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 1,
    home: Annotated[Path, typer.Option(help="Folder of the lives; those that are there are not lived again.")] = Path(
        "build/bench-strategies"
    ),
    as_json: Json = False,
) -> None:
    """Gain, forgetting, retention, base skills and cost of every training strategy over several nights."""
    import torch
    from rich.console import Console

    from agent.models.weights import folder_hash
    from agent.pocket.model import PocketModel
    from agent.sandbox.ladder import probe
    from consolidation.trainers.torch_lora import TORCH
    from daemon.errors import DaemonError
    from eval.bench_strategies import Laboratory, Setup
    from eval.bench_strategies_summary import VARIANTS
    from eval.bench_strategies_summary import bench_strategies as measure

    known = {variant.name: variant for variant in VARIANTS}
    names = only.split(",") if only else list(known)
    if unknown := [name for name in names if name not in known]:
        raise DaemonError(f"no variant {unknown[0]!r}; there are {', '.join(known)}")
    torch.set_num_threads(threads)
    model = PocketModel(threads=threads)
    laboratory = Laboratory(
        model=model,
        base=model.folder,
        base_hash=folder_hash(model.folder),
        encode=model.tokenizer.example,
        sandbox=probe(trusted_generated=True),
        trainer=TORCH,
        home=home.expanduser().resolve(),
        say=Console(stderr=True).print,
    )
    setup = Setup(nights=nights, day=day, conventions=conventions, base_skills=base_skills, threads=threads)
    try:
        report = measure(laboratory, setup, range(first_seed, first_seed + seeds), [known[name] for name in names])
    except OSError as error:
        raise DaemonError(
            f"{laboratory.home}: cannot be written ({error.strerror}); free the disk or choose another --home. "
            "Lives that ended are kept"
        ) from error
    if as_json:
        typer.echo(report.model_dump_json())
        return
    columns = ("strategy", "gain", "all at the end", "forgotten", "base skills", "tokens", "seconds")
    rows = [
        (
            s.variant,
            f"{s.gain.mean:+.1f}",
            f"{s.final.mean:+.1f}",
            f"{s.forgetting.mean:+.1f}" if s.forgetting else "-",
            f"{s.base_skills.mean:+.1f}",
            f"{s.tokens:,}",
            f"{s.seconds + s.extra_seconds:.0f}",
        )
        for s in report.summaries
    ]
    print_table(columns, rows, "")
    typer.echo("points against the bare base on the same tasks, means over lives; pocket results")
