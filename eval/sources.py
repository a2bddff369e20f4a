"""Where a daemon's tasks come from: the configured stream, what comes next in it, and what may never be trained on."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from agent.errors import SandboxError
from agent.repositories import Mirrors, RepositoryError
from agent.sandbox.base import ExecResult, Limits, Sandbox
from agent.sandbox.ladder import probe
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.files import is_pocket
from eval.koans import stream as koans
from eval.koans.toolchain import rust
from eval.places import Places, key_of
from eval.pocket.names import Split
from eval.pocket.stream import PocketStream, task_id
from eval.streams import TaskStream
from eval.swebench.dataset import Dataset, read
from eval.task_config import KOANS, OWN_HISTORY, POCKET, SWE_BENCH_CL, TasksConfig

if TYPE_CHECKING:
    from eval.mining.stream import RepositoryStream


class Source(Protocol):
    """A configured stream."""

    def sandbox(self) -> Sandbox:
        """What its programs run in; for code that is not the pocket world's own, one that confines.

        Raises:
            SandboxError: there is none on this machine; the text says what to install.
        """
        ...

    def next(self, done: Set[str], count: int) -> list[str]:
        """Ids of the next `count` tasks without a result, in order; fewer where it ends.

        Raises:
            EvalError: what it is made of cannot be read; the text says what to do.
        """
        ...

    def stream(self, ids: Iterable[str]) -> TaskStream:
        """Just these tasks.

        Raises:
            EvalError: one of them is not here.
        """
        ...

    def has(self, task_id: str) -> bool:
        """Whether it is one of this source's."""
        ...

    def examine(self) -> str:
        """What there is to work on, in a few words.

        Raises:
            EvalError: something is missing; the text says what to do.
        """
        ...


@dataclass(frozen=True)
class PocketSource:
    """The pocket world; it never ends unless `count` says so."""

    config: TasksConfig

    def sandbox(self) -> Sandbox:
        """See `Source`."""
        return probe(trusted_generated=True)

    def next(self, done: Set[str], count: int) -> list[str]:
        """See `Source`."""
        config, found, number = self.config, list[str](), 0
        while len(found) < count and (not config.count or number < config.count):
            for repo in config.pocket_repos:
                identity = task_id(repo, Split.STREAM, config.seed, number)
                if identity not in done and len(found) < count:
                    found.append(identity)
            number += 1
        return found

    def stream(self, ids: Iterable[str]) -> TaskStream:
        """See `Source`."""
        return PocketStream.of(ids)

    def has(self, task_id: str) -> bool:
        """See `Source`."""
        return is_pocket(task_id)

    def examine(self) -> str:
        """See `Source`."""
        return f"pocket world {self.config.seed}: {', '.join(self.config.pocket_repos)}"


@dataclass(frozen=True)
class KoanSource:
    """The koans that are not held out."""

    config: TasksConfig

    def sandbox(self) -> Sandbox:
        """See `Source`."""
        return probe(trusted_generated=False)

    def next(self, done: Set[str], count: int) -> list[str]:
        """See `Source`."""
        return first(koans.days(), done, count, self.config.count)

    def stream(self, ids: Iterable[str]) -> TaskStream:
        """See `Source`."""
        return koans.KoanStream(ids)

    def has(self, task_id: str) -> bool:
        """See `Source`."""
        return task_id in koans.days()

    def examine(self) -> str:
        """See `Source`."""
        return f"{len(koans.days())} koans, {rust().version}"


def first(ids: Iterable[str], done: Set[str], count: int, limit: int) -> list[str]:
    """The first `count` of the ids (of the first `limit`, if there is a limit) that are not done."""
    listed = list(ids)[: limit or None]
    return [identity for identity in listed if identity not in done][:count]


class InImages:
    """Stands for the Docker image that each task has of its own."""

    name = "docker-images"

    def run(self, argv: Sequence[str], workspace: Workspace, limits: Limits) -> ExecResult:
        """Refuses: there is no image without a task."""
        raise SandboxError("only a task's own image runs its programs")


class SweBenchSource:
    """The benchmark's tasks, of all or of some of its repositories, in the configured order."""

    def __init__(self, config: TasksConfig, places: Places) -> None:
        self._config, self._places = config, places

    def sandbox(self) -> Sandbox:
        """See `Source`."""
        return InImages() if self._config.grading == "docker" else probe(trusted_generated=False)

    def next(self, done: Set[str], count: int) -> list[str]:
        """See `Source`."""
        return first(self._ids(), done, count, self._config.count)

    def stream(self, ids: Iterable[str]) -> TaskStream:
        """See `Source`."""
        from eval.swebench.opening import ClonedMirrors, opened, opened_in_images

        given = Path(self._config.mirrors).expanduser()
        mirrors = Mirrors(given) if self._config.mirrors else ClonedMirrors(self._places.mirrors)
        if self._config.grading == "docker":
            config = self._config
            kept = self._places.root / "docker"
            stream = opened_in_images(self._dataset(), ids, mirrors, kept, config.image, config.missing_image)
        else:
            stream = opened(self._dataset(), ids, mirrors, self._places.environments, self._places.verified)
        stream.name += f"-{self._config.order}"  # so that results of different orders are never compared
        return stream

    def has(self, task_id: str) -> bool:
        """See `Source`."""
        return task_id in self._ids()

    def examine(self) -> str:
        """See `Source`."""
        from eval.swebench.opening import examine, examine_engine

        if shutil.which("git") is None:
            raise EvalError("git not found; install it")
        if self._config.mirrors and not Path(self._config.mirrors).expanduser().is_dir():
            raise EvalError(f"there is no folder {self._config.mirrors}; correct mirrors in [tasks]")
        stands_on = examine_engine() if self._config.grading == "docker" else examine()
        return f"{len(self._ids())} tasks of {self._dataset().name}, {stands_on}"

    def _dataset(self) -> Dataset:
        from eval.fetch import SOURCES  # brings an HTTP client along

        path = self._places.data / SOURCES[SWE_BENCH_CL].file
        return _read(path, path.stat().st_mtime_ns if path.exists() else 0)

    def _ids(self) -> list[str]:
        return [task.id for task in self._dataset().tasks(self._config.repos or None, self._config.order)]


@lru_cache(maxsize=1)
def _read(path: Path, changed: int) -> Dataset:
    return read(path)


class HistorySource:
    """What was mined from a repository of the owner's own."""

    def __init__(self, config: TasksConfig, places: Places) -> None:
        self._config, self._places = config, places
        self._repository = Path(config.source.removeprefix(OWN_HISTORY)).expanduser()

    def sandbox(self) -> Sandbox:
        """See `Source`."""
        return probe(trusted_generated=False)

    def next(self, done: Set[str], count: int) -> list[str]:
        """See `Source`."""
        whole = self._whole()
        found = first((task.id for task in whole.tasks()), done, count, self._config.count)
        if found:
            whole.examine()  # before a task is used up by it
        return found

    def stream(self, ids: Iterable[str]) -> TaskStream:
        """See `Source`."""
        return self._whole(ids)

    def has(self, task_id: str) -> bool:
        """See `Source`."""
        return any(task.id == task_id for task in self._whole().tasks())

    def examine(self) -> str:
        """See `Source`."""
        whole = self._whole()
        whole.examine()
        return f"{len(whole.tasks())} tasks mined from {self._repository}"

    def _whole(self, ids: Iterable[str] | None = None) -> RepositoryStream:
        from eval.mining.stream import RepositoryStream

        key = key_of(self._repository)
        path = self._places.streams / f"{key}.json"
        mirrors = Mirrors(self._places.mirrors)
        if not (path.is_file() and mirrors.path(key).is_dir()):
            raise EvalError(f"no tasks of {self._repository} yet; `sleepyctl tasks mine {self._repository}` finds them")
        try:
            return RepositoryStream(path, mirrors.get(key), ids)
        except RepositoryError as error:
            raise EvalError(str(error)) from error


def open_source(config: TasksConfig, places: Places) -> Source:
    """The configured source; nothing is read before it is asked."""
    if config.source == POCKET:
        return PocketSource(config)
    if config.source == KOANS:
        return KoanSource(config)
    return SweBenchSource(config, places) if config.source == SWE_BENCH_CL else HistorySource(config, places)
