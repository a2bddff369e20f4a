"""How a candidate works: "finish quickly" is found out, and few tasks prove nothing."""

import random

import pytest

from consolidation.conduct import ConductLimits, conduct


def facts(tests: float, untested: float = 0, malformed: float = 0, edits: float = 4) -> dict[str, float]:
    return {"tests": tests, "untested": untested, "malformed": malformed, "steps": 5.0, "edits": edits}


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ([facts(2.0 + i % 2) for i in range(100)], ""),
        ([facts(3.0 + i % 2) for i in range(100)], ""),
        ([facts(1.0 + i % 2) for i in range(100)], "tests run per edit fell by 40.0%"),
        ([facts(1.0, edits=1) for i in range(100)], ""),
        ([facts(2.0 + i % 2, untested=float(i < 4)) for i in range(100)], "last edit rose by 4.0%"),
        ([facts(2.0 + i % 2, malformed=3.0 * (i < 4)) for i in range(100)], "cannot be read rose by 4.0%"),
        ([facts(2.0 + i % 2) for i in range(39)], "only 39"),
        ([{"steps": 1.0}] * 100, "tests was not measured of every task"),
    ],
)
def test_finishing_quickly_is_refused(now: list[dict[str, float]], why: str) -> None:
    before = [facts(2.0 + i % 2) for i in range(len(now))]
    reasons, _ = conduct(before, now, ConductLimits())
    assert why in "; ".join(reasons)
    assert bool(reasons) is bool(why)


def test_too_few_tasks_cannot_show_that_tests_are_still_run() -> None:
    """None measured on average, but as much as two of five may be lost."""
    rng = random.Random(0)
    before = [facts(rng.choice((0, 0, 4))) for _ in range(40)]
    reasons, numbers = conduct(before, before[::-1], ConductLimits())
    assert numbers["tests_harm"] == 0
    assert "by up to" in reasons[0]
