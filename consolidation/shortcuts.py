"""Attempts that would teach to get a task over with instead of solving it (FACTS 10.12: "finish quickly")."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from agent.errors import CallError
from agent.session import NOT_DONE, SUBMIT
from agent.turns import Call, parse_call, parse_full
from consolidation.encoding import taught_turns
from consolidation.pairs import Pair

CHANGES = frozenset({"edit", "create", "delete", "undo"})
_TESTS = frozenset({"test", "tests", "testing"})
_TEST_FILE = re.compile(r"test_.*|.*_tests?\.\w+|tests?\.\w+|conftest\.py")
_SKIPS = re.compile(r"\b(?:skip|skipif|skiptest|skipunless|xfail|importorskip)\b|collect_ignore|#\[ignore", re.IGNORECASE)
_CASES = re.compile(r"^\s*(?:async\s+)?def test|#\[test\]", re.MULTILINE)
_GOOD = re.compile(r"\b[1-9]\d* (?:tests? )?pass(?:ed)?\b|^OK\b|\btest result: ok\b", re.MULTILINE)
_BAD = re.compile(
    r"\b[1-9]\d* (?:failed|failures?|errors?|exceptions?)\b|^FAILED\b|\btest result: FAILED|^the tests did not end",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Said:
    """One of the agent's turns, and what it was shown in return; `call` is None where the turn protocol reads none."""

    call: Call | None
    observation: str
    taught: bool


def turns_of(pair: Pair) -> list[Said]:
    """The agent's turns of a pair, in order; with a system prompt it speaks the full protocol."""
    parse = parse_full if any(role == "system" for role, _ in pair.messages) else parse_call
    learnt = set(taught_turns(pair))
    found: list[Said] = []
    for at, (role, text) in enumerate(pair.messages):
        if role != "assistant":
            continue
        try:
            call = parse(text)
        except CallError:
            call = None
        after = pair.messages[at + 1] if at + 1 < len(pair.messages) else ("", "")
        found.append(Said(call, after[1] if after[0] == "tool" else "", len(found) in learnt))
    return found


def passed(observation: str) -> bool:
    """Whether a test run says that tests passed and none failed, as the pocket runner, pytest, unittest and cargo say it."""
    return _GOOD.search(observation) is not None and _BAD.search(observation) is None


def told_green(pair: Pair) -> bool:
    """Whether a pair that tells the work as a question says that the tests passed (an issue may say so of anything)."""
    return pair.format in ("A", "B", "C", "D") and passed("\n".join(text for role, text in pair.messages if role == "user"))


def shortcut(turns: Sequence[Said], tested: bool = False) -> str:
    """What a pair teaches that it should not, or nothing; `tested` is how the tests stood before its first turn.

    It submits what no passing test run has seen since the last change, gives up at once, or, on the way to what it
    teaches, changes or removes tests or has them skipped. A new test file is none.
    """
    submits = any(turn.taught and turn.call is not None and turn.call.tool == SUBMIT for turn in turns)
    for number, turn in enumerate(turns):
        call = turn.call
        if call is None or turn.observation.startswith(NOT_DONE):
            continue
        if call.tool == "test":
            tested = passed(turn.observation)
        elif call.tool in CHANGES:
            tested = False
            if (turn.taught or submits) and (why := _against_tests(call)):
                return why
        elif call.tool == SUBMIT and turn.taught and not tested:
            return "gives up" if number == 0 else "submits without a test that passed"
    return ""


def _against_tests(call: Call) -> str:
    if call.tool in ("edit", "delete") and is_test(call.target):
        return "changes the tests"
    if (is_test(call.target) or call.target.endswith(".rs")) and len(_SKIPS.findall(call.body)) > len(
        _SKIPS.findall(call.old or "")
    ):
        return "skips tests"
    if len(_CASES.findall(call.old or "")) > len(_CASES.findall(call.body)):
        return "removes tests"
    return ""


def is_test(path: str) -> bool:
    """Whether a file is one of the tests, by its name or its folders."""
    place = PurePosixPath(path.replace("\\", "/").lower())
    return any(part in _TESTS for part in place.parts[:-1]) or _TEST_FILE.fullmatch(place.name) is not None
