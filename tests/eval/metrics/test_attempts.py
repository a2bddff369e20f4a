"""Measures of attempts, by hand; and that they are the koans' own where those are defined."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.models.purse import Price
from eval.koans import signatures as koans
from eval.metrics.attempts import (
    MEASURES,
    cost,
    error_distribution,
    excluded,
    measures_of,
    median_steps_to_green,
    repeat_error_rate,
    resolve_rate,
    steps,
    tokens,
    tue_time,
    useful_calls,
    useful_time,
)
from eval.metrics.rows import Attempted, attempted
from memory.trajectories import Outcome, Step, Trajectory

MARKS = {"+": Outcome.RESOLVED, "-": Outcome.UNRESOLVED, "!": Outcome.INFRASTRUCTURE_FAILURE}


def row(mark: str, task: str = "a", repo: str = "r", **values: object) -> Attempted:
    body = {"task_id": task, "repo": repo, "outcome": MARKS[mark], "steps": 1, "config_hash": "c"}
    return Attempted.model_validate(body | values)


def turns(mark: str, number: int, seconds: float, useful: int, **values: object) -> Attempted:
    """`number` turns of 100 and 10 tokens, `useful` of them carried out, each as long as the others."""
    shared = {"steps": number, "calls": number, "useful_calls": useful, "seconds": seconds}
    counted = {"useful_seconds": seconds * useful / number, "prompt_tokens": 100 * number, "completion_tokens": 10 * number}
    return row(mark, **(shared | counted | values))


ROWS = [turns("+", 4, 2.0, 4), turns("+", 6, 4.0, 3), turns("-", 10, 6.0, 5), turns("-", 12, 12.0, 3), turns("!", 50, 99.0, 1)]


def test_what_it_took_by_hand() -> None:
    assert resolve_rate(ROWS) == 0.5
    assert steps(ROWS) == 5.0
    assert steps(ROWS, resolved=False) == 8.0
    assert (tokens(ROWS), tokens(ROWS, "prompt"), tokens(ROWS, "completion")) == (550.0, 500.0, 50.0)
    assert tokens(ROWS, resolved=False) == 880.0
    # median(2, 4) / median(2, 4, 6, 12) = 3 / 5
    assert tue_time(ROWS) == pytest.approx(0.6)
    # (2 + 2 + 3 + 3) / (2 + 4 + 6 + 12)
    assert useful_time(ROWS) == pytest.approx(10 / 24)
    # (4 + 3 + 5 + 3) / (4 + 6 + 10 + 12)
    assert useful_calls(ROWS) == pytest.approx(15 / 32)
    assert excluded(ROWS) == 1


def test_what_the_infrastructure_failed_was_paid_for() -> None:
    # 82 turns of 100 and 10 tokens, at 3 and 15 dollars for a million
    assert cost(ROWS, Price(3, 15)) == pytest.approx((8200 * 3 + 820 * 15) / 1e6)
    assert cost(ROWS, None) is None
    assert cost([], Price(3, 15)) == 0.0


def test_the_median_counts_those_that_never_got_green() -> None:
    assert median_steps_to_green([row("+", green=2), row("+", green=4)]) == 3.0
    assert median_steps_to_green([row("+", green=2), row("+", green=4), row("-")]) == 4.0
    assert median_steps_to_green([row("+", green=2), row("-")]) is None
    assert median_steps_to_green([row("+", green=2), row("!")]) == 2.0


def test_an_error_is_repeated_only_in_a_later_task_of_the_same_repository() -> None:
    first, again, elsewhere = (row("-", task, repo, errors=("E",)) for task, repo in (("a", "x"), ("b", "x"), ("c", "y")))
    assert repeat_error_rate([first, first]) is None
    assert repeat_error_rate([first, elsewhere]) is None
    assert repeat_error_rate([first, elsewhere, again]) == 1.0
    assert repeat_error_rate([first, again, row("+", "d", "x", errors=("F", "E", "E"))]) == pytest.approx(2 / 3)
    assert repeat_error_rate([row("!", "a", "x", errors=("E",)), again]) is None


def test_failures_are_counted_by_their_signatures() -> None:
    rows = [
        row("-", signature="gave_up"),
        row("-", signature="gave_up"),
        row("+"),
        row("!", signature="infrastructure_failure"),
    ]
    assert error_distribution(rows) == Counter({"gave_up": 2})


def test_what_cannot_be_measured_has_a_reason() -> None:
    for rows in ([], [row("!")]):
        found = measures_of(rows)
        assert {name: found[name].value for name in MEASURES} == dict.fromkeys(MEASURES)
        assert "infrastructure" in found["resolve_rate"].why
    found = measures_of([row("-")], Price(1, 1))
    assert {name for name, measure in found.items() if measure.value is None} == {
        "steps",
        "tokens",
        "tue_time",
        "useful_time",
        "useful_calls",
        "repeat_error_rate",
        "median_steps_to_green",
    }
    assert found["steps"].why == "no attempt resolved its task"
    assert (found["resolve_rate"].value, found["cost"].value) == (0.0, 0.0)
    assert measures_of(ROWS)["cost"].why == "the price of a token is not known"


MOVED = "error[E0382]: borrow of moved value: `names`\n --> koan.rs:3:4"
PANIC = "thread 'tests::example_0' (77) panicked at koan.rs:4:9:\nindex out of bounds: the len is 3 but the index is 7\nnote"
TURNS = st.sampled_from(["edit", MOVED, PANIC, "green", "view"])


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.lists(TURNS, max_size=5), st.sampled_from(list(Outcome)))
    )
)
def test_on_koans_they_are_what_the_koans_measure(lived: list[tuple[str, str, list[str], Outcome]]) -> None:
    played = []
    for task, repo, said, outcome in lived:
        taken = [
            Step(number=0, said=one, tool=one, observation="now")
            if one in ("edit", "view")
            else Step(number=0, said="test", tool="test", observation=one, tests_passed=one == "green")
            for one in said
        ]
        body = {"id": task, "task_id": task, "repo": repo, "prompt": "p", "model": "m", "config_hash": "c"}
        played.append(
            Trajectory.model_validate(body | {"started_at": "2026-01-01T00:00:00Z", "steps": taken, "outcome": outcome})
        )
    rows = [attempted(one) for one in played]
    assert repeat_error_rate(rows) == koans.repeat_error_rate(played)
    assert median_steps_to_green(rows) == koans.median_steps_to_green(played)


@st.composite
def several(draw: st.DrawFn) -> list[Attempted]:
    marks = draw(
        st.lists(st.tuples(st.sampled_from("+-!"), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), max_size=8)
    )
    return [
        turns(mark, number, seconds, min(useful, number), green=number if mark == "+" else None)
        for mark, number, useful, seconds in marks
    ]


@settings(max_examples=50)
@given(several(), st.randoms(use_true_random=False))
def test_they_stay_within_their_bounds_and_forget_the_order(rows: list[Attempted], rng: random.Random) -> None:
    found = measures_of(rows, Price(1, 1))
    for name in ("resolve_rate", "useful_time", "useful_calls"):
        assert found[name].value is None or -1e-9 <= (found[name].value or 0) <= 1 + 1e-9
    other = measures_of(rng.sample(rows, len(rows)), Price(1, 1))
    for name, measure in found.items():
        assert other[name].value == (None if measure.value is None else pytest.approx(measure.value))
