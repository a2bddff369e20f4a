"""Paired tests against published examples, and where there is nothing to test."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels

from eval.errors import EvalError
from eval.statistics.paired import mcnemar, mcnemar_of, paired_t, sign_test, wilcoxon
from eval.statistics.tested import Tested, differences
from tests.eval.statistics.worked import DEPRESSION, SLEEP

VALUES = st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=30)


def test_paired_t_on_students_own_data() -> None:
    found = paired_t(*SLEEP)
    assert found.statistic == pytest.approx(4.0621, abs=5e-5)
    assert found.p == pytest.approx(0.002833, abs=5e-7)
    assert (found.n, found.effect_name) == (10, "d_z")
    assert found.effect == pytest.approx(1.58 / 1.229995, abs=1e-5)


def test_signed_ranks_on_hollander_and_wolfes_data() -> None:
    found = wilcoxon(*DEPRESSION)
    assert (found.statistic, found.n) == (5, 9)
    assert found.p == pytest.approx(2 * 0.01953125)
    assert found.effect == pytest.approx((5 - 40) / 45)
    before, after = DEPRESSION
    padded = wilcoxon((*before, 1.0, 2.0), (*after, 1.0, 2.0))
    assert (padded.p, padded.statistic, padded.effect, padded.n) == (found.p, found.statistic, found.effect, 11)


def test_signs_by_hand() -> None:
    found = sign_test([0, 0, 0, 0, 0, 1], [1, 1, 1, 1, -1, 1])
    assert (found.statistic, found.n, found.effect) == (4, 6, 0.8)
    assert found.p == pytest.approx(2 * 6 / 32)


def test_mcnemar_on_the_example_of_fagerland_and_others() -> None:
    """21 children before and after stem cell transplantation: 7 and 1 discordant (2013, table 2)."""
    assert mcnemar_of(1, 7, 21, mid_p=False).p == pytest.approx(0.0703125)
    assert mcnemar_of(1, 7, 21).p == pytest.approx(0.0390625)
    assert mcnemar_of(1, 7, 21).effect == pytest.approx(-6 / 21)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_exact_mcnemar_is_that_of_statsmodels(gained: int, lost: int) -> None:
    found = mcnemar_of(gained, lost, 200, mid_p=False)
    theirs = mcnemar_of_statsmodels([[40, gained], [lost, 40]], exact=True)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.statistic == theirs.statistic
    p = mcnemar_of(gained, lost, 200).p
    assert p is not None
    assert p <= (found.p or 0)


def test_mcnemar_counts_pairs() -> None:
    base, candidate = [True, True, False, False, False], [True, False, True, True, False]
    assert mcnemar(base, candidate) == mcnemar_of(2, 1, 5)
    assert mcnemar(base, candidate, mid_p=False).test == "McNemar exact"


@settings(max_examples=12, deadline=None)
@given(VALUES)
def test_tests_never_give_nan_and_turn_over_with_the_arms(pairs: list[tuple[float, float]]) -> None:
    base, candidate = [b for b, _ in pairs], [c for _, c in pairs]
    for test in (paired_t, wilcoxon, sign_test):
        one, other = test(base, candidate), test(candidate, base)
        for value in (one.p, one.statistic, one.effect):
            assert value is None or math.isfinite(value)
        assert one.p == (None if other.p is None else pytest.approx(other.p, rel=1e-9, abs=1e-12))
        assert (one.p is None) <= bool(one.why)


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=3, max_size=20), st.floats(0.01, 100))
def test_units_do_not_matter(values: list[int], unit: float) -> None:
    zero = [0.0] * len(values)
    for test in (paired_t, wilcoxon, sign_test):
        one, other = test(zero, values), test(zero, [unit * value for value in values])
        assert one.p == (None if other.p is None else pytest.approx(other.p, rel=1e-6, abs=1e-12))


@pytest.mark.parametrize("test", [paired_t, wilcoxon, sign_test])
def test_equal_arms_are_no_evidence(test: object) -> None:
    assert callable(test)
    found = test([0.5, 0.25, 1.0], [0.5, 0.25, 1.0])
    assert isinstance(found, Tested)
    assert (found.p, found.n, found.why) == (1.0, 3, "no pair differs")
    none = test([], [])
    assert (none.p, none.statistic) == (None, None)
    assert "at least" in none.why


def test_without_spread_there_is_no_t() -> None:
    found = paired_t([0.1, 0.2, 0.3], [0.2, 0.3, 0.4])
    assert (found.p, found.statistic) == (None, None)
    assert "every pair differs by 0.1" in found.why
    assert paired_t([0.1], [0.4]).p is None


def test_no_pairs_and_no_discordance() -> None:
    assert mcnemar([], []).p is None
    assert mcnemar([True], [True]).p == 1
    assert mcnemar_of(3, 3, 9).p == pytest.approx(1)


def test_rounding_breaks_no_tie() -> None:
    base, candidate = [0.1, 0.2, 0.3, 0.7, 0.6], [0.3, 0.4, 0.5, 0.9, 0.1]
    assert differences(base, candidate)[:4] == [differences(base, candidate)[0]] * 4
    found = wilcoxon(base, candidate)
    assert found.p == pytest.approx(stats.wilcoxon([2, 2, 2, 2, -5]).pvalue)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_was_not_measured_is_refused(wrong: float) -> None:
    with pytest.raises(EvalError, match=r"candidate\[1\]"):
        paired_t([1.0, 2.0], [1.0, wrong])
    with pytest.raises(EvalError, match="paired one to one"):
        wilcoxon([1.0], [1.0, 2.0])
    with pytest.raises(EvalError, match="paired one to one"):
        mcnemar([True], [])
