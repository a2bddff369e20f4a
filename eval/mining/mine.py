"""The miner: every commit is looked at once, and the answer is kept; what is proven becomes the stream file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.repositories import Mirror, RepositoryError, pretend_version
from agent.sandbox.base import PYTHON, Limits, Sandbox
from eval.errors import EvalError
from eval.mining.history import Candidate, Commit, Refused, candidate, walk
from eval.mining.trial import PASSED, Interpreter, Laboratory
from eval.mining.wording import issue_text, without_answers
from eval.repository_stream import Continual, Evaluation, MinedTask, Problem, Sequence, StreamFile, TaskMetadata
from memory.hashing import content_hash

LIMITS = Limits(seconds=300.0, memory_bytes=4 * 2**30, processes=128, file_bytes=64 * 2**20, output_bytes=2**20)
DIFFICULTIES = ((6, "<15 min fix"), (40, "15 min - 1 hour"), (10**9, "1-4 hours"))
FORMAT = 1


class Options(BaseModel):
    """What counts as a task."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    revision: str = "HEAD"
    """The commit, branch or tag whose first-parent line is walked."""
    max_files: int = Field(default=20, ge=2)
    """Changed files, tests included; a commit with more is refused."""
    max_lines: int = Field(default=500, ge=2)
    """Added and removed lines, tests included; a commit with more is refused."""
    repeats: int = Field(default=2, ge=2)
    """Runs without and with the fix each; all of them must agree."""
    plugins: bool = True
    """Whether pytest loads the plugins that are installed by itself; without them runs are faster and more alike."""
    newest: int | None = Field(default=None, ge=1)
    """Look at this many of the newest commits only."""


@dataclass(frozen=True)
class Event:
    """One commit has been looked at: number `done` of `total`. `reason` is empty if it became `task`."""

    done: int
    total: int
    task: str = ""
    reason: str = ""


class _Entry(BaseModel):
    """A line of the journal: a commit and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sha: str
    reason: str = ""
    task: MinedTask | None = Field(default=None, repr=False)


def mine(
    repo: str,
    mirror: Mirror,
    to: Path,
    sandbox: Sandbox,
    options: Options | None = None,
    python: Path = Path(PYTHON),
    limits: Limits = LIMITS,
    on_event: Callable[[Event], None] = lambda event: None,
    stopped: Callable[[], bool] = lambda: False,
    now: datetime | None = None,
) -> StreamFile | None:
    """Mine a repository's history into the stream file `to`; `None` if `stopped` said so before the end.

    Answers are appended to a journal beside `to` as they are found, and not asked for again: a run
    that was cut off goes on, and a later run looks at new commits only. Another repository,
    interpreter, sandbox or set of options starts a new journal. Both files are for the owner alone.

    Args:
        repo: name of the repository in the stream, `name` or `owner/name`.
        mirror: where its commits are.
        to: the stream file.
        sandbox: what the history's code is run in; one that confines.
        options: what counts as a task.
        python: an interpreter with pytest and what the repository needs.
        limits: of one run of a commit's tests.
        on_event: told after every commit.
        stopped: asked before every commit.
        now: the latest time that a commit is believed to have.

    Raises:
        EvalError: the interpreter cannot run pytest, or no commit became a task.
        RepositoryError: the mirror cannot be read.
        SandboxError: the sandbox failed; what was found stays in the journal.
    """
    options = options or Options()
    now = now or datetime.now(UTC)
    interpreter = Interpreter.at(python)
    laboratory = Laboratory(mirror, sandbox, interpreter, limits, options.plugins)
    commits = walk(mirror, options.revision, now)[-(options.newest or 0) :]
    same = content_hash(
        [FORMAT, repo, options.model_dump(exclude={"revision", "newest"}), interpreter.versions, limits, sandbox.name]
    )
    journal = _Journal(to.with_name(f"{to.name}.journal"), same)
    entries: list[_Entry] = []
    for number, commit in enumerate(commits, start=1):
        if stopped():
            return None
        entry = journal.known.get(commit.sha)
        if entry is None:
            entry = _look(repo, laboratory, commit, options)
            journal.append(entry)
        entries.append(entry)
        on_event(Event(number, len(commits), entry.task.metadata.instance_id if entry.task else "", entry.reason))
    refused = Counter(entry.reason for entry in entries if entry.task is None)
    if len(refused) and not any(entry.task for entry in entries):
        why = ", ".join(f"{count} {reason}" for reason, count in refused.most_common())
        raise EvalError(f"none of {len(entries)} commits of {repo} is a task ({why}); check that its tests run with {python}")
    times = {commit.sha: commit.at for commit in commits}
    file = _assembled(repo, [(times[entry.sha], entry.task) for entry in entries if entry.task])
    file.metadata.update(
        head=mirror.commit(options.revision),
        python=interpreter.versions,
        sandbox=sandbox.name,
        options=options.model_dump(),
        commits=len(entries),
        refused=dict(sorted(refused.items())),
        generation_date=now.isoformat(),
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    file.save(to)
    return file


def _look(repo: str, laboratory: Laboratory, commit: Commit, options: Options) -> _Entry:
    try:
        return _Entry(sha=commit.sha, task=_proven(repo, laboratory, commit, options))
    except Refused as refused:
        return _Entry(sha=commit.sha, reason=str(refused))


def _proven(repo: str, laboratory: Laboratory, commit: Commit, options: Options) -> MinedTask:
    """The task of a commit, after its tests were seen to fail without it and to pass with it, each time."""
    found = candidate(laboratory.mirror, commit, options.max_files, options.max_lines)
    issue = issue_text(found.message)
    if not issue:
        raise Refused("message says nothing")
    try:
        version = pretend_version(laboratory.mirror, found.base)
        after = laboratory.run(found, True, version)
        passing = {test for test, outcome in after.items() if outcome == PASSED and test.partition("::")[0] in found.test_files}
        if not passing:
            raise Refused("no test passes with the fix")
        before = laboratory.run(found, False, version)
        broken = sorted(test for test in passing if before.get(test) != PASSED)
        if not broken:
            raise Refused("no test fails without the fix")
        issue = without_answers(issue, found.patch, tuple(broken), found.runnable)
        if not issue:
            raise Refused("message says nothing")
        for _ in range(options.repeats - 1):
            if laboratory.run(found, True, version) != after or laboratory.run(found, False, version) != before:
                raise Refused("not deterministic")
    except RepositoryError:
        raise Refused("objects missing or too large") from None
    try:
        return _task(repo, found, issue, broken, sorted(passing - set(broken)))
    except ValidationError:  # names that a stream file cannot hold
        raise Refused("odd test names") from None


def _task(repo: str, found: Candidate, issue: str, broken: list[str], kept: list[str]) -> MinedTask:
    score = next(i for i, (most, _) in enumerate(DIFFICULTIES, start=1) if found.lines <= most)
    return MinedTask(
        metadata=TaskMetadata(
            # The fix's own SHA in the name would be a way to ask for it.
            instance_id=f"{repo.replace('/', '__')}-{content_hash([repo, found.commit.sha])[:12]}",
            repo=repo,
            base_commit=found.base,
            fix_commit=found.commit.sha,
            created_at=found.commit.at,
            difficulty=DIFFICULTIES[score - 1][1],
        ),
        task=Problem(problem_statement=issue),
        evaluation=Evaluation(
            patch=found.patch,
            test_patch=found.test_patch,
            test_files=found.test_files,
            FAIL_TO_PASS=tuple(broken),
            PASS_TO_PASS=tuple(kept),
        ),
        continual_learning=Continual(sequence_position=1, difficulty_score=score, modified_files=found.modified),
    )


def _assembled(repo: str, proven: list[tuple[datetime, MinedTask]]) -> StreamFile:
    """The stream of proven tasks: their places, and which earlier ones changed the same files."""
    tasks: list[MinedTask] = []
    for number, (at, task) in enumerate(proven, start=1):
        files = set(task.continual_learning.modified_files)
        earlier = tuple(t.metadata.instance_id for t in tasks if files & set(t.continual_learning.modified_files))
        place = task.continual_learning.model_copy(update={"sequence_position": number, "dependencies": earlier})
        dated = task.metadata.model_copy(update={"created_at": at})
        tasks.append(task.model_copy(update={"metadata": dated, "continual_learning": place}))
    name = f"{repo.replace('/', '_')}_sequence"
    sequence = Sequence(id=name, repo=repo, num_tasks=len(tasks), tasks=tuple(tasks))
    about = {"name": f"History of {repo}", "version": f"{FORMAT}", "num_sequences": 1, "total_tasks": len(tasks)}
    return StreamFile(metadata={**about, "repositories": [repo]}, sequences=(sequence,))


class _Journal:
    """What was found out so far, one line per commit; a line that was cut off is forgotten."""

    def __init__(self, path: Path, same: str) -> None:
        self.path = path
        self.known: dict[str, _Entry] = {}
        data = path.read_bytes() if path.exists() else b""
        header = f"{same}\n".encode()
        whole = len(header) if data.startswith(header) else 0
        for line in data[whole:].splitlines(keepends=True) if whole else []:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            with suppress(ValidationError):
                entry = _Entry.model_validate_json(line)
                self.known[entry.sha] = entry
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
            file.truncate(whole)
            if not whole:
                file.write(header)

    def append(self, entry: _Entry) -> None:
        """Keep an answer before the next question is asked."""
        self.known[entry.sha] = entry
        with self.path.open("ab") as file:
            file.write(entry.model_dump_json().encode() + b"\n")
