"""Variants beside each other in the same seed and place, and arms beside the base on the same tasks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from eval.experiments.findings import AgainstBase, Contrast
from eval.experiments.lived import Absent
from eval.experiments.plan import Cell
from eval.experiments.study import Study, student
from eval.metrics.continual import Measure
from eval.statistics.corrections import holm
from eval.statistics.lives import compare_lives
from eval.statistics.paired import paired_t
from memory.arms import Arm


def contrasts(study: Study, measure: str, pairs: Iterable[tuple[str, str]] | None = None) -> list[Contrast]:
    """Differences of pairs (variant, against): every variant with each baseline, unless others are given. p is of a paired t
    over replicates, adjusted by Holm over the pairs."""
    if pairs is None:
        pairs = [(name, other) for other in study.baselines for name in study.variants if name not in study.baselines[:1]]
        pairs = [(name, other) for name, other in pairs if name != other]
    found = [_contrast(study, measure, name, other) for name, other in pairs]
    adjusted = holm({str(place): contrast.tested.p for place, contrast in enumerate(found)})
    return [one.model_copy(update={"p_adjusted": adjusted[str(place)]}) for place, one in enumerate(found)]


def all_pairs(study: Study, measure: str) -> list[Contrast]:
    """Each two candidates."""
    return contrasts(study, measure, [(b, a) for a, b in itertools.combinations(study.candidates, 2)])


def _contrast(study: Study, measure: str, variant: str, against: str) -> Contrast:
    both = study.minus(variant, against, measure)
    cells = {cell.name for cell in study.of(variant)}
    sides = [
        study.replicates({name: Measure(both[name][side], "") if name in both else Measure(None, "no pair") for name in cells})
        for side in (0, 1)
    ]
    (unit, theirs), (_, mine) = sides
    differences = [mine[key] - theirs[key] for key in theirs]
    return Contrast(
        variant=variant,
        against=against,
        measure=measure,
        difference=student(differences, unit) if differences else None,
        tested=paired_t(list(theirs.values()), [mine[key] for key in theirs]),
    )


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
    by_seed = len({cell.seed for cell in cells}) > 1
    for cell in cells:
        groups.setdefault(str(cell.seed) if by_seed else cell.name, []).append(cell)
    base: list[dict[str, bool]] = []
    candidate: list[dict[str, bool]] = []
    for group in groups.values():
        base.append({})
        candidate.append({})
        for cell in group:
            place = "/".join(map(str, cell.place.values())) + "/" if len(group) > 1 else ""
            base[-1] |= _outcomes(study, cell, Arm.BASE, never, place)
            candidate[-1] |= _outcomes(study, cell, arm, never, place)
    return AgainstBase(
        variant=variant, arm=arm, blocks="never learnt" if never else "all", compared=compare_lives(base, candidate)
    )


def _outcomes(study: Study, cell: Cell, arm: Arm, never: bool, place: str) -> dict[str, bool]:
    """Task to whether it was resolved after the last night; nothing if it was not examined. Where a cluster has several places,
    `place` tells attempts at one task apart; otherwise lives share the task, and the test knows it."""
    lived = study.lived(cell, arm)
    try:
        found = lived.attempts(0 if arm is Arm.BASE else None, lived.never if never else None)
    except Absent:
        return {}
    return {f"{place}{attempt.task_id}": attempt.resolved for attempt in found}
