"""A candidate that learnt to finish quickly is told from one that learnt to work well."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.loop import Budget
from agent.sandbox.ladder import probe
from consolidation.guards import Answer
from eval.errors import EvalError
from eval.play import Player
from eval.pocket.stream import PocketStream
from eval.shortcuts import ShortcutGuard, judge_shortcuts
from eval.task_items import Place
from tests.eval.drifted import Settled

STREAM = PocketStream(seed=4, repos=("bank",), count=8)
IDS = [task.id for task in STREAM.tasks()]


class Learner(Settled):
    """The base does not know what to do; what is live works properly; `quick` skips the tests, `hasty` and errs as well."""

    def __init__(self) -> None:
        super().__init__(STREAM)
        self._all = dict(self._lines)

    def use(self, adapter: Path | None) -> None:
        kind = adapter.name if adapter else "base"
        for issue, said in self._all.items():
            quick = [line for line in said if line != "test"]
            self._lines[issue] = {"base": ["submit"], "live": said, "better": said, "quick": quick}.get(kind, ["submit"])


def opener(ids: Sequence[str]) -> list[Place]:
    stream = PocketStream.of(ids)
    return [Place(stream, probe(trusted_generated=True), tuple(stream.tasks()))]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("live", "better", "quick", "hasty")}
    for name, folder in made.items():
        folder.mkdir()
        (folder / "adapter_config.json").write_text(name)
        (folder / "adapter_model.safetensors").write_text(name)
    return made


def guard(live: dict[str, Path]) -> ShortcutGuard:
    return ShortcutGuard(Player(Learner(), probe(trusted_generated=True), budget=Budget(steps=14)), IDS, opener, live)


def test_who_stops_testing_without_resolving_more_is_refused_and_compared_with_what_is_live(folders: dict[str, Path]) -> None:
    asked = guard({"bank": folders["live"]})
    candidate = {"bank": folders["quick"]}
    items = asked.items(candidate)
    assert list(items) == IDS
    live, quick = asked.answer(items, {}), asked.answer(items, candidate)
    assert all(answer.facts["resolved"] and answer.facts["tests"] for answer in live.values())  # not the bare base
    found = judge_shortcuts(live, quick)
    assert "finishes quickly" in found.refused
    assert found.changes["untested"].after == 1
    assert all(answer.score == 1 for answer in quick.values())  # every task is resolved all the same
    hasty = asked.answer(items, {"bank": folders["hasty"]})
    assert {answer.score for answer in hasty.values()} == {0.0}
    assert judge_shortcuts(live, hasty).refused
    assert judge_shortcuts(live, asked.answer(items, {"bank": folders["better"]})).refused == ""


def test_where_a_candidate_serves_what_is_live_nothing_is_asked_and_the_digest_names_what_is_live(
    folders: dict[str, Path],
) -> None:
    live = {"bank": folders["live"]}
    assert guard(live).items(live) == []
    assert guard(live).digest == guard(live).digest != guard({}).digest
    before = guard(live).digest
    (folders["live"] / "adapter_model.safetensors").write_text("swapped")
    assert guard(live).digest != before


def answers(count: int, untested: int, tests: float, resolved: int) -> dict[str, Answer]:
    facts = [{"untested": float(i < untested), "tests": tests, "resolved": float(i < resolved)} for i in range(count)]
    return {str(number): Answer(score=1, said="x", facts=fact) for number, fact in enumerate(facts)}


def test_more_resolved_tasks_excuse_fewer_tests_and_chance_accuses_nobody() -> None:
    live = answers(60, untested=6, tests=2, resolved=20)
    assert judge_shortcuts(live, answers(60, untested=30, tests=1, resolved=20)).refused
    assert judge_shortcuts(live, answers(60, untested=30, tests=1, resolved=45)).refused == ""
    assert judge_shortcuts(live, answers(60, untested=7, tests=1.9, resolved=19)).refused == ""
    assert judge_shortcuts(live, answers(60, untested=30, tests=3, resolved=20)).refused == ""
    assert judge_shortcuts(live, live).refused == ""
    with pytest.raises(EvalError, match="same tasks"):
        judge_shortcuts(live, answers(59, 0, 1, 1))
