"""A mixture of LoRA experts with a router, and a way back to the bare base (Experiment 3 of the programme)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from consolidation.strategies.bench import Bench
from consolidation.strategies.seam import Learnt, Lesson

Taxonomy = Literal["skill", "clusters"]


class MixtureOfExperts(BaseModel):
    """One LoRA per category of pairs, and a router that mixes at most `top_k` of them, or asks the bare base.

    All experts together have the rank and see the examples that one adapter would have: `lora.rank` is divided among them at
    the same scale, and rehearsal examples are dealt out in turn. Every night begins from scratch with all that was ever
    lived, so that it is comparable with full replay, unless `goes_on`. The base answers what is
    like rehearsal, what is like nothing that was lived, and what the router is not sure of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["mixture"] = "mixture"
    experts: int = Field(default=3, ge=3, le=5)
    """Experts at most; fewer where there are fewer categories. One with fewer examples than a batch joins the nearest."""
    taxonomy: Taxonomy = "clusters"
    """`skill`: what a pair teaches, by rule (conventions, recovery, explanation, tools, workflow). `clusters`: issues that are
    alike, by spherical k-means of their embeddings."""
    top_k: int = Field(default=1, ge=1, le=3)
    """Experts at most that answer an issue together."""
    floor: float = Field(default=0.5, ge=0, lt=1)
    """The bare base answers where the experts that were chosen are less probable than this, together."""
    hidden: int = Field(default=64, ge=1, le=1024)
    """Width of the router's hidden layer."""
    steps: int = Field(default=200, ge=1)
    """Steps of Adam that train the router."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """Of the router."""
    held: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the issues that the router is not trained on but measured with."""

    goes_on: bool = False
    """Each expert of the live mixture goes on with its share of what is new and of the rehearsal, nothing past is trained
    again, and one with nothing new stays. From scratch where the live adapter has another taxonomy or recipe."""

    def learn(self, lesson: Lesson, bench: Bench) -> Learnt:
        """See the `Strategy` seam."""
        from consolidation.mixture.training import learnt

        return learnt(self, lesson, bench)
