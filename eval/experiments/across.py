"""Criteria on all lives together: a p, or the knee of a curve."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from eval.experiments.contrasts import against_base, all_pairs
from eval.experiments.findings import Interval, Judged
from eval.experiments.levels import knee
from eval.experiments.plan import Criterion
from eval.experiments.study import Study
from memory.arms import Arm

HOLDS = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


def judge_across(study: Study, criterion: Criterion, variants: Sequence[str]) -> Judged:
    """The verdict on `knee`, `p_value` or `p_variants`; `variants` are those that the criterion is about."""
    head, _, rest = criterion.measure.partition(":")
    if head == "knee":
        return _knee(study, criterion, rest)
    if head == "p_variants":
        return _between_variants(study, criterion, rest or study.experiment.primary)
    return _against_base(study, criterion, Arm(head.partition("@")[2] or "skill"), variants)


def _knee(study: Study, criterion: Criterion, rest: str) -> Judged:
    measure, _, factor = rest.partition("/")
    value, why = knee(study, measure or study.experiment.primary, factor)
    if value is None:
        verdict = "not met" if study.lives else "not measured"
        return Judged.model_validate({"criterion": criterion, "verdict": verdict, "value": None, "variant": "", "why": why})
    least, most = value.low or value.mean, value.high or value.mean
    ends = [HOLDS[criterion.operator](end, criterion.threshold) for end in (least, most)]
    verdict = "met" if all(ends) else "undecided" if any(ends) else "not met"
    why = f"the mean curve bends at {value.mean:g}; those of the replicates between {least:g} and {most:g}"
    return Judged.model_validate({"criterion": criterion, "verdict": verdict, "value": value, "variant": "", "why": why})


def _against_base(study: Study, criterion: Criterion, arm: Arm, variants: Sequence[str]) -> Judged:
    found = against_base(study, variants, [arm])
    known = [one for one in found if one.p_adjusted is not None]
    if len(known) < len(found) or not known:
        why = next((one.compared.tested.why for one in found if one.p_adjusted is None), f"arm {arm} was not examined")
        return Judged(criterion=criterion, verdict="not measured", value=None, variant="", why=why)
    worst = max(known, key=lambda one: one.p_adjusted or 0.0)
    p, difference = worst.p_adjusted or 0.0, worst.compared.difference or 0.0
    holds = HOLDS[criterion.operator](p, criterion.threshold)
    told = f"arm {arm} minus base on the same tasks ({worst.blocks} blocks): {difference:+.3f}, p = {p:.3g}"
    told += f" ({worst.compared.tested.test}, {worst.compared.lives} clusters)"
    backwards = [one for one in known if (one.compared.difference or 0.0) <= 0]
    if holds and backwards and criterion.operator in ("<", "<="):
        holds, told = False, f"{told}; {backwards[0].variant} is not better than the base"
    return Judged(
        criterion=criterion,
        verdict="met" if holds else "not met",
        value=Interval(mean=p, n=worst.compared.lives),
        variant=worst.variant,
        why=told + (f"; adjusted by Holm over {len(found)} variants" if len(found) > 1 else ""),
    )


def _between_variants(study: Study, criterion: Criterion, measure: str) -> Judged:
    pairs = all_pairs(study, measure)
    known = [pair for pair in pairs if pair.p_adjusted is not None]
    if not known:
        why = next((pair.tested.why for pair in pairs), "there are not two variants")
        return Judged(criterion=criterion, verdict="not measured", value=None, variant="", why=why)
    least = min(known, key=lambda pair: pair.p_adjusted or 0.0)
    p = least.p_adjusted or 0.0
    why = f"of {len(pairs)} pairs in {measure}, {least.variant} and {least.against} differ most clearly"
    why += f": p = {p:.3g} after Holm" + (f" ({least.tested.p:.3g} before)" if least.tested.p is not None else "")
    return Judged(
        criterion=criterion,
        verdict="met" if HOLDS[criterion.operator](p, criterion.threshold) else "not met",
        value=Interval(mean=p, n=least.tested.n),
        variant=f"{least.variant} / {least.against}",
        why=why,
    )
