"""The gate: it must never let a regression through, nor promote on thin evidence."""

import random

import pytest

from consolidation.errors import ConsolidationError
from consolidation.gate import GateConfig, Paired, judge, pair_up

CONFIG = GateConfig()


def results(n: int, base: int, lost: int, gained: int) -> Paired:
    return Paired(n=n, base=base, candidate=base - lost + gained, lost=lost, gained=gained)


def test_pairing_counts_by_task() -> None:
    base = {"a": True, "b": True, "c": False, "d": False}
    candidate = {"a": True, "b": False, "c": True, "d": False}
    assert pair_up(base, candidate) == Paired(n=4, base=2, candidate=2, lost=1, gained=1)


@pytest.mark.parametrize(("base", "candidate"), [({"a": True}, {"b": True}), ({"a": True}, {}), ({}, {})])
def test_different_tasks_are_never_compared(base: dict[str, bool], candidate: dict[str, bool]) -> None:
    with pytest.raises(ConsolidationError, match="same tasks"):
        pair_up(base, candidate)


def test_bonett_price_by_hand() -> None:
    # n = 98, lost 7, gained 1: p = 8/100 and 2/100, difference 0.06, error sqrt((0.10 - 0.0036) / 100)
    paired = results(98, 60, 7, 1)
    error = (0.0964 / 100) ** 0.5
    assert paired.drop_bound(0.95) == pytest.approx(0.06 + 1.6448536 * error, abs=1e-6)
    low, high = paired.interval()
    assert (low, high) == pytest.approx((-0.06 - 1.959964 * error, -0.06 + 1.959964 * error), abs=1e-6)


@pytest.mark.parametrize(
    ("paired", "promoted"),
    [
        (results(120, 100, 0, 0), True),
        (results(120, 100, 2, 2), True),
        (results(120, 100, 0, 10), True),
        (results(120, 100, 6, 2), False),
        (results(120, 100, 12, 12), False),
        (results(39, 30, 0, 0), False),
        (results(40, 30, 0, 0), False),
        (results(120, 100, 100, 0), False),
    ],
)
def test_what_is_promoted(paired: Paired, promoted: bool) -> None:
    verdict = judge({"base_skills": paired}, CONFIG, differs=True)
    assert verdict.promoted is promoted
    assert verdict.why
    assert verdict.numbers["base_skills.tasks"] == paired.n


def test_one_failed_guard_is_enough() -> None:
    guards = {"good": results(200, 180, 0, 3), "bad": results(200, 180, 30, 0)}
    verdict = judge(guards, CONFIG, differs=True)
    assert not verdict.promoted
    assert "bad" in verdict.why
    assert "good" not in verdict.why


def test_no_guard_and_no_effect_are_refused() -> None:
    assert not judge({}, CONFIG, differs=True).promoted
    assert "no effect" in judge({"g": results(200, 180, 0, 0)}, CONFIG, differs=False).why


def test_a_real_regression_of_ten_points_passes_at_most_rarely() -> None:
    """1,000 simulated examinations of a candidate that is truly ten points worse (seeded)."""
    rng = random.Random(0)
    passed = 0
    for _ in range(1000):
        base = {str(i): rng.random() < 0.85 for i in range(120)}
        candidate = {task: rng.random() < (0.88 if right else 0.01) for task, right in base.items()}
        passed += judge({"g": pair_up(base, candidate)}, CONFIG, differs=True).promoted
    assert passed <= 10
