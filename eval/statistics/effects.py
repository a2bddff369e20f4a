"""Effect sizes: how large a difference is, whatever its p. None where it is not defined."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from eval.errors import EvalError
from eval.statistics.tested import deviation, finite, is_flat


def cohens_dz(differences: Sequence[float]) -> float | None:
    """Mean difference in standard deviations of the differences (Cohen 1988, section 2.3.5); None without spread."""
    found = finite(differences, "differences")
    if len(found) < 2 or is_flat(found):
        return 0.0 if len(found) > 1 and not any(found) else None
    return fmean(found) / deviation(found)


def hedges_g(base: Sequence[float], candidate: Sequence[float]) -> float | None:
    """Difference of two independent means in pooled standard deviations, times 1 - 3 / (4 df - 1) for what small samples
    overstate (Hedges 1981); None without spread or with fewer than two values in each."""
    before, after = finite(base, "base"), finite(candidate, "candidate")
    if min(len(before), len(after)) < 2:
        return None
    df = len(before) + len(after) - 2
    pooled = ((len(before) - 1) * deviation(before) ** 2 + (len(after) - 1) * deviation(after) ** 2) / df
    if is_flat(before) and is_flat(after):
        return 0.0 if math.isclose(fmean(before), fmean(after)) else None
    return (fmean(after) - fmean(before)) / math.sqrt(pooled) * (1 - 3 / (4 * df - 1))


def odds_ratio(gained: int, lost: int) -> float | None:
    """Conditional odds ratio of paired outcomes, gained / lost (Agresti 2013, section 11.2.1); None if nothing was lost."""
    return gained / lost if lost else None


def cliffs_delta(base: Sequence[float], candidate: Sequence[float]) -> float:
    """Chance that a value of candidate exceeds one of base, minus the chance of the reverse (Cliff 1993): from -1 to 1.

    Raises:
        EvalError: one of the two is empty, or holds something that is no finite number.
    """
    before, after = finite(base, "base"), finite(candidate, "candidate")
    if not before or not after:
        raise EvalError("Cliff's delta needs a value on both sides")
    return sum((b > a) - (b < a) for a in before for b in after) / (len(before) * len(after))
