"""What a test or an interval says, and why it says nothing where it cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from eval.errors import EvalError

FLAT = 1e-12
"""Differences are equal if they are this near, relative to the largest value: what floating point leaves of a subtraction."""


class Tested(BaseModel):
    """A test of no difference, two-sided.

    `n` counts what the test takes for independent (pairs, lives). `p` and `statistic` are None where there is nothing to
    compute them from, and `why` says what is missing; a p of 1 with a reason means that nothing differed at all. `effect` is
    the measure that `effect_name` names.
    """

    __test__: ClassVar[bool] = False
    """It is no class of tests, whatever pytest makes of its name."""
    model_config = ConfigDict(frozen=True, extra="forbid")

    test: str
    statistic: float | None = None
    p: float | None = Field(default=None, ge=0, le=1)
    n: int = Field(ge=0)
    effect: float | None = None
    effect_name: str = ""
    why: str = ""


class Interval(BaseModel):
    """An estimate and its two-sided confidence interval; `low` and `high` are None where there is none, and `why` says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    estimate: float | None
    low: float | None = None
    high: float | None = None
    confidence: float
    n: int = Field(ge=0)
    why: str = ""


def finite(values: Sequence[float], name: str) -> list[float]:
    """The values as floats.

    Raises:
        EvalError: one is no finite number.
    """
    found = [float(value) for value in values]
    if wrong := [place for place, value in enumerate(found) if not math.isfinite(value)]:
        raise EvalError(f"{name}[{wrong[0]}] is {found[wrong[0]]}: leave out what was not measured, and say why")
    return found


def differences(base: Sequence[float], candidate: Sequence[float]) -> list[float]:
    """Candidate minus base, pair by pair; what is only rounding is 0, and equal differences are exactly equal.

    Raises:
        EvalError: the two are not of one length, or hold something that is no finite number.
    """
    before, after = finite(base, "base"), finite(candidate, "candidate")
    if len(before) != len(after):
        raise EvalError(f"{len(before)} values of base and {len(after)} of candidate: they must be paired one to one")
    scale = max(map(abs, [*before, *after]), default=0.0)
    if scale == 0:
        return [0.0] * len(before)
    step = 2.0 ** math.floor(math.log2(scale * FLAT))
    return [round((b - a) / step) * step for a, b in zip(before, after, strict=True)]


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample, in two passes (the standard library's exact one takes a hundred times as long)."""
    centre = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def is_flat(values: Sequence[float]) -> bool:
    """Whether there is no spread to speak of."""
    return max(values) - min(values) <= 2 * FLAT * max(map(abs, values))
