"""Effect sizes and corrections, by hand and by statsmodels."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.errors import EvalError
from eval.statistics.corrections import benjamini_hochberg, holm
from eval.statistics.effects import cliffs_delta, cohens_dz, hedges_g, odds_ratio
from eval.statistics.proportions import wilson
from tests.eval.statistics.worked import REPERFUSION

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_effects_by_hand() -> None:
    assert cohens_dz([1, 2, 3]) == pytest.approx(2)
    assert hedges_g([1, 2, 3], [2, 4, 6]) == pytest.approx(2 / math.sqrt(2.5) * (1 - 3 / 15))
    assert odds_ratio(6, 3) == 2
    assert cliffs_delta([1, 2, 3], [2, 3, 4]) == pytest.approx((6 - 1) / 9)


def test_effects_that_are_not_defined() -> None:
    assert cohens_dz([0.1, 0.1]) is None
    assert cohens_dz([0.0, 0.0]) == 0
    assert cohens_dz([1.0]) is None
    assert hedges_g([1, 1], [2, 2]) is None
    assert hedges_g([1, 1], [1, 1]) == 0
    assert hedges_g([1], [2, 3]) is None
    assert odds_ratio(3, 0) is None
    with pytest.raises(EvalError, match="both sides"):
        cliffs_delta([], [1])


@settings(deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1), st.lists(st.integers(-9, 9), min_size=1))
def test_cliffs_delta_sees_ranks_only(base: list[int], candidate: list[int]) -> None:
    assert cliffs_delta(base, candidate) == -cliffs_delta(candidate, base)
    assert cliffs_delta(base, candidate) == cliffs_delta([math.exp(b) for b in base], [math.exp(c) for c in candidate])


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_the_example_of_benjamini_and_hochberg() -> None:
    named = {f"h{number}": p for number, p in enumerate(REPERFUSION)}
    assert [name for name, p in benjamini_hochberg(named).items() if p is not None and p <= 0.05] == ["h0", "h1", "h2", "h3"]
    assert [name for name, p in holm(named).items() if p is not None and p <= 0.05] == ["h0", "h1", "h2"]


def test_a_planned_test_without_a_p_still_counts() -> None:
    assert holm({"a": 0.02, "b": None, "c": 0.5}) == pytest.approx({"a": 0.06, "b": None, "c": 1.0})
    assert benjamini_hochberg({"a": 0.02, "b": None})["a"] == pytest.approx(0.04)
    assert holm({}) == {}
    with pytest.raises(EvalError, match="b: p is"):
        holm({"a": 0.5, "b": 1.5})


@settings(max_examples=5, deadline=None)
@given(P)
def test_correction_keeps_names_and_order(values: list[float]) -> None:
    named = {f"{number}": p for number, p in enumerate(values)}
    for corrected in (holm(named), benjamini_hochberg(named)):
        assert list(corrected) == list(named)
        pairs = [(p, named[name]) for name, p in corrected.items() if p is not None]
        assert all(p >= raw - 1e-12 for p, raw in pairs)
        assert [p for p, _ in sorted(pairs, key=lambda pair: pair[1])] == pytest.approx(sorted(p for p, _ in pairs))
    backwards = dict(reversed(named.items()))
    assert holm(backwards) == pytest.approx(holm(named))


def test_wilson_by_hand() -> None:
    z = 1.959964
    centre, reach = (8 + z**2 / 2) / (10 + z**2), z / (10 + z**2) * math.sqrt(10 * 0.8 * 0.2 + z**2 / 4)
    assert wilson(8, 10) == pytest.approx((centre - reach, centre + reach), abs=1e-6)
    assert wilson(0, 0) == (0, 1)
