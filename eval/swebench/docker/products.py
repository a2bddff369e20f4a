"""What an image's build left in its repository besides the commit's files: compiled modules, versions, metadata.

It is copied out once, without the image's `.git` (which holds history) and without running anything, and kept as a tar file.
"""

from __future__ import annotations

import os
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.repositories import Checkout
from eval.errors import EvalError
from eval.swebench.docker.engine import Engine
from eval.swebench.docker.images import Image
from memory.hashing import content_hash

MAX_BYTES = 2 * 2**30
MAX_ENTRIES = 100_000
MISSING = 0.01
"""The share of a commit's files that an image may lack."""
_LITTER = re.compile(r"(^|/)(__pycache__|\.pytest_cache|\.git)(/|$)|\.pyc$", re.IGNORECASE)
_SPECIAL = re.compile(r"[\\*?\[\]!# ]")


class Products:
    """The products of images, kept in one folder; safe for several threads and processes."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self._folder, self._engine = folder, engine

    def put(self, made: Checkout, image: Image, path: str) -> None:
        """Add the products of the repository at `path` in an image to a checkout of the same commit.

        A file that somebody else has put in the place of one gives way. No product counts as a change (`diff`).

        Raises:
            EvalError: the image has no such repository, another one, or more than fits.
        """
        with tarfile.open(self._kept(made, image, path)) as tar:
            members = tar.getmembers()
            for member in members:
                if _made_free(made.root, member.name):
                    tar.extract(member, made.root, filter="data")
        exclude = made.git_dir / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_text("".join(f"/{_escaped(member.name)}\n" for member in members), encoding="utf-8")

    def _kept(self, made: Checkout, image: Image, path: str) -> Path:
        tree = made.git("rev-parse", f"{made.base}^{{tree}}").decode().strip()
        kept = self._folder / f"{content_hash([image.identity, tree, path])}.tar"
        if not kept.exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".products-", dir=self._folder)
            try:
                with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w") as into:
                    self._collect(made, image, path, into)
                Path(name).replace(kept)
            except BaseException:
                with suppress(OSError):
                    Path(name).unlink()
                raise
        return kept

    def _collect(self, made: Checkout, image: Image, path: str, into: tarfile.TarFile) -> None:
        tracked = {name.decode("utf-8", "surrogateescape") for name in made.git("ls-files", "-z").split(b"\0")[:-1]}
        seen = size = entries = 0
        try:
            with self._engine.folder(image.identity, path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                for member, name in _entries(tar):
                    seen += name in tracked
                    if name in tracked or not is_product(member, name):
                        continue
                    size, entries = size + member.size, entries + 1
                    if size > MAX_BYTES or entries > MAX_ENTRIES:
                        raise EvalError(f"{image.name}: {path} has more than the commit and {MAX_BYTES} bytes of products")
                    content = tar.extractfile(member) if member.isreg() else None
                    member.name = name
                    into.addfile(member, content)
        except tarfile.TarError as error:
            raise EvalError(f"{image.name}: {path} cannot be read: {error}") from error
        if seen < (1 - MISSING) * len(tracked):
            raise EvalError(
                f"{image.name}: {path} has {seen} of the commit's {len(tracked)} files; it must be this task's own image, "
                f"with the repository at {path}"
            )


def _entries(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """The members with their path in the folder, whose own name every one of them begins with."""
    for member in tar:
        _, _, name = posixpath.normpath(member.name).partition("/")
        if name:
            yield member, name


def is_product(member: tarfile.TarInfo, name: str) -> bool:
    """Whether a file that is not the commit's is taken along: plain files, and links that stay within the folder."""
    if _LITTER.search(name) or ".." in name.split("/") or not name.isprintable():
        return False
    if member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        return not target.startswith(("/", "..")) and not _LITTER.search(target)
    return member.isreg()


def _made_free(root: Path, name: str) -> bool:
    """Whether a file can now be made there without following a link; a patch may have made a file of a folder, or the like."""
    *folders, last = name.split("/")
    place = root
    for folder in folders:
        place = place / folder
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            return False
    target = place / last
    if target.is_dir() and not target.is_symlink():
        return False
    target.unlink(missing_ok=True)
    return True


def _escaped(name: str) -> str:
    return _SPECIAL.sub(lambda found: f"\\{found.group()}", name)
