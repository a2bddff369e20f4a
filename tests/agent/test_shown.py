"""What was shown: old observations are left out by a rule of the turns alone, rarely, and told again exactly."""

import random
from datetime import UTC, datetime
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.full import FULL
from agent.loop import conversation
from agent.model import Message
from agent.session import TERSE
from agent.shown import KEEP, SHORTENED, left_out, limit_of, shown, told
from memory.trajectories import Step, Trajectory

RULE = "Once observations exceed {} characters in all, old ones are left out; make the call again if you need to see one."
STEPS = st.lists(st.tuples(st.sampled_from([*sorted(SHORTENED), "edit", "malformed"]), st.integers(0, 5_000)), max_size=40)


def trajectory(steps: list[tuple[str, int]], system: str) -> Trajectory:
    made = [Step(number=i, said=f"call {i}", observation="x" * size, tool=tool) for i, (tool, size) in enumerate(steps)]
    return Trajectory(
        id="t",
        task_id="t",
        repo="r",
        prompt="p",
        system=system,
        model="m",
        started_at=datetime.now(UTC),
        config_hash="0",
        steps=made,
    )


def sizes(messages: list[Message]) -> int:
    return sum(len(m.content) for m in messages if m.role == "tool")


def test_the_prompt_of_the_full_toolkit_states_the_rule_and_the_terse_one_none() -> None:
    assert limit_of(FULL.system) == FULL.shorten > 0
    assert limit_of(TERSE.system) == 0
    assert limit_of("Fix the issue. " + RULE.format(10)) == 0, "only a line of its own is a rule"


@settings(max_examples=150, deadline=None)
@given(STEPS, st.sampled_from([0, 6_000, 20_000]))
def test_every_turn_is_told_as_it_was_shown(steps: list[tuple[str, int]], limit: int) -> None:
    whole = trajectory(steps, RULE.format(limit) if limit else "")
    lived = [shown(trajectory(steps[:turn], whole.system)) for turn in range(len(steps) + 1)]
    assert lived == [shown(whole, turn) for turn in range(len(steps) + 1)]
    taught = 0
    for example in told(whole):
        for turn in range(example.first, len(steps)):
            if list(example.messages[: len(lived[turn])]) != lived[turn]:
                break
            if len(example.messages) <= len(lived[turn]):
                break
            assert example.messages[len(lived[turn])] == Message("assistant", f"call {turn}")
            taught += 1
    assert taught == len(steps), "each turn is in exactly one example, after exactly what it was shown"
    if not limit:
        assert len(told(whole)) == 1
        assert sizes(shown(whole)) == sum(size for _, size in steps)


def test_shortening_gains_much_and_is_rare() -> None:
    rng = random.Random(1)
    steps = [("view", rng.randint(1_000, 4_000)) for _ in range(100)]
    whole = trajectory(steps, RULE.format(40_000))
    assert len(told(whole)) < 14
    seen = [shown(whole, turn) for turn in range(101)]
    assert max(map(sizes, seen)) <= 40_000
    falls = [sizes(before) - sizes(after) for before, after in pairwise(seen) if sizes(after) < sizes(before)]
    assert len(falls) == len(told(whole)) - 1
    assert min(falls) > 40_000 // 4 - 4_000
    assert "[1 line of view, no longer shown]" in [m.content for m in seen[-1]]


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_the_last_observations_are_never_left_out_and_a_little_gain_is_none(steps: list[tuple[str, int]]) -> None:
    made = trajectory(steps, "").steps
    gone = [left_out(made[:turn], 6_000) for turn in range(len(made) + 1)]
    for turn, (before, after) in enumerate(pairwise(gone), start=1):
        assert before <= after
        new = after - before
        assert all(number < turn - KEEP for number in new)
        assert not new or sum(len(made[number].observation) for number in new) >= 6_000 // 4


def test_what_cannot_be_asked_again_stays() -> None:
    steps = trajectory([("edit", 5_000)] * 40, "").steps
    assert left_out(steps, 10_000) == frozenset()


def test_the_conversation_of_an_attempt_is_as_it_stood_at_its_end() -> None:
    whole = trajectory([("view", 4_000)] * 30 + [("submit", 0)], RULE.format(20_000))
    assert conversation(whole)[-1] == Message("assistant", "call 30")
    assert conversation(whole)[:-1] == shown(whole, 30)
