"""How attempts failed: classes of errors that attempts have in common, and no text of theirs."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.koans.signatures import errors_made as koan_errors
from eval.metrics.rows import attempted, is_useful
from eval.metrics.signatures import MAX_CHARS, errors_made, failure, refusal, signature_of
from eval.pocket.runner import run_tests, summary
from memory.trajectories import Outcome, Step, Trajectory

MOVED = "error[E0382]: borrow of moved value: `names`\n --> koan.rs:3:4"
PANIC = "thread 'tests::example_0' (77) panicked at koan.rs:4:9:\nindex out of bounds: the len is 3 but the index is 7\nnote"
POCKET = "FAILED test_clamp: clamp(5, 1, 3) == 3 but was 5\n1 failed, 2 passed"
PYTEST = """F                                                                        [100%]
____________________________________ test_b ____________________________________
    def test_b():
>       raise KeyError("secret")
E       KeyError: 'secret'

tests/test_a.py:7: KeyError
=========================== short test summary info ============================
FAILED tests/test_a.py::test_b - KeyErr...
1 failed in 0.12s"""
UNITTEST = """ERROR: test_y (tests.test_u.T.test_y)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/somewhere/tests/test_u.py", line 5, in test_y
django.core.exceptions.FieldError: Cannot resolve keyword 'x' into field

FAILED (errors=1)"""


def step(tool: str, observation: str, passed: bool | None = None, **values: object) -> Step:
    body = {"number": 0, "said": tool, "tool": tool, "observation": observation, "tests_passed": passed}
    return Step.model_validate(body | {"malformed": tool == "malformed"} | values)


def trajectory(*steps: Step, outcome: Outcome | None = Outcome.UNRESOLVED, task: str = "a", repo: str = "r") -> Trajectory:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    values = {"id": task, "task_id": task, "repo": repo, "prompt": "p", "model": "m", "started_at": when, "config_hash": "c"}
    return Trajectory.model_validate(values | {"steps": steps, "outcome": outcome})


EDIT = step("edit", "now\n1|x")


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (POCKET, "AssertionError"),
        ("FAILED test_x: assert\n1 failed, 0 passed", "AssertionError"),
        ("FAILED test_x: f(1) == 2 but was KeyError: 'a'\n1 failed, 0 passed", "AssertionError"),
        ("FAILED test_x: SyntaxError in line 4\n1 failed, 0 passed", "SyntaxError"),
        ("FAILED test_x: NameError: name 'y' is not defined\nFAILED test_z: TypeError: no\n2 failed", "NameError"),
        (PYTEST, "KeyError"),
        ("FAILED tests/test_a.py::test_b[1 - 2] - assert 1 == 2\n1 failed in 0.1s", "AssertionError"),
        ("E       assert 1 == 2\nE        +  where 1 = f()\n\nFAILED tests/test_a.py::test_b - ass...", "AssertionError"),
        (UNITTEST, "FieldError"),
        (MOVED, "E0382: borrow of moved value: _"),
        (PANIC, "index out of bounds"),
        ("the tests did not end within 20 s\nTraceb", "timeout"),
        ("no tests", "no tests"),
        ("make: *** [test] Segmentation fault", "tests failed"),
    ],
)
def test_a_failing_run_has_the_class_of_its_first_error(output: str, found: str) -> None:
    assert failure(output) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("assert 1 + 1 == 3", "AssertionError"),
        ("import nothing_here", "ModuleNotFoundError"),
        ("raise StopIteration", "StopIteration"),
    ],
)
def test_what_the_pocket_worlds_own_runner_says_is_understood(tmp_path: Path, body: str, found: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(f"def test_a():\n    {body}\n")
    assert failure(summary(run_tests(tmp_path))) == found


def test_a_refusal_is_told_without_names_and_numbers() -> None:
    assert refusal("src/town/bank.py has 12 lines; view fewer") == refusal("a/b.py has 3 lines") == "refused: _ has 0 lines"
    assert refusal("not done: no file 'it\\'s.py'\nNearest: x.py") == "refused: no file _"
    assert refusal("the old lines are not in the file; copy them exactly") == "refused: the old lines are not in the file"


def test_the_signature_is_the_outcome_and_the_last_error() -> None:
    failing, refused = step("test", POCKET, False), step("malformed", "no file 'x.py'")
    assert signature_of(trajectory(EDIT, failing)) == "unresolved: AssertionError"
    assert signature_of(trajectory(EDIT, failing, refused)) == "unresolved: refused: no file _"
    assert signature_of(trajectory(refused, failing, step("view", "1|x"))) == "unresolved: AssertionError"
    assert signature_of(trajectory(failing, outcome=Outcome.OUT_OF_BUDGET)) == "out_of_budget: AssertionError"
    assert signature_of(trajectory(EDIT, outcome=Outcome.GAVE_UP)) == "gave_up"
    assert signature_of(trajectory(failing, step("test", "1 passed", True))) == "unresolved: the tests it ran passed"


def test_what_resolved_its_task_or_says_nothing_of_the_agent_has_no_error() -> None:
    failing = step("test", POCKET, False)
    assert signature_of(trajectory(EDIT, failing, outcome=Outcome.RESOLVED)) == ""
    assert signature_of(trajectory(EDIT, failing, outcome=Outcome.INFRASTRUCTURE_FAILURE)) == "infrastructure_failure"
    assert signature_of(trajectory(EDIT, failing, outcome=None)) == ""


def test_errors_made_are_those_after_the_first_change_each_once() -> None:
    key, assertion = step("test", PYTEST, False), step("test", POCKET, False)
    refused = step("edit", "not done: no file 'x.py'")
    made = trajectory(key, refused, key, EDIT, assertion, assertion, key, step("test", "ok", True), outcome=Outcome.RESOLVED)
    assert errors_made(made) == ("AssertionError", "KeyError")
    assert errors_made(trajectory(key, refused, key)) == ()
    assert attempted(made).errors == ("AssertionError", "KeyError")
    assert attempted(made).signature == ""


def test_on_rustc_they_are_the_koans_own() -> None:
    one = trajectory(step("test", MOVED, False), EDIT, step("test", PANIC, False), step("test", MOVED, False))
    assert errors_made(one) == tuple(map(str, koan_errors(one)))


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_but_the_infrastructures_says_something_of_the_agent(outcome: Outcome) -> None:
    row = attempted(trajectory(EDIT, outcome=outcome))
    assert row.graded == (outcome != "infrastructure_failure")
    assert row.resolved == (outcome == "resolved") == (row.signature == "")


def test_a_useful_turn_is_a_call_that_was_carried_out() -> None:
    assert is_useful(EDIT)
    assert is_useful(step("test", POCKET, False))
    assert not is_useful(step("malformed", "not a call; use one of: search"))
    assert not is_useful(step("malformed", "no file 'x.py'", malformed=False))
    assert not is_useful(step("edit", "not done: no file 'x.py'"))


def test_an_attempt_is_counted() -> None:
    turns = {"prompt_tokens": 10, "completion_tokens": 2, "seconds": 1.5}
    steps = [step("malformed", "not a call; x", **turns), step("edit", "now", **turns), step("test", "ok", True, **turns)]
    row = attempted(trajectory(*steps, outcome=Outcome.RESOLVED), kind="convention", recalled=True)
    assert (row.steps, row.prompt_tokens, row.completion_tokens, row.seconds) == (3, 30, 6, 4.5)
    assert (row.calls, row.useful_calls, row.useful_seconds, row.malformed, row.green) == (3, 2, 3.0, 1, 3)
    assert (row.kind, row.recalled, row.resolved, row.graded) == ("convention", True, True, True)
    with pytest.raises(ValueError, match="no outcome yet"):
        attempted(trajectory(EDIT, outcome=None))


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_is_read_signatures_are_short_lines(first: str, second: str) -> None:
    for output in (first, f"FAILED {first}: {second}", f"E   {first}Error: {second}", f"not done: {first}", f"{MOVED}{first}"):
        for found in (failure(output), refusal(output)):
            assert found
            assert len(found) <= MAX_CHARS
            assert "\n" not in found


@pytest.mark.timeout(10)
def test_a_long_line_of_nothing_is_read_at_once() -> None:
    assert refusal("a." * 200_000).startswith("refused: ")
    hostile = "a." * 8_000
    assert failure(f"FAILED {hostile}\n{hostile}\nE   {hostile}") == "tests failed"
