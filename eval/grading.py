"""Grading of pocket tasks: hidden tests, run in the sandbox on a clean copy of what was submitted.

A task is resolved only if every FAIL_TO_PASS and every PASS_TO_PASS test was positively seen as
passed; a test that is not in the report has not passed.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.errors import SandboxError
from agent.sandbox.base import PYTHON, Limits, Sandbox
from agent.tools import TestRun
from agent.workplace import tree_diff
from agent.workspace import Workspace, remove_tree, write_tree
from eval.judge import court
from eval.pocket import runner
from memory.tasks import TaskSecret
from memory.trajectories import Outcome

RUNNER = Path(runner.__file__).resolve()
JUDGE = Path(court.__file__).resolve().parent
GRADED_BY = (Path(__file__).resolve(), RUNNER, JUDGE)
LIMITS = Limits(seconds=10.0)


class TreeWorkplace:
    """A small tree of files (path to text) with visible tests in `tests/`; graded by hidden ones in their place."""

    def __init__(self, root: Path, files: Mapping[str, str], secret: TaskSecret, sandbox: Sandbox) -> None:
        write_tree(root, files)
        self.workspace = Workspace(root, (PYTHON, "-I", "-S", str(RUNNER), str(root)), (RUNNER,))
        self._secret, self._sandbox = secret, sandbox
        self._untouched = self.workspace.snapshot()

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        """See `Workplace`; there are so few that always all of them run."""
        result = self._sandbox.run(self.workspace.test_argv, self.workspace, LIMITS)
        if result.timed_out:
            return TestRun(False, f"the tests did not end within {LIMITS.seconds:g} s")
        return TestRun(result.returncode == 0, result.stdout.strip())

    def diff(self) -> str:
        """See `Workplace`."""
        return tree_diff(self._untouched, self.workspace.snapshot())

    def grade(self) -> tuple[Outcome, str]:
        """See `Workplace`."""
        return grade(self._secret, self.workspace.snapshot(), self._sandbox)

    def close(self) -> None:
        """See `Workplace`."""
        with suppress(OSError):
            remove_tree(self.workspace.root)


def grade(secret: TaskSecret, files: Mapping[str, str], sandbox: Sandbox) -> tuple[Outcome, str]:
    """The verdict on submitted files, and what decided it.

    The tests run in another process than the code under test, which sees neither them nor the key
    that the report must carry: see `eval.judge`.
    """
    key = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="grade-") as name:
        root = Path(name).resolve() / "repo"
        # Where names differ only in case by looks, `Tests/` would be `tests/`.
        source = {path: text for path, text in files.items() if not path.casefold().startswith("tests/")}
        tests = {path: text for path, text in secret.tests.items() if path.endswith(".py")}
        data = {path: text for path, text in secret.tests.items() if path not in tests}
        hidden = f".{secrets.token_hex(8)}"
        write_tree(root, {**source, **data, hidden: json.dumps({"key": key, "tests": tests})})
        argv = (PYTHON, "-I", "-S", str(JUDGE / "__main__.py"), str(root), str(root / hidden))
        try:
            result = sandbox.run(argv, Workspace(root, argv, (JUDGE,)), LIMITS)
        except SandboxError as error:
            return Outcome.INFRASTRUCTURE_FAILURE, str(error)
    results = _report(result.stdout, key)
    if result.returncode != 0:
        return Outcome.UNRESOLVED, "the hidden tests did not all pass"
    tests_needed = (*secret.fail_to_pass, *secret.pass_to_pass)
    if missed := sum(results.get(test) != "PASSED" for test in tests_needed):  # which ones is a secret
        return Outcome.UNRESOLVED, f"{missed} of {len(tests_needed)} tests not seen to pass"
    return Outcome.RESOLVED, f"{len(tests_needed)} tests passed"


def _report(said: str, key: str) -> dict[str, str]:
    """The judge's report, which alone has the key; whatever else the code under test had printed counts for nothing."""
    lines = [line.removeprefix(f"{key} ") for line in said.splitlines() if line.startswith(f"{key} ")]
    if len(lines) != 1:
        return {}
    try:
        data = json.loads(lines[0])
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in data.items()} if isinstance(data, dict) else {}
