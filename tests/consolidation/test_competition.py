"""Competition: the best is chosen, and on nothing that judges it."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consolidation.answers import Answers
from consolidation.competition import choice, compete
from consolidation.errors import ConsolidationError
from consolidation.gate import Gate, GateConfig
from consolidation.guards import Answer, Routes
from tests.consolidation.exam import BASE, Written, adapter

CONFIG = GateConfig()


def by_name(**wrong: int) -> Written:
    """Each candidate is wrong on the first so many of ten."""
    return Written(lambda who, item: Answer(score=float(item % 10 >= wrong.get(who, 0)), said=who))


def entrants(tmp_path: Path, *names: str) -> dict[str, Routes]:
    return {name: adapter(tmp_path / name, name) for name in names}


def test_the_best_wins_and_ties_go_to_the_earlier(tmp_path: Path) -> None:
    guard = by_name(first=3, second=1, third=1)
    won = compete(entrants(tmp_path, "first", "second", "third"), [guard], CONFIG, Answers(tmp_path))
    assert won.name == "second"
    assert won.scores["second"] == won.scores["third"] > won.scores["first"]
    assert not guard.of(BASE)


def test_one_candidate_spends_nothing(tmp_path: Path) -> None:
    guard = by_name()
    won = compete(entrants(tmp_path, "only"), [guard], CONFIG, Answers(tmp_path))
    assert (won.name, won.spent, guard.asked) == ("only", frozenset(), [])


def test_what_the_night_taught_counts_too(tmp_path: Path) -> None:
    taught = by_name(first=9)
    taught.name = "taught"
    candidates = entrants(tmp_path, "first", "second")
    guard = by_name(second=1)
    assert compete(candidates, [guard], CONFIG, Answers(tmp_path)).name == "first"
    assert compete(candidates, [guard], CONFIG, Answers(tmp_path), taught).name == "second"


def test_who_cannot_be_examined_is_out(tmp_path: Path) -> None:
    candidates = {"gone": {"shop": tmp_path / "nowhere"}, **entrants(tmp_path, "poor")}
    won = compete(candidates, [by_name(poor=9)], CONFIG, Answers(tmp_path))
    assert won.name == "poor"
    assert "train again" in won.failed["gone"]
    lost = {name: {"shop": tmp_path / name / "nowhere"} for name in ("a", "b")}
    with pytest.raises(ConsolidationError, match="no candidate could be examined"):
        compete(lost, [by_name()], CONFIG, Answers(tmp_path))
    with pytest.raises(ConsolidationError, match="too few items"):
        compete(entrants(tmp_path, "a", "b"), [Written(count=0)], CONFIG, Answers(tmp_path))


@given(st.integers(2, 250), st.integers(0, 1000), st.floats(0.1, 0.6), st.integers(1, 120))
@settings(max_examples=12, deadline=None)
def test_items_that_judge_are_never_used_for_choosing(count: int, seed: int, share: float, most: int) -> None:
    config = GateConfig(seed=seed, choice_share=share, choice_items=most, looks=1, min_tasks=1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        guards = [Written(count=count), Written(count=30, name="more")]
        if not any(choice(guard.name, guard.items({}), config) for guard in guards):
            return
        candidates = entrants(folder, "first", "second")
        answers = Answers(folder)
        won = compete(candidates, guards, config, answers)
        chosen = {item for guard in guards for item in guard.of("first")}
        for guard in guards:
            guard.asked.clear()
        ruling = Gate(config).judge(guards, candidates[won.name], answers, spent=won.spent)
        judged = {item for guard in guards for item in (*guard.of(BASE), *guard.of(won.name))}
    assert chosen == {item for _, item in won.spent}
    assert not chosen & judged
    assert len(chosen) + ruling.asked == count + 30
    assert all(sum(guard == name for name, _ in won.spent) <= most for guard in ("skills", "more"))


def test_another_seed_chooses_on_other_items() -> None:
    items = [str(number) for number in range(100)]
    one, other = (choice("g", items, GateConfig(seed=seed)) for seed in (0, 1))
    assert set(one) != set(other)
    assert sorted(choice("g", items[::-1], GateConfig())) == sorted(one)
