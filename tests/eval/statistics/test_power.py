"""Power against published tables, by enumeration, and the sentence before a run."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.power import TTestPower

from eval.errors import EvalError
from eval.statistics.lives import compare_lives
from eval.statistics.paired import mcnemar_of
from eval.statistics.power import (
    Plan,
    design_effect,
    detectable,
    informed,
    lives_needed,
    lives_power,
    mcnemar_power,
    paired_t_power,
    pairs_needed,
    power_of,
)


def test_the_power_of_a_paired_t_is_the_published_one() -> None:
    """A medium effect needs 34 pairs for 80 % (G*Power's manual: 0.8078); and statsmodels'."""
    assert paired_t_power(34, 0.5) == pytest.approx(0.8078, abs=1e-4)
    assert paired_t_power(33, 0.5) < 0.8
    for pairs, effect in itertools.product((2, 3, 5, 20), (0.0, 0.3, 0.8)):
        assert paired_t_power(pairs, effect) == pytest.approx(TTestPower().power(effect, pairs, 0.05), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 500), st.floats(0, 60), st.sampled_from([0.05, 0.01, 0.0001]))
def test_power_is_a_share_and_grows(pairs: int, effect: float, alpha: float) -> None:
    found = paired_t_power(pairs, effect, alpha)
    assert alpha - 1e-6 <= found <= 1
    assert paired_t_power(pairs, effect * 1.1 + 0.01, alpha) >= found - 1e-6
    assert paired_t_power(1, effect, alpha) == 0


def test_the_power_of_mcnemar_by_enumeration() -> None:
    pairs, gained_share, lost_share = 12, 0.45, 0.1
    for mid_p in (True, False):
        found = 0.0
        for gained in range(pairs + 1):
            for lost in range(pairs + 1 - gained):
                ways = math.comb(pairs, gained) * math.comb(pairs - gained, lost)
                chance = gained_share**gained * lost_share**lost * (1 - gained_share - lost_share) ** (pairs - gained - lost)
                found += ways * chance * ((mcnemar_of(gained, lost, pairs, mid_p).p or 0) <= 0.05)
        assert mcnemar_power(pairs, 0.55, 0.35, mid_p=mid_p) == pytest.approx(found)


def test_pairs_needed_are_about_what_the_formula_says() -> None:
    """Connor 1987: (z_alpha sqrt(discordance) + z_beta sqrt(discordance - difference^2))^2 / difference^2."""
    formula = (1.959964 * math.sqrt(0.3) + 0.841621 * math.sqrt(0.3 - 0.01)) ** 2 / 0.01
    found = pairs_needed(0.3, 0.1)
    assert found == pytest.approx(formula, rel=0.05)
    assert mcnemar_power(found or 0, 0.3, 0.1) >= 0.8
    assert mcnemar_power((found or 0) - 1, 0.3, 0.1) < 0.8
    assert pairs_needed(0.3, 0.001) is None
    with pytest.raises(EvalError, match="discordance"):
        mcnemar_power(10, 0.1, 0.2)


def test_the_power_over_lives_by_hand() -> None:
    plan = Plan(tasks=20, lives=6, wanted=0.2, discordance=0.4, sd_lives=0.1, sd_tasks=0.2)
    variance = 0.01 / 6 + 0.04 / 20 + (0.4 - 0.04 - 0.01 - 0.04) / 120
    assert lives_power(plan) == pytest.approx(TTestPower().power(0.2 / math.sqrt(6 * variance), 6, 0.05), abs=1e-6)
    assert design_effect(plan, 0.2) == pytest.approx(variance / (0.36 / 120))
    spread = plan.model_copy(update={"distinct": 40})
    assert lives_power(spread) > lives_power(plan)
    two = plan.model_copy(update={"tasks": 2, "distinct": None})
    variance = 0.01 / 6 + 0.04 / 2 + (0.4 - 0.04 - 0.01 - 0.04) / 12
    assert lives_power(two) == pytest.approx(paired_t_power(6, 0.2 / math.sqrt(6 * variance), df=1))


def test_independent_pairs_have_no_design_effect() -> None:
    assert design_effect(Plan(tasks=20, lives=6, sd_lives=0, sd_tasks=0)) == pytest.approx(1)
    assert design_effect(Plan(tasks=20, lives=6, sd_lives=0.1, sd_tasks=0)) == pytest.approx(1 + 19 * 0.01 / 0.3)


def test_what_is_needed_is_enough_and_no_more() -> None:
    plan = Plan(tasks=24, lives=3, wanted=0.2)
    needed = lives_needed(plan) or 0
    assert lives_power(plan.grown(needed)) >= 0.8 > lives_power(plan.grown(needed - 1))
    seen = detectable(plan) or 0
    assert lives_power(plan, seen) == pytest.approx(0.8, abs=0.005)
    strict = plan.model_copy(update={"comparisons": 4})
    assert (lives_needed(strict) or 0) > needed
    assert (detectable(strict) or 1) > seen


def test_no_number_of_lives_makes_up_for_too_few_tasks() -> None:
    plan = Plan(tasks=10, lives=3, wanted=0.05)
    assert lives_needed(plan) is None
    assert lives_power(plan.grown(4000)) < 0.8
    assert lives_needed(plan.grown(3, 2)) is None
    assert f"you need 40 tasks x {lives_needed(plan.grown(3, 4))} seeds" in power_of(plan)


def test_the_sentence() -> None:
    plan = Plan(tasks=25, lives=15, distinct=50, wanted=0.2, alpha=0.01)
    said = power_of(plan)
    assert said.startswith(
        f"To see +20 points with 80 % power at 1 % two-sided you need 25 tasks x {lives_needed(plan)} seeds; "
    )
    assert (
        f"this plan has 25 tasks x 15 seeds: it can see effects from {math.ceil(1000 * (detectable(plan) or 0)) / 10}" in said
    )
    assert "10 points between lives and 10 between tasks" in said
    assert "with one seed" in power_of(Plan(tasks=25, lives=1))
    assert "no effect, however large" in power_of(Plan(tasks=25, lives=2))
    assert "over 3 comparisons" in power_of(Plan(tasks=25, lives=5, comparisons=3))


def test_a_pilot_informs_the_plan() -> None:
    base = [{f"t{n}": False for n in range(8)} for _ in range(4)]
    candidate = [{f"t{n}": n < 2 + life for n in range(8)} for life in range(4)]
    pilot = compare_lives(base, candidate)
    plan = informed(Plan(tasks=8, lives=4), pilot)
    assert (plan.discordance, plan.sd_lives, plan.sd_tasks) == (14 / 32, pilot.sd_lives, pilot.sd_tasks)
    assert informed(Plan(tasks=8, lives=4), compare_lives(base, base)).discordance == 0.3
