"""Bare mirrors in one folder: cloned once from a URL, or adopted from a repository on this machine."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agent.repositories.git import MAX_OUTPUT_BYTES, SECONDS, GitMissing, RepositoryError, git
from memory.files import write_whole

TRANSPORTS = "https:ssh:file"
CLONE_SECONDS = 3600.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9][A-Za-z0-9._-]{0,99})?")
_LISTED = ("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/", "refs/tags/")
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


@dataclass(frozen=True)
class Mirror:
    """A bare git directory that is only read. It holds the future: never show it to a sandbox."""

    git_dir: Path

    def git(self, *arguments: str, given: bytes = b"", at_most: int = MAX_OUTPUT_BYTES, seconds: float = SECONDS) -> bytes:
        """Output of a reading command; see `agent.repositories.git.git`."""
        return git(self.git_dir, *arguments, given=given, at_most=at_most, seconds=seconds)

    def commit(self, revision: str = "HEAD") -> str:
        """The full SHA of the commit behind a revision.

        Raises:
            RepositoryError: it has no such commit.
        """
        try:
            found = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except GitMissing:
            raise
        except RepositoryError as error:
            raise RepositoryError(
                f"{self.git_dir} has no commit {revision[:100]!r}; update the repository behind it and adopt or clone it again"
            ) from error
        return found.decode().strip()

    def text(self, commit: str, path: str) -> str:
        """The text of a file in a commit; bytes that are no UTF-8 become lone surrogates."""
        return self.git("cat-file", "blob", f"{commit}:{path}").decode("utf-8", "surrogateescape")


class Mirrors:
    """The mirrors of a folder, by the name of their repository (`name` or `owner/name`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, repo: str) -> Path:
        """Where the mirror of a repository lies, or would lie."""
        if not _NAME.fullmatch(repo):
            raise RepositoryError(f"{repo[:100]!r} cannot be a repository's name; write it as name or owner/name")
        return self.folder / f"{repo.replace('/', '__')}.git"

    def get(self, repo: str) -> Mirror:
        """The mirror of a repository.

        Raises:
            RepositoryError: there is none yet.
        """
        if not (self.path(repo) / "HEAD").is_file():
            raise RepositoryError(
                f"no mirror of {repo} in {self.folder}; clone it from a URL, or give --mirror PATH to a clone"
            )
        return Mirror(self.path(repo))

    def clone(self, repo: str, url: str) -> Mirror:
        """The mirror of a repository, fetched whole from `url` if it is not there yet.

        It appears whole or not at all; of two that clone at once, one copy is kept.
        """
        target = self.path(repo)
        if (target / "HEAD").is_file():
            return Mirror(target)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".clone-", dir=self.folder) as scratch:
            fresh = Path(scratch, "mirror.git")
            options = ("--mirror", "--quiet", "--no-local", "--template=")
            git(None, "clone", *options, "--", url, str(fresh), transports=TRANSPORTS, seconds=CLONE_SECONDS)
            try:
                fresh.rename(target)
            except OSError:
                if not (target / "HEAD").is_file():
                    raise
        return Mirror(target)

    def adopt(self, repo: str, path: Path) -> Mirror:
        """The mirror of a repository on this machine, up to date with its branches and tags.

        Nothing is copied: the mirror has its own configuration and references, and finds the objects
        where they are. So `path` must stay where it is, and no configuration of its is ever used.

        Raises:
            RepositoryError: there is no repository at `path` itself, or another one is mirrored already.
        """
        path, target = path.resolve(), self.path(repo)
        objects, form, shallow = _ask(path)
        if "\n" in str(objects) or str(objects).startswith(("#", '"')):
            raise RepositoryError(f"{path}: git cannot refer to a path with such a name; rename the folder")
        alternates = target / "objects" / "info" / "alternates"
        if target.exists():
            if not alternates.is_file() or alternates.read_text(encoding="utf-8") != f"{objects}\n":
                raise RepositoryError(
                    f"{target} already mirrors another repository; remove it, or use another name than {repo}"
                )
        else:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".adopt-", dir=self.folder) as scratch:
                fresh = Path(scratch, "mirror.git")
                git(None, "init", "--quiet", "--bare", "--template=", f"--object-format={form}", str(fresh))
                (fresh / "objects" / "info").mkdir(exist_ok=True)
                write_whole(fresh / "objects" / "info" / "alternates", f"{objects}\n")
                if not target.exists():
                    fresh.rename(target)
        if shallow.is_file():
            shutil.copyfile(shallow, target / "shallow")
        else:
            (target / "shallow").unlink(missing_ok=True)
        _follow(path, target)
        return Mirror(target)


def _foreign(path: Path, *arguments: str) -> bytes:
    """A question to a repository with its own configuration: only such as run no program."""
    found = git(None, "-C", str(path), *arguments, variables={"GIT_CEILING_DIRECTORIES": str(path.parent)})
    return found.rstrip(b"\n")


def _ask(path: Path) -> tuple[Path, str, Path]:
    """The object folder, the object format and the list of shallow commits of a repository."""
    if not path.is_dir():
        raise RepositoryError(f"{path} is no folder; give the path of a clone")
    question = ("rev-parse", "--path-format=absolute", "--show-object-format", "--git-path", "objects", "--git-path", "shallow")
    try:
        form, objects, shallow = _foreign(path, *question).decode("utf-8", "surrogateescape").split("\n")
    except GitMissing:
        raise
    except (RepositoryError, ValueError) as error:
        raise RepositoryError(f"{path} is not the top folder of a git repository; give the path of a clone") from error
    return Path(objects), form, Path(shallow)


def _follow(path: Path, target: Path) -> None:
    """Give the mirror the branches, tags and HEAD that the repository has now."""
    theirs, ours = _references(_foreign(path, *_LISTED)), _references(git(target, *_LISTED))
    try:
        head = _foreign(path, "rev-parse", "--verify", "--quiet", "HEAD^{commit}").decode()
    except RepositoryError as error:
        raise RepositoryError(f"{path} has no commit yet") from error
    if not all(_SHA.fullmatch(sha) for sha in (head, *theirs.values())):
        raise RepositoryError(f"{path} lists references that are none; check it with git fsck")
    write_whole(target / "HEAD", f"{head}\n")  # on no branch, so that it moves alone
    gone = [f"delete {name}\0\0" for name in sorted(set(ours) - set(theirs))]
    kept = [f"update {name}\0{sha}\0\0" for name, sha in theirs.items()]
    git(target, "update-ref", "--no-deref", "-z", "--stdin", given="".join(gone + kept).encode("utf-8", "surrogateescape"))


def _references(listed: bytes) -> dict[str, str]:
    rows = (line.split(" ", 1) for line in listed.decode("utf-8", "surrogateescape").split("\n") if line)
    return {name: sha for sha, name in rows}
