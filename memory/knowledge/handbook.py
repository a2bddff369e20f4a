"""The handbook of a repository: facts about it as a whole, each with the memories that state it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime

from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.memories import RECALLED, Entry, Handbook, Kind, Memory
from memory.knowledge.shelf import Shelf

OFTEN = 3
"""Solved tasks that changed a file before it is said that fixes are often there."""
MOST_CITES = 20
AROUND = 3
"""Characters that a fact takes beside its own: what marks it, and the end of its line."""
DROPPED = 0.25
"""Share of the present facts that a rewrite may drop at most."""


def holds(entry: Entry, known: Set[str]) -> bool:
    """Whether these memories (ids) are enough to say it: one that states the fact, or `OFTEN` cases of a place."""
    return sum(cite in known for cite in entry.cites) >= (OFTEN if entry.kind is Kind.CASE else 1)


def write(
    shelf: Shelf,
    repo: str,
    config: KnowledgeConfig,
    now: datetime,
    night: str = "",
    known: Iterable[Memory] | None = None,
    before: Iterable[Memory] | None = None,
) -> tuple[Handbook | None, str]:
    """The next handbook of a repository, or None where the present one stays; and what was decided, in words.

    It is written from the verified ones of `known`, or of what is active now, and not kept: `Shelf.change` does that. A
    fact that more tasks state comes first, then the older; all fit `handbook_tokens` at four characters each. A rewrite
    that drops more than a quarter of the present facts that `before`, or `known`, still support is refused; what is
    written instead keeps the best three quarters of them, as far as there is room, and fills up with the next best.
    `before` is what was active before this night closed anything, so that no night can empty a handbook.
    """
    memories = list(shelf.get(shelf.active(repo)).values() if known is None else known)
    present = shelf.handbook(repo)
    room = 4 * config.handbook_tokens
    facts = _facts(memories)
    entries = _fitting(facts, room)
    if present is None:
        if not entries:
            return None, "nothing to say"
        return Handbook(repo=repo, entries=entries, written_at=now, night=night), f"written, {len(entries)} facts"
    ids = {memory.id for memory in (memories if before is None else before)}
    still = [entry for entry in present.entries if holds(entry, ids)]
    dropped = len({_said(entry) for entry in still} - {_said(entry) for entry in entries})
    said = f"written, {len(entries)} facts"
    if dropped > DROPPED * len(still):
        entries = _compromise(facts, entries, still, room)
        said = f"written, {len(entries)} facts: a new one would drop {dropped} of {len(still)} cited facts"
    if present.entries == entries:
        return None, f"kept: the new one would drop {dropped} of {len(still)} cited facts" if dropped else "unchanged"
    return Handbook(repo=repo, entries=entries, written_at=now, night=night), said


def _compromise(facts: Sequence[Entry], wanted: Sequence[Entry], still: Sequence[Entry], room: int) -> tuple[Entry, ...]:
    """What keeps as many of the present facts as it has to, those `wanted` and the best first, and then the others."""
    rank = {_said(entry): at for at, entry in enumerate(facts)}
    fresh = {_said(entry): entry for entry in facts}
    chosen = {_said(entry) for entry in wanted}
    best = sorted(still, key=lambda e: (_said(e) not in chosen, rank.get(_said(e), len(rank))))  # stable
    kept = [fresh.get(_said(entry), entry) for entry in best[: math.ceil((1 - DROPPED) * len(still))]]
    known = {_said(entry) for entry in kept}
    fitting = _fitting([*kept, *(entry for entry in facts if _said(entry) not in known)], room)
    return tuple(sorted(fitting, key=lambda entry: rank.get(_said(entry), len(rank))))


def _said(entry: Entry) -> tuple[Kind, str]:
    return entry.kind, entry.fact


def _facts(memories: Iterable[Memory]) -> list[Entry]:
    """Every fact that verified memories support, best supported first."""
    stating: dict[tuple[Kind, str], list[Memory]] = defaultdict(list)
    for memory in sorted((m for m in memories if m.verified), key=lambda m: (m.created_at, m.recorded_at, m.id)):
        if memory.kind not in RECALLED:
            stating[memory.kind, line(memory.fact)].append(memory)
        elif memory.kind is Kind.CASE:
            for path in dict.fromkeys(line(place).partition(":")[0] for place in memory.where):
                stating[Kind.CASE, f"fixes are often in {path}" if path else ""].append(memory)
    ranked = []
    for (kind, fact), told in stating.items():
        by_task = _first_of_each_task(told)
        cited = list(by_task.values()) if kind is Kind.CASE else told
        entry = Entry(fact=fact or "-", kind=kind, cites=tuple(memory.id for memory in cited[:MOST_CITES]))
        if fact and holds(entry, set(entry.cites)):
            ranked.append(((-len(by_task), told[0].created_at, fact), entry))
    return [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]


def _first_of_each_task(memories: Iterable[Memory]) -> Mapping[str, Memory]:
    first: dict[str, Memory] = {}
    for memory in memories:
        first.setdefault(memory.task_id, memory)
    return first


def _fitting(entries: Iterable[Entry], room: int) -> tuple[Entry, ...]:
    """The first ones that fit so many characters; one that is too long does not keep the others out."""
    kept = []
    for entry in entries:
        if (size := len(entry.fact) + AROUND) <= room:
            room -= size
            kept.append(entry)
    return tuple(kept)


def line(fact: str) -> str:
    """A fact as one line, without control and format characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in fact).split())
