"""What comes next: the same tasks in the same order whatever was interrupted, and nights that are worth it."""

from __future__ import annotations

import random
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

import pytest

from daemon.config import Config, DayConfig, SleepConfig, TasksConfig
from daemon.plan import LEARNABLE_LATER, NightPlan, plan_night, replay
from eval.pocket.stream import PocketStream
from eval.sources import PocketSource
from memory.trajectories import Outcome, Result

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def results(*outcomes: Outcome, repo: str = "bank", begin: int = 0) -> list[Result]:
    return [
        Result(number=n, task_id=f"task-{n}", trajectory_id=f"t{n}", repo=repo, outcome=outcome, started_at=NOON)
        for n, outcome in enumerate(outcomes, begin)
    ]


def config(merged_fixes: bool = True, min_resolved: int = 2, replay_tasks: int = 400) -> Config:
    sleep = SleepConfig(min_resolved=min_resolved, replay_tasks=replay_tasks)
    return Config.model_validate({"sleep": sleep.model_dump(), "night": {"merged_fixes": merged_fixes}})


def next_tasks(tasks: TasksConfig, done: AbstractSet[str], count: int) -> list[str]:
    return PocketSource(tasks).next(done, count)


# Which tasks


def test_tasks_are_the_streams_in_the_streams_order() -> None:
    stream = PocketStream(seed=3, repos=("game", "bank"), count=5)
    tasks = TasksConfig(seed=3, repos=("game", "bank"), count=5)
    assert next_tasks(tasks, set(), 100) == [task.id for task in stream.tasks()]


def test_ids_lead_back_to_the_same_tasks() -> None:
    tasks = TasksConfig(seed=7, repos=("bank", "game"))
    ids = next_tasks(tasks, set(), 6)
    assert PocketStream.of(ids).tasks() == PocketStream(seed=7, repos=("bank", "game"), count=3).tasks()


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 8])
def test_the_sequence_does_not_depend_on_the_size_of_the_batches(batch: int) -> None:
    tasks = TasksConfig(repos=("bank", "game"), count=11)
    done: list[str] = []
    while chosen := next_tasks(tasks, set(done), batch):
        assert len(chosen) <= batch
        done += chosen
    assert done == next_tasks(tasks, set(), 10**6)
    assert len(set(done)) == len(done) == 22


def test_what_an_interrupted_batch_left_comes_next_and_nothing_comes_twice() -> None:
    tasks = TasksConfig(repos=("bank", "game"), count=9)
    rng, done = random.Random(1), set[str]()
    while chosen := next_tasks(tasks, done, 4):
        ended = rng.sample(chosen, rng.randrange(len(chosen) + 1))  # the others were interrupted
        assert done.isdisjoint(chosen)
        done |= set(ended)
        left = [task for task in chosen if task not in ended]
        assert next_tasks(tasks, done, 4)[: len(left)] == left
    assert done == set(next_tasks(tasks, set(), 100))


def test_a_stream_with_an_end_ends() -> None:
    tasks = TasksConfig(repos=("bank",), count=2)
    every = ["bank-stream-0-0", "bank-stream-0-1"]
    assert next_tasks(tasks, set(), 5) == every
    assert next_tasks(tasks, set(every), 5) == []


def test_a_stream_without_an_end_goes_on() -> None:
    tasks = TasksConfig(repos=("bank", "game"), count=0)
    done = {f"{repo}-stream-0-{number}" for repo in ("bank", "game") for number in range(1000)} - {"game-stream-0-3"}
    assert next_tasks(tasks, done, 3) == ["game-stream-0-3", "bank-stream-0-1000", "game-stream-0-1000"]


@pytest.mark.parametrize("count", [0, 4])
def test_asked_for_no_task_there_is_none(count: int) -> None:
    assert next_tasks(TasksConfig(count=count), set(), 0) == []


def test_results_of_other_streams_and_of_the_owners_tasks_are_no_reason_to_skip_one() -> None:
    done = {"bank-stream-1-0", "bank-held_out-0-0", "bank-stream-0", "bank", "fix-1"}
    assert next_tasks(TasksConfig(repos=("bank",)), done, 1) == ["bank-stream-0-0"]


# From which results


def test_the_latest_results_are_replayed_oldest_first() -> None:
    every = results(*[Outcome.RESOLVED] * 9)
    assert replay(every, config(replay_tasks=3)) == every[6:]
    assert replay(every, config(replay_tasks=9)) == replay(every, config(replay_tasks=400)) == every


def test_failures_of_the_infrastructure_are_not_replayed_and_take_no_others_place() -> None:
    every = results(Outcome.RESOLVED, Outcome.UNRESOLVED, *[Outcome.INFRASTRUCTURE_FAILURE] * 5)
    assert replay(every, config(replay_tasks=2)) == every[:2]


# Whether a night is worth it


def test_a_night_needs_enough_that_can_be_learnt_from() -> None:
    one = plan_night(results(Outcome.RESOLVED), 0, config(min_resolved=2))
    assert not one.would_sleep
    assert one.why == "too little verified data: 1 tasks can be learnt from, 2 are asked for"
    two = plan_night(results(Outcome.RESOLVED, Outcome.RESOLVED), 0, config(min_resolved=2))
    assert two.would_sleep
    assert two.why == "2 tasks have ended since the last night, 2 of 2 can be learnt from"


def test_a_first_day_without_any_result_is_no_night() -> None:
    assert plan_night([], 0, config()) == NightPlan(
        would_sleep=False,
        why="too little verified data: 0 tasks can be learnt from, 2 are asked for",
        new_results=0,
        replayed=0,
        own_successes={},
        merged_fixes={},
    )


def test_the_same_results_are_not_slept_on_twice() -> None:
    every = results(*[Outcome.RESOLVED] * 5)
    plan = plan_night(every, 5, config())
    assert (plan.would_sleep, plan.why, plan.new_results) == (False, "no task has ended since the last night", 0)
    more = plan_night(every + results(Outcome.RESOLVED, begin=5), 5, config())
    assert (more.would_sleep, more.new_results) == (True, 1)


def test_a_night_that_knew_more_results_than_there_are_is_no_reason_to_sleep() -> None:
    assert not plan_night(results(*[Outcome.RESOLVED] * 5), 9, config()).would_sleep


@pytest.mark.parametrize("outcome", LEARNABLE_LATER)
def test_merged_fixes_of_tasks_that_are_over_count_only_if_they_may_be_learnt_from(outcome: Outcome) -> None:
    every = results(outcome, outcome, Outcome.RESOLVED)
    plan = plan_night(every, 0, config(merged_fixes=True, min_resolved=3))
    assert (plan.would_sleep, plan.own_successes, plan.merged_fixes) == (True, {"bank": 1}, {"bank": 2})
    without = plan_night(every, 0, config(merged_fixes=False, min_resolved=3))
    assert (without.would_sleep, without.own_successes, without.merged_fixes) == (False, {"bank": 1}, {})


def test_every_outcome_is_learnt_from_or_known_not_to_be() -> None:
    assert {Outcome.RESOLVED, Outcome.INFRASTRUCTURE_FAILURE, *LEARNABLE_LATER} == set(Outcome)


def test_failures_of_the_infrastructure_teach_nothing() -> None:
    plan = plan_night(results(*[Outcome.INFRASTRUCTURE_FAILURE] * 20), 0, config(min_resolved=1))
    assert not plan.would_sleep
    assert plan.replayed == 0


def test_failures_of_the_infrastructure_alone_are_no_reason_for_another_night() -> None:
    every = results(*[Outcome.RESOLVED] * 5, *[Outcome.INFRASTRUCTURE_FAILURE] * 3)
    plan = plan_night(every, 5, config())
    assert not plan.would_sleep
    assert plan.why == "no task has ended since the last night"


def test_only_what_is_replayed_counts() -> None:
    every = results(*[Outcome.RESOLVED] * 10, *[Outcome.GAVE_UP] * 3)
    plan = plan_night(every, 0, config(merged_fixes=False, min_resolved=2, replay_tasks=4))
    assert (plan.would_sleep, plan.replayed, plan.own_successes) == (False, 4, {"bank": 1})


def test_each_repository_is_counted_by_itself() -> None:
    every = results(Outcome.RESOLVED, Outcome.GAVE_UP, repo="game") + results(Outcome.RESOLVED, Outcome.RESOLVED, begin=2)
    plan = plan_night(every, 0, config())
    assert (plan.own_successes, plan.merged_fixes) == ({"bank": 2, "game": 1}, {"game": 1})
    assert list(plan.own_successes) == ["bank", "game"]


def test_the_day_has_no_say_in_the_plan() -> None:
    every = results(*[Outcome.RESOLVED] * 3)
    other = config().model_copy(update={"day": DayConfig(batch=1, retries=9)})
    assert plan_night(every, 0, other) == plan_night(every, 0, config())
