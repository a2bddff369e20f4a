"""Measures of attempts from their rows alone: how many resolve their tasks, and at what cost.

Attempts that the infrastructure failed are left out of all but `cost` and `excluded`. None stands where there is no value;
`WHY` says why, by the name of the measure.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Literal

from agent.models.purse import Price
from eval.metrics.continual import Measure
from eval.metrics.counting import finite_median, share_repeated
from eval.metrics.rows import Attempted

Rows = Sequence[Attempted]
Part = Literal["prompt", "completion", "total"]
NONE_GRADED = "there are no attempts that the infrastructure did not fail"
NONE_RESOLVED = "no attempt resolved its task"
NO_TIME = "no time was measured"


def resolve_rate(rows: Rows) -> float | None:
    """Share of attempts that resolved their task; None without any."""
    graded = _graded(rows)
    return fmean(row.resolved for row in graded) if graded else None


def steps(rows: Rows, resolved: bool = True) -> float | None:
    """Steps to completion: mean turns of the attempts that resolved their task, or of all of them; None without any."""
    return _mean(_completed(rows, resolved), lambda row: row.steps)


def tokens(rows: Rows, part: Part = "total", resolved: bool = True) -> float | None:
    """Tokens to completion: mean of those read (prompt), written (completion) or both (total), as `steps`; None without any."""
    return _mean(_completed(rows, resolved), lambda row: _tokens(row, part))


def tue_time(rows: Rows) -> float | None:
    """TUE (SWE-Bench-CL paper, section 7): median seconds of resolved attempts, divided by median seconds of all.

    Below 1 where what succeeds is quick. None without a resolved attempt, or without time.
    """
    every = [row.seconds for row in _graded(rows)]
    won = [row.seconds for row in _completed(rows, True)]
    return median(won) / whole if won and (whole := median(every)) > 0 else None


def useful_time(rows: Rows) -> float | None:
    """Tool-use efficiency by time (programme): seconds of turns whose call was carried out, of all; None without time."""
    return _ratio(rows, lambda row: row.useful_seconds, lambda row: row.seconds)


def useful_calls(rows: Rows) -> float | None:
    """Tool-use efficiency by calls: turns whose call was carried out, of all turns; None without turns."""
    return _ratio(rows, lambda row: row.useful_calls, lambda row: row.calls)


def repeat_error_rate(rows: Rows) -> float | None:
    """Share of the errors made that had been made before in an *earlier task* of the same repository.

    Each counts once for each attempt; see `share_repeated`. None where nothing is counted.
    """
    return share_repeated((row.repo, row.task_id, set(row.errors)) for row in _graded(rows))


def median_steps_to_green(rows: Rows) -> float | None:
    """Median turns up to and with the first test run that passed; an attempt that saw none counts as infinitely long.

    None if the median is such a one, or without attempts.
    """
    return finite_median(row.green for row in _graded(rows))


def cost(rows: Rows, price: Price | None) -> float | None:
    """Dollars of all attempts, also those that the infrastructure failed; prompts at full price. None without price."""
    if price is None:
        return None
    return math.fsum(row.prompt_tokens * price.input + row.completion_tokens * price.output for row in rows) / 1e6


def error_distribution(rows: Rows) -> Counter[str]:
    """How often attempts failed in which way, by `Attempted.signature`."""
    return Counter(row.signature for row in _graded(rows) if row.signature)


def excluded(rows: Rows) -> int:
    """How many attempts the infrastructure failed."""
    return len(rows) - len(_graded(rows))


MEASURES: dict[str, Callable[[Rows], float | None]] = {
    "resolve_rate": resolve_rate,
    "steps": steps,
    "steps_all": lambda rows: steps(rows, resolved=False),
    "tokens": tokens,
    "tokens_all": lambda rows: tokens(rows, resolved=False),
    "prompt_tokens_all": lambda rows: tokens(rows, "prompt", resolved=False),
    "completion_tokens_all": lambda rows: tokens(rows, "completion", resolved=False),
    "tue_time": tue_time,
    "useful_time": useful_time,
    "useful_calls": useful_calls,
    "repeat_error_rate": repeat_error_rate,
    "median_steps_to_green": median_steps_to_green,
}
WHY = {
    "steps": NONE_RESOLVED,
    "tokens": NONE_RESOLVED,
    "tue_time": f"{NONE_RESOLVED}, or {NO_TIME}",
    "useful_time": NO_TIME,
    "useful_calls": "no attempt took a turn",
    "repeat_error_rate": "no error was made in a task that has an earlier one in its repository",
    "median_steps_to_green": "half of the attempts or more saw no test run pass",
    "cost": "the price of a token is not known",
}
"""Why a measure of attempts that were graded has no value."""


def measures_of(rows: Rows, price: Price | None = None) -> dict[str, Measure]:
    """Every measure by name, `cost` last."""
    graded = bool(_graded(rows))
    found = {name: _measure(of(rows), WHY.get(name, NONE_GRADED) if graded else NONE_GRADED) for name, of in MEASURES.items()}
    return {**found, "cost": _measure(cost(rows, price), WHY["cost"])}


def _measure(value: float | None, why: str) -> Measure:
    return Measure(None, why) if value is None else Measure(value)


def _graded(rows: Rows) -> list[Attempted]:
    return [row for row in rows if row.graded]


def _completed(rows: Rows, resolved: bool) -> list[Attempted]:
    return [row for row in _graded(rows) if row.resolved or not resolved]


def _mean(rows: Rows, of: Callable[[Attempted], float]) -> float | None:
    return fmean(of(row) for row in rows) if rows else None


def _ratio(rows: Rows, part: Callable[[Attempted], float], whole: Callable[[Attempted], float]) -> float | None:
    graded = _graded(rows)
    total = math.fsum(whole(row) for row in graded)
    return math.fsum(part(row) for row in graded) / total if total > 0 else None


def _tokens(row: Attempted, part: Part) -> int:
    counts = {"prompt": row.prompt_tokens, "completion": row.completion_tokens}
    return counts.get(part, row.prompt_tokens + row.completion_tokens)
