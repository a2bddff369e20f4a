"""Pairs for tests of the filters: an attempt in a few words, an encoder, and what passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.model import Message
from agent.turns import Call, render_call
from consolidation.filters import FilterConfig, Filtered, Filters
from consolidation.leaks import HeldOut
from consolidation.pairs import Pair

FIX = "    if rate is None:\n        rate = default_rate(account, today)\n    return price * rate + fee(account)"
ISSUE = "Prices of accounts without a rate of their own are computed as nothing at all"
EDIT = render_call(Call("edit", "shop/fees.py", 7, 7, body=FIX))
WALK = (
    ("search total", "shop/fees.py:7: def total(price):"),
    (EDIT, "now\n7|x"),
    ("test", "0 failed, 8 passed"),
    ("submit", ""),
)


def told(*turns: tuple[str, str], issue: str = "issue in shop\nx is wrong", system: str = "", **fields: Any) -> Pair:
    """A pair of turns (what was said, what was seen); an empty observation is none."""
    messages = [("system", system)] if system else []
    messages.append(("user", issue))
    for said, seen in turns:
        messages += [("assistant", said), *([("tool", seen)] if seen else [])]
    given = {"task_id": "t", "repo": "shop", "trajectory_id": "1", "source": "agent", **fields}
    return Pair.model_validate({**given, "messages": messages})


def encode(messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """A token for each word, and one before each message."""
    ids: list[int] = []
    own: list[bool] = []
    for message in messages:
        said = [1 + sum(map(ord, word)) % 997 for word in message.content.split()]
        ids += [0, *said]
        own += [False, *([message.role == "assistant"] * len(said))]
    return ids, own


def filtered(*pairs: Pair, context: int = 400, held_out: HeldOut | None = None, **given: Any) -> Filtered:
    """What the filters make of these pairs; settings by name, and `verified` and `losses`."""
    others = {name: given.pop(name) for name in ("verified", "losses") if name in given}
    return Filters(FilterConfig(**given), encode, context, held_out or HeldOut(), **others).filtered(pairs)
