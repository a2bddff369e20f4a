"""What goes over the control socket: requests and answers, typed on both sides."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from daemon.plan import NightPlan
from daemon.states import State
from memory.nights import Verdict


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Doing(_Message):
    """What the worker is busy with; `tasks` are those of the running batch, `step` belongs to a night."""

    tasks: list[str] = []
    night: str | None = None
    step: str = ""
    progress: dict[str, str | int | float] = {}


class Status(_Message):
    """Everything an owner wants to know at a glance. Times are UTC."""

    state: State
    since: datetime
    why: str = ""
    pid: int
    worker_pid: int | None = None
    started_at: datetime
    home: str
    version: str
    config_hash: str
    config_problem: str = ""
    """Why the configuration file's latest change was not taken over."""
    holding: str = ""
    """Why no task is taken although it is awake."""
    doing: Doing = Doing()
    tasks_ended: int = 0
    tasks_resolved: int = 0
    tasks_since_night: int = 0
    nights: int = 0
    last_night: str | None = None
    last_verdict: Verdict | None = None
    next_night: datetime | None = None
    night_deferred: str = ""
    """Why the last night that was due was not held."""
    live: dict[str, str] = {}
    """Repository to adapter; every other repository is served by the bare base."""
    taken_back: str = ""
    """What the online watch took out of service, and why."""
    arm: str = ""
    memories: int = 0
    """What is recalled of past attempts, and the version of that knowledge."""
    knowledge: str = ""
    free_disk_mb: int = 0
    rss_mb: float = 0.0


class SleepRequest(_Message):
    """`dry_run` only says what a night would do."""

    dry_run: bool = False


class Accepted(_Message):
    """What was asked for will happen; `nights` is how many had ended by then."""

    what: str
    nights: int = 0


class SleepAnswer(_Message):
    """Whether a night will be held, and its plan; of a dry run also the data that it would train on."""

    accepted: bool
    plan: NightPlan
    nights: int = 0
    data: dict[str, Any] | None = None


class AdapterRow(_Message):
    """One adapter: which repositories it is for, whether it serves them, and whether it is kept for ever."""

    id: str
    created_at: datetime
    scope: list[str]
    strategy: str
    live: bool
    previous: bool
    pinned: bool
    bytes: int
    loss_last: float
    state: str
    """candidate, rejected, live, or retired."""
    damaged: str = ""
    """What is wrong with its files."""


class PromoteRequest(_Message):
    """Serve an adapter's whole scope with it; every other repository keeps what it has."""

    adapter: str = Field(min_length=1)


class LiveTable(_Message):
    """Repository to adapter, after the change; and the version of the knowledge that went back with it, if any."""

    live: dict[str, str]
    knowledge: str = ""


class Problem(_Message):
    """Why something was not done."""

    error: str


class SearchRequest(_Message):
    """What would be recalled for a text, in one repository or in all of them."""

    query: str = Field(max_length=20_000)
    repo: str = Field(default="", max_length=200)
    most: int = Field(default=10, ge=1, le=100)


class ForgetRequest(_Message):
    """Forget an attempt; with `retire`, the adapters that learnt from it serve no longer."""

    trajectory: str = Field(min_length=1)
    retire: bool = False


class PinRequest(_Message):
    """Keep an adapter for ever (`keep`), or as long as there is room."""

    adapter: str = Field(min_length=1)
    keep: bool = True
