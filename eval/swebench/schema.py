"""The SWE-Bench-CL file schema 1.x as types, and what is wrong with a file that is not of it: which task, which field.

Nothing that is told of a fault quotes a value of the file but ids and counts: a patch must not reach a log that way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from memory.tasks import Text

DIFFICULTIES = ("<15 min fix", "15 min - 1 hour", "1-4 hours", ">4 hours")
Difficulty = Literal["<15 min fix", "15 min - 1 hour", "1-4 hours", ">4 hours"]

# Folders, branches and environments are named after these.
_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Repo = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")]
_Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
_Diff = Annotated[str, Field(pattern=r"^diff --git ")]
_Count = Annotated[int, Field(ge=0, le=1_000_000)]
_Issue = Annotated[str, Field(pattern=r"\S")]


class _Part(BaseModel):
    # What is refused is told without what was given: a patch must not reach a log that way.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Nothing, for whoever prints it."""
        return iter(())


class Metadata(_Part):
    """Where a task comes from. `created_at` has a time zone; `base_commit` is what the fix was made on."""

    instance_id: _Id
    repo: _Repo
    base_commit: _Commit
    created_at: AwareDatetime
    difficulty: Difficulty
    version: _Version | None = None  # not in the authors' own file


class Statement(_Part):
    """The issue, and the discussion that followed it (it may hold the answer)."""

    problem_statement: _Issue
    hints_text: str


class Evaluation(_Part):
    """The fix and the hidden tests as git diffs; the ids of the tests that decide, as the repository's runner writes them."""

    patch: _Diff
    test_patch: _Diff
    FAIL_TO_PASS: tuple[Text, ...] = Field(min_length=1)
    PASS_TO_PASS: tuple[Text, ...]

    @model_validator(mode="after")
    def _each_test_once(self) -> Self:
        tests = self.FAIL_TO_PASS + self.PASS_TO_PASS
        if len(set(tests)) < len(tests):
            raise ValueError("a test is listed twice in FAIL_TO_PASS and PASS_TO_PASS")
        return self


class Place(_Part):
    """The place in the sequence, 1-based. `dependencies` are older tasks whose gold patch changes one of the same files."""

    sequence_position: int = Field(ge=1)
    difficulty_score: int = Field(ge=1, le=len(DIFFICULTIES))
    dependencies: tuple[_Id, ...]
    modified_files: tuple[Text, ...] = Field(min_length=1)


class Row(_Part):
    """One task."""

    metadata: Metadata
    task: Statement
    evaluation: Evaluation
    continual_learning: Place


class Statistics(_Part):
    """Tasks by difficulty score, as the file tells it."""

    model_config = ConfigDict(extra="ignore")
    difficulty_distribution: dict[str, _Count]


class Sequence(_Part):
    """The tasks of one repository."""

    id: Text
    repo: _Repo
    num_tasks: _Count
    statistics: Statistics
    tasks: tuple[Row, ...] = Field(max_length=5_000)


class About(_Part):
    """The file's head."""

    model_config = ConfigDict(extra="ignore")
    name: Text
    version: str = Field(pattern=r"^1\.")
    num_sequences: _Count
    total_tasks: _Count


class File(_Part):
    """A whole file."""

    metadata: About
    evaluation_metrics: dict[str, Any] = Field(default_factory=dict)
    sequences: tuple[Sequence, ...] = Field(max_length=100)


def broken(error: ValidationError, data: bytes) -> Iterator[str]:
    """Each fault with the task it is in. Values that were given are not told."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        yield f"cut short or no JSON ({found[0]['msg']}; {len(data):,} bytes)"
        return
    raw = from_json(data)
    for fault in found:
        match fault["loc"]:
            case ("sequences", int(number), "tasks", int(task), *field):
                where = f"task {_name(raw, number, task)}"
            case ("sequences", int(number), *field):
                where = f"sequence no. {number + 1}"
            case field:
                where = "file"
        key = ascii(".".join(map(str, field)))[1:-1][:100]
        yield ": ".join(part for part in (where, key, fault["msg"]) if part)


def _name(raw: Any, number: int, task: int) -> str:
    try:
        identity = raw["sequences"][number]["tasks"][task]["metadata"]["instance_id"]
    except (KeyError, TypeError):
        identity = None
    place = f"no. {task + 1} of sequence no. {number + 1}"
    return f"{ascii(identity)[1:-1][:100]} ({place})" if isinstance(identity, str) else place


def contradictions(file: File) -> Iterator[str]:
    """Where a file of the right form is at odds with itself: parts of it are missing, doubled or out of place."""
    if not all((file.sequences, *(sequence.tasks for sequence in file.sequences))):
        yield "file: sequences: there are none, or one without tasks"
    told, there = file.metadata, sum(len(sequence.tasks) for sequence in file.sequences)
    if told.num_sequences != len(file.sequences):
        yield f"file: metadata.num_sequences is {told.num_sequences}, but there are {len(file.sequences)} sequences"
    if told.total_tasks != there:
        yield f"file: metadata.total_tasks is {told.total_tasks}, but there are {there} tasks"
    seen: set[str] = set()
    for number, sequence in enumerate(file.sequences):
        if sequence.repo in {other.repo for other in file.sequences[:number]}:
            yield f"sequence no. {number + 1}: repo: {sequence.repo} has a sequence already"
        if sequence.num_tasks != len(sequence.tasks):
            yield f"sequence no. {number + 1}: num_tasks is {sequence.num_tasks}, but there are {len(sequence.tasks)} tasks"
        scores = Counter(str(row.continual_learning.difficulty_score) for row in sequence.tasks)
        if scores != Counter(sequence.statistics.difficulty_distribution):
            yield f"sequence no. {number + 1}: statistics.difficulty_distribution is not that of its tasks"
        for position, row in enumerate(sequence.tasks, 1):
            yield from (f"task {row.metadata.instance_id}: {fault}" for fault in _misplaced(row, sequence, position, seen))
            seen.add(row.metadata.instance_id.casefold())


def _misplaced(row: Row, sequence: Sequence, position: int, seen: set[str]) -> Iterator[str]:
    place = row.continual_learning
    if row.metadata.instance_id.casefold() in seen:  # folders are named after it, also where capitals do not count
        yield "metadata.instance_id: another task has it already"
    if row.metadata.repo != sequence.repo:
        yield f"metadata.repo is {row.metadata.repo}, but the sequence is of {sequence.repo}"
    if place.sequence_position != position:
        yield f"continual_learning.sequence_position is {place.sequence_position}, but it is no. {position}"
    if row.metadata.difficulty != DIFFICULTIES[place.difficulty_score - 1]:
        yield f"continual_learning.difficulty_score {place.difficulty_score} is not that of its difficulty"
    if row.metadata.instance_id in place.dependencies:
        yield "continual_learning.dependencies: it names itself"
