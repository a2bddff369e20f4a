"""Verdicts: the whole interval on the right side of a threshold is met, on the wrong side not met, else undecided."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from statistics import fmean

from eval.errors import EvalError
from eval.experiments.across import HOLDS, judge_across
from eval.experiments.findings import Interval, Judged, Placed, Verdict
from eval.experiments.measures import ACROSS, asked
from eval.experiments.plan import Cell, Criterion
from eval.experiments.study import Study, Values
from eval.metrics.continual import Measure

SPLIT = "design.split"
"""Where a size spreads over it, a criterion must hold in each split by itself."""
_ONE = {"lives": "life", "seeds": "seed"}
_ORDER: tuple[Verdict, ...] = ("not met", "not measured", "undecided", "met")


def judge(study: Study, criterion: Criterion) -> Judged:
    """The verdict on a criterion.

    Its `variant` is a name, a pattern (`*`, `size=*`: each must hold), or `best` (`best:MEASURE`: the best by another measure
    than its own). Patterns and `best` leave out references and what it is `against`. `against` is a variant, `@ARM` for
    another arm of the same lives, or `VARIANT@ARM`.

    Raises:
        EvalError: it names a variant or measure that does not exist.
    """
    head = criterion.measure.partition(":")[0].partition("@")[0]
    if head in ACROSS:
        return judge_across(study, criterion, matching(study, criterion))
    rule, _, by = criterion.variant.partition(":")
    if rule == "best":
        return _best(study, criterion, by)
    names = matching(study, criterion)
    found = [_one(study, criterion, name) for name in names]
    worst = min(found, key=lambda judged: _ORDER.index(judged.verdict))
    verdicts = [judged.verdict for judged in found]
    if len(found) == 1 or worst.verdict in ("not met", "met") or len(set(verdicts)) == 1:
        counted = f" ({verdicts.count('met')} of {len(found)} variants meet it)" if len(found) > 1 else ""
        return worst.model_copy(update={"why": worst.why + counted})
    why = f"{verdicts.count('met')} of {len(found)} variants meet it; {worst.variant}: {worst.why}"
    return worst.model_copy(update={"verdict": "undecided", "why": why})


def matching(study: Study, criterion: Criterion) -> list[str]:
    """The variants that a criterion is about.

    Raises:
        EvalError: there is none.
    """
    against = criterion.against.partition("@")[0]
    if criterion.variant in study.variants:
        return [criterion.variant]
    names = [name for name in study.candidates if name != against]
    found = names if criterion.variant.startswith("best") else [n for n in names if fnmatchcase(n, criterion.variant)]
    if not found:
        raise EvalError(f"{criterion.name}: no variant {criterion.variant!r}; there are {', '.join(study.variants)}")
    return found


def values_of(study: Study, criterion: Criterion, variant: str) -> dict[str, Measure]:
    """What a criterion compares with its threshold, by cell of a variant."""
    return {cell.name: _value(study, criterion, cell) for cell in study.of(variant)}


def _value(study: Study, criterion: Criterion, cell: Cell) -> Measure:
    mine = study.value(cell, criterion.measure)
    if mine.value is None or not criterion.against:
        return mine
    variant, _, arm = criterion.against.partition("@")
    if variant and variant not in study.variants:
        raise EvalError(f"{criterion.name}: no variant {variant!r} to compare with; there are {', '.join(study.variants)}")
    other = study.beside(cell, variant) if variant else cell
    if other is None:
        return Measure(None, f"{variant} has no cell with the same seed and place")
    theirs = study.value(other, criterion.measure.partition("@")[0] + f"@{arm}" if arm else criterion.measure)
    if theirs.value is None:
        return Measure(None, f"{criterion.against}: {theirs.why}")
    if criterion.compare == "difference":
        return Measure(mine.value - theirs.value, "")
    if theirs.value <= 0:
        return Measure(None, f"{criterion.against} has {theirs.value:g}: a ratio to it says nothing")
    return Measure(mine.value / theirs.value, "")


def _one(study: Study, criterion: Criterion, variant: str) -> Judged:
    values = values_of(study, criterion, variant)
    return _over_places(study, criterion, variant, values, study.of(variant), "")


def _best(study: Study, criterion: Criterion, by: str) -> Judged:
    """Leave one seed out: the variant that is best on all other seeds is judged on this one."""
    names = matching(study, criterion)
    higher = criterion.operator in (">=", ">")
    values = {name: values_of(study, criterion, name) for name in names}
    ranked = values
    if by:
        metric = asked(by).metric.better
        if metric == "none":
            raise EvalError(f"{criterion.name}: {by} has no better or worse to choose by")
        higher = metric == "higher"
        ranked = {name: {cell.name: study.value(cell, by) for cell in study.of(name)} for name in names}
    seeds = sorted({cell.seed for cell in study.cells})

    def best(among: Collection[int]) -> str | None:
        means = {}
        for name in names:
            found = [
                value for cell in study.of(name) if cell.seed in among and (value := ranked[name][cell.name].value) is not None
            ]
            if found:
                means[name] = fmean(found)
        return (max if higher else min)(means, key=lambda name: means[name]) if means else None

    overall = best(seeds)
    if overall is None:
        why = next((value.why for name in names for value in ranked[name].values()), "there are no cells")
        return Judged(criterion=criterion, verdict="not measured", value=None, variant="", why=why)
    if len(seeds) < 2:
        found = _one(study, criterion, overall)
        why = "with one seed the best would be judged on what it was chosen by"
        verdict: Verdict = "not measured" if found.value is None else "undecided"
        return found.model_copy(update={"verdict": verdict, "why": f"{why}; {found.why}", "places": ()})
    chosen = {seed: best([other for other in seeds if other != seed]) for seed in seeds}
    cells = [cell for cell in study.cells if cell.variant == chosen[cell.seed]]
    judged = {cell.name: values[cell.variant][cell.name] for cell in cells}
    told = "chosen on other seeds than judged on: " + ", ".join(
        f"{name or 'none'} for seed {seed}" for seed, name in chosen.items()
    )
    found = _over_places(study, criterion, overall, judged, cells, told)
    if None in chosen.values() and found.value is not None:
        why = f"{found.why}; where the other seeds have no value none could be chosen, so nothing is decided"
        return found.model_copy(update={"verdict": "undecided", "why": why})
    return found


def _over_places(
    study: Study, criterion: Criterion, variant: str, values: Values, cells: Collection[Cell], told: str
) -> Judged:
    verdict, value, why = _held(study, criterion, values)
    places: tuple[Placed, ...] = ()
    splits = list(dict.fromkeys(cell.place[SPLIT] for cell in cells if SPLIT in cell.place))
    if len(splits) > 1:
        for split in splits:
            names = [cell.name for cell in cells if cell.place[SPLIT] == split]
            one, its, reason = _held(study, criterion, {name: values[name] for name in names})
            places += (Placed(place=f"{SPLIT}={split}", verdict=one, value=its, why=reason),)
        verdicts = [place.verdict for place in places]
        worst = min(verdicts, key=_ORDER.index)
        verdict = worst if worst != "not measured" or len(set(verdicts)) == 1 else "undecided"
        why = f"{verdicts.count('met')} of {len(places)} splits meet it, and each must; over all of them {why}"
    return Judged(
        criterion=criterion,
        verdict=verdict,
        value=value,
        variant=variant,
        why="; ".join(part for part in (told, why) if part),
        places=places,
    )


def _held(study: Study, criterion: Criterion, values: Values) -> tuple[Verdict, Interval | None, str]:
    interval = study.interval(values, set(values))
    missing = {name: value.why for name, value in values.items() if value.value is None}
    if (least := _at_least(study, criterion, values)) is not None and missing:
        verdict, why = within(least, criterion)
        if verdict == "not met":
            told = f"{len(missing)} of {len(values)} lives count with the least that it can be ({next(iter(missing.values()))})"
            return verdict, least, f"{why}; {told}"
    if interval is None:
        return "not measured", None, next(iter(missing.values()), "there are no cells")
    verdict, why = within(interval, criterion)
    unlived = [name for name in missing if name not in study.lives]
    if without := [name for name in missing if name in study.lives]:
        # What has no value may have none because of what the claim is about: the others cannot speak for it.
        verdict = "undecided"
        why += f"; {len(without)} of {len(values)} lives have no value ({missing[without[0]]}), so nothing is decided"
    if unlived:
        why += f"; {len(unlived)} of {len(values)} cells have no life"
    return verdict, interval, why


def _at_least(study: Study, criterion: Criterion, values: Values) -> Interval | None:
    """The interval with the least that absent values can be in their place, where a threshold from above needs no more."""
    if criterion.against or criterion.operator in (">=", ">"):
        return None
    found = dict(values)
    for cell in study.cells:
        if cell.name in values and values[cell.name].value is None:
            if (least := study.at_least(cell, criterion.measure)) is None:
                return None
            found[cell.name] = Measure(least, "")
    return study.interval(found, set(found))


def within(interval: Interval, criterion: Criterion) -> tuple[Verdict, str]:
    """The verdict of an interval, and the sentence that says it."""
    holds, threshold = HOLDS[criterion.operator], f"{criterion.operator} {criterion.threshold:g}"
    if interval.low is None or interval.high is None:
        return "undecided", f"the only value is {_told(interval.mean)}: one {_ONE[interval.unit]} says nothing about chance"
    low, high = holds(interval.low, criterion.threshold), holds(interval.high, criterion.threshold)
    told = f"mean {_told(interval.mean)}, 95 % interval {_told(interval.low)} to {_told(interval.high)}"
    told += f" over {interval.n} {interval.unit}"
    if interval.low == interval.high:
        told += " (all are equal: their spread is not known)"
    if low and high:
        return "met", f"{told}: all of it {threshold}"
    if not low and not high:
        return "not met", f"{told}: none of it {threshold}"
    return "undecided", f"{told}: part of it {threshold}"


def _told(value: float) -> str:
    """Three digits, without what floating point leaves of a 0."""
    return f"{round(value, 12) + 0.0:.3g}"
