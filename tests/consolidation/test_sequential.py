"""The statistics of the gate: the score test, the boundaries, and what a look decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from consolidation.gate import GateConfig
from consolidation.sequential import Decision, Design, Tolerance, boundaries, score, spent, upper_bound

CONFIG = GateConfig()
FULL = Design(591, CONFIG, CONFIG.looks, CONFIG.futility)


@pytest.mark.parametrize(
    ("n", "lost", "gained", "drop"), [(100, 8, 3, 0.05), (591, 30, 30, 0.05), (60, 1, 4, 0.2), (80, 20, 1, 0.1)]
)
def test_the_score_statistic_uses_the_likeliest_gains_at_the_drop(n: int, lost: int, gained: int, drop: float) -> None:
    def unlikely(p: float) -> float:
        return -float(lost * np.log(p + drop) + gained * np.log(p) + (n - lost - gained) * np.log(1 - 2 * p - drop))

    p = minimize_scalar(unlikely, bounds=(1e-9, (1 - drop) / 2 - 1e-9), method="bounded", options={"xatol": 1e-10}).x
    expected = (lost - gained - n * drop) / np.sqrt(n * (2 * p + drop - drop**2))
    assert float(score(n, lost, gained, drop)) == pytest.approx(expected, rel=1e-4)


def test_no_discordant_item_is_no_proof_by_itself() -> None:
    """With none at all the bound is z^2 / (n + z^2): 60 items cannot show that fewer than 5 points are lost."""
    z = float(norm.ppf(0.99))
    assert upper_bound(60, 0, 0, z) == pytest.approx(z**2 / (60 + z**2), abs=1e-6)
    for looks in (1, CONFIG.looks):
        small = Design(60, CONFIG, looks, CONFIG.futility)
        assert all(int(small.decide(look, 0, 0)) != Decision.ACCEPTED for look in range(len(small.sizes)))


@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 400), st.floats(0.5, 4))
@settings(max_examples=60, deadline=None)
def test_the_bound_is_where_the_score_test_turns(n: int, lost: int, gained: int, z: float) -> None:
    lost, gained = min(lost, n), min(gained, n - min(lost, n))
    bound = upper_bound(n, lost, gained, z)
    assert (lost - gained) / n <= bound <= 1
    if 1e-6 < bound < 1 - 1e-6:
        assert float(score(n, lost, gained, bound)) == pytest.approx(-z, abs=1e-3)


def test_one_look_is_the_normal_quantile_and_many_spend_the_error_exactly() -> None:
    assert boundaries((1.0,), 0.01)[0] == pytest.approx(norm.isf(0.01), abs=1e-6)
    fractions = tuple(k / 10 for k in range(1, 11))
    steps = np.random.default_rng(0).normal(size=(400_000, 10)) * np.sqrt(0.1)
    paths = steps.cumsum(axis=1) / np.sqrt(np.array(fractions))
    crossed = paths > np.array(boundaries(fractions, 0.05))
    assert crossed.any(axis=1).mean() == pytest.approx(0.05, abs=0.0012)
    assert crossed[:, :6].any(axis=1).mean() == pytest.approx(spent(0.6, 0.05), abs=0.0006)


@pytest.mark.parametrize("items", [120, 320, 591, 1000])
@pytest.mark.parametrize("discordance", [0.05, 0.1, 0.15, 0.2, 0.4])
def test_five_points_lost_are_accepted_in_one_night_of_a_hundred_at_most(items: int, discordance: float) -> None:
    design = Design(items, CONFIG, CONFIG.looks, CONFIG.futility)
    rate = accepted(design, [(discordance + 0.05) / 2, (discordance - 0.05) / 2, 1 - discordance], (1, -1, 0), 30_000)
    assert rate <= 0.01


@pytest.mark.parametrize("halves", [0.1, 0.2, 0.4])
def test_half_right_answers_let_no_more_through(halves: float) -> None:
    """Five points lost, in halves alone, and in halves and wholes."""
    up, down = (halves + 0.1) / 2, (halves - 0.1) / 2
    assert accepted(FULL, [up, down, 1 - up - down], (0.5, -0.5, 0), 20_000) <= 0.01
    mixed = [up / 2, 0.02 + up / 4, 0.02 + down / 4, down / 2]
    assert accepted(FULL, [*mixed, 1 - sum(mixed)], (0.5, 1, -1, -0.5, 0), 20_000) <= 0.01


def test_no_harm_passes_with_fewer_items() -> None:
    assert accepted(FULL, [0.025, 0.025, 0.95], (1, -1, 0), 5_000) >= 0.93
    assert accepted(FULL, [0.05, 0.05, 0.9], (1, -1, 0), 20_000) >= 0.895
    first = next(look for look in range(len(FULL.sizes)) if int(FULL.decide(look, 0, 0)) == Decision.ACCEPTED)
    assert FULL.sizes[first] < 0.5 * 591


def test_what_each_condition_alone_decides() -> None:
    last = len(FULL.sizes) - 1
    assert int(FULL.decide(last, 30, 30)) == Decision.ACCEPTED
    assert int(FULL.decide(last, 52, 40)) == Decision.REJECTED  # 12 of 591: the margin, though it may be chance
    assert int(FULL.decide(last, 6, 0)) == Decision.REJECTED  # one point, more than chance explains
    assert int(FULL.decide(last, 80, 76)) == Decision.UNDECIDED  # less than a point, and it may be six


def test_a_hopeless_claim_is_not_examined_to_the_end() -> None:
    assert int(FULL.decide(4, 30, 5)) == Decision.REJECTED
    patient = Design(591, CONFIG, CONFIG.looks, 0.0)
    assert int(patient.decide(4, 30, 5)) == Decision.GO_ON


def test_the_bound_of_a_look_says_what_the_look_decides() -> None:
    for look in range(len(FULL.sizes)):
        for lost in range(8):
            for gained in range(0, 30, 5):
                passed = FULL.bound(look, lost, gained) < CONFIG.limit
                if int(FULL.decide(look, lost, gained)) == Decision.ACCEPTED:
                    assert passed
                elif passed:
                    worse = (lost - gained) / np.sqrt(lost + gained + 1)
                    assert worse >= CONFIG.chance or lost - gained >= CONFIG.margin * FULL.sizes[look]


@given(st.integers(1, 700), st.integers(1, 40), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_looks_end_with_all_items_and_begin_with_enough(items: int, looks: int, least: int) -> None:
    sizes = Design(items, Tolerance(min_tasks=least), looks, 0.2).sizes
    assert sizes[-1] == items
    assert list(sizes) == sorted(set(sizes))
    assert sizes[0] >= min(least, items)


def accepted(design: Design, shares: list[float], worth: tuple[float, ...], nights: int) -> float:
    """How often nights are accepted whose items have these differences with these shares."""
    rng, open_ = np.random.default_rng(11), np.full(nights, True)
    lost, gained, passed, before = np.zeros(nights), np.zeros(nights), 0, 0
    value = np.array(worth)
    for look, size in enumerate(design.sizes):
        drawn = rng.multinomial(size - before, shares, size=nights)
        lost, gained, before = lost + drawn @ value.clip(0), gained + drawn @ (-value).clip(0), size
        decisions = design.decide(look, lost, gained)
        passed += int((open_ & (decisions == Decision.ACCEPTED)).sum())
        open_ &= decisions == Decision.GO_ON
    assert not open_.any()
    return passed / nights
