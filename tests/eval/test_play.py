"""Playing, grading and learning from a day, in a real sandbox, with models that follow scripts."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.model import Completion, Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.sandbox.base import Sandbox
from agent.sandbox.ladder import probe
from agent.turns import parse_call, render_call
from agent.workplace import Workplace
from consolidation.synthesis.merged_fix import calls_for
from eval.errors import EvalError
from eval.experience import pairs_of_day
from eval.grading import grade
from eval.play import Player, by_kind
from eval.pocket.stream import PocketStream
from eval.pocket.world import CONVENTION_KIND
from memory.store import Store
from memory.tasks import MergedFix, Task
from memory.trajectories import Outcome

STREAM = PocketStream(seed=4, repos=("bank", "garden"), count=6)


class Knowing(ScriptedModel):
    """Knows the merged fix of some tasks, from the issue alone; `wrong_first` makes it err before."""

    def __init__(self, fixes: dict[str, MergedFix], wrong_first: bool = False) -> None:
        super().__init__()
        self.lines = {issue: self._lines(fix, wrong_first) for issue, fix in fixes.items()}
        self.used: list[Path | None] = []

    @staticmethod
    def _lines(fix: MergedFix, wrong_first: bool) -> list[str]:
        calls = [render_call(call) for call in calls_for(fix)]
        return [calls[0], "please wait", *calls[1:]] if wrong_first else calls

    def use(self, adapter: Path | None) -> None:
        self.used.append(adapter)

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        answers = []
        for messages in conversations:
            script = self.lines.get(messages[0].content.partition("\n")[2], [])
            turn = sum(m.role == "assistant" for m in messages)
            answers.append(Completion(script[turn] if turn < len(script) else "submit", 0, 0))
        return answers


def knowing(stream: PocketStream, convention: bool, wrong_first: bool = False) -> Knowing:
    tasks = [t for t in stream.tasks() if (stream.secret(t).kind == CONVENTION_KIND) == convention]
    return Knowing({t.issue: stream.merged_fix(t) for t in tasks}, wrong_first)


class Closed(PocketStream):
    """What its tasks need was taken away since they were played."""

    def open(self, task: Task, root: Path, sandbox: Sandbox) -> Workplace:
        raise EvalError("mine the repository again")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return probe(trusted_generated=True)


def test_every_task_ends_in_one_outcome_and_only_known_ones_are_resolved(sandbox: Sandbox, tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        played = list(Player(knowing(STREAM, False), sandbox, store).play(STREAM, STREAM.tasks()))
        assert sorted(t.task_id for t in played) == sorted(t.id for t in STREAM.tasks())
        table = by_kind(STREAM, played)
        assert table[CONVENTION_KIND].resolved == 0
        assert sum(t.resolved for kind, t in table.items() if kind != CONVENTION_KIND) == 6
        assert len(store.trajectories(outcome=Outcome.RESOLVED)) == 6
        assert len(store.trajectories(outcome=Outcome.GAVE_UP)) == 6
    assert len({t.config_hash for t in played}) == 1


def test_tasks_are_routed_to_their_adapter_and_the_rest_to_the_base(sandbox: Sandbox, tmp_path: Path) -> None:
    model = knowing(STREAM, True)
    played = list(Player(model, sandbox).play(STREAM, STREAM.tasks(), {"garden": tmp_path / "abc"}))
    assert {t.repo: t.adapter for t in played} == {"bank": None, "garden": "abc"}
    assert model.used[-1] is None
    assert set(model.used) == {None, tmp_path / "abc"}


class TestGrading:
    def test_the_merged_fix_resolves_and_the_start_does_not(self, sandbox: Sandbox) -> None:
        for task in STREAM.tasks():
            secret, files = STREAM.secret(task), STREAM.checkout(task)
            assert grade(secret, files, sandbox)[0] is Outcome.UNRESOLVED
            assert grade(secret, {**files, secret.fix.path: secret.fix.after}, sandbox)[0] is Outcome.RESOLVED

    def test_changed_tests_do_not_help(self, sandbox: Sandbox) -> None:
        task = STREAM.tasks()[0]
        secret, files = STREAM.secret(task), STREAM.checkout(task)
        emptied = {path: "" if path.startswith("tests/") else text for path, text in files.items()}
        assert grade(secret, emptied, sandbox)[0] is Outcome.UNRESOLVED

    @pytest.mark.parametrize(
        "source",
        ["import os\nos._exit(0)\n", "raise SystemExit(0)\n", "", "while True:\n    pass\n", "import sys\nsys.exit(0)\n"],
    )
    def test_absence_of_failure_is_no_pass(self, sandbox: Sandbox, source: str) -> None:
        task = STREAM.tasks()[0]
        secret, files = STREAM.secret(task), STREAM.checkout(task)
        assert grade(secret, {**files, secret.fix.path: source}, sandbox)[0] is Outcome.UNRESOLVED

    def test_a_module_that_shadows_the_library_does_not_reach_the_runner(self, sandbox: Sandbox) -> None:
        task = STREAM.tasks()[0]
        secret, files = STREAM.secret(task), STREAM.checkout(task)
        shadow = {
            "json.py": "raise SystemExit(0)\n",
            "ast.py": "raise SystemExit(0)\n",
            "sitecustomize.py": "raise SystemExit(0)\n",
        }
        assert grade(secret, {**files, **shadow}, sandbox)[0] is Outcome.UNRESOLVED
        fixed = {**files, **shadow, secret.fix.path: secret.fix.after}
        assert grade(secret, fixed, sandbox)[0] is Outcome.RESOLVED


class TestExperience:
    def test_merged_fixes_are_a_source_of_their_own_that_can_be_switched_off(self, sandbox: Sandbox) -> None:
        played = list(Player(knowing(STREAM, False), sandbox).play(STREAM, STREAM.tasks()))
        both = pairs_of_day(STREAM, played, sandbox, merged_fixes=True)
        own = pairs_of_day(STREAM, played, sandbox, merged_fixes=False)
        assert [p.source for p in own] == ["agent"] * 6
        assert [p.source for p in both] == ["agent"] * 6 + ["merged_fix"] * 6
        assert not {p.task_id for p in own} & {p.task_id for p in both if p.source == "merged_fix"}

    def test_examples_are_turns_that_were_executed_and_passed(self, sandbox: Sandbox) -> None:
        played = list(Player(Knowing({}), sandbox).play(STREAM, STREAM.tasks()))
        for pair in pairs_of_day(STREAM, played, sandbox, merged_fixes=True):
            said = [text for role, text in pair.messages if role == "assistant"]
            assert [parse_call(s).tool for s in said] == ["search", "view", "edit", "test", "submit"]
            assert pair.messages[-2][1].startswith("0 failed, ")

    def test_a_detour_is_told_again_without_it(self, sandbox: Sandbox) -> None:
        played = list(Player(knowing(STREAM, True, wrong_first=True), sandbox).play(STREAM, STREAM.tasks()))
        assert sum(t.resolved for t in played) == 6
        assert all(any(s.malformed for s in t.steps) for t in played if t.resolved)
        pairs = pairs_of_day(STREAM, played, sandbox, merged_fixes=False)
        assert len(pairs) == 6
        assert all(p.source == "agent" and "please wait" not in str(p.messages) for p in pairs)

    def test_tasks_that_cannot_be_opened_any_more_teach_nothing_and_stop_no_night(self, sandbox: Sandbox) -> None:
        played = list(Player(knowing(STREAM, True, wrong_first=True), sandbox).play(STREAM, STREAM.tasks()))
        assert pairs_of_day(Closed(seed=4, repos=("bank", "garden"), count=6), played, sandbox, merged_fixes=True) == []

    def test_no_hidden_test_reaches_an_example(self, sandbox: Sandbox) -> None:
        played = list(Player(Knowing({}), sandbox).play(STREAM, STREAM.tasks()))
        tasks = {t.id: t for t in STREAM.tasks()}
        for pair in pairs_of_day(STREAM, played, sandbox, merged_fixes=True):
            text = str(pair.messages)
            assert not any(hidden in text for hidden in STREAM.secret(tasks[pair.task_id]).tests.values())
