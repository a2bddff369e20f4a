"""What was registered, how it was run, and how to have it again: the parts of a report that hold no result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from eval.experiments.findings import Analysis
from eval.experiments.plan import Experiment, Variant, told
from eval.experiments.report_words import counted, number, reason
from eval.report.document import Block, Bullets, Commands, Missing, Prose, Table

MOST_FAILED, MOST_HASHES = 20, 6


@dataclass(frozen=True)
class Locked:
    """Since when a registration is locked. `seen` lives of its earlier versions were there by then, and `earlier` of the lives
    that are reported (shared with other experiments, or with an earlier version) had ended before."""

    version: int
    at: datetime
    seen: int = 0
    earlier: int = 0


def registration(analysis: Analysis, experiment: Experiment | None, locked: Locked | None) -> Iterator[Block]:
    """The hypothesis, word for word, and since when it stands."""
    if experiment:
        yield Prose(experiment.hypothesis)
        yield Prose(f"How it is tested. {_flowing(experiment.analysis)}")
    else:
        yield Prose("The registration with this hash was not at hand when this report was written; the ledger has its text.")
    since = f"Registration {analysis.hash}"
    if locked:
        since += f", version {locked.version}, locked {locked.at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."
        if locked.seen:
            since += f" {counted(locked.seen, 'life', 'lives')} of earlier versions could be seen by then."
        if locked.earlier:
            since += (
                f" {locked.earlier} of the {counted(analysis.done, 'life', 'lives')} had been lived before, "
                "for another experiment or an earlier version that shares the configuration."
            )
        elif not locked.seen:
            since += " No life that is reported here had been lived before."
    else:
        since += "; when it was locked was not handed to this report."
    yield Prose(since)


def design(analysis: Analysis, experiment: Experiment | None) -> Iterator[Block]:
    """Factors, references, places, seeds, settings; and what became of the cells."""
    if experiment:
        yield from _planned(analysis, experiment)
    left = analysis.cells - analysis.done - len(analysis.failed)
    cells = f"{analysis.done} of {counted(analysis.cells, 'cell')} were lived and count; {len(analysis.failed)} failed"
    yield Prose(f"Seeds {', '.join(map(str, analysis.seeds))}. {cells}{f', {left} not lived yet' if left else ''}.")
    if analysis.failed:
        rows = tuple((name, reason(why) or "no reason is known") for name, why in list(analysis.failed.items())[:MOST_FAILED])
        more = f" (the first {MOST_FAILED} of {len(analysis.failed)})" if len(analysis.failed) > MOST_FAILED else ""
        yield Table(f"Cells that failed{more}", ("cell", "why"), rows)


def _planned(analysis: Analysis, experiment: Experiment) -> Iterator[Block]:
    size, factors = experiment.sized(analysis.size), experiment.factors_at(analysis.size)
    if factors:
        rows = tuple(
            (one.name, one.setting, ", ".join(map(told, one.levels)), told(one.centre) if not size.factorial else Missing(_ALL))
            for one in factors
        )
        way = "all levels are crossed" if size.factorial else "each is varied by itself, the others at their centre"
        yield Table(f"Factors: {way}", ("factor", "setting", "levels at this size", "centre"), rows)
    references = [f"{one.name}: {_settings(one)}" for one in experiment.references]
    if references:
        yield Prose("References, which are no level of a factor:" if factors else "Variants:")
        yield Bullets(tuple(references))
    if not factors and not references:
        yield Prose("One variant: every cell has the same settings, but for its place and its seed.")
    if size.spread:
        places = tuple((name, ", ".join(map(str, values))) for name, values in size.spread.items())
        yield Table("Places: each variant and seed is lived in each of them", ("setting", "values"), places)
    shared = {f"design.{name}": value for name, value in size.design.items()} | experiment.settings | size.settings
    yield Table("Settings that all cells share", ("setting", "value"), tuple((name, _value(shared[name])) for name in shared))


_ALL = "all levels are crossed, so that there is none"


def reproduction(analysis: Analysis) -> Iterator[Block]:
    """Commands, and hashes by which results can be told to be the same."""
    seeds = len(analysis.seeds)
    yield Commands(
        f"sleepyctl experiment run {analysis.experiment} --size {analysis.size} --seeds {seeds}\n"
        f"sleepyctl experiment report {analysis.experiment} --size {analysis.size} --seeds {seeds} --out DIR"
    )
    load = f" The load of the machine was {number(analysis.load)} on average." if analysis.load is not None else ""
    yield Prose(
        f"Living took {number(analysis.seconds)} s in all, one life after another, a life that several cells share "
        f"counted once for each.{load} Seconds depend on the machine, and on what else ran on it."
    )
    rows = (
        ("configurations of the lives", len(analysis.config_hashes), _first(analysis.config_hashes)),
        ("code", len(analysis.code_hashes), _first(analysis.code_hashes)),
        ("models", len(analysis.models), _first(analysis.models)),
    )
    yield Table("Hashes", ("of", "how many", "the first"), rows)


def _first(hashes: tuple[str, ...]) -> str | Missing:
    if not hashes:
        return Missing("no life counts")
    return ", ".join(hashes[:MOST_HASHES]) + (" ..." if len(hashes) > MOST_HASHES else "")


def _settings(one: Variant) -> str:
    return ", ".join(f"{name} = {_value(value)}" for name, value in one.settings.items()) or "the settings that all share"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _flowing(text: str) -> str:
    return " ".join(text.split())
