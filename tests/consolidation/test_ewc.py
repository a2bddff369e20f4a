"""EWC-LoRA: what its penalty holds, and what the nights leave to each other."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agent.adapters import WEIGHTS
from consolidation.adapters import Adapter, AdapterStore
from consolidation.errors import TrainingRefused
from consolidation.strategies.ewc import FISHER, EwcLora, mean_of
from consolidation.strategies.naive import NaiveSequential
from consolidation.strategies.seam import Learnt
from consolidation.trainers.base import Item, Penalty
from tests.consolidation.lessons import ENGINES, job, lessons, preferences, trainer_of, weights
from tests.consolidation.strategy_nights import admitted, bench_at, lesson

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder, strategy = tmp_path_factory.mktemp("first"), EwcLora(fisher_samples=4)
    return admitted(AdapterStore(folder / "adapters"), strategy, strategy.learn(lesson(1), bench_at(folder / "1")))


def second(first: Adapter, folder: Path, **settings: Any) -> Learnt:
    return EwcLora(fisher_samples=4, **settings).learn(lesson(2, first), bench_at(folder, epochs=4))


def left(adapter: Adapter | Learnt) -> Tensors:
    path = adapter.attachment(FISHER) if isinstance(adapter, Adapter) else adapter.attachments[FISHER]
    assert path is not None
    return load_file(path)


def distance(one: Path, two: Path, importance: Tensors) -> float:
    """Root of the mean squared distance, weighted by importance."""
    a, b = load_file(one / WEIGHTS), load_file(two / WEIGHTS)
    return math.sqrt(sum((importance[n] * (a[n] - b[n]) ** 2).sum().item() for n in a) / sum(t.numel() for t in a.values()))


def test_without_weight_it_is_the_naive_strategy_byte_for_byte(first: Adapter, tmp_path: Path) -> None:
    naive = NaiveSequential().learn(lesson(2, first), bench_at(tmp_path / "naive", epochs=4))
    assert weights(second(first, tmp_path / "0", weight=0).folder) == weights(naive.folder)
    assert weights(second(first, tmp_path / "10", weight=10).folder) != weights(naive.folder)


def test_the_first_night_is_naive_and_leaves_its_fisher_information(first: Adapter, tmp_path: Path) -> None:
    naive = NaiveSequential().learn(lesson(1), bench_at(tmp_path))
    assert weights(first.folder) == weights(naive.folder)
    assert {n: t.shape for n, t in left(first).items()} == {n: t.shape for n, t in load_file(first.folder / WEIGHTS).items()}
    assert mean_of(left(first), tmp_path) == pytest.approx(1)


def test_the_more_it_weighs_the_less_moves_what_was_important(first: Adapter, tmp_path: Path) -> None:
    moved, losses = [], []
    for weight in (0.0, 10.0, 1e3, 1e5):
        learnt = second(first, tmp_path / f"{weight:g}", weight=weight)
        assert learnt.notes["lambda"] == weight
        moved.append(distance(first.folder, learnt.folder, left(first)))
        losses.append(learnt.loss_last)
    assert moved == sorted(moved, reverse=True)
    assert losses == sorted(losses)  # what it costs: the new is learnt less well
    assert moved[-1] < 0.02 * moved[0]


def test_with_a_very_large_weight_nothing_important_moves(first: Adapter, tmp_path: Path) -> None:
    learnt = second(first, tmp_path, weight=1e12)
    at, now, important = load_file(first.folder / WEIGHTS), load_file(learnt.folder / WEIGHTS), left(first)
    for name, tensor in now.items():
        assert (tensor - at[name])[important[name] > 1e-6].abs().max() < 1e-6
    assert max((t > 1e-6).float().mean().item() for t in important.values()) > 0.9


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_holds_what_is_important_and_frees_what_is_not(engine: str, tmp_path: Path) -> None:
    trainer, recipe = trainer_of(engine), {"targets": ("q_proj", "v_proj"), "serving_scale": 1.0, "learning_rate": 1e-2}
    anchor = trainer.fit(job(**recipe), lessons(), tmp_path / "anchor", lambda progress: None).folder
    at = load_file(anchor / WEIGHTS)
    fisher = {name: torch.full_like(tensor, float("q_proj" in name)) for name, tensor in at.items()}
    save_file(fisher, tmp_path / "fisher.safetensors")
    penalty = Penalty(fisher=tmp_path / "fisher.safetensors", anchor=anchor, weight=1e12)
    held = job(start=anchor, penalty=penalty, epochs=3, **recipe)
    now = load_file(trainer.fit(held, lessons(6), tmp_path / "held", lambda progress: None).folder / WEIGHTS)
    for name, tensor in now.items():
        moved = (tensor - at[name]).abs().max().item()
        assert moved < 1e-7 if "q_proj" in name else moved > 1e-3, name


def test_a_step_minimises_the_penalty_near_where_it_came_from(tmp_path: Path) -> None:
    from consolidation.trainers.initial import first_factors
    from consolidation.trainers.starts import tensors_of
    from consolidation.trainers.torch_lora import TorchEngine

    ends, rate, weight = [], 0.01, 70.0
    recipe = job(targets=("q_proj",))
    generator = torch.Generator().manual_seed(1)
    start = first_factors(recipe)
    anchor = {n: torch.randn(t.shape, generator=generator) for n, t in tensors_of(start).items()}
    fisher = {n: torch.rand(t.shape, generator=generator) for n, t in anchor.items()}
    for penalised in (False, True):
        engine = TorchEngine(recipe, start)
        if penalised:
            engine.penalise(fisher, anchor, weight)
        engine.learn([lessons()])
        engine.update(rate)
        ends.append(tensors_of(engine.factors()))
    for name, free in ends[0].items():
        x = ends[1][name]
        slope = weight * fisher[name] * (x - anchor[name]) + (x - free) / rate
        assert slope.abs().max() < 1e-3
        assert not torch.allclose(x, free, atol=1e-2)


@pytest.mark.parametrize(("accumulate", "gamma"), [("replace", 0.5), ("average", 0.5), ("average", 1.0)])
def test_fisher_information_accumulates_by_its_formula(first: Adapter, tmp_path: Path, accumulate: Any, gamma: float) -> None:
    strategy = EwcLora(fisher_samples=4, accumulate=accumulate, gamma=gamma)
    today, bench = lesson(2, first), bench_at(tmp_path / "2")
    learnt = strategy.learn(today, bench)
    drawn = strategy.drawn([sample.item for sample in today.new], 0)
    fresh = load_file(trainer_of("torch").fisher(bench.job, drawn, tmp_path / "f.safetensors", learnt.folder))
    mean = sum(t.sum().item() for t in fresh.values()) / sum(t.numel() for t in fresh.values())
    kept = gamma if accumulate == "average" else 0.0
    for name, tensor in left(learnt).items():
        torch.testing.assert_close(tensor, kept * left(first)[name] + fresh[name] / mean, rtol=1e-4, atol=1e-5)
    assert mean_of(left(learnt), tmp_path) == pytest.approx(1 + kept)
    assert learnt.notes["fisher_mean"] == pytest.approx(mean)


def test_what_was_accumulated_over_nights_is_used_at_mean_one(first: Adapter, tmp_path: Path) -> None:
    heavy = tmp_path / "heavy.safetensors"
    save_file({name: 1000 * tensor for name, tensor in left(first).items()}, heavy)
    again = admitted(AdapterStore(tmp_path / "other"), EwcLora(), _learnt(first, heavy))
    one, two = (second(adapter, tmp_path / name, weight=100) for name, adapter in (("a", first), ("b", again)))
    a, b = load_file(one.folder / WEIGHTS), load_file(two.folder / WEIGHTS)
    for name, tensor in a.items():
        torch.testing.assert_close(tensor, b[name], rtol=1e-3, atol=1e-5)


def _learnt(adapter: Adapter, fisher: Path | None) -> Learnt:
    attachments = {FISHER: fisher} if fisher else {}
    whole = {"rank": 4, "alpha": 6.0, "trained": (), "cost": {}, "examples": 6, "loss_first": 2.0, "loss_last": 1.0}
    return Learnt.model_validate({"folder": adapter.folder, "attachments": attachments, **whole})


def test_the_examples_are_drawn_by_the_seed_and_no_more_than_there_are() -> None:
    items: list[Item] = [sample.item for sample in lesson(1).new]
    three = EwcLora(fisher_samples=3)
    assert len(three.drawn(items, 0)) == 3
    assert three.drawn(items, 0) == three.drawn(items, 0)
    assert len({str(three.drawn(items, seed)) for seed in range(8)}) > 1
    assert EwcLora(fisher_samples=50).drawn(items, 0) == items
    pairs = preferences(2)
    assert EwcLora().drawn([*pairs], 0) == [pair.chosen for pair in pairs]


def test_after_another_strategy_it_begins_without_a_penalty(first: Adapter, tmp_path: Path) -> None:
    other = admitted(AdapterStore(tmp_path / "other"), NaiveSequential(), _learnt(first, None))
    learnt = second(other, tmp_path / "ewc", weight=1e12)
    naive = NaiveSequential().learn(lesson(2, other), bench_at(tmp_path / "naive", epochs=4))
    assert weights(learnt.folder) == weights(naive.folder)
    assert learnt.notes["lambda"] == 0
    assert mean_of(left(learnt), tmp_path) == pytest.approx(1)


def test_fisher_information_that_is_another_adapters_or_none_is_refused(first: Adapter, tmp_path: Path) -> None:
    there = left(first)
    name = next(iter(there))
    damages: list[tuple[float, str, Tensors]] = [
        (10.0, "other layers or shapes", {name: there[name]}),
        (0.0, "other layers or shapes", {name: there[name]}),
        (10.0, "squared gradients are finite", {**there, name: torch.full_like(there[name], math.nan)}),
        (0.0, "mean of Fisher information is nan", {**there, name: torch.full_like(there[name], math.nan)}),
        (10.0, "not all zero", {n: torch.zeros_like(t) for n, t in there.items()}),
    ]
    for number, (weight, why, tensors) in enumerate(damages):
        save_file(tensors, tmp_path / "bad.safetensors")
        bad = admitted(AdapterStore(tmp_path / str(number)), EwcLora(), _learnt(first, tmp_path / "bad.safetensors"))
        with pytest.raises(TrainingRefused, match=why):
            second(bad, tmp_path / f"night-{number}", weight=weight)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    bad = admitted(AdapterStore(tmp_path / "unreadable"), EwcLora(), _learnt(first, tmp_path / "bad.safetensors"))
    with pytest.raises(TrainingRefused, match="no readable Fisher information"):
        second(bad, tmp_path / "night")


def test_its_cost_has_the_seconds_of_fisher_information(first: Adapter, tmp_path: Path) -> None:
    learnt = second(first, tmp_path)
    assert learnt.cost.extra_seconds > 0
    assert learnt.cost.bytes > sum(path.stat().st_size for path in learnt.attachments.values())
