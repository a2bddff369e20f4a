"""The configuration tree: each component's own settings, from one TOML file and the environment.

`SLEEPYD_DAY__BATCH=4` overrides `batch` in `[day]`; two underscores stand for a dot. Whatever is
wrong is one line per mistake that names its place, and for an unknown name the nearest valid one.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import time
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agent.loop import Budget
from agent.models.engines import ModelConfig
from consolidation.night_config import NightConfig
from daemon.errors import DaemonError
from daemon.logs import LogConfig
from daemon.mistakes import name_kinds, told
from eval.guard_config import GuardConfig
from eval.metrics.config import MetricsConfig
from eval.task_config import TasksConfig
from eval.watch import WatchConfig
from memory.arms import Arm
from memory.hashing import content_hash
from memory.knowledge.config import KnowledgeConfig

PREFIX = "SLEEPYD_"
OTHER_VARIABLES = ("SLEEPYD_HOME", "SLEEPYD_DATA")
_WINDOW = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DayConfig(_Settings):
    """What happens while awake."""

    attempts: int = Field(default=1, ge=1)
    """Attempts at each task of a demo day that is learnt from; further ones are sampled."""
    batch: int = Field(default=8, ge=1)
    """Tasks that are worked on at once; a stop waits for no more than these."""
    retries: int = Field(default=2, ge=0)
    """Further attempts at a task after a failure of the infrastructure; then that is its outcome."""


class SleepConfig(_Settings):
    """When it sleeps."""

    window: str = "02:00-06:00"
    """Every night between these times (local, or of `timezone`); empty for no fixed time."""
    timezone: str = ""
    """IANA name such as Europe/Berlin; empty for the machine's own."""
    after_tasks: int = Field(default=0, ge=0)
    """Also after this many new task results; 0 switches this off."""
    when_idle_minutes: float = Field(default=0.0, ge=0)
    """Also when there was nothing to do for this long; 0 switches this off."""
    min_resolved: int = Field(default=8, ge=1)
    """A night is put off until at least this many tasks are over that can be learnt from."""
    replay_tasks: int = Field(default=400, ge=1)
    """A night learns from the results of at most this many tasks, the latest ones."""
    misfire_grace_hours: float = Field(default=12.0, gt=0, le=168)
    """A night that was missed because the machine slept is still held within this time."""

    @field_validator("window")
    @classmethod
    def _window(cls, window: str) -> str:
        if window:
            found = _WINDOW.fullmatch(window)
            if found is None:
                raise ValueError("write the window as HH:MM-HH:MM, or leave it empty")
            begin, end = (time.fromisoformat(text) for text in found.groups())
            if begin == end:
                raise ValueError("the window must not be empty")
        return window

    @field_validator("timezone")
    @classmethod
    def _zone(cls, name: str) -> str:
        if name:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(f"no time zone {name!r} on this machine; use a name such as Europe/Berlin") from error
        return name

    @property
    def times(self) -> tuple[time, time] | None:
        """Begin and end of the window; the end may be on the next day."""
        found = _WINDOW.fullmatch(self.window)
        return (time.fromisoformat(found[1]), time.fromisoformat(found[2])) if found else None


class ResourceConfig(_Settings):
    """What the daemon may use."""

    training_memory_mb: int = Field(default=8_192, ge=512)
    """Private memory (MiB) of the training process; beyond it the night fails, and nothing else."""
    niceness: int = Field(default=10, ge=0, le=19)
    """Priority of the training process; 19 is the lowest."""
    free_disk_mb: int = Field(default=1_024, ge=0)
    """No task is taken, and no night begun, with less free space (MiB) than this."""
    nights_mb: int = Field(default=2_048, ge=1)
    """Working files of past nights (MiB); the oldest are removed first."""
    trajectories_mb: int = Field(default=4_096, ge=1)
    """The store (MiB). Beyond it the turns of the oldest trajectories are forgotten; their outcomes never are."""
    adapters_mb: int = Field(default=2_048, ge=1)
    """Adapters (MiB) beyond those that are live, previous or pinned; the oldest are removed first."""


class LifeConfig(_Settings):
    """How the process behaves."""

    grace_seconds: float = Field(default=20.0, ge=0)
    """How long a stop waits for the work in hand before it is broken off (it is taken up again later)."""
    crashes: int = Field(default=3, ge=1)
    """A night that crashes this often at the same step is given up."""


class Config(_Settings):
    """Everything that can be configured."""

    arm: Arm = Arm.BOTH
    """What it works with: `base` (nothing), `knowledge`, `skill`, `both`, or `frozen` (nothing, as the control)."""
    tasks: TasksConfig = TasksConfig()
    model: ModelConfig = ModelConfig()
    budget: Budget = Budget()
    day: DayConfig = DayConfig()
    sleep: SleepConfig = SleepConfig()
    night: NightConfig = NightConfig()
    knowledge: KnowledgeConfig = KnowledgeConfig()
    guard: GuardConfig = GuardConfig()
    watch: WatchConfig = WatchConfig()
    metrics: MetricsConfig = MetricsConfig()
    resources: ResourceConfig = ResourceConfig()
    log: LogConfig = LogConfig()
    life: LifeConfig = LifeConfig()

    @model_validator(mode="after")
    def _finite(self) -> Self:
        # A configuration travels to the worker and into the store as JSON, which knows no infinity.
        for name, value in _leaves(self):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is {value}; give a finite number")
        return self

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.guard.tasks < self.night.gate.min_tasks:
            raise ValueError(
                f"guard.tasks is {self.guard.tasks}, but night.gate.min_tasks asks for {self.night.gate.min_tasks}: "
                "no night could ever be promoted"
            )
        return self

    @model_validator(mode="after")
    def _served(self) -> Self:
        kind = self.night.strategy.kind
        if kind == "mixture" and self.arm.adapts and self.model.engine.kind == "ollama":
            raise ValueError(
                f"night.strategy.kind is {kind!r}, but model.kind is {self.model.kind!r}: what Ollama serves for a repository "
                "is one adapter, and nothing there chooses among experts; choose another strategy, or torch:PATH or mlx:PATH"
            )
        return self

    @property
    def hash(self) -> str:
        """Content hash of all settings."""
        return content_hash(self)


def _leaves(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its dotted name."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def load_config(path: Path | None, environment: Mapping[str, str] | None = None) -> Config:
    """Read a TOML file (or the defaults if there is none) and the environment's overrides.

    Raises:
        DaemonError: naming the file or variable, the key, and for an unknown key the nearest valid one.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, RecursionError, tomllib.TOMLDecodeError) as error:
            raise DaemonError(f"{path}: cannot read the configuration ({error})") from error
    origin = _override(data, os.environ if environment is None else environment)
    name_kinds(data, Config)
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise DaemonError(told(error, Config, origin, str(path or "configuration"))) from error


def _override(data: dict[str, Any], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Put the environment's settings into `data`; returns which variable gave which key or table."""
    origin: dict[tuple[str, ...], str] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        keys = tuple(name.removeprefix(PREFIX).lower().split("__"))
        place = data
        for depth, key in enumerate(keys[:-1], 1):
            if key not in place:
                origin[keys[:depth]] = name
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                raise DaemonError(f"{name}: {key} is no table of settings")
            place = inner
        place[keys[-1]] = _value(text)
        origin[keys] = name
    return origin


def _value(text: str) -> Any:
    """JSON where the text is a list or a table, the text itself otherwise (pydantic reads numbers and truth values)."""
    if text[:1] in "[{":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return text
