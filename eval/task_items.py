"""Tasks as the items of an examination: where they can be opened, and one greedy attempt at each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.model import Sampling
from agent.sandbox.base import Sandbox
from consolidation.guards import Answer, Routes
from eval.errors import EvalError
from eval.exams import base_fingerprint
from eval.guards import answer_of
from eval.play import Player
from eval.streams import TaskStream
from memory.hashing import content_hash
from memory.tasks import Task


@dataclass(frozen=True)
class Place:
    """Tasks of one stream, and what their programs run in."""

    stream: TaskStream
    sandbox: Sandbox
    tasks: tuple[Task, ...]


Opener = Callable[[Sequence[str]], Sequence[Place]]
"""Streams that hold the tasks of these ids; a task that cannot be opened any more is in none of them."""
Where = Mapping[str, tuple[Place, Task]]


def by_task(opener: Opener, ids: Sequence[str]) -> dict[str, tuple[Place, Task]]:
    """Where each task can be played, by its id; those that cannot be opened any more are left out."""
    places = opener(ids) if ids else ()
    return {task.id: (place, task) for place in places for task in place.tasks if task.id in set(ids)}


def play_items(player: Player, where: Where, items: Sequence[str], routes: Routes) -> dict[str, Answer]:
    """One greedy attempt at each of these tasks.

    Raises:
        EvalError: a task is unknown, or its attempt was lost to the infrastructure.
    """
    if odd := [item for item in items if item not in where]:
        raise EvalError(f"no task {odd[0]!r} to examine; ask for those that items() gives")
    groups: dict[int, tuple[Place, list[Task]]] = {}
    for item in items:
        place, task = where[item]
        groups.setdefault(id(place), (place, []))[1].append(task)
    found: dict[str, Answer] = {}
    for place, tasks in groups.values():
        for trajectory in replace(player, sandbox=place.sandbox).play(place.stream, tasks, routes):
            found[trajectory.task_id] = answer_of(trajectory)
    return {item: found[item] for item in items}


def digest_of(player: Player, where: Where, *more: object) -> str:
    """Hash of all that decides the answers at these tasks, but for the artefact."""
    base_fingerprint(player.model)
    sampling = Sampling(max_tokens=player.budget.turn_tokens, tools=player.toolkit.tools)
    places = {id(place): place for place, _ in where.values()}.values()
    told = [replace(player, sandbox=place.sandbox).config_hash(place.stream, sampling) for place in places]
    return content_hash([told, [task for _, task in where.values()], *more])
