"""A patch on a clean checkout, with the hidden tests in place over it: what is tested, when mining and when grading."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SandboxError
from agent.repositories import Checkout, Mirror, RepositoryError, apply, checkout, pretend_version
from agent.sandbox.base import Limits, Sandbox
from agent.workspace import remove_tree
from eval.errors import EvalError
from eval.mining.environment import Environment
from eval.mining.history import Candidate, Refused, is_runnable, is_test
from eval.mining.running import LIMITS, Report, advice, prepare, run_tests
from eval.mining.schema import MinedTask
from memory.trajectories import Outcome

_CONFIGURATION = re.compile(r"(^|/)(\.?pytest\.(ini|toml)|tox\.ini|setup\.cfg|pyproject\.toml)$", re.IGNORECASE)
_STARTUP = re.compile(r"(^|/)((site|user)customize\.py|[^/]+\.pth|[^/]+\.(egg|dist)-info/.*)$", re.IGNORECASE)
_LINK = re.compile(r"^(new file mode|new mode|index [0-9a-f]+\.\.[0-9a-f]+) (120|160)000$", re.MULTILINE)


class Unfit(Exception):  # an answer about one patch, not an error of the program
    """A patch cannot be tried; the text is why."""


def place(made: Checkout, mirror: Mirror, fix: str, test_patch: str, patch: str) -> None:
    """Bring a fresh checkout of a task's base into the state that is tested.

    What decides is not the candidate's to change: its changes to tests (`conftest.py` included), to what runs when
    Python starts, and to files that configure pytest are dropped; the latter are as in the commit `fix`.

    Raises:
        Unfit: the patch does not apply, or adds or changes links.
        RepositoryError: the hidden tests cannot be put in place.
    """
    if _LINK.search(patch):
        raise Unfit("the patch adds or changes a link or a submodule")
    try:
        if patch.strip():
            made.git("apply", "--index", "--whitespace=nowarn", "-", given=patch.encode("utf-8", "surrogateescape"))
    except RepositoryError as error:
        raise Unfit("the patch does not apply") from error
    listed = made.git("diff-index", "--cached", "--name-only", "--no-renames", "-z", made.base)
    changed = [path.decode("utf-8", "surrogateescape") for path in listed.split(b"\0")[:-1]]
    _restore(made, [path for path in changed if is_test(path) or _STARTUP.search(path)])
    try:
        apply(made, test_patch)
    except RepositoryError:  # what git says of it would tell which tests they are
        raise RepositoryError("the hidden tests cannot be put in place over the change") from None
    for path in [path for path in changed if _CONFIGURATION.search(path) and not is_test(path)]:
        _remove(made.root / path)
        if mirror.git("ls-tree", "-z", fix, "--", path).startswith(b"100"):
            (made.root / path).parent.mkdir(parents=True, exist_ok=True)
            (made.root / path).write_bytes(mirror.git("cat-file", "blob", f"{fix}:{path}"))


def _remove(path: Path) -> None:
    """Remove a file that a patch may have made a folder, or may have put below a file."""
    try:
        path.unlink(missing_ok=True)
    except NotADirectoryError:
        return
    except (IsADirectoryError, PermissionError):  # the latter on macOS
        remove_tree(path)


def _restore(made: Checkout, paths: list[str]) -> None:
    for path in paths:
        _remove(made.root / path)
    if paths:
        old = made.git("ls-tree", "-r", "--name-only", "-z", made.base, "--", *paths).split(b"\0")[:-1]
        if old:
            made.git("checkout", "--quiet", made.base, "--", *(path.decode("utf-8", "surrogateescape") for path in old))


def _guarded(root: Path, runnable: tuple[str, ...]) -> list[str]:
    """The hidden tests and the conftest.py files that they use: what the code under test may read, not write."""
    folders = {folder for path in runnable for folder in Path(path).parents}
    return [
        *runnable,
        *(str(folder / "conftest.py") for folder in sorted(folders) if (root / folder / "conftest.py").is_file()),
    ]


@dataclass(frozen=True)
class Laboratory:
    """Where patches are tried."""

    mirror: Mirror
    sandbox: Sandbox
    environment: Environment
    limits: Limits = LIMITS

    def run(self, candidate: Candidate, fixed: bool) -> Report:
        """The candidate's tests without or with its fix; every run has its own workspace.

        Raises:
            Refused: the patches do not apply, or what was seen is no answer.
            SandboxError: the sandbox itself failed.
        """
        try:
            patch = candidate.patch if fixed else ""
            report = self.tried(
                candidate.base, candidate.commit.sha, candidate.test_patch, patch, candidate.runnable, candidate.runnable
            )
        except (Unfit, RepositoryError) as error:
            raise Refused("patch does not apply") from error
        if report.timed_out:
            raise Refused("tests take too long")
        if not report.started:
            raise Refused("pytest does not start", advice(report.output) or _last(report.output))
        if report.code not in (0, 1, 5) or (report.results and not report.sound):
            raise Refused("pytest does not end well", _last(report.output))
        return report

    def tried(
        self, base: str, fix: str, test_patch: str, patch: str, runnable: tuple[str, ...], targets: tuple[str, ...]
    ) -> Report:
        """One run of `targets` over `base` with both patches. Raises as `place` and `run_tests` do."""
        with tempfile.TemporaryDirectory(prefix="mine-") as name:
            # The git directory lies beside the workspace, where the sandbox does not look.
            made = checkout(self.mirror, base, Path(name).resolve() / "repo")
            place(made, self.mirror, fix, test_patch, patch)
            version = pretend_version(self.mirror, base)
            prepare(made.root, version)
            hidden = _guarded(made.root, runnable)
            return run_tests(made.root, self.sandbox, self.environment, targets, self.limits, version, hidden)


def grade(
    mirror: Mirror, task: MinedTask, patch: str, sandbox: Sandbox, environment: Environment, limits: Limits = LIMITS
) -> tuple[Outcome, str]:
    """The verdict on a patch to a mined task, and what decided it.

    The patch is applied to a clean checkout, the hidden tests are put in place over it, and every FAIL_TO_PASS and
    PASS_TO_PASS test must have been seen to pass. What cannot be run here is a failure of the infrastructure.
    """
    told, evaluation = task.metadata, task.evaluation
    runnable = tuple(path for path in evaluation.test_files if is_runnable(path))
    laboratory = Laboratory(mirror, sandbox, environment, limits)
    if not environment.python.exists():
        return Outcome.INFRASTRUCTURE_FAILURE, f"{environment.python} is gone; make it again, or mine the repository again"
    try:
        report = laboratory.tried(told.base_commit, told.fix_commit, evaluation.test_patch, patch, runnable, runnable)
    except Unfit as unfit:
        return Outcome.UNRESOLVED, str(unfit)
    except (RepositoryError, SandboxError, EvalError, OSError) as error:
        return Outcome.INFRASTRUCTURE_FAILURE, str(error)[:500]
    if report.timed_out:
        return Outcome.UNRESOLVED, f"the tests did not end within {limits.seconds:g} s"
    if not report.results:
        return Outcome.UNRESOLVED, "no test was seen to run"
    if not report.sound:
        return Outcome.UNRESOLVED, "the report of the tests is not sound: a test that must fail was not seen to fail"
    tests = (*evaluation.FAIL_TO_PASS, *evaluation.PASS_TO_PASS)
    if lacking := report.lacking(tests):  # which ones is a secret
        return Outcome.UNRESOLVED, f"{lacking} of {len(tests)} tests not seen to pass"
    return Outcome.RESOLVED, f"{len(tests)} tests passed"


def _last(output: str) -> str:
    lines = ["".join(c for c in line if c.isprintable()).strip() for line in output.split("\n")]
    return next((line[:200] for line in reversed(lines) if line), "no output")
