from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from sqlalchemy import func, select

from memory.errors import RecordError, StoreError
from memory.knowledge.forgetting import forget
from memory.knowledge.memories import Entry, Handbook, Kind, Memory
from memory.knowledge.shelf import Shelf, Use
from memory.knowledge.tables import DISTILLED, MEMORIES, SPANS, WORDS
from memory.knowledge.words import words
from memory.store import Store
from memory.trajectories import Outcome
from tests.memory.knowledge.making import attempt, day, memory, told

ROOT = Path(__file__).parents[3]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as store:
        yield store


@pytest.fixture
def shelf(store: Store) -> Shelf:
    return Shelf(store, "both")


def book(*facts: str, repo: str = "shop") -> Handbook:
    entries = tuple(Entry(fact=fact, kind=Kind.COMMAND, cites=("a",)) for fact in facts)
    return Handbook(repo=repo, entries=entries, written_at=day(0))


def found(shelf: Shelf, query: str, repo: str = "shop", before: float = 99) -> list[int]:
    return [each.number for each in shelf.match(repo, words(query), day(before), 10)]


def test_what_is_put_is_there_once_and_makes_one_version(shelf: Shelf) -> None:
    first, second = memory(1), memory(2)
    assert shelf.version().number == 0
    assert shelf.put(told(first, second)) == [1, 2]
    assert shelf.put(told(first, second)) == []
    assert shelf.get([1, 2, 3]) == {1: first, 2: second}
    assert shelf.version().number == 1
    assert shelf.history(1) == [(1, None, "")]


def test_an_attempt_that_taught_nothing_is_not_made_into_memories_again(shelf: Shelf) -> None:
    assert shelf.put({"attempt-1": []}) == []
    assert shelf.version().number == 0
    assert shelf.undistilled(["attempt-2", "attempt-1"]) == ["attempt-2"]
    assert shelf.put(told(memory(1))) == []


def test_each_version_has_its_own_name_whatever_led_to_it(store: Store) -> None:
    one, other = Shelf(store, "one"), Shelf(store, "other")
    for each in (one, other):
        each.put(told(memory(1)))
        each.put(told(memory(2)))
    names = [str(version) for each in (one, other) for version, _, _ in each.versions()]
    assert len(set(names)) == 4
    assert [name.split("-")[0] for name in names] == ["1", "2", "1", "2"]


def test_spaces_do_not_see_each_other(store: Store) -> None:
    one, other = Shelf(store, "one"), Shelf(store, "other")
    one.put(told(memory(1)))
    other.put(told(memory(1), memory(2)))
    one.change("written", books=[book("run make")])
    assert (one.active(), other.active()) == ({1: "shop"}, {2: "shop", 3: "shop"})
    assert (one.get([1, 2, 3]).keys(), found(one, "total order")) == ({1}, [1])
    assert sorted(found(other, "total order")) == [2, 3]
    assert other.handbook("shop") is None
    with pytest.raises(RecordError, match="no memory begins"):
        one.number_of(memory(2).id)
    other.change("tidied", close={2: "faded"})
    assert one.active() == {1: "shop"}


def test_what_was_closed_is_kept_and_no_longer_found(shelf: Shelf) -> None:
    shelf.put(told(memory(1), memory(2)))
    shelf.change("tidied", close={1: "faded"})
    assert (shelf.active(), found(shelf, "total order")) == ({2: "shop"}, [2])
    assert shelf.get([1], active=False) == {1: memory(1)}
    assert shelf.get([1]) == {}
    assert shelf.closed() == {1: (memory(1).id, "shop", "faded")}
    with pytest.raises(RecordError, match="not active"):
        shelf.change("tidied", close={2: "faded", 1: "faded"})
    assert shelf.active() == {2: "shop"}


def test_a_version_can_be_restored_and_that_undone(shelf: Shelf) -> None:
    shelf.put(told(memory(1), memory(2)))
    shelf.change("night", close={1: "merged into x"}, books=[book("run make")])
    shelf.put(told(memory(3)))
    shelf.change("night", books=[book("run tox")])
    shelf.restore(1, "rolled back")
    assert (shelf.active(), shelf.handbook("shop")) == ({1: "shop", 2: "shop"}, None)
    shelf.restore(4, "rolled forward")
    assert (shelf.active(), shelf.handbook("shop")) == ({2: "shop", 3: "shop"}, book("run tox"))
    assert shelf.closed()[1][2] == "merged into x"
    assert [kept.entries[0].fact for _, kept in shelf.handbooks("shop")] == ["run make", "run tox", "run tox"]
    assert shelf.restore(0, "emptied").number == 7
    assert shelf.active() == {}
    with pytest.raises(RecordError, match="the newest is 7"):
        shelf.restore(8, "no such version")


def test_what_was_learnt_since_a_roll_back_survives_its_undoing_but_no_going_back(shelf: Shelf) -> None:
    shelf.put(told(memory(1)))
    shelf.put(told(memory(2)))
    shelf.restore(1, "rolled back")
    shelf.put(told(memory(3)))  # version 4
    shelf.restore(2, "rolled forward")
    assert shelf.active().keys() == {1, 2, 3}
    shelf.put(told(memory(4)))
    shelf.restore(4, "rolled back")
    assert shelf.active().keys() == {1, 3}
    shelf.put(told(memory(5)))
    shelf.restore(6, "rolled forward")
    assert shelf.active().keys() == {1, 2, 3, 4, 5}


def test_a_roll_back_that_changed_nothing_can_be_undone_too(shelf: Shelf) -> None:
    shelf.put(told(memory(1)))
    shelf.restore(1, "rolled back")
    shelf.put(told(memory(2)))
    shelf.restore(1, "rolled forward")
    assert shelf.active().keys() == {1, 2}


class Versions(RuleBasedStateMachine):
    """The shelf beside a plain list of states: what was active, and which handbook held, in every version."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = Store(Path(self.folder.name) / "store.db")
        self.shelf = Shelf(self.store, "both")
        self.states: list[tuple[frozenset[int], str]] = [(frozenset(), "")]
        self.order = [0]  # versions as they follow each other
        self.restored = (0, -1)  # the last restoring, and of which version
        self.learnt: dict[int, int] = {}
        self.made = 0

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def expect(self, active: frozenset[int], fact: str, after: int | None = None) -> None:
        if (active, fact) != self.states[-1] or after is not None:
            before = len(self.states) - 1 if after is None else after
            self.order.insert(self.order.index(before) + 1, len(self.states))
            self.states.append((active, fact))
        assert self.shelf.version().number == len(self.states) - 1
        assert self.shelf.active().keys() == active
        present = self.shelf.handbook("shop")
        assert (present.entries[0].fact if present else "") == fact
        assert set(found(self.shelf, "total order")) <= active

    @rule(count=st.integers(1, 3))
    def put(self, count: int) -> None:
        new = [memory(self.made + n + 1) for n in range(count)]
        numbers = self.shelf.put(told(*new))
        self.made += count
        self.learnt |= dict.fromkeys(numbers, len(self.states))
        self.expect(self.states[-1][0] | set(numbers), self.states[-1][1])

    @precondition(lambda self: self.made)
    @rule(data=st.data(), fact=st.sampled_from(["", "make", "tox"]))
    def tidy(self, data: st.DataObject, fact: str) -> None:
        active, old = self.states[-1]
        touched = data.draw(st.sets(st.integers(1, self.made), max_size=3))
        close, reopen = dict.fromkeys(touched & active, "faded"), touched - active
        books = [book(fact)] if fact and fact != old else []
        self.shelf.change("tidied", close=close, reopen=reopen, books=books)
        self.expect((active - close.keys()) | reopen, fact or old)

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        newest = len(self.states) - 1
        number = data.draw(st.integers(0, newest))
        active, fact = self.states[number]
        undoes_nothing = self.restored == (number + 1, number)
        if undoes_nothing or self.order.index(number) > self.order.index(newest):
            active |= {each for each in self.states[-1][0] if self.learnt[each] > number}
        self.shelf.restore(number, "restored")
        self.restored = (newest + 1, number)
        self.expect(active, fact, after=number)


Versions.TestCase.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestVersions = Versions.TestCase


def test_rare_words_are_found_first_and_only_what_was_known_by_then_and_here(shelf: Shelf) -> None:
    shelf.put(
        told(
            memory(1, symptom="KeyError in total_fee", change="x"),
            memory(2, symptom="order is wrong", change="x"),
            memory(3, symptom="order gives KeyError", change="x"),
            memory(4, symptom="KeyError in total_fee", repo="game", change="x"),
            memory(5, symptom="", kind=Kind.COMMAND, fact="KeyError total_fee", where=(), change=""),
            *(memory(n, symptom="an order", where=(), change="x") for n in range(6, 30)),
        )
    )
    assert found(shelf, "an order gives KeyError in total_fee")[:2] == [3, 1]
    assert sorted(found(shelf, "KeyError")) == [1, 3]
    assert found(shelf, "KeyError", before=2.9) == [1]
    assert found(shelf, "KeyError", before=1) == [1]
    assert found(shelf, "KeyError", before=0.9) == []
    assert found(shelf, "KeyError", repo="game") == [4]
    assert found(shelf, "nowhere") == found(shelf, "") == found(shelf, "KeyError", repo="sh") == []


def test_words_that_came_since_the_last_count_are_found(shelf: Shelf) -> None:
    shelf.put(told(*(memory(n) for n in range(100))))
    assert found(shelf, "zebra größe") == []
    [number] = shelf.put(told(memory(50.5, symptom="zebra größe")))
    assert found(shelf, "zebra") == found(shelf, "GRÖSSE größe") == [number]
    [last] = shelf.put(told(memory(50.6, symptom="yak")))
    assert (found(shelf, "yak"), found(shelf, "zebra")) == ([last], [number])
    assert shelf.rarest(["order", "yak", "zebra"]) == ["yak", "zebra", "order"]


def test_only_so_many_common_words_are_looked_up(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put(told(*(memory(n, symptom=f"usual word{n}", change="x") for n in range(8))))
    assert shelf.rarest(["usual", "word3", "order", "word3", "word4"]) == ["word3", "word4", "usual"]
    assert shelf.rarest(["usual", "word3"], 1) == ["word3"]
    assert len(found(shelf, "usual word3")) == 8
    monkeypatch.setattr("memory.knowledge.literal.POSTINGS", 8)
    Shelf(shelf.store, "other").put(told(memory(3, symptom="word3")))
    assert (found(shelf, "usual word3"), len(found(shelf, "usual"))) == ([4], 8)
    shelf.put(told(memory(9, symptom="usual", change="x")))
    assert len(found(shelf, "usual")) == 9
    monkeypatch.setattr("memory.knowledge.literal.POSTINGS", -1)
    shelf.put(told(memory(10, symptom="word3", repo="game")))
    assert (found(shelf, "word3"), found(shelf, "word3", repo="game"), found(shelf, "word3", repo="sh")) == ([4], [11], [])


def test_unknown_words_weigh_as_the_rarest_and_are_not_looked_up(shelf: Shelf) -> None:
    shelf.put(told(*(memory(n, symptom=f"usual word{n}", change="x") for n in range(8))))
    weights = shelf.rarities(["usual", "unheard", "word3"])
    assert list(weights) == ["unheard", "word3", "usual"]
    assert weights["unheard"] == weights["word3"] > 2 * weights["usual"] > 0
    assert shelf.rarest(["usual", "unheard"]) == ["usual"]
    assert list(shelf.rarities([*map(str, range(100)), "usual"])) == sorted(map(str, range(100)))[:14]


def test_what_other_spaces_hold_changes_neither_weights_nor_order(store: Store, shelf: Shelf) -> None:
    shelf.put(told(*(memory(n, symptom=f"owl {'yak ' * n}", change="x") for n in range(1, 6)), memory(9, symptom="emu")))
    asked = ["owl", "yak", "emu", "gnu"]
    before = shelf.match("shop", asked, day(99), 9), shelf.rarities(asked)
    assert [each.number for each in before[0] if each.number != 6] == [5, 4, 3, 2, 1]
    Shelf(store, "other").put(told(*(memory(n, symptom=f"emu gnu {n} " + "long " * n, change="x") for n in range(40))))
    for each in (shelf, Shelf(store, "both")):
        assert (each.match("shop", asked, day(99), 9), each.rarities(asked)) == before


def test_what_was_forgotten_no_longer_counts(store: Store, shelf: Shelf) -> None:
    shelf.put(told(memory(1, symptom="owl"), memory(2, symptom="owl emu"), memory(3, symptom="yak")))
    assert shelf.rarest(["owl", "emu"]) == ["emu", "owl"]
    forget(store, "attempt-2")
    assert (shelf.rarest(["owl", "emu"]), shelf.rarities(["owl"])) == (["owl"], Shelf(store, "both").rarities(["owl"]))


HOSTILE = ['"', "'", "*", "a*", "NEAR", "AND", "OR", "near", "near(a b)", "place : x", "words:", "^a", "(", "ünï", "🦉", "\x00"]


@given(st.lists(st.one_of(st.sampled_from(HOSTILE), st.text(max_size=8)), max_size=8), st.text(max_size=8))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_word_breaks_the_search(shelf: Shelf, query: list[str], repo: str) -> None:
    shelf.put(told(memory(1, symptom="near and or not place words " + " ".join(HOSTILE))))
    for asked in (query, words(" ".join(query))):
        assert {each.number for each in shelf.match("shop", [*asked, "place"], day(9), 9)} == {1}
        assert shelf.match(repo, [*asked, "place"], day(9), 9) == []


def test_uses_count_only_attempts_that_the_agent_ended(store: Store, shelf: Shelf) -> None:
    shelf.put(told(memory(1), memory(2)))
    ends = [Outcome.RESOLVED, Outcome.UNRESOLVED, Outcome.INFRASTRUCTURE_FAILURE, None]
    for number, outcome in enumerate(ends):
        each = attempt(f"t{number}", outcome)
        store.began(each)
        if outcome:
            store.ended(each)
        shelf.used(each.id, [memory(1).id, "unknown"])
        shelf.used(each.id, [memory(1).id])
    assert shelf.uses() == shelf.uses([1]) == {1: Use(recalled=4, ended=2, resolved=1)}
    assert shelf.uses([2]) == {}


def test_words_can_be_written_anew(shelf: Shelf) -> None:
    shelf.put(told(memory(1), memory(2)))
    with shelf.store.writing() as connection:
        connection.execute(WORDS.delete())
    assert found(shelf, "total order") == []
    assert shelf.reindex_words() == 2
    assert sorted(found(shelf, "total order")) == [1, 2]


@pytest.mark.parametrize(
    "damage", ["DELETE FROM memory_words_data", "UPDATE memory_words_data SET block = x'00'", "DELETE FROM memory_words_config"]
)
def test_words_whose_table_is_damaged_are_made_anew_for_every_space(store: Store, shelf: Shelf, damage: str) -> None:
    other = Shelf(store, "other")
    for each in (shelf, other):
        each.put(told(memory(1), memory(2)))
    with store.writing() as connection:
        connection.exec_driver_sql(damage)
    store.close()
    with Store(store.path) as again:
        assert Shelf(again, "both").reindex_words() == 4
        assert sorted(found(Shelf(again, "both"), "total order")) == [1, 2]
        assert sorted(found(Shelf(again, "other"), "total order")) == [3, 4]
        Shelf(again, "both").put(told(memory(3)))
        assert again.check() == ""


def test_active_memories_are_counted_by_kind_and_by_being_verified(store: Store, shelf: Shelf) -> None:
    shelf.put(told(memory(1), memory(2), memory(3, verified=False), memory(4, kind=Kind.COMMAND, fact="make")))
    Shelf(store, "other").put(told(memory(1)))
    shelf.change("tidied", close={2: "faded"})
    assert (shelf.kinds(), shelf.verified()) == ({"case": 2, "command": 1}, 2)
    assert (Shelf(store, "new").kinds(), Shelf(store, "new").verified()) == ({}, 0)


def test_what_was_only_cited_is_no_use(store: Store, shelf: Shelf) -> None:
    shelf.put(told(memory(1), memory(2)))
    shelf.used("t", [memory(1).id], cited=[memory(1).id, memory(2).id])
    assert shelf.uses() == {1: Use(recalled=1)}


def test_threads_that_search_while_others_put_see_whole_counts(shelf: Shelf) -> None:
    failed: list[Exception] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                shelf.match("shop", words("total order 7 word3 word20"), day(99), 5)
                assert all(weight > 0 for weight in shelf.rarities(["order", "word3"]).values())
        except (KeyError, RuntimeError, StoreError, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(40):
        shelf.put(told(memory(number, symptom=f"order word{number}")))
    forget(shelf.store, "attempt-3")
    done.set()
    for thread in threads:
        thread.join()
    assert failed == []


def test_threads_that_put_and_search_at_once_lose_nothing(shelf: Shelf) -> None:
    failed: list[Exception] = []

    def put(first: int) -> None:
        try:
            for number in range(first, first + 20):
                shelf.put(told(memory(number), memory(number)))
                assert found(shelf, f"order {number}")
        except (StoreError, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=put, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (len(shelf.active()), shelf.version().number) == (40, 40)


def test_another_process_reads_whole_versions_meanwhile(shelf: Shelf, store: Store) -> None:
    shelf.put(told(memory(0), memory(0, symptom="second")))
    code = """
import sys; from pathlib import Path; from memory.store import Store; from memory.knowledge.shelf import Shelf
shelf = Shelf(Store(Path(sys.argv[1]), read_only=True), "both"); print("ready", flush=True)
while len(seen := shelf.active()) < 100: assert len(seen) % 2 == 0
"""
    reader = subprocess.Popen([sys.executable, "-c", code, str(store.path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        for number in range(1, 50):
            shelf.put(told(memory(number), memory(number, symptom="second")))
        assert reader.wait(20) == 0


@pytest.mark.parametrize("after", [0.02, 0.11, 0.23])
def test_after_a_kill_each_attempt_has_all_of_its_memories_or_none(tmp_path: Path, after: float) -> None:
    code = """
import sys; from pathlib import Path; from memory.store import Store; from memory.knowledge.shelf import Shelf
from tests.memory.knowledge.making import memory, told
shelf = Shelf(Store(Path(sys.argv[1])), "both"); print("ready", flush=True)
for number in range(10**6): shelf.put(told(*(memory(number, symptom=f"word{part}") for part in range(7))))
"""
    path = tmp_path / "store.db"
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        while not path.with_name("store.db-wal").stat().st_size:
            time.sleep(0.01)
        time.sleep(after)
        child.send_signal(signal.SIGKILL)
    with Store(path) as store:
        assert store.check() == ""
        shelf = Shelf(store, "both")
        with store.reading() as connection:
            of = select(MEMORIES.c.trajectory_id, func.count()).group_by(MEMORIES.c.trajectory_id)
            kept = {row[0]: row[1] for row in connection.execute(of)}
            done = set(connection.execute(select(DISTILLED.c.trajectory_id)).scalars())
            numbers = set(connection.execute(select(MEMORIES.c.number)).scalars())
            assert set(connection.execute(select(WORDS.c.rowid)).scalars()) == numbers
            assert set(connection.execute(select(SPANS.c.memory)).scalars()) == numbers
        assert (kept.keys(), set(kept.values()) - {7}) == (done, set())
        assert shelf.version().number == len(done)
        assert shelf.put(told(memory(0), memory(0.5))) != []


def test_an_id_may_be_shortened_while_it_is_clear(shelf: Shelf) -> None:
    shelf.put(told(*(memory(n) for n in range(40))))
    whole = memory(7).id
    assert shelf.get([shelf.number_of(whole[:12])]) == {8: memory(7)}
    for vague in ("", "%", "_"):
        with pytest.raises(RecordError):
            shelf.number_of(vague)
    assert shelf.by_id([whole, "unknown"]) == {whole: memory(7)}
    assert isinstance(shelf.get([8])[8], Memory)
