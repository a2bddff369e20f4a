"""Nights: what one sleep trained on, what came of it, and why it was promoted or not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from memory.tasks import Text


def _utc(when: datetime) -> datetime:
    return when.astimezone(UTC)


Utc = Annotated[AwareDatetime, AfterValidator(_utc)]
"""A time in UTC: other time zones are converted, naive times refused."""


class Verdict(BaseModel):
    """What the gate decided about a candidate.

    `why` is one sentence for people; `numbers` are all figures the decision rests on, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    promoted: bool
    why: Text
    numbers: dict[str, float] = {}


class Night(BaseModel):
    """One sleep. Open while `ended_at` is None; `error` says what broke it off before a verdict.

    `sources` counts training pairs by source, `pairs` is how many were trained on. `adapter` is
    the content hash of the candidate. Losses are means over the agent's tokens, in nats; a run
    that diverged has a loss that is not finite, and JSON then says NaN or Infinity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    id: Text
    started_at: Utc
    ended_at: Utc | None = None
    strategy: Text
    seed: int
    sources: dict[str, int] = {}
    pairs: int = Field(default=0, ge=0)
    config_hash: Text
    adapter: str | None = None
    loss_first: float | None = None
    loss_last: float | None = None
    train_seconds: float | None = None
    verdict: Verdict | None = None
    error: str = ""
