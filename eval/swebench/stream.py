"""SWE-Bench-CL as a `TaskStream`: real repositories, each at one commit, with the official verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from agent.errors import WorkplaceError
from agent.repositories import Checkout, diff
from agent.sandbox.base import Sandbox
from agent.tools import TestRun
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.swebench.dataset import Dataset
from eval.swebench.native.grader import Verdict
from memory.tasks import MergedFix, Task, TaskSecret
from memory.trajectories import Outcome

_HERE = Path(__file__).resolve().parent
GRADED_BY = (_HERE, _HERE / "native" / "recipes.toml")


class Grader(Protocol):
    """Opens, runs and grades the tasks of a dataset, in one way or another."""

    def checkout(self, task_id: str, root: Path) -> Checkout:
        """What the agent starts from, in the new folder `root`."""
        ...

    def workspace(self, task_id: str, root: Path) -> Workspace:
        """The workspace of such a checkout."""
        ...

    def run(self, task_id: str, root: Path, targets: tuple[str, ...]) -> TestRun:
        """A test run of the agent's own in such a checkout."""
        ...

    def grade(self, task_id: str, patch: str) -> Verdict:
        """The verdict on a patch, in a checkout of its own."""
        ...


class SweBenchWorkplace:
    """A checkout of a task, its environment's tests, and the grader's verdict on what was changed."""

    def __init__(self, grader: Grader, task_id: str, root: Path) -> None:
        self._grader, self._task = grader, task_id
        self._checkout = grader.checkout(task_id, root)
        try:
            self.workspace = grader.workspace(task_id, root)
        except BaseException:
            self.close()
            raise

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        """See `Workplace`.

        Raises:
            SandboxError, WorkplaceError: they could not be started.
        """
        try:
            return self._grader.run(self._task, self.workspace.root, tuple(targets))
        except EvalError as error:
            raise WorkplaceError(str(error)) from error

    def diff(self) -> str:
        """See `Workplace`."""
        return diff(self._checkout)

    def grade(self) -> tuple[Outcome, str]:
        """See `Workplace`."""
        verdict = self._grader.grade(self._task, self.diff())
        return verdict.outcome, verdict.why

    def close(self) -> None:
        """See `Workplace`."""
        self._checkout.remove()


class SweBenchStream:
    """The tasks with these ids, in the order given. `position` is the place in the whole file.

    `grading` makes the grader for a sandbox. `why_not` says why a task cannot be counted on this machine, if it cannot:
    it is asked before a task is opened, and such a task is not played.

    Raises:
        EvalError: an id is not in the dataset.
    """

    graded_by = GRADED_BY

    def __init__(
        self,
        dataset: Dataset,
        ids: Iterable[str],
        grading: Callable[[Sandbox], Grader],
        why_not: Callable[[Grader, str], str] = lambda grader, task_id: "",
    ) -> None:
        known = {task.id: task for task in dataset.tasks()}
        wanted = list(ids)
        if unknown := [identity for identity in wanted if identity not in known]:
            raise EvalError(f"{dataset.name}: no task {unknown[0]!r}; it may be another file than before")
        self._tasks = [known[identity] for identity in wanted]
        self._dataset, self._grading, self._why_not = dataset, grading, why_not
        self._graders: dict[str, Grader] = {}
        self.name = f"swe-bench-cl-{dataset.sha256[:16]}"

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        return self._tasks

    def open(self, task: Task, root: Path, sandbox: Sandbox) -> SweBenchWorkplace:
        """See `TaskStream`."""
        if sandbox.name not in self._graders:
            self._graders[sandbox.name] = self._grading(sandbox)
        grader = self._graders[sandbox.name]
        if why := self._why_not(grader, task.id):
            raise EvalError(f"{task.id} does not verify on this machine: {why}")
        return SweBenchWorkplace(grader, task.id, root)

    def secret(self, task: Task) -> TaskSecret:
        """What grading needs."""
        return self._dataset.secret(task.id)

    def merged_fix(self, task: Task) -> MergedFix | None:
        """None: the benchmark's patches are never training data."""
        return None
