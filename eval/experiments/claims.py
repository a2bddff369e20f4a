"""Whether what a registration claims can be judged at all: asked before anything is locked or lived."""

from __future__ import annotations

from eval.errors import EvalError
from eval.experiments.judging import matching
from eval.experiments.levels import numeric
from eval.experiments.measures import ACROSS, asked, check_measure
from eval.experiments.plan import Criterion, Experiment, SizeName
from eval.experiments.study import Study
from memory.arms import Arm

OTHERS = "others"
"""What a criterion may be `against` besides variants and arms: the best of the other candidates."""


def check_claims(experiment: Experiment, size: SizeName) -> None:
    """Whether its measures exist, and the variants, arms and factors that its criteria name.

    Raises:
        EvalError: one does not, or a setting is wrong; the text names it.
    """
    study = Study(experiment, size, tuple(experiment.cells(size, 1)), {}, {})
    for place, name in (("primary", experiment.primary), *(("measures", name) for name in experiment.measures)):
        try:
            _examined(study, asked(name).arm)
        except EvalError as error:
            raise EvalError(f"{experiment.id}, {place}: {error}; correct its registration") from error
    for criterion in experiment.criteria:
        try:
            _check(study, criterion)
        except EvalError as error:
            raise EvalError(f"{experiment.id}, criterion {criterion.name!r}: {error}; correct its registration") from error


def _check(study: Study, criterion: Criterion) -> None:
    check_measure(criterion.measure)
    head, _, rest = criterion.measure.partition(":")
    if head == "knee":
        names, factor = [one.name for one in numeric(study)], rest.partition("/")[2]
        if not names or factor not in ("", *names):
            raise EvalError(f"no numeric factor {factor!r}; there are {', '.join(names) or 'none'}")
    elif head.partition("@")[0] == "p_value":
        _examined(study, Arm(head.partition("@")[2] or Arm.SKILL))
    elif head not in ACROSS:
        _examined(study, asked(criterion.measure).arm)
    rule, _, by = criterion.variant.partition(":")
    if by and rule == "best" and asked(by).metric.better == "none":
        raise EvalError(f"{by} has no better or worse to choose the best by")
    for name in criterion.without:
        _known(study, name)
    against, _, arm = criterion.against.partition("@")
    if against not in ("", OTHERS):
        _known(study, against)
    if arm:
        _examined(study, asked(f"{criterion.measure.partition('@')[0]}@{arm}").arm)
    names = matching(study, criterion)
    if against == OTHERS and not {*study.candidates} - {*criterion.without} - {*(names if len(names) == 1 else ())}:
        raise EvalError("there are no others to be compared with")


def _known(study: Study, variant: str) -> None:
    if variant not in study.variants:
        raise EvalError(f"no variant {variant!r}; there are {', '.join(study.variants)}")


def _examined(study: Study, arm: Arm) -> None:
    if arm not in study.arms:
        raise EvalError(f"arm {arm} is never examined; there are {', '.join(study.arms)}")
