"""A repository's own history as a `TaskStream`: a stream file, and a mirror that has its commits.

The file is SWE-Bench-CL's JSON with one sequence, and three things more: `metadata` says how it was
mined (`repository`, `head`, `python`, `options`, `refused`: reason to number of commits), a task's
`metadata` has `fix_commit`, and `evaluation.test_files` has the hidden tests' whole texts (path to
text; deleted ones are only in `test_patch`). Test ids are pytest's: `path::Class::name`. Positions
start at 1; `created_at` never falls from one task to the next. `fix_commit` and all of `evaluation`
are secret, so the file is for the owner alone.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.errors import EvalError
from eval.files import is_pocket
from memory.files import write_whole

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
