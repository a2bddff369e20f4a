"""Benchmark files, from their publishers or from a copy: whole and checked, or not there at all.

They are read at run time from the folder they were fetched to. None of them is ever training data.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from eval.download import LARGEST, Progress, download
from eval.errors import EvalError
from memory.files import sync


@dataclass(frozen=True)
class Source:
    """One published file.

    `digest` is `sha256:` and 64 hex digits, or `git:` and the id of the blob under which the publisher keeps it; `size` is in
    bytes, None where only the digest is known. `rebuilds` are known copies with other bytes (sha256 → what they are).
    """

    file: str
    url: str
    digest: str
    size: int | None
    rebuilds: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Path], object] = lambda path: None
    """Reads a copy of other bytes; raises EvalError, OSError or ValueError if it is nothing of the kind."""


def _tasks_of(path: Path) -> object:
    from eval.swebench.dataset import read

    return read(path)


def _lines_of(path: Path) -> object:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@dataclass(frozen=True)
class Fetched:
    """A file in place. `note` is empty for the published file; otherwise it says what the file is instead."""

    path: Path
    sha256: str
    size: int
    note: str = ""


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "swe-bench-cl": Source(
            "swe-bench-cl.json",
            "https://raw.githubusercontent.com/thomasjoshi/agents-never-forget/"
            "74a38a90baace25635f3827ee2f98caff24b3768/data/SWE-Bench-CL-Curriculum.json",
            "git:2e633c7217601a3b9525f53fc9d907b9bbb53980",
            None,
            {
                "e6f4340dfeaf4839dfcc3553c109aa1f63a9cc338c165bb2ba92f23b3e694858": "rebuilt from SWE-bench Verified by "
                "the published rules, with each task's version"
            },
            _tasks_of,
        ),
        "humaneval": Source(
            "HumanEval.jsonl.gz",
            "https://raw.githubusercontent.com/openai/human-eval/"
            "6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz",
            "sha256:b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
            44_877,
            check=_lines_of,
        ),
        "mbpp": Source(
            "sanitized-mbpp.json",
            "https://raw.githubusercontent.com/google-research/google-research/"
            "30adf0ec5f35f9609c2f1d896005e184195d9146/mbpp/sanitized-mbpp.json",
            "sha256:ca95deaa9a01ef0a6f439f88bcf0dd3db3563d22f22aad6cae04ebb9a8d8c8e9",
            255_053,
            {
                "7fec016546acaee11dbe14f9f0bb670e59f41919f7b522a59fba34871da78551": "the same 427 problems, indented otherwise",
            },
            lambda path: json.loads(path.read_bytes()),
        ),
    }
)


def fetch(
    name: str,
    to: Path,
    source: Path | None = None,
    *,
    accept_rebuilt: bool = False,
    progress: Progress = lambda done, size: None,
    sources: Mapping[str, Source] = SOURCES,
    pause: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Put the file called `name` into the folder `to`, from its publisher or from the file `source`.

    A download that was cut off goes on where it ended, within a call and in the next. A file that is there already and is
    the published one stays; any other is replaced only by one that passed its check. With `accept_rebuilt` a `source` of
    other bytes passes too; the result then says what it is.

    Raises:
        EvalError: if the name is unknown, the file cannot be had, or it is not the one that was published.
    """
    if name not in sources:
        raise EvalError(f"no data called {name!r}; there are {', '.join(sources)}")
    wanted = sources[name]
    target = to / wanted.file
    retry = f"try `sleepyctl data fetch {name}` again, or get the file another way and use --from FILE"
    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        if source is None and (there := _published(target, wanted)):
            progress(there.size, there.size)
            return there
        with _partial(target) as (part, path):
            if source is None:
                resumed = _size(part) > 0
                download(wanted.url, wanted.size, part, progress, pause)
                if resumed and not _matches(part, wanted):  # what was there is the beginning of another file
                    part.truncate(0)
                    download(wanted.url, wanted.size, part, progress, pause)
            else:
                _copy(source, wanted, part, progress)
            found = _checked(target, wanted, part, accept_rebuilt and source is not None)
            if found is None:
                sha256, size = _sha256(part), _size(part)
                path.unlink()
                known = f" ({wanted.rebuilds[sha256]})" if sha256 in wanted.rebuilds else ""
                how = "--accept-rebuilt takes it nevertheless, and says so" if source else retry
                raise EvalError(
                    f"{source or wanted.url} is not the published {wanted.file}: sha256 {sha256}, {size:,} bytes{known}; {how}"
                )
            os.fsync(part.fileno())
            if found.note:
                _sound(path, wanted, source)
            path.replace(target)
        sync(to)
    except OSError as error:
        raise EvalError(
            f"{error.filename or target}: {error.strerror or error}; {target} is as it was: mend that, and {retry}"
        ) from error
    return found


def _sound(path: Path, wanted: Source, source: Path | None) -> None:
    try:
        wanted.check(path)
    except (EvalError, ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        path.unlink()
        why = str(error).replace(str(path), str(source))
        raise EvalError(f"{source} is no copy of {wanted.file} at all: {why[:300]}") from error


@contextmanager
def _partial(target: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """The file that a download grows in, for one process at a time; never through a link."""
    path = target.with_name(f".{target.name}.part")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "r+b") as part:
        try:
            fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EvalError(f"{target}: another process is fetching it; wait for that one") from error
        if not path.exists() or not os.path.samestat(path.stat(), os.fstat(handle)):
            raise EvalError(f"{target}: another process has just fetched it; look there")
        yield part, path


def _copy(source: Path, wanted: Source, part: IO[bytes], progress: Progress) -> None:
    if not source.is_file():
        raise EvalError(f"{source}: no such file; --from takes a copy of {wanted.file}")
    if source.stat().st_size > LARGEST:
        raise EvalError(f"{source} is larger than {LARGEST:,} bytes; --from takes a copy of {wanted.file}")
    with source.open("rb") as file:
        size = _size(file)
        part.truncate(0)
        done = 0
        for block in _blocks(file):
            part.write(block)
            done += len(block)
            progress(done, size)
    part.flush()


def _published(target: Path, wanted: Source) -> Fetched | None:
    """The file that is there, if it is the published one."""
    if target.is_symlink() or not target.is_file():
        return None
    with target.open("rb") as file:
        return _checked(target, wanted, file, accept_rebuilt=False)


def _checked(target: Path, wanted: Source, file: IO[bytes], accept_rebuilt: bool) -> Fetched | None:
    """What the file is, once it lies at `target`; None if it must not."""
    published = _matches(file, wanted)
    if not (published or accept_rebuilt):
        return None
    sha256 = _sha256(file)
    what = wanted.rebuilds.get(sha256, "a file that this version does not know")
    note = "" if published else f"not the published {wanted.file} but {what} (sha256 {sha256}); report results with it as such"
    return Fetched(target, sha256, _size(file), note)


def _matches(file: IO[bytes], wanted: Source) -> bool:
    kind, _, digest = wanted.digest.partition(":")
    if wanted.size is not None and _size(file) != wanted.size:
        return False
    return digest == (_git_blob(file) if kind == "git" else _sha256(file))


def _sha256(file: IO[bytes]) -> str:
    return _digest(hashlib.sha256(), file)


def _git_blob(file: IO[bytes]) -> str:
    return _digest(hashlib.sha1(b"blob %d\0" % _size(file), usedforsecurity=False), file)


def _digest(digest: Any, file: IO[bytes]) -> str:
    file.seek(0)
    for block in _blocks(file):
        digest.update(block)
    return str(digest.hexdigest())


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(lambda: file.read(64 << 10), b"")


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size
