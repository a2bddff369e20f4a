"""What a candidate is examined on; light to import, because the daemon reads its configuration with it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GuardConfig(BaseModel):
    """What a candidate is examined on."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tasks: int = Field(default=600, ge=1)
    """Held-out base-skill tasks at most; clear cases are decided after few. An adapter flips some of them one way or the
    other, so that few could not tell no change from a drop (`sleepyctl bench gate` says how many can)."""
    problems: int = Field(default=0, ge=0)
    """Problems of each programming benchmark, drawn by the seed; 0 for all of them."""
    answer_tokens: int = Field(default=1_024, ge=16)
    """Longest answer to such a problem; a model that thinks needs more."""
    programs: int = Field(default=2, ge=1)
    """Answers to such problems that run at once."""
    format_seeds: int = Field(default=3, ge=1)
    """How often the tool-format exam is held: once greedily, then sampled."""
    format_temperature: float = Field(default=0.7, gt=0, le=2)
    """Temperature of the sampled ones."""
    retention_tasks: int = Field(default=24, ge=0)
    """Tasks of each of up to five past nights that are played again; 0 leaves it out. Each costs two attempts: `init` sets it
    to 0 for real repositories, where one takes up to an hour."""
    conduct_tasks: int = Field(default=60, ge=0)
    """Tasks, the latest ones, on which a candidate's way of working is compared with what is live; 0 leaves it out.
    Each costs two attempts, as in `retention_tasks`; the watch after the promotion costs none."""
