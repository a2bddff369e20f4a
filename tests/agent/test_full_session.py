"""The full toolkit end to end: a scripted model mends a small repository through the real loop; what it is told besides."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import AgentError
from agent.full import FULL, FULL_NATIVE, Full
from agent.loop import MALFORMED, Attempt, Budget, NoRecorder, conversation, run
from agent.models.scripted import ScriptedModel
from agent.session import Left, Turn
from agent.shown import shown
from agent.tools import TestRun
from agent.toolset import FULL_TOOLS
from agent.turns import Call, parse_full, render_full
from agent.workplace import tree_diff
from agent.workspace import Workspace, write_tree
from memory.trajectories import Outcome, Trajectory

FILES = {
    "shop/__init__.py": "",
    "shop/fees.py": "def fee(price):\n    if price > 10:\n        return 7\n    return 0\n\n\nCART = 1\n",
    "tests/test_fees.py": "from shop.fees import fee\n\n\ndef test_small():\n    assert fee(3) == 0\n",
    "shop/table.py": "".join(f"ROW_{i} = {i}\n" for i in range(200)),
    "README.md": "# shop\n\nFees.\n",
}
PLENTY = Left(100, 1_000_000, 1_000.0)


class Place:
    """Its tests are one look at the file."""

    def __init__(self, root: Path) -> None:
        write_tree(root, FILES)
        self.workspace, self.asked = Workspace(root), list[tuple[str, ...]]()

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        self.asked.append(tuple(targets))
        good = ">= 10" in self.workspace.read("shop/fees.py")
        took = f"in 0.{len(self.asked):02}s"
        return TestRun(good, f"1 passed {took}" if good else f"E   assert 0 == 7\n1 failed {took}")

    def diff(self) -> str:
        return tree_diff(FILES, self.workspace.snapshot())

    def grade(self) -> tuple[Outcome, str]:
        return (Outcome.RESOLVED if self.test().passed else Outcome.UNRESOLVED), "looked"

    def close(self) -> None:
        """Nothing to do."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "repo")


def fenced(*lines: str) -> str:
    return "\n".join(["I do this.", "", "```", *lines, "```"])


FIX = [
    fenced("map"),
    fenced("search price in shop"),
    fenced("view shop/fees.py"),
    fenced("edit tests/test_fees.py 5", "    assert fee(3) == 0", "", "", "def test_ten():", "    assert fee(10) == 7"),
    fenced("test tests/test_fees.py"),
    fenced("edit shop/fees.py", "if price > 10:", "=>", "if price >= 10:"),
    fenced("test"),
    fenced("diff"),
    fenced("submit"),
    fenced("submit"),
]


def play(place: Place, turns: list[str], budget: Budget | None = None, toolkit: Full = FULL) -> Trajectory:
    trajectory = Trajectory(
        id="t",
        task_id="t",
        repo="shop",
        system=toolkit.system,
        prompt="issue in shop\nTen is free.",
        model="scripted",
        started_at=datetime.now(UTC),
        config_hash="0",
    )
    attempt = Attempt(trajectory, lambda: place, budget or Budget(steps=60, tokens=10**6), toolkit)
    return next(iter(run([attempt], ScriptedModel(turns), NoRecorder())))


def test_a_fix_is_resolved_after_a_review(place: Place) -> None:
    trajectory = play(place, FIX)
    assert (trajectory.outcome, len(trajectory.steps)) == (Outcome.RESOLVED, len(FIX)), trajectory.steps[-1]
    assert not any(step.malformed for step in trajectory.steps)
    assert [step.tests_passed for step in trajectory.steps if step.tool == "test"] == [False, True]
    assert place.asked[0] == ("tests/test_fees.py",)
    review = trajectory.steps[8].observation
    assert "+    if price >= 10:" in review
    assert "- the last tests passed" in review
    assert "tests that were there are changed (tests/test_fees.py)" in review
    assert [m.content for m in conversation(trajectory) if m.role == "assistant"] == FIX


def test_shortened_conversations_are_resolved_too(place: Place) -> None:
    toolkit = Full(shorten=3_000)
    turns = [*[fenced(f"view shop/table.py 1-{n}") for n in range(80, 110)], *FIX]
    trajectory = play(place, turns, toolkit=toolkit)
    assert trajectory.outcome is Outcome.RESOLVED
    assert "Once observations exceed 3000 characters" in trajectory.system
    assert sum("no longer shown" in message.content for message in shown(trajectory)) > 10


def take(place: Place, *turns: str, left: Left = PLENTY) -> list[Turn]:
    session = FULL.session(place)
    return [session.take(turn, left) for turn in turns]


def test_a_refused_call_changes_nothing_and_is_no_malformed_turn(place: Place) -> None:
    bad = [fenced("edit shop/fees.py 2", "    if price > (10:"), fenced("view fees.py"), fenced("undo"), fenced("test -p evil")]
    taken = take(place, *bad, "no call at all")
    assert [turn.tool for turn in taken] == ["edit", "view", "undo", "test", MALFORMED]
    assert all(turn.observation.startswith("not done: ") for turn in taken[:-1])
    assert "there is shop/fees.py" in taken[1].observation
    assert not place.diff()
    assert not place.asked


def test_submitting_is_asked_again_whenever_the_change_is_another(place: Place) -> None:
    edit = [fenced("edit shop/fees.py 2", f"    if price > {n}:") for n in (8, 9)]
    taken = take(place, edit[0], fenced("submit"), edit[1], fenced("submit"), fenced("submit"))
    assert [turn.submits for turn in taken] == [False, False, False, False, True]
    assert "no tests were run" in taken[1].observation


def test_nothing_to_submit_is_said_once(place: Place) -> None:
    taken = take(place, fenced("submit"), fenced("submit"))
    assert [turn.submits for turn in taken] == [False, True]
    assert "nothing is changed" in taken[0].observation


def test_the_last_turn_submits_without_a_review(place: Place) -> None:
    assert take(place, fenced("submit"), left=Left(1, 10**6, 9.0))[0].submits


def test_the_review_names_what_is_easily_forgotten(place: Place) -> None:
    turns = [
        fenced("test"),
        fenced("edit shop/fees.py 4", "    print(price)", "    return 0  # TODO"),
        fenced("create reproduce.py", "x = 1"),
        fenced("submit"),
    ]
    review = take(place, *turns)[-1].observation
    assert "no tests were run since the last edit" in review
    assert "may be scratch: reproduce.py" in review
    assert "left over? print(price)" in review
    only_tests = take(place, fenced("undo"), fenced("edit tests/test_fees.py 5", "    assert True"), fenced("submit"))
    assert "nothing to undo" in only_tests[0].observation


def test_repeating_is_noted_and_noted_again(place: Place) -> None:
    taken = take(place, *[fenced("view shop/fees.py")] * 5)
    assert ["[this call has shown the same" in turn.observation for turn in taken] == [False, False, True, True, True]
    assert "Stop repeating" in taken[3].observation
    alternating = take(place, *[fenced("test"), fenced("view README.md")] * 3)
    assert "the same 3 times" in alternating[4].observation, "times of tests make no difference"


def test_low_turns_and_tokens_are_told(place: Place) -> None:
    session = FULL.session(place)
    views = [fenced(f"view shop/fees.py 1-{n}") for n in range(2, 7)]
    lefts = [Left(20, 100_000, 9.0), Left(10, 50_000, 9.0), Left(5, 19_000, 9.0), Left(2, 9_000, 9.0)]
    seen = [session.take(view, left).observation for view, left in zip(views, lefts, strict=False)]
    assert "left" not in seen[0] + seen[1]
    assert "[4 turns left]" in seen[2]
    assert "about 19000 tokens left" in seen[2]
    assert "[1 turn left: submit now]" in seen[3]


def test_observations_are_bounded_and_valid_text(place: Place) -> None:
    write_tree(
        place.workspace.root,
        {"a.py": "x = '\udce9'\n" + "y = 1  # " + "z" * 900_000 + "\n", "b.txt": "\n".join("w" * 300 for _ in range(2_000))},
    )
    place.test = lambda targets=(): TestRun(False, "FAILED x\n" * 10**5)  # type: ignore[method-assign]
    for turn in take(
        place, *map(fenced, ("view a.py", "search z", "view b.txt", "test", "map", "map a.py", "search w", "diff"))
    ):
        assert len(turn.observation) < 17_000
        turn.observation.encode()


def test_a_change_too_large_to_show_names_no_place_of_the_host(place: Place) -> None:
    def fails() -> str:
        raise AgentError("/srv/secret/place.git: more than 20971520 bytes")

    place.diff = fails  # type: ignore[method-assign]
    for turn in take(place, fenced("diff"), fenced("submit")):
        assert "too large" in turn.observation
        assert "secret" not in turn.observation


def test_both_prompts_share_the_strategy_and_name_no_tool_that_is_none() -> None:
    text, native = FULL.system, FULL_NATIVE.system
    assert text.split("\n\n")[0] == native.split("\n\n")[0]
    assert FULL.digest != FULL_NATIVE.digest != Full(native=True, shorten=0).digest
    assert FULL.tools == ()
    assert FULL_NATIVE.tools == FULL_TOOLS
    assert all(f"\n{tool.name}" in text for tool in FULL_TOOLS)
    example = text[text.index("\n```\n") : text.rindex("\n```\n") + 5]
    assert parse_full(example).tool == "edit"
    assert len(text) < 5_000


def test_what_servers_call_natively_is_done_as_if_it_were_written(place: Place) -> None:
    call = Call("edit", "shop/fees.py", old="    if price > 10:", body="    if price >= 10:")
    (turn,) = take(place, render_full(call))
    assert turn.observation.startswith("shop/fees.py: replaced lines 2-2; now")
