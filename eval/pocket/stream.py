"""The pocket world as a `TaskStream`: eight repositories, each an ordered, endless history."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from agent.sandbox.base import Sandbox
from agent.workplace import Workplace
from eval.errors import EvalError
from eval.grading import GRADED_BY, TreeWorkplace
from eval.pocket.conventions import DRIFTS, HOUSES, Drift, house_of
from eval.pocket.names import Split
from eval.pocket.world import CONVENTION_KIND, Module, Problem, build_module, build_problem, choices
from eval.pocket.world import test_source as render_tests
from memory.tasks import MergedFix, Task, TaskSecret

REPOSITORIES = tuple(HOUSES)
INVENTED_SHARE = 0.15
EPOCH = datetime(2024, 1, 1, tzinfo=UTC)
TASKS_PER_MODULE = 2
DIFFICULTIES = ("<15 min fix", "15 min - 1 hour", "1-4 hours")


@dataclass(frozen=True)
class _Entry:
    task: Task
    problem: Problem
    neighbour: Problem


def task_id(repo: str, split: Split, seed: int, number: int, drift: Drift = "") -> str:
    """How a task of the pocket world is called; `PocketStream.of` reads it."""
    return f"{repo}.{drift}-{split}-{seed}-{number}" if drift else f"{repo}-{split}-{seed}-{number}"


@lru_cache(maxsize=4096)
def _module_problems(seed: int, repo: str, split: Split, number: int, drift: Drift) -> tuple[Problem, Problem]:
    """A module's two bugs: one of a base skill, one about the house convention."""
    for attempt in itertools.count():
        rng = random.Random(f"{seed}/{repo}/{split}/{number}/{attempt}")
        module = build_module(rng, repo, split, house_of(repo, drift), INVENTED_SHARE)
        found = [_draw(rng, module, convention) for convention in (False, True)]
        if found[0] is not None and found[1] is not None:
            return found[0], found[1]
    raise AssertionError("unreachable")


def _draw(rng: random.Random, module: Module, convention: bool) -> Problem | None:
    options = choices(module, convention)
    return build_problem(rng, module, *rng.choice(options)) if options else None


def _problem(seed: int, repo: str, split: Split, number: int, drift: Drift = "") -> Problem:
    return _module_problems(seed, repo, split, number // TASKS_PER_MODULE, drift)[number % TASKS_PER_MODULE]


class PocketStream:
    """`count` tasks of each of `repos`, interleaved in time.

    Every second task of a repository is about its house convention. The same seed gives the same
    tasks; tasks of different splits share no function name. `start` skips the first tasks of each
    repository, so that a second day continues where the first ended. After a `drift` the repositories are what they
    became; such a task's id begins with the repository's name, a dot and the drift.
    """

    graded_by = GRADED_BY

    def __init__(
        self,
        seed: int = 0,
        repos: tuple[str, ...] = REPOSITORIES,
        count: int = 50,
        start: int = 0,
        split: Split = Split.STREAM,
        drift: Drift = "",
    ) -> None:
        unknown = set(repos) - set(REPOSITORIES)
        if unknown:
            raise EvalError(f"no pocket repository {sorted(unknown)[0]!r}; there are {', '.join(REPOSITORIES)}")
        self.name = f"pocket-{split}-{seed}"
        self._entries: dict[str, _Entry] = {}
        for number in range(start, start + count):
            for repo in repos:
                entry = self._entry(seed, repo, split, number, drift)
                self._entries[entry.task.id] = entry

    @classmethod
    def of(cls, ids: Iterable[str]) -> PocketStream:
        """The stream of just these tasks, in the order given.

        Raises:
            EvalError: if an id is not one of a pocket task.
        """
        stream = cls(count=0)
        stream.name = "pocket"
        for identity in ids:
            head, *rest = identity.rsplit("-", 3)
            repo, _, name = head.partition(".")
            try:
                split, seed, number = Split(rest[0]), int(rest[1]), int(rest[2])
                drift = DRIFTS[DRIFTS.index(name)]  # a ValueError where it is none
                stream._entries[identity] = stream._entry(seed, repo, split, number, drift)
            except (IndexError, KeyError, ValueError) as error:
                raise EvalError(f"{identity!r} is no task of the pocket world; it would read bank-stream-0-7") from error
        return stream

    def _entry(self, seed: int, repo: str, split: Split, number: int, drift: Drift) -> _Entry:
        problem = _problem(seed, repo, split, number, drift)
        neighbour = _problem(seed, repo, split, number + TASKS_PER_MODULE, drift)
        changed = len(set(problem.after.splitlines()) ^ set(problem.before.splitlines()))
        offset = REPOSITORIES.index(repo)
        task = Task(
            id=task_id(repo, split, seed, number, drift),
            repo=repo,
            issue=problem.symptom,
            created_at=EPOCH + timedelta(days=number, hours=offset),
            position=number * len(REPOSITORIES) + offset,
            difficulty=DIFFICULTIES[min(changed // 2, 2)] if problem.kind != CONVENTION_KIND else DIFFICULTIES[2],
            dependencies=(task_id(repo, split, seed, number - 1, drift),) if number % TASKS_PER_MODULE else (),
        )
        return _Entry(task, problem, neighbour)

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        return [entry.task for entry in self._entries.values()]

    def checkout(self, task: Task) -> dict[str, str]:
        """The repository's files as the agent finds them, visible tests included."""
        entry = self._entries[task.id]
        module, neighbour = entry.problem.module, entry.neighbour.module
        rule = module.convention
        assert rule is not None
        files = {f"{task.repo}/__init__.py": "", f"{task.repo}/{rule.file}.py": rule.source}
        if neighbour.name != module.name:
            files[neighbour.path] = neighbour.source()
            files[f"tests/test_{neighbour.name}.py"] = render_tests(neighbour, entry.neighbour.visible)
        files[module.path] = entry.problem.before
        files[f"tests/test_{module.name}.py"] = render_tests(module, entry.problem.visible)
        return files

    def open(self, task: Task, root: Path, sandbox: Sandbox) -> Workplace:
        """See `TaskStream`."""
        return TreeWorkplace(root, self.checkout(task), self.secret(task), sandbox)

    def secret(self, task: Task) -> TaskSecret:
        """What grading needs."""
        problem = self._entries[task.id].problem
        name = f"test_{problem.module.name}.py"
        tests = [f"test_{f}_{i}" for f, cases in problem.hidden.items() for i in range(len(cases))]
        return TaskSecret(
            task_id=task.id,
            kind=problem.kind,
            fix=problem.fix(task.id),
            tests={f"tests/{name}": render_tests(problem.module, problem.hidden)},
            fail_to_pass=tuple(f"{name}::{t}" for t in tests if t in problem.fails_before),
            pass_to_pass=tuple(f"{name}::{t}" for t in tests if t not in problem.fails_before),
        )

    def merged_fix(self, task: Task) -> MergedFix:
        """The change upstream merged once the task was over."""
        return self._entries[task.id].problem.fix(task.id)
