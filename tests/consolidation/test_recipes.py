"""What recipes and jobs can say beyond the usual, on both engines: starts, penalties, checkpoints, precision, 4-bit bases."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from agent.pocket import WEIGHTS
from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Penalty
from consolidation.trainers.batches import rows
from consolidation.trainers.loop import LocalTrainer
from tests.consolidation.lessons import ENGINES, job, lessons, losses, trainer_of, weights


@pytest.fixture(params=ENGINES)
def trainer(request: pytest.FixtureRequest) -> LocalTrainer:
    return trainer_of(request.param)


def test_training_goes_on_from_an_adapter_at_the_scale_it_was_trained_at(trainer: LocalTrainer, tmp_path: Path) -> None:
    whole = trainer.fit(job(batch_size=4, serving_scale=1.0), lessons(), tmp_path / "whole", lambda progress: None).folder
    trainer.fit(job(batch_size=4), lessons(), tmp_path / "served", lambda progress: None)
    first = losses(trainer, job(batch_size=4, start=tmp_path / "served"), lessons(), tmp_path / "next")[0]
    own = [sum(e.own[1:]) for e in lessons()]
    known = trainer.loss(job(), lessons(), whole)
    assert first == pytest.approx(sum(n * x for n, x in zip(own, known, strict=True)) / sum(own), abs=1e-4)


def test_a_penalty_holds_what_was_important(trainer: LocalTrainer, tmp_path: Path) -> None:
    anchor = trainer.fit(job(), lessons(), tmp_path / "anchor", lambda progress: None).folder
    fisher = trainer.fisher(job(), lessons(), tmp_path / "fisher.safetensors", anchor)
    at, important = load_file(anchor / "adapter_model.safetensors"), load_file(fisher)
    moved = []
    for name, weight in (("free", 1e-9), ("held", 1e5)):
        penalty = Penalty(fisher=fisher, anchor=anchor, weight=weight)
        held = job(start=anchor, penalty=penalty, epochs=6)
        trainer.fit(held, lessons(6)[4:], tmp_path / name, lambda progress: None)
        now = load_file(tmp_path / name / "adapter_model.safetensors")
        moved.append(sum((important[n] * (now[n] - at[n]) ** 2).sum().item() for n in at))
    assert moved[1] < 0.3 * moved[0]


def test_accumulation_packing_and_checkpointed_gradients_change_nothing_but_the_cost(
    trainer: LocalTrainer, tmp_path: Path
) -> None:
    plain = job(batch_size=4, epochs=2)
    small = plain.machine.model_copy(update={"row_tokens": 60})
    others = {
        "accumulated": job(batch_size=2, accumulate=2, epochs=2),
        "packed": job(batch_size=4, batching="packed", epochs=2, machine=small),
        "frugal": job(batch_size=4, epochs=2, machine=small.model_copy(update={"gradient_checkpointing": True})),
    }
    widths = [e.width for e in lessons()]
    assert 1 < len(rows(range(4), widths, 60, trainer.name == "mlx")) < 4  # some are joined, not all
    expected = losses(trainer, plain, lessons(), tmp_path / "plain")
    for name, other in others.items():
        assert losses(trainer, other, lessons(), tmp_path / name) == pytest.approx(expected, abs=2e-4), name


def test_checkpoints_are_all_handed_out_with_their_validation_losses(trainer: LocalTrainer, tmp_path: Path) -> None:
    recipe = job(epochs=2, checkpoints=2, validation=0.34, serving_scale=1.0)
    trained = trainer.fit(recipe, lessons(6), tmp_path / "a", lambda progress: None)
    assert [c.step for c in trained.checkpoints] == [2, 4]
    assert trained.tokens < 2 * sum(e.tokens for e in lessons(6))
    assert weights(trained.checkpoints[1].folder) == weights(trained) != weights(trained.checkpoints[0].folder)
    for checkpoint in trained.checkpoints:
        alone = trainer.loss(recipe, lessons(6), checkpoint.folder)
        pairs = [(a + b) / 2 for i, a in enumerate(alone) for b in alone[i + 1 :]]
        assert any(math.isclose(pair, checkpoint.validation or 0, abs_tol=1e-4) for pair in pairs)


def test_training_stops_when_validation_gets_worse_and_hands_out_the_best(trainer: LocalTrainer, tmp_path: Path) -> None:
    wild = job(epochs=6, checkpoints=6, validation=0.2, patience=1, learning_rate=0.3, batch_size=4)
    trained = trainer.fit(wild, lessons(5), tmp_path / "a", lambda progress: None)
    found = [c.validation or 0.0 for c in trained.checkpoints]
    assert trained.stopped_early
    assert trained.steps == len(found) < 6
    assert found[-1] > min(found)
    assert weights(trained) == weights(trained.checkpoints[found.index(min(found))].folder)


def test_starts_and_penalties_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    trainer = trainer_of("torch")
    there = trainer.fit(job(), lessons(), tmp_path / "a", lambda progress: None).folder
    fisher = trainer.fisher(job(), lessons(2), tmp_path / "f.safetensors", there)

    def refused(why: str, **changes: Any) -> None:
        with pytest.raises(TrainingRefused, match=why):
            trainer.fit(job(**changes), lessons(), tmp_path / "b", lambda progress: None)

    refused("its rank is 2, the job's 3", start=there, rank=3)
    refused("its alpha is 3.0, the job's 6.0", start=there, alpha=8.0)
    refused("its targets is", start=there, targets=("q_proj", "v_proj"))
    refused("cannot start there", start=tmp_path / "none")
    (there / "manifest.json").write_text('{"base": "one"}')
    refused("trained on another base", start=there, base_hash="two")
    (there / "state.json").write_text('{"state": "rejected"}')
    refused("a rejected adapter is never a starting point", start=there)
    (there / "state.json").write_text("{")
    refused("cannot be read", start=there)
    (there / "state.json").unlink()
    broken = load_file(fisher)
    name = next(iter(broken))
    damages: dict[str, dict[str, torch.Tensor]] = {
        "other layers": {name: broken[name]},
        "not negative": {**broken, name: -torch.ones_like(broken[name])},
        "finite": {**broken, name: torch.full_like(broken[name], math.nan)},
        "not all zero": {n: torch.zeros_like(t) for n, t in broken.items()},
    }
    for why, tensors in damages.items():
        save_file(tensors, tmp_path / "bad.safetensors")
        refused(why, penalty=Penalty(fisher=tmp_path / "bad.safetensors", anchor=there, weight=1.0))
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    refused("no readable Fisher information", penalty=Penalty(fisher=tmp_path / "bad.safetensors", anchor=there, weight=1.0))


def test_a_base_quantised_for_mlx_trains_there_and_is_refused_by_torch(tmp_path: Path) -> None:
    mlx = trainer_of("mlx")
    from mlx_lm.utils import load_model, quantize_model, save_config, save_model

    base = tmp_path / "q4"
    model, config = quantize_model(*load_model(WEIGHTS), 64, 4)
    base.mkdir()
    save_model(base, model)
    save_config(config, base / "config.json")
    quantised = job(epochs=3).model_copy(update={"base": base})
    seen = losses(mlx, quantised, lessons(), tmp_path / "a")
    assert seen[-1] < seen[0]
    assert mlx.loss(quantised, lessons(), tmp_path / "a") < mlx.loss(quantised, lessons())
    with pytest.raises(TrainingRefused, match="quantised for MLX"):
        trainer_of("torch").fit(quantised, lessons(), tmp_path / "b", lambda progress: None)


def test_four_bits_are_refused_where_nothing_can_train_on_them(trainer: LocalTrainer, tmp_path: Path) -> None:
    machine = job().machine.model_copy(update={"quantise": "nf4"})
    with pytest.raises(TrainingRefused, match=r"mlx_lm\.convert -q"):
        trainer.fit(job(machine=machine), lessons(), tmp_path / "a", lambda progress: None)


def test_half_the_bits_learn_the_same(trainer: LocalTrainer, tmp_path: Path) -> None:
    exact = losses(trainer, job(), lessons(), tmp_path / "f32")
    rough = losses(trainer, job(precision="bf16"), lessons(), tmp_path / "bf16")
    assert rough == pytest.approx(exact, abs=0.05)
    assert rough != exact
    assert {t.dtype for t in load_file(tmp_path / "bf16/adapter_model.safetensors").values()} == {torch.float32}
