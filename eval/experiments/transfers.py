"""Measures of a life from its matrix: what was learnt, kept and carried over. Each raises `Absent` where it has no value."""

from __future__ import annotations

from statistics import fmean

from eval.experiments.life import DriftDesign
from eval.experiments.lived import Absent, Lived, value_of
from eval.metrics import continual
from memory.arms import Arm

BEFORE, AFTER = "before", "after"


def acc(lived: Lived) -> float:
    """Mean rate over all blocks after the last night (ACC)."""
    return value_of(continual.acc(lived.matrix))


def gain(lived: Lived) -> float:
    """Learnt blocks right after their night, minus before any."""
    return fmean(lived.rate(night, block) - lived.rate(0, block) for block, night in lived.learnt.items())


def final_gain(lived: Lived) -> float:
    """Learnt blocks after the last night, minus before any."""
    return fmean(lived.rate(lived.last, block) - lived.rate(0, block) for block in lived.learnt)


def forward_transfer(lived: Lived) -> float:
    """Never-learnt blocks after the last night, minus before any; where every block was learnt, each right before its night,
    minus before any (the paper's FT; blocks of the first night have no night before)."""
    of = continual.forward_transfer_unlearnt if lived.never else continual.forward_transfer
    return value_of(of(lived.matrix))


def forgetting(lived: Lived) -> float:
    """Mean over the blocks learnt before the last night of the best rate in any row from their own night on, minus that after
    the last night (Chaudhry et al. 2018, raw)."""
    return value_of(continual.forgetting_chaudhry(lived.matrix))


def forgetting_net(lived: Lived) -> float:
    """Forgetting minus that of the frozen control: what a maximum over noise would show by itself is taken away."""
    return forgetting(lived) - forgetting(lived.of(Arm.FROZEN))


def forgotten(lived: Lived) -> float:
    """Share of the tasks of learnt blocks that any earlier row resolved, row 0 included, and the last does not: forgetting with
    single tasks as columns (SWE-Bench-CL, section 7), of which only losses are counted."""
    if not lived.last:
        raise Absent("there was no night")
    earlier: set[str] = set()
    for night in range(lived.last):
        if rows := lived.rows(night):
            earlier |= {attempt.task_id for block, attempt in rows if block in lived.learnt and attempt.resolved}
    after = lived.attempts(blocks=lived.learnt)
    return fmean(attempt.task_id in earlier and not attempt.resolved for attempt in after)


def forgotten_net(lived: Lived) -> float:
    """The share forgotten minus that of the frozen control, which forgets by chance alone."""
    return forgotten(lived) - forgotten(lived.of(Arm.FROZEN))


def backward_transfer(lived: Lived) -> float:
    """Blocks learnt before the last night: after the last night, minus right after their own (BWT)."""
    return value_of(continual.backward_transfer(lived.matrix))


def aulc(lived: Lived) -> float:
    """Area under the learning curve of learnt blocks (AULC)."""
    return value_of(continual.aulc(lived.matrix))


def plasticity(lived: Lived) -> float:
    """Mean rate on learnt blocks right after their night (CL-P)."""
    return value_of(continual.plasticity(lived.matrix))


def stability(lived: Lived) -> float:
    """1 minus the paper's forgetting (CL-S), which has no row 0."""
    return value_of(continual.stability(lived.matrix))


def clf_beta(lived: Lived) -> float:
    """Harmonic mean of plasticity and stability (CL-F1)."""
    return value_of(continual.clf_beta(lived.matrix))


def cl_score(lived: Lived) -> float:
    """CL-Score, all weights 1."""
    return value_of(continual.cl_score(lived.matrix))


def retention(lived: Lived) -> float:
    """Share of a block's gain right after its night that is left after the last one, mean over the blocks that the last night
    did not teach. Blocks that gained nothing are left out; over 1 means that more was gained later."""
    return fmean(_kept(lived))


def retention_worst(lived: Lived) -> float:
    """Least share of a block's gain right after its night that is left after the last one, over the blocks that the last night
    did not teach, and at most 1. Blocks that gained nothing are left out."""
    return min(1.0, *_kept(lived))


def retention_rate(lived: Lived) -> float:
    """Mean rate on learnt blocks after the last night."""
    return fmean(lived.rate(lived.last, block) for block in lived.learnt)


def retention_min(lived: Lived) -> float:
    """Rate on the worst of the learnt blocks after the last night."""
    return min(lived.rate(lived.last, block) for block in lived.learnt)


def base_skills(lived: Lived) -> float:
    """The base's own skills after the last night, minus the base's at the same tasks."""
    after, before = lived.skills(lived.last), lived.of(Arm.BASE).skills(0)
    both = [task for task in before if task in after]
    if not both:
        raise Absent(f"arm {lived.arm} and the base were examined on different skills")
    return fmean(after[task] - before[task] for task in both)


def stale_change(lived: Lived) -> float:
    """Drift: the changed repository under the adapter of the old one, minus under the base."""
    drifting(lived)
    return lived.rate(1, AFTER) - lived.rate(0, AFTER)


def recovered(lived: Lived) -> float:
    """Drift: the changed repository after the last night, minus the old one right after it was learnt."""
    drifting(lived)
    return lived.rate(lived.last, AFTER) - lived.rate(1, BEFORE)


def recovery_sessions(lived: Lived) -> float:
    """Drift: sessions of the changed repository until it goes as well as the old one did right after it was learnt; 0 is at
    once, and there is no value if it does not within those that were lived."""
    drifting(lived)
    design = lived.config.design if lived.config else None
    if not isinstance(design, DriftDesign):
        raise Absent("the configuration of the life is not given: sessions between nights are not known")
    sessions = (0, *design.recovery)
    for lived_through, night in zip(sessions, range(1, lived.last + 1), strict=False):
        if lived.rate(night, AFTER) >= lived.rate(1, BEFORE):
            return lived_through
    most = sessions[min(lived.last, len(sessions)) - 1]
    raise Absent(f"not recovered within {most} sessions", at_least=most)


def _kept(lived: Lived) -> list[float]:
    if not lived.earlier:
        raise Absent("no block was learnt before the last night: there is nothing to keep yet")
    found = []
    for block, night in lived.earlier.items():
        before = lived.rate(0, block)
        if (gained := lived.rate(night, block) - before) > 0:
            found.append((lived.rate(lived.last, block) - before) / gained)
    if not found:
        raise Absent("no block learnt before the last night had gained anything right after its own: nothing could be retained")
    return found


def drifting(lived: Lived) -> None:
    """See that a life has a drift.

    Raises:
        Absent: it has none.
    """
    if not {BEFORE, AFTER} <= set(lived.blocks):
        raise Absent("the life has no drift: no blocks `before` and `after`")
    if not lived.last:
        raise Absent("there was no night")
