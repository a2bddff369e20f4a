"""The online watch: what alarms, what must not, and what is counted of attempts that were really played."""

import random
from dataclasses import replace

import pytest

from agent.loop import Budget
from agent.sandbox.base import Sandbox
from agent.sandbox.ladder import probe
from agent.turns import Call
from eval.behaviour import FACTS, facts_of
from eval.bench_watch import World, bench_watch
from eval.play import Player
from eval.pocket.stream import PocketStream
from eval.watch import Seen, Watch, WatchConfig, is_control, promise_of
from memory.trajectories import Outcome, Trajectory
from tests.agent.lived import TASKS, played
from tests.eval.drifted import Drifted, Settled, conventions

CONFIG = WatchConfig()
USUAL = World(0.5)


def lived(world: World, count: int, seed: int) -> list[Seen]:
    rng = random.Random(seed)
    return [world.attempt(rng) for _ in range(count)]


def watch(config: WatchConfig = CONFIG, world: World = USUAL) -> Watch:
    before = lived(world, config.before, 1)
    promise = promise_of(before, before, config)
    assert promise is not None
    return Watch(promise, config)


def fed(charts: Watch, attempts: list[Seen]) -> Watch:
    for seen in attempts:
        charts.take(seen)
    return charts


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return probe(trusted_generated=True)


# Simulation


def test_all_charts_together_alarm_for_nothing_less_than_once_in_1000_tasks_and_find_large_drops_soon() -> None:
    report = bench_watch(CONFIG, seed=1, runs=12, rates=(0.1, 0.5, 0.9))
    assert report.false_alarms_per_1000 <= 1
    delays = [report.delay[drop] for drop in ("0.15", "0.3", "0.5")]
    assert None not in delays
    assert delays == sorted(delays, reverse=True)  # type: ignore[type-var]
    assert report.delay["0.3"] <= 60  # type: ignore[operator]
    assert report.conflict_delay["0.5"] <= 25  # type: ignore[operator]


def test_the_simulation_tells_that_lower_limits_would_alarm_too_often() -> None:
    report = bench_watch(WatchConfig(limit=2, canary_limit=2, caution=0), seed=1, runs=2, rates=(0.5,))
    assert report.false_alarms_per_1000 > 1


# What alarms


def test_a_drop_alarms_once_and_nothing_is_counted_after_it() -> None:
    charts = fed(watch(), lived(World(0.1), 200, 2))
    assert charts.alarm is not None
    assert charts.alarm.chart == "resolved"
    assert charts.alarm.value >= charts.alarm.limit
    assert charts.alarm.seen < charts.alarm.promised
    ended, first = charts.attempts, charts.alarm
    assert charts.take(Seen(False)) is None
    assert (charts.attempts, charts.alarm) == (ended, first)


def test_an_adapter_that_resolves_nothing_is_found_within_its_canary_and_later_without_one() -> None:
    dead = [replace(seen, resolved=False) for seen in lived(USUAL, 60, 3)]
    canary, none = fed(watch(), dead), fed(watch(WatchConfig(canary=0)), dead)
    assert canary.alarm is not None
    assert canary.alarm.canary
    assert canary.attempts <= CONFIG.canary
    assert none.alarm is not None
    assert canary.attempts < none.attempts


def test_a_better_adapter_that_takes_more_turns_never_alarms() -> None:
    better = [
        replace(seen, resolved=number % 5 != 0, facts={**(seen.facts or {}), "steps": 12.0})
        for number, seen in enumerate(lived(USUAL, 400, 4))
    ]
    assert fed(watch(), better).alarm is None
    worse = [replace(seen, resolved=number % 5 == 0) for number, seen in enumerate(better)]
    assert fed(watch(), worse).alarm is not None


def test_a_stream_that_became_harder_alarms_unless_the_base_beside_it_shows_it() -> None:
    alarms = {False: 0, True: 0}
    for seed in range(8):
        for controlled in (False, True):
            harder = lived(World(0.2), 400, seed)
            mixed = [replace(seen, control=controlled and number % 4 == 0) for number, seen in enumerate(harder)]
            charts = fed(watch(), mixed)
            alarms[controlled] += charts.alarm is not None and charts.alarm.chart == "resolved"
    assert alarms[False] >= 7
    assert alarms[True] <= 3


def test_a_rise_of_one_measure_is_told_by_its_own_chart() -> None:
    for measure in ("malformed", "conflicts", "untested"):
        charts = fed(watch(), lived(replace(World(0.4), **{measure: 0.95}), 120, 9))
        assert charts.alarm is not None, measure
        assert charts.alarm.chart == measure


def test_attempts_whose_turns_were_forgotten_still_count_as_resolved_or_not() -> None:
    charts = fed(watch(), [Seen(False)] * 60)
    assert charts.alarm is not None
    assert charts.alarm.chart == "resolved"


# What was promised


def test_a_promise_from_few_attempts_is_more_cautious_and_nothing_promises_nothing() -> None:
    half = [Seen(True), Seen(False)]
    few, many = (promise_of(half * times, half * times, CONFIG) for times in (10, 100))
    assert few is not None
    assert many is not None
    assert few.shares["resolved"] < many.shares["resolved"] < 0.5
    assert few.shares.keys() == {"resolved"}
    assert promise_of([], [], CONFIG) is None
    guarded = promise_of([], [], CONFIG, guarded=0.6)
    assert guarded is not None
    assert guarded.resolved == pytest.approx(0.6)
    assert guarded.shares["resolved"] < few.shares["resolved"]


def test_controls_are_the_same_tasks_each_time_and_about_as_many_as_asked_for() -> None:
    ids = [f"task-{number}" for number in range(2000)]
    chosen = {i for i in ids if is_control(i, 0.1)}
    assert 140 < len(chosen) < 260
    assert chosen <= {i for i in ids if is_control(i, 0.2)}
    assert not any(is_control(i, 0.0) for i in ids)


# What is counted of attempts


@pytest.mark.parametrize("speaks", ["terse", "text"])
def test_facts_count_what_was_done_in_both_protocols(sandbox: Sandbox, speaks: str) -> None:
    issue = next(iter(TASKS.values())).issue
    path = next(iter(TASKS.values())).repo + "/house.py"
    calls = [
        Call("view", path),
        Call("view", "gone.py"),
        Call("search", "nowhere_at_all"),
        Call("edit", path, old="no such line", body="x = 1"),
        Call("edit", path, 900, 900, body="x = 1"),
        Call("test"),
        Call("edit", path, 1, 2, body="from os import not_there_either"),
        Call("test"),
        Call("submit"),
        Call("submit"),
    ]
    (trajectory,) = played(sandbox, {issue: calls}, speaks)  # type: ignore[arg-type]
    facts = facts_of(trajectory)
    assert tuple(facts) == FACTS
    assert facts["conflicts"] == 5, [(s.tool, s.observation[:80]) for s in trajectory.steps]
    assert (facts["tests"], facts["edits"], facts["untested"], facts["malformed"]) == (2, 1, 1, 0)
    assert facts["calls"] == facts["steps"] == len(trajectory.steps)


def test_what_is_no_call_is_malformed_and_what_fails_for_another_reason_is_no_conflict(sandbox: Sandbox) -> None:
    task = next(iter(TASKS.values()))
    (trajectory,) = played(sandbox, {task.issue: [Call("test"), Call("submit")]})
    step = trajectory.steps[0]
    said = [
        ("please wait", "not a call; use one of: view", "malformed"),
        ("view a.py b.py", "view takes one path", "malformed"),
    ]
    fields = [{"said": a, "observation": b, "tool": c, "tests_passed": None} for a, b, c in said]
    steps = [step.model_copy(update=field) for field in fields]
    shown = {"said": "view a.py", "tool": "view", "tests_passed": None, "observation": "1|# a.py has 3 lines\n2|no match"}
    facts = facts_of(trajectory.model_copy(update={"steps": [*steps, step.model_copy(update=shown), *trajectory.steps]}))
    assert (facts["malformed"], facts["calls"], facts["conflicts"]) == (2, 3, 0)


def test_untested_is_a_submission_without_a_passed_test_after_the_last_edit(sandbox: Sandbox) -> None:
    stream = PocketStream(seed=4, repos=("bank",), count=4)
    model = Settled(stream)
    attempts = list(Player(model, sandbox, budget=Budget(steps=14)).play(stream, stream.tasks()))
    assert all(t.resolved for t in attempts)
    assert [facts_of(t)["untested"] for t in attempts] == [0] * 4

    def without_tests(trajectory: Trajectory) -> Trajectory:
        return trajectory.model_copy(update={"steps": [s for s in trajectory.steps if s.tool != "test"]})

    assert [facts_of(without_tests(t))["untested"] for t in attempts] == [1] * 4
    broken_off = attempts[0].model_copy(update={"steps": attempts[0].steps[:2], "outcome": Outcome.OUT_OF_BUDGET})
    assert facts_of(broken_off)["untested"] == 0


def test_a_repository_that_drifted_raises_the_chart_of_conflicts_and_one_that_did_not_does_not(sandbox: Sandbox) -> None:
    now, then = Drifted(seed=4, repos=("bank",), count=24), PocketStream(seed=4, repos=("bank",), count=24)
    player = Player(Settled(then), sandbox, budget=Budget(steps=14))

    def attempts(stream: PocketStream) -> list[Seen]:
        found = player.play(stream, conventions(stream))
        return [Seen(t.resolved, facts_of(t)) for t in found]

    usual, drifted = attempts(then), attempts(now)
    assert not any(seen.facts and seen.facts["conflicts"] for seen in usual)
    assert all(seen.facts and seen.facts["conflicts"] >= 2 for seen in drifted)  # looked up, and used
    promise = promise_of(usual, usual, CONFIG)
    assert promise is not None
    assert fed(Watch(promise, CONFIG), usual).alarm is None
    charts = fed(Watch(promise, CONFIG), drifted)
    assert charts.alarm is not None
    assert {reading.chart for reading in charts.readings() if reading.value >= reading.limit} >= {"conflicts"}
