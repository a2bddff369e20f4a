"""The Docker grader: the official verdict on a patch, in the benchmark's image and a container that is hardened.

The files under test are a checkout of ours, one commit and no history, with what the image's build left beside them; it is
mounted where the image has its repository. The image's own `.git` is never shown to anybody. What a verdict is, which
paths a patch has no say in, and how the tests' own word is told from forgeries is shared with the native grader.
"""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

from agent.errors import AgentError
from agent.repositories import Checkout, Mirrors, RepositoryError, checkout
from agent.sandbox.base import Limits
from agent.sandbox.docker import Docker
from agent.tools import TestRun
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.swebench.dataset import Dataset
from eval.swebench.docker import layout
from eval.swebench.docker.images import Image, Images
from eval.swebench.docker.products import Products
from eval.swebench.native import runs
from eval.swebench.native.environments import Facts
from eval.swebench.native.grader import Verdict, put_patch, put_tests, verdict_of
from eval.swebench.native.recipes import Recipe
from eval.swebench.native.tables import tables
from memory.hashing import content_hash, source_hash
from memory.trajectories import Outcome

_HERE = Path(__file__).resolve().parent
_ASK = "import sys; print('%d.%d.%d' % sys.version_info[:3])"


class DockerGrader:
    """Grades the tasks of a dataset in their images; safe for several threads."""

    def __init__(
        self,
        dataset: Dataset,
        mirrors: Mirrors,
        images: Images,
        products: Path,
        folder: Path | None = None,
        limits: Limits = runs.LIMITS,
    ) -> None:
        """Args: `products` keeps what images have built; `folder` is where workspaces are made, which the engine must be
        able to mount (the system's place for temporary files otherwise).
        """
        self._dataset, self._mirrors, self._images, self._folder, self._limits = dataset, mirrors, images, folder, limits
        self._products = Products(products, images.engine)
        self._known: dict[str, tuple[Docker, Facts]] = {}
        self._asking = threading.Lock()

    def recipe(self, task_id: str) -> Recipe:
        """How a task's tests are run.

        Raises:
            EvalError: there is no such task, or its version is unknown.
        """
        return layout.recipe(self._dataset.repo(task_id), self._dataset.base(task_id).version)

    def decides(self, task_id: str) -> str:
        """Hash of the task, how it is run and its image: with native grading's code, all that a verdict depends on.

        Raises:
            EvalError: there is no such task, or no image.
        """
        secret, how = self._dataset.secret(task_id), self.recipe(task_id)
        hidden = [secret.patch, secret.test_patch, secret.fail_to_pass, secret.pass_to_pass]
        commit = self._dataset.base(task_id).commit
        return content_hash([commit, hidden, how, self._images.get(task_id).identity, source_hash((_HERE,))])

    def prepare(self, task_id: str) -> Facts:
        """Get the image of a task, and see that it is laid out like the benchmark's; its hash is the environment's.

        Raises:
            EvalError: it cannot be had, or is of another kind.
            SandboxError: the engine failed.
        """
        return self._opened(self._images.get(task_id))[1]

    def checkout(self, task_id: str, root: Path) -> Checkout:
        """What the agent starts from, in the new folder `root`, as built in the image.

        Raises:
            EvalError, RepositoryError: it cannot be made here.
        """
        image = self._images.get(task_id)
        made = self._plain(task_id, root)
        try:
            self._products.put(made, image, layout.REPOSITORY)
        except BaseException:
            made.remove()
            raise
        return made

    def workspace(self, task_id: str, root: Path) -> Workspace:
        """The workspace of a checkout of a task; its paths and variables are the image's, so only `run` can use them.

        Raises:
            EvalError: there is no such task, or its version is unknown.
        """
        return layout.workspace(self.recipe(task_id), root)

    def run(self, task_id: str, root: Path, targets: tuple[str, ...]) -> TestRun:
        """A test run of the agent's own in the checkout at `root`; passed only if its exit code says so.

        Raises:
            EvalError: there is no image.
            SandboxError: the engine failed.
        """
        place, sandbox = self.workspace(task_id, root), self._opened(self._images.get(task_id))[0]
        result = sandbox.run((*place.test_argv, *targets), place, self._limits)
        return runs.told_to_the_agent(result, self._limits)

    def grade(self, task_id: str, patch: str) -> Verdict:
        """The verdict on a patch (git's format, from the base commit; empty for none). Never raises for the patch's sake."""
        began = time.monotonic()
        facts: Facts | None = None
        results: dict[str, str] = {}
        try:
            image = self._images.get(task_id)
            sandbox, facts = self._opened(image)
            outcome, why, results = self._graded(task_id, patch, image, sandbox)
        except (AgentError, EvalError, OSError) as error:
            outcome, why = Outcome.INFRASTRUCTURE_FAILURE, str(error)
        return Verdict(outcome, why, time.monotonic() - began, results, facts)

    def _graded(self, task_id: str, patch: str, image: Image, sandbox: Docker) -> tuple[Outcome, str, dict[str, str]]:
        secret, how = self._dataset.secret(task_id), self.recipe(task_id)
        with tempfile.TemporaryDirectory(prefix="grade-", dir=self._folder, ignore_cleanup_errors=True) as name:
            made = self._plain(task_id, Path(name).resolve() / "repo")
            try:
                put_patch(made, patch, how.protected)
            except RepositoryError as error:
                return Outcome.UNRESOLVED, f"the patch does not apply: {error}", {}
            put_tests(made, secret.test_patch)
            self._products.put(made, image, layout.REPOSITORY)  # after the patch, which has no say in them
            targets = tables().directives(how.repo, secret.test_patch)
            seen = runs.run(how, layout.workspace(how, made.root), targets, sandbox, self._limits)
        return verdict_of(secret, seen, self._limits)

    def _plain(self, task_id: str, root: Path) -> Checkout:
        return checkout(self._mirrors.get(self._dataset.repo(task_id)), self._dataset.base(task_id).commit, root)

    def _opened(self, image: Image) -> tuple[Docker, Facts]:
        with self._asking:
            if image.identity not in self._known:
                sandbox = Docker(image.identity, self._images.engine.host, layout.PYTHON, at=layout.REPOSITORY)
                self._known[image.identity] = sandbox, self._facts(image, sandbox)
            return self._known[image.identity]

    def _facts(self, image: Image, sandbox: Docker) -> Facts:
        with tempfile.TemporaryDirectory(prefix="probe-", dir=self._folder) as name:
            place = Workspace(Path(name).resolve())
            said = sandbox.run((layout.PYTHON, "-I", "-S", "-c", _ASK), place, self._limits).stdout.strip()
        version = tuple(int(part) for part in said.split(".")) if said.replace(".", "").isdigit() else ()
        if not version:
            raise EvalError(
                f"{image.name}: {layout.PYTHON} does not run ({said[-300:]}); images must be laid out like the benchmark's"
            )
        if version < layout.OLDEST:
            raise EvalError(
                f"{image.name} has Python {said}; tests cannot be watched on one before {'.'.join(map(str, layout.OLDEST))}"
            )
        return Facts(key=image.identity.removeprefix("sha256:")[:16], python=said, lock=image.identity)
