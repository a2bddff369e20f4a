"""The configuration tree: each component's own settings, read from one TOML file."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.loop import Budget
from consolidation.night import NightConfig
from daemon.errors import DaemonError
from eval.pocket.stream import REPOSITORIES


class DayConfig(BaseModel):
    """What a pocket day looks like."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repos: tuple[str, ...] = ("bank", "game")
    """Pocket repositories that are worked on."""
    attempts: int = Field(default=1, ge=1)
    """Attempts at each task of a day that is learnt from; further ones are sampled."""
    guard_tasks: int = Field(default=320, ge=1)
    """Held-out base-skill tasks that the guard examines. An adapter flips about a fifth of them one way or
    the other, so fewer could not tell no change from a drop of the gate's margin."""


class Config(BaseModel):
    """Everything that can be configured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: Budget = Budget()
    day: DayConfig = DayConfig()
    night: NightConfig = NightConfig()


def load_config(path: Path | None) -> Config:
    """Read a TOML file, or the defaults if there is none.

    Raises:
        DaemonError: naming the file, the key, and for an unknown key the nearest valid one.
    """
    if path is None:
        return Config()
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DaemonError(f"{path}: cannot read the configuration ({error})") from error
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise DaemonError("\n".join(f"{path}: {_explain(e)}" for e in error.errors())) from error
    unknown = sorted(set(config.day.repos) - set(REPOSITORIES))
    if unknown:
        raise DaemonError(f"{path}: day.repos: no pocket repository {unknown[0]!r}{_nearest(unknown[0], REPOSITORIES)}")
    return config


def _explain(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    name = ".".join(location)
    if error["type"] != "extra_forbidden":
        return f"{name}: {error['msg']}"
    model: type[BaseModel] = Config
    for part in location[:-1]:
        annotation = model.model_fields[part].annotation
        model = next(
            (t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)), model
        )
    return f"{name}: unknown key{_nearest(location[-1], tuple(model.model_fields))}"


def _nearest(name: str, valid: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, valid, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; valid are {', '.join(valid)}"
