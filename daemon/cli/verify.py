"""`sleepyctl tasks verify` and `verified`: which tasks of real repositories come out as they should on this machine."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.options import HomeOption, Json, note, print_json, print_table
from daemon.cli.tasks import tasks

INTERRUPTED = 130

if TYPE_CHECKING:
    from agent.repositories import Mirrors
    from eval.swebench.dataset import Dataset
    from eval.swebench.native.verify import Finding


def register(app: typer.Typer) -> None:
    """Add the commands to the group, which `daemon.cli.tasks` adds."""
    if all(known.callback is not verify for known in tasks.registered_commands):
        tasks.command("verify")(verify)
        tasks.command("verified")(verified)


def verify(
    gold: Annotated[bool, typer.Option("--gold", help="With the benchmark's own fixes; there is no other way yet.")] = False,
    ids: Annotated[list[str] | None, typer.Option("--ids", help="These tasks; commas, or given again.")] = None,
    repo: Annotated[list[str] | None, typer.Option(help="Tasks of this repository; may be given again.")] = None,
    mirrors: Annotated[
        Path | None, typer.Option("--mirrors", "--mirror", help="Folder of clones, OWNER__NAME.git or OWNER+NAME/repo.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The SWE-Bench-CL file; the one that was fetched by default.")] = None,
    python: Annotated[str | None, typer.Option(help="A Python for every task (3.11, or a path), as uv finds it.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Tasks at a time.")] = 1,
    known_only: Annotated[bool, typer.Option("--known", help="Run nothing: only what was found out before.")] = False,
    write: Annotated[Path | None, typer.Option(help="Also write the findings as verified.json to this file.")] = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Check that tasks fail as they are and pass with their own fix; interrupted, it goes on the next time."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from agent.sandbox import probe
    from daemon.home import Home
    from eval.swebench.dataset import KIND, read
    from eval.swebench.native.environments import Environments
    from eval.swebench.native.grader import NativeGrader
    from eval.swebench.native.verify import kept
    from eval.swebench.native.verify import verify as find

    if not gold:
        raise typer.BadParameter("say --gold: tasks are verified with the benchmark's own fixes")
    place = Home.at(home)
    place.make()
    dataset = read((data or place.root / "data" / f"{KIND}.json").expanduser())
    wanted = [name for text in ids or () for name in text.split(",") if name]
    wanted += [task.id for task in dataset.tasks(repo)] if repo or not wanted else []
    clone_of = _mirrors(dataset, mirrors, place.root / "mirrors", wanted)
    work = place.root / "work"
    work.mkdir(mode=0o700, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="verify-", dir=work, ignore_cleanup_errors=True) as folder,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        ) as bar,
    ):
        shown = bar.add_task("verify", total=len(wanted))
        environments = Environments(place.root / "environments", python, on_step=bar.log)
        grader = NativeGrader(dataset, clone_of, environments, probe(trusted_generated=False), Path(folder))

        def done(identity: str, finding: Finding, count: int, total: int) -> None:
            bar.update(shown, completed=count)
            bar.log(f"{identity} {'verified' if finding.verified else finding.why} ({finding.seconds:.0f} s)")

        answers = place.root / "verified"
        try:
            found = kept(grader, wanted, answers) if known_only else find(grader, dataset, wanted, answers, jobs, done)
        except KeyboardInterrupt:
            note("stopped; what was found out is kept, and the same command goes on from here")
            raise typer.Exit(INTERRUPTED) from None
    if write is not None:
        _write(write, found, dataset)
    code = 1 if any(finding.infrastructure for finding in found.values()) else 0
    fields = {"base_fails", "gold_resolves", "seconds", "why", "python", "lock"}
    if as_json:
        print_json({identity: finding.model_dump(include=fields) for identity, finding in found.items()})
        raise typer.Exit(code)
    rows = [(identity, f.base_fails, f.gold_resolves, f"{f.seconds:.0f}", f.why) for identity, f in found.items()]
    print_table(("task", "base fails", "gold resolves", "seconds", "why"), rows, "there is no such task")
    typer.echo(f"{sum(finding.verified for finding in found.values())} of {len(found)} verified")
    raise typer.Exit(code)


def verified(
    as_markdown: Annotated[bool, typer.Option("--markdown", help="As the page docs/verified.md.")] = False,
    as_json: Json = False,
) -> None:
    """The tasks that verified where this version was made; `tasks verify` asks this machine."""
    from eval.swebench.verified import markdown, repo_of, shipped

    measured = shipped()
    if as_markdown:
        typer.echo(markdown(measured), nl=False)
    elif as_json:
        print_json(measured.model_dump(mode="json"))
    else:
        rows = [
            (identity, repo_of(identity), task.python, task.verified, task.why) for identity, task in measured.tasks.items()
        ]
        print_table(("task", "repository", "Python", "verified", "why"), rows, "none were measured")


def clones(folder: Path, repo: str) -> list[Path]:
    """The clones of a repository (owner/name) in a folder: OWNER__NAME.git, OWNER+NAME/repo and the like."""
    flat = repo.replace("/", "__")
    names = [f"{name}{end}" for name in (flat, repo.replace("/", "+"), f"*+{flat}") for end in (".git", "/repo", "")]
    found = [path for name in names for path in sorted(folder.expanduser().glob(name))]
    return [path for path in found if (path / "HEAD").is_file() or (path / ".git").exists()]


def _mirrors(dataset: Dataset, given: Path | None, own: Path, wanted: list[str]) -> Mirrors:
    """The mirrors of the tasks' repositories: clones in a folder are taken into the state directory's own."""
    from agent.repositories import Mirrors

    known = Mirrors(own)
    repos = dict.fromkeys(dataset.repo(identity) for identity in wanted)
    for repo in repos if given is not None else ():
        assert given is not None
        if found := clones(given, repo):
            known.adopt(repo, found[0])
        else:
            note(f"no clone of {repo} in {given}")
    return known


def _write(path: Path, found: dict[str, Finding], dataset: Dataset) -> None:
    import os
    import platform

    from eval.swebench.verified import Measured, Verified
    from memory.files import write_whole

    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    rows = {
        identity: Measured(
            python=".".join(f.python.split(".")[:2]), verified=f.verified, seconds=f.seconds, why="" if f.verified else f.why
        )
        for identity, f in sorted(found.items())
        if not f.infrastructure
    }
    day = datetime.now(UTC).date().isoformat()
    write_whole(path, Verified(date=day, machine=machine, dataset=dataset.sha256, tasks=rows).model_dump_json(indent=1) + "\n")
