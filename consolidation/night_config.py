"""Everything that decides a night."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from consolidation.filters import FilterConfig
from consolidation.gate_config import GateConfig
from consolidation.strategies.choice import AnyStrategy
from consolidation.strategies.full_replay import FullReplay
from consolidation.synthesis.choice import SynthesisConfig
from consolidation.trainers.base import LoraConfig
from consolidation.trainers.machine import Machine


class NightConfig(BaseModel):
    """Everything that decides a night."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    merged_fixes: bool = True
    """Also learn from the merged fixes of tasks that are over. Named in every result."""
    rehearsal: int = Field(default=0, ge=0)
    """Old episodes that are mixed in for each repository against forgetting. Named in every result."""
    scope: Literal["repository", "all"] = "repository"
    """One adapter for each `repository`, and the bare base for every other, or one for `all`."""
    strategy: AnyStrategy = FullReplay()
    synthesis: SynthesisConfig = SynthesisConfig()
    filters: FilterConfig = FilterConfig()
    lora: LoraConfig = LoraConfig()
    gate: GateConfig = GateConfig()
    seed: int = 0
    """Decides the order of the examples and the adapter's first weights."""
    seeds: int = Field(default=1, ge=1, le=16)
    """Trainings that compete, with this seed and the following ones; so do the checkpoints of each (`lora.checkpoints`)."""
    threads: int = Field(default=2, ge=1)
    """Threads that training may use."""
    context: int = Field(default=0, ge=0)
    """Longest example (tokens); longer ones are left out, none is cut. 0 for what the model can be shown."""
    machine: Machine = Machine()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        told, dpo = self.synthesis.format, self.lora.objective == "dpo"
        if dpo != (told == "C"):
            raise ValueError(
                f"lora.objective is {self.lora.objective} and synthesis.format is {told}: preferences (format C) are trained "
                'with objective "dpo", and nothing else is'
            )
        if dpo and self.rehearsal:
            raise ValueError('rehearsal is no preference: set it to 0 for objective "dpo"')
        return self
