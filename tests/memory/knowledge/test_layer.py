"""The knowledge layer as a whole: the store, Chroma and the words together."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.consolidation import consolidate
from memory.knowledge.embedders import HashingEmbedder
from memory.knowledge.forgetting import forget
from memory.knowledge.layer import Knowledge
from memory.knowledge.memories import Kind, Memory
from memory.knowledge.shelf import Shelf
from memory.store import Store
from memory.tasks import Task
from tests.memory.knowledge.making import attempt, day, fact, memory, told, warning

ROOT = Path(__file__).resolve().parents[3]
LATE = day(10_000)
Open = Callable[..., Knowledge]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sleepy.db") as store:
        yield store


@pytest.fixture
def opened(store: Store, tmp_path: Path) -> Iterator[Open]:
    made: list[Knowledge] = []

    def open_one(space: str = "both", embedder: HashingEmbedder | None = None, **more: object) -> Knowledge:
        held_out = more.pop("held_out", frozenset())
        config = KnowledgeConfig.model_validate(more)
        assert isinstance(held_out, frozenset)
        made.append(Knowledge(store, tmp_path / "chroma", embedder or HashingEmbedder(), config, space, held_out))
        return made[-1]

    yield open_one
    for layer in made:
        layer.close()


def asks(issue: str, number: float = 100, name: str = "new", repo: str = "shop") -> Task:
    return Task(id=name, repo=repo, issue=issue, created_at=day(number), position=0, difficulty="<15 min fix")


def about(number: float, symptom: str, **changes: object) -> Memory:
    return memory(number, **({"symptom": symptom, "change": f"return {symptom.split()[0]}({number})"} | changes))


CURRENCY = "ZeroDivisionError in convert_currency when the exchange rate is missing"
PARSER = "parse_invoice drops the last line of a file without a newline"


def test_what_fits_is_recalled_and_nothing_when_nothing_does(opened: Open) -> None:
    layer = opened()
    layer.remember(told(about(1, CURRENCY), about(2, PARSER)))
    (found,) = layer.recall(asks("convert_currency raises ZeroDivisionError for an unknown exchange rate"), LATE).memories
    assert found.symptom == CURRENCY
    assert not layer.recall(asks("The documentation theme flickers in dark mode on mobile phones"), LATE)


def test_what_was_shown_is_bounded_in_number_and_room_and_does_not_repeat_itself(opened: Open) -> None:
    layer = opened(most=2, tokens=200)
    same = [about(n, CURRENCY, change="return rate or 1") for n in range(5)]
    other = about(9, f"{CURRENCY} for old invoices of wholesale customers", change="if not rate:\n    rate = default_rate()")
    layer.remember(told(*same, other))
    shown = layer.recall(asks(CURRENCY), LATE).memories
    assert {m.symptom for m in shown} == {CURRENCY, other.symptom}
    assert sum(len(m.text) for m in shown) <= 800
    assert not opened("small", tokens=0).recall(asks(CURRENCY), LATE)


def test_a_verified_case_comes_before_a_warning_that_says_the_same(opened: Open) -> None:
    layer = opened(diversity=0)
    tried = ("changed the rate to a rounded one: expected 12.50 but was 12.00",)
    layer.remember(told(warning(1, symptom=CURRENCY, tried=tried), about(2, CURRENCY)))
    assert [m.kind for m in layer.recall(asks(CURRENCY), LATE).memories] == [Kind.CASE, Kind.WARNING]


def test_what_helped_comes_before_what_did_not(opened: Open, store: Store) -> None:
    layer = opened(diversity=0)
    layer.remember(told(about(1, f"{CURRENCY} on import"), about(2, f"{CURRENCY} at night", change="retry(rates)")))
    before = layer.recall(asks(CURRENCY), LATE)
    for number in range(4):
        trajectory = attempt(f"a{number}", None)
        store.began(trajectory)
        layer.used(trajectory.id, before.model_copy(update={"memories": before.memories[:1]}))
        store.ended(attempt(f"a{number}"))
    assert layer.recall(asks(CURRENCY), LATE).memories == before.memories[::-1]


SHOPS = st.sampled_from(["shop", "bank"])
LIVED = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 8), SHOPS, st.sampled_from([Kind.CASE, Kind.WARNING, Kind.CONVENTION])),
    max_size=25,
)
ASKED = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 8), SHOPS, st.integers(0, 40)), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None)
@given(LIVED, ASKED, st.frozensets(st.integers(0, 8), max_size=3), st.booleans())
def test_nothing_is_recalled_from_the_future_from_the_task_itself_or_from_what_is_held_out(
    lived: list[tuple[int, int, str, Kind]],
    asked: list[tuple[int, int, str, int]],
    held_out: frozenset[int],
    night: bool,
) -> None:
    """`lived`: (day of the task, its name, repository, kind), recorded a day after; `asked` adds the time of asking."""
    ids = frozenset(f"t{name}" for name in held_out)
    with TemporaryDirectory() as folder, Store(Path(folder) / "s.db") as store:
        config = KnowledgeConfig(most=20, tokens=100_000, floor=0, words_floor=0, diversity=0)
        with closing(Knowledge(store, Path(folder) / "c", HashingEmbedder(), config, "x", ids)) as layer:
            for number, (when, name, repo, kind) in enumerate(lived):
                text = f"{CURRENCY} {number}"
                fields = {"task_id": f"t{name}", "repo": repo, "trajectory_id": f"a{number}", "recorded_at": day(when + 1)}
                made = (
                    fact(when, "amounts are in cents", **fields)
                    if kind is Kind.CONVENTION
                    else about(when, text, kind=kind, **fields)
                )
                layer.remember(told(made))
            if night:
                consolidate(layer.shelf, config, layer.embedder.embed, LATE)
            by_id = {m.id: m for m in layer.shelf.get(range(1, len(lived) + 1), active=False).values()}
            for when, name, repo, asking in asked:
                task = asks(CURRENCY, when, f"t{name}", repo)
                recalled = layer.recall(task, day(asking))
                cited = [by_id[cite] for entry in recalled.facts for cite in entry.cites]
                for known in (*recalled.memories, *cited):
                    assert known.created_at <= task.created_at
                    assert known.recorded_at <= day(asking)
                    assert known.repo == repo
                    assert known.task_id != task.id
                    assert known.task_id not in ids
                may = [
                    m
                    for m in by_id.values()
                    if m.kind in (Kind.CASE, Kind.WARNING)
                    and m.repo == repo
                    and m.task_id != task.id
                    and m.created_at <= task.created_at
                    and m.recorded_at <= day(asking)
                ]
                if not night and may:  # what may be told is told
                    assert recalled.memories


def test_spaces_share_nothing(opened: Open) -> None:
    knowledge, both = opened("knowledge"), opened("both")
    knowledge.remember(told(about(1, CURRENCY)))
    assert knowledge.recall(asks(CURRENCY), LATE)
    assert not both.recall(asks(CURRENCY), LATE)
    both.remember(told(about(1, CURRENCY)))
    both.index.drop()
    assert knowledge.recall(asks(CURRENCY), LATE)


def test_what_another_process_changed_in_the_store_counts_at_once(opened: Open, store: Store) -> None:
    layer = opened()
    layer.remember(told(about(1, CURRENCY)))
    first = layer.shelf.version().number
    layer.remember(told(about(2, PARSER)))
    with Store(store.path) as other:
        Shelf(other, "both").restore(first, "rolled back")
        assert not layer.recall(asks(PARSER), LATE)
        assert layer.recall(asks(CURRENCY), LATE)
        forget(other, "attempt-1")
        assert not layer.recall(asks(CURRENCY), LATE)
    assert layer.index.count() == 0


def test_another_embedder_embeds_everything_anew(opened: Open) -> None:
    class Other(HashingEmbedder):
        name = "other-hashing"

    first = opened()
    first.remember(told(about(1, CURRENCY)))
    first.close()
    again = opened(embedder=Other())
    assert again.recall(asks(CURRENCY), LATE).memories
    assert again.digest != first.digest


def test_a_rebuild_brings_back_what_was_deleted(opened: Open, store: Store) -> None:
    layer = opened()
    layer.remember(told(about(1, CURRENCY), about(2, PARSER), fact(3, "amounts are in cents")))
    before = layer.recall(asks(CURRENCY), LATE)
    layer.index.drop()
    assert layer.index.count() == 0
    assert layer.rebuild().added == 2  # facts are not looked for, they are in the handbook
    assert layer.recall(asks(CURRENCY), LATE) == before


def test_attempts_name_the_state_of_the_knowledge_they_were_told_from(opened: Open) -> None:
    layer = opened()
    layer.remember(told(about(1, CURRENCY)))
    one = layer.recall(asks(CURRENCY), LATE)
    layer.remember(told(about(2, PARSER)))
    other = layer.recall(asks(CURRENCY), LATE)
    assert one.version != other.version
    assert one.memories == other.memories
    assert [str(v) for v, _, _ in layer.shelf.versions()] == [one.version, other.version]


REMEMBERING = """
import sys
from itertools import count
from pathlib import Path
from memory.knowledge.config import KnowledgeConfig
from memory.knowledge.embedders import HashingEmbedder
from memory.knowledge.layer import Knowledge
from memory.store import Store
from tests.memory.knowledge.making import memory, told

folder, start = Path(sys.argv[1]), int(sys.argv[2])
layer = Knowledge(Store(folder / "s.db"), folder / "c", HashingEmbedder(), KnowledgeConfig(), "x")
for n in count(start):
    layer.remember(told(*(memory(n * 10 + k, symptom=f"order x{n}y{k} fails") for k in range(10))))
    print(n, flush=True)
"""


def test_a_kill_in_the_middle_leaves_what_the_next_start_makes_whole(tmp_path: Path) -> None:
    start = 0
    for wait in (0.05, 0.3, 0.013):
        call = [sys.executable, "-c", REMEMBERING, str(tmp_path), str(start)]
        with subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            start = int(process.stdout.readline()) + 100
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        with Store(tmp_path / "s.db") as store:
            config = KnowledgeConfig()
            with closing(Knowledge(store, tmp_path / "c", HashingEmbedder(), config, "x")) as layer:
                layer.sync()
                known = layer.shelf.active()
                assert len(known) % 10 == 0
                assert layer.index.count() == len(known) > 0
                last = layer.shelf.get([max(known)])[max(known)]
                assert last in layer.recall(asks(last.symptom, 99_999), day(99_999)).memories


def test_remembering_twice_changes_nothing(opened: Open) -> None:
    layer = opened()
    assert len(layer.remember(told(about(1, CURRENCY)))) == 1
    version = layer.sync()
    assert layer.remember(told(about(1, CURRENCY))) == []
    assert (layer.sync(), layer.index.count()) == (version, 1)


@pytest.mark.parametrize("issue", ["", "\x00", "\ud800", '" OR NEAR(', "x" * 200_000, "* : ^ - ( ) AND NOT"])
def test_no_issue_breaks_recall(opened: Open, issue: str) -> None:
    layer = opened()
    layer.remember(told(about(1, CURRENCY)))
    layer.recall(asks("a").model_copy(update={"issue": issue}), LATE)


def test_recall_as_of_an_earlier_moment_knows_only_what_was_recorded_by_then(opened: Open) -> None:
    layer = opened()
    layer.remember(told(about(1, CURRENCY, recorded_at=day(50))))
    task = asks(CURRENCY)
    noon: datetime = day(50)
    assert layer.recall(task, noon)
    assert not layer.recall(task, noon - timedelta(seconds=1))


def test_each_filter_holds_by_itself(opened: Open) -> None:
    layer = opened(held_out=frozenset({"secret"}), floor=0, words_floor=0)
    known = [
        {"number": when, "task_id": name, "recorded_at": day(recorded)}
        for name, when, recorded in (("new", 1, 1), ("later", 200, 200), ("told late", 1, 300), ("secret", 1, 1))
    ]
    for each in known:
        name = str(each["task_id"])
        layer.shelf.put({f"fact of {name}": [fact(text=f"{name} is so", trajectory_id=f"fact of {name}", **each)]})
    consolidate(layer.shelf, layer.config, layer.embedder.embed, LATE)
    for each in known:  # after the night, which would have resolved that they contradict each other
        name = str(each["task_id"])
        layer.shelf.put({name: [memory(symptom=f"{CURRENCY} {name}", trajectory_id=name, **each)]})
    assert not layer.recall(asks(CURRENCY), day(250))
    recalled = layer.recall(asks(CURRENCY, 500, "another"), LATE)
    assert recalled.facts
    assert recalled.memories
