"""What an experiment's report draws: curves by night, matrices, bars beside the base, levels and their knee."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from eval.experiments.findings import Analysis, Interval, Kind, Levels
from eval.experiments.measures import asked
from eval.experiments.plan import Experiment
from eval.experiments.report_words import counted, interval, number, of_arm
from eval.report.document import Bars, Figure, Heat, Lines, Panel, Point, Series, Unit

MOST = 10
"""Lines, panels and groups of bars in a figure; of more variants the first ones are drawn, and the tables have them all."""
FEW = 6
"""So many lines or panels may show every arm, and so many lines their intervals."""
MOST_LEVELS = 3
MOST_ERRORS = 8
_CURVES: tuple[tuple[Kind, str, str, Unit], ...] = (
    ("learning", "Learning curve: tasks resolved in all blocks, night by night", "tasks resolved", "share"),
    ("retention", "Retention: tasks resolved in what a night taught, by nights since", "tasks resolved", "share"),
    ("steps", "Turns per attempt, night by night", "turns", "number"),
    ("repeated errors", "Errors met before in the same examination, night by night", "repeated errors", "share"),
)


def curves(analysis: Analysis, experiment: Experiment | None) -> Iterator[Figure]:
    """One figure for each kind of curve that has more than one point; 0 nights is the base."""
    for kind, caption, y, unit in _CURVES:
        found = _chosen([curve for curve in analysis.curves if curve.kind == kind])
        nights = max((int(point.x) for curve in found for point in curve.points), default=0)
        if not nights:
            continue
        if kind == "retention":
            x, ticks = "nights since", tuple(map(str, range(nights + 1)))
        else:
            x, ticks = nights_of(experiment, analysis, nights)
        series = tuple(
            Series(_name(analysis, curve), tuple(_point(point.x, point.interval, len(found) <= FEW) for point in curve.points))
            for curve in found
        )
        told = "; ".join(
            f"{_name(analysis, curve)} {', '.join(number(point.interval.mean) for point in curve.points)}" for curve in found
        )
        title = caption + (", means without intervals" if len(found) > FEW else "") + _left_out(analysis)
        yield Figure(
            kind.replace(" ", "-"),
            title,
            f"{'By nights since' if kind == 'retention' else 'Night by night'}: {told}.",
            Lines(x, y, series, unit, ticks),
        )


def matrices(analysis: Analysis, experiment: Experiment | None) -> Figure | None:
    """The mean matrices of a[i,j], side by side, where all have the shape of the first."""
    grids = _chosen([grid for grid in analysis.grids if (grid.columns, len(grid.values)) == _shape(analysis)])
    if not grids:
        return None
    first = grids[0]
    x, rows = nights_of(experiment, analysis, len(first.values) - 1)
    panels = tuple(Panel(_name(analysis, grid), grid.values) for grid in grids)
    last = "; ".join(
        f"{_name(analysis, grid)} "
        + ", ".join(f"{block} {_known(value)}" for block, value in zip(grid.columns, grid.values[-1], strict=True))
        for grid in grids
    )
    caption = "Tasks resolved (%) of each block (columns) after each night (rows), mean over lives" + _left_out(analysis)
    why = next((reason for grid in grids for reason in grid.missing.values()), "not measured")
    heat = Heat(x, "block", rows, first.columns, panels, why)
    return Figure("matrix", caption, f"The last row: {last}.", heat)


def before_and_after(analysis: Analysis) -> Figure | None:
    """Each arm beside the base on the same tasks."""
    found = [one for one in analysis.against_base if one.compared.pairs]
    if len(found) > 2 * FEW:
        found = [one for one in found if one.arm == "skill"]
    found = found[: 2 * FEW]
    if not found:
        return None
    labels = tuple(_name(analysis, one) for one in found)
    sides = (("the base", "base"), ("the arm", "candidate"))
    series = tuple(
        Series(name, tuple(Point(place, getattr(one.compared, side)) for place, one in enumerate(found)))
        for name, side in sides
    )
    told = "; ".join(
        f"{label} {_known(one.compared.base)} before, {_known(one.compared.candidate)} after"
        for label, one in zip(labels, found, strict=True)
    )
    blocks = " or ".join(dict.fromkeys(one.blocks for one in found))
    caption = f"Before and after: the same tasks ({blocks} blocks), by the base and by the arm after the last night"
    return Figure("before-after", caption + _left_out(analysis), f"{told}.", Bars("tasks resolved", labels, series, "share"))


def failures(analysis: Analysis) -> Figure | None:
    """How attempts failed, where there are few enough variants for bars."""
    names = [name for name in analysis.variants if analysis.errors.get(name)]
    if not names or len(names) > 4:
        return None
    total: dict[str, int] = {}
    for name in names:
        for signature, count in analysis.errors[name].items():
            total[signature] = total.get(signature, 0) + count
    most = sorted(total, key=lambda signature: (-total[signature], signature))[:MOST_ERRORS]
    series = tuple(
        Series(name, tuple(Point(place, float(analysis.errors[name].get(one, 0))) for place, one in enumerate(most)))
        for name in names
    )
    ways = f"the {len(most)} most frequent of {counted(len(total), 'way')}"
    caption = f"How attempts{of_arm(analysis)} failed in the last examination: {ways}"
    told = ", ".join(f"{signature} {total[signature]}" for signature in most)
    return Figure("errors", caption, f"In all: {told}.", Bars("failed attempts", tuple(most), series))


def cost(analysis: Analysis) -> Figure | None:
    """What training took, by variant."""
    every = (*analysis.summaries, *analysis.exploratory)
    for measure in ("train_tokens", "train_seconds"):
        found = [(one.variant, one.interval) for one in every if one.measure == measure and one.interval]
        if 1 < len(found) <= 2 * FEW:
            series = Series(measure, tuple(_point(place, value) for place, (_, value) in enumerate(found) if value))
            told = "; ".join(f"{name} {interval(value)}" for name, value in found if value)
            labels = tuple(name for name, _ in found)
            bars = Bars(f"{asked(measure).metric.unit}, all nights of a life", labels, (series,))
            return Figure("cost", f"Cost: {measure} by variant", f"{told}.", bars)
    return None


def level_curves(analysis: Analysis) -> Iterator[Figure]:
    """The primary measure by the levels of numeric factors, with the knee where there is one."""
    for place, found in enumerate(analysis.levels[:MOST_LEVELS], 1):
        if len(found.points) > 1:
            yield _levels(place, found)


def nights_of(experiment: Experiment | None, analysis: Analysis, last: int) -> tuple[str, tuple[str, ...]]:
    """What the nights 0 to `last` are called: by what was lived before them, where the design says so."""
    design: dict[str, Any] = dict(experiment.sized(analysis.size).design) if experiment else {}
    kind, plain = design.get("kind"), ("after night", ("base", *map(str, range(1, last + 1))))
    if kind == "sequence":
        x, names = "after the night of", tuple(design["repos"])
    elif kind == "drift":
        x = "after the night after so many sessions of the changed repository"
        names = ("0", *map(str, design.get("recovery", ())))
    else:
        x, names = "after the night after so many sessions", tuple(map(str, design.get("sessions", ())))
    return (x, ("base", *names)) if len(names) == last else plain


def _levels(place: int, found: Levels) -> Figure:
    points = tuple(_point(point.x, point.interval) for point in found.points)
    xs = [point.x for point in points]
    marks = ((found.knee, f"knee at {found.knee:g}"),) if found.knee is not None else ()
    unit: Unit = "share" if asked(found.measure).metric.unit == "share" else "number"
    lines = Lines(
        found.factor,
        found.measure,
        (Series(found.measure, points),),
        unit,
        logarithmic=xs[0] > 0 and xs[-1] / xs[0] > 8,
        marks=marks,
    )
    told = "; ".join(f"{point.x:g}: {interval(point.interval)}" for point in found.points)
    end = f" Knee at {found.knee:g}." if found.knee is not None else f" No knee: {found.why}."
    return Figure(
        f"level-{place}", f"{found.measure} by {found.factor}, everything else at its centre", told + "." + end, lines
    )


def _chosen(found: Sequence[Any]) -> list[Any]:
    if len(found) > FEW and any(one.arm == "skill" for one in found):
        found = [one for one in found if one.arm == "skill"]
    return list(found)[:MOST]


def _left_out(analysis: Analysis) -> str:
    return f" (the first {MOST} of {len(analysis.variants)} variants)" if len(analysis.variants) > MOST else ""


def _name(analysis: Analysis, one: Any) -> str:
    if len(analysis.variants) == 1:
        return str(one.arm)
    several = len({curve.arm for curve in analysis.curves}) > 1
    return f"{one.variant}, {one.arm}" if several else str(one.variant)


def _shape(analysis: Analysis) -> tuple[tuple[str, ...], int]:
    return analysis.grids[0].columns, len(analysis.grids[0].values)


def _point(x: float, found: Interval, ends: bool = True) -> Point:
    return Point(x, found.mean, found.low, found.high) if ends else Point(x, found.mean)


def _known(value: float | None) -> str:
    return "not measured" if value is None else number(value)
