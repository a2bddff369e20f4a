"""All strategies, as the configuration names them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from consolidation.strategies.adaptive_rank import AdaptiveRank
from consolidation.strategies.ewc import EwcLora
from consolidation.strategies.full_replay import FullReplay
from consolidation.strategies.mixture import MixtureOfExperts
from consolidation.strategies.naive import NaiveSequential
from consolidation.strategies.partial_replay import PartialReplay

AnyStrategy = Annotated[
    AdaptiveRank | EwcLora | FullReplay | MixtureOfExperts | NaiveSequential | PartialReplay, Field(discriminator="kind")
]
KINDS = ("adaptive_rank", "ewc", "full_replay", "mixture", "naive", "partial_replay")
"""Their names."""
