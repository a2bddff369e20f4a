"""From pairs to what is trained on."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model import Message
from consolidation.pairs import Encoder, Pair, without_turns
from consolidation.trainers.base import Example, Item, Preference


class NothingTaught(ValueError):
    """A pair of which no word would be learnt."""


def taught_turns(pair: Pair) -> list[int]:
    """Numbers of the agent's turns (from 0) that are learnt; in format C the last one alone, which is what was chosen."""
    turns = [number for number, (role, _) in enumerate(pair.messages) if role == "assistant"]
    if pair.format == "C":
        return [len(turns) - 1] if turns and pair.messages[-1][0] == "assistant" else []
    return [number for number in range(len(turns)) if number not in pair.untaught]


def item_of(pair: Pair, encode: Encoder) -> Item:
    """The pair as an example, or in format C as a preference: one prompt, and the two turns that could follow it.

    It rehearses (`rehearsal`) what the model could do already: old episodes, and the agent's own successes.

    Raises:
        NothingTaught: there is no word to learn, or nothing to prefer to the other.
    """
    own_skill = pair.source != "merged_fix"
    learnt = taught_turns(pair)
    turns = sum(role == "assistant" for role, _ in pair.messages)
    left_out = [number for number in range(turns) if number not in learnt]
    messages = pair.conversation()
    chosen = _example(messages, encode, left_out, own_skill)
    if pair.format != "C":
        return chosen
    if not pair.rejected.strip():
        raise NothingTaught("there is nothing to prefer it to")
    rejected = _example([*messages[:-1], Message("assistant", pair.rejected)], encode, left_out, own_skill)
    prompt = chosen.own.index(True, 1)
    if chosen.ids == rejected.ids or rejected.own.index(True, 1) != prompt or rejected.ids[:prompt] != chosen.ids[:prompt]:
        raise NothingTaught("what is chosen and what is rejected are the same, or do not follow the same prompt")
    return Preference(chosen=chosen, rejected=rejected)


def _example(messages: Sequence[Message], encode: Encoder, left_out: Sequence[int], rehearsal: bool) -> Example:
    ids, own = encode(messages)
    own = without_turns(own, left_out)
    if len(ids) < 2 or not any(own[1:]):
        raise NothingTaught("there is no word of the agent")
    return Example(ids=ids, own=own, rehearsal=rehearsal)
