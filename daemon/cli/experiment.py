"""Commands about the pre-registered experiments: what is claimed, when the claim has failed, and what it takes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import HomeOption, Json, print_json, print_table

if TYPE_CHECKING:
    from eval.experiments.plan import Criterion

experiment = typer.Typer(no_args_is_help=True, help="The pre-registered experiments.")


class SizeChoice(StrEnum):
    """Sizes of an experiment."""

    POCKET = "pocket"
    FULL = "full"


SizeOption = Annotated[SizeChoice, typer.Option("--size", help="Minutes in the pocket world, or as the programme has it.")]
Lab = Annotated[Path | None, typer.Option("--lab", help="Folder of what was lived; `lab` in the state directory by default.")]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, help="How many seeds, if not as registered.")]
Workers = Annotated[int, typer.Option("--workers", "-w", min=1, help="Lives at a time.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    from daemon.cli.experiment_run import experiment_report, experiment_resume, experiment_run

    experiment.command("run")(experiment_run)
    experiment.command("resume")(experiment_resume)
    experiment.command("report")(experiment_report)
    app.add_typer(experiment, name="experiment")


@experiment.command("list")
def experiment_list(
    size: SizeOption = SizeChoice.POCKET, lab: Lab = None, home: HomeOption = None, as_json: Json = False
) -> None:
    """All experiments: since when they are locked, and how many of their cells are lived."""
    from daemon.experimenting import ALL, lab_of, named, reading, row_of

    with reading(lab_of(lab, home)) as ledger:
        rows = [row_of(one, size.value, ledger) for one in named(ALL, size.value)]
    if as_json:
        print_json(rows)
        return
    table = [(r["id"], r["title"], r["hash"], _locked(r), f"{r['done']}/{r['cells']}", r["failed"] or "") for r in rows]
    print_table(("id", "title", "hash", "locked", f"{size} cells", "failed"), table, "nothing is registered")


@experiment.command("show")
def experiment_show(
    which: Annotated[str, typer.Argument(metavar="ID", help="Such as exp04; see `experiment list`.")],
    size: SizeOption = SizeChoice.POCKET,
    seeds: Seeds = None,
    workers: Workers = 2,
    lab: Lab = None,
    home: HomeOption = None,
    as_json: Json = False,
) -> None:
    """What an experiment claims, how it is tested, when the claim has failed, and what it takes."""
    from daemon.experimenting import estimated, lab_of, named, reading, row_of

    one = named(which)[0]
    with reading(lab_of(lab, home)) as ledger:
        row, plan = row_of(one, size.value, ledger), estimated(one, size.value, seeds, workers, ledger)
    variants = one.variants(size.value)
    if as_json:
        design = {"variants": [variant.model_dump(mode="json") for variant in variants]}
        names = {"cell_names": [cell.name for cell in one.cells(size.value, seeds)]}
        print_json(one.model_dump(mode="json") | row | design | names | {"estimate": plan.model_dump(mode="json")})
        return
    typer.echo(f"{one.id}: {one.title} ({one.hash}, {_locked(row)})")
    typer.echo(f"\nHypothesis. {_flowing(one.hypothesis)}\n\nExpected. {_flowing(one.expected)}\n\nCriteria")
    for each in one.criteria:
        typer.echo(f"  {each.name}: {_flowing(each.text)} [{_formula(each)}]")
    typer.echo(f"\nDesign at size {size}")
    for variant in variants:
        told = ", ".join(f"{name} = {value}" for name, value in variant.settings.items())
        typer.echo(f"  {variant.name}: {told or 'the settings that all share'}")
    for name, values in one.sized(size.value).spread.items():
        typer.echo(f"  each at {name} = {', '.join(map(str, values))}")
    typer.echo(f"\nMeasures. {', '.join(one.measures)}; the primary one is {one.primary}.")
    typer.echo(f"\nAnalysis. {_flowing(one.analysis)}\n\nLimits. {_flowing(one.limits)}\n\nEstimate. {plan.sentence}.")


def _locked(row: dict[str, Any]) -> str:
    if row["locked"]:
        return f"locked {row['locked'][:19]}"
    return "changed since it was locked" if row["changed"] else "not locked yet"


def _flowing(text: str) -> str:
    return " ".join(text.split())


def _formula(criterion: Criterion) -> str:
    sign = "/" if criterion.compare == "ratio" else "-"
    against = f" {sign} that of {criterion.against}" if criterion.against else ""
    of = "" if criterion.variant == "*" else f" of {criterion.variant}"
    return f"{criterion.measure}{of}{against} {criterion.operator} {criterion.threshold:g}"
