"""Distilling: real attempts of both toolkits, other agents' sessions, merged fixes, models that help, and hostile text."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.distil import DISTILLER, distil
from agent.distil.actions import actions
from agent.distil.lessons import MAX_CHANGE, MAX_SYMPTOM, MAX_TRIED, MOST_TRIED
from agent.sandbox.base import Sandbox
from agent.sandbox.ladder import probe
from agent.turns import Call, render_full
from consolidation.synthesis.merged_fix import calls_for, edit_between
from memory.knowledge.memories import Kind, Memory
from memory.tasks import MergedFix, Task
from memory.trajectories import Outcome, Step, Trajectory
from tests.agent.lived import STREAM, TASK, TASKS, imported, played, said


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return probe(trusted_generated=True)


def wrong(fix: MergedFix) -> Call:
    """An edit where the fix goes, that mends nothing."""
    right = edit_between(fix.path, fix.before, fix.after)
    indent = right.body[: len(right.body) - len(right.body.lstrip())]
    return Call("edit", fix.path, right.start, right.end, body=f"{indent}return 'nothing'")


def kinds(memories: Sequence[Memory]) -> list[Kind]:
    return [memory.kind for memory in memories]


def test_a_terse_case_is_the_issue_and_exactly_the_new_lines_of_the_one_edit(sandbox: Sandbox) -> None:
    fixes = {task.issue: STREAM.merged_fix(task) for task in TASKS.values()}
    styles: list[Literal["lines", "quoted"]] = ["lines", "quoted"]
    calls = {issue: calls_for(fix, styles[number % 2]) for number, (issue, fix) in enumerate(fixes.items())}
    trajectories = played(sandbox, calls)
    assert all(trajectory.resolved for trajectory in trajectories)
    assert len(trajectories) == len(TASKS)
    for trajectory in trajectories:
        task = TASKS[trajectory.task_id]
        fix = fixes[task.issue]
        case, *facts = distil(trajectory, task)
        assert (case.kind, case.verified, case.origin, case.symptom) == (Kind.CASE, True, "agent", task.issue)
        assert case.change == edit_between(fix.path, fix.before, fix.after).body
        assert case.where == (f"{fix.path}:{fix.symbol}",)
        assert case.tried == ()
        assert case.created_at == task.created_at
        assert case.recorded_at == trajectory.started_at + timedelta(seconds=sum(s.seconds for s in trajectory.steps))
        assert Kind.COMMAND not in kinds(facts)
    assert distil(trajectories[0], TASKS[trajectories[1].task_id]) == []


def test_the_house_rule_is_one_fact_in_the_same_words_wherever_it_was_seen(sandbox: Sandbox) -> None:
    calls = {task.issue: calls_for(STREAM.merged_fix(task)) for task in TASKS.values()}
    facts = [memory for t in played(sandbox, calls) for memory in distil(t, TASKS[t.task_id]) if memory.kind is Kind.CONVENTION]
    by_repo = {memory.repo: {other.fact for other in facts if other.repo == memory.repo} for memory in facts}
    assert by_repo["bank"] == {"some functions return `cents(...)` of bank.house"}
    assert by_repo["game"] == {"some functions return `listed(...)` of game.house"}
    assert by_repo["farm"] == {"some errors are `FarmError` of farm.house"}
    assert all(memory.verified for memory in facts)


def test_what_failed_first_is_told_and_a_detour_is_no_part_of_the_change(sandbox: Sandbox) -> None:
    task = next(iter(TASKS.values()))
    fix = STREAM.merged_fix(task)
    search, view, right, test, submit = calls_for(fix)
    again = Call("edit", fix.path, right.start, right.start, body=right.body)
    (trajectory,) = played(sandbox, {task.issue: [search, view, wrong(fix), test, again, test, submit]})
    case = distil(trajectory, task)[0]
    assert case.kind is Kind.CASE
    assert case.change == right.body
    assert len(case.tried) == 1
    assert "`return 'nothing'` in " in case.tried[0]
    assert " but was 'nothing'" in case.tried[0]


def test_a_failure_is_a_warning_that_holds_nothing_of_how_it_was_graded(sandbox: Sandbox) -> None:
    task = next(iter(TASKS.values()))
    fix = STREAM.merged_fix(task)
    search, view, _, test, submit = calls_for(fix)
    (trajectory,) = played(sandbox, {task.issue: [search, view, wrong(fix), test, submit]})
    trajectory.reason = "hidden_test_of_secret_id failed"
    (warning,) = distil(trajectory, task)
    assert (warning.kind, warning.verified, warning.outcome) == (Kind.WARNING, False, Outcome.UNRESOLVED)
    assert warning.where == (f"{fix.path}:{fix.symbol}",)
    assert " but was 'nothing'" in warning.tried[0]
    assert "did not resolve the issue" in warning.tried[-1]
    assert not warning.change
    assert "hidden_test" not in warning.model_dump_json()


def test_a_merged_fix_is_told_of_what_was_not_resolved_and_of_nothing_else(sandbox: Sandbox) -> None:
    task = next(task for task in TASKS.values() if task.repo == "bank" and STREAM.merged_fix(task).after.count("cents(") > 1)
    fix = STREAM.merged_fix(task)
    (trajectory,) = played(sandbox, {task.issue: [Call("view", fix.path)]})
    assert trajectory.outcome is Outcome.GAVE_UP
    warning, case, *_ = distil(trajectory, task, fix)
    assert (warning.kind, warning.tried) == (Kind.WARNING, ("the attempt was given up",))
    assert (case.kind, case.origin, case.verified, case.outcome) == (Kind.CASE, "merged_fix", True, Outcome.GAVE_UP)
    assert (case.change, case.symptom) == (edit_between(fix.path, fix.before, fix.after).body, task.issue)
    lost = trajectory.model_copy(update={"outcome": Outcome.INFRASTRUCTURE_FAILURE})
    assert {memory.origin for memory in distil(lost, task, fix)} == {"merged_fix"}
    assert distil(lost, task) == []
    assert distil(trajectory, task, fix.model_copy(update={"task_id": "another"})) == [warning]
    resolved = trajectory.model_copy(update={"outcome": Outcome.RESOLVED})
    assert all(memory.origin == "agent" for memory in distil(resolved, task, fix))


def full_attempt(sandbox: Sandbox) -> tuple[Trajectory, Task, MergedFix]:
    task = next(task for task in TASKS.values() if task.repo == "bank")
    fix = STREAM.merged_fix(task)
    right = edit_between(fix.path, fix.before, fix.after)
    quoted = edit_between(fix.path, fix.before, fix.after, "quoted")
    module = fix.path.removesuffix(".py").partition("/")[2]
    tests = Call("test", targets=(f"tests/test_{module}.py",))
    calls = [
        Call("map"),
        Call("search", fix.symbol),
        Call("view", fix.path),
        wrong(fix),
        tests,
        Call("undo"),
        Call("create", "notes/scratch.md", body="x"),
        Call("delete", "notes/scratch.md"),
        quoted,
        tests,
        Call("submit"),
        Call("submit"),
    ]
    (trajectory,) = played(sandbox, {task.issue: calls}, "text")
    assert trajectory.resolved, [step.observation for step in trajectory.steps]
    assert right.body
    return trajectory, task, fix


def test_a_full_attempt_is_a_case_with_its_diff_its_place_and_the_command_that_tests_it(sandbox: Sandbox) -> None:
    trajectory, task, fix = full_attempt(sandbox)
    case, *facts = distil(trajectory, task)
    assert [a.kind for a in actions(trajectory)][:4] == ["look", "search", "look", "edit"]
    assert (case.kind, case.verified, case.where) == (Kind.CASE, True, (f"{fix.path}:{fix.symbol}",))
    lines = case.change.split("\n")
    before, after = fix.before.split("\n"), fix.after.split("\n")
    assert [line[2:] for line in lines if line.startswith("- ")] == [line for line in before if line not in after]
    assert [line[2:] for line in lines if line.startswith("+ ")] == [line for line in after if line not in before]
    assert case.shape.startswith("1 file, +")
    assert len(case.tried) == 1
    module = fix.path.removesuffix(".py").partition("/")[2]
    test = f"tests/test_{module}.py"
    told = {(memory.kind, memory.fact) for memory in facts}
    assert (Kind.COMMAND, f"`test {test}` runs the tests of {fix.path}") in told
    assert (Kind.CONVENTION, f"tests of {fix.path} are in {test}") in told


HOSTILE = st.one_of(
    st.text(max_size=200),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Lu"]), max_size=60),
    st.sampled_from(["\0", "\ud800", "x" * 60_000, "1|a\n" * 2_000, "E   \x1b[31mboom\x07", "[9 characters cut]\n3|x"]),
)
CALLS = st.one_of(
    HOSTILE,
    st.builds(lambda a, b: f"edit a.py {a}-{a + b}\nx\ny", st.integers(-2, 10**6), st.integers(0, 9)),
    st.builds(lambda text: f"```\nedit a.py\n{text}\n=>\n{text}x\n```", HOSTILE),
    st.builds(lambda text, other: said("Edit", file_path="/a/b.py", old_string=text, new_string=other), HOSTILE, HOSTILE),
    st.builds(lambda text: said("bash", command=text), HOSTILE),
    st.builds(lambda n, text: said("insert", path="b.py", insert_line=n, text=text), st.integers(-5, 10**9), HOSTILE),
    st.sampled_from(
        ["view a.py", "test", "```\nundo\n```", "```\ncreate a.py\nx\n```", "```\ndelete a.py\n```", "```\ntest t\n```"]
    ),
)
STEPS = st.builds(
    Step,
    number=st.just(0),
    said=CALLS,
    observation=HOSTILE,
    tool=st.sampled_from(["edit", "view", "test", "malformed"]),
    malformed=st.booleans(),
    tests_passed=st.sampled_from([None, True, False]),
    seconds=st.sampled_from([0.0, 2.5, -1.0, float("nan"), float("inf"), 1e300]),
)


@given(
    st.lists(STEPS, max_size=6),
    st.sampled_from(list(Outcome)),
    st.sampled_from(["", "claude-code/1", "swe-agent/1"]),
    st.sampled_from(["", "You fix issues."]),
    HOSTILE.filter(bool),
    HOSTILE,
)
@settings(max_examples=150, deadline=None)
def test_whatever_was_said_and_seen_memories_are_bounded_proper_and_the_same_every_time(
    steps: list[Step], outcome: Outcome, reader: str, system: str, issue: str, after: str
) -> None:
    trajectory = imported(outcome=outcome).model_copy(update={"imported": reader, "system": system, "steps": steps})
    task = TASK.model_copy(update={"issue": issue, "repo": f"r{issue[:9]}"})
    fix = MergedFix(task_id="t", symbol="f", path="a.py", before="x\n", after=after)
    memories = distil(trajectory, task, fix)
    assert memories == distil(trajectory, task, fix)
    for memory in memories:
        assert Memory.model_validate_json(memory.model_dump_json()) == memory
        assert len(memory.id) == 16
        assert len(memory.symptom) <= MAX_SYMPTOM
        assert len(memory.change) <= MAX_CHANGE
        assert len(memory.tried) <= MOST_TRIED
        assert all(len(text) <= MAX_TRIED for text in memory.tried)
        assert len(memory.fact) <= 200
        assert len(memory.where) <= 8
        assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in memory.text if ord(c) < 0x300)
        assert memory.distiller == DISTILLER


def test_megabytes_take_no_time() -> None:
    long = "1|" + "x" * 10**6
    lines = "".join(f"{n}|line {n % 3}\n" for n in range(1, 60_000))
    turns = [(said("Read", file_path="a.py"), lines), (said("Write", file_path="a.py", content="line 1\n" * 10_000), long)]
    turns += [
        (said("bash", command="cat <<A\n" * 20_000), long),
        (said("Edit", file_path="b.py", old_string="x" * 10**6, new_string=""), ""),
    ]
    began = datetime.now(UTC)
    assert distil(imported(*turns * 3), TASK)
    assert (datetime.now(UTC) - began).total_seconds() < 5


def told(*turns: tuple[Call, str, bool | None]) -> Trajectory:
    steps = [
        Step(number=n, said=render_full(call), observation=seen, tool=call.tool, tests_passed=passed)
        for n, (call, seen, passed) in enumerate(turns)
    ]
    more = {"imported": "", "system": "You fix issues.", "steps": steps, "outcome": Outcome.RESOLVED}
    return imported().model_copy(update=more)


FIRST = (Call("edit", "a.py", 1, 1, body="a = 1"), "a.py: replaced lines 1-1; now\n1|a = 1", None)
SECOND = (Call("edit", "b.py", 1, 1, body="b = 1"), "b.py: replaced lines 1-1; now\n1|b = 1", None)
FAILED = (Call("test"), "E   assert 0 == 1\n1 failed", False)
PASSED = (Call("test"), "1 passed", True)


def test_what_was_taken_back_is_no_part_of_the_change_and_what_was_kept_did_not_fail() -> None:
    undone = (Call("undo"), "a.py: as it was before the last edit; 0 earlier changes left", None)
    case = distil(told(FIRST, FAILED, undone, SECOND, PASSED), TASK)[0]
    assert (case.where, case.tried) == (("b.py",), ("added `a = 1` in a.py: assert 0 == 1",))
    case = distil(told(FIRST, FAILED, SECOND, PASSED), TASK)[0]
    assert (case.where, case.tried) == (("a.py", "b.py"), ())
