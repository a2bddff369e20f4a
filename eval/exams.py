"""What all guards share: whom an item examines, in which order items are asked, and a summary of answers for people."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from agent.model import Model
from consolidation.guards import Answer, Guard, Routes
from consolidation.mixture.serving import Served
from consolidation.skill import ALL, adapter_for
from eval.errors import EvalError
from memory.tasks import Task

Asked = TypeVar("Asked")
Item = TypeVar("Item")


def seats(routes: Routes) -> tuple[str, ...]:
    """Repositories whose adapters sit an exam that belongs to no repository, each adapter once; "" stands for all not named."""
    found: dict[Path | None, str] = {}
    for repo in sorted(routes, key=lambda repo: (repo != ALL, repo)):
        found.setdefault(routes[repo], "" if repo == ALL else repo)
    return tuple(found.values()) or ("",)


def at_seat(seat: str, question: str) -> str:
    """The item of a question that is asked of what serves the repository `seat`."""
    return f"{seat}:{question}" if seat else question


def seat_of(item: str) -> tuple[str, str]:
    """Seat and question of an item. Questions have no colon."""
    seat, _, question = item.rpartition(":")
    return seat, question


def by_adapter(
    items: Sequence[str], routes: Routes, mixtures: Path | None, issue: Callable[[str], str]
) -> Iterator[tuple[Path | None, dict[str, list[str]]]]:
    """The folders that answer these items, the bare base first; for each its questions, and the items that ask them.

    `issue(question)` is what the router of a mixture of experts reads; mixtures are kept in `mixtures`.

    Raises:
        AdapterError: a mixture is damaged.
    """
    served = Served(mixtures)
    found: dict[Path | None, dict[str, list[str]]] = {}
    for item in items:
        seat, question = seat_of(item)
        adapter = adapter_for(routes, seat)
        folder = served.route(adapter, _task(seat, question, issue(question))) if adapter is not None else None
        found.setdefault(folder, {}).setdefault(question, []).append(item)
    yield from sorted(found.items(), key=lambda entry: str(entry[0] or ""))


def _task(seat: str, question: str, issue: str) -> Task:
    now = datetime.fromtimestamp(0, UTC)
    return Task(id=question, repo=seat or ALL, issue=issue, created_at=now, position=0, difficulty="unknown")


def base_fingerprint(model: Model) -> str:
    """The fingerprint of the bare base; afterwards the model serves that."""
    model.use(None)
    return model.fingerprint


def chosen(known: Mapping[str, Asked], questions: Iterable[str], guard: str) -> dict[str, Asked]:
    """The questions of these names.

    Raises:
        EvalError: there is none of a name.
    """
    names = list(questions)
    if odd := [name for name in names if name not in known]:
        raise EvalError(f"{guard} has no item {odd[0]!r}; ask for those that items() gives")
    return {name: known[name] for name in names}


def stratified(items: Sequence[Item], group: Callable[[Item], Hashable], seed: int) -> list[Item]:
    """A seeded order of which every beginning holds the groups in about their shares of the whole."""
    rng = random.Random(f"stratified/{seed}")
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(group(item), []).append(item)
    placed: list[tuple[float, Item]] = []
    for members in groups.values():
        rng.shuffle(members)
        shift = rng.random()
        placed += [((number + shift) / len(members), member) for number, member in enumerate(members)]
    return [item for _, item in sorted(placed, key=lambda entry: entry[0])]


class Summary(BaseModel):
    """What came of some items. `score` is their mean; `spread` the standard deviation of the mean over sampling seeds (0 where
    there is one), `seconds` the median of an item, `facts` means.
    """

    model_config = ConfigDict(frozen=True)

    guard: str
    items: int
    score: float
    spread: float
    seconds: float
    categories: dict[str, float]
    seeds: dict[str, float]
    facts: dict[str, float]


def summarise(guard: Guard, answers: Mapping[str, Answer]) -> Summary:
    """Of a guard's answers, for people; what follows the last `#` of an item is its sampling seed.

    Raises:
        EvalError: there are none.
    """
    if not answers:
        raise EvalError(f"{guard.name}: no item was asked")

    def means(key: Callable[[str], str]) -> dict[str, float]:
        groups: dict[str, list[float]] = {}
        for item, answer in answers.items():
            groups.setdefault(key(item), []).append(answer.score)
        return {name: round(fmean(scores), 4) for name, scores in sorted(groups.items()) if name}

    facts: dict[str, list[float]] = {}
    for answer in answers.values():
        for name, value in answer.facts.items():
            facts.setdefault(name, []).append(value)
    seeds = means(lambda item: item.rpartition("#")[2] if "#" in item else "")
    return Summary(
        guard=guard.name,
        items=len(answers),
        score=round(fmean(answer.score for answer in answers.values()), 4),
        spread=round(pstdev(seeds.values()), 4) if seeds else 0.0,
        seconds=round(median(answer.seconds for answer in answers.values()), 4),
        categories=means(guard.category),
        seeds=seeds,
        facts={name: round(fmean(values), 4) for name, values in sorted(facts.items())},
    )
