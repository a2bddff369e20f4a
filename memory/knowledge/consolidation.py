"""The night of the knowledge: contradictions resolved, near-duplicates merged, what never helps faded, handbooks rewritten.

Contradictions go first, the newest verified memory winning, so that nothing is merged into what no longer holds. Of
near-duplicates the *oldest* verified one stays: what was known earlier stays known to tasks of that time. A contradiction
does take the older memory away, also from tasks between the two: nobody is told what was found wrong. Facts are never
merged, since each attempt that states one is a citation in the handbook.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import compress

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from memory.knowledge import handbook
from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.memories import MERGED, RECALLED, Kind, Memory
from memory.knowledge.shelf import Shelf

Similar = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to unit rows (n, d), such as an embedder's `embed`."""

CONTRADICTED = "contradicted by "
"""Why a memory is no longer active; the id of the newer one follows."""
FADED = "faded"
SAME = 0.95
"""Cosine from which two memories with the same places and the same change are one."""
ALIKE = 0.9
"""Cosine from which two symptoms in the same places are the same."""
TELLING = 8
"""Characters from which a change is told apart from chance, where it is quoted in what was tried."""
CHUNK = 1024
_VALUE = re.compile(r"\s(?:is|are|lives in|live in|returns|return)\s|\s=\s")
_SEVERAL = re.compile(r"(?:some|most|many|several|other|often|sometimes)\b", re.IGNORECASE)
"""How facts begin of which several hold at once: `agent.distil.facts` names each helper that some code calls so."""
_COMMAND = re.compile(r"`([^`\s]+)[^`]*`(.*)", re.DOTALL)
_HEADER = re.compile(r"^(?:@@.*|index .*|(?:---|\+\+\+) .*)$", re.MULTILINE)


class Tidied(BaseModel):
    """What a night did to the knowledge: how many memories, each repository's handbook in words, the state it led to."""

    merged: int
    contradicted: int
    faded: int
    revived: int
    handbooks: dict[str, str]
    version: str


def consolidate(shelf: Shelf, config: KnowledgeConfig, similar: Similar, now: datetime, night: str = "") -> Tidied:
    """Tidy up one space, in one transaction and one new version; where nothing is to be done, none.

    Memory is needed for one repository at a time, and for the rows of those texts that have to be compared.
    """
    uses = shelf.uses()
    worn = {n for n, use in uses.items() if use.ended >= config.fade_after and use.resolved == 0}
    orphans = _orphans(shelf)
    pool: dict[str, list[int]] = defaultdict(list)
    for number, repo in (shelf.active() | orphans).items():
        pool[repo].append(number)
    close: dict[int, str] = {}
    books, said = [], {}
    for repo in sorted(pool.keys() | set(shelf.booked())):
        known = shelf.get(pool[repo], active=False)
        closed = {n: FADED for n, memory in known.items() if n in worn and memory.kind in RECALLED}
        closed |= _settled({n: memory for n, memory in known.items() if n not in closed}, similar)
        left = [memory for number, memory in known.items() if number not in closed]
        book, why = handbook.write(shelf, repo, config, now, night, left, known.values())
        if book is not None:
            books.append(book)
        if book is not None or why != "nothing to say":
            said[repo] = why
        close |= closed
    revived = sorted(orphans.keys() - close.keys())
    close = {n: why for n, why in close.items() if n not in orphans}
    version, _ = shelf.change(f"consolidated {night}".strip(), close=close, reopen=revived, books=books)
    count = {why: sum(each.startswith(why) for each in close.values()) for why in (MERGED, CONTRADICTED, FADED)}
    return Tidied(
        merged=count[MERGED],
        contradicted=count[CONTRADICTED],
        faded=count[FADED],
        revived=len(revived),
        handbooks=said,
        version=str(version),
    )


def _orphans(shelf: Shelf) -> dict[int, str]:
    """Closed memories, with their repositories, that gave way to one that is gone and has nothing in its place."""
    closed = shelf.closed()
    why_of = {memory_id: why for memory_id, _, why in closed.values()}
    standing = shelf.active_ids()
    orphans = {}
    for number, (_, repo, why) in closed.items():
        seen: set[str] = set()
        while (to := _gave_way_to(why)) and to not in seen:
            seen.add(to)
            why = FADED if to in standing else why_of.get(to, "")
        if seen and not to and why != FADED:
            orphans[number] = repo
    return orphans


def _gave_way_to(why: str) -> str:
    return next((why.removeprefix(reason) for reason in (MERGED, CONTRADICTED) if why.startswith(reason)), "")


def _settled(known: Mapping[int, Memory], similar: Similar) -> dict[int, str]:
    """Which memories of one repository are contradicted or merged, and why."""
    closed = _excluded([(n, m) for n, m in known.items() if m.kind not in RECALLED])
    cases = [(n, m) for n, m in known.items() if m.kind is Kind.CASE]
    rows = _Rows(similar)
    closed |= _contradicted(cases, rows)
    closed |= _merged([(n, m) for n, m in known.items() if m.kind in RECALLED and n not in closed], rows)
    left = [(n, m) for n, m in known.items() if n not in closed]
    warnings = [(n, m) for n, m in left if m.kind is Kind.WARNING]
    return closed | _disproved(warnings, [m for _, m in left if m.kind is Kind.CASE and m.verified], rows)


def _excluded(facts: Sequence[tuple[int, Memory]]) -> dict[int, str]:
    """Facts that a newer verified one of another attempt excludes: of the same places and the same subject, and different."""
    closed: dict[int, str] = {}
    for block in _blocks(facts, lambda m: _subject(m) if m.where else None):
        block.sort(key=lambda pair: _strength(pair[1]), reverse=True)
        best = block[0][1]
        if best.verified:
            for number, memory in block[1:]:
                if _flat(memory.fact) != _flat(best.fact) and memory.trajectory_id != best.trajectory_id:
                    closed[number] = CONTRADICTED + best.id
    return closed


def _subject(memory: Memory) -> object:
    """What a fact is about: what comes before its verb, or a command's first word and what the command is said to do."""
    if memory.kind is Kind.COMMAND:
        found = _COMMAND.match(memory.fact)
        return found and (memory.kind, _places(memory), found[1], _flat(found[2]))
    if _SEVERAL.match(memory.fact):
        return None
    subject, *value = _VALUE.split(memory.fact, maxsplit=1)
    return (memory.kind, _places(memory), _flat(subject)) if value else None


def _contradicted(cases: Sequence[tuple[int, Memory]], rows: _Rows) -> dict[int, str]:
    """Cases whose symptom, in the same places, a verified and newer one mends with another change."""
    blocks = [
        sorted(block, key=lambda pair: _strength(pair[1]), reverse=True)
        for block in _blocks(cases, lambda m: _places(m) if m.where and m.symptom else None)
        if any(m.verified for _, m in block) and len({_change(m) for _, m in block}) > 1
    ]
    rows.fetch(m.symptom for block in blocks for _, m in block)
    closed: dict[int, str] = {}
    for block in blocks:
        numbers: dict[str, int] = {}
        change = np.array([numbers.setdefault(_change(m), len(numbers)) for _, m in block])
        verified = np.array([m.verified for _, m in block])
        into = _yielded(rows.of([m.symptom for _, m in block]), ALIKE, change, verified)
        closed |= {
            n: CONTRADICTED + block[to][1].id for at, ((n, _), to) in enumerate(zip(block, into, strict=True)) if to != at
        }
    return closed


def _merged(told: Sequence[tuple[int, Memory]], rows: _Rows) -> dict[int, str]:
    """Cases and warnings that say the same as an older verified one, or as an older one where none is verified."""
    blocks: list[dict[str, list[tuple[int, Memory]]]] = []
    for block in _blocks(told, lambda m: (m.kind, _places(m), _change(m))):
        equal: dict[str, list[tuple[int, Memory]]] = defaultdict(list)
        for number, memory in sorted(block, key=lambda pair: (not pair[1].verified, *_strength(pair[1])[1:])):
            equal[_prose(memory)].append((number, memory))
        blocks.append(equal)
    rows.fetch(prose for equal in blocks if len(equal) > 1 for prose in equal)
    closed: dict[int, str] = {}
    for equal in blocks:
        groups = list(equal.values())
        into = _yielded(rows.of(list(equal)), SAME) if len(equal) > 1 else range(1)
        for at, (group, to) in enumerate(zip(groups, into, strict=True)):
            kept = groups[to][0][1].id
            closed |= {number: MERGED + kept for number, _ in group[to == at :]}
    return closed


def _disproved(warnings: Sequence[tuple[int, Memory]], cases: Sequence[Memory], rows: _Rows) -> dict[int, str]:
    """Warnings of a change that worked for the same symptom in the same place, no earlier."""
    at_place: dict[str, list[Memory]] = defaultdict(list)
    for case in cases:
        if case.symptom and len(_new(case)) >= TELLING:
            for place in case.where:
                at_place[place].append(case)
    suspects: list[tuple[int, Memory, list[Memory]]] = []
    for number, memory in warnings:
        tried = "\n".join((_new(memory), *map(_flat, memory.tried)))
        near = {case.id: case for place in memory.where for case in at_place[place] if case.created_at >= memory.created_at}
        if memory.symptom and (fits := [case for case in near.values() if _new(case) in tried]):
            suspects.append((number, memory, fits))
    rows.fetch(m.symptom for _, memory, fits in suspects for m in (memory, *fits))
    closed: dict[int, str] = {}
    for number, memory, fits in suspects:
        near_enough = rows.of([case.symptom for case in fits]) @ rows.of([memory.symptom])[0] >= ALIKE
        if near_enough.any():
            closed[number] = CONTRADICTED + max(compress(fits, near_enough), key=_strength).id
    return closed


class _Rows:
    """The rows of texts, each asked for once."""

    def __init__(self, similar: Similar) -> None:
        self._similar = similar
        self._known: dict[str, NDArray[np.float32]] = {}

    def fetch(self, texts: Iterable[str]) -> None:
        lacking = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(lacking), CHUNK):
            part = lacking[start : start + CHUNK]
            self._known |= zip(part, np.asarray(self._similar(part), dtype=np.float32), strict=True)

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([self._known[text] for text in texts])


def _yielded(
    rows: NDArray[np.float32], at_least: float, change: NDArray[np.int_] | None = None, wins: NDArray[np.bool_] | None = None
) -> list[int]:
    """For each row, strongest first, the stronger one it yields to, or itself: one that stands, `wins`, and is near enough.

    With `change` only rows of different changes yield. Products are made in chunks, never all at once.
    """
    into = list(range(len(rows)))
    stands = np.ones(len(rows), dtype=bool) if wins is None else wins.copy()
    for start in range(0, len(rows), CHUNK):
        mine = np.arange(start, min(start + CHUNK, len(rows)))
        for low in range(0, start, CHUNK):
            others = low + np.flatnonzero(stands[low : low + CHUNK])
            near = _near(rows, mine, others, at_least, change)
            for at in np.flatnonzero(near.any(axis=1)):
                into[mine[at]] = int(others[near[at].argmax()])
            mine = mine[~near.any(axis=1)]
        stands[start : start + CHUNK] &= np.isin(np.arange(start, min(start + CHUNK, len(rows))), mine)
        near = _near(rows, mine, mine, at_least, change)
        for place, row in enumerate(mine.tolist()):
            before = np.flatnonzero(near[place, :place] & stands[mine[:place]])
            if before.size:
                into[row] = int(mine[before[0]])
                stands[row] = False
    return into


def _near(
    rows: NDArray[np.float32],
    left: NDArray[np.int_],
    right: NDArray[np.int_],
    at_least: float,
    change: NDArray[np.int_] | None,
) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = rows[left] @ rows[right].T >= at_least
    return near if change is None else near & (change[left][:, None] != change[right])


def _blocks(told: Sequence[tuple[int, Memory]], key: Callable[[Memory], object]) -> list[list[tuple[int, Memory]]]:
    """Memories that have a key in common with another; those without a key (None) are left out."""
    found: dict[object, list[tuple[int, Memory]]] = defaultdict(list)
    for number, memory in told:
        if (own := key(memory)) is not None:
            found[own].append((number, memory))
    return [block for block in found.values() if len(block) > 1]


def _strength(memory: Memory) -> tuple[bool, datetime, datetime, str]:
    return memory.verified, memory.created_at, memory.recorded_at, memory.id


def _places(memory: Memory) -> frozenset[str]:
    return frozenset(memory.where)


def _prose(memory: Memory) -> str:
    """What the task looked like; for a warning, also what came of trying."""
    return _flat("\n".join((memory.symptom, *(memory.tried if memory.kind is Kind.WARNING else ()))))


def _change(memory: Memory) -> str:
    """The change without what differs between two diffs of the same lines."""
    return _flat(_HEADER.sub("", memory.change))


def _new(memory: Memory) -> str:
    """The lines that a change brings: of a diff those with a plus, otherwise all."""
    lines = _HEADER.sub("", memory.change).splitlines()
    added = [line[1:] for line in lines if line.startswith("+")]
    return _flat("\n".join(added or lines))


def _flat(text: str) -> str:
    return " ".join(text.split())
