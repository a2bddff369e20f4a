"""Pairs of every format from what was lived through, by rules alone: no model, the same pairs every time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from agent.model import Message
from agent.shown import opening
from consolidation.pairs import OFFLINE, Format, Pair, pairs_of
from consolidation.synthesis.forms import metadata, points_of
from consolidation.synthesis.points import deeds_of, executed, lasting, tongue_of
from consolidation.synthesis.remedies import Better, after_failures, at_parting, at_wrong_change, comparable
from consolidation.synthesis.seam import Lived
from memory.trajectories import Trajectory

RULES = 1
TELLS_OF_FAILURES = ("C", "D")
"""Formats whose pairs may quote failed attempts."""


@dataclass(frozen=True)
class OfflineSynthesiser:
    """Makes pairs by rules; see the `Synthesiser` seam.

    Every call that is taught was carried out in the success, and is read back as the same call from the turn it stands in.
    Of a budget, the changes that stand come first, then what led to them, then the same points asked in other ways.
    """

    @property
    def name(self) -> str:
        """See the seam."""
        return f"{OFFLINE}-{RULES}"

    def pairs(self, lived: Lived, how: Format, budget: int) -> list[Pair]:
        """See the seam."""
        make: dict[Format, Callable[[Lived], Iterable[Pair]]] = {
            "T": _turns,
            "A": lambda lived: _asked(lived, budget, reasoned=False),
            "B": lambda lived: _asked(lived, budget, reasoned=True),
            "C": _preferred,
            "D": _reflected,
            "E": _in_context,
        }
        if budget < 1 or not lived.taught.steps:
            return []
        found: dict[str, Pair] = {}
        for pair in make[how](lived):
            made = {"format": how, "made_by": self.name, "failed": failed_in(lived, how)}
            found.setdefault(pair.content, pair.model_copy(update=made))
        return list(found.values()) if how == "T" else list(found.values())[:budget]


def failed_in(lived: Lived, how: Format) -> tuple[str, ...]:
    """Ids of the failed attempts that pairs of a format may quote."""
    return tuple(attempt.id for attempt in lived.failed) if how in TELLS_OF_FAILURES else ()


def pair_of(lived: Lived, messages: Sequence[Message], said: str, rejected: str = "", confidence: float = 1.0) -> Pair:
    """A conversation of which only the last turn is taught."""
    return Pair(
        task_id=lived.taught.task_id,
        repo=lived.taught.repo,
        trajectory_id=lived.taught.id,
        source=lived.source,
        messages=(*((m.role, m.content) for m in messages), ("assistant", said)),
        untaught=tuple(range(sum(m.role == "assistant" for m in messages))),
        rejected=rejected,
        confidence=confidence,
    )


def _turns(lived: Lived) -> list[Pair]:
    """The whole attempt; turns that were no call, or were not carried out, are read and not learnt."""
    tongue, steps = tongue_of(lived.taught), lived.taught.steps
    mute = {turn for turn, step in enumerate(steps) if not executed(step, tongue.read(step.said))}
    found: list[Pair] = []
    for pair in pairs_of(lived.taught, lived.source):
        said = set(range(sum(role == "assistant" for role, _ in pair.messages)))
        untaught = {*pair.untaught, *mute} & said
        if said - untaught:
            found.append(pair.model_copy(update={"untaught": tuple(sorted(untaught))}))
    return found


def _in_context(lived: Lived) -> list[Pair]:
    """The whole attempt, below what it found out about the project."""
    about = metadata(lived.taught.repo, deeds_of(lived.taught)[0])
    told = lived.taught.model_copy(update={"prompt": f"{about}\n\n{lived.taught.prompt}"})
    return _turns(Lived(lived.task, told, lived.source))


def _asked(lived: Lived, budget: int, *, reasoned: bool) -> list[Pair]:
    """Questions that one call answers, with the reasons for it or without."""
    taught = lived.taught
    tongue = tongue_of(taught)
    deeds, desk = deeds_of(taught)
    found: list[tuple[tuple[int, int, int], Pair]] = []
    seen: set[str] = set()
    for point in points_of(taught.prompt, deeds, lasting(deeds, desk)):
        call = point.deed.call
        said = tongue.explain(point.reason, call) if reasoned else tongue.say(call)
        if tongue.read(said) != call:
            continue
        for way, text in enumerate(point.asked):
            pair = pair_of(lived, _opening(taught, text), said)
            if pair.content not in seen:
                seen.add(pair.content)
                found.append(((way, point.rank, point.deed.turn), pair))
    chosen = sorted(found, key=lambda one: one[0])[:budget]
    return [pair for _, pair in sorted(chosen, key=lambda one: (one[0][2], one[0][0]))]


def _opening(trajectory: Trajectory, text: str) -> list[Message]:
    *before, first = opening(trajectory)
    return [*before, Message(first.role, f"{first.content}\n\n{text}" if text else first.content)]


def _preferred(lived: Lived) -> list[Pair]:
    """What the success said rather than a failure: at its first wrong change, or where the two parted."""
    deeds, desk = deeds_of(lived.taught)
    right = lasting(deeds, desk)
    failed = [attempt for attempt in lived.failed if comparable(lived.taught, attempt)]
    found = [at_wrong_change(right, attempt) for attempt in failed]
    found += [at_parting(lived.taught, right, deeds, attempt) for attempt in failed]
    return [_better(lived, one) for one in found if one is not None and one.said != one.instead]


def _reflected(lived: Lived) -> list[Pair]:
    """Failures, each with its diagnosis and the change that mends it."""
    deeds, desk = deeds_of(lived.taught)
    right = lasting(deeds, desk)
    failed = [attempt for attempt in lived.failed if comparable(lived.taught, attempt)]
    each = [after_failures(right, attempt) for attempt in failed]
    longest = max(map(len, each), default=0)
    return [_better(lived, found[n]) for n in range(longest) for found in each if n < len(found)]


def _better(lived: Lived, better: Better) -> Pair:
    return pair_of(lived, better.before, better.said, better.instead, better.confidence)
