"""The `Trainer` seam: what a training job is, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consolidation.errors import ConsolidationError
from consolidation.trainers.machine import Machine
from memory.files import write_whole

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
    """Examples per batch."""
    kl_weight: float = Field(default=0.0, ge=0)
    """Weight of KL(base || adapted) on rehearsal examples; 0 leaves it out."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per optimiser step; their gradients are added up, every token with the same weight."""
    batching: Literal["bucket", "packed"] = "bucket"
    """`bucket` draws batches of similar length; `packed` draws them from all lengths and computes them without padding
    (torch) or with little (MLX), which is as fast and does not tie a batch to a length."""
    objective: Literal["sft", "dpo"] = "sft"
    """`sft`: cross-entropy over the agent's own words. `dpo`: preferences (Rafailov et al. 2023, equation 7)."""
    beta: float = Field(default=0.1, gt=0)
    """For `dpo`: how strongly the reference holds."""
    reference: Literal["base", "start"] = "base"
    """For `dpo`: what is held to, the bare base or the adapter that training starts from."""
    validation: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the examples that is not trained on but measured at every checkpoint."""
    patience: int = Field(default=0, ge=0)
    """Stop after so many checkpoints without a lower validation loss, and hand out the lowest; 0 for never."""
    checkpoints: int = Field(default=1, ge=1)
    """Adapters that are kept, from evenly spaced steps, the last of them from the end. A lower validation loss is not
    a better agent: choose by evaluation."""
    precision: Literal["f32", "bf16"] = "f32"
    """Of the base and of what is computed; the adapter and its optimiser are always float32."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.objective == "dpo" and self.kl_weight:
            raise ValueError("kl_weight is for objective sft; dpo is held to its reference by beta")
        if self.patience and not (self.validation and self.patience < self.checkpoints):
            raise ValueError("patience needs validation above 0, and more checkpoints than patience")
        return self


class Example(BaseModel):
    """Token ids, which of them are the agent's own words, and whether it rehearses old skills."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ids: list[int] = Field(min_length=2)
    own: list[bool]
    rehearsal: bool = False

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self.ids)

    @property
    def width(self) -> int:
        """Of the longest row."""
        return len(self.ids)


class Preference(BaseModel):
    """Two conversations from one prompt: what should be said, and what should not.

    `reference` are the log-probabilities (nats) of both under the reference; a trainer computes them once if they are missing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    chosen: Example
    rejected: Example
    reference: tuple[float, float] | None = None

    @property
    def tokens(self) -> int:
        """Of both."""
        return self.chosen.tokens + self.rejected.tokens

    @property
    def width(self) -> int:
        """Of the longer row."""
        return max(self.chosen.tokens, self.rejected.tokens)


Item = Example | Preference


class Penalty(BaseModel):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, equation 3): `weight / 2 * sum F (theta - anchor)^2`.

    F is brought to a mean of 1 over all weights. The penalty is applied as a proximal step after each step of AdamW, which
    would divide it out of the gradient.

    `fisher` is a file of `Trainer.fisher`, `anchor` the adapter folder it was computed at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fisher: Path
    anchor: Path
    weight: float = Field(gt=0)


class Job(BaseModel):
    """One training job: `base` is a model folder, `context` the longest example allowed (tokens).

    `start` is an adapter of the same recipe that training goes on from; `base_hash`, where given, is what its manifest
    must name as its base.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Path
    base_hash: str = ""
    lora: LoraConfig = LoraConfig()
    seed: int = 0
    threads: int = Field(default=1, ge=1)
    context: int = Field(default=1024, ge=2)
    start: Path | None = None
    penalty: Penalty | None = None
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.lora.reference == "start" and self.start is None:
            raise ValueError("reference is the adapter that training starts from: set start, or let the reference be base")
        return self


class Progress(BaseModel):
    """One optimiser step: `loss` is the mean over the agent's own words (nats), or for preferences over the pairs.

    `resumed_from` is the last step of the process before, if that was killed.
    """

    step: int
    steps: int
    loss: float
    resumed_from: int = 0


class Checkpoint(BaseModel):
    """An adapter from within training; `validation` is the mean loss of the examples that were held out, if any were."""

    step: int
    folder: Path
    validation: float | None = None


class Trained(BaseModel):
    """What a finished job reports; `folder` holds the adapter in PEFT layout."""

    folder: Path
    examples: int
    tokens: int
    steps: int
    seconds: float
    loss_first: float
    loss_last: float
    resumed_from: int = 0
    stopped_early: bool = False
    checkpoints: tuple[Checkpoint, ...] = ()


class Trainer(Protocol):
    """Fits and measures adapters.

    Raises:
        TrainingRefused: if the data or what came of it is meaningless.
    """

    @property
    def name(self) -> str:
        """Which engine trains."""
        ...

    def fit(self, job: Job, examples: Sequence[Item], out: Path, on_step: Callable[[Progress], None]) -> Trained:
        """Train, write the adapter to a folder, report each step. The same job there goes on where it was killed."""
        ...

    def loss(self, job: Job, examples: Sequence[Example], adapter: Path | None = None) -> list[float]:
        """Nats per own token of each example under the base, or under an adapter as it is served."""
        ...

    def fisher(self, job: Job, examples: Sequence[Example], out: Path, adapter: Path | None = None) -> Path:
        """Diagonal empirical Fisher information, written to the file `out` (safetensors, names and shapes of the adapter's).

        It is the mean over the examples of the squared gradient of their `loss`, at the adapter as it was trained
        (before the serving scale), or at the first weights if there is none.
        """
        ...


def write_job(folder: Path, job: Job, examples: Sequence[Item]) -> None:
    """Lay a job out for the child process."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / JOB_FILE, job.model_dump_json(indent=2))
    write_whole(folder / DATA_FILE, "".join(e.model_dump_json() + "\n" for e in examples))


def read_job(folder: Path) -> tuple[Job, list[Item]]:
    """Read what `write_job` wrote.

    Raises:
        ConsolidationError: it is not there, or damaged.
    """
    try:
        job = Job.model_validate_json((folder / JOB_FILE).read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in (folder / DATA_FILE).read_text(encoding="utf-8").splitlines()]
        return job, [(Preference if "chosen" in line else Example).model_validate(line) for line in lines]
    except (OSError, ValueError, TypeError) as error:
        raise ConsolidationError(f"{folder}: no readable job ({str(error)[:300]}); write it again") from error
