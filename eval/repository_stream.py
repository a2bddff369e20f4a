"""A repository's own history as a `TaskStream`: a stream file, and a mirror that has its commits.

The file is SWE-Bench-CL's JSON with one sequence, and three things more: `metadata` says how it was
mined (`repository`, `head`, `python`, `options`, `refused`: reason to number of commits), a task's
`metadata` has `fix_commit`, and `evaluation.test_files` has the hidden tests' whole texts (path to
text; deleted ones are only in `test_patch`). Test ids are pytest's: `path::Class::name`. Positions
start at 1; `created_at` never falls from one task to the next. `fix_commit` and all of `evaluation`
are secret, so the file is for the owner alone.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.repositories import Checkout, Mirror, checkout
from agent.workspace import Workspace
from eval.errors import EvalError
from eval.files import is_pocket
from memory.files import write_whole
from memory.tasks import MergedFix, Task, TaskSecret

KIND = "mined"
SHA = r"[0-9a-f]{40}([0-9a-f]{24})?"
_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_REPO = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?"
MAX_STREAM_BYTES = 2**30


class _Part(BaseModel):
    # What is refused is told without what was given: hidden tests must not reach a log that way.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TaskMetadata(_Part):
    """Where a task comes from. `base_commit` is what the agent starts from, `fix_commit` the secret next one."""

    instance_id: str = Field(pattern=f"^{_ID}$")
    repo: str = Field(pattern=f"^{_REPO}$")
    base_commit: str = Field(pattern=f"^{SHA}$")
    fix_commit: str = Field(pattern=f"^{SHA}$")
    created_at: datetime
    difficulty: str = Field(min_length=1)


class Problem(_Part):
    """What the agent is told."""

    problem_statement: str = Field(min_length=1)
    hints_text: str = ""


class Evaluation(_Part):
    """What decides: patches in git's format, test ids, the texts of the hidden test files."""

    patch: str = Field(min_length=1, repr=False)
    test_patch: str = Field(min_length=1, repr=False)
    test_files: dict[str, str] = Field(min_length=1, repr=False)
    FAIL_TO_PASS: tuple[str, ...] = Field(min_length=1, repr=False)
    PASS_TO_PASS: tuple[str, ...] = Field(repr=False)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for path in self.test_files:
            parts = path.split("/")
            if not path.isprintable() or "\\" in path or any(p in ("", ".", "..") or p.lower() == ".git" for p in parts):
                raise ValueError("test_files: a path is not one inside a repository")
        named = (*self.FAIL_TO_PASS, *self.PASS_TO_PASS)
        if len(set(named)) != len(named):
            raise ValueError("a test is named twice in FAIL_TO_PASS and PASS_TO_PASS")
        if not all(test.partition("::")[0] in self.test_files for test in named):
            raise ValueError("a test is named that is in none of test_files")
        return self


class Continual(_Part):
    """A task's place: 1-based position, score 1-3, earlier tasks that changed the same files."""

    sequence_position: int = Field(ge=1)
    difficulty_score: int = Field(ge=1, le=4)
    dependencies: tuple[str, ...] = ()
    modified_files: tuple[str, ...] = Field(min_length=1, repr=False)


class MinedTask(_Part):
    """One task of a stream file."""

    metadata: TaskMetadata
    task: Problem
    evaluation: Evaluation
    continual_learning: Continual


class Sequence(_Part):
    """The tasks of a repository, in order."""

    id: str
    repo: str
    num_tasks: int
    tasks: tuple[MinedTask, ...]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        before: MinedTask | None = None
        seen: set[str] = set()
        if self.num_tasks != len(self.tasks):
            raise ValueError(f"num_tasks is {self.num_tasks}, but there are {len(self.tasks)}")
        for number, task in enumerate(self.tasks, start=1):
            name, place = task.metadata.instance_id, task.continual_learning
            if name in seen or is_pocket(name):
                raise ValueError(f"{name}: this id is taken")
            if task.metadata.repo != self.repo or place.sequence_position != number or not set(place.dependencies) <= seen:
                raise ValueError(
                    f"{name}: repo, sequence_position and dependencies must agree with its place as number {number}"
                )
            if task.metadata.created_at.utcoffset() is None:
                raise ValueError(f"{name}: created_at needs a time zone")
            if before is not None and task.metadata.created_at < before.metadata.created_at:
                raise ValueError(f"{name}: created_at is earlier than that of the task before it")
            seen.add(name)
            before = task
        return self


class StreamFile(_Part):
    """A whole stream file."""

    metadata: dict[str, Any]
    sequences: tuple[Sequence] = Field(description="exactly one: every file is one repository's history")

    def save(self, path: Path) -> None:
        """Write it for the owner alone, whole or not at all."""
        write_whole(path, self.model_dump_json(indent=1))


def read(path: Path) -> StreamFile:
    """A stream file.

    Raises:
        EvalError: it cannot be read; the text names the task's place and the field, never a value.
    """
    try:
        if path.stat().st_size > MAX_STREAM_BYTES:
            raise EvalError(f"{path} is larger than {MAX_STREAM_BYTES} bytes; mine fewer commits")
        return StreamFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EvalError(f"{path} cannot be read ({error.strerror}); mine the repository first") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise EvalError(f"{path}: {where}: {first['msg']}; mine the repository again") from None


class RepositoryStream:
    """The tasks of a stream file, checked out of a mirror.

    Raises:
        EvalError: the file is damaged, or the mirror lacks the commit of one of its tasks.
    """

    def __init__(self, path: Path, mirror: Mirror) -> None:
        self._mirror = mirror
        (sequence,) = read(path).sequences
        self.name = sequence.id
        self._tasks = {task.metadata.instance_id: task for task in sequence.tasks}
        shas = [sha for task in sequence.tasks for sha in (task.metadata.base_commit, task.metadata.fix_commit)]
        found = mirror.git("cat-file", "--batch-check=%(objecttype)", given="".join(f"{sha}\n" for sha in shas).encode())
        lost = [i for i, kind in enumerate(found.split(b"\n")[:-1]) if kind != b"commit"]
        if lost:
            name = sequence.tasks[lost[0] // 2].metadata.instance_id
            raise EvalError(f"{mirror.git_dir} lacks the commits of {name}; give the repository that {path} was mined from")

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        return [
            Task(
                id=task.metadata.instance_id,
                repo=task.metadata.repo,
                issue=task.task.problem_statement,
                created_at=task.metadata.created_at,
                position=task.continual_learning.sequence_position - 1,
                difficulty=task.metadata.difficulty,
                dependencies=task.continual_learning.dependencies,
            )
            for task in self._tasks.values()
        ]

    def open(self, task: Task, root: Path) -> Checkout:
        """The workspace a task starts from, in the new folder `root`; see `agent.repositories.checkout`."""
        return checkout(self._mirror, self._tasks[task.id].metadata.base_commit, root)

    def checkout(self, task: Task) -> Mapping[str, str]:
        """The files a task starts from that are text enough for the agent's tools; slower and less exact than `open`."""
        with tempfile.TemporaryDirectory(prefix="checkout-") as folder:
            return Workspace(self.open(task, Path(folder).resolve() / "repo").root).snapshot()

    def secret(self, task: Task) -> TaskSecret:
        """What grading needs."""
        evaluation = self._tasks[task.id].evaluation
        return TaskSecret(
            task_id=task.id,
            kind=KIND,
            fix=self.merged_fix(task),
            tests=evaluation.test_files,
            fail_to_pass=evaluation.FAIL_TO_PASS,
            pass_to_pass=evaluation.PASS_TO_PASS,
        )

    def gold(self, task: Task) -> str:
        """The upstream patch, without the tests: for verifying that a task can be solved here."""
        return self._tasks[task.id].evaluation.patch

    def merged_fix(self, task: Task) -> MergedFix | None:
        """The change upstream merged, where it changed one existing Python file and nothing else."""
        mined = self._tasks[task.id]
        path, *more = mined.continual_learning.modified_files
        if more or not path.endswith(".py") or re.search(r"^(new|deleted) file", mined.evaluation.patch, re.MULTILINE):
            return None
        before, after = (self._mirror.text(sha, path) for sha in (mined.metadata.base_commit, mined.metadata.fix_commit))
        if any("\ud800" <= character <= "\udfff" for character in before + after):
            return None  # not UTF-8, so no text
        return MergedFix(
            task_id=task.id, symbol=_symbol(before, after) or Path(path).stem, path=path, before=before, after=after
        )


def _symbol(before: str, after: str) -> str:
    """The innermost function or class of `after` around the first line that differs; empty if there is none."""
    old, new = before.split("\n"), after.split("\n")
    line = next((i for i, (a, b) in enumerate(zip(old, new, strict=False), start=1) if a != b), min(len(old), len(new)))
    try:
        tree = ast.parse(after)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return max(around, key=lambda node: node.lineno).name if around else ""
