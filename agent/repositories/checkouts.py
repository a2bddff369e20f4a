"""Workspaces of real repositories: the tree of one commit, and nothing that came later.

Agents have been caught reading the fix out of later history. A checkout's git directory holds the
objects of one tree and one commit without parents, made here; it lies beside the workspace, is not
mounted into any sandbox, and all that the host asks about the agent's work it asks from there.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.errors import ChangeError
from agent.repositories.git import RepositoryError, command, git, pipe
from agent.repositories.mirrors import Mirror
from agent.workspace import remove_tree

MAX_FILES = 100_000
MAX_TREE_BYTES = 4 * 2**30
MAX_CHANGED_BYTES = 10 * 2**20
MAX_PATCH_BYTES = 20 * 2**20
_LINK, _SUBMODULE = b"120000", b"160000"
_LITTER = re.compile(r"(^|/)(__pycache__|\.pytest_cache|\.git)(/|$)|\.pyc$", re.IGNORECASE)
# Files are as their bytes are: whatever .gitattributes asks for, also one that the agent wrote.
_ATTRIBUTES = "* -text !eol -ident !filter !working-tree-encoding !diff !merge\n"
_VERSION = re.compile(r"\d+(\.\d+)+((a|b|rc|\.post|\.dev)\d+)*")


@dataclass(frozen=True)
class Checkout:
    """A workspace's folder, its git directory outside of it, and the commit (ours) that it started from."""

    root: Path
    git_dir: Path
    base: str

    def git(self, *arguments: str, given: bytes = b"", index: Path | None = None, at_most: int = MAX_PATCH_BYTES) -> bytes:
        """Run the host's git over the workspace, from outside."""
        variables = {"GIT_INDEX_FILE": str(index)} if index is not None else {}
        return git(self.git_dir, *arguments, work_tree=self.root, given=given, variables=variables, at_most=at_most)

    def remove(self) -> None:
        """Delete the workspace and its git directory."""
        for folder in (self.root, self.git_dir):
            with suppress(OSError):
                remove_tree(folder)


def checkout(mirror: Mirror, commit: str, root: Path) -> Checkout:
    """Make the new folder `root` with the files of one commit; its git directory is `root` + `.git`.

    Only the objects of that tree leave the mirror, byte for byte. Submodules are left out; a symbolic
    link that leads out of the workspace becomes a file that holds its target. Safe in parallel.

    Raises:
        RepositoryError: there is no such commit; the tree is too large or has names that no work tree
            may have; or `root` is there already. Nothing is left behind then.
    """
    root = Path(os.path.abspath(root))  # noqa: PTH100 - links in it are the caller's
    made = Checkout(root, root.with_name(f"{root.name}.git"), "")
    sha = mirror.commit(commit)
    odd = _survey(mirror, sha)
    if os.path.lexists(root) or os.path.lexists(made.git_dir):
        raise RepositoryError(f"{root} or {made.git_dir} is there already; every workspace is made in a new folder")
    try:
        root.mkdir(parents=True)
        return _fill(mirror, sha, made, odd)
    except BaseException as error:
        made.remove()
        if isinstance(error, OSError):
            raise RepositoryError(f"{root} cannot be made: {error.strerror}; check the disk's space and rights") from error
        raise


def _survey(mirror: Mirror, sha: str) -> dict[bytes, bytes]:
    """Paths in a tree that are no plain files, with their modes; refuses trees that would fill the disk."""
    odd: dict[bytes, bytes] = {}
    size = files = 0
    for entry in mirror.git("ls-tree", "-r", "-l", "-z", sha, at_most=160 * MAX_FILES).split(b"\0")[:-1]:
        head, path = entry.split(b"\t", 1)
        mode, _, _, length = head.split()
        files += 1
        size += int(length) if length.isdigit() else 0
        if mode in (_LINK, _SUBMODULE):
            odd[path] = mode
    if files > MAX_FILES or size > MAX_TREE_BYTES:
        raise RepositoryError(
            f"{mirror.git_dir}: {files} files of {size} bytes in {sha[:12]}; this is too large for a workspace"
        )
    return odd


def _fill(mirror: Mirror, sha: str, made: Checkout, odd: dict[bytes, bytes]) -> Checkout:
    form = mirror.git("rev-parse", "--show-object-format").decode().strip()
    git(None, "init", "--quiet", "--bare", "--template=", f"--object-format={form}", str(made.git_dir))
    (made.git_dir / "info").mkdir(exist_ok=True)
    (made.git_dir / "info" / "attributes").write_text(_ATTRIBUTES, encoding="utf-8")
    # Bare or not, git is always told where the work tree is.
    git(made.git_dir, "config", "core.bare", "false")
    tree = mirror.git("rev-parse", f"{sha}^{{tree}}").decode().strip()
    pack = command(mirror.git_dir, "pack-objects", "--revs", "--stdout", "--quiet", "--window=0", "--delta-base-offset")
    pipe(pack, command(made.git_dir, "index-pack", "--stdin"), f"{tree}\n".encode())
    made.git("read-tree", tree)
    _forget(made, [path for path, mode in odd.items() if mode == _SUBMODULE])
    made.git("checkout-index", "--all", "--index", "--quiet")
    for path in (path for path, mode in odd.items() if mode == _LINK):
        _tame(made, path)
    if changed := made.git("diff-files", "--name-only", "-z", "--ignore-submodules=all").split(b"\0")[0]:
        name = changed.decode("utf-8", "replace")
        raise RepositoryError(f"{name!r} in {sha[:12]} cannot be a file here, where another name may be the same one")
    tree = made.git("write-tree").decode().strip()
    base = made.git("commit-tree", tree, "-m", "base").decode().strip()
    made.git("update-ref", "--no-deref", "HEAD", base)
    return Checkout(made.root, made.git_dir, base)


def _forget(made: Checkout, paths: list[bytes], index: Path | None = None) -> None:
    if paths:
        made.git("update-index", "--force-remove", "-z", "--stdin", given=b"".join(path + b"\0" for path in paths), index=index)


def _tame(made: Checkout, path: bytes) -> None:
    """Let a link that leads out of the workspace, over whatever other links, be a text file instead."""
    link = os.path.join(os.fsencode(made.root), path)  # noqa: PTH118 - names need not be text
    inside = os.fsencode(made.root.resolve())
    real = os.path.realpath(link)
    if real == inside or real.startswith(inside + b"/"):
        return
    target = os.readlink(link)  # noqa: PTH115
    os.unlink(link)  # noqa: PTH108
    with open(link, "xb") as file:  # noqa: PTH123
        file.write(target)
    made.git("update-index", "-z", "--stdin", given=path + b"\0")


def diff(made: Checkout) -> str:
    """The agent's patch: from the base to the files as they are now, in git's format, binary files included.

    New files count unless the workspace's ignore rules name them or they are caches; special files,
    nested repositories and files above `MAX_CHANGED_BYTES` are no part of a solution. Bytes that are
    no UTF-8 are lone surrogates, as in `Workspace.read`. The checkout stays as it is.

    Special files are removed first, because git would wait for what is never written to them.

    Raises:
        ChangeError: the patch is larger than `MAX_PATCH_BYTES`.
    """
    _tidy(made.root)
    with _scratch_index(made) as index:
        listed = made.git("ls-files", "-z", "--modified", "--deleted", "--others", "--exclude-standard", index=index)
        tracked = set(made.git("ls-files", "-z", index=index).split(b"\0"))
        kept: list[bytes] = []
        gone: list[bytes] = []
        for path in dict.fromkeys(listed.split(b"\0")[:-1]):
            found = None if path.endswith(b"/") else _state(made.root, path, path in tracked)
            if found is not None:
                (kept if found else gone).append(path)
        _forget(made, gone, index)
        made.git(
            "update-index", "--add", "--replace", "-z", "--stdin", given=b"".join(path + b"\0" for path in kept), index=index
        )
        tree = made.git("write-tree", index=index).decode().strip()
    how = (
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--no-renames",
        "--binary",
        "--full-index",
        "--ignore-submodules=all",
    )
    try:
        return made.git("diff-tree", "-p", *how, made.base, tree).decode("utf-8", "surrogateescape")
    except RepositoryError as error:  # nothing else can fail here: both trees have just been written
        raise ChangeError(f"the change is larger than {MAX_PATCH_BYTES} bytes; remove what is no part of it") from error


def _tidy(root: Path) -> None:
    """Remove what is neither file, folder nor link, and make every folder one that can be looked into."""
    waiting = [str(root)]
    while waiting:
        folder = waiting.pop()
        with suppress(OSError):
            mode = os.lstat(folder).st_mode
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(folder, stat.S_IMODE(mode) | stat.S_IRWXU)  # noqa: PTH101 - many, and quick
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False) and not entry.is_symlink():
                        os.unlink(entry.path)  # noqa: PTH108


def _state(root: Path, path: bytes, tracked: bool) -> bool | None:
    """Whether a listed path is there (and readable) or not; `None` for what is not looked at, such as new links."""
    name = os.fsdecode(path)
    if _LITTER.search(name):
        return None
    target = root
    for part in Path(name).parts[:-1]:
        target = target / part
        if target.is_symlink():
            return False
    target = root / name
    try:
        status = target.lstat()
    except OSError:
        return False
    if stat.S_ISLNK(status.st_mode):
        return True if tracked else None
    if not stat.S_ISREG(status.st_mode):
        return False
    return True if status.st_size <= MAX_CHANGED_BYTES and os.access(target, os.R_OK) else None


@contextmanager
def _scratch_index(made: Checkout) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="diff-", dir=made.git_dir) as folder:
        index = Path(folder, "index")
        shutil.copyfile(made.git_dir / "index", index)
        yield index


def apply(made: Checkout, patch: str) -> None:
    """Apply a patch to the files of a checkout, whole or not at all; never through a link, never outside.

    Raises:
        RepositoryError: it does not apply.
    """
    if patch:
        made.git("apply", "--whitespace=nowarn", "-", given=patch.encode("utf-8", "surrogateescape"))


def pretend_version(mirror: Mirror, commit: str) -> str:
    """What a commit's package may call itself (`SETUPTOOLS_SCM_PRETEND_VERSION`): from the last tag before it."""
    try:
        tag = mirror.git("describe", "--tags", "--abbrev=0", "--match=*[0-9].[0-9]*", mirror.commit(commit)).decode(
            "utf-8", "replace"
        )
    except RepositoryError:
        tag = ""
    found = _VERSION.search(tag)
    return found.group() if found else "0.0"
