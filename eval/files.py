"""Tasks of the owner's own, as files: a `TaskStream` over a folder.

The code in them is not the pocket world's, so they are only ever run in a sandbox that confines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.sandbox.base import Sandbox
from agent.workplace import Workplace
from eval.errors import EvalError
from eval.grading import GRADED_BY, TreeWorkplace
from memory.files import write_whole
from memory.tasks import MergedFix, Task, TaskSecret

KIND = "own"
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_POCKET_ID = re.compile(r".*-(stream|held_out|pretrain)-\d+-\d+")
_SAFE_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")
LONGEST_PART = 200


class FileTask(BaseModel):
    """One task file. `files` are what the agent starts from, `tests` are hidden from it (path to text each).

    Test ids read `test_file.py::test_name`; tests are plain functions in `tests/`, as in the pocket world.
    """

    # What is refused is told without what was given: hidden tests must not reach a log that way.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    task: Task
    files: dict[str, str] = Field(min_length=1)
    tests: dict[str, str] = Field(min_length=1)
    fail_to_pass: tuple[str, ...] = Field(min_length=1)
    pass_to_pass: tuple[str, ...] = ()
    fix: MergedFix | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not _SAFE_ID.fullmatch(self.task.id) or is_pocket(self.task.id):
            raise ValueError(
                f"{self.task.id!r} cannot be a task's id; use letters, digits, dots and dashes, unlike a pocket task's"
            )
        if not _SAFE_REPO.fullmatch(self.task.repo):  # folders are named after it
            raise ValueError(f"{self.task.repo!r} cannot be a repository's name; write it as name or owner/name")
        if self.task.created_at.utcoffset() is None:
            raise ValueError("task.created_at needs a time zone")
        paths = {*self.files, *self.tests}
        for path in sorted(paths):
            if not _is_inside(path):
                raise ValueError(f"{path!r} is no path inside a repository")
            if both := paths & {parent.as_posix() for parent in PurePosixPath(path).parents}:
                raise ValueError(f"{both.pop()!r} cannot be a file and a folder")
        if outside := [path for path in self.tests if not path.startswith("tests/")]:
            raise ValueError(f"{outside[0]!r}: hidden tests lie in tests/")
        for test in (*self.fail_to_pass, *self.pass_to_pass):
            if f"tests/{test.partition('::')[0]}" not in self.tests:
                raise ValueError(f"{test!r} is in none of the tests; it would read test_file.py::test_name")
        fix = self.fix
        if fix is not None and (fix.task_id != self.task.id or self.files.get(fix.path) != fix.before):
            raise ValueError("fix: it must name this task and one of its files, with the text that the file has")
        if fix is not None and fix.before.splitlines() == fix.after.splitlines():
            raise ValueError("fix: it changes nothing")
        return self

    @property
    def secret(self) -> TaskSecret:
        """What grading needs."""
        return TaskSecret(
            task_id=self.task.id,
            kind=KIND,
            fix=self.fix,
            tests=self.tests,
            fail_to_pass=self.fail_to_pass,
            pass_to_pass=self.pass_to_pass,
        )


def is_pocket(task_id: str) -> bool:
    """Whether this is the id of a task of the pocket world; no task of one's own can have such an id."""
    return _POCKET_ID.fullmatch(task_id) is not None


def _is_inside(path: str) -> bool:
    """Whether it is the one spelling of a path below a repository's root that every system can have as a file."""
    parts = PurePosixPath(path).parts
    plain = bool(parts) and "/".join(parts) == path and ".." not in parts and path.isprintable() and "\\" not in path
    return plain and all(part.lower() != ".git" and len(part.encode()) <= LONGEST_PART for part in parts)


def _why(error: OSError | ValidationError) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    return "; ".join(": ".join((".".join(map(str, e["loc"])), e["msg"])).removeprefix(": ") for e in error.errors())


def save(folder: Path, task: FileTask) -> None:
    """Write a task for the owner alone, whole or not at all."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(folder / f"{task.task.id}.json", task.model_dump_json())


def is_saved(folder: Path, task: FileTask) -> bool:
    """Whether just this task was saved here before."""
    try:
        return FileTask.model_validate_json((folder / f"{task.task.id}.json").read_bytes()) == task
    except (OSError, ValidationError):
        return False


class FileStream:
    """The tasks with these ids, from a folder that `save` wrote to.

    Raises:
        EvalError: if one is missing or damaged.
    """

    name = "files"
    graded_by = GRADED_BY

    def __init__(self, folder: Path, ids: Iterable[str]) -> None:
        self._tasks: dict[str, FileTask] = {}
        for identity in ids:
            path = folder / f"{identity}.json"
            try:
                found = FileTask.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                raise EvalError(
                    f"{path}: the task cannot be read ({_why(error)}); put its file into the inbox again"
                ) from error
            if found.task.id != identity:  # where capitals do not count, two ids can be one file
                raise EvalError(
                    f"{path} holds task {found.task.id}; put the file of {identity} into the inbox under another id"
                )
            self._tasks[identity] = found

    def tasks(self) -> list[Task]:
        """All tasks in order."""
        return [task.task for task in self._tasks.values()]

    def checkout(self, task: Task) -> Mapping[str, str]:
        """The files the agent starts from."""
        return self._tasks[task.id].files

    def open(self, task: Task, root: Path, sandbox: Sandbox) -> Workplace:
        """See `TaskStream`."""
        return TreeWorkplace(root, self.checkout(task), self.secret(task), sandbox)

    def secret(self, task: Task) -> TaskSecret:
        """What grading needs."""
        return self._tasks[task.id].secret

    def merged_fix(self, task: Task) -> MergedFix | None:
        """The fix, if the owner knows one."""
        return self._tasks[task.id].fix


def damaged(folder: Path, ids: Iterable[str]) -> dict[str, str]:
    """Those of the ids whose task cannot be read from the folder, and why."""
    found: dict[str, str] = {}
    for identity in ids:
        try:
            FileStream(folder, [identity])
        except EvalError as error:
            found[identity] = str(error)
    return found


def unfixed(folder: Path, ids: Iterable[str]) -> set[str]:
    """Those of the ids without a merged fix: all but pocket tasks, and tasks of this folder with a fix that can be read."""
    others = [identity for identity in ids if not is_pocket(identity)]
    there = [identity for identity in others if (folder / f"{identity}.json").is_file()]
    lost = damaged(folder, there)
    stream = FileStream(folder, (identity for identity in there if identity not in lost))
    return set(others) - {task.id for task in stream.tasks() if stream.merged_fix(task) is not None}
