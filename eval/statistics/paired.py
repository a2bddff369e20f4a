"""Tests of paired measurements: the same tasks, lives or seeds under base and candidate. All are two-sided.

None knows that tasks of one life depend on each other; over several lives use `eval.statistics.lives`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from eval.errors import EvalError
from eval.statistics.tested import Tested, deviation, differences, is_flat


def paired_t(base: Sequence[float], candidate: Sequence[float]) -> Tested:
    """Student's t of the differences (Student 1908), df = n - 1; the effect is Cohen's d_z.

    Raises:
        EvalError: the two are not paired, or hold something that is no finite number.
    """
    found, name = differences(base, candidate), "paired t"
    if degenerate := _degenerate(found, name, "d_z", 2):
        return degenerate
    if is_flat(found):
        why = f"every pair differs by {found[0]:g}: without spread there is no t"
        return Tested(test=name, n=len(found), effect_name="d_z", why=why)
    from scipy.special import stdtr

    effect = fmean(found) / deviation(found)
    statistic = effect * math.sqrt(len(found))
    p = min(2 * float(stdtr(len(found) - 1, -abs(statistic))), 1.0)
    return Tested(test=name, statistic=statistic, p=p, n=len(found), effect=effect, effect_name="d_z")


def wilcoxon(base: Sequence[float], candidate: Sequence[float]) -> Tested:
    """Wilcoxon's signed ranks (Wilcoxon 1945): zero differences are left out; exact for few pairs, corrected for ties.

    The statistic is the smaller of the two sums of ranks. The effect is the matched-pairs rank-biserial correlation,
    (W+ - W-) / (W+ + W-) (Kerby 2014): 1 if every difference is positive.

    Raises:
        EvalError: the two are not paired, or hold something that is no finite number.
    """
    found, name = differences(base, candidate), "Wilcoxon signed-rank"
    if degenerate := _degenerate(found, name, "rank-biserial", 1):
        return degenerate
    from scipy.stats import rankdata
    from scipy.stats import wilcoxon as signed_rank

    moved = [value for value in found if value != 0]
    ranks = rankdata([abs(value) for value in moved])
    above = sum(float(rank) for rank, value in zip(ranks, moved, strict=True) if value > 0)
    total = len(moved) * (len(moved) + 1) / 2
    result = signed_rank(moved)
    return Tested(
        test=name,
        statistic=float(result.statistic),
        p=min(float(result.pvalue), 1.0),
        n=len(found),
        effect=2 * above / total - 1,
        effect_name="rank-biserial",
    )


def sign_test(base: Sequence[float], candidate: Sequence[float]) -> Tested:
    """Exact binomial test of the signs, without zero differences (Conover 1999, section 3.4).

    The statistic is how many differences are positive, the effect their share of those that are not zero.

    Raises:
        EvalError: the two are not paired, or hold something that is no finite number.
    """
    found, name = differences(base, candidate), "sign"
    if degenerate := _degenerate(found, name, "share positive", 1):
        return degenerate.model_copy(update={"effect": None})
    from scipy.stats import binomtest

    above, moved = sum(value > 0 for value in found), sum(value != 0 for value in found)
    p = min(float(binomtest(above, moved).pvalue), 1.0)
    return Tested(test=name, statistic=float(above), p=p, n=len(found), effect=above / moved, effect_name="share positive")


def mcnemar(base: Sequence[bool], candidate: Sequence[bool], mid_p: bool = True) -> Tested:
    """McNemar's test of paired outcomes, exact (binomial) or mid-p (Fagerland, Lydersen & Laake 2013, formulas 4 and 5).

    The statistic is the smaller number of discordant pairs, the effect the difference of the two shares.

    Raises:
        EvalError: the two are not of one length.
    """
    if len(base) != len(candidate):
        raise EvalError(f"{len(base)} outcomes of base and {len(candidate)} of candidate: they must be paired one to one")
    pairs = list(zip(base, candidate, strict=True))
    return mcnemar_of(sum(b and not a for a, b in pairs), sum(a and not b for a, b in pairs), len(pairs), mid_p)


def mcnemar_of(gained: int, lost: int, pairs: int, mid_p: bool = True) -> Tested:
    """McNemar's test, from the counts of pairs that only the candidate and that only the base resolved."""
    name, effect_name = f"McNemar {'mid-p' if mid_p else 'exact'}", "difference of shares"
    if pairs == 0:
        return Tested(test=name, n=0, effect_name=effect_name, why="there are no pairs")
    if gained + lost == 0:
        why = "no pair is discordant"
        return Tested(test=name, statistic=0.0, p=1.0, n=pairs, effect=0.0, effect_name=effect_name, why=why)
    from scipy.special import bdtr

    fewer, moved = min(gained, lost), gained + lost
    p = 2 * float(bdtr(fewer, moved, 0.5))
    if mid_p:
        p -= float(bdtr(fewer, moved, 0.5)) - (float(bdtr(fewer - 1, moved, 0.5)) if fewer else 0.0)
    effect = (gained - lost) / pairs
    return Tested(test=name, statistic=float(fewer), p=min(p, 1.0), n=pairs, effect=effect, effect_name=effect_name)


def _degenerate(found: list[float], name: str, effect_name: str, least: int) -> Tested | None:
    """What a test says about pairs of which there are too few, or that are all equal; None if it has something to test."""
    if len(found) < least:
        why = f"{len(found)} pairs: at least {least} are needed"
        return Tested(test=name, n=len(found), effect_name=effect_name, why=why)
    if not any(found):
        why = "no pair differs"
        return Tested(test=name, statistic=0.0, p=1.0, n=len(found), effect=0.0, effect_name=effect_name, why=why)
    return None
