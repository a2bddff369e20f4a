"""Where a daemon's tasks come from: the configured stream, what comes next in it, and what may never be trained on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from agent.repositories import Mirrors
from eval.files import is_pocket
from eval.koans import stream as koans
from eval.places import Places
from eval.pocket.stream import REPOSITORIES, PocketStream
from eval.streams import TaskStream
from eval.swebench.dataset import Dataset, Order, read

POCKET, KOANS, SWE_BENCH_CL, OWN_HISTORY = "pocket", "koans", "swe-bench-cl", "repo:"
POCKET_REPOS = ("bank", "game")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")


class TasksConfig(BaseModel):
    """Where tasks come from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str = POCKET
    """The task stream: `pocket` is the endless pocket world, `koans` are Rust koans, `swe-bench-cl` the benchmark
    (`sleepyctl data fetch swe-bench-cl`), `repo:PATH` the history of a repository of your own (`sleepyctl tasks mine PATH`)."""
    seed: int = Field(default=0, ge=0)
    """Which pocket world."""
    repos: tuple[str, ...] = ()
    """Repositories that are worked on; empty for `bank` and `game` of the pocket world, and for all of any other stream."""
    count: int = Field(default=0, ge=0)
    """How many tasks of each pocket repository, or of any other stream in all; 0 means no limit."""
    order: Order = Order.DATASET
    """Order of the benchmark's tasks: `dataset` (by repository, difficulty, date) or `chronological`."""
    mirrors: str = ""
    """Folder of the bare mirrors of real repositories; empty for `mirrors` in the state directory."""
    grading: Literal["native", "docker"] = "native"
    """How the benchmark's tasks are run: in environments made here, or in containers."""

    @field_validator("source")
    @classmethod
    def _source(cls, source: str) -> str:
        if source not in (POCKET, KOANS, SWE_BENCH_CL) and not source.removeprefix(OWN_HISTORY) != source:
            raise ValueError(f"there is no {source!r}; valid is 'pocket', 'koans', 'swe-bench-cl' or 'repo:PATH'")
        if source == OWN_HISTORY:
            raise ValueError("repo: needs a path, as in repo:/home/me/project")
        return source

    @field_validator("repos")
    @classmethod
    def _known(cls, repos: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if len(set(repos)) != len(repos):
            raise ValueError("name no repository twice")
        for repo in repos:
            if info.data.get("source", POCKET) == POCKET and repo not in REPOSITORIES:
                close = difflib.get_close_matches(repo, REPOSITORIES, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"valid are {', '.join(REPOSITORIES)}"
                raise ValueError(f"no pocket repository {repo!r}; {hint}")
            if not _REPO.fullmatch(repo):
                raise ValueError(f"{repo!r} is no repository's name; write it as name or owner/name")
        return repos

    @property
    def pocket_repos(self) -> tuple[str, ...]:
        """Those of the pocket world, which is also where every night's guard looks."""
        return (self.repos or POCKET_REPOS) if self.source == POCKET else POCKET_REPOS


class Source(Protocol):
    """A configured stream."""

    @property
    def generated(self) -> bool:
        """Whether all its code is the pocket world's own, which needs no confinement."""
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
    generated: bool = True

    def next(self, done: Set[str], count: int) -> list[str]:
        """See `Source`."""
        config, found, number = self.config, list[str](), 0
        while len(found) < count and (not config.count or number < config.count):
            for repo in config.pocket_repos:
                identity = f"{repo}-stream-{config.seed}-{number}"
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
    generated: bool = False

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
        return f"{len(koans.days())} koans, {koans.rust().version}"


def first(ids: Iterable[str], done: Set[str], count: int, limit: int) -> list[str]:
    """The first `count` of the ids (of the first `limit`, if there is a limit) that are not done."""
    listed = list(ids)[: limit or None]
    return [identity for identity in listed if identity not in done][:count]


class SweBenchSource:
    """The benchmark's tasks, of all or of some of its repositories, in the configured order."""

    generated = False

    def __init__(self, config: TasksConfig, places: Places) -> None:
        self._config, self._places = config, places

    def next(self, done: Set[str], count: int) -> list[str]:
        """See `Source`."""
        return first(self._ids(), done, count, self._config.count)

    def stream(self, ids: Iterable[str]) -> TaskStream:
        """See `Source`."""
        from eval.swebench.opening import ClonedMirrors, opened

        given = Path(self._config.mirrors).expanduser()
        mirrors = Mirrors(given) if self._config.mirrors else ClonedMirrors(self._places.mirrors)
        return opened(self._dataset(), ids, mirrors, self._places.environments)

    def has(self, task_id: str) -> bool:
        """See `Source`."""
        return task_id in self._ids()

    def examine(self) -> str:
        """See `Source`."""
        from eval.swebench.opening import examine

        return f"{len(self._ids())} tasks of {self._dataset().name}, {examine()}"

    def _dataset(self) -> Dataset:
        from eval.fetch import SOURCES  # brings an HTTP client along

        path = self._places.data / SOURCES[SWE_BENCH_CL].file
        return _read(path, path.stat().st_mtime_ns if path.exists() else 0)

    def _ids(self) -> list[str]:
        return [task.id for task in self._dataset().tasks(self._config.repos or None, self._config.order)]


@lru_cache(maxsize=1)
def _read(path: Path, changed: int) -> Dataset:
    return read(path)


def open_source(config: TasksConfig, places: Places) -> Source:
    """The configured source; nothing is read before it is asked."""
    if config.source == POCKET:
        return PocketSource(config)
    if config.source == KOANS:
        return KoanSource(config)
    return SweBenchSource(config, places)
