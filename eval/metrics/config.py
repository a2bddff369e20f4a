"""What a daemon measures; light to import, because the daemon reads its configuration with it."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

_SINK = re.compile(r"(tensorboard|mlflow):.+")


class MetricsConfig(BaseModel):
    """What is measured at the end of a night, beside what the gate asks."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tasks: int = Field(default=8, ge=0)
    """Tasks of each past day that what is live plays again then, and the bare base once for each configuration; 0 leaves it
    out. `init` sets it to 0 for real repositories, where one takes up to an hour."""
    most: int = Field(default=64, ge=1)
    """At most so many of these tasks in all; with many days behind it, each is asked for fewer, and the latest first."""
    control: int = Field(default=2, ge=0)
    """So many of each past day's the bare base plays once more every night, so that chance is seen; all of them if one comes
    out otherwise than before."""
    price_input: float = Field(default=0.0, ge=0)
    """Dollars for a million tokens that the agent reads; while both prices are 0, its cost is not known."""
    price_output: float = Field(default=0.0, ge=0)
    """Dollars for a million tokens that it writes."""
    sinks: tuple[str, ...] = ()
    """Where values are also logged: `tensorboard:FOLDER` (extra `tensorboard`), `mlflow:FOLDER_OR_URI` (extra `mlflow`)."""

    @field_validator("sinks")
    @classmethod
    def _sinks(cls, sinks: tuple[str, ...]) -> tuple[str, ...]:
        for sink in sinks:
            if _SINK.fullmatch(sink) is None:
                raise ValueError(f"{sink!r} names no sink; write tensorboard:FOLDER, mlflow:FOLDER or mlflow:URI")
        return sinks
