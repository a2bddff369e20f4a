"""All experiments on one page: a row for each, and each of their criteria."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.experiments.findings import Analysis, Judged
from eval.experiments.report_words import SHARES, counted, demand, mark, number, tally, value_of
from eval.report.document import Block, Bullets, Commands, Missing, Prose, Report, Section, Table, Value


def overview(analyses: Sequence[Analysis], pocket: str = "", missing: Sequence[str] = ()) -> Report:
    """The document; `pocket` is what is said of pocket results, `missing` are experiments that were not run. A row names the
    file that has the rest."""
    found = (
        Section("Experiments", tuple(_experiments(analyses))),
        Section("Every criterion", tuple(_criteria(analyses))),
        Section("How to have it again", tuple(_again(analyses))),
    )
    return Report("The programme, experiment by experiment", found if analyses else (), tuple(_lead(analyses, pocket, missing)))


def _lead(analyses: Sequence[Analysis], pocket: str, missing: Sequence[str]) -> Iterator[Block]:
    if pocket:
        yield Prose(pocket)
    if not analyses:
        yield Prose("No experiment has been run yet; see: sleepyctl experiment list")
        return
    judged = [one for analysis in analyses for one in analysis.judged]
    cells, done = sum(one.cells for one in analyses), sum(one.done for one in analyses)
    yield Prose(f"{counted(len(analyses), 'experiment')}, {done} of {counted(cells, 'cell')} that count. {tally(judged)}.")
    bad = [
        f"{analysis.experiment}: {len(missed)} not met ({'; '.join(missed)})"
        for analysis in analyses
        if (missed := [one.criterion.name for one in analysis.judged if one.verdict == "not met"])
    ]
    bad += [
        f"{one.experiment}: {one.cells - one.done} of {counted(one.cells, 'cell')} have no life that counts"
        for one in analyses
        if one.done < one.cells
    ]
    if missing:
        bad.append(f"Registered, and not run: {', '.join(missing)}")
    if bad:
        yield Bullets(tuple(bad), "bad")


def _experiments(analyses: Sequence[Analysis]) -> Iterator[Block]:
    rows: list[tuple[Value, ...]] = []
    for one in analyses:
        verdicts = [each.verdict for each in one.judged]
        counts = [verdicts.count(verdict) for verdict in ("met", "not met", "undecided", "not measured")]
        told = (*_headline(one), number(one.seconds), _file(one))
        rows.append((one.experiment, one.title, one.size, f"{one.done}/{one.cells}", *counts, *told))
    columns = ("id", "title", "size", "cells", "met", "not met", "undecided", "not measured", "first criterion", "its value")
    yield Table("Verdicts by experiment", (*columns, "s of living", "report"), tuple(rows))
    yield Prose(SHARES)


def _headline(one: Analysis) -> tuple[Value, Value]:
    if not one.judged:
        return "-", Missing("nothing was judged")
    first = one.judged[0]
    return f"{first.criterion.name} ({demand(first.criterion)})", _value(first)


def _criteria(analyses: Sequence[Analysis]) -> Iterator[Block]:
    rows = tuple(
        (one.experiment, each.criterion.name, mark(each.verdict), _value(each), demand(each.criterion), each.variant or "-")
        for one in analyses
        for each in one.judged
    )
    yield Table("Criteria, as registered", ("id", "criterion", "verdict", "value", "demanded", "judged on"), rows)


def _again(analyses: Sequence[Analysis]) -> Iterator[Block]:
    sizes = dict.fromkeys(one.size for one in analyses)
    lines = [f"sleepyctl experiment {verb}" for size in sizes for verb in (f"run all --size {size}", _report(size))]
    yield Commands("\n".join(lines))
    lives = len({digest for one in analyses for digest in one.config_hashes})
    seconds = number(sum(one.seconds for one in analyses))
    yield Prose(
        f"{counted(lives, 'life', 'lives')} by configuration; {seconds} s of living, lives that several experiments share "
        "counted once in each. Seeds that are not as registered are named in each report."
    )


def _report(size: str) -> str:
    return f"report all --size {size} --out DIR"


def _value(judged: Judged) -> Value:
    return value_of(judged.criterion, judged.value, judged.why)


def _file(one: Analysis) -> str:
    return f"{one.experiment}.md"
