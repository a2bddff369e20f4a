"""Pairs: what may be trained on."""

import random
from datetime import UTC, datetime

import pytest

from agent.full import FULL
from agent.session import NOT_DONE
from agent.tools import edit
from agent.turns import Call, parse_call, render_call
from agent.workspace import Workspace, write_tree
from consolidation.pairs import pairs_of
from consolidation.synthesis.merged_fix import calls_for, edit_between
from consolidation.synthesis.retelling import is_clean
from memory.tasks import MergedFix
from memory.trajectories import Outcome, Step, Trajectory


def steps(*tools: str, failed_at: int | None = None) -> list[Step]:
    return [
        Step(
            number=i,
            said=t,
            observation="",
            tool=t,
            malformed=t == "malformed",
            tests_passed=None if t != "test" else i != failed_at,
        )
        for i, t in enumerate(tools)
    ]


@pytest.mark.parametrize(
    ("taken", "clean"),
    [
        (steps("search", "view", "edit", "test", "submit"), True),
        (steps("search", "edit", "edit", "test", "submit"), False),
        (steps("search", "edit", "test", "submit", failed_at=2), False),
        (steps("malformed", "edit", "test", "submit"), False),
    ],
)
def test_only_straight_successes_are_taken_word_for_word(taken: list[Step], clean: bool) -> None:
    trajectory = Trajectory(
        id="1",
        task_id="t",
        repo="r",
        prompt="p",
        model="m",
        started_at=datetime.now(UTC),
        config_hash="",
        steps=taken,
        outcome=Outcome.RESOLVED,
    )
    assert is_clean(trajectory) is clean
    (pair,) = pairs_of(trajectory, "agent")
    bad = tuple(step.number for step in taken if step.malformed)
    assert (pair.messages[-1], pair.untaught) == (("assistant", "submit"), bad)


def test_an_edit_between_two_texts_makes_the_one_from_the_other(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rng = random.Random(0)
    for _ in range(200):
        old = [rng.choice(["a", "b", "    c", "", "d"]) for _ in range(rng.randint(2, 9))]
        new = list(old)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(new))
            new[at : at + rng.randint(0, 2)] = [rng.choice("xyz") for _ in range(rng.randint(1, 2))]
        before, after = "\n".join(old) + "\n", "\n".join(new) + "\n"
        if before == after:
            continue
        for style in ("lines", "quoted"):
            call = edit_between("m.py", before, after, style)  # type: ignore[arg-type]
            if style == "lines":
                assert parse_call(render_call(call)) == call or call.body.endswith("\n") or call.body.startswith("\n")
            quoted = (call.old or "").split("\n")
            if call.old is not None and sum(old[i : i + len(quoted)] == quoted for i in range(len(old))) > 1:
                continue  # nothing above it could make it unique; the tool refuses it
            write_tree(tmp_path / "w", {"m.py": before})
            workspace = Workspace(tmp_path / "w")
            edit(workspace, call)
            assert workspace.read("m.py") == after, (before, call)


def test_an_insertion_is_never_an_empty_range() -> None:
    call = edit_between("m.py", "def f():\n    x = 1\n", "def f():\n    x = 1\n    return x\n")
    assert call == Call("edit", "m.py", 2, 2, body="    x = 1\n    return x")


def test_no_change_is_no_edit() -> None:
    with pytest.raises(ValueError, match="changes nothing"):
        edit_between("m.py", "a\n", "a\n")


def test_a_fix_is_told_as_the_agents_own_calls() -> None:
    fix = MergedFix(task_id="t", symbol="f", path="m.py", before="def f():\n    return 1\n", after="def f():\n    return 2\n")
    told = [render_call(call) for call in calls_for(fix)]
    assert told == ["search f", "view m.py", "edit m.py 2\n    return 2", "test", "submit"]


def test_a_long_attempt_is_learnt_in_stretches_as_it_was_shown_and_refused_calls_are_not() -> None:
    view = "x" * 3_000
    taken = [Step(number=n, said=f"view {n}", observation=view, tool="view") for n in range(40)]
    taken[3] = taken[3].model_copy(update={"observation": f"{NOT_DONE}there is no such file"})
    taken.append(Step(number=40, said="submit", observation="", tool="submit"))
    trajectory = Trajectory(
        id="1",
        task_id="t",
        repo="r",
        prompt="p",
        system=FULL.system,
        model="m",
        started_at=datetime.now(UTC),
        config_hash="",
        steps=taken,
        outcome=Outcome.RESOLVED,
    )
    pairs = pairs_of(trajectory, "agent")
    assert len(pairs) > 1
    learnt = [
        text
        for pair in pairs
        for number, (_, text) in enumerate(m for m in pair.messages if m[0] == "assistant")
        if number not in pair.untaught
    ]
    assert learnt == [f"view {n}" for n in range(40) if n != 3] + ["submit"]
    for pair in pairs:
        assert sum(len(text) for role, text in pair.messages if role == "tool") <= FULL.shorten + 8 * 3_000
