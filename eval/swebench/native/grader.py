"""The native grader: the official verdict on a patch, made in an environment of our own and the house's sandbox."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from agent.errors import AgentError
from agent.repositories import Checkout, Mirrors, RepositoryError, apply, checkout, pretend_version
from agent.sandbox.base import Limits, Sandbox
from agent.tools import TestRun
from agent.workspace import Workspace, remove_tree
from eval.errors import EvalError
from eval.swebench.dataset import Dataset, SweBenchSecret
from eval.swebench.native import runs
from eval.swebench.native.environments import Environments, Facts
from eval.swebench.native.recipes import Recipe, recipe
from eval.swebench.native.tables import tables
from memory.hashing import content_hash
from memory.trajectories import Outcome

_SETTINGS = re.compile(
    r"(conftest\.py|\.?pytest\.(ini|toml)|tox\.ini|setup\.cfg|pyproject\.toml|(site|user)customize\.py|.*\.(pth|egg-link))",
    re.IGNORECASE,
)
_TESTS = ("test", "tests", "testing")
_TEST_FILE = re.compile(r"test_.*\.py|.*_tests?\.py", re.IGNORECASE)
_ODD_MODE = re.compile(
    r"^(new file mode|new mode|deleted file mode|index [0-9a-f]+\.\.[0-9a-f]+) (120000|160000)", re.MULTILINE
)


@dataclass(frozen=True)
class Verdict:
    """What a patch is worth. `results` are the statuses of the decisive tests, which the agent must not see.

    `seconds` are wall time; `environment` is `None` if none could be had.
    """

    outcome: Outcome
    why: str
    seconds: float
    results: Mapping[str, str] = field(default_factory=dict, repr=False)
    environment: Facts | None = None


def is_protected(path: str, more: tuple[str, ...] = ()) -> bool:
    """Whether grading takes a path from the base commit, whatever a patch did to it: tests, what they run with, and `more`.

    No fix of the benchmark touches one: its own making has put such changes into the hidden test patch.
    """
    *folders, name = PurePosixPath(path.casefold()).parts or ("",)
    return (
        any(folder in _TESTS for folder in folders)
        or _SETTINGS.fullmatch(name) is not None
        or _TEST_FILE.fullmatch(name) is not None
        or any(path.casefold().startswith(place) if place.endswith("/") else path.casefold() == place for place in more)
    )


class NativeGrader:
    """Grades the tasks of a dataset; safe for several threads."""

    def __init__(
        self,
        dataset: Dataset,
        mirrors: Mirrors,
        environments: Environments,
        sandbox: Sandbox,
        folder: Path | None = None,
        limits: Limits = runs.LIMITS,
    ) -> None:
        """Args: `folder` is where workspaces are made (the system's place for temporary files otherwise)."""
        self._dataset, self._mirrors, self._environments = dataset, mirrors, environments
        self._sandbox, self._folder, self._limits = sandbox, folder, limits

    def recipe(self, task_id: str) -> Recipe:
        """How a task's tests are run.

        Raises:
            EvalError: there is no such task, or no recipe for it.
        """
        return recipe(self._dataset.repo(task_id), self._dataset.base(task_id).version, task_id)

    def decides(self, task_id: str) -> str:
        """Hash of the task, its recipe and its environment's name: with the code, all that a verdict depends on.

        Raises:
            EvalError: there is no such task, or no recipe for it.
        """
        secret, how = self._dataset.secret(task_id), self.recipe(task_id)
        hidden = [secret.patch, secret.test_patch, secret.fail_to_pass, secret.pass_to_pass]
        return content_hash([self._dataset.base(task_id).commit, hidden, how, self._environments.key(how), self._sandbox.name])

    def prepare(self, task_id: str) -> Facts:
        """Make the environment of a task, if it is not there.

        Raises:
            EvalError: it cannot be made here.
        """
        return self._environments.get(self.recipe(task_id)).facts

    def checkout(self, task_id: str, root: Path) -> Checkout:
        """What the agent starts from, in the new folder `root`, as if it had been built.

        Raises:
            EvalError, RepositoryError: it cannot be made here.
        """
        repo, commit = self._dataset.repo(task_id), self._dataset.base(task_id).commit
        mirror = self._mirrors.get(repo)
        made = checkout(mirror, commit, root)
        how = self.recipe(task_id)
        if how.files:
            runs.build(how, made.root, pretend_version(mirror, commit))
        return made

    def workspace(self, task_id: str, root: Path) -> Workspace:
        """The workspace of a checkout of a task: mounts, variables, and the test command without targets.

        Raises:
            EvalError: the environment cannot be made here.
        """
        how = self.recipe(task_id)
        return runs.workspace(how, self._environments.get(how), root)

    def run(self, task_id: str, root: Path, targets: tuple[str, ...]) -> TestRun:
        """A test run of the agent's own in the checkout at `root`; passed only if its exit code says so.

        Raises:
            EvalError: the environment cannot be made here.
            SandboxError: the sandbox failed.
        """
        place = self.workspace(task_id, root)
        result = self._sandbox.run((*place.test_argv, *targets), place, self._limits)
        return runs.told_to_the_agent(result, self._limits)

    def grade(self, task_id: str, patch: str) -> Verdict:
        """The verdict on a patch in git's format, from the base commit; empty for none. Nothing is raised for its sake."""
        began = time.monotonic()
        facts: Facts | None = None
        results: dict[str, str] = {}
        try:
            facts = self.prepare(task_id)
            outcome, why, results = self._graded(task_id, patch)
        except (AgentError, EvalError, OSError) as error:
            outcome, why = Outcome.INFRASTRUCTURE_FAILURE, str(error)
        return Verdict(outcome, why, time.monotonic() - began, results, facts)

    def _graded(self, task_id: str, patch: str) -> tuple[Outcome, str, dict[str, str]]:
        secret, how = self._dataset.secret(task_id), self.recipe(task_id)
        with tempfile.TemporaryDirectory(prefix="grade-", dir=self._folder, ignore_cleanup_errors=True) as name:
            made = self.checkout(task_id, Path(name).resolve() / "repo")
            try:
                put_patch(made, patch, how.protected)
            except RepositoryError as error:
                return Outcome.UNRESOLVED, f"the patch does not apply: {error}", {}
            put_tests(made, secret.test_patch)
            targets = tables().directives(how.repo, secret.test_patch)
            seen = runs.run(how, self.workspace(task_id, made.root), targets, self._sandbox, self._limits)
        return verdict_of(secret, seen, self._limits)


def put_tests(made: Checkout, test_patch: str) -> None:
    """Put the hidden tests in place.

    Raises:
        RepositoryError: they cannot be; what git says of it would tell which they are.
    """
    try:
        apply(made, test_patch)
    except RepositoryError:
        raise RepositoryError("the hidden tests cannot be put in place over the change") from None


def verdict_of(secret: SweBenchSecret, seen: runs.Run, limits: Limits) -> tuple[Outcome, str, dict[str, str]]:
    """What a run decides, why (without naming a test), and the status of each test that decides."""
    needed = (*secret.fail_to_pass, *secret.pass_to_pass)
    results = {test: seen.statuses[test] for test in needed if test in seen.statuses}
    if seen.result.timed_out:
        return Outcome.UNRESOLVED, f"the tests did not end within {limits.seconds:g} s", results
    if seen.result.truncated:
        return Outcome.UNRESOLVED, f"the tests wrote more than {limits.output_bytes} bytes", results
    official = tables().resolved(seen.statuses, secret.fail_to_pass, secret.pass_to_pass)
    failed = [
        sum(results.get(test) not in runs.PASSED for test in tests) for tests in (secret.fail_to_pass, secret.pass_to_pass)
    ]
    if official and not any(failed):
        return Outcome.RESOLVED, f"{len(needed)} tests passed", results
    # Which tests these are is the task's secret.
    why = f"not seen to pass: {failed[0]} of {len(secret.fail_to_pass)} that it should mend, "
    return Outcome.UNRESOLVED, f"{why}{failed[1]} of {len(secret.pass_to_pass)} that passed before", results


def put_patch(made: Checkout, patch: str, protected: tuple[str, ...]) -> None:
    """Apply a patch, all but what it does to tests and to what they run with.

    Raises:
        RepositoryError: it does not apply, or makes links.
    """
    if not patch.strip():
        return
    if _ODD_MODE.search(patch):
        raise RepositoryError("it makes symbolic links or submodules")
    apply(made, patch)
    listed = made.git("ls-files", "-z", "--modified", "--deleted", "--others").split(b"\0")[:-1]
    base = set(made.git("ls-files", "-z").split(b"\0")[:-1])
    for path in dict.fromkeys(listed):
        name = path.decode("utf-8", "surrogateescape")
        if not is_protected(name, protected):
            continue
        if path in base:
            made.git("checkout-index", "--force", "-z", "--stdin", given=path + b"\0")
        else:
            target = made.root / name
            remove_tree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
