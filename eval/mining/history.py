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
_VENDORED = re.compile(r"(^|/)(_?vendor(ed)?|third[_-]?party|externals?|extern|node_modules|site-packages)/", re.IGNORECASE)
_GENERATED = re.compile(r"(_pb2(_grpc)?|/_version|_parsetab|_lextab)\.pyi?$")
_SAYS_GENERATED = re.compile(r"@generated|auto-?generated|generated (by|from)\b|do not edit", re.IGNORECASE)


class Refused(Exception):  # an answer about one commit, not an error of the program
    """A commit is no task: the reason it is counted under, and what more there is to say."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.detail = detail


@dataclass(frozen=True)
class Change:
    """A changed path, git's status letter, and the blobs before and after."""

    path: str
    status: str
    old: str
    new: str


@dataclass(frozen=True)
class Commit:
    """One commit of a history; `at` is UTC and never earlier than that of the one before it."""

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


def is_runnable(path: str) -> bool:
    """Whether pytest can be given this path to collect tests from."""
    return bool(_TEST_FILE.search(path))


def walk(mirror: Mirror, revision: str, now: datetime, first_parent: bool = False) -> list[Commit]:
    """The history of a revision, parents before children; `first_parent` leaves out what was merged.

    Committer dates can lie: one before its parent's counts as its parent's, one after `now` as `now`.
    """
    how = ("--first-parent",) if first_parent else ()
    options = ("--reverse", "--date-order", "--timestamp", "--parents")
    listed = mirror.git("rev-list", *how, *options, mirror.commit(revision))
    commits: list[Commit] = []
    latest = datetime.fromtimestamp(0, UTC)
    for row in listed.decode().split("\n")[-MAX_COMMITS - 1 : -1]:
        stamp, sha, *parents = row.split()
        latest = max(latest, datetime.fromtimestamp(min(int(stamp), now.timestamp()), UTC))
        commits.append(Commit(sha, tuple(parents), latest.replace(microsecond=0)))
    return commits


def candidate(mirror: Mirror, commit: Commit, max_files: int, max_lines: int, where: tuple[str, ...] = ()) -> Candidate:
    """What one commit did, if that can be a task. `where`, if given, are the paths that tests are run from.

    Raises:
        Refused: it cannot.
    """
    if len(commit.parents) != 1:
        raise Refused("merge" if commit.parents else "first commit")
    base = commit.parents[0]
    try:
        changes = _changes(mirror, base, commit.sha)
        tests = [change for change in changes if is_test(change.path)]
        sources = [change for change in changes if not is_test(change.path)]
        _of_their_own(sources)
        if not any(is_runnable(change.path) for change in tests):
            raise Refused("changes no test")
        if len(changes) > max_files:
            raise Refused("too large")
        patch = _patch(mirror, base, commit.sha, [change.path for change in sources])
        test_patch = _patch(mirror, base, commit.sha, [change.path for change in tests])
        lines = sum(row[:1] in "+-" and row[:4] not in ("+++ ", "--- ") for row in (patch + test_patch).split("\n") if row)
        if lines > max_lines:
            raise Refused("too large")
        for change in sources:
            text = mirror.git("cat-file", "blob", change.new) if change.path.endswith(".py") and change.status != "D" else b""
            if _SAYS_GENERATED.search(text[:400].decode("utf-8", "replace")):
                raise Refused("changes generated files")
        kept = [change.path for change in tests if change.status != "D"]
        texts = {path: mirror.git("cat-file", "blob", f"{commit.sha}:{path}").decode() for path in kept}
        message = mirror.git("cat-file", "commit", commit.sha).decode("utf-8", "replace").partition("\n\n")[2]
    except UnicodeDecodeError:
        raise Refused("not text") from None
    except RepositoryError:
        raise Refused("objects missing or too large") from None
    runnable = tuple(path for path in kept if is_runnable(path) and _within(path, where))
    if not runnable:
        raise Refused("changes no test")
    return Candidate(commit, base, message, patch, test_patch, tuple(change.path for change in sources), texts, runnable, lines)


def _within(path: str, where: tuple[str, ...]) -> bool:
    return not where or any(path == place or path.startswith(f"{place}/") for place in where)


def _of_their_own(sources: list[Change]) -> None:
    """Refuses changes that nobody thought up here: moved, copied in, or made by a program."""
    python = [change for change in sources if change.path.endswith(".py")]
    if not python:
        raise Refused("changes no source")
    if any(_VENDORED.search(change.path) for change in sources):
        raise Refused("changes vendored files")
    if any(_GENERATED.search(f"/{change.path}") for change in python):
        raise Refused("changes generated files")
    gone = sorted(change.old for change in python if change.status == "D")
    if gone and gone == sorted(change.new for change in python if change.status == "A") and 2 * len(gone) == len(python):
        raise Refused("only moves files")


def _changes(mirror: Mirror, base: str, sha: str) -> list[Change]:
    """What differs between two commits.

    Raises:
        Refused: not all of it are plain files with names that every system can have.
    """
    fields = mirror.git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-ext-diff", base, sha).decode().split("\0")
    found: list[Change] = []
    for head, path in zip(fields[:-1:2], fields[1::2], strict=True):
        old, new, before, after, status = head.removeprefix(":").split(" ")
        if not {old, new} <= _PLAIN:
            raise Refused("changes a link or a submodule")
        if not path.isprintable() or "\\" in path or '"' in path:
            raise Refused("odd file names")
        found.append(Change(path, status, before, after))
    return found


def _patch(mirror: Mirror, base: str, sha: str, paths: list[str]) -> str:
    how = ("-p", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--binary", "--full-index")
    return mirror.git("diff-tree", *how, base, sha, "--", *paths).decode()
