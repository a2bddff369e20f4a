"""The handbook of a repository: facts about it as a whole, each with the memories that state it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
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
    shelf: Shelf, repo: str, config: KnowledgeConfig, now: datetime, night: str = "", known: Iterable[Memory] | None = None
) -> tuple[Handbook | None, str]:
    """The next handbook of a repository, or None where the present one stays; and what was decided, in words.

    It is written from the verified ones of `known`, or of what is active now, and not kept: `Shelf.change` does that. A
    fact that more tasks state comes first, then the older; all fit `handbook_tokens` at four characters each. A rewrite
    that drops more than a quarter of the present facts that still hold is refused.
    """
    memories = list(shelf.get(shelf.active(repo)).values() if known is None else known)
    present = shelf.handbook(repo)
    entries = _fitting(_facts(memories), 4 * config.handbook_tokens)
    if present is None and not entries:
        return None, "nothing to say"
    if present is not None:
        if present.entries == entries:
            return None, "unchanged"
        ids = {memory.id for memory in memories}
        still = {(entry.kind, entry.fact) for entry in present.entries if holds(entry, ids)}
        dropped = still - {(entry.kind, entry.fact) for entry in entries}
        if len(dropped) > DROPPED * len(still):
            return None, f"kept: the new one would drop {len(dropped)} of {len(still)} cited facts"
    return Handbook(repo=repo, entries=entries, written_at=now, night=night), f"written, {len(entries)} facts"


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
