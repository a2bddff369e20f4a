"""The full toolkit through the player: a told model, its prompt in the configuration's hash, real tests and grading."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.full import FULL, Full
from agent.sandbox.ladder import probe
from agent.turns import Call, render_full
from eval import play
from eval.experience import pairs_of_day
from eval.play import Player
from eval.pocket.stream import PocketStream
from memory.trajectories import Outcome
from tests.eval.gold import ByIssue, edits

STREAM = PocketStream(seed=4, repos=("bank",), count=4)


def script(task_id: str) -> list[str]:
    task = next(task for task in STREAM.tasks() if task.id == task_id)
    fix = STREAM.merged_fix(task)
    calls = [
        Call("map"),
        Call("search", fix.symbol),
        Call("view", fix.path),
        *edits(fix.before, fix.after, fix.path),
        Call("test"),
        Call("submit"),
        Call("submit"),
    ]
    return [f"I go on.\n\n{render_full(call)}" for call in calls]


def test_a_model_that_is_told_the_tools_solves_tasks_and_is_shown_its_change_before_it_submits(tmp_path: Path) -> None:
    player = Player(ByIssue({task.issue: script(task.id) for task in STREAM.tasks()}), probe(trusted_generated=True))
    player = replace(player, budget=player.budget.model_copy(update={"steps": 20, "tokens": 10**6, "seconds": 300.0}))
    played = list(player.play(STREAM, STREAM.tasks()))
    assert [(t.outcome, t.reason) for t in played if not t.resolved] == []
    for trajectory in played:
        assert trajectory.system == FULL.system
        assert [step.tool for step in trajectory.steps][-2:] == ["submit", "submit"]
        assert "+++" in trajectory.steps[-2].observation


def test_the_prompt_is_part_of_the_configurations_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    player = Player(ByIssue({}), probe(trusted_generated=True))
    (before,) = {t.config_hash for t in player.play(STREAM, STREAM.tasks()[:1])}
    monkeypatch.setitem(play.TOOLKITS, "text", Full(shorten=70_000))  # type: ignore[attr-defined]
    (after,) = {t.config_hash for t in player.play(STREAM, STREAM.tasks()[:1])}
    assert before != after


def test_a_model_without_a_plan_ends_in_its_own_outcome() -> None:
    (played,) = Player(ByIssue({}), probe(trusted_generated=True)).play(STREAM, STREAM.tasks()[:1])
    assert (played.outcome, played.reason) == (Outcome.GAVE_UP, "submitted without a change")


def test_a_night_takes_what_such_a_model_did_word_for_word_and_teaches_it_no_merged_fix() -> None:
    sandbox = probe(trusted_generated=True)
    solved = STREAM.tasks()[0]
    said = ["I think first.", *script(solved.id)]  # no straight way, and taken all the same
    player = Player(ByIssue({solved.issue: said}), sandbox)
    player = replace(player, budget=player.budget.model_copy(update={"steps": 20, "tokens": 10**6, "seconds": 300.0}))
    played = list(player.play(STREAM, STREAM.tasks()))
    pairs = pairs_of_day(STREAM, played, sandbox, merged_fixes=True, terse=False)
    assert [(pair.task_id, pair.source) for pair in pairs] == [(solved.id, "agent")]
    assert pairs[0].untaught == (0,)
    assert pairs[0].messages[0] == ("system", FULL.system)
    assert [text for role, text in pairs[0].messages if role == "assistant"][: len(said)] == said
    told_again = pairs_of_day(STREAM, played, sandbox, merged_fixes=True)
    assert len(told_again) > 1, "a terse model would have been taught more"
