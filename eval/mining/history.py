"""A git history as candidates: commits that change Python sources and their tests together."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.repositories import Mirror, RepositoryError

MAX_COMMITS = 200_000
_TEST_FILE = re.compile(r"(^|/)(test_[^/]*|[^/]*_test|tests)\.py$")
_TEST_FOLDER = re.compile(r"(^|/)(tests?|testing)/")
_PLAIN = {"100644", "100755", "000000"}


class Refused(Exception):  # an answer about one commit, not an error of the program
    """A commit is no task; the text is the reason it is counted under."""


@dataclass(frozen=True)
class Commit:
    """One commit of the first-parent line; `at` is UTC and never earlier than that of the one before it."""

    sha: str
    parents: tuple[str, ...]
    at: datetime


@dataclass(frozen=True)
class Candidate:
    """What a commit did: `patch` to the sources, `test_patch` to the tests.

    `runnable` are the changed test files that pytest can collect; `test_files` are all the test
    files that were added or changed, with their whole texts.
    """

    commit: Commit
    base: str
    message: str
    patch: str
    test_patch: str
    modified: tuple[str, ...]
    test_files: dict[str, str]
    runnable: tuple[str, ...]
    lines: int


def is_test(path: str) -> bool:
    """Whether a path belongs to the tests: a test file, or anything in a folder of tests."""
    return bool(_TEST_FILE.search(path) or _TEST_FOLDER.search(path) or path.rpartition("/")[2] == "conftest.py")


def walk(mirror: Mirror, revision: str, now: datetime) -> list[Commit]:
    """The first-parent line up to a revision, oldest first.

    Committer dates can lie: one before its parent's counts as its parent's, one after `now` as `now`.
    """
    listed = mirror.git(
        "rev-list", "--first-parent", "--reverse", "--topo-order", "--timestamp", "--parents", mirror.commit(revision)
    )
    commits: list[Commit] = []
    latest = datetime.fromtimestamp(0, UTC)
    for row in listed.decode().split("\n")[-MAX_COMMITS - 1 : -1]:
        stamp, sha, *parents = row.split()
        latest = max(latest, datetime.fromtimestamp(min(int(stamp), now.timestamp()), UTC))
        commits.append(Commit(sha, tuple(parents), latest.replace(microsecond=0)))
    return commits


def candidate(mirror: Mirror, commit: Commit, max_files: int, max_lines: int) -> Candidate:
    """What one commit did, if that can be a task.

    Raises:
        Refused: it cannot.
    """
    if len(commit.parents) != 1:
        raise Refused("merge" if commit.parents else "first commit")
    base = commit.parents[0]
    try:
        changes = _changes(mirror, base, commit.sha)
        tests = [path for path, _ in changes if is_test(path)]
        sources = [path for path, _ in changes if not is_test(path)]
        if not any(path.endswith(".py") for path in sources):
            raise Refused("changes no source")
        if not any(_TEST_FILE.search(path) for path in tests):
            raise Refused("changes no test")
        if len(changes) > max_files:
            raise Refused("too large")
        patch, test_patch = _patch(mirror, base, commit.sha, sources), _patch(mirror, base, commit.sha, tests)
        lines = sum(row[:1] in "+-" and row[:4] not in ("+++ ", "--- ") for row in (patch + test_patch).split("\n") if row)
        if lines > max_lines:
            raise Refused("too large")
        kept = [path for path, status in changes if is_test(path) and status != "D"]
        texts = {path: mirror.git("cat-file", "blob", f"{commit.sha}:{path}").decode() for path in kept}
        message = mirror.git("cat-file", "commit", commit.sha).decode("utf-8", "replace").partition("\n\n")[2]
    except UnicodeDecodeError:
        raise Refused("not text") from None
    except RepositoryError:
        raise Refused("objects missing or too large") from None
    runnable = tuple(path for path in kept if _TEST_FILE.search(path))
    if not runnable:
        raise Refused("changes no test")
    return Candidate(commit, base, message, patch, test_patch, tuple(sources), texts, runnable, lines)


def _changes(mirror: Mirror, base: str, sha: str) -> list[tuple[str, str]]:
    """Changed paths with git's status letter.

    Raises:
        Refused: not all of them are plain files with names that every system can have.
    """
    fields = mirror.git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-ext-diff", base, sha).decode().split("\0")
    found: list[tuple[str, str]] = []
    for head, path in zip(fields[:-1:2], fields[1::2], strict=True):
        old, new, _, _, status = head.removeprefix(":").split(" ")
        if not {old, new} <= _PLAIN:
            raise Refused("changes a link or a submodule")
        if not path.isprintable() or "\\" in path or '"' in path:
            raise Refused("odd file names")
        found.append((path, status))
    return found


def _patch(mirror: Mirror, base: str, sha: str, paths: list[str]) -> str:
    how = ("-p", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--binary", "--full-index")
    return mirror.git("diff-tree", *how, base, sha, "--", *paths).decode()
