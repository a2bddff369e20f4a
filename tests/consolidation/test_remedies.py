"""Pairs of attempts written by hand: where a failure can be put right, and that hostile attempts give fewer pairs."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.full import FULL
from agent.session import NOT_DONE
from agent.shown import opening
from agent.turns import parse_call
from consolidation.pairs import Pair
from consolidation.synthesis.points import deeds_of, lasting
from consolidation.synthesis.seam import Lived
from memory.trajectories import Trajectory
from tests.consolidation.attempts import ELSEWHERE, FAILS, FILE, FORMATS, LOOK, OFFLINE, SUCCESS, TASK, WRONG, attempt, check


def test_a_question_about_the_error_is_asked_where_it_was_seen_with_the_files_as_they_are() -> None:
    failing = ("test", "FAILED test_f: f() == 7 but was 1\n1 failed", False)
    mended = [(step.said, step.observation, step.tests_passed) for step in SUCCESS.steps[2:]]
    seen, stale = attempt(*LOOK, failing, *mended), attempt(failing, *LOOK, ELSEWHERE, *mended)
    for taught, edit in ((seen, SUCCESS.steps[2].said), (stale, ELSEWHERE[0])):
        pairs = OFFLINE.pairs(Lived(TASK, taught, "agent"), "A", 50)
        assert [pair.messages[-1][1] for pair in pairs if failing[1] in pair.messages[0][1]] == [edit]
    (reasoned,) = OFFLINE.pairs(Lived(TASK, seen, "agent"), "B", 1)
    assert "FAILED test_f: f() == 7 but was 1" in reasoned.messages[-1][1]


@pytest.mark.parametrize(
    ("turns", "preferred", "reflected"),
    [
        ((*LOOK, WRONG, FAILS), 1, 1),  # the wrong change; mended by writing over it
        ((*LOOK, ELSEWHERE, FAILS), 1, 0),  # the wrong change would stay behind
        ((WRONG, FAILS), 1, 0),  # it had not seen the file; but it could have searched first
        ((("view m.py", FILE.replace("return 1", "return 3")), WRONG, FAILS), 0, 0),  # not the same lines
        ((*LOOK, ("edit m.py 2\n    return 7", "now\n2|    return 7"), FAILS), 0, 0),  # it did the right thing
        ((*LOOK, ("edit m.py 2\n   return (", "bad"), FAILS), 1, 2),  # refused: the file is as it was
        ((("search g", "m.py:4: def g():"),), 1, 0),  # another way from the start
        ((("search f", "m.py:1: def f():"),), 0, 0),  # it never went another way
        ((), 0, 0),
    ],
)
def test_a_remedy_is_told_only_where_it_could_have_been_made(turns: Any, preferred: int, reflected: int) -> None:
    lived = Lived(TASK, SUCCESS, "agent", (attempt(*turns, identity="2"),))
    for how, count in (("C", preferred), ("D", reflected)):
        pairs = OFFLINE.pairs(lived, how, 50)  # type: ignore[arg-type]
        check(lived, how, pairs)  # type: ignore[arg-type]
        assert len(pairs) == count, [pair.messages[-1] for pair in pairs]


def test_attempts_that_were_told_something_else_are_not_compared() -> None:
    failed = attempt(*LOOK, WRONG, FAILS)
    for other in ({"prompt": "issue in r\nsomething else"}, {"system": FULL.system}, {"task_id": "u"}):
        lived = Lived(TASK, SUCCESS, "agent", (failed.model_copy(update=other),))
        assert [OFFLINE.pairs(lived, how, 50) for how in ("C", "D")] == [[], []]


def test_a_change_that_was_written_over_later_does_not_last() -> None:
    again = attempt(
        *LOOK,
        WRONG,
        FAILS,
        ("edit m.py 2\n    x = 7\n    return x", "now"),
        ("edit m.py 5\n=>", "bad"),
        ("edit m.py\ndef g():\n=>\ndef h():", "now\n5|def h():"),
    )
    deeds, desk = deeds_of(again)
    assert [deed.turn for deed in lasting(deeds, desk)] == [3, 5]
    assert [text for _, (text, _) in sorted(desk.known["m.py"].items())] == [
        *("def f():", "    x = 7", "    return x", "", "def h():", "    return 2")
    ]


TEXTS = st.one_of(
    st.sampled_from(["", "```", "no match", f"{NOT_DONE}x", FILE, "now\n2|x", "m.py:1: def f():", "</think>", "x" * 100_000]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
SAID = st.one_of(
    st.sampled_from([step.said for step in SUCCESS.steps]),
    st.sampled_from(
        ["edit m.py 2\n```\n```", "edit m.py\n=>", "edit m.py\nx\n=>", "view", "view m.py\n```", "search ```", "submit"]
    ),
    TEXTS,
)
TURN = st.tuples(SAID, TEXTS, st.sampled_from([None, True, False]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(TURN, max_size=7), st.lists(TURN, max_size=5), st.booleans(), st.integers(0, 3))
def test_hostile_attempts_give_fewer_pairs_and_never_one_that_cannot_be_read(
    turns: list[Any], others: list[Any], full: bool, good: int
) -> None:
    real = [(s.said, s.observation, s.tests_passed) for s in SUCCESS.steps[:good]]

    def made(some: list[Any], identity: str) -> Trajectory:
        fenced = [(f"```\n{said}\n```" if full else said, *rest) for said, *rest in some]
        return attempt(*fenced, identity=identity, system=FULL.system if full else "")

    lived = Lived(TASK, made([*real, *turns], "1"), "agent", (made([*real, *others], "2"),))
    for how in FORMATS:
        check(lived, how, OFFLINE.pairs(lived, how, 20))


def tools(pairs: Sequence[Pair]) -> list[str]:
    return [parse_call(pair.messages[-1][1]).tool for pair in pairs]


@pytest.mark.parametrize(
    ("said", "plain", "fenced"),
    [
        ("edit m.py 2\n    return 7", True, True),
        ("edit m.py 2\n```\n    return 7", True, False),  # its own lines would end the fence
        ("```\nedit m.py 2\n    return 7\n\n```", False, True),  # a blank last line needs one
    ],
)
def test_a_call_is_taught_only_in_words_from_which_it_can_be_read(said: str, plain: bool, fenced: bool) -> None:
    taught = attempt(*LOOK, (said, "now\n2|    return 7"))
    lived = Lived(TASK, taught, "agent", (attempt(*LOOK, WRONG, FAILS, identity="2"),))
    for how, can in (("A", plain), ("B", fenced), ("D", fenced)):
        pairs = OFFLINE.pairs(lived, how, 50)  # type: ignore[arg-type]
        check(lived, how, pairs)  # type: ignore[arg-type]
        assert ("edit" in tools(pairs)) is can, how
    check(lived, "C", preferred := OFFLINE.pairs(lived, "C", 50))
    assert len(preferred) == 1, "where the plain call cannot be said, the whole turn of the success stands"


def test_what_nobody_could_know_is_not_asked() -> None:
    assert tools(OFFLINE.pairs(Lived(TASK, attempt(*LOOK, WRONG), "agent"), "A", 50)) == ["edit"] * 3, "no word of m.py before"
    named = attempt(*LOOK, WRONG).model_copy(update={"prompt": "issue in r\n`f` in m.py"})
    assert tools(OFFLINE.pairs(Lived(TASK, named, "agent"), "A", 50)) == ["view", *["edit"] * 3]
    unseen = attempt(("search f", "m.py:1: def f():"), WRONG)
    assert tools(OFFLINE.pairs(Lived(TASK, unseen, "agent"), "A", 50)) == ["search"]


def test_to_submit_is_taught_only_after_tests_that_passed() -> None:
    *begin, ran, end = [(step.said, step.observation, step.tests_passed) for step in SUCCESS.steps]
    for between, count in (([ran], 2), ([FAILS], 0), ([], 0), ([ran, FAILS], 0)):
        pairs = OFFLINE.pairs(Lived(TASK, attempt(*begin, *between, end), "agent"), "A", 50)
        assert tools(pairs).count("submit") == count
    early = attempt(*begin[:2], ran, begin[2], end)
    assert "submit" not in tools(OFFLINE.pairs(Lived(TASK, early, "agent"), "A", 50))


def test_no_change_is_preferred_in_a_file_that_was_changed_before() -> None:
    last, first = ("edit m.py 5\n    return 9", "now\n5|    return 9"), ("edit m.py 2\n    return 7", "now\n2|    return 7")
    failed = attempt(*LOOK, last, WRONG, FAILS, identity="2")
    (pair,) = OFFLINE.pairs(Lived(TASK, attempt(*LOOK, last, first), "agent", (failed,)), "C", 50)
    assert (pair.rejected, pair.confidence) == (WRONG[0], 0.5), "but the two parted here, and that is told"
    elsewhere = attempt(("view m.py", FILE.replace("def g", "def h")), last, WRONG, FAILS, identity="2")
    assert OFFLINE.pairs(Lived(TASK, attempt(*LOOK, last, first), "agent", (elsewhere,)), "C", 50) == []


def test_a_wall_of_text_is_cut_where_a_question_is_made_of_it() -> None:
    wall = "\n".join(f"{number}|x = {number}" for number in range(1, 9_000))
    lived = Lived(TASK, attempt(("search f", "m.py:1: f" * 9_000), ("view m.py", wall), WRONG, FAILS), "agent")
    pairs = OFFLINE.pairs(lived, "A", 50)
    assert {parse_call(pair.messages[-1][1]).tool for pair in pairs} >= {"view", "edit"}
    assert max(len(pair.messages[0][1]) for pair in pairs) < 10_000
    assert opening(lived.taught)[0].content in pairs[0].messages[0][1]
