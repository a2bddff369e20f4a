"""Verdicts: the whole interval on the right side of a threshold is met, on the wrong side not met, else undecided.

Nothing is decided where a cell that a criterion looks at has no life that counts. Student's interval of replicates that are all
equal has no width: shares of tasks get a binomial bound (`Study.widened`), of other units nothing is decided. A p is met or not
met by itself (`eval.experiments.across`).
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from statistics import fmean

from eval.errors import EvalError
from eval.experiments.across import HOLDS, judge_across, of_all
from eval.experiments.findings import Interval, Judged, Placed, Verdict
from eval.experiments.measures import ACROSS, asked
from eval.experiments.plan import Cell, Criterion
from eval.experiments.study import Study, Values
from eval.metrics.continual import Measure

SPLIT = "design.split"
"""Where a size spreads over it, a criterion must hold in each split by itself."""
OTHERS = "others"
"""What a criterion is `against` where it is the best of the other candidates."""
_ONE = {"lives": "life", "seeds": "seed", "repositories": "repository"}
_ORDER: tuple[Verdict, ...] = ("not met", "not measured", "undecided", "met")


def judge(study: Study, criterion: Criterion) -> Judged:
    """The verdict on a criterion; what its `variant`, `against` and `without` can say is told by `Criterion`.

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
        EvalError: there is none, or `without` names another.
    """
    if unknown := [name for name in criterion.without if name not in study.variants]:
        raise EvalError(f"{criterion.name}: no variant {unknown[0]!r} to leave out; there are {', '.join(study.variants)}")
    if criterion.variant in study.variants:
        return [criterion.variant]
    left_out = {criterion.against.partition("@")[0], *criterion.without}
    names = [name for name in study.candidates if name not in left_out]
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
    theirs = _theirs(study, criterion, cell)
    if theirs.value is None:
        return Measure(None, f"against {theirs.why}")
    if criterion.compare == "difference":
        return Measure(mine.value - theirs.value, "")
    if theirs.value <= 0:
        return Measure(None, f"{criterion.against} has {theirs.value:g}: a ratio to it says nothing")
    return Measure(mine.value / theirs.value, "")


def _theirs(study: Study, criterion: Criterion, cell: Cell) -> Measure:
    """What a cell is compared with: of several, that which makes the claim hardest."""
    _, _, arm = criterion.against.partition("@")
    measure = criterion.measure.partition("@")[0] + f"@{arm}" if arm else criterion.measure
    found = []
    for name in _against(study, criterion, cell.variant):
        other = study.beside(cell, name)
        theirs = study.value(other, measure) if other else Measure(None, "no cell with the same seed and place")
        if theirs.value is None:
            return Measure(None, f"{name}: {theirs.why}")
        found.append(theirs.value)
    if not found:
        return Measure(None, "there is no other variant")
    return Measure((max if criterion.operator in (">=", ">") else min)(found))


def _against(study: Study, criterion: Criterion, variant: str) -> list[str]:
    """The variants that one is compared with."""
    name = criterion.against.partition("@")[0]
    if name == OTHERS:
        return [other for other in study.candidates if other not in (variant, *criterion.without)]
    if name and name not in study.variants:
        raise EvalError(f"{criterion.name}: no variant {name!r} to compare with; there are {', '.join(study.variants)}")
    return [name or variant] if criterion.against else []


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
            if found := study.replicates(ranked[name], {cell.name for cell in study.of(name) if cell.seed in among}):
                means[name] = fmean(found.values())
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
    return of_all(study, found, {*names, *(other for name in names for other in _against(study, criterion, name))})


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
    if missing and (least := _at_least(study, criterion, values)) is not None:
        verdict, least, why = _decided(study, criterion, least, values)
        if not HOLDS[criterion.operator](least.mean, criterion.threshold) and (verdict == "not met" or least.flat):
            told = f"{len(missing)} of {len(values)} lives count with the least that it can be ({next(iter(missing.values()))})"
            return verdict, least, f"{why}; {told}"
    if interval is None:
        return "not measured", None, next(iter(missing.values()), "there are no cells")
    verdict, interval, why = _decided(study, criterion, interval, values)
    unlived = [name for name in missing if name not in study.lives]
    if without := [name for name in missing if name in study.lives]:
        why += f"; {len(without)} of {len(values)} lives have no value ({missing[without[0]]})"
    if unlived:
        why += f"; {len(unlived)} of {len(values)} cells have no life that counts ({missing[unlived[0]]})"
    if missing:
        # What has no value may have none because of what the claim is about: the others cannot speak for it.
        return "undecided", interval, f"{why}, so nothing is decided"
    return verdict, interval, why


def _decided(study: Study, criterion: Criterion, interval: Interval, values: Values) -> tuple[Verdict, Interval, str]:
    """The verdict of an interval, and what it was judged by."""
    if not interval.flat:
        verdict, why = within(interval, criterion)
        return verdict, interval, why
    ratio = criterion.against and criterion.compare == "ratio"
    if ratio or (wide := study.widened(interval, criterion.measure, set(values))) is None:
        told = (
            f"all {interval.n} {interval.unit} are at {_told(interval.mean)}: their spread is not known, so nothing is decided"
        )
        return "undecided", interval, told
    verdict, why = within(wide[0], criterion)
    return verdict, wide[0], f"{why}; {wide[1]}"


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
    if low and high:
        return "met", f"{told}: all of it {threshold}"
    if not low and not high:
        return "not met", f"{told}: none of it {threshold}"
    return "undecided", f"{told}: part of it {threshold}"


def _told(value: float) -> str:
    """Three digits, without what floating point leaves of a 0."""
    return f"{round(value, 12) + 0.0:.3g}"
