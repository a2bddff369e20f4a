"""Criteria on all lives together: a p, which is above or below the threshold by itself, or the knee of a curve."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence

from eval.experiments.contrasts import against_base, all_pairs
from eval.experiments.findings import Interval, Judged, Verdict
from eval.experiments.levels import along, knee, named
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
        judged = _between_variants(study, criterion, rest or study.experiment.primary, variants)
    else:
        judged = _against_base(study, criterion, Arm(head.partition("@")[2] or "skill"), variants)
    return of_all(study, judged, variants)


def of_all(study: Study, judged: Judged, variants: Collection[str]) -> Judged:
    """Undecided in place of met or not met where a cell of the variants that were looked at has no life that counts."""
    missing = study.unlived(variants)
    if not missing or judged.verdict not in ("met", "not met"):
        return judged
    return judged.model_copy(update={"verdict": "undecided", "why": f"{judged.why}; {missing}"})


def _knee(study: Study, criterion: Criterion, rest: str) -> Judged:
    """Replicates whose curves all bend at one level agree; that the curve rises at all was tested before."""
    measure, _, factor = rest.partition("/")
    value, why = knee(study, measure or study.experiment.primary, factor)
    if value is None:
        verdict: Verdict = "not met" if study.lives else "not measured"
    else:
        least, most = (value.mean if end is None else end for end in (value.low, value.high))
        ends = [HOLDS[criterion.operator](end, criterion.threshold) for end in (least, most)]
        verdict = "met" if all(ends) else "undecided" if any(ends) else "not met"
        why = f"the mean curve bends at {value.mean:g}; those of the replicates between {least:g} and {most:g}"
    judged = Judged(criterion=criterion, verdict=verdict, value=value, variant="", why=why)
    return of_all(study, judged, along(study, named(study, factor)))


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


def _between_variants(study: Study, criterion: Criterion, measure: str, variants: Sequence[str]) -> Judged:
    pairs = all_pairs(study, measure, variants)
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
