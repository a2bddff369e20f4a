"""Recorded attempts, said again: the same turns, or a clear word about where the conversation went another way."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import ModelError
from agent.loop import conversation, opening
from agent.model import Message, Sampling
from agent.models.replay import ReplayModel
from memory.trajectories import Step, Trajectory

TURNS = (("search fee", "shop/fees.py:3"), ("edit shop/fees.py 3\nx", "edited"), ("submit", ""))


def recorded(name: str, turns: tuple[tuple[str, str], ...] = TURNS, **more: object) -> Trajectory:
    steps = [
        Step(number=i, said=said, observation=seen, tool=said.split()[0], prompt_tokens=10 + i, completion_tokens=3)
        for i, (said, seen) in enumerate(turns)
    ]
    common = {"task_id": "t", "repo": "shop", "prompt": "issue in shop", "model": "m", "config_hash": "0"}
    return Trajectory(id=name, started_at=datetime(2026, 1, 1, tzinfo=UTC), steps=steps, **(common | more))  # type: ignore[arg-type]


def played(model: ReplayModel, record: Trajectory, key: str = "") -> list[str]:
    messages, said = opening(record), []
    for step in record.steps:
        answer = model.complete([messages], Sampling(), [key] if key else [])[0]
        said.append(answer.text)
        messages += [Message("assistant", answer.text), Message("tool", step.observation)]
    return said


def test_an_attempt_is_said_again_turn_by_turn_with_its_token_counts() -> None:
    record = recorded("a", system="Fix it.")
    model = ReplayModel([record])
    assert played(model, record) == [said for said, _ in TURNS]
    answer = model.complete([conversation(record)[:4]], Sampling())[0]
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == (TURNS[1][0], 11, 3)


def test_of_two_attempts_the_key_or_the_course_of_the_conversation_tells_which() -> None:
    first, second = recorded("a"), recorded("b", (("view x", "y"), *TURNS), attempt=1)
    model = ReplayModel([second, first])
    assert played(model, first) == [said for said, _ in TURNS]
    assert played(model, second, "b") == ["view x", *(said for said, _ in TURNS)]
    assert model.complete([conversation(second)[:3]], Sampling())[0].text == "search fee"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: [*m[:2], Message("tool", "no matches")], "a, turn 0: recorded tool 'shop/fees.py:3', now tool 'no matches'"),
        (
            lambda m: [m[0], Message("assistant", "test"), m[2]],
            "recorded assistant 'search fee', now assistant 'test'",
        ),
        (lambda m: m[:2], "a stops in the middle of turn 0"),
        (lambda m: [*m, Message("tool", "")], "a was recorded for 3 turns only"),
        (lambda m: [Message("user", "another issue")], "is recorded that begins like this: 'another issue'"),
        (lambda m: [], "begins like this: ''"),
    ],
)
def test_a_departure_from_the_record_is_named(change: object, why: str) -> None:
    record = recorded("a")
    with pytest.raises(ModelError) as error:
        ReplayModel([record]).complete([change(conversation(record))], Sampling())  # type: ignore[operator]
    assert why in str(error.value)


def test_records_of_an_adapter_are_kept_apart_from_those_of_the_base() -> None:
    base, adapted = recorded("a"), recorded("b", (("submit", ""),), adapter="0123456789abcdef")
    model = ReplayModel([base, adapted])
    prints = {model.fingerprint}
    assert played(model, base) == [said for said, _ in TURNS]
    model.use(Path("/adapters/0123456789abcdef"))
    prints.add(model.fingerprint)
    assert played(model, adapted) == ["submit"]
    with pytest.raises(ModelError, match="no recorded attempt was made with adapter other"):
        model.use(Path("/adapters/other"))
    assert played(model, adapted) == ["submit"]
    model.use(None)
    assert len(prints | {model.fingerprint}) == 2
    with pytest.raises(ModelError, match="is recorded"):
        ReplayModel([adapted]).complete([opening(adapted)], Sampling())
