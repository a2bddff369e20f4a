"""Commands that live the cells of experiments, and that write what came out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.experiment import Lab, Seeds, SizeChoice, SizeOption, Workers
from daemon.cli.options import HomeOption, Json, note, print_json, writing_to

if TYPE_CHECKING:
    from eval.experiments.plan import Experiment, SizeName
    from eval.experiments.runner import Progress, Ran

Again = Annotated[bool, typer.Option("--again", help="Live anew what other code than this has lived.")]
On = Annotated[str, typer.Option("--on", help="Where: local, local:N, ray, ray:local, ray:HOST:PORT or ray://HOST:PORT.")]


def experiment_run(
    which: Annotated[str, typer.Argument(metavar="ID|all", help="An experiment, or all of them.")],
    size: SizeOption = SizeChoice.POCKET,
    seeds: Seeds = None,
    workers: Workers = 2,
    on: On = "local",
    again: Again = False,
    lab: Lab = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Live what is not lived yet. It may be killed anywhere, and goes on when it is called again."""
    from daemon.experimenting import lab_of, named

    _run([(one, size.value, seeds) for one in named(which, size.value)], workers, on, lab_of(lab, home), home, as_json, again)


def experiment_resume(
    which: Annotated[str, typer.Argument(metavar="[ID]", help="An experiment; all that were begun by default.")] = "all",
    workers: Workers = 2,
    on: On = "local",
    lab: Lab = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """Live what is left of experiments that were begun, at the sizes and with the seeds that they were begun with."""
    from daemon.experimenting import begun, lab_of, named, reading

    folder = lab_of(lab, home)
    sizes: tuple[SizeName, ...] = ("pocket", "full")
    with reading(folder) as ledger:
        left = [(one, size, seeds) for one in named(which) for size in sizes if (seeds := begun(one, size, ledger)) is not None]
    if not left:
        note("nothing is left of what was begun; see: sleepyctl experiment list")
    _run(left, workers, on, folder, home, as_json)


def experiment_report(
    which: Annotated[str, typer.Argument(metavar="ID|all", help="An experiment, or all that were run, with an overview.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the Markdown, the HTML and the plots.")],
    size: SizeOption = SizeChoice.POCKET,
    seeds: Seeds = None,
    lab: Lab = None,
    home: HomeOption = None,
) -> None:
    """Write what came out, verdicts on the criteria first."""
    from daemon.experimenting import ALL, analysed, lab_of, locking, named, records
    from eval.experiments.ledger import Ledger

    folder = out.expanduser()
    with Ledger(lab_of(lab, home), read_only=True) as ledger:
        wanted = [one for one in named(which) if which != ALL or records(one, size.value, ledger)]
        found = [(analysis := analysed(one, size.value, ledger, seeds), one, locking(one, analysis, ledger)) for one in wanted]
    from eval.experiments.report import write_overview, write_report

    with writing_to(out):
        written = [path for analysis, one, locked in found for path in write_report(analysis, folder, one, locked)]
        written += write_overview([analysis for analysis, *_ in found], folder) if which == ALL else ()
    for path in written:
        typer.echo(path)


def _run(
    plans: Sequence[tuple[Experiment, SizeName, int | None]],
    workers: int,
    on: str,
    lab: Path,
    home: Path | None,
    as_json: bool,
    again: bool = False,
) -> None:
    """Run one after another; exit 1 if a cell has failed, or if one of several could not be planned."""
    from daemon.experimenting import analysed, estimated, reading
    from daemon.home import Home
    from eval.errors import EvalError
    from eval.experiments.claims import check_claims
    from eval.experiments.estimate import power_sentence
    from eval.experiments.executors.choice import open_executor
    from eval.experiments.ledger import Ledger
    from eval.experiments.living import Living, code_hash, model_hash
    from eval.experiments.runner import run

    found: list[dict[str, Any]] = []
    work, code = Living(lab, Home.at(home).root), code_hash()
    for one, size, seeds in plans:
        try:
            check_claims(one, size)
            with reading(lab) as ledger:
                plan, power = estimated(one, size, seeds, workers, ledger), power_sentence(one, size, seeds)
        except EvalError as error:
            if len(plans) == 1:
                raise
            note(f"{one.id} is left out: {error}")
            found.append({"id": one.id, "title": one.title, "size": size, "error": str(error)})
            continue
        note(f"{one.id}, {one.title}: {plan.sentence}.")
        note(power)
        ran = run(
            one,
            size,
            lab=lab,
            executor=open_executor(on, workers),
            seeds=seeds,
            work=work,
            model=model_hash,
            code=code,
            again=again,
            on_progress=partial(_progress, one.id),
        )
        with Ledger(lab, read_only=True) as ledger:
            judged = analysed(one, size, ledger, plan.seeds).judged
        verdicts = {each.criterion.name: {"verdict": each.verdict, "why": each.why} for each in judged}
        found.append(_told(one, ran) | {"criteria": verdicts})
        if not as_json:
            _print(one, ran, verdicts)
    if as_json:
        print_json(found)
    if any("error" in each or each["failed"] for each in found):
        raise typer.Exit(1)


def _progress(name: str, progress: Progress) -> None:
    if progress.warning:
        note(f"{name}: {progress.warning}")
    if progress.cell or progress.done < progress.total:
        left = f", about {progress.remaining / 60:.0f} minutes left" if progress.remaining is not None else ""
        what = f"  {progress.cell}" if progress.cell else ""
        note(
            f"{name}: {progress.done} of {progress.total} lives{left}{what}" + (f": {progress.error}" if progress.error else "")
        )


def _told(one: Experiment, ran: Ran) -> dict[str, Any]:
    return {
        "id": one.id,
        "title": one.title,
        "size": ran.size,
        "hash": ran.registration.hash,
        "version": ran.registration.version,
        "locked": ran.registration.locked_at.isoformat(),
        "cells": len(ran.cells),
        "there": ran.there,
        "lived": ran.lived,
        "failed": ran.failed,
        "warnings": list(ran.warnings),
        "seconds": round(ran.seconds, 1),
    }


def _print(one: Experiment, ran: Ran, verdicts: dict[str, dict[str, str]]) -> None:
    typer.echo(f"{one.id}: {ran.lived} lived, {ran.there} there before, {len(ran.failed)} failed, {ran.seconds:.0f} s")
    for name, found in verdicts.items():
        typer.echo(f"  {found['verdict']}: {name} ({found['why']})")
    for name, why in ran.failed.items():
        typer.echo(f"  failed: {name}: {why.splitlines()[0] if why else ''}")
    for warning in ran.warnings:
        typer.echo(f"  note: {warning}")
