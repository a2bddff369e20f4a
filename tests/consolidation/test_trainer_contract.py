"""One contract for every trainer: torch and MLX do the same to the same job."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from agent.adapters import Factors, Lora, read_peft
from agent.pocket import WEIGHTS
from agent.pocket.model import PocketModel
from consolidation.errors import TrainingRefused
from consolidation.layouts.peft import write_peft
from consolidation.trainers.base import Example
from consolidation.trainers.checks import check_step
from consolidation.trainers.initial import first_factors
from consolidation.trainers.loop import LocalTrainer
from tests.consolidation.lessons import ENGINES, job, lessons, losses, preferences, trainer_of, weights

RECIPES: dict[str, dict[str, Any]] = {
    "sft": {"epochs": 2},
    "kl": {"kl_weight": 2.0},
    "packed": {"batching": "packed", "batch_size": 4, "epochs": 2},
    "accumulated": {"accumulate": 2, "kl_weight": 2.0, "epochs": 2},
    "dpo": {"objective": "dpo"},
}


@pytest.fixture(params=ENGINES)
def trainer(request: pytest.FixtureRequest) -> LocalTrainer:
    return trainer_of(request.param)


def differ(lora: Lora, by: float) -> Lora:
    """The adapter with one factor changed a little."""
    path = next(iter(lora.layers))
    moved = lora.layers[path].b + by
    return replace(lora, layers={**lora.layers, path: Factors(lora.layers[path].a, moved)})


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_engines_agree_on_every_step(recipe: str, tmp_path: Path) -> None:
    data = preferences() if recipe == "dpo" else lessons()
    one, two = (losses(trainer_of(e), job(**RECIPES[recipe]), data, tmp_path / e) for e in ENGINES)
    assert len(one) == RECIPES[recipe].get("epochs", 1) * (1 if recipe in ("packed", "accumulated") else 2)
    assert one == pytest.approx(two, abs=1e-3)
    assert abs(one[0] - two[0]) < 1e-4
    mine, theirs = (load_file(tmp_path / e / "adapter_model.safetensors") for e in ENGINES)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert (tensor - theirs[name]).norm() < 0.02 * tensor.norm(), name  # Adam blows up what is nearly no gradient


def test_training_reports_every_step_and_lowers_the_loss_of_what_it_saw(trainer: LocalTrainer, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    trained = trainer.fit(job(epochs=3), lessons(), tmp_path / "a", lambda p: steps.append((p.step, p.steps)))
    assert steps == [(n, 6) for n in range(1, 7)]
    assert trained.tokens == 3 * sum(len(e.ids) for e in lessons())
    assert trained.loss_last < trained.loss_first
    before, after = trainer.loss(job(), lessons()), trainer.loss(job(), lessons(), trained.folder)
    assert all(b > a for b, a in zip(before, after, strict=True))
    lora = read_peft(trained.folder)
    assert (lora.rank, lora.alpha, len(lora.layers)) == (2, 0.75 * 4, 35)


def test_a_seed_decides_every_bit(trainer: LocalTrainer, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer.fit(job(seed=seed), lessons(), tmp_path / name, lambda progress: None)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "c")
    assert (tmp_path / "a/adapter_config.json").read_bytes() == (tmp_path / "b/adapter_config.json").read_bytes()


def test_the_first_weights_are_those_that_peft_draws() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    torch.manual_seed(7)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=list(job().lora.targets), task_type="CAUSAL_LM"))
    theirs = [p for n, p in model.named_parameters() if "lora_A" in n]
    mine = [f.a for f in first_factors(job(seed=7)).layers.values()]
    assert len(mine) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_loss_is_in_nats_per_own_token_of_each_example(trainer: LocalTrainer) -> None:
    network = PocketModel(slots=1).network
    expected = []
    with torch.no_grad():
        for e in lessons(3):
            scores = torch.log_softmax(network.logits(network.hidden(torch.tensor([e.ids])))[0].float(), -1)
            own = [i for i in range(1, len(e.ids)) if e.own[i]]
            expected.append(-sum(scores[i - 1, e.ids[i]].item() for i in own) / len(own))
    assert trainer.loss(job(), lessons(3)) == pytest.approx(expected, abs=1e-3)


def test_fisher_information_is_the_squared_slope_of_the_loss(trainer: LocalTrainer, tmp_path: Path) -> None:
    plain = job(serving_scale=1.0)
    here = trainer.fit(plain, lessons(), tmp_path / "a", lambda progress: None).folder
    found = load_file(trainer.fisher(plain, lessons(2), tmp_path / "f.safetensors", here))
    lora = read_peft(here)
    assert {n: t.shape for n, t in found.items()} == {
        n: t.shape for n, t in load_file(here / "adapter_model.safetensors").items()
    }
    assert all((t >= 0).all() for t in found.values())
    path = next(iter(lora.layers))
    name = f"base_model.model.{path}.lora_B.weight"
    largest = (found[name] == found[name].max()).float()
    slopes = []
    for sign in (1, -1):
        write_peft(differ(lora, 2e-2 * sign * largest), tmp_path / str(sign), "x")
        slopes.append(trainer.loss(plain, lessons(2), tmp_path / str(sign)))
    expected = sum(((a - b) / 4e-2) ** 2 for a, b in zip(*slopes, strict=True)) / 2
    assert found[name].max().item() == pytest.approx(expected, rel=0.05)


def with_first(**changes: Any) -> list[Any]:
    return [Example.model_validate({**lessons(1)[0].model_dump(), **changes}), *lessons()[1:]]


REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "too few": ({"batch_size": 3, "accumulate": 2}, lessons(), "4 examples, fewer than one batch of 6"),
    "too few left": ({"validation": 0.5, "batch_size": 3}, lessons(), r"2 examples \(without 2 for validation\)"),
    "nothing to learn": ({}, with_first(own=[False] * lessons(1)[0].width), "example 0: the loss mask is empty"),
    "only the first token": ({}, with_first(ids=[7, 8], own=[True, False]), "example 0: the loss mask is empty"),
    "a wrong mask": ({}, with_first(own=[True]), "a mask of 1"),
    "too long": ({}, with_first(ids=[9] * 101, own=[True] * 101), "do not fit 100"),
    "a token below all": ({}, with_first(ids=[-1, 9], own=[True, True]), "-1 is no token id"),
    "a token above all": ({}, with_first(ids=[9, 1280], own=[True, True]), "the base has 1280 tokens and no 1280"),
    "another kind": ({}, preferences(), "example 0 is no Example"),
    "no preferences": ({"objective": "dpo"}, lessons(), "example 0 is no Preference"),
    "a layer that is not there": ({"targets": ("q_proj", "gone")}, lessons(), "no linear layers gone"),
    "a loss that is not finite": (
        {"learning_rate": 1e30, "max_grad_norm": 1e30, "epochs": 3},
        lessons(),
        "not finite|gradient",
    ),
    "a loss that stays": ({"learning_rate": 1e-30, "batch_size": 4, "epochs": 2}, lessons(), "nothing was learnt"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_teach_is_refused_and_leaves_no_adapter(trainer: LocalTrainer, case: str, tmp_path: Path) -> None:
    recipe, data, why = REFUSED[case]
    with pytest.raises(TrainingRefused, match=why):
        trainer.fit(job(**recipe), data, tmp_path / "a", lambda progress: None)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(("loss", "norm"), [(0.0, 1.0), (math.nan, 1.0), (math.inf, 1.0), (1.0, 0.0), (1.0, math.nan)])
def test_a_step_without_loss_or_gradient_is_refused(loss: float, norm: float) -> None:
    with pytest.raises(TrainingRefused, match="step 3"):
        check_step(loss, norm, 3)
