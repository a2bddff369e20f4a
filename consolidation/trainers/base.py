"""The `Trainer` seam: what a training job is, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from consolidation.errors import TrainingRefused

JOB_FILE = "job.json"
DATA_FILE = "examples.jsonl"
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoraConfig(BaseModel):
    """Low-rank adaptation and how it is trained (Hu et al. 2021).

    The weight change is `alpha / rank * B @ A`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rank: int = Field(default=16, ge=1)
    """Rank r of both factors."""
    alpha: float = Field(default=32.0, gt=0)
    """Numerator of the scale alpha / r."""
    serving_scale: float = Field(default=0.75, gt=0, le=1)
    """Share of the trained weight change that is served: the adapter is written with `alpha` times this. Less than
    the whole keeps more of the base (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models")."""
    targets: tuple[str, ...] = LINEAR_LAYERS
    """Names of the linear layers that are adapted."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak rate of AdamW; linear warm-up over 5 % of the steps, then linear decay."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the examples."""
    batch_size: int = Field(default=4, ge=1)
    """Examples per optimiser step."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Weight of KL(base || adapted) on rehearsal examples; 0 leaves it out."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""


class Example(BaseModel):
    """Token ids, which of them are the agent's own words, and whether it rehearses old skills."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: list[int] = Field(min_length=2)
    own: list[bool]
    rehearsal: bool = False


class Job(BaseModel):
    """One training job: `base` is a model folder, `context` the longest example allowed (tokens)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    lora: LoraConfig = LoraConfig()
    seed: int = 0
    threads: int = Field(default=1, ge=1)
    context: int = Field(default=1024, ge=2)


class Progress(BaseModel):
    """One optimiser step: loss is the mean cross-entropy (nats) over the agent's own words."""

    step: int
    steps: int
    loss: float


class Trained(BaseModel):
    """What a finished job reports; `folder` holds the adapter in PEFT layout."""

    folder: Path
    examples: int
    tokens: int
    steps: int
    seconds: float
    loss_first: float
    loss_last: float


class Trainer(Protocol):
    """Fits an adapter.

    Raises:
        TrainingRefused: if the data or what came of it is meaningless.
    """

    @property
    def name(self) -> str:
        """Which engine trains."""
        ...

    def fit(self, job: Job, examples: Sequence[Example], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        """Train, write the adapter to a folder, report each step."""
        ...


def check_examples(job: Job, examples: Sequence[Example]) -> None:
    """Refuse data that cannot teach: too few, nothing to learn from, too long.

    Raises:
        TrainingRefused: naming the first problem.
    """
    if len(examples) < job.lora.batch_size:
        raise TrainingRefused(
            f"{len(examples)} examples, fewer than one batch of {job.lora.batch_size}; wait for more verified trajectories"
        )
    for number, example in enumerate(examples):
        if len(example.ids) != len(example.own):
            raise TrainingRefused(f"example {number}: {len(example.ids)} tokens but a mask of {len(example.own)}")
        if not any(example.own[1:]):
            raise TrainingRefused(f"example {number}: the loss mask is empty")
        if len(example.ids) > job.context:
            raise TrainingRefused(
                f"example {number}: {len(example.ids)} tokens do not fit {job.context}; filter it, it is never truncated"
            )


def write_job(folder: Path, job: Job, examples: Sequence[Example]) -> None:
    """Lay a job out for the child process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / JOB_FILE).write_text(job.model_dump_json(indent=2), encoding="utf-8")
    (folder / DATA_FILE).write_text("".join(e.model_dump_json() + "\n" for e in examples), encoding="utf-8")


def read_job(folder: Path) -> tuple[Job, list[Example]]:
    """Read what `write_job` wrote."""
    job = Job.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
    lines = (folder / DATA_FILE).read_text(encoding="utf-8").splitlines()
    return job, [Example.model_validate(json.loads(line)) for line in lines]
