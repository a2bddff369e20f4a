"""Room for training: how much memory a job will take, whether it is there, and who has to leave first.

On a machine with unified memory the served model and the training share what there is. So the
served model is unloaded before training begins, and only then is it asked whether the job fits.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil

from consolidation.errors import TrainingRefused
from consolidation.trainers.base import Example, Item, Job, LoraConfig, Progress, Trained, Trainer

MB = 1 << 20
PROCESS_MB = 700
"""What an interpreter with its libraries takes before it holds a model."""
HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class Estimate:
    """Peak memory (MiB) of a training job, by part."""

    weights: int
    adapter: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it, the process included."""
        return self.weights + self.adapter + self.activations + self.logits + PROCESS_MB

    def __str__(self) -> str:
        parts = f"weights {self.weights}, adapter {self.adapter}, activations {self.activations}, logits {self.logits}"
        return f"{self.total} MiB ({parts}, process {PROCESS_MB})"


@dataclass(frozen=True)
class Shape:
    """What a model's memory depends on; `stored` is the size of its weights (bytes) as they lie on disk."""

    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    parameters: int
    stored: int


def shape_of(folder: Path) -> Shape:
    """Read from a model folder's configuration and the headers of its weights.

    Raises:
        TrainingRefused: it cannot be read as a model.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = [entry for path in sorted(folder.glob("*.safetensors")) for entry in _header(path)]
        return Shape(
            hidden=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            inner=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            parameters=sum(count for count, _ in tensors),
            stored=sum(size for _, size in tensors),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise TrainingRefused(f"{folder}: no readable model folder ({error!r}); set model.base to one") from error


def estimate(
    shape: Shape,
    lora: LoraConfig,
    longest: int,
    *,
    checkpointing: bool = False,
    bytes_per_weight: float | None = None,
) -> Estimate:
    """Peak memory of a LoRA job whose longest example has so many tokens.

    Weights are taken as they lie on disk, or at `bytes_per_weight`. Activations follow Korthikanti et al. 2022
    ("Reducing Activation Recomputation in Large Transformer Models", eq. 2 and 4: 34 sbh + 5 a s^2 b bytes per layer in 16 bit,
    2 sbh with checkpointing plus one whole layer), doubled for 32-bit weights. The adapter counts 16 bytes a parameter
    (weight, gradient, two moments), the logits 8 bytes each (value and gradient in float32).
    """
    weights = shape.stored if bytes_per_weight is None else shape.parameters * bytes_per_weight
    wide = 2 if bytes_per_weight == 4 else 1
    tokens = lora.batch_size * longest
    layer = wide * (34 * tokens * shape.hidden + 5 * shape.heads * longest * tokens)
    kept = 2 * wide * tokens * shape.hidden if checkpointing else layer
    activations = shape.layers * kept + (layer if checkpointing else 0)
    attention = {"q_proj", "k_proj", "v_proj", "o_proj"}
    widths = sum(2 * shape.hidden if target in attention else shape.hidden + shape.inner for target in lora.targets)
    adapter = 16 * shape.layers * lora.rank * widths
    return Estimate(*(int(part / MB) + 1 for part in (weights, adapter, activations, 8 * tokens * shape.vocabulary)))


def _header(path: Path) -> list[tuple[int, int]]:
    """Count of elements and bytes of each tensor, from a safetensors file's header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > HEADER_LIMIT:
            raise ValueError(f"{path.name} has a header of {length} bytes")
        found: dict[str, Any] = json.loads(file.read(length))
    entries = [entry for name, entry in found.items() if name != "__metadata__"]
    return [(prod(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0]) for entry in entries]


def available_mb() -> int:
    """Memory (MiB) that can be had without swapping."""
    return int(psutil.virtual_memory().available) // MB


@dataclass(frozen=True)
class RoomyTrainer:
    """A trainer that first has the served model leave, and refuses a job for which there is no room."""

    inner: Trainer
    make_room: Callable[[], None]
    available: Callable[[], int] = available_mb

    @property
    def name(self) -> str:
        """Which engine trains."""
        return self.inner.name

    def fit(self, job: Job, examples: Sequence[Item], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        """See the `Trainer` seam.

        Raises:
            TrainingRefused: also where the job would not fit into memory; the text says what would help.
        """
        self._check(job, examples)
        return self.inner.fit(job, examples, out, on_step)

    def loss(self, job: Job, examples: Sequence[Example], adapter: Path | None = None) -> list[float]:
        """See the `Trainer` seam."""
        self._check(job, examples)
        return self.inner.loss(job, examples, adapter)

    def fisher(self, job: Job, examples: Sequence[Example], out: Path, adapter: Path | None = None) -> Path:
        """See the `Trainer` seam."""
        self._check(job, examples)
        return self.inner.fisher(job, examples, out, adapter)

    def _check(self, job: Job, examples: Sequence[Item]) -> None:
        longest = max((item.tokens for item in examples), default=2)
        need = estimate(
            shape_of(job.base),
            job.lora,
            longest,
            checkpointing=job.machine.gradient_checkpointing,
            bytes_per_weight=_bytes_per_weight(job, self.name),
        )
        self.make_room()
        there = self.available()
        if need.total > there:
            raise TrainingRefused(
                f"training takes about {need}, and {there} MiB are free; choose a smaller or 4-bit base, a smaller night.lora."
                f"batch_size (now {job.lora.batch_size}) or night.context (now {job.context}), or close other programs"
            )


def _bytes_per_weight(job: Job, engine: str) -> float | None:
    """As the engine holds the base; None for as it lies on disk."""
    if engine == "mlx":
        return None
    if job.machine.quantise == "nf4":
        return FOUR_BIT
    return 4 if job.lora.precision == "f32" else 2


KNOWN = {
    "Qwen 2.5 Coder 7B": Shape(3584, 28, 28, 18_944, 152_064, 7_620_000_000, 0),
    "Qwen 2.5 Coder 14B": Shape(5120, 48, 40, 13_824, 152_064, 14_770_000_000, 0),
    "Qwen 2.5 Coder 32B": Shape(5120, 64, 40, 27_648, 152_064, 32_760_000_000, 0),
    "DeepSeek-R1-Distill-Qwen-32B": Shape(5120, 64, 40, 27_648, 152_064, 32_760_000_000, 0),
    "Command R 35B": Shape(8192, 40, 64, 22_528, 256_000, 34_980_000_000, 0),
    "Qwen3-Coder-30B-A3B": Shape(2048, 48, 32, 6_144, 151_936, 30_530_000_000, 0),
}
"""Models of the programme: sizes from their published configurations."""
FOUR_BIT = 4.5 / 8
"""Bytes per weight of a 4-bit base with a scale and an offset (16 bit each) for every 64 weights."""


def main() -> None:
    """`python -m consolidation.room`: the table of docs/models.md."""
    lora = LoraConfig(rank=16, batch_size=1)
    print("| model | 1,024 tokens | 2,048 tokens | 4,096 tokens |\n|---|---|---|---|")
    for name, shape in KNOWN.items():
        needs = (estimate(shape, lora, n, checkpointing=True, bytes_per_weight=FOUR_BIT).total for n in (1024, 2048, 4096))
        print(f"| {name} | {' | '.join(f'{need / 1024:.1f} GiB' for need in needs)} |")


if __name__ == "__main__":
    main()
