"""Memories, attempts and similarity for the tests of the knowledge."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from memory.knowledge.memories import Kind, Memory
from memory.knowledge.words import words
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory

DAWN = datetime(2026, 3, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return DAWN + timedelta(days=number)


def memory(number: float = 0, **changes: object) -> Memory:
    """What the attempt at task `number` taught, on day `number`: a verified case, unless changed."""
    fields: dict[str, object] = {
        "kind": Kind.CASE,
        "repo": "shop",
        "task_id": f"task-{number}",
        "trajectory_id": f"attempt-{number}",
        "outcome": Outcome.RESOLVED,
        "verified": True,
        "created_at": day(number),
        "recorded_at": day(number),
        "distiller": "offline/1",
        "symptom": f"total of order {number} is wrong",
        "where": ("shop/fees.py:total_fee",),
        "change": f"return amount + {number}",
    }
    return Memory.model_validate(fields | changes)


def fact(number: float, text: str, kind: Kind = Kind.CONVENTION, **changes: object) -> Memory:
    return memory(number, kind=kind, fact=text, **({"symptom": "", "where": (), "change": ""} | changes))


def warning(number: float, **changes: object) -> Memory:
    return memory(number, kind=Kind.WARNING, outcome=Outcome.UNRESOLVED, verified=False, **({"change": ""} | changes))


def told(*memories: Memory) -> dict[str, list[Memory]]:
    """Memories by the attempt they come from, as they are put on the shelf."""
    distilled: dict[str, list[Memory]] = {}
    for each in memories:
        distilled.setdefault(each.trajectory_id, []).append(each)
    return distilled


def task(name: str, number: float = 0) -> Task:
    return Task(id=name, repo="shop", issue="it is wrong", created_at=day(number), position=0, difficulty="<15 min fix")


def attempt(name: str, outcome: Outcome | None = Outcome.UNRESOLVED, said: Sequence[str] = (), **changes: object) -> Trajectory:
    fields: dict[str, object] = {
        "id": name,
        "task_id": f"task of {name}",
        "repo": "shop",
        "prompt": "fix it",
        "model": "m",
        "started_at": DAWN,
        "config_hash": "c",
        "outcome": outcome,
        "steps": [Step(number=n, said=text, observation=text, tool="search") for n, text in enumerate(said)],
    }
    return Trajectory.model_validate(fields | changes)


def similar(texts: Sequence[str]) -> NDArray[np.float32]:
    """Unit rows that count words."""
    rows = np.zeros((len(texts), 512), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in [*words(text), *text.split()]:
            row[sum(map(ord, word)) % 512] += 1
        row /= max(float(np.linalg.norm(row)), 1e-9)
    return rows
