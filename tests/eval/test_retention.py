"""What earlier nights taught is asked again: which nights, which tasks, and a curve that falls where it was forgotten."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.loop import Budget
from agent.sandbox.ladder import probe
from consolidation.pairs import Pair
from consolidation.trainers.base import Example
from eval.errors import EvalError
from eval.play import Player
from eval.pocket.stream import PocketStream
from eval.retention import PastNight, RetentionGuard, past_nights, retention_curve
from eval.retention_losses import night_losses, pairs_of_night
from eval.task_items import Place
from memory.nights import Night, Verdict
from memory.store import Store
from memory.trajectories import Outcome, Trajectory
from tests.eval.drifted import Settled

WHEN = datetime(2026, 11, 20, tzinfo=UTC)
STREAM = PocketStream(seed=4, repos=("bank", "game"), count=6)
IDS = [task.id for task in STREAM.tasks()]


class Forgetful(Settled):
    """With an adapter it does not know the tasks in `lost` any more."""

    def __init__(self, lost: Sequence[str]) -> None:
        super().__init__(STREAM)
        self._all = dict(self._lines)
        self._lost = {task.issue for task in STREAM.tasks() if task.id in lost}

    def use(self, adapter: Path | None) -> None:
        self._lines = {i: ["submit"] if adapter and i in self._lost else said for i, said in self._all.items()}


def opener(ids: Sequence[str]) -> list[Place]:
    """What `Work` does for pocket tasks; what is none of them cannot be opened any more."""
    known = [identity for identity in ids if identity in IDS]
    stream = PocketStream.of(known)
    return [Place(stream, probe(trusted_generated=True), tuple(stream.tasks()))] if known else []


def nights(store: Store, learnt: Sequence[Sequence[str]], promoted: Sequence[bool]) -> None:
    for number, (tasks, passed) in enumerate(zip(learnt, promoted, strict=True)):
        at = WHEN + timedelta(days=number)
        night = Night(id=f"n{number}", started_at=at, strategy="s", seed=0, config_hash="c")
        store.open_night(night)
        store.record_step(night.id, "pairs", {"pairs": 1})
        store.record_step(night.id, "train bank", {"adapter": "a", "attempts": [f"of-{task}" for task in tasks]})
        verdict = Verdict(promoted=passed, why="so")
        store.close_night(night.model_copy(update={"ended_at": at, "verdict": verdict}))


def results(store: Store) -> None:
    store.add_tasks(STREAM.tasks())
    for task in STREAM.tasks():
        fields = {"prompt": "p", "model": "m", "config_hash": "c", "started_at": WHEN}
        attempt = Trajectory.model_validate({"id": f"of-{task.id}", "task_id": task.id, "repo": task.repo, **fields})
        store.began(attempt)
        attempt.outcome = Outcome.RESOLVED
        store.ended(attempt, settles=True)


def guard(past: Sequence[PastNight], lost: Sequence[str] = (), most: int = 24) -> RetentionGuard:
    player = Player(Forgetful(lost), probe(trusted_generated=True), budget=Budget(steps=14))
    return RetentionGuard(player, past, opener, most)


def test_nights_1_a_quarter_half_three_quarters_and_all_are_asked_for_what_they_were_first_to_learn(tmp_path: Path) -> None:
    learnt = [IDS[:1], IDS[:2], IDS[2:3], IDS[3:4], IDS[4:5], IDS[5:6], IDS[6:7], IDS[7:8], [*IDS[:8], "gone"]]
    with Store(tmp_path / "s.db") as store:
        results(store)
        nights(store, learnt, [True] * 2 + [False] + [True] * 6)
        found = past_nights(store)
    # Night 3 of the nine was not promoted, so there are eight; the last learnt only one task that no other had learnt.
    assert [(night.number, night.tasks) for night in found] == [
        (1, (IDS[0],)),
        (2, (IDS[1],)),
        (4, (IDS[4],)),
        (6, (IDS[6],)),
        (8, (IDS[2],)),
    ]


def test_a_candidate_that_forgot_an_early_night_is_seen_at_that_night_alone(tmp_path: Path) -> None:
    past = [PastNight(1, "n0", (), tuple(IDS[:4])), PastNight(2, "n1", (), (*IDS[4:8], "own-task-that-is-gone"))]
    asked = guard(past, lost=[task for task in IDS[:4] if task.startswith("bank")])
    routes = {"bank": tmp_path}
    items = asked.items(routes)
    assert {asked.category(item) for item in items} == {"night 1", "night 2"}
    assert all(item.startswith("bank") for item in items)
    base, candidate = asked.answer(items, {}), asked.answer(items, routes)
    assert list(base) == list(items)
    first, second = retention_curve(asked, base, candidate)
    assert (first.night, first.base, first.candidate) == ("night 1", 1.0, 0.0)
    assert (second.night, second.base, second.candidate) == ("night 2", 1.0, 1.0)
    assert all(answer.facts["tests"] >= 1 for answer in base.values())


def test_every_night_has_at_most_so_many_items_and_the_order_is_the_same_each_time() -> None:
    past = [PastNight(1, "n0", (), tuple(IDS[:8])), PastNight(2, "n1", (), tuple(IDS[8:12]))]
    one, other = guard(past, most=3), guard(past, most=3)
    items = one.items({"*": Path("a")})
    assert len(items) == 6
    assert list(items) == list(other.items({"*": Path("a")}))
    assert one.digest == other.digest
    assert one.digest != guard(past, most=2).digest
    assert guard(past).items({"farm": Path("a")}) == []
    with pytest.raises(EvalError, match="no task"):
        one.answer(["never heard of"], {})


def test_losses_are_of_the_pairs_that_a_night_was_first_to_learn_from(tmp_path: Path) -> None:
    def told(task: str, attempt: str) -> Pair:
        messages = (("user", task), ("assistant", "submit"))
        return Pair(task_id=task, repo=task.split("-")[0], trajectory_id=attempt, source="agent", messages=messages)

    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(told(task, f"of-{task}").model_dump_json() + "\n" for task in IDS[:3]))
    night = PastNight(3, "n", (f"of-{IDS[0]}", f"of-{IDS[2]}"), (IDS[0], IDS[2]))
    pairs = pairs_of_night(path, set(night.attempts))
    assert [pair.task_id for pair in pairs] == [IDS[0], IDS[2]]
    assert pairs_of_night(tmp_path / "removed.jsonl", set()) == []
    path.write_text("{}\n")
    with pytest.raises(EvalError, match="delete it"):
        pairs_of_night(path, set())
    asked: list[tuple[int, Path | None]] = []

    def loss(examples: Sequence[Example], adapter: Path | None) -> list[float]:
        asked.append((len(examples), adapter))
        return [1.0 if adapter is None else 3.0] * len(examples)

    def encode(messages: object) -> tuple[list[int], list[bool]]:
        return [1, 2, 3], [False, True, True]

    adapters = {"bank": tmp_path}
    found = night_losses([night], lambda night: pairs, encode, loss, adapters.get, context=8)
    assert found == {"night 3": (1.0, 3.0)}
    assert asked == [(2, None), (2, tmp_path)]
    assert night_losses([night], lambda night: pairs, encode, loss, adapters.get, context=2) == {}
