"""The miner: every commit is looked at once, newest first, and the answer is kept; what is proven becomes the stream file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from agent.repositories import Mirror
from agent.sandbox.base import Limits, Sandbox
from eval.errors import EvalError
from eval.mining.environment import Environment
from eval.mining.history import Candidate, Commit, Refused, candidate, walk
from eval.mining.journal import Entry, Journal
from eval.mining.running import LIMITS, PASSED, advice
from eval.mining.schema import Continual, Evaluation, MinedTask, Problem, Sequence, StreamFile, TaskMetadata
from eval.mining.trial import Laboratory
from eval.mining.wording import issue_text, without_answers
from memory.hashing import content_hash

DIFFICULTIES = ((6, "<15 min fix"), (40, "15 min - 1 hour"), (10**9, "1-4 hours"))
FORMAT = 2
MAX_FALSE_STARTS = 3
NOT_STARTED, SAYS_NOTHING = "pytest does not start", "message says nothing"
NO_PASS, NO_FAIL, UNSTEADY = "no test passes with the fix", "no test fails without the fix", "not deterministic"


class Options(BaseModel):
    """What counts as a task."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    revision: str = "HEAD"
    """The commit, branch or tag whose history is walked."""
    first_parent: bool = False
    """Look at the first-parent line only, and not at the commits of merged branches."""
    max_files: int = Field(default=20, ge=2)
    """Changed files, tests included; a commit with more is refused."""
    max_lines: int = Field(default=500, ge=2)
    """Added and removed lines, tests included; a commit with more is refused."""
    repeats: int = Field(default=2, ge=2)
    """Runs without and with the fix each; all of them must agree."""
    where: tuple[str, ...] = ()
    """Files and folders that tests are run from; all of them if empty."""
    newest: int | None = Field(default=None, ge=1)
    """Look at this many of the newest commits only."""
    since: AwareDatetime | None = None
    """Look at commits of this time and later only."""
    tasks: int | None = Field(default=None, ge=1)
    """Stop when this many tasks are found."""


RANGE = {"revision", "first_parent", "newest", "since", "tasks"}
"""Options that say which commits are asked about, not what the answer is."""


@dataclass(frozen=True)
class Event:
    """One commit has been looked at: number `done` of at most `total`. `reason` is empty if it became `task`."""

    done: int
    total: int
    task: str = ""
    reason: str = ""
    detail: str = ""
    commit: str = ""


def mine(
    repo: str,
    mirror: Mirror,
    to: Path,
    sandbox: Sandbox,
    environment: Environment,
    options: Options | None = None,
    limits: Limits = LIMITS,
    on_event: Callable[[Event], None] = lambda event: None,
    stopped: Callable[[], bool] = lambda: False,
    now: datetime | None = None,
) -> StreamFile | None:
    """Mine a repository's history into the stream file `to`, newest commits first; the stream is in order of time.

    Answers are appended to a journal beside `to` as they are found, and not asked for again: a run
    that was cut off goes on, and a later run looks at new commits only. Another repository,
    environment, sandbox or set of options starts a new journal. Both files are for the owner alone.
    A run that is stopped or interrupted writes what was proven so far, `metadata.complete` false.

    Args:
        repo: name of the repository in the stream, `name` or `owner/name`.
        mirror: where its commits are.
        to: the stream file.
        sandbox: what the history's code is run in; one that confines.
        environment: the interpreter with pytest and what the repository needs.
        options: what counts as a task.
        limits: of one run of a commit's tests.
        on_event: told after every commit.
        stopped: asked before every commit.
        now: the latest time that a commit is believed to have.

    Returns:
        The stream; `None` if it was stopped before there was any task.

    Raises:
        EvalError: pytest does not start in this environment, or no commit became a task.
        RepositoryError: the mirror cannot be read.
        SandboxError: the sandbox failed; what was found stays in the journal.
    """
    options = options or Options()
    now = now or datetime.now(UTC)
    laboratory = Laboratory(mirror, sandbox, environment, limits)
    commits = _asked(mirror, options, now)
    same = content_hash([FORMAT, repo, options.model_dump(exclude=RANGE), environment, limits, sandbox.name])
    journal = Journal(to.with_name(f"{to.name}.journal"), same)
    entries: list[Entry] = []
    complete, false_starts = False, 0
    try:
        for number, commit in enumerate(reversed(commits), start=1):
            if stopped():
                break
            entry = journal.known.get(commit.sha)
            if entry is None:
                entry = _look(repo, laboratory, commit, options)
                journal.append(entry)
            entries.append(entry)
            name = entry.task.metadata.instance_id if entry.task else ""
            on_event(Event(number, len(commits), name, entry.reason, entry.detail, commit.sha))
            # What old commits need may be gone; what none of the newest ones find is missing here.
            false_starts = false_starts + 1 if entry.reason == NOT_STARTED and false_starts >= 0 else false_starts
            if _ran(entry):
                false_starts = -1
            if false_starts >= MAX_FALSE_STARTS:
                raise EvalError(f"{NOT_STARTED} with {environment.python} ({entry.detail}); give --python or --tests")
            if options.tasks is not None and sum(e.task is not None for e in entries) >= options.tasks:
                complete = True
                break
        else:
            complete = True
    except KeyboardInterrupt:
        complete = False
    refused = Counter(entry.reason for entry in entries if entry.task is None)
    found = [entry for entry in reversed(entries) if entry.task is not None]
    if not found and not complete:
        return None
    if not found:
        raise EvalError(_nothing(repo, entries, refused, environment))
    times = {commit.sha: commit.at for commit in commits}
    file = _assembled(repo, [(times[entry.sha], entry.task) for entry in found if entry.task])
    file.metadata.update(
        head=mirror.commit(options.revision),
        complete=complete,
        python=environment.versions,
        environment=environment.model_dump(mode="json"),
        seconds_limit=limits.seconds,
        ignored=sorted({option for entry in entries for option in entry.ignored}),
        sandbox=sandbox.name,
        options=options.model_dump(mode="json"),
        commits=len(entries),
        refused=dict(sorted(refused.items())),
        generation_date=now.isoformat(),
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    file.save(to)
    return file


def _asked(mirror: Mirror, options: Options, now: datetime) -> list[Commit]:
    every = walk(mirror, options.revision, now, options.first_parent)
    return [commit for commit in every if options.since is None or commit.at >= options.since][-(options.newest or 0) :]


def foreseen(mirror: Mirror, options: Options, now: datetime | None = None) -> dict[str, int]:
    """What would happen to the commits before anything is run: reason to number, and those `to be tried`."""
    counts: Counter[str] = Counter()
    for commit in reversed(_asked(mirror, options, now or datetime.now(UTC))):
        try:
            found = candidate(mirror, commit, options.max_files, options.max_lines, options.where)
            counts["to be tried" if issue_text(found.message) else SAYS_NOTHING] += 1
        except Refused as refused:
            counts[str(refused)] += 1
    return dict(counts.most_common())


def _ran(entry: Entry) -> bool:
    return entry.task is not None or entry.reason in (NO_PASS, NO_FAIL, UNSTEADY)


def _nothing(repo: str, entries: list[Entry], refused: Counter[str], environment: Environment) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in refused.most_common()) or "there are none"
    hints = Counter(entry.detail for entry in entries if entry.detail and entry.reason in (NO_PASS, NOT_STARTED))
    hint = f"; {hints.most_common(1)[0][0]}" if hints else ""
    return (
        f"none of {len(entries)} commits of {repo} is a task ({why}); check that its tests run with {environment.python}{hint}"
    )


def _look(repo: str, laboratory: Laboratory, commit: Commit, options: Options) -> Entry:
    try:
        task, ignored = _proven(repo, laboratory, commit, options)
        return Entry(sha=commit.sha, task=task, ignored=ignored)
    except Refused as refused:
        return Entry(sha=commit.sha, reason=str(refused), detail=refused.detail)


def _proven(repo: str, laboratory: Laboratory, commit: Commit, options: Options) -> tuple[MinedTask, tuple[str, ...]]:
    """The task of a commit, after its tests were seen to fail without it and to pass with it, each time."""
    found = candidate(laboratory.mirror, commit, options.max_files, options.max_lines, options.where)
    issue = issue_text(found.message)
    if not issue:
        raise Refused(SAYS_NOTHING)
    after = laboratory.run(found, True)
    passing = {test for test, outcome in after.results.items() if outcome == PASSED and _hidden(test, found)}
    if not passing:
        raise Refused(NO_PASS, advice(after.output))
    before = laboratory.run(found, False)
    broken = sorted(test for test in passing if before.results.get(test) != PASSED)
    if not broken:
        raise Refused(NO_FAIL)
    issue = without_answers(issue, found.patch, tuple(broken), found.runnable)
    if not issue:
        raise Refused(SAYS_NOTHING)
    for _ in range(options.repeats - 1):
        if laboratory.run(found, True).results != after.results or laboratory.run(found, False).results != before.results:
            raise Refused(UNSTEADY)
    try:
        return _task(repo, found, issue, broken, sorted(passing - set(broken))), after.ignored
    except ValidationError:  # names that a stream file cannot hold
        raise Refused("odd test names") from None


def _hidden(test: str, found: Candidate) -> bool:
    return test.partition("::")[0] in found.test_files


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
