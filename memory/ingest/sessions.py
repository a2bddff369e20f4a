"""Sessions: what every reader makes of a file, and the trajectory that is made of a session.

What a reader returns is as the file has it, secrets included; it lives only until `trajectory_of` has redacted it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from memory.errors import StoreError
from memory.hashing import content_hash
from memory.ingest.redaction import Redactor
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory

NOT_GRADED = "imported: not graded here"
UNKNOWN = "unknown"
LONGEST_NAME = 200
MAX_REASONS = 5
DEEPEST = 100
_INSTANCE = re.compile(r"([A-Za-z0-9][\w.-]*?)__([\w.-]+)-(\d+)")
_WRAPPED = (
    re.compile(r"<pr_description>\s*(?:Consider the following PR description:\s*)?(.*?)\s*</pr_description>", re.DOTALL),
    re.compile(r"^ISSUE:\s*\n(.*?)\n+\s*INSTRUCTIONS:", re.DOTALL | re.MULTILINE),
    re.compile(r"\APlease solve this issue:\s*(.*?)\n\s*\n(?=You can execute bash commands)", re.DOTALL),
)


class SessionError(StoreError):
    """A file holds no session that could be read; the text says why."""


@dataclass
class Turn:
    """One call of a tool, the prose before it, and what came back. A turn without a call has no `tool`."""

    prose: str
    tool: str = ""
    arguments: object = None
    observation: str = ""


@dataclass
class Session:
    """One session as its file has it. `identity` is what the source itself calls it, if it does."""

    reader: str
    identity: str = ""
    instance: str = ""
    repo: str = ""
    prompt: str = ""
    model: str = ""
    started_at: datetime | None = None
    turns: list[Turn] = field(default_factory=list)
    outcome: Outcome = Outcome.UNRESOLVED
    reason: str = NOT_GRADED


@dataclass
class Skipped:
    """What was left out of a file: how much of each kind by design, and what could not be read, with the first reasons."""

    left_out: Counter[str] = field(default_factory=Counter)
    malformed: int = 0
    reasons: list[str] = field(default_factory=list)

    def bad(self, where: str, why: str) -> None:
        """Count something that could not be read."""
        self.malformed += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(f"{where}: {why[:200]}")


def parsed(raw: bytes) -> Any:
    """JSON from a stranger. Raises `SessionError` with the reason, whatever the bytes are."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SessionError(f"no UTF-8 (byte {error.start})") from error
    except RecursionError as error:
        raise SessionError("nested too deeply") from error
    except ValueError as error:
        raise SessionError(f"no JSON ({str(error)[:120]})") from error
    level = [value]
    for _ in range(DEEPEST):
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else entries(one))]
        if not level:
            return value
    raise SessionError(f"nested too deeply (more than {DEEPEST} levels)")


def table(value: object) -> dict[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def entries(value: object) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def plain(content: object) -> str:
    """The text of a message's content: a string, or a list of blocks, of which images leave a mark."""
    if isinstance(content, str):
        return content
    return "\n".join(part for part in _parts(content) if part)


def _parts(content: object) -> Iterator[str]:
    for block in entries(content):
        if isinstance(block, str):
            yield block
        elif isinstance(block, dict):
            text = block.get("text")
            kind = block.get("type")
            yield text if isinstance(text, str) else f"[{kind}]" if kind in ("image", "image_url", "document") else ""


def name(value: object) -> str:
    """`value` if it can be a name, else an empty string."""
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_NAME else ""


def moment(value: object) -> datetime | None:
    """A moment in UTC, from ISO 8601 (UTC unless it says otherwise) or seconds since 1970, if it is one."""
    try:
        if isinstance(value, str):
            when = datetime.fromisoformat(value)
            return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def instance_of(*candidates: object) -> str:
    """The first of some names that is a benchmark's instance id (owner__name-123), or an empty string."""
    return next(
        (one for one in candidates if isinstance(one, str) and len(one) <= LONGEST_NAME and _INSTANCE.fullmatch(one)), ""
    )


def repo_of(instance: str) -> str:
    """The repository that an instance id names: owner__name-123 is of owner/name."""
    match = _INSTANCE.fullmatch(instance)
    return f"{match[1]}/{match[2]}" if match else ""


def statement(prompt: str) -> str:
    """The problem statement in the first message of an agent that wraps it in instructions, or the whole message."""
    for pattern in _WRAPPED:
        if (match := pattern.search(prompt)) and match[1].strip():
            return match[1].strip()
    return prompt


def trajectory_of(session: Session, started_at: datetime, repo: str, redactor: Redactor) -> Trajectory:
    """A session as a trajectory, redacted; `started_at` and `repo` are used where it does not say.

    Its id is a hash of reader, identity and content, so that the same session is the same trajectory wherever its file
    lies. It is never resolved: nothing here has seen its tests pass.
    """
    steps = []
    for number, turn in enumerate(session.turns):
        said, tool = redactor.bounded(turn.prose.strip()), redactor.bounded(turn.tool)[:LONGEST_NAME]
        if tool:
            call = {"name": tool, "arguments": redactor.value(turn.arguments)}
            said = f"{said}\n\n{json.dumps(call, ensure_ascii=False)}".lstrip()
        steps.append(Step(number=number, said=said, observation=redactor.bounded(turn.observation), tool=tool))
    content = [session.prompt, [[turn.prose, turn.tool, turn.arguments, turn.observation] for turn in session.turns]]
    return Trajectory(
        id=f"imported-{_hash([session.reader, session.identity, session.instance, content])}",
        task_id=redactor.bounded(session.instance) or f"imported-{_hash([session.reader, session.identity or content])}",
        repo=redactor.bounded(repo or session.repo or repo_of(session.instance)) or UNKNOWN,
        prompt=redactor.bounded(session.prompt.strip()),
        model=redactor.bounded(session.model) or UNKNOWN,
        started_at=session.started_at or started_at,
        config_hash="imported",
        steps=steps,
        outcome=session.outcome,
        reason=redactor.bounded(session.reason),
        imported=session.reader,
    )


def task_of(trajectory: Trajectory) -> Task:
    """The task that an imported trajectory was about, as far as its file told."""
    issue = trajectory.prompt or UNKNOWN
    return Task(
        id=trajectory.task_id,
        repo=trajectory.repo,
        issue=issue,
        created_at=trajectory.started_at,
        position=0,
        difficulty="imported",
    )


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True)  # escapes lone surrogates, which no hash could take
    return content_hash(text)
