"""The whole night: every strategy sleeps one, and poisoned ones are refused with the reason."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from consolidation.adapters import ARTEFACTS
from consolidation.errors import AdapterError, ConsolidationError, TrainingRefused
from consolidation.night import NightReport
from consolidation.pairs import Pair
from consolidation.strategies.choice import KINDS
from daemon.night_view import night_shown, told
from eval.held_out import held_out_of
from eval.pocket.stream import PocketStream
from memory.store import Store
from tests.eval.nights import LORA, FirstTurn, config, held, pairs, sleeper

torch.set_num_threads(1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store.db") as opened:
        yield opened


def slept(
    tmp_path: Path, store: Store, guard: FirstTurn | None = None, data: list[Pair] | None = None, **changes: Any
) -> NightReport:
    night = sleeper(tmp_path, store, config(**changes), guard or FirstTurn())
    return night.sleep(lambda: pairs() if data is None else data)


@pytest.mark.parametrize("kind", KINDS)
def test_every_strategy_sleeps_a_night_that_is_judged_published_and_explained(kind: str, tmp_path: Path, store: Store) -> None:
    settings: dict[str, Any] = {"strategy": {"kind": kind}}
    if kind == "adaptive_rank":
        settings["strategy"] |= {"ranks": (1, 2), "budget": 4}
    if kind == "mixture":  # each expert has only its share of the examples
        settings["lora"] = {**LORA.model_dump(), "epochs": 8}
    report = slept(tmp_path, store, **settings)
    verdict = report.night.verdict
    assert verdict is not None
    assert verdict.promoted, verdict
    assert report.night.strategy == kind
    publisher = sleeper(tmp_path, store, config()).publisher
    assert publisher.live() == report.adapters
    assert list(report.adapters) == ["bank"]
    shown = night_shown(store, "last")
    assert shown is not None
    assert shown.examined == {"bank": report.adapters["bank"]} == shown.live_after
    assert shown.trained[0].cost["tokens"] > 0
    assert shown.trained[0].new == shown.kept == 12
    text = "\n".join(told(shown))
    assert "promoted" in text
    assert "first_turn: accepted" in text
    assert len(text.splitlines()) < 25


def test_a_second_night_tells_new_from_known_and_leaves_a_repository_without_news_alone(tmp_path: Path, store: Store) -> None:
    first = slept(tmp_path, store)
    with pytest.raises(ConsolidationError, match="no repository has a batch"):
        slept(tmp_path, store)
    second = slept(tmp_path, store, data=pairs() + pairs(12, 8))
    assert [(run["new"], run["past"], run["previous"]) for run in second.trained] == [(8, 12, first.adapters["bank"])]
    assert sleeper(tmp_path, store, config()).publisher.previous() == first.adapters


def test_one_adapter_for_all_serves_every_repository(tmp_path: Path, store: Store) -> None:
    report = slept(tmp_path, store, scope="all")
    assert list(report.adapters) == ["*"]
    assert report.night.verdict is not None
    assert report.night.verdict.promoted


def test_one_adapter_for_all_takes_the_place_of_those_of_single_repositories(tmp_path: Path, store: Store) -> None:
    slept(tmp_path, store)
    report = slept(tmp_path, store, scope="all", data=pairs() + pairs(12, 8))
    assert list(sleeper(tmp_path, store, config()).publisher.live()) == list(report.adapters) == ["*"]


def test_a_repository_that_cannot_be_learnt_costs_the_others_nothing(tmp_path: Path, store: Store) -> None:
    few = [pair.model_copy(update={"repo": "thin"}) for pair in pairs(12, 4)]
    settings = {**LORA.model_dump(), "validation": 0.5}
    report = slept(tmp_path, store, data=pairs() + few, lora=settings)
    assert list(report.adapters) == ["bank"]
    shown = night_shown(store, "last")
    assert shown is not None
    assert "fewer than one batch" in shown.refused["thin"]


def test_an_adapter_that_was_taken_out_for_good_is_not_taken_in_again_by_training(tmp_path: Path, store: Store) -> None:
    first = slept(tmp_path, store)
    publisher = sleeper(tmp_path, store, config()).publisher
    publisher.make_live({})
    publisher.adapters.judge(first.adapters["bank"], "rejected", "it failed in bank", barred=True)
    again = slept(tmp_path, store)
    assert again.adapters == first.adapters
    assert again.night.verdict is not None
    assert not again.night.verdict.promoted
    assert "taken out of service for good: it failed in bank" in again.night.verdict.why
    assert publisher.live() == {}


def test_what_is_live_by_another_hand_is_not_replaced(tmp_path: Path, store: Store) -> None:
    def meddle(phase: str) -> None:
        if phase == "publish":
            publisher = sleeper(tmp_path, store, config()).publisher
            publisher.make_live({"shop": publisher.adapters.list()[0].id})

    with pytest.raises(AdapterError, match="changed while the night was open"):
        sleeper(tmp_path, store, config(), FirstTurn(), on_phase=meddle).sleep(pairs)
    assert list(sleeper(tmp_path, store, config()).publisher.live()) == ["shop"]


def test_a_night_that_published_is_never_told_as_one_that_did_not(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(night: object) -> None:
        raise Killed

    monkeypatch.setattr(store, "close_night", killed)
    with pytest.raises(Killed):
        slept(tmp_path, store)
    monkeypatch.undo()
    report = sleeper(tmp_path, store, config(seed=1), FirstTurn()).sleep(pairs, night=store.open_night_now())
    assert report.night.verdict is not None
    assert report.night.verdict.promoted


def test_seeds_and_checkpoints_compete_and_what_chose_judges_nothing(tmp_path: Path, store: Store) -> None:
    guard = FirstTurn()
    report = slept(tmp_path, store, guard, seeds=2, lora={**LORA.model_dump(), "checkpoints": 2, "epochs": 2})
    chosen = store.step_result(report.night.id, "choose")
    judged = store.step_result(report.night.id, "guards")
    assert chosen is not None
    assert judged is not None
    assert len(chosen["scores"]) == 4
    assert chosen["spent"]
    assert judged["verdict"]["numbers"]["first_turn.of"] == len(held()[1]) - len(chosen["spent"])
    states = [each.standing.state for each in sleeper(tmp_path, store, config()).publisher.adapters.list()]
    assert sorted(states) == ["passed", "rejected", "rejected", "rejected"]


def test_a_dry_run_tells_what_would_be_trained_on_and_leaves_no_trace(tmp_path: Path, store: Store) -> None:
    night = sleeper(tmp_path, store, config(), FirstTurn())
    filtered, lessons = night.rehearse(pairs() + pairs()[:3], held_out_of(*held()))
    assert filtered.dropped == {"duplicate": 3}
    assert len(lessons["bank"].new) == 12
    assert store.nights() == []
    assert not (tmp_path / "adapters").exists()
    assert not (tmp_path / "nights").exists()


class TestPoisonedNights:
    def refused(self, tmp_path: Path, store: Store, why: str) -> None:
        """Nothing is live, and the night says why."""
        assert sleeper(tmp_path, store, config()).publisher.live() == {}
        shown = night_shown(store, "last")
        assert shown is not None
        assert (shown.promoted, why in shown.why) == (False, True), shown

    def test_attempts_that_resolved_nothing_are_not_learnt_from(self, tmp_path: Path, store: Store) -> None:
        mislabelled = [pair.model_copy(update={"source": "agent"}) for pair in pairs()]
        night = sleeper(tmp_path, store, config(), FirstTurn(), verified=lambda attempt: False)
        with pytest.raises(ConsolidationError, match="'not_verified': 12"):
            night.sleep(lambda: mislabelled)
        self.refused(tmp_path, store, "not_verified")

    def test_wrong_labels_are_found_out_by_the_guards(self, tmp_path: Path, store: Store) -> None:
        wrong = [_looking_first(pair) for pair in pairs()]
        settings = {**LORA.model_dump(), "learning_rate": 2e-2, "epochs": 6, "serving_scale": 1.0}
        report = slept(tmp_path, store, data=wrong, lora=settings, filters={"shortcuts": False})
        assert report.night.verdict is not None
        assert not report.night.verdict.promoted
        self.refused(tmp_path, store, "first_turn: rejected")
        assert [each.standing.state for each in sleeper(tmp_path, store, config()).publisher.adapters.list()] == ["rejected"]

    def test_held_out_tasks_are_left_out_by_id_and_by_text(self, tmp_path: Path, store: Store) -> None:
        ids = [pair.task_id for pair in pairs()]
        leaky = held_out_of(source := PocketStream.of(ids), source.tasks())
        renamed = [pair.model_copy(update={"task_id": f"other-{n}"}) for n, pair in enumerate(pairs())]
        night = sleeper(tmp_path, store, config(), FirstTurn())
        with pytest.raises(ConsolidationError, match="'leak': 24"):
            night.sleep(lambda: pairs() + renamed, leaky)
        self.refused(tmp_path, store, "leak")

    def test_what_became_held_out_after_it_was_learnt_is_not_promoted(self, tmp_path: Path, store: Store) -> None:
        guard = FirstTurn(after=_stop_at(1))
        night = sleeper(tmp_path, store, config(), guard)
        with pytest.raises(Killed):
            night.sleep(pairs)
        leaky = held_out_of(source := PocketStream.of([pairs()[0].task_id]), source.tasks())
        report = sleeper(tmp_path, store, config(), FirstTurn()).sleep(pairs, leaky, store.open_night_now())
        assert report.night.verdict is not None
        assert not report.night.verdict.promoted
        self.refused(tmp_path, store, "pairs of held-out tasks among those trained on: 1")

    def test_an_adapter_without_effect_is_not_promoted(self, tmp_path: Path, store: Store) -> None:
        slept(tmp_path, store, lora={**LORA.model_dump(), "learning_rate": 1e-7})
        self.refused(tmp_path, store, "it has no effect")

    def test_a_training_that_diverges_ends_the_night(self, tmp_path: Path, store: Store) -> None:
        with pytest.raises(TrainingRefused, match=r"nothing would be learnt|finite"):
            slept(tmp_path, store, lora={**LORA.model_dump(), "learning_rate": 1e30, "epochs": 3})
        self.refused(tmp_path, store, "TrainingRefused")

    def test_an_adapter_that_is_swapped_while_it_is_examined_is_not_promoted(self, tmp_path: Path, store: Store) -> None:
        slept(tmp_path, store, FirstTurn(after=lambda asked: _swap(tmp_path)))
        self.refused(tmp_path, store, "was changed while it was examined")

    def test_an_adapter_that_is_swapped_after_its_guards_is_not_put_to_work(self, tmp_path: Path, store: Store) -> None:
        night = sleeper(
            tmp_path, store, config(), FirstTurn(), on_phase=lambda phase: _swap(tmp_path) if phase == "publish" else None
        )
        with pytest.raises(AdapterError, match="was changed"):
            night.sleep(pairs)
        self.refused(tmp_path, store, "was changed")

    def test_a_guard_that_is_killed_midway_goes_on_and_one_that_fails_refuses(self, tmp_path: Path, store: Store) -> None:
        with pytest.raises(Killed):
            sleeper(tmp_path, store, config(), FirstTurn(after=_stop_at(9))).sleep(pairs)
        assert sleeper(tmp_path, store, config()).publisher.live() == {}
        guard = FirstTurn()
        report = sleeper(tmp_path, store, config(), guard).sleep(pairs, night=store.open_night_now())
        assert report.night.verdict is not None
        assert report.night.verdict.promoted
        assert len(guard.asked) == 8  # the candidate's answers; the base's were there before the kill

        def failing(asked: int) -> None:
            raise RuntimeError("the disk is on fire")

        slept(tmp_path, store, FirstTurn(after=failing), data=pairs(12, 8))
        shown = night_shown(store, "last")
        assert shown is not None
        assert shown.promoted is False
        assert "the disk is on fire" in shown.why

    def test_without_a_guard_nothing_is_promoted(self, tmp_path: Path, store: Store) -> None:
        sleeper(tmp_path, store, config()).sleep(pairs)
        self.refused(tmp_path, store, "no guard was run")


class Killed(BaseException):
    """The process is gone."""


def _stop_at(count: int) -> Any:
    def stop(asked: int) -> None:
        if asked >= count:
            raise Killed

    return stop


def _swap(place: Path) -> None:
    for path in itertools.chain.from_iterable((place / "adapters").glob(f"*/{name}") for name in ARTEFACTS[1:]):
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\x80\x3f")


def _looking_first(pair: Pair) -> Pair:
    """The same conversation, in which the agent begins by looking at a file that is not there."""
    (prompt, _, *rest) = pair.messages
    return pair.model_copy(update={"messages": (prompt, ("assistant", "view nothing.py"), *rest), "untaught": (1, 2, 3, 4)})
