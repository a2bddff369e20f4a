"""The stable names of everything the daemon logs: programs match on these, never on prose.

    python -m daemon.events

writes the table to docs/events.md. A name that was once released keeps its meaning; a new meaning gets a new name.
"""

from __future__ import annotations

import sys
from enum import StrEnum, unique
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "docs" / "events.md"

HEAD = """\
# Events in the log of `sleepyd`

<!-- written by python -m daemon.events -->

One line of JSON each, in `sleepyd.jsonl` and, before that, in the files `sleepyd.000001.jsonl` and upwards that are full;
`sleepyctl logs` shows them. Every line has `at` (UTC), `level`, `event` and `config` (hash of the configuration in force),
and `night`, `task` and `trajectory` where it belongs to one. What failed is told in `error` and, if it was an exception, in
`traceback`. Values of more than 2,000 characters are cut; what lies under a name that looks like a secret reads `[redacted]`.

| event | meaning | fields of its own |
|---|---|---|
"""


@unique
class Event(StrEnum):
    """What a log line is about. `meaning` is one line; `fields` are what it carries besides those of every line."""

    _value_: str
    meaning: str
    fields: tuple[str, ...]

    def __new__(cls, name: str, meaning: str = "", *fields: str) -> Event:
        """A name with what it means and carries; the name alone is the value, so `Event("night.due")` finds it."""
        event = str.__new__(cls, name)
        event._value_ = name
        event.meaning = meaning
        event.fields = fields
        return event

    DAEMON_STARTING = "daemon.starting", "The process has begun and owns its home.", "pid", "version", "home"
    DAEMON_READY = "daemon.ready", "It takes work and answers the control socket.", "seconds"
    DAEMON_STOPPING = "daemon.stopping", "It was asked to stop and finishes what must be finished.", "why"
    DAEMON_STOPPED = "daemon.stopped", "The last line of a process that ended in order.", "seconds"
    DAEMON_STATE = "daemon.state", "It passed from one state to another.", "from", "to", "why"
    DAEMON_ERROR = "daemon.error", "Something failed.", "where", "path", "retry_seconds", "error", "traceback"

    CONFIG_RELOADED = "config.reloaded", "A changed configuration is in force.", "path", "changed"
    CONFIG_REJECTED = "config.rejected", "A changed configuration is invalid; the old one stays in force.", "path", "error"

    INBOX_ACCEPTED = "inbox.accepted", "A file from the inbox was taken in.", "file", "tasks"
    INBOX_REJECTED = "inbox.rejected", "A file from the inbox was put aside.", "file", "error"

    TASK_STARTED = "task.started", "An attempt at a task began."
    TASK_ENDED = "task.ended", "A task has its outcome.", "outcome", "why", "steps"
    TASK_RETRIED = (
        "task.retried",
        "An attempt failed for reasons not the agent's; there will be another.",
        "outcome",
        "why",
        "steps",
    )
    TASK_INTERRUPTED = "task.interrupted", "A process that was killed left attempts open; they are closed.", "attempts"
    DAY_BATCH = "day.batch", "A batch of tasks is over.", "taken", "failed", "held"

    NIGHT_DUE = "night.due", "There is reason to sleep.", "why"
    NIGHT_DEFERRED = "night.deferred", "A night that is due has to wait.", "why"
    NIGHT_OPENED = "night.opened", "A night began, or goes on."
    NIGHT_STEP = "night.step", "The night has come to this step.", "step"
    NIGHT_PAIRS = "night.pairs", "A model has made pairs; answers of no use are counted by reason.", "pairs", "by", "problems"
    NIGHT_LOOK = (
        "night.look",
        "A claim was looked at after so many of its items: the drop and its bound (shares), and what follows.",
        "claim",
        "tasks",
        "of",
        "drop",
        "bound",
        "decision",
    )
    NIGHT_GUARD_LEFT_OUT = "night.guard_left_out", "A guard that would apply cannot be held here.", "why"
    NIGHT_RESUMED = "night.resumed", "A night that was broken off is taken up; these steps are done.", "steps"
    NIGHT_OVERRUN = "night.overrun", "The night goes on after its window has closed.", "window_closed_at"
    NIGHT_VERDICT = "night.verdict", "The gate has judged the candidate.", "promoted", "why", "numbers"
    NIGHT_CLOSED = "night.closed", "The night is over and recorded.", "promoted", "why"
    NIGHT_FAILED = "night.failed", "The night broke off; nothing was put to work.", "error", "traceback"
    METRICS_MEASURED = (
        "metrics.measured",
        "At the end of a night past days' tasks were asked again: attempts played, rows by arm, every metric's value.",
        "played",
        "rows",
        "left_out",
        "seconds",
        "values",
    )
    KNOWLEDGE_OPENED = (
        "knowledge.opened",
        "The knowledge of an arm is in step with the store; why this embedder was taken.",
        "space",
        "embedder",
        "why",
        "memories",
    )
    KNOWLEDGE_REMEMBERED = (
        "knowledge.remembered",
        "Attempts that are over became memories; how often a model that distils was of no use so far.",
        "trajectories",
        "memories",
        "problems",
    )
    KNOWLEDGE_TIDIED = (
        "knowledge.tidied",
        "The night consolidated what is known.",
        "merged",
        "contradicted",
        "faded",
        "revived",
        "handbooks",
        "version",
    )
    KNOWLEDGE_ROLLED_BACK = "knowledge.rolled_back", "What was known went back together with the skill.", "version"
    KNOWLEDGE_FORGOTTEN = (
        "knowledge.forgotten",
        "The owner had an attempt forgotten; these adapters had learnt from it, and these serve no longer.",
        "memories",
        "adapters",
        "retired",
    )
    TRAINING_PROGRESS = (
        "training.progress",
        "How far an adapter's training has come.",
        "repo",
        "step",
        "steps",
        "loss",
        "resumed_from",
    )

    WORKER_STARTED = "worker.started", "The worker process began.", "pid"
    WORKER_EXITED = "worker.exited", "The worker process ended.", "pid", "code"
    WORKER_IDLE = "worker.idle", "The worker had nothing to do for so long that it gives its memory back.", "minutes"

    CONTROL_REFUSED = "control.refused", "A request was understood and not carried out.", "path", "error"

    DISK_LOW = "disk.low", "Too little space is free: no task is taken, no night begun.", "free_mb", "floor_mb"
    DISK_RECOVERED = "disk.recovered", "Enough space is free again.", "free_mb"
    CLEANUP_REMOVED = "cleanup.removed", "A folder was removed to stay within a budget.", "path", "bytes"
    CLOCK_JUMPED = "clock.jumped", "Wall time moved otherwise than time passed: set, or the machine slept.", "seconds"

    ADAPTER_LEFT_OUT = (
        "adapter.left_out",
        "Live adapters do not serve with this base model; where they would, the bare base does.",
        "adapters",
        "why",
    )
    ADAPTER_PROMOTED = "adapter.promoted", "The owner put an adapter to work.", "adapter", "by"
    WATCH_ALARM = (
        "watch.alarm",
        "A chart over the tasks of a live adapter reached its limit: what served before is going to be live again.",
        "adapter",
        "repo",
        "why",
        "chart",
        "canary",
        "value",
        "limit",
        "promised",
        "seen",
        "tasks",
        "attempts",
        "resolved",
    )
    ADAPTER_ROLLED_BACK = "adapter.rolled_back", "What was live before is live again.", "live"

    LIBRARY_MESSAGE = "library.message", "A library warned or failed.", "logger", "message", "error", "traceback"
    LOGS_GAP = "logs.gap", "Lines before this one could not be written to the file.", "lines", "error"


def table() -> str:
    """Every event as a Markdown document."""
    rows = (f"| `{event}` | {event.meaning} | {', '.join(f'`{name}`' for name in event.fields)} |\n" for event in Event)
    return HEAD + "".join(rows)


def main(path: Path = TABLE) -> None:
    """Write the table to `path`."""
    path.write_text(table(), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
