"""One claim on the bench: its guards' items in one fixed order, asked block by block of two sides."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import ModelUnavailable
from consolidation.answers import Answers, artefact_key, artefacts, sound
from consolidation.errors import ConsolidationError
from consolidation.guards import Answer, Guard, Routes
from memory.hashing import content_hash

Item = tuple[str, str]
"""The name of a guard, and an item of it."""


class Unheld(ConsolidationError):
    """An examination that could not be held, or whose answers are no evidence; the text says why."""


@dataclass(frozen=True)
class Side:
    """Who is asked: what these routes serve, and the content of their artefacts when the examination began."""

    routes: Routes
    hashes: dict[str, str]

    @classmethod
    def of(cls, routes: Routes) -> Side:
        """As it is on the disk now. Raises AdapterError where an artefact is missing."""
        kept: dict[str, Path] = dict(routes)
        return cls(kept, artefacts(kept))

    @property
    def key(self) -> str:
        """The name under which its answers are kept."""
        return artefact_key(self.hashes)

    def check(self) -> None:
        """Refuse artefacts that are not the ones the examination began with."""
        now = artefacts(self.routes)
        changed = sorted(repo for repo in self.hashes if now[repo] != self.hashes[repo])
        if changed:
            raise Unheld(f"the adapter of {', '.join(changed)} was changed while it was examined")


def changed(candidate: Routes, live: Routes) -> Routes:
    """The routes of a candidate that are not live already."""
    return {repo: folder for repo, folder in candidate.items() if live.get(repo) != folder}


def ask(guard: Guard, items: Sequence[str], side: Side, answers: Answers) -> dict[str, Answer]:
    """The answers to these items, asked only where they are not known.

    Raises:
        Unheld: the guard failed, or gave anything but one sound answer for each item.
        ModelUnavailable: the model's server is away; what was answered before is kept.
    """
    known = answers.known(guard.digest, side.key, items)
    missing = [item for item in items if item not in known]
    if missing:
        try:
            side.check()
            found = dict(guard.answer(missing, side.routes))
            side.check()
        except (ModelUnavailable, Unheld):
            raise
        except Exception as error:
            raise Unheld(f"{guard.name} could not be held: {type(error).__name__}: {error}"[:500]) from error
        if found.keys() != set(missing):
            odd = sorted(map(str, found.keys() ^ set(missing)))[:3]
            raise Unheld(f"{guard.name} answered {len(found)} items where {len(missing)} were asked (first differences: {odd})")
        if not all(isinstance(answer, Answer) and sound(answer) for answer in found.values()):
            raise Unheld(f"{guard.name} gave an answer whose numbers are not finite, or whose score is no share")
        answers.keep(guard.digest, side.key, found)
        known |= found
    return {item: known[item] for item in items}


def listed(guard: Guard, routes: Routes) -> list[str]:
    """A guard's items. Raises Unheld where one is named twice."""
    try:
        items = list(guard.items(routes))
    except ModelUnavailable:
        raise
    except Exception as error:
        raise Unheld(f"{guard.name} could not be held: {type(error).__name__}: {error}"[:500]) from error
    if len(set(items)) < len(items):
        raise Unheld(f"{guard.name} names an item twice")
    return items


def interleaved(guards: Sequence[Guard], routes: Routes, seed: int, without: AbstractSet[Item] = frozenset()) -> list[Item]:
    """The items of several guards in one order: any first part holds each guard and category in its proportion."""
    placed: list[tuple[float, str, Item]] = []
    for guard in guards:
        strata: dict[str, list[tuple[str, str]]] = {}
        for item in listed(guard, routes):
            if (guard.name, item) not in without:
                strata.setdefault(guard.category(item), []).append((content_hash([seed, guard.name, item]), item))
        for category, members in strata.items():
            offset = int(content_hash([seed, guard.name, "category", category]), 16) / 16**16
            for place, (tie, item) in enumerate(sorted(members)):
                placed.append(((place + offset) / len(members), tie, (guard.name, item)))
    return [item for _, _, item in sorted(placed)]


@dataclass
class Exam:
    """Base and candidate on the items of one claim; `lost` and `gained` count items, halves where an answer is half right."""

    guards: Sequence[Guard]
    base: Side
    candidate: Side
    answers: Answers
    order: Sequence[Item]
    said: list[tuple[Answer, Answer]] = field(default_factory=list)

    def ask_up_to(self, count: int) -> None:
        """Examine the next items, both sides on the same, until so many are done."""
        block = self.order[len(self.said) : count]
        found: dict[Item, tuple[Answer, Answer]] = {}
        for guard in self.guards:
            mine = [item for name, item in block if name == guard.name]
            if mine:
                base = ask(guard, mine, self.base, self.answers)
                candidate = ask(guard, mine, self.candidate, self.answers)
                found |= {(guard.name, item): (base[item], candidate[item]) for item in mine}
        self.said += [found[item] for item in block]

    @property
    def lost(self) -> float:
        """Score that only the base has."""
        return sum(max(0.0, base.score - candidate.score) for base, candidate in self.said)

    @property
    def gained(self) -> float:
        """Score that only the candidate has."""
        return sum(max(0.0, candidate.score - base.score) for base, candidate in self.said)

    @property
    def differs(self) -> bool:
        """Whether any words of the candidate are not the base's."""
        return any(base.said != candidate.said for base, candidate in self.said)
