"""One attempt with the full toolkit, and what it is told besides: that it repeats itself, that its turns run out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from agent.errors import AgentError, CallError, SandboxError
from agent.full.edits import Desk
from agent.full.map import overview
from agent.full.output import shortened
from agent.full.review import MAX_DIFF_CHARS, review
from agent.full.search import search
from agent.full.view import view
from agent.recalled import full_prompt
from agent.session import MALFORMED, NOT_DONE, SUBMIT, Left, Session, Turn
from agent.tools import bounded
from agent.toolset import FULL_TOOLS, Tool
from agent.turns import Call, parse_full, render_full
from agent.workplace import Workplace
from memory.hashing import content_hash
from memory.knowledge.memories import Recalled
from memory.tasks import Task

PROMPTS = Path(__file__).resolve().parent.parent / "prompts"
VERSION = "v1"
MAX_CHARS = 16_000
REPEATS = 3
_TIMES = re.compile(r"\d+(\.\d+)? ?(s|ms|seconds?)\b|0x[0-9a-f]+")


@cache
def prompt(name: str) -> str:
    """The text of a versioned prompt file."""
    return (PROMPTS / f"{name}-{VERSION}.txt").read_text(encoding="utf-8").strip()


@dataclass(frozen=True)
class Full:
    """All tools, for models that are told about them: in the system prompt, or natively by their server.

    `shorten` is how many characters of observations a conversation holds before old ones are left out (`agent.shown`);
    0 for never.
    """

    native: bool = False
    shorten: int = 80_000

    @property
    def name(self) -> str:
        """See `Toolkit`."""
        return "full-native" if self.native else "full"

    @cached_property
    def system(self) -> str:
        """See `Toolkit`."""
        rule = [prompt("trimming").format(chars=self.shorten)] if self.shorten else []
        return "\n\n".join([prompt("strategy"), prompt("native" if self.native else "text"), *rule])

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What a server that knows tool calls is given."""
        return FULL_TOOLS if self.native else ()

    @property
    def digest(self) -> str:
        """See `Toolkit`."""
        tools = [[tool.name, tool.description, tool.schema] for tool in self.tools]
        return content_hash([self.name, self.system, tools, prompt("recalled")])

    def prompt(self, task: Task, recalled: Recalled) -> str:
        """See `Toolkit`."""
        return full_prompt(task, recalled, prompt("recalled"))

    def session(self, place: Workplace) -> Session:
        """See `Toolkit`."""
        return _FullSession(place)


FULL, FULL_NATIVE = Full(), Full(native=True)


class _FullSession:
    def __init__(self, place: Workplace) -> None:
        self._place = place
        self._desk = Desk(place.workspace)
        self._seen: Counter[str] = Counter()
        self._first: Left | None = None
        self._reviewed: str | None = None
        self._tested: bool | None = None
        self._fresh = False

    def take(self, said: str, left: Left) -> Turn:
        """See `Session`."""
        self._first = self._first or left
        try:
            call = parse_full(said)
        except CallError as error:
            return self._noted(Turn(MALFORMED, str(error)), "", left)
        try:
            turn = self._do(call, left)
        except CallError as error:
            turn = Turn(call.tool, f"{NOT_DONE}{error}")
        return turn if turn.submits else self._noted(turn, render_full(call), left)

    def _do(self, call: Call, left: Left) -> Turn:
        workspace, path = self._place.workspace, call.target
        if call.tool == "map":
            return Turn(call.tool, overview(workspace, path))
        if call.tool == "search":
            return Turn(call.tool, search(workspace, path, call.within))
        if call.tool == "view":
            return Turn(call.tool, view(workspace, path, call.start, call.end))
        if call.tool == "test":
            return self._test(call)
        if call.tool == "diff":
            return Turn(call.tool, bounded(self._diff(), MAX_DIFF_CHARS) or "nothing is changed")
        if call.tool == SUBMIT:
            return self._submit(left)
        return self._change(call)

    def _change(self, call: Call) -> Turn:
        if call.tool == "edit":
            observation = self._desk.edit(call)
        elif call.tool == "create":
            observation = self._desk.create(call.target, call.body)
        elif call.tool == "delete":
            observation = self._desk.delete(call.target)
        else:
            observation = self._desk.undo()
        self._fresh = False
        return Turn(call.tool, observation)

    def _test(self, call: Call) -> Turn:
        if options := [target for target in call.targets if target.startswith("-")]:
            raise CallError(f"{options[0][:40]!r} is an option; name files or tests")
        run = self._place.test(call.targets)
        self._tested, self._fresh = run.passed, True
        return Turn(call.tool, shortened(run.text), run.passed)

    def _diff(self) -> str:
        try:
            return self._place.diff()
        except SandboxError:
            raise
        except AgentError as error:  # its text names places of this machine
            raise CallError("the change is too large to be shown; remove what is no part of it") from error

    def _submit(self, left: Left) -> Turn:
        diff = self._diff()
        if left.steps <= 1 or diff == self._reviewed:
            return Turn(SUBMIT, "", submits=True)
        self._reviewed = diff
        if not diff:
            return Turn(SUBMIT, "nothing is changed. Submit again to give up, or go on.")
        return Turn(SUBMIT, review(diff, self._tested, self._fresh))

    def _noted(self, turn: Turn, call: str, left: Left) -> Turn:
        """The turn with what the agent should know besides, at its end."""
        observation = bounded(turn.observation, MAX_CHARS)
        key = content_hash([call, _TIMES.sub("", observation)])
        self._seen[key] += 1
        notes = [_repeats(self._seen[key])] if self._seen[key] >= REPEATS and call else []
        notes += self._budget(left)
        return Turn(turn.tool, "\n".join([observation, *notes]), turn.tests_passed)

    def _budget(self, left: Left) -> list[str]:
        """What is said when turns or tokens run low, of those there were at first."""
        assert self._first is not None
        turns, notes = left.steps - 1, []
        if 0 < turns <= max(2, min(8, self._first.steps // 5)):
            notes.append(f"[{turns} turn{'' if turns == 1 else 's'} left{': submit now' if turns <= 2 else ''}]")
        if left.tokens < self._first.tokens // 5:
            notes.append(f"[about {max(0, left.tokens)} tokens left: test and submit soon]")
        return notes


def _repeats(times: int) -> str:
    if times == REPEATS:
        return f"[this call has shown the same {times} times: it will not show anything else; do something different]"
    return (
        f"[this call has shown the same {times} times. Stop repeating it: read the issue again, look at another place, "
        "undo what did not help, or submit what you have]"
    )
