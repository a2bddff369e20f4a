"""The koans as a `TaskStream`: one repository for each family, interleaved in time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from agent.sandbox.base import Sandbox
from eval.errors import EvalError
from eval.koans.book import FAMILIES, SOURCE, Koan, book
from eval.koans.grading import GRADED_BY, KoanWorkplace
from eval.koans.toolchain import rust
from memory.hashing import content_hash
from memory.tasks import MergedFix, Task, TaskSecret

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


def _all() -> dict[str, tuple[str, int, Koan]]:
    """Task id to family, place in its family, and koan; the families take turns."""
    found: dict[str, tuple[str, int, Koan]] = {}
    for number in range(max(map(len, book().values()))):
        for family in FAMILIES:
            if number < len(book()[family]):
                koan = book()[family][number]
                found[f"koan-{family}-{koan.id}"] = (family, number, koan)
    return found


def held_out() -> tuple[str, ...]:
    """Ids of the frozen evaluation set, in order; nothing may ever be trained on one of them."""
    return tuple(identity for identity, (_, _, koan) in _all().items() if koan.held_out)


def days() -> tuple[str, ...]:
    """Ids of the koans to live and learn with, in order."""
    return tuple(identity for identity, (_, _, koan) in _all().items() if not koan.held_out)


class KoanStream:
    """The koans with these ids, in the order given.

    `hash` is that of their whole content, as it is shown and as it is tested; the name carries it.

    Raises:
        EvalError: there is no koan of one of the ids.
    """

    graded_by = GRADED_BY

    def __init__(self, ids: Iterable[str] | None = None) -> None:
        """All koans that are not held out, unless ids are given."""
        there = _all()
        wanted = list(days() if ids is None else ids)
        if unknown := [identity for identity in wanted if identity not in there]:
            raise EvalError(f"there is no koan {unknown[0]!r}; it would read {next(iter(there))}")
        places = {identity: place for place, identity in enumerate(there)}
        self._koans = {identity: there[identity][2] for identity in wanted}
        self._tasks = {
            identity: Task(
                id=identity,
                repo=f"koans-{there[identity][0]}",
                issue=there[identity][2].issue,
                created_at=EPOCH + timedelta(days=there[identity][1], hours=FAMILIES.index(there[identity][0])),
                position=places[identity],
                difficulty=there[identity][2].difficulty,
            )
            for identity in wanted
        }
        self.hash = content_hash([[identity, koan, koan.source, koan.tests] for identity, koan in self._koans.items()])
        self.name = f"koans-{self.hash}"

    @classmethod
    def evaluation(cls) -> Self:
        """The frozen evaluation set."""
        return cls(held_out())

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        return list(self._tasks.values())

    def koan(self, task: Task) -> Koan:
        """The koan behind a task, secrets included: for grading and for tests of the koans alone."""
        return self._koans[task.id]

    def checkout(self, task: Task) -> dict[str, str]:
        """The one file the agent starts from, visible tests included."""
        return {SOURCE: self._koans[task.id].source}

    def open(self, task: Task, root: Path, sandbox: Sandbox) -> KoanWorkplace:
        """See `TaskStream`."""
        return KoanWorkplace(root, self.checkout(task)[SOURCE], self.secret(task), sandbox, rust())

    def secret(self, task: Task) -> TaskSecret:
        """What grading needs; `kind` is the family."""
        koan = self._koans[task.id]
        return TaskSecret(
            task_id=task.id,
            kind=task.repo,
            fix=self.merged_fix(task),
            tests=koan.tests,
            fail_to_pass=koan.fail_to_pass,
            pass_to_pass=koan.pass_to_pass,
        )

    def merged_fix(self, task: Task) -> MergedFix:
        """The fix, once the task is over."""
        koan = self._koans[task.id]
        return MergedFix(task_id=task.id, symbol=koan.symbol, path=SOURCE, before=koan.source, after=koan.fixed)
