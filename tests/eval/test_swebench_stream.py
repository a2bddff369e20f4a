"""The benchmark's stream: what its results depend on, and what becomes of a grader that fails."""

from pathlib import Path

import pytest

from agent.errors import WorkplaceError
from agent.repositories import Checkout
from agent.tools import TestRun
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.swebench.native.grader import Verdict
from eval.swebench.stream import SweBenchStream, SweBenchWorkplace
from memory.trajectories import Outcome


class Gone:
    """A grader whose engine went away after it had opened the task."""

    def checkout(self, task_id: str, root: Path) -> Checkout:
        root.mkdir()
        return Checkout(root, root.with_suffix(".git"), "")

    def workspace(self, task_id: str, root: Path) -> Workspace:
        return Workspace(root)

    def run(self, task_id: str, root: Path, targets: tuple[str, ...]) -> TestRun:
        raise EvalError("is the engine running?")

    def grade(self, task_id: str, patch: str) -> Verdict:
        return Verdict(Outcome.INFRASTRUCTURE_FAILURE, "is the engine running?", 0.0)


def test_a_grader_that_cannot_run_tests_any_more_ends_the_attempt_and_not_the_batch(tmp_path: Path) -> None:
    with pytest.raises(WorkplaceError, match="is the engine running"):
        SweBenchWorkplace(Gone(), "a__b-1", tmp_path / "repo").test()


def test_results_depend_on_every_file_that_says_how_tests_are_run() -> None:
    package = Path(SweBenchStream.graded_by[0])
    data = set(package.rglob("*.toml"))
    assert data
    assert data <= set(SweBenchStream.graded_by)
