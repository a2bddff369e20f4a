"""Who makes the pairs, as the configuration names it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent.errors import ModelError, ModelUnavailable
from agent.model import Model
from agent.models.batch_ledger import Notes
from agent.models.engines import Engine, ModelConfig, open_model
from consolidation.errors import SynthesisError
from consolidation.pairs import Encoder, Format
from consolidation.synthesis.by_model import ModelSynthesiser, Teller
from consolidation.synthesis.hybrid import HybridSynthesiser
from consolidation.synthesis.kept import Keeper, Kept
from consolidation.synthesis.offline import OfflineSynthesiser
from consolidation.synthesis.seam import Synthesiser
from consolidation.synthesis.self_made import SelfSynthesiser
from consolidation.synthesis.verified import Loss


class Books(Keeper, Notes, Protocol):
    """Where pairs are kept, and what was sent for them (the store)."""


class SynthesisConfig(BaseModel):
    """How what was lived through becomes pairs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: Format = "T"
    """How an attempt is told: T the agent's own turns, A question and answer, B with reasoning, C preferences (train them with
    `lora.objective = "dpo"`), D failure and remedy, E with what is known of the project."""
    source: Literal["offline", "claude", "self", "hybrid"] = "offline"
    """Who makes them: rules, an external model (`claude`), the served model itself, or these two. Format T needs only rules."""
    budget: int = Field(default=5, ge=1, le=1_000)
    """Pairs for each attempt at most; format T spends one."""
    tokens: int = Field(default=0, ge=0)
    """Tokens of pairs that a night trains on at most, so that formats can be compared; 0 for no ceiling."""
    model: str = "anthropic:claude-sonnet-4-5"
    """The external model; see `model.kind`."""
    budget_usd: float = Field(default=1.0, ge=0)
    """Dollars that a night may spend on an `anthropic:` model; what does not fit is left out, and counted."""
    price_input: float = Field(default=0.0, ge=0)
    """Dollars per million tokens of its input, for a model whose price is not known; 0 for the known price."""
    price_output: float = Field(default=0.0, ge=0)
    """The same for its output."""
    synchronous: bool = False
    """Ask for each attempt by itself, at the full price and at once, instead of by message batches."""
    wait_minutes: float = Field(default=360.0, ge=0)
    """How long a night waits for a message batch; then it is left open, and takes up the same batch later."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Of the served model; current Claude models take none."""
    samples: int = Field(default=4, ge=1)
    """Turns that a served model of the terse protocol says at each point."""
    share: float = Field(default=0.5, ge=0, le=1)
    """For `hybrid`: part of the attempts whose pairs the external model makes."""
    external_nights: int = Field(default=0, ge=0)
    """For `hybrid`: above 0, the external model makes all pairs of so many nights, and the served one all of the later ones."""
    seed: int = 0
    """Decides the served model's samples, and whose pairs the external model makes."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        Engine.parse(self.model)
        if bool(self.price_input) != bool(self.price_output):
            raise ValueError("set both price_input and price_output, or neither")
        return self


def open_synthesiser(
    config: SynthesisConfig,
    books: Books,
    served: Model,
    encode: Encoder,
    loss: Loss,
    *,
    context: int = 0,
    account: str = "",
    night: int = 0,
    pause: Callable[[float], None] = time.sleep,
) -> Synthesiser:
    """The synthesiser that a configuration names; what a model makes is kept in `books`.

    `served` must already use the adapter of the scope, `loss` is the base's without one. `account` names what the budget is
    for (the night's id), `night` how many were before. `pause` waits (seconds) for a batch; what it raises cancels it.

    Raises:
        SynthesisError: the model that makes them cannot be used.
    """
    if config.source == "offline" or config.format == "T":
        return OfflineSynthesiser()

    def own() -> SelfSynthesiser:
        given = {"context": context, "samples": config.samples, "seed": config.seed}
        return SelfSynthesiser(served, encode, loss, temperature=config.temperature, **given)

    try:
        if config.source == "self":
            return Kept(own(), books)
        external = ModelSynthesiser(_external(config, books, account, pause))
        if config.source == "claude":
            return Kept(external, books)
        settings = {"seed": config.seed, "nights": config.external_nights, "night": night}
        return Kept(HybridSynthesiser(Kept(external, books), own(), share=config.share, **settings), books)
    except ModelUnavailable:
        raise
    except ModelError as error:
        raise SynthesisError(f'{error}; or choose synthesis.source = "offline"') from error


def close_synthesiser(synthesiser: Synthesiser) -> None:
    """Close the connections of the external model, if there is one; the served model stays as it is."""
    for inner in ("inner", "external"):
        if (held := getattr(synthesiser, inner, None)) is not None:
            close_synthesiser(held)
    if isinstance(synthesiser, ModelSynthesiser):
        synthesiser.close()


def _external(config: SynthesisConfig, notes: Notes, account: str, pause: Callable[[float], None]) -> Teller:
    engine = Engine.parse(config.model)
    if engine.kind != "anthropic":
        return open_model(ModelConfig(kind=config.model))
    from agent.models.anthropic_batches import AnthropicBatches
    from agent.models.purse import Price

    return AnthropicBatches(
        engine.name,
        config.budget_usd,
        notes,
        account,
        synchronous=config.synchronous,
        wait_seconds=60 * config.wait_minutes,
        pause=pause,
        price=Price(config.price_input, config.price_output) if config.price_input else None,
    )
