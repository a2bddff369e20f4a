"""The tasks of a SWE-Bench-CL file. What solves or decides one leaves here only as a `SweBenchSecret`.

The file's own order is difficulty first, date second. Whatever retrieves or replays must filter on `created_at`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from eval.errors import EvalError
from eval.swebench.schema import DIFFICULTIES, File, Metadata, Row, Sequence, broken, contradictions
from memory.tasks import Task, TaskSecret

KIND = "swe-bench-cl"
LARGEST = 64 << 20
SHOWN = 5


class SweBenchSecret(TaskSecret):
    """What decides a task, and what would give it away. The hidden tests are a patch; `tests` is empty.

    `modified_files` and `dependencies` are read off the gold patches: tasks that depend on each other change the same file.
    """

    patch: str
    test_patch: str
    hints: str
    modified_files: tuple[str, ...]
    dependencies: tuple[str, ...]

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Nothing but the id, for whoever prints fields rather than the repr."""
        yield "task_id", self.task_id


class Order(StrEnum):
    """Which task comes first. A run records which order it used."""

    DATASET = "dataset"
    """Sequence after sequence as in the file: in each, easy before hard, then old before new."""
    CHRONOLOGICAL = "chronological"
    """By `created_at` (then id), across all sequences chosen."""


@dataclass(frozen=True)
class Base:
    """What a task starts from: the commit (40 hex digits), and the version whose environment runs it, if the file says."""

    commit: str
    version: str | None


@dataclass(frozen=True)
class Contents:
    """One sequence in the table of contents; `hard` takes in everything above an hour."""

    sequence: str
    repo: str
    tasks: int
    easy: int
    medium: int
    hard: int


PUBLISHED = (
    Contents("django_django_sequence", "django/django", 50, 50, 0, 0),
    Contents("sympy_sympy_sequence", "sympy/sympy", 50, 25, 25, 0),
    Contents("sphinx-doc_sphinx_sequence", "sphinx-doc/sphinx", 44, 22, 17, 5),
    Contents("matplotlib_matplotlib_sequence", "matplotlib/matplotlib", 34, 15, 19, 0),
    Contents("scikit-learn_scikit-learn_sequence", "scikit-learn/scikit-learn", 32, 13, 18, 1),
    Contents("astropy_astropy_sequence", "astropy/astropy", 22, 4, 15, 3),
    Contents("pydata_xarray_sequence", "pydata/xarray", 22, 5, 15, 2),
    Contents("pytest-dev_pytest_sequence", "pytest-dev/pytest", 19, 8, 8, 3),
)


class Dataset:
    """The tasks of one file; made by `read`. `sha256` is the file's, for a run's configuration."""

    def __init__(self, file: File, sha256: str) -> None:
        self.name = file.metadata.name
        self.sha256 = sha256
        self._sequences = file.sequences
        self._rows = {row.metadata.instance_id: row for sequence in file.sequences for row in sequence.tasks}

    @property
    def repos(self) -> tuple[str, ...]:
        """The repositories (owner/name) in the file's order, one for each sequence."""
        return tuple(sequence.repo for sequence in self._sequences)

    def tasks(self, repos: Iterable[str] | None = None, order: Order = Order.DATASET) -> list[Task]:
        """What the agent may see of the tasks of these repositories (owner/name or name; all by default), in order.

        Raises:
            EvalError: if a repository is not in the file.
        """
        chosen = set(self.repos) if repos is None else {self._repo(name) for name in repos}
        rows = [row.metadata for sequence in self._sequences if sequence.repo in chosen for row in sequence.tasks]
        if order is Order.CHRONOLOGICAL:
            rows.sort(key=lambda row: (row.created_at, row.instance_id))
        return [self._task(row, position) for position, row in enumerate(rows)]

    def repo(self, task_id: str) -> str:
        """The repository (owner/name) of a task.

        Raises:
            EvalError: if there is no such task.
        """
        return self._row(task_id).metadata.repo

    def base(self, task_id: str) -> Base:
        """The commit and version a task starts from.

        Raises:
            EvalError: if there is no such task.
        """
        row = self._row(task_id).metadata
        return Base(row.base_commit, row.version)

    def secret(self, task_id: str) -> SweBenchSecret:
        """What decides the task: for grading alone.

        Raises:
            EvalError: if there is no such task.
        """
        row = self._row(task_id)
        return SweBenchSecret(
            task_id=task_id,
            kind=KIND,
            tests={},
            fail_to_pass=row.evaluation.FAIL_TO_PASS,
            pass_to_pass=row.evaluation.PASS_TO_PASS,
            patch=row.evaluation.patch,
            test_patch=row.evaluation.test_patch,
            hints=row.task.hints_text,
            modified_files=row.continual_learning.modified_files,
            dependencies=row.continual_learning.dependencies,
        )

    def contents(self) -> tuple[Contents, ...]:
        """The table of contents, counted from the tasks; `PUBLISHED` is what the benchmark's own file gives."""
        return tuple(self._count(sequence) for sequence in self._sequences)

    @staticmethod
    def _count(sequence: Sequence) -> Contents:
        scores = [min(DIFFICULTIES.index(row.metadata.difficulty), 2) for row in sequence.tasks]
        return Contents(sequence.id, sequence.repo, len(scores), *map(scores.count, range(3)))

    def _task(self, row: Metadata, position: int) -> Task:
        return Task(
            id=row.instance_id,
            repo=row.repo,
            issue=self._rows[row.instance_id].task.problem_statement,
            created_at=row.created_at.astimezone(UTC),
            position=position,
            difficulty=row.difficulty,
        )

    def _repo(self, name: str) -> str:
        found = [repo for repo in self.repos if name in (repo, repo.partition("/")[2])]
        if len(found) != 1:
            raise EvalError(f"{self.name}: no repository {name!r}; there are {', '.join(self.repos)}")
        return found[0]

    def _row(self, task_id: str) -> Row:
        if task_id not in self._rows:
            raise EvalError(f"{self.name}: no task {task_id!r}; ids read like {next(iter(self._rows), 'none')}")
        return self._rows[task_id]


def read(path: Path) -> Dataset:
    """Read and check a whole file.

    Raises:
        EvalError: if it cannot be read, is cut short, or is not of the schema; names task and field, never a value of one.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise EvalError(f"{path}: {path.stat().st_size:,} bytes are too many for a file of tasks (at most {LARGEST:,})")
        data = path.read_bytes()
    except OSError as error:
        raise EvalError(f"{path}: {error.strerror}; `sleepyctl data fetch {KIND}` gets the file") from error
    try:
        file = File.model_validate_json(data)
    except ValidationError as error:
        # Not from the error: it holds the whole input, secrets and all.
        faults = list(broken(error, data))
    else:
        faults = list(contradictions(file))
        if not faults:
            return Dataset(file, hashlib.sha256(data).hexdigest())
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    what = "; ".join(faults[:SHOWN]) + more
    raise EvalError(f"{path} is no sound SWE-Bench-CL file (schema 1.x): {what}. `sleepyctl data fetch {KIND}` gets it again")
