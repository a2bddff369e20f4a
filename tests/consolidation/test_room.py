"""Room for training: the estimate holds against a real run, the served model leaves first, and what does not fit is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file

from agent.pocket import WEIGHTS
from consolidation.errors import TrainingRefused
from consolidation.room import KNOWN, RoomyTrainer, available_mb, estimate, shape_of
from consolidation.trainers.base import Example, Item, Job, LoraConfig, Progress, Trained, write_job

JOB = Job(base=WEIGHTS, lora=LoraConfig(batch_size=4))
EXAMPLES = [Example(ids=[7] * n, own=[True] * n) for n in (20, 300, 40, 50)]


class Recording:
    """A trainer that only remembers when it was asked."""

    name = "torch"

    def __init__(self) -> None:
        self.order: list[str] = []

    def fit(self, job: Job, examples: Sequence[Item], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        self.order.append("fit")
        return Trained(folder=out, examples=4, tokens=1, steps=1, seconds=1.0, loss_first=1.0, loss_last=1.0)

    def loss(self, job: Job, examples: Sequence[Example], adapter: Path | None = None) -> list[float]:
        self.order.append("loss")
        return []

    def fisher(self, job: Job, examples: Sequence[Example], out: Path, adapter: Path | None = None) -> Path:
        self.order.append("fisher")
        return out


def roomy(inner: Recording, free: Sequence[int], used: list[str]) -> RoomyTrainer:
    left = iter(free)
    return RoomyTrainer(inner, lambda: used.append("leave"), available=lambda: next(left))


def test_the_served_model_leaves_before_the_room_is_measured(tmp_path: Path) -> None:
    inner = Recording()

    def free() -> int:
        inner.order.append("measure")
        return 10**6

    RoomyTrainer(inner, lambda: inner.order.append("leave"), available=free).fit(JOB, EXAMPLES, tmp_path, print)
    waiting = RoomyTrainer(inner, lambda: inner.order.append("leave"), available=free)
    waiting.loss(JOB, EXAMPLES)
    waiting.fisher(JOB, EXAMPLES, tmp_path)
    assert inner.order == ["leave", "measure", "fit", "leave", "measure", "loss", "leave", "measure", "fisher"]


def test_a_job_that_does_not_fit_is_refused_with_what_would_help(tmp_path: Path) -> None:
    inner = Recording()
    with pytest.raises(TrainingRefused, match=r"and 800 MiB are free; choose a smaller or 4-bit base"):
        roomy(inner, [800], []).fit(JOB, EXAMPLES, tmp_path, print)
    assert inner.order == []


def test_the_weights_of_a_folder_are_counted_without_reading_them() -> None:
    shape = shape_of(WEIGHTS)
    tensors = load_file(WEIGHTS / "model.safetensors")
    assert shape.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert shape.stored == 2 * shape.parameters
    assert tensors["model.embed_tokens.weight"].shape == (shape.vocabulary, shape.hidden)


def test_more_of_anything_takes_more_room() -> None:
    shape, lora = shape_of(WEIGHTS), LoraConfig(batch_size=4)
    least = estimate(shape, lora, 500).total
    assert estimate(shape, lora, 1000).total > least
    assert estimate(shape, lora.model_copy(update={"batch_size": 8}), 500).total > least
    assert estimate(shape, lora.model_copy(update={"rank": 256}), 500).total > least
    assert estimate(shape, lora, 500, bytes_per_weight=4).total > least
    assert estimate(shape, lora, 500, checkpointing=True).total < least


def test_on_a_mac_with_32_gib_the_known_models_fit_as_the_documentation_says() -> None:
    def gib(name: str, tokens: int) -> float:
        lora = LoraConfig(rank=16, batch_size=1)
        return estimate(KNOWN[name], lora, tokens, checkpointing=True, bytes_per_weight=4.5 / 8).total / 1024

    assert gib("Qwen 2.5 Coder 7B", 4096) < 16
    assert gib("Qwen 2.5 Coder 14B", 4096) < 24
    assert gib("Qwen 2.5 Coder 32B", 1024) < 24 < gib("Qwen 2.5 Coder 32B", 2048)


@pytest.mark.parametrize("damage", ["no config", "no json", "huge header", "cut"])
def test_a_folder_that_is_no_model_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(WEIGHTS, folder)
    weights = folder / "model.safetensors"
    if damage == "no config":
        (folder / "config.json").unlink()
    elif damage == "no json":
        (folder / "config.json").write_text("[]")
    elif damage == "huge header":
        weights.write_bytes(b"\xff" * 16)
    else:
        weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(TrainingRefused, match="no readable model folder"):
        shape_of(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the child's peak as Linux counts it")
def test_the_estimate_is_above_what_a_real_job_takes_and_not_far_above(tmp_path: Path) -> None:
    lora = LoraConfig(batch_size=8, epochs=1)
    job = Job(base=WEIGHTS, lora=lora)
    examples = [Example(ids=[7, *range(10, 1000)], own=[True] * 991) for _ in range(8)]
    write_job(tmp_path, job, examples)
    code = (
        "import resource, sys; from consolidation.trainers.child import main; main(['', sys.argv[1], '0', '0']);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        peak = int(child.stdout.read().splitlines()[-1])  # its input stays open: at its end the child would end
    need = estimate(shape_of(WEIGHTS), lora, 991, bytes_per_weight=4).total
    print(f"estimated {need} MiB, took {peak} MiB")
    assert peak < need < 4 * peak


def test_this_machine_has_memory() -> None:
    assert available_mb() > 0
