from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.consolidation import CONTRADICTED, FADED, Tidied, _yielded, consolidate
from memory.knowledge.forgetting import forget
from memory.knowledge.handbook import holds, write
from memory.knowledge.memories import MERGED, Entry, Kind, Memory
from memory.knowledge.shelf import Shelf
from memory.store import Store
from memory.trajectories import Outcome
from tests.memory.knowledge.making import attempt, day, fact, memory, similar, told, warning

CONFIG = KnowledgeConfig(fade_after=3)
ISSUE = "the total of an order with express delivery is too high by one fee and the invoice shows it twice"
NEARLY = ISSUE + " again"
ELSEWHERE = ("shop/tax.py:rate",)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with Store(tmp_path / "store.db") as store:
        yield Shelf(store, "both")


def night(shelf: Shelf, **changes: int) -> Tidied:
    return consolidate(shelf, CONFIG.model_copy(update=changes), similar, day(99), "7")


def reasons(shelf: Shelf) -> dict[int, str]:
    return {number: why for number, (_, _, why) in shelf.closed().items()}


def case(number: float, symptom: str = ISSUE, change: str = "return amount", **changes: object) -> Memory:
    return memory(number, symptom=symptom, change=change, **changes)


def test_of_duplicates_the_oldest_verified_one_stays_known_to_tasks_of_its_time(shelf: Shelf) -> None:
    unverified = case(0, verified=False)
    shelf.put(told(unverified, case(3), case(1, NEARLY), case(2, change="return   amount\n")))
    assert night(shelf).merged == 3
    assert reasons(shelf) == dict.fromkeys((1, 2, 4), MERGED + case(1, NEARLY).id)


@pytest.mark.parametrize(
    "other",
    [
        case(2, repo="game"),
        case(2, where=ELSEWHERE),
        case(2, "something else is wrong"),
        warning(2, symptom=ISSUE, change="return amount", where=ELSEWHERE),
        fact(2, ISSUE),
    ],
    ids=["repo", "place", "symptom", "kind", "fact"],
)
def test_what_differs_in_more_than_words_is_not_merged(shelf: Shelf, other: Memory) -> None:
    shelf.put(told(case(1), other))
    tidied = night(shelf)
    assert (tidied.merged, tidied.contradicted, len(shelf.active())) == (0, 0, 2)


def test_warnings_merge_too_unless_something_else_was_tried(shelf: Shelf) -> None:
    tried = ("changed < to <= in shop/fees.py: assert 3 == 4",)
    other = ("rewrote the parser from scratch, which nothing calls; import error in conftest",)
    shelf.put(told(*(warning(n, symptom=ISSUE, tried=t) for n, t in ((1, tried), (2, tried), (3, other)))))
    assert night(shelf).merged == 1
    assert shelf.active().keys() == {1, 3}


def test_of_two_changes_for_one_symptom_the_newer_verified_one_stays(shelf: Shelf) -> None:
    shelf.put(told(case(2, change="b"), case(1, NEARLY, change="a"), case(3, verified=False, change="c")))
    assert night(shelf).contradicted == 2
    assert reasons(shelf) == dict.fromkeys((2, 3), CONTRADICTED + case(2, change="b").id)


def test_unverified_ones_contradict_nothing(shelf: Shelf) -> None:
    shelf.put(told(case(1, change="a", verified=False), case(2, change="b", verified=False)))
    assert night(shelf).contradicted == 0


def test_what_came_back_into_force_wins_over_what_was_between(shelf: Shelf) -> None:
    shelf.put(told(case(1, change="a"), case(2, change="b"), case(3, change="a")))
    tidied = night(shelf)
    assert (tidied.contradicted, tidied.merged, shelf.active().keys()) == (1, 1, {1})
    assert reasons(shelf)[2] == CONTRADICTED + case(3, change="a").id
    shelf.put(told(case(4, change="b")))
    night(shelf)
    assert shelf.active().keys() == {4}


@pytest.mark.parametrize(
    ("failed", "worked", "gone"),
    [
        (warning(1, symptom=ISSUE, change="return amount"), case(2), True),
        (warning(1, symptom=ISSUE, tried=("changed x to return amount in shop/fees.py: 3 != 4",)), case(2), True),
        (warning(1, symptom=ISSUE, change="-a\n+return amount"), case(2, change="@@ -1 +1 @@\n-b\n+return amount"), True),
        (warning(1, symptom=ISSUE, change="return amount", where=("a.py", "shop/fees.py:total_fee")), case(2), True),
        (warning(3, symptom=ISSUE, change="return amount"), case(2), False),
        (warning(1, symptom=ISSUE, change="return amount"), case(2, verified=False), False),
        (warning(1, symptom="unlike", change="return amount"), case(2), False),
        (warning(1, symptom=ISSUE, change="return amount", where=ELSEWHERE), case(2), False),
        (warning(1, symptom=ISSUE, tried=("changed x to y",)), case(2), False),
    ],
    ids=["change", "tried", "diff", "one place", "later", "unverified", "symptom", "place", "other change"],
)
def test_a_warning_goes_when_what_it_tried_works(shelf: Shelf, failed: Memory, worked: Memory, gone: bool) -> None:
    shelf.put(told(failed, worked))
    assert night(shelf).contradicted == gone
    assert reasons(shelf) == ({1: CONTRADICTED + worked.id} if gone else {})


@pytest.mark.parametrize(
    ("kind", "old", "new", "excluded"),
    [
        (Kind.CONVENTION, "Amounts are integers of cents", "Amounts are decimals", True),
        (Kind.CONVENTION, "Amounts are integers of cents", "Amounts  are integers of cents", False),
        (Kind.CONVENTION, "Amounts are integers of cents", "Rates are decimals", False),
        (Kind.CONVENTION, "game wraps results in `listed`", "game wraps results in `priced`", False),
        (
            Kind.CONVENTION,
            "some functions return `to_cents(...)` of shop.money",
            "some functions return `r(...)` of shop.m",
            False,
        ),
        (Kind.CONVENTION, "some errors are `FeeError` of shop.errors", "some errors are `TaxError` of shop.errors", False),
        (Kind.CONVENTION, "some code calls `a` of shop.b: c", "some code calls `a` of shop.b: d", False),
        (Kind.CONVENTION, "note: run it twice", "note: keep it short", False),
        (Kind.CONVENTION, "tests of a.py are in tests/test_a.py", "tests of a.py are in tests/unit/test_a.py", True),
        (Kind.COMMAND, "`test tests/a.py` runs the tests of a", "`test tests/unit/a.py` runs the tests of a", True),
        (Kind.COMMAND, "`test tests/a.py` runs the tests of a", "`test tests/b.py` runs the tests of b", False),
        (Kind.COMMAND, "`test tests/a.py` runs the tests of a", "`make a` runs the tests of a", False),
        (Kind.COMMAND, "make", "tox", False),
    ],
)
def test_facts_exclude_each_other_only_about_one_subject(shelf: Shelf, kind: Kind, old: str, new: str, excluded: bool) -> None:
    shelf.put(told(fact(1, old, kind, where=("a",)), fact(2, new, kind, where=("a",))))
    assert night(shelf).contradicted == excluded
    shelf.put(told(fact(3, old, kind), fact(4, new, kind)))
    shelf.put(told(fact(5, old, kind, where=("b",)), fact(5, new, kind, where=("b",))))
    assert night(shelf).contradicted == 0


def tried_for(shelf: Shelf, shown: Memory, *outcomes: Outcome) -> None:
    for number, outcome in enumerate(outcomes):
        each = attempt(f"{shown.id} {number}", outcome)
        shelf.store.began(each)
        shelf.store.ended(each)
        shelf.used(each.id, [shown.id])


def test_what_never_helped_fades_and_is_kept(shelf: Shelf) -> None:
    never, once, seldom, stated = case(1), case(2, where=ELSEWHERE), case(3, where=("b",)), fact(4, "run make")
    shelf.put(told(never, once, seldom, stated))
    failed = [Outcome.UNRESOLVED, Outcome.GAVE_UP, Outcome.OUT_OF_BUDGET]
    tried_for(shelf, never, *failed)
    tried_for(shelf, once, *failed, Outcome.RESOLVED)
    tried_for(shelf, seldom, *failed[:2], *[Outcome.INFRASTRUCTURE_FAILURE] * 3)
    tried_for(shelf, stated, *failed)
    assert night(shelf).faded == 1
    assert reasons(shelf) == {1: FADED}
    shelf.put(told(case(9)))
    assert night(shelf).merged == 0
    shelf.restore(1, "restored")
    assert 1 in shelf.active()


def test_duplicates_come_back_when_nothing_stands_for_them(shelf: Shelf) -> None:
    shelf.put(told(case(1), case(2), case(3)))
    night(shelf)
    version = shelf.version()
    forget(shelf.store, "attempt-1")
    assert shelf.active().keys() == {2, 3}
    shelf.restore(version.number, "rolled back")
    assert shelf.active().keys() == set()
    tidied = night(shelf)
    assert (tidied.revived, shelf.active().keys()) == (1, {2})
    assert night(shelf).version == tidied.version
    forget(shelf.store, "attempt-2")
    assert night(shelf).revived == 1
    assert shelf.active().keys() == {3}


def test_what_was_contradicted_by_a_forgotten_attempt_comes_back(shelf: Shelf) -> None:
    shelf.put(told(case(1, change="a"), case(2, change="b")))
    night(shelf)
    forget(shelf.store, "attempt-2")
    tidied = night(shelf)
    assert (tidied.revived, shelf.active().keys()) == (1, {1})


def test_a_duplicate_of_what_faded_or_was_contradicted_stays_away(shelf: Shelf) -> None:
    shelf.put(told(case(1), case(2), case(3, where=ELSEWHERE), case(4, where=ELSEWHERE)))
    night(shelf)
    tried_for(shelf, case(1), *[Outcome.UNRESOLVED] * 3)
    shelf.put(told(case(5, where=ELSEWHERE, change="other")))
    tidied = night(shelf)
    assert (tidied.faded, tidied.contradicted, tidied.revived) == (1, 1, 0)
    assert shelf.active().keys() == {5}


SOME = st.builds(
    lambda n, kind, symptom, change, where, verified, repo: memory(
        n, kind=kind, symptom=symptom, change=change, where=where, verified=verified, repo=repo, fact=f"Amounts are {change}"
    ),
    st.integers(0, 6),
    st.sampled_from(Kind),
    st.sampled_from(["", ISSUE, NEARLY, "unlike that"]),
    st.sampled_from(["", "return a", "return b"]),
    st.sampled_from([(), ("a",), ("a", "b")]),
    st.booleans(),
    st.sampled_from(["shop", "game"]),
)


@given(st.lists(SOME, max_size=25, unique_by=lambda m: m.id), st.integers(1, 24))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_second_night_has_nothing_to_do_and_no_repository_loses_what_is_verified(
    tmp_path: Path, memories: list[Memory], some: int
) -> None:
    path = tmp_path / "store.db"
    path.unlink(missing_ok=True)
    with Store(path) as store:
        shelf = Shelf(store, "both")
        for part in (memories[:some], memories[some:]):
            shelf.put({f"{some} {n}": [each] for n, each in enumerate(part)} | {f"{len(memories)} {len(part)}": []})
            night(shelf)
        for _ in range(3):  # what a handbook may not drop at once it drops in the next nights
            night(shelf)
        version = shelf.version()
        again = night(shelf)
        assert (shelf.version(), again.merged + again.contradicted + again.faded + again.revived) == (version, 0)
        everything, left = shelf.get(range(99), active=False), shelf.get(shelf.active())
        for repo in ("shop", "game"):
            for kind in Kind:
                had = [m for m in everything.values() if (m.repo, m.kind) == (repo, kind) and m.verified]
                kept = [m for m in left.values() if (m.repo, m.kind) == (repo, kind) and m.verified]
                assert kind is Kind.WARNING or bool(had) == bool(kept)


def test_a_night_is_one_version_and_a_broken_one_none(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put(told(case(1), case(2), case(3, change="b"), *(fact(n, "run make") for n in range(4))))
    before = shelf.version()

    def broken(texts: Sequence[str]) -> NDArray[np.float32]:
        raise OSError("the embedder died")

    with pytest.raises(OSError, match="died"):
        consolidate(shelf, CONFIG, broken, day(99))
    assert (shelf.version(), len(shelf.active()), shelf.handbook("shop")) == (before, 7, None)
    assert night(shelf).version == str(shelf.version())
    assert [why for _, _, why in shelf.versions()] == ["remembered", "consolidated 7"]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.5, 0.9]), st.booleans())
@settings(deadline=None)
def test_yielding_in_chunks_is_what_comparing_one_by_one_gives(seed: int, n: int, at_least: float, changes: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 3)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    change, wins = rng.integers(0, 3, n), rng.random(n) < 0.6
    standing: list[int] = []
    expected = []
    for row in range(n):
        near = [s for s in standing if rows[s] @ rows[row] >= at_least and (not changes or change[s] != change[row])]
        expected.append(near[0] if near else row)
        if not near and (wins[row] or not changes):
            standing.append(row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memory.knowledge.consolidation.CHUNK", 4)
        assert _yielded(rows, at_least, *((change, wins) if changes else ())) == expected


# The handbook.


def entries(shelf: Shelf, repo: str = "shop") -> list[str]:
    book = shelf.handbook(repo)
    return [entry.fact for entry in book.entries] if book else []


def test_a_handbook_states_verified_facts_best_supported_first_with_citations(shelf: Shelf) -> None:
    make = [fact(n, "run  make\x1b[0m\n", Kind.COMMAND) for n in (5, 4, 6)]
    again = fact(4, "run make [0m", Kind.COMMAND, trajectory_id="another try", task_id="task-4")
    shelf.put(told(*make, again, fact(3, "run tox"), fact(2, "run nox"), fact(1, "unproven", verified=False), fact(1, " ")))
    assert night(shelf).handbooks == {"shop": "written, 3 facts"}
    book = shelf.handbook("shop")
    assert book is not None
    assert (entries(shelf), book.written_at, book.night) == (["run make [0m", "run nox", "run tox"], day(99), "7")
    assert set(book.entries[0].cites[:2]) == {make[1].id, again.id}
    assert book.entries[0].cites[2:] == (make[0].id, make[2].id)
    assert shelf.handbook("game") is None


def test_a_place_is_named_from_the_third_solved_task_on(shelf: Shelf) -> None:
    fees = [case(n, f"issue {n}", where=("shop/fees.py:a", "shop/fees.py:b")) for n in (1, 2)]
    shelf.put(told(*fees, case(2, "retry", trajectory_id="retry"), warning(3)))
    assert night(shelf).handbooks == {}
    third = case(4, "issue 4")
    shelf.put(told(third))
    night(shelf)
    book = shelf.handbook("shop")
    assert book is not None
    [entry] = book.entries
    assert (entry.fact, entry.kind, len(entry.cites)) == ("fixes are often in shop/fees.py", Kind.CASE, 3)
    assert holds(entry, set(entry.cites))
    assert not holds(entry, set(entry.cites[:2]))
    assert holds(Entry(fact="x", kind=Kind.COMMAND, cites=("a", "b")), {"b"})


def test_a_handbook_is_bounded_and_a_long_fact_keeps_no_other_out(shelf: Shelf) -> None:
    shelf.put(
        told(
            *(fact(0, "long " * 99, trajectory_id=f"{n}", task_id=f"{n}") for n in range(3)),
            fact(1, "x" * 30),
            fact(2, "y" * 30),
        )
    )
    assert night(shelf, handbook_tokens=10).handbooks == {"shop": "written, 1 facts"}
    assert entries(shelf) == ["x" * 30]
    assert night(shelf, handbook_tokens=0).handbooks == {"shop": "written, 0 facts: a new one would drop 1 of 1 cited facts"}
    assert entries(shelf) == []


def test_a_rewrite_that_drops_more_than_a_quarter_is_refused(shelf: Shelf) -> None:
    shelf.put(told(*(fact(n, f"fact {n}") for n in range(8))))
    night(shelf)
    old = entries(shelf)
    shelf.put(told(*(fact(20 + n % 2, f"FACT {n}", trajectory_id=f"n{n}-{n % 2}") for n in range(2))))
    better = [fact(20 + day_, f"FACT {n}", trajectory_id=f"{n} {day_}") for n in range(5) for day_ in range(2)]
    shelf.put(told(*better))
    assert night(shelf, handbook_tokens=20).handbooks["shop"].endswith("a new one would drop 5 of 8 cited facts")
    assert [fact in old for fact in entries(shelf)] == [False] * 2 + [True] * 6
    for _ in range(3):
        assert len(entries(shelf)) == 8
        night(shelf, handbook_tokens=20)
    assert [fact in old for fact in entries(shelf)] == [False] * 5 + [True] * 3
    assert night(shelf, handbook_tokens=20).handbooks == {"shop": "unchanged"}


def test_the_room_wins_over_what_a_rewrite_may_drop(shelf: Shelf) -> None:
    shelf.put(told(*(fact(n, f"fact {n}") for n in range(8))))
    night(shelf)
    assert night(shelf, handbook_tokens=13).handbooks == {"shop": "written, 5 facts: a new one would drop 3 of 8 cited facts"}
    assert entries(shelf) == [f"fact {n}" for n in range(5)]
    assert night(shelf, handbook_tokens=13).handbooks == {"shop": "unchanged"}


def test_a_night_that_closes_half_the_facts_does_not_empty_the_handbook(shelf: Shelf) -> None:
    facts = [fact(n, f"Thing {n} is round", where=("a",)) for n in range(4)]
    shelf.put(told(*facts, *(fact(n, f"fact {n}") for n in range(4, 8))))
    night(shelf)
    shelf.put(told(*(fact(10 + n, f"Thing {n} is {'odd ' * 60}", where=("a",)) for n in range(4))))
    tidied = night(shelf, handbook_tokens=30)
    assert tidied.contradicted == 4
    assert sum(entry in {f.fact for f in facts} or entry.startswith("fact") for entry in entries(shelf)) == 6


def test_facts_that_nothing_states_any_more_may_go(shelf: Shelf) -> None:
    shelf.put(told(*(fact(n, f"fact {n}") for n in range(8))))
    night(shelf)
    for number in range(5):
        forget(shelf.store, f"attempt-{number}")
    shelf.change("by hand", close={6: "wrong"})
    assert night(shelf).handbooks == {"shop": "written, 2 facts"}
    shelf.change("by hand", close=dict.fromkeys(shelf.active(), "wrong"))
    assert night(shelf).handbooks == {"shop": "written, 0 facts"}
    assert night(shelf).handbooks == {"shop": "unchanged"}


def test_writing_a_handbook_keeps_nothing_by_itself(shelf: Shelf) -> None:
    shelf.put(told(fact(1, "run make")))
    book, why = write(shelf, "shop", CONFIG, day(99))
    assert book is not None
    assert (why, shelf.handbook("shop")) == ("written, 1 facts", None)
    shelf.change("by hand", books=[book])
    assert write(shelf, "shop", CONFIG, day(100)) == (None, "unchanged")
