"""Plots as SVG: small, the same bytes for the same numbers, legible in a page that is dark or light."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Sequence
from io import StringIO
from itertools import pairwise
from math import nan
from typing import TYPE_CHECKING, Any

from eval.report.document import Bars, Figure, Heat, Lines, Point, Unit
from eval.report.svg import tidied
from eval.report.text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK, PAPER, LINE = "#1f2329", "#fdfdfb", "#c9cdd3"
SERIES = ("#0b6cb8", "#c8500a", "#0a8264", "#a8469c", "#8a6d00", "#5a5ad0", "#b3303f", "#3d7d1f", "#66707c", "#00808f")
"""The colours of a report. A page that is dark replaces them: each stands for nothing else in a plot."""
_MARKERS, _STYLES = "osD^vPX*<>", ("-", "--", "-.", ":")
_WIDTH, _LONGEST = 7.2, 40
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "hatch.color": INK,
    "hatch.linewidth": 0.4,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
    "path.simplify": False,
}


def drawn(figure: Figure) -> str:
    """The plot as a document that stands by itself, with title and description for those who cannot see it."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    file = StringIO()
    with warnings.catch_warnings(), rc_context():
        rcdefaults()  # what this machine's own settings say does not matter
        rcParams.update(_SETTINGS)
        # Letters are drawn by whoever shows the plot: that this machine's font lacks one does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = Canvas(figsize=(_WIDTH, _height(figure.plot)), layout="constrained")
        FigureCanvasSVG(canvas)
        match figure.plot:
            case Lines():
                _lines(canvas.subplots(), figure.plot)
            case Bars():
                _bars(canvas.subplots(), figure.plot)
            case Heat():
                _heat(canvas, figure.plot)
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return tidied(file.getvalue(), figure.name, figure.caption, figure.description)


def _height(plot: Lines | Bars | Heat) -> float:
    match plot:
        case Lines():
            return 2.9 + 0.2 * _legend_rows(len(plot.series))
        case Bars():
            return 1.0 + 0.2 * _legend_rows(len(plot.series)) + len(plot.labels) * max(0.26, 0.16 * len(plot.series) + 0.1)
        case Heat():
            return 0.4 + -(-len(plot.panels) // _beside(plot)) * (0.75 + 0.27 * len(plot.rows))


def _lines(axes: Axes, plot: Lines) -> None:
    places = sorted({point.x for series in plot.series for point in series.points})
    nearest = min((after - before for before, after in pairwise(places)), default=1.0)
    for number, series in enumerate(plot.series):
        points = series.points
        beside = (
            0.0 if plot.logarithmic else (number - (len(plot.series) - 1) / 2) * min(0.04, 0.3 / len(plot.series)) * nearest
        )
        axes.errorbar(
            [point.x + beside for point in points],
            # A line is broken where a value is missing.
            [_scaled(nan if point.y is None else point.y, plot.unit) for point in points],
            yerr=_spread(points, plot.unit),
            label=_label(series.name),
            color=SERIES[number % len(SERIES)],
            marker=_MARKERS[number % len(_MARKERS)],
            linestyle=_STYLES[number // 2 % len(_STYLES)],
            markersize=4.5,
            linewidth=1.3,
            elinewidth=0.7,
            capsize=2,
        )
    if plot.logarithmic and places and places[0] > 0:
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()
    elif plot.ticks:
        axes.set_xticks(range(len(plot.ticks)), _wrapped(plot.ticks))
    else:
        axes.set_xticks(places) if len(places) <= 12 else None
    axes.set(xlabel=_label(plot.x, 80), ylabel=_unit(plot.y, plot.unit))
    axes.grid(axis="y")
    for place, name in plot.marks:
        axes.axvline(place, color=INK, linewidth=0.8, linestyle=":")
        axes.annotate(_label(name), (place, 1.0), (3, -9), xycoords=axes.get_xaxis_transform(), textcoords="offset points")
    for level, name in plot.levels:
        axes.axhline(_scaled(level, plot.unit), color=INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            _label(name), (1.0, _scaled(level, plot.unit)), (0, 3), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", ha="right",
        )  # fmt: skip
    _legend(axes, len(plot.series))


def _bars(axes: Axes, plot: Bars) -> None:
    thick = 0.8 / max(1, len(plot.series))
    for number, series in enumerate(plot.series):
        points = [point for point in series.points if point.y is not None]
        places = [point.x + (number - (len(plot.series) - 1) / 2) * thick for point in points]
        axes.barh(
            places,
            [_scaled(point.y, plot.unit) for point in points],
            thick * 0.92,
            xerr=_spread(points, plot.unit),
            label=_label(series.name),
            color=SERIES[number % len(SERIES)],
            error_kw={"elinewidth": 0.8, "capsize": 2, "ecolor": INK},
        )
        for point in series.points:
            if point.y is None:
                place = point.x + (number - (len(plot.series) - 1) / 2) * thick
                axes.annotate("none", (0, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.axvline(0, color=INK, linewidth=0.8)
    for level, name in plot.levels:
        axes.axvline(_scaled(level, plot.unit), color=INK, linewidth=0.8, linestyle=":", label=_label(name))
    axes.set_yticks(range(len(plot.labels)), _wrapped(plot.labels, 34))
    axes.set_ylim(len(plot.labels) - 0.4, -0.6)
    axes.set_xlabel(_unit(plot.y, plot.unit))
    axes.grid(axis="x")
    _legend(axes, len(plot.series) + len(plot.levels))


def _heat(canvas: Canvas, plot: Heat) -> None:
    beside = _beside(plot)
    down = -(-len(plot.panels) // beside)
    grid = canvas.subplots(down, beside, squeeze=False)
    for number, axes in enumerate(grid.flat):
        if number >= len(plot.panels):
            axes.set_axis_off()
            continue
        panel = plot.panels[number]
        for i, row in enumerate(panel.values):
            for j, value in enumerate(row):
                _cell(axes, i, j, value)
        axes.set_xlim(-0.5, len(plot.columns) - 0.5)
        axes.set_ylim(len(plot.rows) - 0.5, -0.5)
        axes.set_title(_label(panel.name))
        axes.set_xticks(range(len(plot.columns)), [plain(name, 12) for name in plot.columns], rotation=30, ha="right")
        axes.set_yticks(range(len(plot.rows)), [plain(name, 14) for name in plot.rows])
        axes.tick_params(length=0, labelsize=7.5)
        axes.spines[:].set_visible(False)
        if number % beside == 0:
            axes.set_ylabel(_label(plot.y))
        else:
            axes.set_yticklabels([])
        if number + beside >= len(plot.panels):
            axes.set_xlabel(_label(plot.x))


def _cell(axes: Axes, row: int, column: int, value: float | None) -> None:
    from matplotlib.patches import Rectangle

    corner = (column - 0.5, row - 0.5)
    if value is None:
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=LINE, linewidth=0.5, hatch="////", clip_on=False))
        return
    share = min(1.0, max(0.0, value))
    light, dark = (0xE9, 0xF1, 0xFA), (0x08, 0x3D, 0x77)
    colour = "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(light, dark, strict=True))
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="none", clip_on=False))
    shade = "#ffffff" if share > 0.5 else "#000000"
    axes.text(column, row, f"{value * 100:.0f}", ha="center", va="center", fontsize=8, color=shade)


def _beside(plot: Heat) -> int:
    """How many panels fit beside one another."""
    return max(1, min(len(plot.panels), 4, int(16 / max(1, len(plot.columns)))))


def _spread(points: Sequence[Point], unit: Unit) -> Any:
    """Lengths of the bars of error, below and above: 2 by points, or None where no point has an interval."""
    if all(point.low is None or point.high is None for point in points):
        return None
    return [[_apart(point.low, point.y, unit) for point in points], [_apart(point.y, point.high, unit) for point in points]]


def _apart(low: float | None, high: float | None, unit: Unit) -> float:
    """How far apart two ends are drawn; 0 where one is missing."""
    return 0.0 if low is None or high is None else max(0.0, _scaled(high - low, unit))


def _scaled(value: float | None, unit: Unit) -> float:
    assert value is not None
    return value * 100 if unit == "share" else value


def _unit(name: str, unit: Unit) -> str:
    return _label(f"{name} (%)" if unit == "share" else name, 80)


def _label(name: str, longest: int = _LONGEST) -> str:
    # matplotlib leaves a name out of the legend if it begins with an underscore.
    text = plain(name, longest)
    return "\u200a" + text if text.startswith("_") else text


def _wrapped(names: Sequence[str], width: int = 16) -> list[str]:
    return ["\n".join(textwrap.wrap(plain(name, 3 * width), width)[:3]) for name in names]


def _legend_rows(entries: int) -> int:
    return -(-entries // 3) if entries > 1 else 0


def _legend(axes: Axes, entries: int) -> None:
    if entries > 1:
        axes.figure.legend(loc="outside lower center", ncols=min(entries, 3), fontsize=8, handlelength=2.6)
