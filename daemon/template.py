"""The commented configuration file that `sleepyctl init` writes: every setting with its meaning and default."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from daemon.config import Config, load_config
from daemon.errors import DaemonError
from daemon.mistakes import Kinds, kinds_of
from eval.task_config import KOANS, POCKET
from memory.files import written_whole

HEAD = """\
# Configuration of sleepyd. A line that begins with #name shows a default; take the # away to change it.
# A change is taken over at once while the daemon runs; an invalid one is refused and told in `sleepyctl status`.
# The environment overrides it: SLEEPYD_SLEEP__WINDOW="23:00-05:00" is `window` in [sleep].
"""
WIDTH = 110
LARGE_MODEL = {"budget.steps": 20, "budget.tokens": 100_000, "budget.seconds": 900.0, "budget.turn_tokens": 2_048}
LARGE_TASKS = {
    "budget.steps": 60,
    "budget.tokens": 1_000_000,
    "budget.seconds": 3_600.0,
    "budget.turn_tokens": 4_096,
    "day.batch": 1,
    "guard.retention_tasks": 0,
    "guard.conduct_tasks": 0,
    "metrics.tasks": 0,
}
"""What a model that was not made for the pocket world needs, and what real repositories take: there every task that a guard
or a metric has attempted costs up to an hour, twice."""


def write_config(path: Path, model: str, tasks: str, force: bool) -> None:
    """Write the file, whole or not at all.

    Raises:
        DaemonError: if it is there already and not to be replaced, model or tasks are unknown, or it cannot be written.
    """
    if path.exists() and not force:
        raise DaemonError(f"{path} is there already; edit it, or replace it with --force")
    chosen: dict[str, Any] = {"model.kind": model, "tasks.source": tasks}
    if model != POCKET:
        chosen |= LARGE_MODEL if tasks in (POCKET, KOANS) else LARGE_TASKS
    text = render(Config(), chosen)
    try:
        with written_whole(path) as file:
            file.write(text)
            file.flush()
            try:
                load_config(Path(file.name), {})
            except DaemonError as error:
                raise DaemonError(str(error).replace(file.name, "sleepyctl init")) from error
    except (OSError, UnicodeEncodeError) as error:
        raise DaemonError(f"{path} cannot be written ({error})") from error


def render(config: Config, chosen: Mapping[str, Any]) -> str:
    """The file's text; `chosen` settings are in force, all others are shown as defaults."""
    return HEAD + "".join(_tables(config, "", chosen, {}))


def _tables(settings: BaseModel, prefix: str, chosen: Mapping[str, Any], kinds: Kinds) -> list[str]:
    lines: list[str] = []
    inner: list[str] = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            inner += _tables(value, f"{prefix}{name}.", chosen, kinds_of(field))
            continue
        texts = _told(kinds, value) if kinds and value in kinds else [field.description or ""]
        lines += [f"# {line}\n" for text in texts for line in textwrap.wrap(" ".join(text.split()), WIDTH)]
        mark, value = ("", chosen[f"{prefix}{name}"]) if f"{prefix}{name}" in chosen else ("#", value)
        lines.append(f"{mark}{name} = {_toml(value)}\n")
    if not prefix or not lines:
        return lines + inner
    about = (type(settings).__doc__ or "").strip().split("\n")[0]
    return [f"\n# {about}\n", f"[{prefix.rstrip('.')}]\n", *lines, *inner]


def _told(kinds: Kinds, shown: str) -> list[str]:
    """Which kinds a table comes in, and the settings of those that are not shown."""
    lines = [f"One of {', '.join(kinds)}. Settings of the others, with their defaults (meaning: consolidation/strategies):"]
    for kind, model in kinds.items():
        fields = [(name, field.default) for name, field in model.model_fields.items() if field.default != kind]
        if kind != shown:
            lines.append(f"- {kind}: {', '.join(f'{name} = {_toml(default)}' for name, default in fields) or 'none'}")
    return lines


def _toml(value: Any) -> str:
    """A TOML literal; JSON's are TOML's for text, numbers, truth values and lists."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
