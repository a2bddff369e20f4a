"""What a training job may use of the machine."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Machine(BaseModel):
    """What a job may use; it decides how fast it runs, and no more than the last digits of what comes out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    device: str = "cpu"
    """For torch: `cpu`, `cuda`, `mps`, or `auto`. MLX chooses for itself."""
    quantise: Literal["none", "nf4"] = "none"
    """For torch on CUDA: hold the base in 4 bits (Dettmers et al. 2023, "QLoRA"). For MLX quantise the folder instead."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third slower."""
    row_tokens: int = Field(default=1024, ge=2)
    """Tokens that are computed at once: in packed batches, and where nothing is trained. A longer example goes alone."""
    state_seconds: float = Field(default=30.0, ge=0)
    """At most so much work is lost when training is killed."""
    state_steps: int = Field(default=0, ge=0)
    """The same in optimiser steps; 0 for by time alone."""
