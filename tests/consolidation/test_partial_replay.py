"""Partial replay: what is kept, in which order, how much of it is trained on, and that it never grows."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from consolidation.adapters import Adapter, AdapterStore
from consolidation.errors import AdapterError
from consolidation.pairs import Pair
from consolidation.strategies.naive import NaiveSequential
from consolidation.strategies.partial_replay import BUFFER, Buffer, PartialReplay, drawn
from consolidation.strategies.priorities import by_priority, covering, told
from consolidation.strategies.seam import Lesson, Sample
from consolidation.trainers.base import Example, Job, Preference, Trained
from tests.consolidation.lessons import said, trainer_of, weights
from tests.consolidation.strategy_nights import Counting, Killed, admitted, bench_at, lesson, samples


class Noting(Counting):
    """Keeps what was trained on; with `losses`, answers with these instead of measuring, and with `dry`, trains nothing."""

    def __init__(self, losses: Sequence[float] = (), quota: int = 1_000, dry: bool = False) -> None:
        super().__init__(trainer_of("torch"), quota)
        self.losses, self.dry = losses, dry
        self.trained: list[Any] = []
        self.under: list[Path | None] = []

    def fit(self, job: Job, examples: Sequence[Any], out: Path, on_step: Any) -> Trained:
        self.trained.append(list(examples))
        if not self.dry:
            return super().fit(job, examples, out, on_step)
        self._note("fit", job)
        out.mkdir(parents=True)
        return Trained(folder=out, examples=len(examples), tokens=1, steps=1, seconds=0, loss_first=2, loss_last=1)

    def loss(self, job: Job, examples: Sequence[Example], adapter: Path | None = None) -> list[float]:
        self.under.append(adapter)
        return list(self.losses) or super().loss(job, examples, adapter)


def tokens(sample: Sample) -> list[int]:
    assert isinstance(sample.item, Example)
    return sample.item.ids


def played(item: Any, among: Sequence[Sample]) -> bool:
    return any(item.ids == tokens(sample) for sample in among)


def kept(adapter: Adapter | None) -> Buffer:
    path = adapter.attachment(BUFFER) if adapter is not None else None
    assert path is not None
    return Buffer.model_validate_json(path.read_bytes())


def after(folder: Path, buffer: Buffer) -> Adapter:
    """The adapter of an earlier night, as far as its attachment goes."""
    (folder / "before").mkdir(parents=True)
    (folder / "before" / "left.json").write_text(buffer.model_dump_json())

    class Left(Adapter):
        def attachment(self, name: str) -> Path | None:
            return self.folder / "left.json"

    return Left.model_construct(folder=folder / "before")


def sample(task: str, turns: int = 1, **fields: Any) -> Sample:
    messages = [m for n in range(turns) for m in (("tool" if n else "user", f"{task} {n}"), ("assistant", "search quux"))]
    about = {"task_id": task, "repo": "shop", "trajectory_id": task, "source": "agent", **fields}
    return Sample(Pair(messages=tuple(messages), **about), said(task, "search quux"))  # type: ignore[arg-type]


class TestPriorities:
    def test_recency_puts_the_newest_first(self, tmp_path: Path) -> None:
        assert by_priority("recency", samples(0, 4), None, bench_at(tmp_path)) == [3, 2, 1, 0]

    def test_difficulty_puts_the_highest_loss_under_what_is_live_first(self, tmp_path: Path) -> None:
        trainer = Noting([0.1, 3.0, 0.5, 3.0])
        before = after(tmp_path, Buffer())
        assert by_priority("difficulty", samples(0, 4), before, bench_at(tmp_path / "a", trainer)) == [3, 1, 2, 0]
        by_priority("difficulty", samples(0, 4), None, bench_at(tmp_path / "b", trainer))
        assert trainer.under == [before.folder, None]

    def test_difficulty_is_what_the_trainer_measures(self, tmp_path: Path) -> None:
        some = samples(0, 3)
        losses = trainer_of("torch").loss(bench_at(tmp_path).job, [s.item for s in some if isinstance(s.item, Example)])
        order = by_priority("difficulty", some, None, bench_at(tmp_path))
        assert [losses[number] for number in order] == sorted(losses, reverse=True)

    def test_of_a_preference_the_chosen_answer_is_measured(self, tmp_path: Path) -> None:
        one, two = (replace(s, item=Preference(chosen=s.item, rejected=said("x", "y"))) for s in samples(0, 2))  # type: ignore[arg-type]
        plain = by_priority("difficulty", samples(0, 2), None, bench_at(tmp_path / "a"))
        assert by_priority("difficulty", (one, two), None, bench_at(tmp_path / "b")) == plain

    def test_diversity_begins_with_what_covers_the_rest(self, tmp_path: Path) -> None:
        some = [*(sample(f"the lock of door {n} is stuck") for n in range(4)), sample("rain falls in winter")]
        some += [sample("the lock of door 9 is stuck")]
        assert by_priority("diversity", some, None, bench_at(tmp_path))[:2] == [5, 4]

    def test_greedy_covering_is_within_twice_the_best_radius(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(20):
            points = rng.normal(size=(9, 3)).astype(np.float32)
            points /= np.linalg.norm(points, axis=1, keepdims=True)
            far = np.arccos(np.clip(points @ points.T, -1, 1))  # angles are a metric
            order = covering(points)
            assert sorted(order) == list(range(9))
            for k in (1, 2, 3):
                best = min(far[list(c)].min(0).max() for c in _choices(9, k))
                assert far[order[:k]].min(0).max() <= 2 * best + 1e-3

    def test_confidence_puts_own_successes_first_then_the_shorter_ones(self, tmp_path: Path) -> None:
        some = [
            sample("merged", source="merged_fix"),
            sample("long", turns=3),
            sample("short"),
            sample("doubtful", confidence=0.5),
            sample("short too"),
        ]
        order = by_priority("confidence", some, None, bench_at(tmp_path))
        assert [some[number].pair.task_id for number in order] == ["short too", "short", "long", "merged", "doubtful"]

    def test_what_is_not_learnt_does_not_tell_what_an_example_is_about(self) -> None:
        whole = sample("issue", turns=2)
        part = replace(whole, pair=whole.pair.model_copy(update={"untaught": (0,)}))
        assert told(whole).count("search quux") == 2
        assert told(part) == "issue 0\nsearch quux"


def _choices(n: int, k: int) -> list[tuple[int, ...]]:
    import itertools

    return list(itertools.combinations(range(n), k))


class TestBuffer:
    @pytest.mark.parametrize("priority", ["recency", "difficulty", "diversity", "confidence"])
    def test_over_five_nights_it_never_grows_and_holds_only_what_was_lived(self, tmp_path: Path, priority: Any) -> None:
        strategy = PartialReplay(size=7, priority=priority)
        previous, before, gone = None, set[str](), set[str]()
        for night in range(1, 6):
            trainer = Noting([random.Random(night).random() for _ in range(99)], dry=True)
            tonight = lesson(night, previous, count=4)
            learnt = strategy.learn(tonight, bench_at(tmp_path / str(night), trainer))
            left = Buffer.model_validate_json(learnt.attachments[BUFFER].read_bytes())
            past = [s.pair.content for s in tonight.past]
            assert len(left.buffer) == min(7, len(past)) == len(set(left.buffer))
            assert list(left.buffer) == [content for content in past if content in left.buffer], "in the order it was lived"
            assert set(left.buffer) | set(left.evicted) == set(past)
            assert not set(left.buffer) & gone, "what was evicted does not come back"
            assert set(left.buffer) <= before | set(past[-4:]), "only what was there or is new comes in"
            if priority == "recency":
                assert list(left.buffer) == past[-7:]
            assert all(played(item, tonight.past) == item.rehearsal for item in trainer.trained[0])
            before, gone = set(left.buffer), set(left.evicted)
            previous = after(tmp_path / f"after {night}", left)

    def test_it_goes_on_from_the_adapter_and_its_attachment(self, tmp_path: Path) -> None:
        store, strategy = AdapterStore(tmp_path / "adapters"), PartialReplay(size=4, priority="recency", mix=0.4)
        previous: Adapter | None = None
        for night in (1, 2, 3):
            bench = bench_at(tmp_path / str(night), trainer := Noting())
            learnt = strategy.learn(lesson(night, previous), bench)
            assert trainer.jobs[0].start == (previous.folder if previous else None)
            previous = admitted(store, strategy, learnt)
        assert kept(previous).buffer == tuple(s.pair.content for s in samples(8, 4))
        assert kept(previous).evicted == tuple(s.pair.content for s in samples(0, 8))

    def test_the_same_content_is_kept_once(self, tmp_path: Path) -> None:
        tonight = Lesson(("shop",), samples(9, 3), (*samples(0, 2), *samples(1, 3), *samples(0, 1)))
        bench = bench_at(tmp_path, trainer := Noting(dry=True))
        learnt = PartialReplay(mix=0.9).learn(tonight, bench)
        left = Buffer.model_validate_json(learnt.attachments[BUFFER].read_bytes())
        assert left.buffer == tuple(s.pair.content for s in (*samples(1, 3), *samples(0, 1)))
        assert len(trainer.trained[0]) == 3 + 4

    def test_a_damaged_buffer_is_said_to_be_one(self, tmp_path: Path) -> None:
        before = after(tmp_path, Buffer())
        (before.folder / "left.json").write_text('{"buffer": 7}')
        with pytest.raises(AdapterError, match="no replay buffer; roll back"):
            PartialReplay().learn(lesson(2, before), bench_at(tmp_path / "b"))


class TestMix:
    @pytest.mark.parametrize(
        ("mix", "examples", "new", "old", "expected"),
        [
            (0.25, 0, 30, 100, (30, 10)),
            (0.5, 0, 30, 100, (30, 30)),
            (0.75, 0, 30, 100, (30, 90)),
            (0.75, 0, 30, 50, (30, 50)),  # no more than there is
            (0.0, 0, 30, 50, (30, 0)),
            (0.5, 0, 30, 0, (30, 0)),
            (0.25, 40, 100, 100, (30, 10)),
            (0.5, 40, 100, 100, (20, 20)),
            (0.75, 40, 100, 100, (10, 30)),
            (0.75, 40, 100, 5, (35, 5)),  # the rest is new
            (0.5, 40, 8, 100, (8, 8)),  # the share holds where little is new
            (0.5, 40, 100, 0, (40, 0)),
            (0.75, 1, 100, 100, (1, 0)),
        ],
    )
    def test_shares(self, mix: float, examples: int, new: int, old: int, expected: tuple[int, int]) -> None:
        assert PartialReplay(mix=mix, examples=examples).shares(new, old) == expected

    @pytest.mark.parametrize(("mix", "examples"), [(0.25, 0), (0.5, 0), (0.75, 8)])
    def test_a_night_trains_on_its_share_of_replayed_examples_marked_as_such(
        self, tmp_path: Path, mix: float, examples: int
    ) -> None:
        tonight = lesson(4)
        trainer = Noting(dry=True)
        strategy = PartialReplay(mix=mix, examples=examples, priority="recency")
        learnt = strategy.learn(tonight, bench_at(tmp_path, trainer))
        (items,) = trainer.trained
        replayed = [item for item in items if played(item, tonight.past)]
        assert len(replayed) / len(items) == mix
        assert all(item.rehearsal == (item in replayed) for item in items)
        assert len({tuple(item.ids) for item in items}) == len(items), "none twice"
        assert learnt.notes == {"buffer": 18, "evicted": 0, "replayed": len(replayed), "new": len(items) - len(replayed)}

    def test_priority_is_asked_only_where_something_is_left_out(self, tmp_path: Path) -> None:
        for mix, size, count in ((0.2, 500, 1), (0.9, 500, 0), (0.0, 500, 0), (0.9, 17, 1)):
            trainer = Noting([0.0] * 18, dry=True)
            PartialReplay(mix=mix, size=size).learn(lesson(4), bench_at(tmp_path / f"{mix}{size}", trainer))
            assert len(trainer.under) == count

    def test_what_is_drawn_depends_on_the_seed_alone(self, tmp_path: Path) -> None:
        found = []
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            bench = bench_at(tmp_path / name, trainer := Noting(dry=True), seed=seed)
            PartialReplay(mix=0.3).learn(lesson(4), bench)
            found.append([item.ids for item in trainer.trained[0]])
        assert found[0] == found[1] != found[2]

    def test_higher_priority_is_drawn_more_often(self) -> None:
        rng, counts = random.Random(0), Counter[int]()
        for _ in range(2_000):
            some = drawn([5, 3, 8, 1], 2, rng)
            assert len(set(some)) == 2
            counts.update(some)
        assert [number for number, _ in counts.most_common()] == [5, 3, 8, 1]
        first = Counter(drawn([5, 3], 1, rng)[0] for _ in range(4_000))
        assert first[5] / first[3] == pytest.approx(2**0.7, rel=0.1)


class TestTraining:
    def test_without_a_past_it_is_naive_byte_for_byte(self, tmp_path: Path) -> None:
        tonight = lesson(1)
        partial = PartialReplay().learn(tonight, bench_at(tmp_path / "partial"))
        naive = NaiveSequential().learn(tonight, bench_at(tmp_path / "naive"))
        assert weights(partial.folder) == weights(naive.folder)
        with_past = PartialReplay().learn(lesson(2), bench_at(tmp_path / "past"))
        assert weights(with_past.folder) != weights(NaiveSequential().learn(lesson(2), bench_at(tmp_path / "n2")).folder)

    def test_kl_holds_replayed_examples_to_the_base(self, tmp_path: Path) -> None:
        found = []
        for weight in (0.0, 20.0):
            bench = bench_at(tmp_path / str(weight), kl_weight=weight)
            found.append(weights(PartialReplay(priority="recency").learn(lesson(2), bench).folder))
        assert found[0] != found[1]

    def test_a_night_that_was_broken_off_goes_on_and_ends_the_same(self, tmp_path: Path) -> None:
        strategy, tonight = PartialReplay(size=4, priority="difficulty"), lesson(2)
        whole = strategy.learn(tonight, bench_at(tmp_path / "whole"))
        with pytest.raises(Killed):
            strategy.learn(tonight, bench_at(tmp_path / "broken", Counting(trainer_of("torch"), quota=1)))
        again = Counting(trainer_of("torch"))
        resumed = strategy.learn(tonight, bench_at(tmp_path / "broken", again))
        assert again.calls == ["fit"], "losses are not measured again"
        assert weights(resumed.folder) == weights(whole.folder)
        assert resumed.attachments[BUFFER].read_bytes() == whole.attachments[BUFFER].read_bytes()
        assert resumed.cost.extra_seconds > 0
        assert resumed.cost.bytes > resumed.attachments[BUFFER].stat().st_size
