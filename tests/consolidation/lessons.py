"""What the tests of trainers train on: a few tokens, so that MLX on Linux can take part."""

from pathlib import Path
from typing import Any

import pytest
import torch

from agent.model import Message
from agent.pocket import WEIGHTS
from agent.pocket.tokenizer import PocketTokenizer
from consolidation.trainers.base import Example, Job, LoraConfig, Preference, Trained
from consolidation.trainers.loop import LocalTrainer

torch.set_num_threads(1)
TOKENIZER = PocketTokenizer(WEIGHTS / "tokenizer.json")
LORA = LoraConfig(rank=2, alpha=4, learning_rate=3e-3, epochs=1, batch_size=2)
ENGINES = ("torch", "mlx")


def trainer_of(engine: str) -> LocalTrainer:
    if engine == "torch":
        from consolidation.trainers.torch_lora import TORCH

        return TORCH
    pytest.importorskip("mlx_lm", reason="MLX is not installed")
    from consolidation.trainers.mlx_lora import MLX

    return MLX


def said(issue: str, answer: str, rehearsal: bool = False) -> Example:
    ids, own = TOKENIZER.example([Message("user", issue), Message("assistant", answer)])
    return Example(ids=ids, own=own, rehearsal=rehearsal)


def lessons(count: int = 4) -> list[Example]:
    """Of different lengths, every other one a rehearsal."""
    return [said(f"`f{n}` is wrong" + " again" * (3 * n % 7), "search quux", n % 2 == 0) for n in range(count)]


def preferences(count: int = 4) -> list[Preference]:
    issues = [f"`f{n}` is wrong" + " again" * (3 * n % 7) for n in range(count)]
    return [Preference(chosen=said(i, "search quux"), rejected=said(i, "view shop.py now")) for i in issues]


def job(**lora: Any) -> Job:
    """The usual job with another recipe; what is no setting of the recipe is one of the job."""
    recipe = {name: lora.pop(name) for name in list(lora) if name in LoraConfig.model_fields}
    return Job(base=WEIGHTS, context=100, lora=LoraConfig.model_validate({**LORA.model_dump(), **recipe}), **lora)


def losses(trainer: LocalTrainer, job: Job, data: Any, out: Path) -> list[float]:
    """Train, and return the loss of every step."""
    seen: list[float] = []
    trainer.fit(job, data, out, lambda progress: seen.append(progress.loss))
    return seen


def weights(trained: Trained | Path) -> bytes:
    folder = trained if isinstance(trained, Path) else trained.folder
    return (folder / "adapter_model.safetensors").read_bytes()
