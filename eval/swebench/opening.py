"""The benchmark's stream, put together from folders: mirrors, environments, what was verified."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from agent.repositories import Mirror, Mirrors
from agent.sandbox.base import Sandbox
from eval.swebench.dataset import Dataset
from eval.swebench.docker.engine import Engine
from eval.swebench.docker.grader import DockerGrader
from eval.swebench.docker.images import Images, Missing
from eval.swebench.native.environments import Environments
from eval.swebench.native.grader import NativeGrader
from eval.swebench.native.tables import VERSION, tables
from eval.swebench.native.verify import verify
from eval.swebench.stream import Grader, SweBenchStream

PUBLISHER = "https://github.com/{repo}.git"


class ClonedMirrors(Mirrors):
    """Mirrors that are cloned from their publisher when they are first asked for."""

    def get(self, repo: str) -> Mirror:
        """The mirror of a repository.

        Raises:
            RepositoryError: it is not there and cannot be cloned.
        """
        return self.clone(repo, PUBLISHER.format(repo=repo))


def opened(dataset: Dataset, ids: Iterable[str], mirrors: Mirrors, environments: Path, verified: Path) -> SweBenchStream:
    """The stream of these tasks, graded natively. Each is verified, in the folder `verified`, before it is first opened."""

    def grading(sandbox: Sandbox) -> NativeGrader:
        return NativeGrader(dataset, mirrors, Environments(environments), sandbox)

    def why_not(grader: Grader, task_id: str) -> str:
        assert isinstance(grader, NativeGrader)
        found = verify(grader, dataset, [task_id], verified)[task_id]
        return "" if found.verified else found.why

    return SweBenchStream(dataset, ids, grading, why_not)


def opened_in_images(
    dataset: Dataset, ids: Iterable[str], mirrors: Mirrors, kept: Path, template: str, missing: Missing
) -> SweBenchStream:
    """The stream of these tasks, graded in Docker images; see `Images` for `template` and `missing`.

    `kept` is for what images have built, and for which tasks verify in theirs.

    Raises:
        EvalError: an id is not in the dataset, or there is no Docker client.
    """
    images = Images(Engine(), dataset, mirrors, template, missing)
    grader = DockerGrader(dataset, mirrors, images, kept / "products")

    def why_not(_: Grader, task_id: str) -> str:
        found = verify(grader, dataset, [task_id], kept / "verified")[task_id]
        return "" if found.verified else found.why

    stream = SweBenchStream(dataset, ids, lambda sandbox: grader, why_not)  # each image is a sandbox of its own
    stream.name += f"-docker-{template}" if template else "-docker"
    return stream


def examine() -> str:
    """What native grading stands on.

    Raises:
        EvalError: something is missing; the text says what to install.
    """
    tables()
    return f"swebench {VERSION}"


def examine_engine() -> str:
    """What Docker grading stands on.

    Raises:
        EvalError: something is missing; the text says what to install.
    """
    return f"{examine()}, Docker on {Engine().arch()}"
