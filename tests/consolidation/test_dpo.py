"""Learning from preferences (Rafailov et al. 2023)."""

import math
from pathlib import Path

import pytest

from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Job, LoraConfig, Preference
from consolidation.trainers.loop import LocalTrainer
from consolidation.trainers.measure import preference_loss
from tests.consolidation.lessons import ENGINES, job, lessons, losses, preferences, said, trainer_of, weights

DPO = {"objective": "dpo", "batch_size": 2}


@pytest.fixture(params=ENGINES)
def trainer(request: pytest.FixtureRequest) -> LocalTrainer:
    return trainer_of(request.param)


def odds(trainer: LocalTrainer, pairs: list[Preference], adapter: Path | None) -> list[float]:
    """By how much (nats) what was chosen is likelier than what was rejected."""
    nats = [
        [n * sum(e.own[1:]) for n, e in zip(trainer.loss(job(), rows, adapter), rows, strict=True)]
        for rows in ([p.chosen for p in pairs], [p.rejected for p in pairs])
    ]
    return [r - c for c, r in zip(*nats, strict=True)]


def test_what_was_chosen_becomes_likelier_from_an_even_start(trainer: LocalTrainer, tmp_path: Path) -> None:
    seen = losses(trainer, job(**DPO), preferences(), tmp_path / "a")
    assert seen[0] == pytest.approx(math.log(2), abs=1e-5)
    assert seen[-1] < seen[0]
    before, after = odds(trainer, preferences(), None), odds(trainer, preferences(), tmp_path / "a")
    assert all(b < a for b, a in zip(before, after, strict=True))


def test_the_loss_is_equation_7(tmp_path: Path) -> None:
    """With all pairs in one batch, the loss of step two is that of the adapter after step one, whose odds are measured."""
    trainer = trainer_of("torch")
    recipe = {"objective": "dpo", "batch_size": 4, "epochs": 2, "beta": 0.3, "serving_scale": 1.0, "checkpoints": 2}
    seen = losses(trainer, job(**recipe), preferences(), tmp_path / "a")
    base, now = (odds(trainer, preferences(), at) for at in (None, tmp_path / "a-checkpoints/1"))
    margins = [0.3 * (n - b) for n, b in zip(now, base, strict=True)]
    assert seen[1] == pytest.approx(sum(-math.log(1 / (1 + math.exp(-m))) for m in margins) / 4, abs=1e-4)


def test_the_reference_is_the_base_or_the_start(trainer: LocalTrainer, tmp_path: Path) -> None:
    start = trainer.fit(job(learning_rate=1e-2), lessons(), tmp_path / "start", lambda progress: None).folder
    held = losses(trainer, job(**DPO, start=start, reference="start"), preferences(2), tmp_path / "a")
    free = losses(trainer, job(**DPO, start=start), preferences(2), tmp_path / "b")
    assert held[0] == pytest.approx(math.log(2), abs=1e-5)
    assert abs(free[0] - math.log(2)) > 1e-2


def test_a_reference_that_comes_with_the_pairs_is_not_computed(tmp_path: Path) -> None:
    given = [p.model_copy(update={"reference": (0.0, 0.0)}) for p in preferences()]
    assert losses(trainer_of("torch"), job(**DPO), given, tmp_path / "a")[0] != pytest.approx(math.log(2), abs=1e-2)


def test_packed_pairs_learn_the_same(tmp_path: Path) -> None:
    for name, batching in (("a", "bucket"), ("b", "packed")):
        recipe = job(objective="dpo", batch_size=4, epochs=2, batching=batching)
        losses(trainer_of("torch"), recipe, preferences(), tmp_path / name)
    one, two = (odds(trainer_of("torch"), preferences(), tmp_path / name) for name in "ab")
    assert one == pytest.approx(two, abs=1e-2)
    assert weights(tmp_path / "a") != weights(tmp_path / "b")


@pytest.mark.parametrize("margin", [-1e4, -3.0, 0.0, 3.0, 1e4])
def test_no_margin_overflows(margin: float) -> None:
    assert preference_loss(1.0, (margin, 0.0), (0.0, 0.0)) == pytest.approx(
        max(-margin, 0) + math.log1p(math.exp(-abs(margin)))
    )


def test_pairs_that_prefer_nothing_are_refused(tmp_path: Path) -> None:
    good = preferences()

    def refused(why: str, pair: Preference) -> None:
        with pytest.raises(TrainingRefused, match=why):
            trainer_of("torch").fit(job(**DPO), [*good, pair], tmp_path / "a", lambda progress: None)

    refused("example 4: .* different prompts", Preference(chosen=said("one", "test"), rejected=said("two", "test")))
    refused("example 4: .* different prompts", Preference(chosen=said("one", "test"), rejected=said("one more", "test")))
    refused("example 4: .* are the same", Preference(chosen=said("one", "test"), rejected=said("one", "test")))
    muted = good[0].rejected.model_copy(update={"own": [False] * good[0].rejected.tokens})
    refused("example 4: the loss mask is empty", good[0].model_copy(update={"rejected": muted}))


def test_recipes_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="dpo is held to its reference by beta"):
        LoraConfig(objective="dpo", kl_weight=1.0)
    with pytest.raises(ValueError, match="patience needs validation"):
        LoraConfig(patience=1, checkpoints=3)
    with pytest.raises(ValueError, match="patience needs validation above 0, and more checkpoints"):
        LoraConfig(patience=2, checkpoints=2, validation=0.1)
    with pytest.raises(ValueError, match="set start"):
        Job(base=Path("x"), lora=LoraConfig(objective="dpo", reference="start"))
