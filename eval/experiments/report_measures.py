"""The measures of an experiment by variant: their means, every value of the primary one, what is missing, what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from eval.experiments.findings import Analysis, Summary
from eval.experiments.measures import asked
from eval.experiments.report_words import interval, number, optional, reason
from eval.report.document import Block, Missing, Table, Value

FEW = 3
"""So many variants are columns beside each other; more are rows, under a few measures at a time."""
ACROSS, MOST_VARIANTS, MOST_ROWS = 4, 12, 20
"""Measures in one table, variants in one table, rows of tables that tell of exceptions."""


def measures(analysis: Analysis) -> Iterator[Block]:
    """Every registered measure by variant; then what is missing, and what the measures are."""
    names = list(dict.fromkeys(one.measure for one in analysis.summaries))
    yield from summaries("Registered measures", analysis.summaries, analysis.variants)
    yield from _each(analysis)
    yield from _gaps(analysis)
    known = dict.fromkeys(asked(name).name for name in names)
    rows = tuple((name, asked(name).metric.unit, asked(name).metric.better, asked(name).metric.text) for name in known)
    yield Table("What they are (of the skill arm, where no other is named)", ("measure", "unit", "better", "what"), rows)


def summaries(caption: str, found: Sequence[Summary], variants: Sequence[str], short: bool = False) -> Iterator[Table]:
    """Measures by variant; `short` leaves intervals out where there are many variants."""
    cells = {(one.variant, one.measure): one for one in found}
    names = list(dict.fromkeys(one.measure for one in found))
    if len(variants) <= FEW:
        columns = ("mean (95 %)",) if len(variants) == 1 else tuple(variants)
        rows = tuple((name, *(_summary(cells.get((one, name))) for one in variants)) for name in names)
        yield Table(caption, ("measure", *columns), rows)
    elif short:
        for part in _parts(variants, MOST_VARIANTS):
            rows = tuple((name, *(_summary(cells.get((one, name)), True) for one in part)) for name in names)
            yield Table(f"{caption}, means", ("measure", *part), rows)
    else:
        for these in _parts(names, ACROSS):
            for part in _parts(variants, MOST_VARIANTS):
                rows = tuple((one, *(_summary(cells.get((one, name))) for name in these)) for one in part)
                yield Table(f"{caption}: {', '.join(these)}", ("variant", *these), rows)


def costs(analysis: Analysis) -> Iterator[Table]:
    """What learning took."""
    wanted = ("train_tokens", "train_seconds", "examples", "adapter_bytes")
    found = [one for name in wanted for one in (*analysis.summaries, *analysis.exploratory) if one.measure == name]
    if found:
        names = list(dict.fromkeys(one.measure for one in found))
        cells = {(one.variant, one.measure): one for one in found}
        for part in _parts(analysis.variants, MOST_VARIANTS):
            took = tuple((one, *(_summary(cells.get((one, name))) for name in names)) for one in part)
            yield Table("What all nights of a life took", ("variant", *names), took)


def _parts(found: Sequence[str], size: int) -> list[Sequence[str]]:
    return [found[start : start + size] for start in range(0, len(found), size)]


def _summary(one: Summary | None, short: bool = False) -> Value:
    if one is None:
        return Missing("it has no value in any life of this variant")
    if one.interval is None:
        return Missing(reason(next(iter(one.missing.values()), "there are no cells")))
    return number(one.interval.mean) if short else interval(one.interval)


def _each(analysis: Analysis) -> Iterator[Table]:
    """The primary measure of every cell: what the means are of."""
    ends = [(f"/seed {seed}", f"seed {seed}") for seed in analysis.seeds]
    values: dict[str, dict[str, Value]] = {}
    for one in analysis.summaries:
        for cell, value in zip(one.cells, one.values, strict=True) if one.measure == analysis.primary else ():
            end, seed = next((end, seed) for end, seed in ends if cell.endswith(end))
            values.setdefault(cell.removesuffix(end), {})[seed] = optional(value, one.missing.get(cell, "not measured"))
    seeds = [seed for _, seed in ends]
    for part in _parts(list(values), MOST_ROWS):
        rows = tuple((name, *(values[name].get(seed, Missing("no such cell")) for seed in seeds)) for name in part)
        yield Table(f"{analysis.primary} of every cell", ("cells", *seeds), rows)


def _gaps(analysis: Analysis) -> Iterator[Table]:
    """Lives that were lived and have no value: what a mean over the others hides."""
    found: dict[tuple[str, str], list[str]] = {}
    lived = {cell for one in analysis.summaries for cell in one.cells if cell not in one.missing}
    for one in analysis.summaries:
        for cell, why in one.missing.items() if one.interval else ():
            if cell in lived:
                found.setdefault((one.measure, reason(why)), []).append(cell)
    rows = tuple((measure, len(cells), cells[0], why) for (measure, why), cells in found.items())
    if rows:
        more = f" (the first {MOST_ROWS} of {len(rows)})" if len(rows) > MOST_ROWS else ""
        caption = f"Cells without a value of a measure that others have{more}"
        yield Table(caption, ("measure", "cells", "such as", "why"), rows[:MOST_ROWS])
