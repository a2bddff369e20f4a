"""From lives to findings: summaries, contrasts, verdicts, curves. Nothing here draws random numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from eval.errors import EvalError
from eval.experiments.contrasts import against_base, contrasts
from eval.experiments.curves import curves, errors, grids
from eval.experiments.findings import (
    AgainstBase,
    Analysis,
    Contrast,
    Curve,
    Grid,
    Interval,
    Judged,
    Levels,
    Placed,
    Point,
    Summary,
    Verdict,
)
from eval.experiments.judging import judge
from eval.experiments.levels import levels, numeric
from eval.experiments.life import Life
from eval.experiments.measures import ACROSS, MEASURES
from eval.experiments.plan import Cell, Experiment, SizeName
from eval.experiments.study import Study

if TYPE_CHECKING:
    from eval.statistics.anova import Anova

__all__ = [
    "AgainstBase",
    "Analysis",
    "Contrast",
    "Curve",
    "Grid",
    "Interval",
    "Judged",
    "Levels",
    "Placed",
    "Point",
    "Summary",
    "Verdict",
    "analyse",
]


def analyse(
    experiment: Experiment,
    size: SizeName,
    lives: Mapping[str, Life],
    cells: Sequence[Cell],
    failed: Mapping[str, str] | None = None,
    warnings: Sequence[str] = (),
) -> Analysis:
    """What was found: `lives` and `failed` (with the reason) are by the names of cells. A life with problems counts as failed.

    The primary measure's contrasts are what is claimed; those of the other registered measures are given beside them, and
    measures that were not registered are exploratory.

    Raises:
        EvalError: a life is of no cell, or the registration names a measure or variant that does not exist.
    """
    names = [cell.name for cell in cells]
    if strange := [name for name in lives if name not in names]:
        raise EvalError(f"{experiment.id}: the life of {strange[0]!r} is of none of its cells at size {size}")
    problems = {
        name: f"refused by the runner's own checks: {life.problems[0]}" for name, life in lives.items() if life.problems
    }
    reasons = {**(failed or {}), **problems}
    counted = {name: lives[name] for name in names if name in lives and name not in reasons}
    study = Study(experiment, size, tuple(cells), counted, reasons)
    registered = registered_measures(experiment)
    drawn = [(variant, *grids(study, variant)) for variant in study.variants]
    codes = sorted({life.code for life in counted.values()})
    loads = [life.load for life in counted.values()]
    return Analysis(
        experiment=experiment.id,
        title=experiment.title,
        hash=experiment.hash,
        size=size,
        variants=study.variants,
        cells=len(cells),
        done=len(counted),
        failed={name: reason for name, reason in reasons.items() if name in names},
        primary=experiment.primary,
        summaries=tuple(study.summary(variant, measure) for measure in registered for variant in study.variants),
        contrasts=tuple(contrast for measure in registered for contrast in contrasts(study, measure)),
        against_base=tuple(against_base(study, study.variants, study.arms)),
        judged=tuple(judge(study, criterion) for criterion in experiment.criteria),
        curves=tuple(curve for variant in study.variants for curve in curves(study, variant)),
        levels=tuple(levels(study, factor, experiment.primary)[0] for factor in numeric(study)),
        grids=tuple(grid for _, found, _ in drawn for grid in found),
        errors={variant: errors(study, variant) for variant in study.variants},
        variance=_variance(study),
        exploratory=_exploratory(study, registered),
        warnings=(*warnings, *_warnings(study, codes), *(why for *_, why in drawn if why)),
        seeds=tuple(sorted({cell.seed for cell in cells})),
        config_hashes=tuple(sorted({life.digest for life in counted.values()})),
        code_hashes=tuple(codes),
        models=tuple(sorted({life.model for life in counted.values()})),
        seconds=sum(life.seconds for life in counted.values()),
        load=fmean(loads) if loads else None,
    )


def registered_measures(experiment: Experiment) -> list[str]:
    """Measures of one life that a registration names: the primary first, then its list, then what its criteria need."""
    named = [experiment.primary, *experiment.measures]
    for criterion in experiment.criteria:
        arm = criterion.against.partition("@")[2]
        named += [criterion.measure, *([f"{criterion.measure.partition('@')[0]}@{arm}"] if arm else [])]
    heads = {name: name.partition(":")[0].partition("@")[0] for name in named}
    return [name for name, head in heads.items() if head not in ACROSS]


def _exploratory(study: Study, registered: Sequence[str]) -> tuple[Summary, ...]:
    """Every other measure of the skill arm that has a value."""
    others = [name for name in MEASURES if name not in registered]
    found = (study.summary(variant, measure) for measure in others for variant in study.variants)
    return tuple(summary for summary in found if summary.interval is not None)


def _variance(study: Study) -> Anova | None:
    spread = [setting for setting, places in study.experiment.sized(study.size).spread.items() if len(places) > 1]
    if len(spread) < 2 or len(study.candidates) != 1:
        return None
    from eval.statistics.anova import Run, two_way_anova

    first, second = spread[:2]
    runs = [
        Run(a=str(cell.place[first]), b=str(cell.place[second]), value=value)
        for cell in study.of(study.candidates[0])
        if (value := study.value(cell, study.experiment.primary).value) is not None
    ]
    return two_way_anova(runs, (first, second)) if runs else None


def _warnings(study: Study, codes: Sequence[str]) -> list[str]:
    found = []
    if missing := len(study.cells) - len(study.lives):
        failed = sum(cell.name in study.failed for cell in study.cells)
        found.append(
            f"{missing} of {len(study.cells)} cells have no life that counts ({failed} failed): what rests on them is undecided"
        )
    if study.unit != "lives" and (partial := _partial(study)):
        found.append(f"left out of all that compares, because they lack a place: {', '.join(partial)}")
    if len(codes) > 1:
        found.append(f"lives were lived by {len(codes)} versions of the code ({', '.join(codes)}): compare them with care")
    if len(models := {life.model for life in study.lives.values()}) > 1 and not _spreads(study, "model"):
        found.append(f"lives were lived by {len(models)} models, which no place or variant says: compare them with care")
    seeds = {cell.seed for cell in study.cells if cell.name in study.lives}
    if 0 < len(seeds) < 5:
        found.append(
            f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}: intervals are wide, and small effects are not seen"
        )
    return found


def _partial(study: Study) -> list[str]:
    """Replicates of variants that have lives in some of their places only."""
    lived: dict[str, set[bool]] = {}
    for cell in study.cells:
        lived.setdefault(f"{study.replicate(cell)} of {cell.variant}", set()).add(cell.name in study.lives)
    return [name for name, found in lived.items() if len(found) > 1]


def _spreads(study: Study, setting: str) -> bool:
    settings = {path for cell in study.cells for path in cell.place}
    settings |= {path for variant in study.experiment.variants(study.size) for path in variant.settings}
    return any(path == setting or path.startswith(f"{setting}.") for path in settings)
