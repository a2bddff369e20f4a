"""All strategies, as the configuration names them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from consolidation.strategies.full_replay import FullReplay
from consolidation.strategies.naive import NaiveSequential

AnyStrategy = Annotated[FullReplay | NaiveSequential, Field(discriminator="kind")]
