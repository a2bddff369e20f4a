"""The gate's benchmark: what the issue asks of the gate, and that the figures are those of the code that decides."""

import json
from pathlib import Path

import numpy as np
import pytest

from consolidation.answers import Answers
from consolidation.gate import Gate, GateConfig
from consolidation.guards import Answer
from consolidation.sequential import Decision, Design
from eval.bench_gate import DISCORDANCES, DROPS, ITEMS, GateBench, bench_gate, best_power, scenarios, simulate
from eval.bench_gate_card import card
from tests.consolidation.exam import BASE, Written, adapter
from tests.daemon.running import run

CONFIG = GateConfig()
KEYS = {"true_drop", "discordance", "accept_rate", "undecided_rate", "items_mean", "items_full", "nights"}


@pytest.fixture(scope="module")
def report() -> GateBench:
    return bench_gate(CONFIG, 10_000, 0)


def test_every_drop_and_discordance_that_can_be_is_simulated(report: GateBench) -> None:
    found = [(row.true_drop, row.discordance) for row in report.scenarios]
    assert found == scenarios()
    assert set(found) == {(drop, max(drop, share)) for drop in DROPS for share in DISCORDANCES}
    assert all(row.accept_rate + row.undecided_rate + row.reject_rate == pytest.approx(1) for row in report.scenarios)


def test_what_the_gate_promises(report: GateBench) -> None:
    for row in report.scenarios:
        if row.true_drop >= 0.05:
            assert row.accept_rate <= 0.01, row
        if row.true_drop == 0 and row.best_power >= 0.9:
            assert row.accept_rate >= 0.9, row
        assert row.accept_rate <= row.best_power + 0.01, row
    assert sum(row.true_drop == 0 and row.best_power >= 0.9 for row in report.scenarios) == 3
    assert report.cost <= 0.6
    assert report.wall_seconds < 60


def test_two_points_are_refused_where_few_items_change(report: GateBench) -> None:
    rates = {(row.true_drop, row.discordance): row.accept_rate for row in report.scenarios}
    assert rates[0.02, 0.02] <= 0.1
    assert rates[0.02, 0.05] <= 0.4


def test_a_lax_gate_shows_in_the_figures() -> None:
    lax = bench_gate(GateConfig(confidence=0.6, margin=0.04, chance=9), 500, 0)
    assert max(row.accept_rate for row in lax.scenarios if row.true_drop == 0.05) > 0.1


def test_the_same_seed_gives_the_same_nights(report: GateBench) -> None:
    assert bench_gate(CONFIG, 200, 3).scenarios == bench_gate(CONFIG, 200, 3).scenarios
    assert bench_gate(CONFIG, 200, 4).scenarios != bench_gate(CONFIG, 200, 3).scenarios


def test_best_power_is_that_of_a_known_test() -> None:
    """No discordance but the limit's own: critical value and power by hand."""
    error = ((0.1 - 0.0025) / ITEMS) ** 0.5
    rng = np.random.default_rng(0)
    drops = rng.multinomial(ITEMS, [0.05, 0.05, 0.9], size=200_000)
    simulated = ((drops[:, 0] - drops[:, 1]) / ITEMS < 0.05 - 2.326348 * error).mean()
    assert best_power(ITEMS, 0.0, 0.1, CONFIG) == pytest.approx(simulated, abs=0.01)


@pytest.mark.parametrize("drop", [0.0, 0.1])
def test_real_examinations_are_decided_as_the_simulated_ones(tmp_path: Path, drop: float) -> None:
    """The gate over a guard whose answers are drawn, beside the same tally given to the design."""
    for night in range(4):
        rng = np.random.default_rng([night, int(100 * drop)])
        change = rng.choice([-1, 1, 0], ITEMS, p=[0.05 + drop / 2, 0.05 - drop / 2, 0.9])
        asked: list[int] = []

        def script(who: str, item: int, change: np.ndarray = change, asked: list[int] = asked) -> Answer:
            if who == BASE:
                return Answer(score=float(change[item] < 0 or (change[item] == 0 and item % 2)), said=who)
            asked.append(item)
            return Answer(score=float(change[item] > 0 or (change[item] == 0 and item % 2)), said=who)

        folder = tmp_path / str(night)
        ruling = Gate(CONFIG).judge([Written(script, ITEMS)], adapter(folder / "a", "night"), Answers(folder))
        design = Design(ITEMS, CONFIG, CONFIG.looks, CONFIG.futility)
        for look, size in enumerate(design.sizes):
            seen = change[asked[:size]]
            decision = int(design.decide(look, (seen < 0).sum(), (seen > 0).sum()))
            if decision != Decision.GO_ON:
                break
        assert (ruling.verdict.numbers["code.decision"], ruling.asked) == (decision, size)


def test_a_night_without_an_answer_is_not_counted_twice() -> None:
    decisions, asked = simulate(Design(100, CONFIG, 5, 0.2), 0.05, 0.1, 500, np.random.default_rng(0))
    assert set(decisions) <= {Decision.ACCEPTED, Decision.REJECTED, Decision.UNDECIDED}
    assert asked.min() >= 40
    assert asked.max() <= 100


def test_the_command_prints_one_json_value_and_the_card_takes_it() -> None:
    done = run("bench", "gate", "--json", "--nights", "200", "--seed", "1")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert all(set(row) >= KEYS for row in printed["scenarios"])
    text = card(GateBench.model_validate(printed))
    assert "200 simulated nights" in text
    assert text.count("\n| ") == len(scenarios()) + 1
    table = run("bench", "gate", "--nights", "50")
    assert "of 591" in table.stdout
