"""Distilling sessions of other agents: what their calls do, and what may be said of work that nobody graded."""

from datetime import timedelta
from typing import Any

import pytest

from agent.distil import distil
from agent.distil.actions import actions
from agent.distil.foreign import deeds, verdict
from agent.full import FULL
from memory.knowledge.memories import Kind, Memory
from memory.trajectories import Outcome, Step
from tests.agent.lived import CLAUDE, TASK, WHEN, imported, said


def kinds(memories: list[Memory]) -> list[Kind]:
    return [memory.kind for memory in memories]


def test_another_agents_session_is_an_unverified_case_without_a_path_of_its_machine() -> None:
    case, command = distil(imported(*CLAUDE), TASK)
    assert (case.kind, case.origin, case.verified) == (Kind.CASE, "imported", False)
    assert case.where == ("shop/fees.py:fee", "tests/test_ten.py:test_ten")
    assert "-     if price > 10:\n+     if price >= 10:" in case.change
    assert case.shape == "2 files, +2 -1"
    assert case.tried == ("changed `price > 10` to `price > 9` in shop/fees.py: assert 0 == 7",)
    assert case.symptom.startswith("Fees are wrong at ten")
    assert "shop.FeeError: no fee" in case.symptom
    assert (command.kind, command.fact, command.verified) == (Kind.COMMAND, "`python -m pytest tests -q` runs tests", False)
    assert "somebody" not in case.model_dump_json() + command.model_dump_json()
    assert case.recorded_at == WHEN + timedelta(seconds=12)


def test_an_imported_session_that_failed_is_a_warning_and_one_that_shows_no_change_says_nothing() -> None:
    assert kinds(distil(imported(*CLAUDE[:4]), TASK)) == [Kind.WARNING]
    assert kinds(distil(imported(*CLAUDE, outcome=Outcome.OUT_OF_BUDGET), TASK)) == [Kind.WARNING]
    assert distil(imported(*CLAUDE[:2]), TASK) == []
    unsure = (said("Bash", command="make test"), "see the log")
    assert kinds(distil(imported(*CLAUDE, unsure), TASK)) == [Kind.WARNING]


def test_a_resolved_import_is_still_not_verified() -> None:
    memories = distil(imported(*CLAUDE, outcome=Outcome.RESOLVED), TASK)
    assert kinds(memories) == [Kind.CASE, Kind.COMMAND]
    assert not any(memory.verified for memory in memories)


def test_a_windowed_edit_is_of_the_file_that_is_open() -> None:
    shown = "[File: /repo/shop/fees.py (3 lines total)]\n1:def fee(price):\n2:    if price > 10:\n3:        return 7"
    edit = said("bash", command="edit 2:2\n    if price >= 10:\nend_of_edit")
    turns = ((said("bash", command="open shop/fees.py"), shown), (edit, shown.replace("> 10", ">= 10")))
    looked, edited = actions(imported(*turns, reader="swe-agent/1"))
    assert (looked.kind, looked.path) == ("look", "shop/fees.py")
    assert (edited.kind, edited.path, edited.new) == ("edit", "/repo/shop/fees.py", "    if price >= 10:")


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("python -m pytest -x tests/test_a.py", "test"),
        ("cd /repo && timeout 60 ./tests/runtests.py queries", "test"),
        ("PYTHONPATH=. uv run pytest", "test"),
        ("cargo test --lib", "test"),
        ("npm run test", "test"),
        ("./manage.py test shop", "test"),
        ("bin/test sympy/core", "test"),
        ("grep -rn pytest .", "search"),
        ("pip install pytest", "run"),
        ("cat pytest.ini", "look"),
        ("sed -i 's/price > 10/price >= 10/' shop/fees.py", "edit"),
        ("cat <<'EOF' > a.py\nx = 1\nEOF", "create"),
        ("rm -f a.py", "delete"),
        ("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", "submit"),
        ("python fix.py", "run"),
        ("", "run"),
    ],
)
def test_a_shell_command_is_what_it_does(command: str, kind: str) -> None:
    (deed,) = deeds(said("bash", command=command))
    assert deed.kind == kind


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("Edit", {"file_path": "a.py", "old_string": "x", "new_string": "y"}, [("edit", "a.py", "x", "y")]),
        (
            "str_replace_editor",
            {"command": "str_replace", "path": "a.py", "old_str": "x", "new_str": "y"},
            [("edit", "a.py", "x", "y")],
        ),
        ("str_replace_editor", {"command": "create", "path": "a.py", "file_text": "z"}, [("create", "a.py", "", "z")]),
        ("str_replace_editor", {"command": "view", "path": "a.py"}, [("look", "a.py", "", "")]),
        (
            "MultiEdit",
            {"file_path": "a.py", "edits": [{"old_string": "x", "new_string": "y"}] * 2},
            [("edit", "a.py", "x", "y")] * 2,
        ),
        ("Write", {"file_path": "a.py", "content": "z"}, [("create", "a.py", "", "z")]),
        ("submit", {}, [("submit", "", "", "")]),
        ("TodoWrite", {"todos": []}, [("other", "", "", "")]),
        ("Edit", {"file_path": 7, "old_string": ["x"]}, [("edit", "", "", "")]),
    ],
)
def test_a_foreign_call_is_what_it_does(tool: str, arguments: dict[str, Any], expected: list[tuple[str, ...]]) -> None:
    assert [(deed.kind, deed.path, deed.old, deed.new) for deed in deeds(said(tool, **arguments))] == expected


def test_tests_passed_only_if_they_were_seen_to() -> None:
    assert verdict("===== 3 passed in 0.1s =====")
    assert verdict("Ran 4 tests in 0.1s\n\nOK")
    assert verdict("test result: ok. 4 passed; 0 failed; 0 ignored")
    for text in ("", "done", "1 failed, 3 passed", "3 passed, 1 error", "FAILED (failures=1)", "no tests ran in 0.1s"):
        assert not verdict(text), text


def test_a_turn_that_is_no_call_is_other_and_not_ok() -> None:
    step = Step(number=0, said="please wait", observation="not a call", tool="malformed", malformed=True)
    own = imported().model_copy(update={"imported": "", "steps": [step]})
    for trajectory in (own, own.model_copy(update={"system": FULL.system}), own.model_copy(update={"imported": "x/1"})):
        assert [(a.kind, a.ok) for a in actions(trajectory)] == [("other", False)]


def test_of_a_file_outside_what_was_worked_on_the_name_alone_is_kept() -> None:
    turns = [
        (said("Read", file_path="/home/else/notes.md"), "1→x"),
        *CLAUDE,
        (said("Read", file_path="/tmp/me/log.txt"), "1→x"),
    ]
    (warning,) = distil(imported(*turns, outcome=Outcome.GAVE_UP), TASK)
    assert {"notes.md", "log.txt"} <= set(warning.where)
    assert not any(place.startswith("/") for place in warning.where)
