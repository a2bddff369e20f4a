"""How reports write numbers, intervals and verdicts: the same everywhere, and as criteria are registered (shares of 1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isclose

from eval.experiments.findings import Analysis, Interval, Judged, Verdict
from eval.experiments.measures import ACROSS, asked
from eval.experiments.plan import Criterion
from eval.report.document import Mark, Missing, Tone, Value
from eval.report.text import plain

LONGEST = 220
"""Characters of a reason that somebody else wrote (an exception): more is cut, and the ledger has it all."""
CHANCE = 0.05
"""A p, after Holm's correction, from which on nothing is said to differ."""
SHARES = "Shares and differences of shares are of 1: 0.05 is 5 points. Student's intervals may reach beyond 0 and 1."
_TONES: dict[Verdict, Tone] = {"met": "good", "not met": "bad", "undecided": "open", "not measured": "open"}
_ONE = {"lives": "life", "seeds": "seed", "repositories": "repository"}


def number(value: float) -> str:
    """Three significant digits, whole from 1000 on, without what floating point leaves of a 0."""
    value = round(value, 12) + 0.0
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def counted(count: int, one: str, many: str = "") -> str:
    """`1 life`, `3 lives`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def interval(found: Interval) -> str:
    """Mean, 95 % interval, and over how many replicates."""
    if found.low is None or found.high is None:
        return f"{number(found.mean)} ({found.n} {_ONE[found.unit] if found.n == 1 else found.unit}, no interval)"
    if isclose(found.low, found.high, rel_tol=1e-9, abs_tol=1e-12):
        return f"{number(found.mean)} (all {found.n} {found.unit} are equal)"
    return f"{number(found.mean)} ({number(found.low)} to {number(found.high)}; {found.n} {found.unit})"


def p(value: float | None, why: str = "") -> Value:
    """A p, three digits of it."""
    if value is None:
        return Missing(reason(why) or "there is nothing to test")
    return "< 0.001" if value < 0.001 else number(value)


def optional(value: float | None, why: str) -> Value:
    """A number, or why there is none."""
    return Missing(reason(why)) if value is None else number(value)


def reason(text: str, longest: int = LONGEST) -> str:
    """The first line of a reason, bounded: what follows is where in the code it happened."""
    return plain(next((line for line in text.splitlines() if line.strip()), ""), longest)


def mark(verdict: Verdict, told: str = "") -> Mark:
    """A verdict, in its tone."""
    return Mark(f"{verdict}: {told}" if told else verdict, _TONES[verdict])


def value_of(criterion: Criterion, found: Interval | None, why: str) -> Value:
    """What was compared with the threshold."""
    if found is None:
        return Missing(reason(why))
    head = head_of(criterion)
    if head.startswith("p_"):
        return f"p {'' if found.mean < 0.001 else '= '}{p(found.mean)}"
    if head == "knee" and found.low is not None and found.high is not None:
        return f"{number(found.mean)} ({number(found.low)} to {number(found.high)} in the replicates by themselves)"
    return interval(found)


def demand(criterion: Criterion) -> str:
    """The criterion as a formula."""
    without = f" without {', '.join(criterion.without)}" if criterion.without else ""
    against = f" {'/' if criterion.compare == 'ratio' else '-'} {criterion.against}" if criterion.against else ""
    of = f" of {criterion.variant}" if criterion.variant != "*" else ""
    return f"{criterion.measure}{of}{without}{against} {criterion.operator} {criterion.threshold:g}"


def head_of(criterion: Criterion) -> str:
    """The name of its measure, without arm and without what it is of."""
    head = criterion.measure.partition(":")[0].partition("@")[0]
    return head if head in ACROSS else ""


def tally(judged: Sequence[Judged]) -> str:
    """`1 of 4 criteria is met, 2 are not, 1 is undecided`."""
    counts = Counter(str(one.verdict) for one in judged)
    words = [f"{counts['met']} of {counted(len(judged), 'criterion', 'criteria')} {'is' if counts['met'] == 1 else 'are'} met"]
    for verdict in ("not met", "undecided", "not measured"):
        if count := counts[verdict]:
            words.append(f"{count} {'is' if count == 1 else 'are'} {verdict}")
    return ", ".join(words)


def better(measure: str, difference: float) -> str:
    """Whether a difference in a measure is for better or worse."""
    way = asked(measure).metric.better
    if way == "none" or isclose(difference, 0, abs_tol=1e-12):
        return "neither"
    return "better" if (difference > 0) == (way == "higher") else "worse"


def primary_told(analysis: Analysis) -> str:
    """The primary measure, in one sentence: of the only variant, or of the least and the largest."""
    found = [(one.variant, one.interval) for one in analysis.summaries if one.measure == analysis.primary]
    known = [(name, value) for name, value in found if value is not None]
    if not known:
        return f"{analysis.primary} has no value."
    if len(known) == 1:
        return f"{analysis.primary} is {interval(known[0][1])}."
    low, high = (pick(known, key=lambda one: one[1].mean) for pick in (min, max))
    if isclose(low[1].mean, high[1].mean, rel_tol=1e-9, abs_tol=1e-12):
        return f"{analysis.primary} is {number(low[1].mean)} with every variant."
    return f"{analysis.primary} is between {interval(low[1])} with {low[0]} and {interval(high[1])} with {high[0]}."


def of_arm(analysis: Analysis) -> str:
    """Whose failed attempts are counted, where it is known."""
    return " of the skill arm" if any(curve.arm == "skill" for curve in analysis.curves) else ""
