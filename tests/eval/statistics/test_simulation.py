"""A/A and recovery: the primary test is honest, the usual ones are not, and the figures are those of the code that decides."""

import json

import numpy as np
import pytest

from eval.bench_statistics_card import card
from eval.statistics import simulation
from eval.statistics.lives import compare_lives
from eval.statistics.simulation import (
    NULL,
    TRUE,
    Null,
    Scenario,
    StatisticsBench,
    bench_statistics,
    experiments,
    null_of,
    pairs_of_arms,
    recovery_of,
    truth,
)
from tests.daemon.running import run

RUNS = 500
MOST = 0.07
"""A test at 5 % shows more in 500 experiments once in fifty times; the seeds are fixed."""


@pytest.fixture(scope="module")
def null() -> dict[str, Null]:
    chosen = ("lives differ much", "three lives, all arms differ", "arms differ by task", "five splits, one seed")
    return {one.name: null_of(one, RUNS, (1, number)) for number, one in enumerate(NULL) if one.name in chosen}


def test_equal_arms_come_out_equal(null: dict[str, Null]) -> None:
    assert len(null) == 4
    for row in null.values():
        assert row.primary <= MOST, row
        assert row.low <= row.primary <= row.high
        assert abs(row.mean_difference) < 0.02


def test_pooled_mcnemar_takes_lucky_lives_for_progress(null: dict[str, Null]) -> None:
    assert null["lives differ much"].pooled > 0.25
    assert (null["lives differ much"].design_effect or 0) > 3
    assert all(row.pooled > 0.1 for row in null.values())


def test_a_t_over_lives_takes_lucky_tasks_for_progress(null: dict[str, Null]) -> None:
    assert null["arms differ by task"].over_lives > 0.12
    assert null["arms differ by task"].primary < 0.5 * null["arms differ by task"].over_lives


def test_the_primary_test_is_not_asleep() -> None:
    """Where all is independent it uses up its 5 %."""
    assert 0.02 <= null_of(NULL[0], RUNS, (2,)).primary <= MOST


@pytest.mark.parametrize("scenario", [TRUE[1], TRUE[2]], ids=lambda scenario: scenario.name)
def test_a_true_difference_is_recovered(scenario: Scenario) -> None:
    row = recovery_of(scenario, RUNS, (3,))
    assert row.measured == pytest.approx(row.difference, abs=3.5 * row.error)
    assert row.power == pytest.approx(row.predicted, abs=0.09)
    assert row.coverage >= 0.92


def test_the_truth_is_what_lives_show() -> None:
    scenario = Scenario(name="", lives=12, tasks=20, distinct=20, luck=0.8, taste=0.8, effect=1.0)
    difference, discordance, sd_lives, sd_tasks = truth(scenario)
    found = list(experiments(scenario, 150, (4,)))
    assert np.mean([one.difference for one in found]) == pytest.approx(difference, abs=0.02)
    assert np.mean([(one.gained + one.lost) / one.pairs for one in found]) == pytest.approx(discordance, abs=0.02)
    assert np.mean([(one.sd_lives or 0) ** 2 for one in found]) == pytest.approx(sd_lives**2, rel=0.15)
    assert np.mean([(one.sd_tasks or 0) ** 2 for one in found]) == pytest.approx(sd_tasks**2, rel=0.15)


def test_experiments_are_decided_by_the_code_that_decides_about_real_ones() -> None:
    scenario = NULL[6]
    rng = np.random.default_rng((5,))
    expected = [compare_lives(*pairs_of_arms(scenario, rng)) for _ in range(3)]
    assert list(experiments(scenario, 3, (5,))) == expected
    base, candidate = pairs_of_arms(scenario, rng)
    assert [set(one) for one in base] == [set(one) for one in candidate]
    assert {len(one) for one in base} == {scenario.tasks}
    assert len(set().union(*base)) <= scenario.distinct


def test_a_broken_test_shows_in_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """McNemar over all pairs in the place of the primary test."""

    def careless(base: list[dict[str, bool]], candidate: list[dict[str, bool]], confidence: float) -> object:
        found = compare_lives(base, candidate, confidence)
        return found.model_copy(update={"tested": found.pooled})

    monkeypatch.setattr(simulation, "compare_lives", careless)
    monkeypatch.setattr(simulation, "NULL", NULL[2:3])
    monkeypatch.setattr(simulation, "TRUE", TRUE[:1])
    report = bench_statistics(100)
    assert not report.honest
    assert not report.recovered
    assert "**does not stay below in every kind**" in card(report)
    assert "**Not every difference" in card(report)


def test_the_command_prints_one_json_value_and_the_card_takes_it() -> None:
    done = run("bench", "statistics", "--json", "--runs", "20", "--seed", "1")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    report = StatisticsBench.model_validate(printed)
    again = bench_statistics(20, 1)
    assert (report.null, report.recovery, report.config_hash) == (again.null, again.recovery, again.config_hash)
    assert bench_statistics(20, 2).null != report.null
    text = card(report)
    assert "20\nsimulated experiments of each kind, seed 1" in text
    assert text.count("\n| ") == len(NULL) + len(TRUE) + 2
