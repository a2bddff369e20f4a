"""What plots show: curves over nights, mean matrices, how attempts failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from eval.experiments.findings import Curve, Grid, Kind, Point
from eval.experiments.lived import Absent, Lived, counted
from eval.experiments.plan import Cell
from eval.experiments.study import Study
from eval.metrics.attempts import error_distribution, repeat_error_rate
from eval.metrics.continual import Measure
from eval.metrics.matrix import Missing
from memory.arms import Arm

At = Callable[[Lived, int], float]


def curves(study: Study, variant: str) -> list[Curve]:
    """By night, for each arm that was examined; and by nights since, for arms that train."""
    by_night: dict[Kind, At] = {
        "learning": lambda lived, night: fmean(attempt.resolved for attempt in lived.attempts(night)),
        "steps": lambda lived, night: fmean(attempt.steps for attempt in lived.attempts(night)),
        "repeated errors": _repeated,
    }
    found = []
    for arm in (arm for arm in study.arms if arm is not Arm.BASE):
        lives = [(cell, study.lived(cell, arm)) for cell in _lived(study, variant, arm)]
        if not lives:
            continue
        nights = range(max(lived.last for _, lived in lives) + 1)
        for kind, at in by_night.items():
            found.append(Curve(kind=kind, variant=variant, arm=arm, points=_points(study, lives, at, nights)))
        if arm.adapts:
            found.append(Curve(kind="retention", variant=variant, arm=arm, points=_points(study, lives, _since, nights)))
    return [curve for curve in found if curve.points]


def grids(study: Study, variant: str) -> tuple[list[Grid], str]:
    """Mean matrices of each arm that was examined, and why there are none: lives that learn other blocks at other times have no
    mean."""
    found = []
    for arm in (arm for arm in study.arms if arm is not Arm.BASE):
        lives = [study.lived(cell, arm) for cell in _lived(study, variant, arm)]
        if not lives:
            continue
        shape = (lives[0].blocks, lives[0].life.learnt, lives[0].last)
        if any((lived.blocks, lived.life.learnt, lived.last) != shape for lived in lives):
            return [], f"{variant}: its lives learn other blocks, or at other times; there is no mean matrix"
        found.append(_grid(variant, arm, lives))
    return found, ""


def errors(study: Study, variant: str) -> dict[str, int]:
    """How attempts of the skill arm (or of the first that was examined) failed in the last examination, commonest first."""
    arm = Arm.SKILL if Arm.SKILL in study.arms else study.arms[0]
    found: Counter[str] = Counter()
    for cell in _lived(study, variant, arm):
        try:
            found.update(error_distribution(study.lived(cell, arm).attempts()))
        except Absent:
            continue
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _lived(study: Study, variant: str, arm: Arm) -> list[Cell]:
    return [cell for cell in study.of(variant) if cell.name in study.lives and arm in cell.life.arms]


def _points(study: Study, lives: Sequence[tuple[Cell, Lived]], at: At, xs: Sequence[int]) -> tuple[Point, ...]:
    found = []
    for x in xs:
        values = {cell.name: _measure(lived, at, x) for cell, lived in lives}
        if (interval := study.interval(values)) is not None:
            found.append(Point(x=x, interval=interval))
    return tuple(found)


def _measure(lived: Lived, at: At, x: int) -> Measure:
    try:
        return Measure(at(lived, x), "")
    except Absent as absent:
        return Measure(None, str(absent))


def _since(lived: Lived, nights: int) -> float:
    found = [lived.rate(night + nights, block) for block, night in lived.learnt.items() if night + nights <= lived.last]
    if not found:
        raise Absent("no block was learnt so long ago")
    return fmean(found)


def _repeated(lived: Lived, night: int) -> float:
    return counted(repeat_error_rate, lived.attempts(night))


def _grid(variant: str, arm: Arm, lives: Sequence[Lived]) -> Grid:
    first, values, missing = lives[0], [], dict[str, str]()
    for night in range(first.last + 1):
        row: list[float | None] = []
        for block in first.blocks:
            cells = [lived.matrix.at(night, block) for lived in lives]
            found = [value for value in cells if not isinstance(value, Missing)]
            row.append(fmean(found) if found else None)
            if not found and isinstance(cells[0], Missing):
                missing[f"{night} {block}"] = cells[0].reason
        values.append(tuple(row))
    return Grid(
        variant=variant,
        arm=arm,
        columns=first.blocks,
        values=tuple(values),
        learnt=dict(first.matrix.learnt),
        missing=missing,
    )
