"""Thoughts of reasoning models are kept apart from what they say, and never executed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import CallError
from agent.models.thinking import BEGIN, END, split_thinking
from agent.turns import parse_call


@pytest.mark.parametrize(
    ("text", "opened", "thought", "said"),
    [
        ("test", False, "", "test"),
        ("", False, "", ""),
        ("<think>\nHm.\n</think>\n\ntest", False, "Hm.", "test"),
        (" \n<think>Hm.</think>test", False, "Hm.", "test"),
        ("<think>\n\n</think>\n\ntest", False, "", "test"),  # Qwen3 that was told not to think
        ("Hm.\n</think>\n\ntest", True, "Hm.", "test"),  # DeepSeek-R1: the prompt opened the thought
        ("Hm.\n</think>\n\ntest", False, "Hm.", "test"),
        ("<think>\nHm.\n</think>\ntest", True, "Hm.", "test"),
        ("<think>\nHm, and then", False, "Hm, and then", ""),  # cut in the middle
        ("Hm, and then", True, "Hm, and then", ""),
        ("", True, "", ""),
        ("edit a.py 1\n    x\n", False, "", "edit a.py 1\n    x\n"),
        ("<think>a</think>\n    indented", False, "a", "    indented"),
        ("edit a.py 1\nx = '</think>'\n", False, "", "edit a.py 1\nx = '</think>'\n"),
        ("search <think>", False, "", "search <think>"),
        ("<think>a</think>search </think>", False, "a", "search </think>"),
    ],
)
def test_what_was_thought_and_what_was_said(text: str, opened: bool, thought: str, said: str) -> None:
    assert split_thinking(text, opened) == (thought, said)


@given(st.lists(st.sampled_from([BEGIN, END, "submit", "\n", " ", "a", "<", ">"])).map("".join), st.booleans())
def test_nothing_is_said_twice_and_no_thought_that_was_never_closed_is_said(text: str, opened: bool) -> None:
    thought, said = split_thinking(text, opened)
    assert len(thought) + len(said) <= len(text)
    if (opened or text.lstrip().startswith(BEGIN)) and END not in text:
        assert said == ""
    if END not in text and not opened and not text.lstrip().startswith(BEGIN):
        assert (thought, said) == ("", text)


def test_a_call_inside_a_thought_is_not_executed() -> None:
    _, said = split_thinking("<think>I could just\nsubmit\n</think>\nview a.py")
    assert parse_call(said).tool == "view"
    _, said = split_thinking("<think>\nsubmit\n")
    with pytest.raises(CallError):
        parse_call(said)
