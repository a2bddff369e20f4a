"""Variants beside each other in the same seed and place, and arms beside the base on the same tasks."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence

from eval.experiments.findings import AgainstBase, Contrast
from eval.experiments.lived import Absent
from eval.experiments.plan import Cell
from eval.experiments.study import Study, student
from eval.metrics.continual import Measure
from eval.statistics.corrections import holm
from eval.statistics.lives import compare_lives
from eval.statistics.paired import paired_t, wilcoxon
from eval.statistics.tested import Tested
from memory.arms import Arm

RANKED = 6
"""From so many replicates on, Wilcoxon's signed ranks can show 5 % (with 5 the smallest two-sided p is 1/16)."""


def contrasts(study: Study, measure: str, pairs: Iterable[tuple[str, str]] | None = None) -> list[Contrast]:
    """Differences of pairs (variant, against): every variant with each baseline, unless others are given. p is of a paired t
    over replicates, adjusted by Holm over the pairs."""
    if pairs is None:
        pairs = [(name, other) for other in study.baselines for name in study.variants if name not in study.baselines[:1]]
        pairs = [(name, other) for name, other in pairs if name != other]
    found = [_contrast(study, measure, name, other) for name, other in pairs]
    adjusted = holm({str(place): contrast.tested.p for place, contrast in enumerate(found)})
    return [one.model_copy(update={"p_adjusted": adjusted[str(place)]}) for place, one in enumerate(found)]


def all_pairs(study: Study, measure: str, variants: Sequence[str] | None = None) -> list[Contrast]:
    """Each two candidates, or of some variants."""
    names = study.candidates if variants is None else variants
    return contrasts(study, measure, [(b, a) for a, b in itertools.combinations(names, 2)])


def _contrast(study: Study, measure: str, variant: str, against: str) -> Contrast:
    both = study.minus(variant, against, measure)
    theirs, mine = (
        study.replicates(
            {name: Measure(values[side]) for name, values in both.items()}, {cell.name for cell in study.of(variant)}
        )
        for side in (0, 1)
    )
    differences = [mine[key] - theirs[key] for key in theirs]
    return Contrast(
        variant=variant,
        against=against,
        measure=measure,
        difference=student(differences, study.unit) if differences else None,
        tested=paired_t(list(theirs.values()), [mine[key] for key in theirs]),
        wilcoxon=_ranked(differences),
        left_out=_left_out(study, variant, theirs),
    )


def _ranked(differences: Sequence[float]) -> Tested | None:
    return wilcoxon([0.0] * len(differences), differences) if len(differences) >= RANKED else None


def _left_out(study: Study, variant: str, kept: Collection[str]) -> tuple[str, ...]:
    found = dict.fromkeys(study.replicate(cell) for cell in study.of(variant))
    return tuple(replicate for replicate in found if replicate not in kept)


def against_base(study: Study, variants: Sequence[str], arms: Sequence[Arm]) -> list[AgainstBase]:
    """Arms against the base after the last night, adjusted by Holm over all that are asked for."""
    found = []
    for variant in variants:
        for arm in arms:
            if arm is not Arm.BASE and any(arm in cell.life.arms for cell in study.of(variant)):
                found.append(_against_base(study, variant, arm))
    adjusted = holm({str(place): one.compared.tested.p for place, one in enumerate(found)})
    return [one.model_copy(update={"p_adjusted": adjusted[str(place)]}) for place, one in enumerate(found)]


def _against_base(study: Study, variant: str, arm: Arm) -> AgainstBase:
    cells = [cell for cell in study.of(variant) if cell.name in study.lives]
    never = bool(cells) and all(study.lived(cell, arm).never for cell in cells)
    groups: dict[str, list[Cell]] = {}
    for cell in study.of(variant):
        groups.setdefault(study.replicate(cell), []).append(cell)
    found: dict[str, tuple[dict[str, bool], dict[str, bool]]] = {}
    for replicate, group in groups.items():
        both: tuple[dict[str, bool], dict[str, bool]] = ({}, {})
        for cell in group:
            place = "/".join(map(str, cell.place.values())) + "/" if len(group) > 1 else ""
            base, candidate = (_outcomes(study, cell, each, never, place) for each in (Arm.BASE, arm))
            if not base or not candidate:
                break
            both[0].update(base)
            both[1].update(candidate)
        else:
            found[replicate] = both
    compared = compare_lives([base for base, _ in found.values()], [candidate for _, candidate in found.values()])
    return AgainstBase(
        variant=variant,
        arm=arm,
        blocks="never learnt" if never else "all",
        compared=compared,
        wilcoxon=_ranked(compared.per_life),
        left_out=_left_out(study, variant, found),
    )


def _outcomes(study: Study, cell: Cell, arm: Arm, never: bool, place: str) -> dict[str, bool]:
    """Task to whether it was resolved after the last night; nothing if it was not lived or not examined. Where a cluster has
    several places, `place` tells attempts at one task apart; otherwise lives share the task, and the test knows it."""
    if cell.name not in study.lives:
        return {}
    lived = study.lived(cell, arm)
    try:
        found = lived.attempts(0 if arm is Arm.BASE else None, lived.never if never else None)
    except Absent:
        return {}
    return {f"{place}{attempt.task_id}": attempt.resolved for attempt in found}
