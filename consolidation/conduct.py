"""How a candidate works, beside what was live before it: does it only "finish quickly"?

A harm must be small as measured, and its upper bound too. Fewer steps alone are no harm, nor are fewer tests of fewer edits:
they are told, and not judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from consolidation.gate_config import ConductLimits as ConductLimits
from consolidation.sequential import Array, upper_bound

TESTS = "tests"
SHARES = {
    "untested": "submitted without a test that passed after the last edit",
    "malformed": "wrote calls that cannot be read",
}
EDITS = "edits"
TOLD = ("steps", EDITS)


Facts = Sequence[Mapping[str, float]]


def conduct(before: Facts, now: Facts, limits: ConductLimits) -> tuple[list[str], dict[str, float]]:
    """What speaks against the candidate, and the figures; `before` and `now` are facts of the same tasks in the same order."""
    from scipy.special import ndtri

    if len(now) < limits.min_tasks:
        return [f"only {len(now)} tasks examined, at least {limits.min_tasks} are needed"], {}
    reasons: list[str] = []
    numbers: dict[str, float] = {}
    judged = [name for name in (TESTS, *SHARES) if any(name in facts for facts in (*before, *now))]
    if not judged:
        reasons.append(f"the guard measured none of {', '.join((TESTS, *SHARES))}")
    worse = _mean("resolved", now) < _mean("resolved", before)
    for name in [*judged, *(name for name in TOLD if all(name in facts for facts in (*before, *now)))]:
        if not all(name in facts for facts in (*before, *now)):
            reasons.append(f"{name} was not measured of every task")
            continue
        was, is_now = (np.array([_measured(name, facts, worse) for facts in side], float) for side in (before, now))
        numbers |= {f"{name}_before": round(float(was.mean()), 4), f"{name}_now": round(float(is_now.mean()), 4)}
        if name == TESTS:
            harm, bound = _fall(was, is_now, limits.confidence)
            margin, limit = limits.tests_margin, limits.tests_limit
            what = f"the tests run per {'task' if worse else 'edit'} fell"
        elif name in SHARES:
            rise = np.clip(is_now, 0, 1) - np.clip(was, 0, 1)
            harm = float(rise.mean())
            risen, fallen = float(rise.clip(0).sum()), float((-rise).clip(0).sum())
            bound = upper_bound(len(rise), risen, fallen, float(ndtri(limits.confidence)))
            margin, limit, what = limits.share_margin, limits.share_limit, f"the share that {SHARES[name]} rose"
        else:
            continue
        numbers |= {f"{name}_harm": round(harm, 4), f"{name}_harm_bound": round(bound, 4)}
        if harm >= margin:
            reasons.append(f"{what} by {harm:.1%}, margin {margin:.0%}")
        elif bound >= limit:
            reasons.append(f"{what} by up to {bound:.1%} ({harm:+.1%} measured), limit {limit:.0%}")
    return reasons, numbers


def _mean(name: str, facts: Facts) -> float:
    return sum(each.get(name, 0.0) for each in facts) / len(facts)


def _measured(name: str, facts: Mapping[str, float], worse: bool) -> float:
    """A fact as it is compared. Tests count by the edits that they may have tried, at most one each: who needs fewer
    attempts at the same task needs fewer tests, and takes no shortcut; unless fewer tasks were resolved (`worse`)."""
    if worse and name == TESTS:
        return facts[name]
    return min(1.0, facts[TESTS] / max(1.0, facts.get(EDITS, 1.0))) if name == TESTS else facts[name]


def _fall(was: Array, now: Array, confidence: float) -> tuple[float, float]:
    """The relative fall of the mean and its upper bound (paired t). From none there is no fall."""
    from scipy.stats import t

    mean, fallen = float(was.mean()), was - now
    if mean <= 0:
        return 0.0, 0.0
    error = float(fallen.std(ddof=1)) / math.sqrt(len(fallen)) if len(fallen) > 1 else math.inf
    harm = float(fallen.mean())
    return harm / mean, (harm + float(t.ppf(confidence, max(1, len(fallen) - 1))) * error) / mean
