"""A repository's own history as a `TaskStream`: a stream file, and a mirror that has its commits."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from agent.repositories import Mirror, checkout, diff, pretend_version
from agent.sandbox.base import Limits, Sandbox
from agent.tools import TestRun
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.mining.environment import Environment, environment_of
from eval.mining.running import limits_of, prepare, run_tests
from eval.mining.schema import KIND, MinedTask, read
from eval.mining.trial import grade
from memory.hashing import content_hash
from memory.tasks import MergedFix, Task, TaskSecret
from memory.trajectories import Outcome

GRADED_BY = (Path(__file__).resolve().parent,)


class HistoryWorkplace:
    """A checkout of a mined task, tested as its stream says."""

    def __init__(
        self, mirror: Mirror, task: MinedTask, root: Path, sandbox: Sandbox, environment: Environment, limits: Limits
    ) -> None:
        self._mirror, self._task, self._sandbox = mirror, task, sandbox
        self._environment, self._limits = environment, limits
        base = task.metadata.base_commit
        self._version = pretend_version(mirror, base)
        self._checkout = checkout(mirror, base, root)
        self.workspace = Workspace(self._checkout.root)
        prepare(self._checkout.root, self._version)

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        """See `Workplace`; targets are paths or pytest's test ids."""
        root = self._checkout.root
        seen = run_tests(root, self._sandbox, self._environment, targets, self._limits, self._version)
        return TestRun(seen.passed, seen.output)

    def diff(self) -> str:
        """See `Workplace`."""
        return diff(self._checkout)

    def grade(self) -> tuple[Outcome, str]:
        """See `Workplace`."""
        return grade(self._mirror, self._task, self.diff(), self._sandbox, self._environment, self._limits)

    def close(self) -> None:
        """See `Workplace`."""
        self._checkout.remove()


class RepositoryStream:
    """The tasks of a stream file, all or those with these ids, checked out of a mirror.

    Raises:
        EvalError: the file is damaged, has not one of the ids, or the mirror lacks the commit of one of its tasks.
    """

    graded_by = GRADED_BY

    def __init__(self, path: Path, mirror: Mirror, ids: Iterable[str] | None = None) -> None:
        self._mirror, self._file = mirror, read(path)
        (sequence,) = self._file.sequences
        self.name = f"{sequence.id}-{content_hash(self._file)}"
        known = {task.metadata.instance_id: task for task in sequence.tasks}
        wanted = list(known if ids is None else ids)
        if unknown := [identity for identity in wanted if identity not in known]:
            raise EvalError(f"{path} has no task {unknown[0]!r}; it may have been mined again")
        self._tasks = {identity: known[identity] for identity in wanted}
        shas = [sha for task in self._tasks.values() for sha in (task.metadata.base_commit, task.metadata.fix_commit)]
        found = mirror.git("cat-file", "--batch-check=%(objecttype)", given="".join(f"{sha}\n" for sha in shas).encode())
        lost = [i for i, kind in enumerate(found.split(b"\n")[:-1]) if kind != b"commit"]
        if lost:
            name = wanted[lost[0] // 2]
            raise EvalError(f"{mirror.git_dir} lacks the commits of {name}; give the repository that {path} was mined from")

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        return [
            Task(
                id=task.metadata.instance_id,
                repo=task.metadata.repo,
                issue=task.task.problem_statement,
                created_at=task.metadata.created_at,
                position=task.continual_learning.sequence_position - 1,
                difficulty=task.metadata.difficulty,
            )
            for task in self._tasks.values()
        ]

    def open(self, task: Task, root: Path, sandbox: Sandbox) -> HistoryWorkplace:
        """See `TaskStream`."""
        return HistoryWorkplace(self._mirror, self._tasks[task.id], root, sandbox, self._environment, limits_of(self._file))

    def examine(self) -> None:
        """Look whether the tests can still be run as they were.

        Raises:
            EvalError: the Python that they were proven in is gone, or has other packages.
        """
        _ = self._environment

    @cached_property
    def _environment(self) -> Environment:
        return environment_of(self._file).verified()

    def secret(self, task: Task) -> TaskSecret:
        """What grading needs."""
        evaluation = self._tasks[task.id].evaluation
        return TaskSecret(
            task_id=task.id,
            kind=KIND,
            fix=self.merged_fix(task),
            tests=evaluation.test_files,
            fail_to_pass=evaluation.FAIL_TO_PASS,
            pass_to_pass=evaluation.PASS_TO_PASS,
        )

    def mined(self, task: Task) -> MinedTask:
        """The whole task as it was mined, secrets included."""
        return self._tasks[task.id]

    def merged_fix(self, task: Task) -> MergedFix | None:
        """The change upstream merged, where it changed one existing Python file and nothing else."""
        mined = self._tasks[task.id]
        path, *more = mined.continual_learning.modified_files
        if more or not path.endswith(".py") or re.search(r"^(new|deleted) file", mined.evaluation.patch, re.MULTILINE):
            return None
        before, after = (self._mirror.text(sha, path) for sha in (mined.metadata.base_commit, mined.metadata.fix_commit))
        if any("\ud800" <= character <= "\udfff" for character in before + after):
            return None  # not UTF-8, so no text
        return MergedFix(
            task_id=task.id, symbol=_symbol(before, after) or Path(path).stem, path=path, before=before, after=after
        )


def _symbol(before: str, after: str) -> str:
    """The innermost function or class of `after` around the first line that differs; empty if there is none."""
    old, new = before.split("\n"), after.split("\n")
    line = next((i for i, (a, b) in enumerate(zip(old, new, strict=False), start=1) if a != b), min(len(old), len(new)))
    try:
        tree = ast.parse(after)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno).name if around else ""
