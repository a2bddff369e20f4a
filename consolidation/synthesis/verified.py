"""Whether pairs hold by the measure of the base: an answer must be likelier after its own question than after another's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from consolidation.pairs import Encoder, Pair, without_turns
from consolidation.trainers.base import Example

Loss = Callable[[Sequence[Example]], list[float]]
"""Nats per own token under the base without an adapter (`Trainer.loss`)."""


def verify(pairs: Sequence[Pair], encode: Encoder, loss: Loss, context: int = 0) -> list[Pair]:
    """The pairs whose pointwise mutual information with their question is above 0, measured in nats per taught token:
    loss(answer | another pair's question) - loss(answer | its own).

    The other question is the next pair's, of another task where there is one. A pair that has no other to be compared with,
    or does not fit `context` tokens (0: any), does not pass. The confidence of those that pass becomes the chance, per token,
    that the question is its own and not the other: 1 / (1 + exp(-information)).
    """
    rows: list[tuple[Pair, Example, Example]] = []
    for number, pair in enumerate(pairs):
        other = _other(pairs, number)
        if other is None:
            continue
        own, crossed = _example(pair, encode), _example(_crossed(pair, other), encode)
        if any(own.own) and any(crossed.own) and not (context and max(own.tokens, crossed.tokens) > context):
            rows.append((pair, own, crossed))
    if not rows:
        return []
    losses = loss([example for _, own, crossed in rows for example in (own, crossed)])
    passed: list[Pair] = []
    for (pair, _, _), at in zip(rows, range(0, len(losses), 2), strict=True):
        information = losses[at + 1] - losses[at]
        if math.isfinite(information) and information > 0:
            sure = 1 / (1 + math.exp(-information))
            passed.append(pair.model_copy(update={"confidence": min(pair.confidence, sure)}))
    return passed


def _head(pair: Pair) -> int:
    """How many messages come before the first taught turn."""
    turn = -1
    for number, (role, _) in enumerate(pair.messages):
        turn += role == "assistant"
        if role == "assistant" and turn not in pair.untaught:
            return number
    return len(pair.messages)


def _other(pairs: Sequence[Pair], number: int) -> Pair | None:
    """The next pair of another task, or else the next with another question and answer."""
    pair = pairs[number]
    question = pair.messages[: _head(pair)]
    round_ = [*pairs[number + 1 :], *pairs[:number]]
    other = next((one for one in round_ if one.task_id != pair.task_id), None)
    different = (one for one in round_ if one.messages[: _head(one)] != question and one.messages[-1] != pair.messages[-1])
    return other or next(different, None)


def _crossed(pair: Pair, other: Pair) -> Pair:
    """The answer of one pair behind the question of another."""
    head, front = _head(pair), other.messages[: _head(other)]
    before, now = (sum(role == "assistant" for role, _ in messages) for messages in (pair.messages[:head], front))
    later = {turn - before + now for turn in pair.untaught if turn >= before}
    return pair.model_copy(update={"messages": (*front, *pair.messages[head:]), "untaught": (*range(now), *sorted(later))})


def _example(pair: Pair, encode: Encoder) -> Example:
    ids, own = encode(pair.conversation())
    return Example(ids=ids, own=without_turns(own, pair.untaught))
