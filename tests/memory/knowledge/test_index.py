from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import memory as room
from memory.errors import KnowledgeError
from memory.knowledge.embedders import HashingEmbedder
from memory.knowledge.index import ChromaIndex, Synced
from memory.knowledge.memories import Memory
from tests.memory.knowledge.making import day, memory

ROOT = Path(room.__file__).parent.parent
MANY = 1300
"""Enough for Chroma to write its HNSW files, which it does every thousand vectors."""


class OtherEmbedder(HashingEmbedder):
    name = "other-1-16"
    dimensions = 16

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.eye(16, dtype=np.float32)[[len(text) % 16 for text in texts]]


def opened(folder: Path, space: str = "arm", url: str = "", owner: str = "") -> ChromaIndex:
    return ChromaIndex(space, HashingEmbedder(), folder, url, owner=owner)


def some(count: int, start: int = 1, **changes: object) -> dict[int, Memory]:
    return {n: memory(n, symptom=f"order x{n} fails", **changes) for n in range(start, start + count)}


def synced(index: ChromaIndex, held: Mapping[int, Memory]) -> Synced:
    return index.sync({n: m.repo for n, m in held.items()}, lambda numbers: {n: held[n] for n in numbers})


def found(
    index: ChromaIndex, text: str = "total_fee of an order", repo: str = "shop", at: float = 9999, most: int = 5
) -> list[int]:
    return [near.number for near in index.query(text, repo, day(at), most)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state ?#%ü" / "chroma"


@pytest.fixture
def index(folder: Path) -> Iterator[ChromaIndex]:
    with closing(opened(folder)) as index:
        yield index


def filled(folder: Path, count: int = MANY) -> dict[int, Memory]:
    held = some(count)
    with closing(opened(folder)) as index:
        synced(index, held)
    return held


# Holding and finding.


def test_sync_leaves_just_what_is_wanted(index: ChromaIndex) -> None:
    held = some(30) | some(5, 31, repo="bank")
    seen: list[tuple[int, int]] = []
    wanted = {n: m.repo for n, m in held.items()}
    done = index.sync(wanted, lambda ns: {n: held[n] for n in ns}, lambda now, total: seen.append((now, total)))
    assert (done, seen[-1]) == (Synced(35, 0, False), (35, 35))
    assert synced(index, {n: m for n, m in held.items() if 10 < n <= 30}) == Synced(0, 15, False)
    assert (index.count(), found(index, repo="bank")) == (20, [])
    assert sorted(found(index, most=40)) == list(range(11, 31))


def test_sync_loads_nothing_that_it_holds(index: ChromaIndex, folder: Path) -> None:
    held = some(3)
    synced(index, held)
    index.close()
    with closing(opened(folder)) as again:
        assert again.sync(dict.fromkeys(held, "shop"), lambda numbers: pytest.fail(f"loads {numbers}")) == Synced(0, 0, False)
        assert again.sync(dict.fromkeys([*held, 4], "shop"), lambda numbers: {}) == Synced(0, 0, False), "4 is gone by now"


def test_a_failing_load_leaves_a_sound_index(index: ChromaIndex, folder: Path) -> None:
    synced(index, some(2))
    with pytest.raises(ZeroDivisionError):
        index.sync(dict.fromkeys(range(9), "shop"), lambda numbers: {1: memory(1 // 0)})
    index.close()
    with closing(opened(folder)) as again:
        assert synced(again, some(2)) == Synced(0, 0, False)


def test_what_is_nearest_comes_first_with_its_cosine(index: ChromaIndex) -> None:
    held = {1: memory(symptom="the paginator counts twice"), 2: memory(symptom="rounding of fees"), 3: memory(repo="bank")}
    index.add(held)
    near = index.query(held[2].text, "shop", day(0), 5)
    assert [one.number for one in near] == [2, 1]
    assert near[0].similarity == pytest.approx(1, abs=1e-5)
    vectors = HashingEmbedder().embed([held[1].text, held[2].text])
    assert near[1].similarity == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-5)


@pytest.mark.parametrize("later", [3, 30, 400])
def test_the_earlier_ones_are_all_found_however_many_later_ones_are_nearer(index: ChromaIndex, later: int) -> None:
    early = {n: memory(n, symptom="about something else", where=()) for n in (1, 2, 3)}
    synced(index, early | {n: memory(50, symptom="total_fee of an order") for n in range(4, 4 + later)})
    assert sorted(found(index, at=3, most=3)) == [1, 2, 3]
    assert found(index, at=2, most=3) == found(index, at=2.5, most=2)
    assert found(index, at=0.5) == []


@pytest.mark.parametrize(("wide", "exact"), [(0, MANY), (0, 0), (10**6, 0)], ids=["looked at each", "hnsw", "hnsw, wide"])
def test_however_it_is_searched_it_finds_the_nearest_early_ones(
    wide: int, exact: int, made: tuple[Path, dict[int, Memory]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"index.LEAST": 0, "index.WIDE": wide, "index.EXACT": exact, "held.PAGE": 400, "held.KEPT": 700}.items():
        monkeypatch.setattr(f"memory.knowledge.{name}", value)
    shutil.copytree(made[0], folder)
    every = made[1]
    rows = HashingEmbedder().embed([m.text for m in every.values()])
    missed: list[float] = []
    with closing(opened(folder)) as index:
        for latest in (0.5, 3, 77, 600, MANY):
            for asked in (5, 333, 1234):
                scores = rows @ rows[asked - 1]
                early = sorted((n for n in every if n <= latest), key=lambda n: (-round(float(scores[n - 1]), 5), n))[:4]
                near = index.query(every[asked].text, "shop", day(latest), 4)
                wanted = [float(scores[n - 1]) for n in early]
                assert len(near) == len(wanted)
                missed += [w - one.similarity for one, w in zip(near, wanted, strict=True) if abs(w - one.similarity) > 1e-5]
                assert all(one.number <= latest for one in near)
    # A graph that several threads build is another one each time, and may pass by a neighbour for one that is nearly as near.
    assert len(missed) <= (0 if exact else 4)
    assert all(0 < difference < 0.01 for difference in missed)


def test_asking_for_nothing_and_of_nowhere_finds_nothing(index: ChromaIndex) -> None:
    assert found(index) == []
    index.add(some(1))
    assert (found(index, most=0), found(index, repo="bank"), found(index, "")) == ([], [], [1])


def test_a_number_that_stands_for_another_memory_now_is_found_by_what_it_says_now(index: ChromaIndex) -> None:
    index.add({1: memory(symptom="the paginator counts twice")})
    assert found(index, at=0) == [1]
    index.add({1: memory(symptom="rounding of fees")})
    assert index.query(memory(symptom="rounding of fees").text, "shop", day(0), 1)[0].similarity == pytest.approx(1, abs=1e-5)
    index.add({1: memory(3)})
    assert (found(index, at=2), found(index, at=3)) == ([], [1])


def test_removing_reaches_every_repository_and_what_is_not_there_does_not_matter(index: ChromaIndex) -> None:
    index.add({1: memory(1), 2: memory(2, repo="bank"), 3: memory(3)})
    index.remove([1, 2, 77])
    index.remove([])
    assert (index.count(), found(index), found(index, repo="bank")) == (1, [3], [])


def test_no_text_is_in_the_folder(index: ChromaIndex, folder: Path) -> None:
    index.add({1: memory(symptom="xyzzyplugh")})
    index.close()
    assert not [path for path in folder.rglob("*") if path.is_file() and b"xyzzyplugh" in path.read_bytes()]


def test_spaces_in_one_folder_do_not_see_each_other(folder: Path) -> None:
    with closing(opened(folder)) as one, closing(opened(folder, "other arm")) as other:
        one.add(some(2))
        other.add(some(3, 10))
        assert (sorted(found(one)), sorted(found(other))) == ([1, 2], [10, 11, 12])
        assert synced(one, some(1)) == Synced(0, 1, False)
        one.drop()
        assert (one.count(), found(one), other.count(), sorted(found(other))) == (0, [], 3, [10, 11, 12])
        one.add(some(1))
        assert found(one) == [1]


small = st.integers(1, 12)


@settings(max_examples=15, deadline=None, phases=set(Phase) - {Phase.shrink})
@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "sync", "reopen"]), st.sets(small), st.floats(0, 13)), max_size=8))
def test_it_holds_just_what_it_was_told_and_tells_nothing_later(steps: list[tuple[str, set[int], float]]) -> None:
    every = {n: memory(n, repo="shop" if n % 2 else "bank") for n in range(1, 13)}
    with TemporaryDirectory() as place:
        index, held = opened(Path(place) / "chroma"), set[int]()
        for what, numbers, at in steps:
            if what == "add":
                index.add({n: every[n] for n in numbers})
                held |= numbers
            elif what == "remove":
                index.remove(numbers)
                held -= numbers
            elif what == "sync":
                expected = Synced(len(numbers - held), len(held - numbers), False)
                assert synced(index, {n: every[n] for n in numbers}) == expected
                held = set(numbers)
            else:
                index.close()
                index = opened(Path(place) / "chroma")
            assert index.count() == len(held)
            for repo in ("shop", "bank"):
                assert set(found(index, repo=repo, at=at, most=12)) == {n for n in held if n <= at and every[n].repo == repo}
        index.close()


# Another embedder, damage, and death.


def test_what_another_embedder_made_is_never_mixed_in(index: ChromaIndex, folder: Path) -> None:
    synced(index, some(4))
    index.close()
    with closing(ChromaIndex("arm", OtherEmbedder(), folder)) as other:
        with pytest.raises(KnowledgeError, match=r"hashing-1-384.*memory rebuild"):
            found(other)
        with pytest.raises(KnowledgeError, match="memory rebuild"):
            other.add(some(1))
        assert synced(other, some(3)) == Synced(3, 1, True)
        assert (synced(other, some(3)), other.count()) == (Synced(0, 0, False), 3)


def garbage(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Memory]]:
    folder = tmp_path_factory.mktemp("made") / "chroma"
    return folder, filled(folder)


FILES = [
    "chroma.sqlite3",
    "data_level0.bin",
    "header.bin",
    "link_lists.bin",
    "length.bin",
    "index_metadata.pickle",
    "seal.json",
]


@pytest.mark.parametrize("damage", [garbage, half, zeros, Path.unlink])
def test_a_damaged_folder_is_moved_aside_and_made_anew(
    damage: Callable[[Path], None], made: tuple[Path, dict[int, Memory]], folder: Path
) -> None:
    held = dict(list(made[1].items())[:20])
    for name in FILES:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made[0], folder)  # keeps the times of the files
        (path,) = folder.rglob(name)
        damage(path)
        with closing(opened(folder)) as index:
            assert (synced(index, held), len(found(index))) == (Synced(20, 0, True), 5), name
        assert (folder.parent / "chroma.damaged").is_dir()
        with closing(opened(folder)) as index:
            assert synced(index, held) == Synced(0, 0, False), name


def test_a_folder_that_is_whole_is_left_as_it_is(made: tuple[Path, dict[int, Memory]], folder: Path) -> None:
    shutil.copytree(made[0], folder)
    for _ in range(3):
        with closing(opened(folder)) as index:
            assert synced(index, made[1]) == Synced(0, 0, False)
            assert found(index, made[1][7].text, most=1) == [7]
    assert not (folder.parent / "chroma.damaged").exists()


def test_reading_breaks_no_seal(folder: Path) -> None:
    held = filled(folder, 3)
    for _ in range(4):
        with closing(opened(folder)) as index:
            assert (index.count(), len(found(index)), synced(index, held)) == (3, 3, Synced(0, 0, False))


def test_a_folder_that_is_gone_is_filled_again(folder: Path) -> None:
    held = filled(folder, 3)
    shutil.rmtree(folder)
    with closing(opened(folder)) as index:
        assert (synced(index, held), len(found(index))) == (Synced(3, 0, False), 3)


def test_what_dropped_collections_leave_behind_is_removed(folder: Path) -> None:
    filled(folder)
    with closing(opened(folder)) as index:
        index.drop()
    with closing(opened(folder)) as index:
        assert (index.count(), [path.name for path in folder.iterdir() if path.is_dir()]) == (0, [])


@pytest.mark.parametrize("repair", ["sync", "drop", "reopen"])
def test_damage_while_it_is_open_is_told_and_repaired(repair: str, index: ChromaIndex, folder: Path) -> None:
    held = some(5)
    synced(index, held)
    (folder / "chroma.sqlite3").write_bytes(b"garbage" * 5000)
    with pytest.raises(KnowledgeError, match=r"`sleepyctl memory rebuild`"):
        index.count()
    if repair == "reopen":
        index.close()
        index = opened(folder)
    elif repair == "drop":
        index.drop()
    assert (synced(index, held), len(found(index))) == (Synced(5, 0, True), 5)
    index.close()


WORK = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
from memory.knowledge.embedders import HashingEmbedder
from memory.knowledge.index import ChromaIndex
from tests.memory.knowledge.making import memory
held = {n: memory(n, symptom=f"order x{n} fails") for n in range(1, 3001)}
index = ChromaIndex("arm", HashingEmbedder(), Path(sys.argv[2]))
print("ready", flush=True)
load = lambda numbers: {n: held[n] for n in numbers}
index.sync(dict.fromkeys(held, "shop"), load, lambda done, total: print(done, flush=True))
print("done", flush=True)
sys.stdin.read()
"""


def killed(folder: Path, after: str, delay: float) -> None:
    """Index 3,000 memories in a process that is killed so long after it said so."""
    command = [sys.executable, "-c", WORK, str(ROOT), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.strip() == after:
                break
        else:
            pytest.fail(f"it ended before it said {after}")
        time.sleep(delay)
        child.kill()


@pytest.mark.parametrize("after", ["ready", "1000", "2000"])
def test_a_kill_in_the_midst_of_indexing_leaves_nothing_wrong(after: str, folder: Path) -> None:
    killed(folder, after, random.Random(after).uniform(0, 0.3))
    held = some(50)
    with closing(opened(folder)) as index:
        synced(index, held)
        assert index.count() == 50
        assert [found(index, m.text, most=1) for m in held.values()] == [[n] for n in held]


def test_a_kill_while_nothing_is_written_costs_nothing(folder: Path) -> None:
    killed(folder, "done", 0)
    with closing(opened(folder)) as index:
        assert synced(index, some(3000)) == Synced(0, 0, False)


# Forgetting.


def traces(place: Path, text: str) -> list[str]:
    """Files that hold the vector of a text, below the place."""
    vector = HashingEmbedder().embed([text])[0].tobytes()
    return [path.name for path in place.rglob("*") if path.is_file() and vector in path.read_bytes()]


@pytest.mark.parametrize("count", [3, MANY])
def test_scrubbing_leaves_no_byte_of_what_was_removed(count: int, index: ChromaIndex, folder: Path) -> None:
    held = some(count)
    secret = held[2].text
    synced(index, held)
    index.close()
    shutil.copytree(folder, folder.parent / "chroma.damaged")
    with closing(opened(folder)) as again:
        del held[2]
        synced(again, held)
        assert len(traces(folder.parent, secret)) >= 2, "else there is nothing to scrub"
        again.scrub()
        assert (traces(folder.parent, secret), [path.name for path in folder.parent.iterdir()]) == ([], ["chroma"])
        with pytest.raises(KnowledgeError, match="not filled"):
            found(again)
        assert synced(again, held) == Synced(count - 1, 0, True)
        assert (traces(folder.parent, secret), len(found(again, at=9, most=2))) == ([], 2)
    with closing(opened(folder)) as whole:
        assert synced(whole, held) == Synced(0, 0, False)


def test_no_memory_that_chroma_did_not_clear_is_left_in_its_files(index: ChromaIndex, folder: Path) -> None:
    index.add(some(3))
    assert len(found(index)) == 3
    begun = [path for path in folder.glob("*/*") if path.name in ("data_level0.bin", "length.bin")]
    assert begun
    assert not any(any(path.read_bytes()) for path in begun)
    index.close()
    assert not any(any(path.read_bytes()) for path in begun)


def test_a_folder_that_another_space_uses_is_not_scrubbed_under_it_and_other_spaces_fill_it_again(folder: Path) -> None:
    with closing(opened(folder)) as one:
        with closing(opened(folder, "other arm")) as other:
            other.add(some(3))
            with pytest.raises(KnowledgeError, match="close that first"):
                one.scrub()
            assert len(found(other)) == 3
        one.scrub()
        with pytest.raises(KnowledgeError, match="closed"):
            other.scrub()
        with closing(opened(folder, "other arm")) as other:
            assert (synced(other, some(3)).added, len(found(other))) == (3, 3)


def test_a_scrub_that_was_killed_is_completed_at_the_next_start(folder: Path) -> None:
    secret = filled(folder, 3)[2].text
    folder.rename(folder.parent / "chroma.erased")
    assert traces(folder.parent, secret)
    with closing(opened(folder)) as index:
        assert (synced(index, some(1)), traces(folder.parent, secret)) == (Synced(1, 0, False), [])


def test_a_closed_index_and_a_place_that_cannot_be_used_say_so(index: ChromaIndex, tmp_path: Path) -> None:
    index.close()
    index.close()
    with pytest.raises(KnowledgeError, match="closed"):
        found(index)
    (tmp_path / "file").touch()
    with pytest.raises(KnowledgeError, match="permissions"):
        opened(tmp_path / "file" / "chroma")


# A server.


@contextmanager
def serving(place: Path, port: int) -> Iterator[str]:
    chroma = Path(sysconfig.get_path("scripts")) / "chroma"
    where = ["--path", str(place), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([chroma, "run", *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with suppress(httpx.TransportError):
                httpx.get(f"{url}/api/v2/heartbeat").raise_for_status()
                break
            time.sleep(0.1)
        try:
            yield url
        finally:
            process.kill()


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server"), free_port()) as url:
        yield url


def test_a_server_does_what_the_folder_does(server: str, folder: Path) -> None:
    with closing(opened(folder, url=server)) as index, closing(opened(folder, "other arm", server)) as other:
        other.add(some(1))
        assert synced(index, some(30)) == Synced(30, 0, False)
        index.remove([1])
        assert (index.count(), sorted(found(index, at=5))) == (29, [2, 3, 4, 5])
        index.drop()
        assert (index.count(), other.count()) == (0, 1)
    with closing(ChromaIndex("other arm", OtherEmbedder(), folder, server)) as changed:
        assert synced(changed, some(1)) == Synced(1, 0, True)
    assert not folder.exists()


def test_owners_of_one_server_leave_each_other_alone(server: str, folder: Path) -> None:
    with closing(opened(folder, url=server, owner="a")) as one, closing(opened(folder, url=server, owner="b")) as other:
        assert synced(one, some(3)) == synced(other, some(3)) == Synced(3, 0, False)
        synced(one, some(1))
        assert (found(one), sorted(found(other)), synced(other, some(3))) == ([1], [1, 2, 3], Synced(0, 0, False))
        one.remove([1])
        one.drop()
        one.scrub()
        assert (one.count(), other.count(), len(found(other))) == (0, 3, 3)
        assert (synced(one, some(2)), len(found(one))) == (Synced(2, 0, True), 2)


def test_a_server_that_lost_everything_while_it_was_used_says_so_and_is_filled_again(folder: Path, tmp_path: Path) -> None:
    held, place, port = some(3), tmp_path / "data", free_port()
    with serving(place, port) as url:
        index = opened(folder, url=url)
        synced(index, held)
        assert len(found(index)) == 3
        synced(index, held)
    with closing(index):
        with pytest.raises(KnowledgeError, match="start it"):
            index.count()
        for repair in ("sync", "drop"):
            shutil.rmtree(place)
            with serving(place, port):
                with pytest.raises(KnowledgeError):
                    index.add(some(1, 9))
                with pytest.raises(KnowledgeError):
                    found(index)
                if repair == "drop":
                    index.drop()
                    index.add(some(1))
                    index.drop()
                assert synced(index, held) == Synced(3, 0, False), repair
                assert (len(found(index)), index.count()) == (3, 3), repair
                synced(index, held)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://", "127.0.0.1:8000", "http://x:port", "ftp://127.0.0.1"])
def test_a_server_that_is_away_or_no_server_is_named(url: str, folder: Path) -> None:
    with pytest.raises(KnowledgeError) as error:
        opened(folder, url=url)
    assert url in str(error.value)
