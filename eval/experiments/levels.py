"""A measure by the levels of a numeric factor, and where it bends."""

from __future__ import annotations

from collections.abc import Sequence

from eval.errors import EvalError
from eval.experiments.findings import Interval, Levels, Point
from eval.experiments.measures import asked
from eval.experiments.plan import Factor
from eval.experiments.study import Study, student


def numeric(study: Study) -> list[Factor]:
    """Factors whose levels are numbers."""
    return [
        factor
        for factor in study.experiment.factors_at(study.size)
        if all(isinstance(level, int | float) and not isinstance(level, bool) for level in factor.levels)
    ]


def levels(study: Study, factor: Factor, measure: str) -> tuple[Levels, tuple[float, ...]]:
    """The curve over the levels, the other factors at their centre (or averaged, where all are crossed); and the knee of each
    seed that has a value at every level.

    There is a knee only if the best level is better than the first by more than chance: the interval of the paired difference
    (widened where all are equal) leaves out 0.
    """
    found: dict[float, dict[str, float]] = {}
    for level in _sorted(factor):
        if values := _at(study, factor, level, measure):
            found[level] = values
    points = tuple(Point(x=x, interval=student(list(values.values()), study.unit)) for x, values in found.items())
    sign = -1.0 if asked(measure).metric.better == "lower" else 1.0
    shared = [key for key in next(iter(found.values()), {}) if all(key in values for values in found.values())]
    blank = Levels(factor=factor.name, measure=measure, points=points, knee=None)
    if len(found) < 3 or len(shared) < 2:
        why = f"{len(found)} levels with values in {len(shared)} replicates: a knee needs three levels and two replicates"
        return blank.model_copy(update={"why": why}), ()
    xs = list(found)
    means = [sign * point.interval.mean for point in points]
    top = xs[means.index(max(means))]
    rise = student([sign * (found[top][key] - found[xs[0]][key]) for key in shared], study.unit)
    if rise.flat:
        cells = {
            cell.name for name in (*at_level(study, factor, top), *at_level(study, factor, xs[0])) for cell in study.of(name)
        }
        wide = study.widened(rise, measure, cells)
        rise = wide[0] if wide else student([rise.mean], study.unit)
    if top == xs[0] or rise.low is None or rise.low <= 0:
        why = f"no level is better than {xs[0]:g} by more than chance: there is nothing that bends"
        return blank.model_copy(update={"why": why}), ()
    at = bend(xs, means)
    each = tuple(one for key in shared if (one := bend(xs, [sign * found[x][key] for x in xs])) is not None)
    why = "" if at is not None else "the curve is nowhere above its chord: no return diminishes"
    return blank.model_copy(update={"knee": at, "why": why}), each


def bend(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """The inner x at which the curve is farthest above its chord, both axes from 0 to 1 (Satopää et al. 2011, without
    smoothing); None if it is nowhere above."""
    low, high = min(ys), max(ys)
    if high == low or len(xs) < 3:
        return None
    above = [((y - low) / (high - low) - (x - xs[0]) / (xs[-1] - xs[0]), -x) for x, y in zip(xs, ys, strict=True)]
    most, x = max(above[1:-1])
    return -x if most > 0 else None


def knee(study: Study, measure: str, factor: str) -> tuple[Interval | None, str]:
    """The knee of the mean curve, with the least and largest of the seeds' own; or why there is none.

    Raises:
        EvalError: there is no such factor with numeric levels.
    """
    curve, each = levels(study, named(study, factor), measure)
    if curve.knee is None:
        return None, curve.why
    low, high = min((*each, curve.knee)), max((*each, curve.knee))
    return Interval(mean=curve.knee, low=low, high=high, n=len(each), unit=curve.points[0].interval.unit), ""


def named(study: Study, factor: str) -> Factor:
    """The numeric factor of a name, or the first one.

    Raises:
        EvalError: there is no such factor with numeric levels.
    """
    factors = numeric(study)
    for one in factors:
        if factor in ("", one.name):
            return one
    raise EvalError(f"no numeric factor {factor!r}; there are {', '.join(one.name for one in factors) or 'none'}")


def at_level(study: Study, factor: Factor, level: float) -> list[str]:
    """The variants at a level, the other factors at their centre where not all are crossed."""
    crossed = study.experiment.sized(study.size).factorial
    others = (other for other in study.experiment.factors_at(study.size) if other.setting != factor.setting)
    centres = {other.setting: other.centre for other in others}
    return [
        variant.name
        for variant in study.experiment.variants(study.size)
        if variant.settings.get(factor.setting) == level
        and (crossed or all(variant.settings.get(setting) == centre for setting, centre in centres.items()))
    ]


def along(study: Study, factor: Factor) -> list[str]:
    """The variants at all levels of a factor."""
    return [name for level in _sorted(factor) for name in at_level(study, factor, level)]


def _sorted(factor: Factor) -> list[float]:
    return sorted(float(value) for value in factor.levels if isinstance(value, int | float))


def _at(study: Study, factor: Factor, level: float, measure: str) -> dict[str, float]:
    """Replicates (by seed and place, whichever variants they are of) at a level."""
    sums: dict[str, list[float]] = {}
    names = at_level(study, factor, level)
    for name in names:
        for key, value in study.replicates({cell.name: study.value(cell, measure) for cell in study.of(name)}).items():
            sums.setdefault(key.removeprefix(f"{name}/"), []).append(value)
    return {key: sum(values) / len(values) for key, values in sums.items() if len(values) == len(names)}
