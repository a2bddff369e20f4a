"""Which model answers, chosen by a short text: `pocket`, `torch:PATH`, `mlx:PATH`, `ollama:NAME`, `openai:URL#NAME`,
`anthropic:NAME`. PATH may be `pocket` for the model that ships with the program.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from agent.errors import ModelError
from agent.model import Message, Model, Speech
from agent.pocket import WEIGHTS

POCKET = "pocket"
LOCAL = ("torch", "mlx")
REMOTE = ("ollama", "openai", "anthropic")
FORMS = "pocket, torch:PATH, mlx:PATH, ollama:NAME, openai:URL#NAME or anthropic:NAME"
Provide = Callable[[Path], str]
"""Has a server serve an adapter folder, and returns the name under which it does."""


@dataclass(frozen=True)
class Engine:
    """A parsed choice: `name` is a path, a model's name, or URL#NAME."""

    kind: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text.

        Raises:
            ValueError: it is none of the known forms.
        """
        kind, colon, name = text.partition(":")
        if text == POCKET:
            return cls(POCKET)
        if kind not in (*LOCAL, *REMOTE) or not colon or not name:
            raise ValueError(f"{text!r} names no model; write {FORMS}")
        if kind == "openai" and ("://" not in name or not name.partition("#")[2]):
            raise ValueError(f"{text!r}: write openai:URL#NAME, such as openai:http://127.0.0.1:8000/v1#my-model")
        return cls(kind, name)

    @property
    def folder(self) -> Path | None:
        """The folder of the weights, where the engine reads one itself."""
        if self.kind not in (POCKET, *LOCAL):
            return None
        return WEIGHTS if self.name in ("", POCKET) else Path(self.name).expanduser()


class ModelConfig(BaseModel):
    """What serves the agent."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: str = POCKET
    """The engine and its model: `pocket` (ships with the program), `torch:PATH`, `mlx:PATH`, `ollama:NAME`,
    `openai:URL#NAME` or `anthropic:NAME`; see docs/models.md."""
    base: str = ""
    """Folder of the weights that nights train on (or `pocket`), where a server holds the model; they must be the same ones."""
    trainer: Literal["auto", "torch", "mlx"] = "auto"
    """What trains adapters; `auto` is the engine that also serves, else MLX on Apple silicon and torch elsewhere."""
    context: int = Field(default=0, ge=0)
    """Tokens of prompt and answer together; 0 for the engine's default (1,280 for the pocket model, 16,384 otherwise)."""
    width: int = Field(default=8, ge=1)
    """Conversations that are computed at once, where the engine can."""
    threads: int = Field(default=0, ge=0)
    """Threads of the served model; 0 for as many as the night may use."""
    device: str = "auto"
    """For torch: `cpu`, `cuda`, `mps`, or `auto`."""
    tool_calls: Literal["auto", "native", "text"] = "auto"
    """How a model on a server calls tools: `native`, as its server understands tool calls, or as `text`. `auto` is native where
    the server can, unless nights train the model: they train text."""
    think: Literal["auto", "yes", "no"] = "auto"
    """For reasoning models: have them think, or not; `auto` leaves it to the model."""
    host: str = "http://127.0.0.1:11434"
    """Where Ollama listens."""
    timeout_seconds: float = Field(default=600.0, gt=0)
    """How long a server may take for one answer."""
    budget_usd: float = Field(default=5.0, ge=0)
    """For paid engines: what one run of the worker may spend."""
    price_input: float = Field(default=0.0, ge=0)
    """For paid engines: USD per million input tokens; 0 for what the program knows of the model."""
    price_output: float = Field(default=0.0, ge=0)
    """The same for output tokens."""
    unload_after_minutes: float = Field(default=10.0, gt=0)
    """The model leaves memory after this long without work."""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        Engine.parse(kind)
        return kind

    @model_validator(mode="after")
    def _trains_what_it_speaks(self) -> Self:
        if self.tool_calls == "native" and self.weights is not None:
            raise ValueError("tool_calls = native: nights train these weights on text; set it to auto, or leave base empty")
        return self

    @property
    def engine(self) -> Engine:
        """The parsed choice."""
        return Engine.parse(self.kind)

    @property
    def weights(self) -> Path | None:
        """The folder that nights train on; None if there is none, so that there are no nights."""
        own = WEIGHTS if self.base == POCKET else Path(self.base).expanduser() if self.base else None
        return self.engine.folder or own

    @property
    def trained_by(self) -> Literal["torch", "mlx"]:
        """The engine that trains adapters."""
        if self.trainer != "auto":
            return self.trainer
        apple = sys.platform == "darwin" and platform.machine() == "arm64"
        return "mlx" if self.engine.kind == "mlx" or (apple and self.engine.kind != "torch") else "torch"

    @property
    def thinks(self) -> bool | None:
        """Whether a reasoning model is to think; None leaves it to the model."""
        return {"auto": None, "yes": True, "no": False}[self.think]

    @property
    def tokens(self) -> int:
        """The context (tokens) that is in force."""
        pocket = self.weights == WEIGHTS
        return self.context or (1_280 if pocket else 16_384)


def open_model(config: ModelConfig, threads: int = 0, provide: Provide | None = None) -> Model:
    """The model that a configuration names, ready to answer.

    Raises:
        ModelError: it cannot be had; the text says why, and what to do.
    """
    engine, context = config.engine, config.tokens
    if engine.kind == POCKET:
        from agent.pocket.model import PocketModel

        return PocketModel(threads=config.threads or threads or None, capacity=context)
    if engine.folder is not None:
        if not engine.folder.is_dir():
            raise ModelError(f"{engine.folder}: no such folder; name that of a downloaded model")
        return _local(engine, engine.folder, config, context)
    return _remote(engine, config, context, provide)


def _local(engine: Engine, folder: Path, config: ModelConfig, context: int) -> Model:
    if engine.kind == "torch":
        from agent.models.torch_model import TorchModel

        return TorchModel(folder, config.device, context, config.width, config.thinks)
    try:
        from agent.models.mlx_model import MlxModel
    except ImportError as error:
        raise ModelError(f"MLX is not installed ({error}); install the extra: pip install 'sleepy-agent[mlx]'") from error
    return MlxModel(folder, context, config.width, config.thinks)


def _remote(engine: Engine, config: ModelConfig, context: int, provide: Provide | None) -> Model:
    tokenizer = None
    speaks: Speech | None = None if config.tool_calls == "auto" else config.tool_calls
    if config.weights is not None:
        from agent.models.chat import speech_of, tokenizer_of

        tokenizer = tokenizer_of(config.weights, config.thinks)
        speaks = speech_of(tokenizer)
    if engine.kind == "ollama":
        from agent.models.ollama_model import OllamaModel

        return OllamaModel(
            engine.name,
            host=config.host,
            context=context,
            keep_alive=f"{config.unload_after_minutes:g}m",
            timeout=config.timeout_seconds,
            provide=provide,
            width=config.width,
            think=config.thinks,
            tokenizer=tokenizer,
            speaks=speaks,
        )
    if engine.kind == "openai":
        from agent.models.openai_model import OpenAIModel

        url, _, name = engine.name.partition("#")
        given: dict[str, Any] = {"timeout": config.timeout_seconds, "width": config.width, "think": config.thinks}
        return OpenAIModel(url, name, context=context, speaks=speaks, **given)
    from agent.models.anthropic_model import AnthropicModel
    from agent.models.purse import Price

    price = Price(config.price_input, config.price_output) if config.price_input or config.price_output else None
    return AnthropicModel(
        engine.name,
        budget_usd=config.budget_usd,
        timeout=config.timeout_seconds,
        width=config.width,
        price=price,
        native=speaks in (None, "native"),
    )


@dataclass(frozen=True)
class Weights:
    """What nights train on: a model folder, the hash of its content, and how conversations become its tokens."""

    folder: Path
    hash: str
    encode: Callable[[Sequence[Message]], tuple[list[int], list[bool]]]


def open_weights(config: ModelConfig) -> Weights:
    """The weights that nights train on.

    Raises:
        ModelError: there are none, or they cannot be read.
    """
    folder = config.weights
    if folder is None:
        raise ModelError(f"{config.kind} keeps its weights to itself; for nights set model.base to a folder with the same ones")
    from agent.models.chat import tokenizer_of
    from agent.models.weights import folder_hash

    return Weights(folder, folder_hash(folder), tokenizer_of(folder, config.thinks).example)
