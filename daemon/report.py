"""`sleepyctl report`: a daemon's life as a document, from what its metrics and its nights tell; nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from daemon.metrics_view import Measured
from daemon.views import NightRow
from eval.metrics.lived import BY_DAY, LifeMetrics, Value
from eval.report.document import (
    Bars,
    Block,
    Bullets,
    Commands,
    Figure,
    Heat,
    Lines,
    Mark,
    Missing,
    Panel,
    Point,
    Prose,
    Report,
    Section,
    Series,
    Table,
)
from eval.report.document import Value as Cell
from eval.task_config import POCKET

NAME = "life"
ERRORS = 20
"""Ways to fail that are told, the most frequent ones."""
TITLES = {
    "resolve_rate": "resolved",
    "steps_all": "turns",
    "tokens_all": "tokens",
    "useful_calls": "useful calls",
    "useful_time": "useful time",
    "median_steps_to_green": "median turns to green",
    "cost": "dollars",
    "repeat_error_rate": "repeated errors, so far",
}


def write_life(found: Measured, nights: Sequence[NightRow], out: Path) -> list[Path]:
    """Write the report, as Markdown and as one HTML file, with its plots; the files.

    Raises:
        OSError: the folder cannot be written.
    """
    from eval.report.render import write

    return write(life_report(found, nights), out, NAME)


def life_report(found: Measured, nights: Sequence[NightRow]) -> Report:
    """The document. What did not go well stands first."""
    life = found.life
    pocket = "These are results of the pocket world; they are no SWE-bench results. " if found.source == POCKET else ""
    intro = (
        f"{pocket}Arm {found.arm}, model {found.model}, tasks {found.source}: {found.all.ended} tasks are over, "
        f"{found.all.resolved} of them resolved; {found.nights_promoted} nights promoted, {found.nights_rejected} not. "
        "Days, nights and tasks are one stream of one daemon: there is one seed, and no interval over lives."
    )
    sections = [
        Section("What it measures by", tuple(_measures(life))),
        Section("Learning curve", tuple(_curve(life))),
        Section("What serves, asked of past days", tuple(_matrix(life))),
        Section("Day by day", tuple(_days(life))),
        Section("Before and after", tuple(_before_and_after(life))),
        Section("How attempts failed", tuple(_errors(life))),
        Section("Nights and their verdicts", tuple(_nights(nights))),
        Section("Configurations", tuple(_hashes(found))),
        Section("How to have it again", (Commands("sleepyctl metrics --json\nsleepyctl metrics --matrix\nsleepyctl report"),)),
    ]
    return Report(f"Life of a daemon ({found.arm})", tuple(sections), (Prose(intro), *_bad_news(found, nights)))


def _bad_news(found: Measured, nights: Sequence[NightRow]) -> Iterator[Block]:
    values = found.life.values
    items = [f"Night {n} was not promoted: {night.why}" for n, night in enumerate(nights, 1) if night.promoted is False]
    for name, worse in (("forgetting_chaudhry_net", 1), ("forward_transfer", -1), ("backward_transfer", -1)):
        value = values[name].value
        if value is not None and value * worse > 0:
            items.append(f"{name} is {values[name].shown}: that is worse than nothing learnt.")
        elif value == 0:
            items.append(f"{name} is 0: no gain, and no loss.")
        elif value is None:
            items.append(f"{name} is not known: {values[name].why}.")
    if items:
        yield Bullets(tuple(items), "bad")


def _measures(life: LifeMetrics) -> Iterator[Block]:
    rows = tuple((name, _cell(value), value.unit) for name, value in life.values.items())
    yield Table("Every measure; formulas: eval/metrics/continual.py and attempts.py", ("measure", "value", "unit"), rows)


def _curve(life: LifeMetrics) -> Iterator[Block]:
    names = tuple(day.name for day in life.days)
    if not names:
        yield Prose("No task has ended yet.")
        return
    lived = tuple(_point(n, day.values["resolve_rate"]) for n, day in enumerate(life.days))
    base = tuple(
        Point(n, life.matrix.values[0][n], why=life.matrix.why[0][n]) for n in range(min(len(names), len(life.matrix.columns)))
    )
    series = [Series("as it lived the day", lived)]
    if any(point.y is not None for point in base):
        series.append(Series("the bare base, at the tasks of the day that were asked again", base))
    told = ", ".join(f"{day.name} {day.values['resolve_rate'].shown} of {day.attempts}" for day in life.days)
    plot = Lines("day", "tasks resolved", tuple(series), "share", names)
    yield Figure("learning", "Share of tasks resolved, day by day", f"By day: {told}.", plot)


def _matrix(life: LifeMetrics) -> Iterator[Block]:
    shown = life.matrix
    if not shown.columns:
        yield Prose("No night has ended with a verdict yet, so there is no row to measure.")
        return
    yield Prose(
        "A row is what served after a night (the first: the bare base), a column a day before a night. Below the diagonal the "
        "tasks of a past day were asked again; a cell right of it is the day after, as it was lived. The frozen control is the "
        "bare base at the same tasks: what changes there is chance."
    )
    panels = (Panel("what was live", shown.values), Panel("frozen control", life.frozen.values))
    last = [f"{column} {_share(value)}" for column, value in zip(shown.columns, shown.values[-1], strict=True)]
    plot = Heat("after", "day", shown.rows, shown.columns, panels)
    yield Figure("matrix", "Share resolved, in points", f"The last row, {shown.rows[-1]}: {', '.join(last)}.", plot)
    rows: list[tuple[Cell, ...]] = []
    for i, name in enumerate(shown.rows):
        cells = zip(shown.values[i], shown.why[i], strict=True)
        rows.append((name, *(Missing(why) if value is None else f"{value:.1%}" for value, why in cells)))
    yield Table("The matrix of what was live", ("after", *shown.columns), tuple(rows))


def _days(life: LifeMetrics) -> Iterator[Block]:
    names = (*BY_DAY, "repeat_error_rate")
    columns = ("day", "tasks", *(TITLES[name] for name in names))
    rows = tuple((day.name, day.attempts, *(_cell(day.values[name]) for name in names)) for day in life.days)
    yield Table("The live agent's own attempts", columns, rows)
    if len(life.days) < 2:
        return
    ticks = tuple(day.name for day in life.days)
    for name, part, unit in (("steps_all", "turns", "number"), ("repeat_error_rate", "errors", "share")):
        points = tuple(_point(n, day.values[name]) for n, day in enumerate(life.days))
        told = ", ".join(f"{day.name} {day.values[name].shown}" for day in life.days)
        plot = Lines("day", TITLES[name], (Series("the live agent", points),), "share" if unit == "share" else "number", ticks)
        yield Figure(part, f"{TITLES[name].capitalize()}, day by day", f"By day: {told}.", plot)


def _before_and_after(life: LifeMetrics) -> Iterator[Block]:
    shown = life.matrix
    if not shown.columns:
        yield Prose("There was no night yet.")
        return
    sides = (("the bare base", 0), (f"what serves after {shown.rows[-1]}", -1))
    series = tuple(
        Series(name, tuple(Point(n, value, why=why) for n, (value, why) in enumerate(zip(*cells, strict=True))))
        for name, row in sides
        for cells in [(shown.values[row], shown.why[row])]
    )
    told = "; ".join(
        f"{column}: {_share(before)} before, {_share(after)} after"
        for column, before, after in zip(shown.columns, shown.values[0], shown.values[-1], strict=True)
    )
    plot = Bars("tasks resolved", shown.columns, series, "share")
    yield Figure("before-after", "The same tasks, before any night and after the last one", f"{told}.", plot)


def _errors(life: LifeMetrics) -> Iterator[Block]:
    total: dict[str, int] = {}
    for day in life.days:
        for name, count in day.errors.items():
            total[name] = total.get(name, 0) + count
    most = sorted(total, key=lambda name: (-total[name], name))[:ERRORS]
    if not most:
        yield Prose("No attempt failed, or none was counted.")
        return
    rows = tuple[tuple[Cell, ...], ...]((name, total[name], *(day.errors.get(name, 0) for day in life.days)) for name in most)
    caption = f"The {len(most)} most frequent of {len(total)} ways to fail: outcome, and the last error that was seen"
    yield Table(caption, ("how", "in all", *(day.name for day in life.days)), rows)


def _nights(nights: Sequence[NightRow]) -> Iterator[Block]:
    marks = {True: Mark("promoted", "good"), False: Mark("not promoted", "bad"), None: Mark("open", "open")}
    rows = tuple(
        (
            f"night {number}",
            f"{night.started_at:%Y-%m-%d %H:%M}",
            night.strategy,
            night.pairs,
            Missing("nothing was trained") if night.train_seconds is None else f"{night.train_seconds:.0f}",
            marks[night.promoted],
            night.why or "-",
        )
        for number, night in enumerate(nights, 1)
    )
    columns = ("night", "began (UTC)", "strategy", "pairs", "seconds of training", "verdict", "why")
    yield Table("Every night, also those that broke off", columns, rows) if rows else Prose("There was no night yet.")


def _hashes(found: Measured) -> Iterator[Block]:
    yield Prose("Only results of the same hash are compared; an adapter that went live, or a changed setting, changes it.")
    rows: list[tuple[Cell, ...]] = [("settings in force", found.config_hash, Missing("it is no result"))]
    rows += [("days' attempts", one, count) for one, count in found.life.configs.items()]
    rows += [("examinations, of the bare base", one, count) for one, count in found.life.fingerprints.items()]
    yield Table("Hashes", ("of", "hash", "attempts"), tuple(rows))


def _cell(value: Value) -> Cell:
    return Missing(value.why) if value.value is None else value.shown


def _point(x: int, value: Value) -> Point:
    return Point(x, value.value, why=value.why)


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.0%}"
