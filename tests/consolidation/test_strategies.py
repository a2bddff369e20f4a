"""One contract for every strategy that the configuration can name."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from agent.adapters import read_peft
from agent.pocket import WEIGHTS
from consolidation.adapters import Adapter, AdapterStore, artefacts_of
from consolidation.errors import TrainingRefused
from consolidation.strategies.bench import Bench
from consolidation.strategies.choice import AnyStrategy
from consolidation.strategies.seam import Learnt, Lesson, Strategy
from consolidation.trainers.base import Example
from tests.consolidation.lessons import trainer_of
from tests.consolidation.strategy_nights import Counting, Killed, admitted, bench_at, lesson

KINDS = sorted(kind.model_fields["kind"].default for kind in get_args(get_args(AnyStrategy)[0]))
SMALL: dict[str, dict[str, Any]] = {
    "adaptive_rank": {"ranks": (1, 2), "budget": 3, "target": 1, "probe_epochs": 1},
    "ewc": {"fisher_samples": 4},
}


def strategy_of(kind: str) -> Strategy:
    found: Strategy = TypeAdapter(AnyStrategy).validate_python({"kind": kind, **SMALL.get(kind, {})})
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def artefacts(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in artefacts_of(folder)]


@dataclass(frozen=True)
class Two:
    """Two nights of a strategy: the first admitted, the second learnt on it."""

    strategy: Strategy
    store: AdapterStore
    first: Adapter
    before: dict[str, bytes]
    lesson: Lesson
    learnt: Learnt
    bench: Bench
    calls: list[str]


@pytest.fixture(scope="module", params=KINDS)
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Two:
    folder, strategy = tmp_path_factory.mktemp(request.param), strategy_of(request.param)
    store = AdapterStore(folder / "adapters")
    first = admitted(store, strategy, strategy.learn(lesson(1), bench_at(folder / "1")))
    before, today, trainer = files(first.folder), lesson(2, first), Counting(trainer_of("torch"))
    bench = bench_at(folder / "2", trainer)
    return Two(strategy, store, first, before, today, strategy.learn(today, bench), bench, trainer.calls)


def test_a_second_night_makes_an_adapter_that_every_engine_reads(two: Two) -> None:
    lora = read_peft(two.learnt.folder)
    assert lora.rank == two.learnt.rank
    assert lora.alpha == pytest.approx(two.learnt.alpha)
    assert all(read_peft(folder).rank == lora.rank for folder in two.learnt.candidates)
    second = admitted(two.store, two.strategy, two.learnt)
    assert second.id != two.first.id
    assert set(second.manifest.attachments) == set(two.learnt.attachments)
    for name, path in two.learnt.attachments.items():
        kept = second.attachment(name)
        assert kept is not None
        assert kept.read_bytes() == path.read_bytes()


def test_it_learns_what_is_new(two: Two) -> None:
    new = [sample.item for sample in two.lesson.new if isinstance(sample.item, Example)]
    before, after = (sum(trainer_of("torch").loss(two.bench.job, new, adapter)) for adapter in (None, two.learnt.folder))
    assert after < before


def test_it_says_what_it_cost(two: Two) -> None:
    cost = two.learnt.cost
    assert cost.tokens >= sum(trained.tokens for trained in two.learnt.trained) > 0
    assert cost.seconds > 0
    assert cost.extra_seconds == two.bench.beside
    held = [*two.learnt.attachments.values(), *(two.learnt.folder / name for name in artefacts_of(two.learnt.folder))]
    assert cost.bytes >= sum(path.stat().st_size for path in held)


def test_what_is_live_stays_as_it_was(two: Two) -> None:
    assert files(two.first.folder) == two.before


def test_killed_between_all_its_parts_it_does_none_twice_and_ends_in_the_same_adapter(two: Two, tmp_path: Path) -> None:
    calls: list[str] = []
    for _ in range(len(two.calls) + 1):
        trainer = Counting(trainer_of("torch"), quota=1)
        try:
            again = two.strategy.learn(two.lesson, bench_at(tmp_path / "again", trainer))
            break
        except Killed:
            continue
        finally:
            calls += trainer.calls
    assert calls == two.calls
    assert artefacts(again.folder) == artefacts(two.learnt.folder)
    assert {n: p.read_bytes() for n, p in again.attachments.items()} == {
        n: p.read_bytes() for n, p in two.learnt.attachments.items()
    }


def test_a_finished_night_is_not_trained_again(two: Two) -> None:
    trainer = Counting(trainer_of("torch"), quota=0)
    again = two.strategy.learn(two.lesson, bench_at(two.bench.folder, trainer))
    assert artefacts(again.folder) == artefacts(two.learnt.folder)
    assert again.cost == two.learnt.cost


def test_the_seed_decides_the_adapter(two: Two, tmp_path: Path) -> None:
    other = two.strategy.learn(lesson(1), bench_at(tmp_path, seed=1))
    assert artefacts(other.folder) != artefacts(two.first.folder)


def test_a_rejected_adapter_is_never_built_on(two: Two, tmp_path: Path) -> None:
    shutil.copytree(two.store.root, tmp_path / "adapters")
    rejected = AdapterStore(tmp_path / "adapters").judge(two.first.id, "rejected", "worse")
    trainer = Counting(trainer_of("torch"))
    try:
        two.strategy.learn(replace(two.lesson, previous=rejected), bench_at(tmp_path / "night", trainer))
    except TrainingRefused as refused:
        assert "rejected" in str(refused)  # noqa: PT017 - a strategy that begins at the base may go on
    else:
        assert all(job.start is None and job.penalty is None and job.base == WEIGHTS for job in trainer.jobs)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_lesson_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingRefused):
        strategy_of(kind).learn(Lesson(("shop",), ()), bench_at(tmp_path))
