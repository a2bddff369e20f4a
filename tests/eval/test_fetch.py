"""Benchmark files from a real HTTP server that cuts, lies and refuses: the target holds the published file, or what it held."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.download import ATTEMPTS, LARGEST
from eval.errors import EvalError
from eval.fetch import SOURCES, Fetched, Source, fetch

DATA = Path(os.environ.get("SLEEPYD_DATA", Path(__file__).parents[3] / "shared" / "data"))
CONTENT = random.Random(5).randbytes(300_000)
SIZE = len(CONTENT)


class Publisher(ThreadingHTTPServer):
    """One file at `/file`, anything else is not there. `cuts`: after how many bytes of its body each answer breaks off."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.reset()

    def reset(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.headers: dict[str, str | None] = {}
        self.ranges = True
        self.stall: threading.Event | None = None
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class _Answer(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        publisher = self.server
        publisher.asked.append(self.headers.get("Range", "all"))
        assert self.headers["Accept-Encoding"] == "identity"  # ranges of an encoded body are not ranges of the file
        body, status, headers = publisher.content, 200, {}
        begin = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if publisher.statuses:
            status, body = publisher.statuses.pop(0), b"sorry"
        elif self.path != "/file":
            status, body = 404, b"nothing here"
        elif begin and publisher.ranges:
            status, body = (206, body[begin:]) if begin < len(body) else (416, b"")
            headers["Content-Range"] = f"bytes {begin}-{len(publisher.content) - 1}/{len(publisher.content)}"
        headers |= {"Content-Length": str(len(body)), **publisher.headers}
        self.send_response(status)
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        sent = body[: publisher.cuts.pop(0)] if publisher.cuts else body
        self.wfile.write(sent)
        if publisher.stall:
            publisher.stall.wait(20)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def running() -> Iterator[Publisher]:
    with Publisher() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def publisher(running: Publisher, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running.reset()
    return running


def source(publisher: Publisher, content: bytes = CONTENT, size: bool = True, **changes: Any) -> dict[str, Source]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    given = {"file": "tasks.bin", "url": publisher.url, "digest": digest, "size": len(content) if size else None}
    return {"made": Source(**{**given, **changes})}


def got(publisher: Publisher, to: Path, origin: Path | None = None, **options: Any) -> Fetched:
    options = {"sources": source(publisher), "pause": lambda _: None, **options}
    return fetch("made", to, origin, **options)


def refused(publisher: Publisher, to: Path, origin: Path | None = None, **options: Any) -> str:
    with pytest.raises(EvalError) as error:
        got(publisher, to, origin, **options)
    return str(error.value)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Downloads


@pytest.mark.parametrize("size", [True, False], ids=["known size", "unknown size"])
def test_a_download_is_checked_and_put_in_place_for_the_owner_alone(publisher: Publisher, tmp_path: Path, size: bool) -> None:
    seen: list[tuple[int, int | None]] = []
    folder = tmp_path / "new" / "data"
    found = got(publisher, folder, sources=source(publisher, size=size), progress=lambda *told: seen.append(told))
    assert found == Fetched(folder / "tasks.bin", hashlib.sha256(CONTENT).hexdigest(), SIZE)
    assert found.path.read_bytes() == CONTENT
    assert found.path.stat().st_mode & 0o777 == 0o600
    assert left(folder) == ["tasks.bin"]
    assert seen[0] == (0, SIZE)
    assert seen[-1] == (SIZE, SIZE)
    assert seen == sorted(seen)


def test_what_is_there_and_right_is_not_downloaded_again(publisher: Publisher, tmp_path: Path) -> None:
    assert got(publisher, tmp_path) == got(publisher, tmp_path)
    assert publisher.asked == ["all"]


def test_a_cut_download_goes_on_where_it_ended(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [1_000, 0, 50_000]
    waits: list[float] = []
    assert got(publisher, tmp_path, pause=waits.append).path.read_bytes() == CONTENT
    assert publisher.asked == ["all", "bytes=1000-", "bytes=1000-", "bytes=51000-"]
    assert waits == sorted(waits)
    assert len(waits) == 3


def test_the_next_call_goes_on_where_the_last_one_gave_up(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [100] * ATTEMPTS
    text = refused(publisher, tmp_path)
    assert "it goes on where it ended" in text
    assert "--from FILE" in text
    assert left(tmp_path) == [".tasks.bin.part"]
    assert got(publisher, tmp_path).path.read_bytes() == CONTENT
    assert publisher.asked[-1] == f"bytes={100 * ATTEMPTS}-"


def test_a_killed_download_leaves_no_file_and_goes_on(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts, publisher.stall = [200_000], threading.Event()
    code = (
        "import sys; from pathlib import Path; from eval.fetch import Source, fetch\n"
        "fetch('made', Path(sys.argv[1]), sources={'made': Source('tasks.bin', sys.argv[2], sys.argv[3], 300_000)})"
    )
    argv = [sys.executable, "-c", code, str(tmp_path), publisher.url, source(publisher)["made"].digest]
    part = tmp_path / ".tasks.bin.part"
    with subprocess.Popen(argv, cwd=Path(__file__).parents[2]) as child:
        try:
            for _ in range(1_000):
                if child.poll() is not None or (part.exists() and part.stat().st_size > 100_000):
                    break
                threading.Event().wait(0.02)
        finally:
            child.kill()
    publisher.stall.set()
    publisher.stall = None
    assert left(tmp_path) == [".tasks.bin.part"]
    begun = part.stat().st_size
    assert begun > 100_000
    assert got(publisher, tmp_path).path.read_bytes() == CONTENT
    assert publisher.asked == ["all", f"bytes={begun}-"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(min_size=1, max_size=3_000),
    cuts=st.lists(st.integers(0, 1_500), max_size=ATTEMPTS - 1),
    ranges=st.booleans(),
    size=st.booleans(),
    part=st.binary(max_size=4_000),
)
def test_cut_anywhere_resumed_from_anything_the_file_is_whole(
    publisher: Publisher, tmp_path: Path, content: bytes, cuts: list[int], ranges: bool, size: bool, part: bytes
) -> None:
    (tmp_path / "tasks.bin").unlink(missing_ok=True)
    (tmp_path / ".tasks.bin.part").write_bytes(part)
    publisher.reset(content)
    publisher.cuts, publisher.ranges = list(cuts), ranges
    assert got(publisher, tmp_path, sources=source(publisher, content, size)).path.read_bytes() == content
    assert left(tmp_path) == ["tasks.bin"]


@pytest.mark.parametrize("size", [True, False])
def test_a_server_without_ranges_is_asked_for_the_whole_again(publisher: Publisher, tmp_path: Path, size: bool) -> None:
    publisher.cuts, publisher.ranges = [1_000], False
    assert got(publisher, tmp_path, sources=source(publisher, size=size)).path.read_bytes() == CONTENT


def test_an_answer_that_ends_early_without_saying_its_length_is_cut_too(publisher: Publisher, tmp_path: Path) -> None:
    publisher.headers, publisher.cuts = {"Content-Length": None}, [1_000]
    assert got(publisher, tmp_path).path.read_bytes() == CONTENT
    assert publisher.asked == ["all", "bytes=1000-"]


def test_what_was_whole_but_not_yet_in_place_is_not_downloaded_again(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / ".tasks.bin.part").write_bytes(CONTENT)
    assert got(publisher, tmp_path, sources=source(publisher, size=False)).path.read_bytes() == CONTENT
    assert publisher.asked == [f"bytes={SIZE}-"]


def test_a_busy_server_is_asked_again(publisher: Publisher, tmp_path: Path) -> None:
    publisher.statuses = [503, 429, 500]
    assert got(publisher, tmp_path).path.read_bytes() == CONTENT
    assert len(publisher.asked) == 4


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_told_at_once_with_another_way(publisher: Publisher, tmp_path: Path, status: int) -> None:
    publisher.statuses = [status]
    text = refused(publisher, tmp_path)
    assert f"{publisher.url}: the server answered {status}" in text
    assert "--from FILE" in text
    assert len(publisher.asked) == 1


def test_a_missing_page_is_told_with_its_address(publisher: Publisher, tmp_path: Path) -> None:
    gone = publisher.url + "-gone"
    assert f"{gone}: the server answered 404 Not Found" in refused(publisher, tmp_path, sources=source(publisher, url=gone))


def test_no_server_at_all_is_told(publisher: Publisher, tmp_path: Path) -> None:
    nowhere = source(publisher, url="http://127.0.0.1:9/file")
    assert "the connection failed (ConnectError" in refused(publisher, tmp_path, sources=nowhere)


# Files that are not the published one


OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])


@pytest.mark.parametrize("begun", [0, 1_000])
def test_another_file_of_the_same_size_is_thrown_away(publisher: Publisher, tmp_path: Path, begun: int) -> None:
    if begun:
        (tmp_path / ".tasks.bin.part").write_bytes(OTHER[:begun])
    publisher.content = OTHER
    text = refused(publisher, tmp_path)
    assert "is not the published tasks.bin" in text
    assert hashlib.sha256(OTHER).hexdigest() in text
    assert left(tmp_path) == []


def test_the_beginning_of_another_file_is_replaced(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / ".tasks.bin.part").write_bytes(b"x" * 1_000)
    assert got(publisher, tmp_path).path.read_bytes() == CONTENT
    assert publisher.asked == ["bytes=1000-", "all"]


@pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1], b""])
def test_a_file_of_another_size_is_refused_and_the_old_one_stays(publisher: Publisher, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tasks.bin").write_bytes(b"old")
    publisher.content = content
    assert "not the one that was published" in refused(publisher, tmp_path)
    assert (tmp_path / "tasks.bin").read_bytes() == b"old"


LIES = [
    ({"Content-Length": None}, CONTENT + b"x" * 10, "more bytes"),
    ({"Content-Length": str(LARGEST + 1)}, CONTENT, "not the one"),
    ({"Content-Length": "9" * 5_000}, CONTENT, "connection failed|not the published"),
    ({"Content-Length": "-1"}, CONTENT, "connection failed|not the published"),
    ({"Content-Encoding": "gzip"}, CONTENT, "encodes"),
    ({"Content-Range": "bytes 7-9/10"}, CONTENT, "another range"),
]


@pytest.mark.parametrize(("headers", "content", "says"), LIES, ids=range(len(LIES)))
def test_a_lying_server_puts_nothing_in_place(
    publisher: Publisher, tmp_path: Path, headers: dict[str, str | None], content: bytes, says: str
) -> None:
    publisher.headers, publisher.content = headers, content
    if "Content-Range" in headers:
        publisher.statuses = [206] * ATTEMPTS
    with pytest.raises(EvalError, match=says):
        raise EvalError(refused(publisher, tmp_path))
    assert "tasks.bin" not in left(tmp_path)


def test_endless_bytes_are_not_taken_where_no_size_is_known(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eval.download.LARGEST", 100_000)
    publisher.headers = {"Content-Length": None}
    assert "more bytes" in refused(publisher, tmp_path, sources=source(publisher, size=False))
    publisher.headers = {}
    assert "a file of 300,000 bytes, not the one" in refused(publisher, tmp_path, sources=source(publisher, size=False))


def test_a_git_blob_id_is_as_good_as_a_checksum(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(CONTENT)
    blob = subprocess.run(["git", "hash-object", "--no-filters", tmp_path / "blob"], capture_output=True, text=True, check=True)
    named = source(publisher, digest=f"git:{blob.stdout.strip()}", size=None)
    assert got(publisher, tmp_path / "good", sources=named).note == ""
    publisher.content = OTHER
    assert "is not the published" in refused(publisher, tmp_path / "bad", sources=named)


# Copies


def test_a_copy_is_checked_as_a_download_is(publisher: Publisher, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_bytes(CONTENT)
    assert got(publisher, tmp_path / "data", copy).path.read_bytes() == CONTENT
    copy.write_bytes(OTHER)
    text = refused(publisher, tmp_path / "data", copy)
    assert f"{copy} is not the published tasks.bin" in text
    assert "--accept-rebuilt" in text
    assert (tmp_path / "data" / "tasks.bin").read_bytes() == CONTENT
    assert left(tmp_path / "data") == ["tasks.bin"]
    assert publisher.asked == []


@pytest.mark.parametrize(("known", "what"), [(True, "made anew"), (False, "a file that this version does not know")])
def test_a_rebuilt_copy_passes_on_request_and_says_so(publisher: Publisher, tmp_path: Path, known: bool, what: str) -> None:
    copy, sha256 = tmp_path / "copy", hashlib.sha256(OTHER + b"x").hexdigest()
    copy.write_bytes(OTHER + b"x")
    sources = source(publisher, rebuilds={sha256: "made anew"} if known else {})
    assert ("(made anew)" in refused(publisher, tmp_path / "data", copy, sources=sources)) is known
    found = got(publisher, tmp_path / "data", copy, sources=sources, accept_rebuilt=True)
    assert found.path.read_bytes() == OTHER + b"x"
    assert found.note.startswith(f"not the published tasks.bin but {what} (sha256 {sha256})")
    copy.write_bytes(CONTENT)
    assert got(publisher, tmp_path / "data", copy, sources=sources, accept_rebuilt=True).note == ""


def test_a_download_is_never_taken_for_a_rebuilt_copy(publisher: Publisher, tmp_path: Path) -> None:
    publisher.content = OTHER
    assert "is not the published" in refused(publisher, tmp_path, accept_rebuilt=True)


def test_what_is_no_file_cannot_be_copied(publisher: Publisher, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "nothing", tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        text = refused(publisher, tmp_path / "data", place)
        assert f"{place} is no file" in text or f"{place}: no such file" in text


# The place


def test_two_at_once_do_not_disturb_each_other(publisher: Publisher, tmp_path: Path) -> None:
    said: list[str] = []

    def second(*_: object) -> None:
        if not said:
            said.append(refused(publisher, tmp_path))

    assert got(publisher, tmp_path, progress=second).path.read_bytes() == CONTENT
    assert "another process is fetching it" in said[0]


def test_nothing_is_written_through_a_link(publisher: Publisher, tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "data"
    outside.write_bytes(b"precious")
    folder.mkdir()
    (folder / "tasks.bin").symlink_to(outside)
    assert not got(publisher, folder).path.is_symlink()
    (folder / "tasks.bin").unlink()
    (folder / ".tasks.bin.part").symlink_to(outside)
    assert ".tasks.bin.part" in refused(publisher, folder)
    assert outside.read_bytes() == b"precious"


def test_an_unknown_name_and_an_unusable_folder_are_told(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="no data called 'swe-bench'; there are swe-bench-cl, humaneval, mbpp"):
        fetch("swe-bench", tmp_path)
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}" in refused(publisher, tmp_path / "file")


# What the programme names


def test_every_source_is_pinned() -> None:
    assert list(SOURCES) == ["swe-bench-cl", "humaneval", "mbpp"]
    for each in SOURCES.values():
        kind, _, digest = each.digest.partition(":")
        assert len(digest) == {"sha256": 64, "git": 40}[kind]
        assert set(digest) <= set("0123456789abcdef")
        assert each.url.startswith("https://")
        assert any(len(part) == 40 for part in each.url.split("/"))  # a commit, not a branch
        assert each.size or kind == "git"  # the id of a blob takes its length in


@pytest.mark.parametrize("name", SOURCES)
def test_the_laboratorys_copies_are_known(name: str, tmp_path: Path) -> None:
    copy = DATA / SOURCES[name].file
    if not copy.is_file():
        pytest.skip(f"needs {copy} (SLEEPYD_DATA names another folder); the project may not carry benchmark data")
    found = fetch(name, tmp_path, copy, accept_rebuilt=True)
    assert found.path.read_bytes() == copy.read_bytes()
    assert "does not know" not in found.note
    assert (found.note == "") is (name == "humaneval")  # the others are rebuilds


@pytest.mark.parametrize(
    ("name", "content"), [("swe-bench-cl", b'{"x": 1}'), ("swe-bench-cl", b"\xff"), ("humaneval", b"no gzip"), ("mbpp", b"[1,")]
)
def test_a_copy_that_is_nothing_of_the_kind_does_not_replace_a_good_file(tmp_path: Path, name: str, content: bytes) -> None:
    target = tmp_path / "data" / SOURCES[name].file
    target.parent.mkdir()
    target.write_bytes(b"what was there")
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(EvalError, match=f"no copy of {SOURCES[name].file} at all"):
        fetch(name, target.parent, tmp_path / "bad", accept_rebuilt=True)
    assert target.read_bytes() == b"what was there"
    assert [path.name for path in target.parent.iterdir() if path.suffix == ".part"] == []
