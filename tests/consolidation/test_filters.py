"""What may be trained on: each reason to drop a pair by itself, and what becomes of those that stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agent.model import Message
from agent.pocket import WEIGHTS
from agent.pocket.tokenizer import PocketTokenizer
from agent.session import NOT_DONE
from agent.turns import Call, render_full
from consolidation.encoding import NothingTaught, item_of
from consolidation.errors import ConsolidationError
from consolidation.filters import within_tokens
from consolidation.leaks import HeldOut
from consolidation.pairs import Pair
from consolidation.shortcuts import is_test, passed
from consolidation.strategies.seam import Sample
from consolidation.trainers.base import Example, Job, LoraConfig, Preference
from consolidation.trainers.checks import check_rows
from tests.consolidation.saying import FIX, WALK, encode, filtered, told

TOKENIZER = PocketTokenizer(WEIGHTS / "tokenizer.json")


def test_a_straight_success_passes_and_every_dropped_pair_is_counted_once_and_named() -> None:
    bad = [told(("submit", ""), issue=f"issue in shop\n{n}", task_id=f"t{n}") for n in range(7)]
    found = filtered(told(*WALK), *bad)
    assert [sample.pair.task_id for sample in found.samples] == ["t"]
    assert found.dropped == {"shortcut": 7}
    assert found.shown["shortcut"][0] == "t0, attempt 1, format T of agent by offline"
    assert len(found.shown["shortcut"]) < 7


def test_an_attempt_that_did_not_resolve_its_task_is_dropped_and_a_merged_fix_of_it_is_not() -> None:
    own, merged = told(*WALK, trajectory_id="lost"), told(*WALK, trajectory_id="lost", source="merged_fix", issue="other")
    found = filtered(own, merged, verified=lambda identity: identity != "lost")
    assert [s.pair.source for s in found.samples] == ["merged_fix"]
    assert found.dropped == {"not_verified": 1}


def test_the_first_of_two_equal_pairs_stays_and_a_copy_of_a_dropped_one_is_not_a_duplicate() -> None:
    found = filtered(told(*WALK, task_id="a"), told(*WALK, task_id="b"), told(("submit", "")), told(("submit", "")))
    assert [s.pair.task_id for s in found.samples] == ["a"]
    assert found.dropped == {"duplicate": 1, "shortcut": 2}


@pytest.mark.parametrize(("context", "dropped"), [(31, {}), (30, {"too_long": 1})])
def test_no_conversation_is_cut_and_one_that_just_fits_stays(context: int, dropped: dict[str, int]) -> None:
    assert len(encode(told(("search x", "y " * 20)).conversation())[0]) == 31
    assert filtered(told(("search x", "y " * 20)), context=context).dropped == dropped


@pytest.mark.parametrize(
    "pair",
    [
        told(("", "no call")),
        told(("search x", "y"), untaught=(0,)),
        told(("search x", ""), format="C", rejected=""),
        told(("search x", ""), format="C", rejected="search x"),
        told(("search x", "seen last"), format="C", rejected="search y"),
    ],
)
def test_a_pair_without_a_word_to_learn_is_dropped(pair: Pair) -> None:
    assert filtered(pair, unparseable=False).dropped == {"empty": 1}


@pytest.mark.parametrize(
    ("pair", "reads"),
    [
        (told(("I shall look", "")), False),
        (told(("think first", "no"), ("search x", "y"), untaught=(0,)), True),
        (told(("I look.\n```\nsearch x\n```", "y")), True),
        (told(("I look.\n```\nsearch x\n```\n```\nview y\n```", "y")), False),
        (told((render_full(Call("map")), "y"), system="tools"), True),
        (told((render_full(Call("map")), "y")), False),
        (told(("search x", ""), format="C", rejected="nonsense"), True),
    ],
)
def test_what_the_turn_protocol_cannot_read_is_not_taught(pair: Pair, reads: bool) -> None:
    assert filtered(pair).dropped == ({} if reads else {"unparseable": 1})
    assert not filtered(pair, unparseable=False).dropped


FULL_EDIT = render_full(Call("edit", "shop/fees.py", 7, 7, body=FIX))


@pytest.mark.parametrize(
    "turns",
    [
        (("submit", ""),),
        WALK[:2] + WALK[3:],
        (WALK[1], ("test", "1 failed, 7 passed"), WALK[3]),
        (WALK[1], ("test", "[12 lines of test, no longer shown]"), WALK[3]),
        (WALK[2], WALK[1], WALK[3]),
        (("edit tests/test_fees.py 3\nassert True", "now"), *WALK[2:]),
        (("edit shop/fees_test.py 3\nassert True", "now"), *WALK[2:]),
        (("edit koan.rs 3\n#[ignore]", "now"), ("test", "test result: ok. 3 passed; 0 failed"), WALK[3]),
        (("edit a.py\ndef test_a():\n    f()\n=>\npass", "now"), *WALK[2:]),
    ],
)
def test_getting_it_over_with_is_not_taught(turns: tuple[tuple[str, str], ...]) -> None:
    assert filtered(told(*turns)).dropped == {"shortcut": 1}
    assert not filtered(told(*turns), shortcuts=False).dropped


def full(*calls: tuple[Call, str], **fields: Any) -> Pair:
    return told(*((render_full(call), seen) for call, seen in calls), system="tools", **fields)


GREEN, REVIEW, DONE = (Call("test"), "3 passed in 0.1s"), (Call("submit"), "+ x"), (Call("submit"), "")
CHANGED = (Call("edit", "a.py", 1, 1, body="x"), "done")


@pytest.mark.parametrize(
    ("pair", "passes"),
    [
        (full(CHANGED, GREEN, REVIEW, DONE), True),
        (full(CHANGED, GREEN, (Call("undo"), "taken back"), DONE), False),
        (full(CHANGED, GREEN, (Call("edit", "a.py", 1, 1, body="y"), f"{NOT_DONE}no such line"), DONE), True),
        (full(CHANGED, (Call("test"), f"{NOT_DONE}no such file\n3 passed"), DONE), False),
        (full((Call("delete", "tests/test_a.py"), "gone"), GREEN, DONE), False),
        (full((Call("create", "tests/test_new.py", body="def test_a():\n    f()"), "made"), GREEN, DONE), True),
        (full((Call("create", "tests/test_new.py", body="@pytest.mark.skip\ndef test_a(): f()"), "made"), GREEN, DONE), False),
        (full((Call("edit", "tests/test_a.py", 1, 1, body="x"), "done"), GREEN, DONE, untaught=(0,)), False),
        (full((Call("edit", "tests/test_a.py", 1, 1, body="x"), "done"), (Call("map"), "a.py"), untaught=(0,)), True),
    ],
)
def test_shortcuts_in_the_full_protocol(pair: Pair, passes: bool) -> None:
    assert filtered(pair).dropped == ({} if passes else {"shortcut": 1})


@pytest.mark.parametrize(
    ("how", "seen", "passes"), [("A", "8 passed", True), ("B", "1 failed, 7 passed", False), ("T", "8 passed", False)]
)
def test_a_question_may_tell_of_the_test_that_passed_and_an_issue_may_not(how: str, seen: str, passes: bool) -> None:
    pair = told(("submit", ""), issue=f"issue in shop\nx is wrong\n\ntest\n{seen}", format=how)
    assert filtered(pair).dropped == ({} if passes else {"shortcut": 1})


@pytest.mark.parametrize(
    ("observation", "green"),
    [
        ("0 failed, 8 passed", True),
        ("2 failed, 8 passed", False),
        ("===== 1 passed, 1 error in 0.3s =====", False),
        ("no tests ran in 0.01s", False),
        ("Ran 3 tests in 0.1s\n\nOK (skipped=1)", True),
        ("Ran 3 tests in 0.1s\n\nFAILED (failures=1)", False),
        ("test result: ok. 4 passed; 0 failed; 0 ignored", True),
        ("the tests did not end within 10 s\n3 passed", False),
        ("", False),
    ],
)
def test_only_a_run_that_says_so_has_passed(observation: str, green: bool) -> None:
    assert passed(observation) is green


def test_what_a_test_file_is() -> None:
    assert all(map(is_test, ["tests/a.py", "pkg/tests/deep/a.py", "test_a.py", "a_test.py", "conftest.py", "x/tests.py"]))
    assert not any(map(is_test, ["contest.py", "src/latest/a.py", "attest.py", "testify/a.py"]))


def test_what_the_base_has_mastered_is_dropped_only_where_a_floor_is_set() -> None:
    pairs = [told(("search a", "b"), issue=f"issue {name}", task_id=name) for name in ("known", "new", "both")]
    pairs[2] = pairs[2].model_copy(update={"format": "C", "messages": pairs[2].messages[:2], "rejected": "search z"})
    old = told(("search a", "b"), issue="old", source="rehearsal")
    asked: list[int] = []

    def losses(examples: list[Example]) -> list[float]:
        asked.append(len(examples))
        return [0.01, 0.9, 0.05][: len(examples)]

    assert [s.pair.task_id for s in filtered(old, *pairs, losses=losses, mastered=0.05).samples] == ["t", "new", "both"]
    assert len(filtered(old, *pairs, losses=losses).samples) == 4
    assert asked == [3]
    with pytest.raises(ConsolidationError, match="set it to 0"):
        filtered(*pairs, mastered=0.1)


def test_rehearsed_episodes_are_dropped_as_leak_length_and_empty_alone() -> None:
    odd = told(("not a call", "x"), ("submit", ""), source="rehearsal", task_id="r")
    held = HeldOut(frozenset({"held"}))
    assert len(filtered(odd, odd, odd, held_out=held, verified=lambda _: False).samples) == 3
    assert filtered(odd.model_copy(update={"task_id": "held"}), held_out=held).dropped == {"leak": 1}
    assert filtered(odd, context=3).dropped == {"too_long": 1}


# --- encoding


def test_a_preference_is_two_rows_from_one_prompt_that_training_takes() -> None:
    before = (("search total", "shop/fees.py:7: def total(price):"),)
    pair = told(*before, ("view shop/fees.py", ""), format="C", rejected="view shop/other.py")
    item = item_of(pair, TOKENIZER.example)
    assert isinstance(item, Preference)
    check_rows(Job(base=WEIGHTS, lora=LoraConfig(objective="dpo")), [item], Preference)
    prompt = item.chosen.own.index(True)
    assert TOKENIZER.decode(item.chosen.ids[prompt:-1]).strip() == "view shop/fees.py"
    assert TOKENIZER.decode(item.rejected.ids[prompt:-1]).strip() == "view shop/other.py"
    assert item.rejected.ids[:prompt] == TOKENIZER.example([*pair.conversation()[:-1], Message("assistant", "")])[0][:prompt]


def test_untaught_turns_are_read_and_not_learnt() -> None:
    item = item_of(told(("search wrong", "none"), ("search right", "here"), untaught=(0,)), encode)
    assert isinstance(item, Example)
    ids, own = encode(told(("search wrong", "none"), ("search right", "here")).conversation())
    assert item.ids == ids
    assert [n for n, mine in enumerate(item.own) if mine] == [n for n, mine in enumerate(own) if mine][2:]


def test_what_an_encoder_makes_of_other_prompts_is_no_preference() -> None:
    def shifting(messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        ids, own = encode(messages)
        return ([7, *ids], [False, *own]) if messages[-1].content == "search b" else (ids, own)

    with pytest.raises(NothingTaught, match="same prompt"):
        item_of(told(("search a", ""), format="C", rejected="search b"), shifting)


def sample(attempt: str, tokens: int) -> Sample:
    item = Example(ids=[1] * tokens, own=[True] * tokens)
    return Sample(told(("search x", "y"), trajectory_id=attempt), item)


def test_a_token_budget_is_shared_by_the_attempts_in_turn() -> None:
    rows = [sample("a", 10), sample("a", 10), sample("a", 10), sample("b", 10), sample("c", 40), sample("b", 5)]
    numbers = {id(row): n for n, row in enumerate(rows)}
    assert [numbers[id(s)] for s in within_tokens(rows, 25)] == [0, 3, 5]
    assert [numbers[id(s)] for s in within_tokens(rows, 35)] == [0, 1, 3, 5]
    assert within_tokens(rows, 0) == rows
    for budget in range(1, 100):
        assert sum(s.item.tokens for s in within_tokens(rows, budget)) <= budget
