"""One attempt's turns at its workplace: what the agent said becomes a call, an observation, an end.

A toolkit opens a session for each attempt. `TERSE` is the five tools that the pocket model was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import CallError
from agent.recalled import terse_prompt
from agent.tools import TestRun, bounded, execute
from agent.toolset import Tool
from agent.turns import parse_call
from agent.workplace import Workplace
from agent.workspace import Workspace
from memory.hashing import content_hash
from memory.knowledge.memories import Recalled
from memory.tasks import Task

MALFORMED = "malformed"
SUBMIT = "submit"
NOT_DONE = "not done: "
"""How the observation of a call begins that was one, but could not be carried out (full toolkit)."""


@dataclass(frozen=True)
class Left:
    """What is left of an attempt's budget before a turn."""

    steps: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Turn:
    """What came of one turn. `tests_passed` is `None` where no tests ran; `submits` ends the attempt."""

    tool: str
    observation: str
    tests_passed: bool | None = None
    submits: bool = False


class Session(Protocol):
    """Takes one attempt's turns, in order."""

    def take(self, said: str, left: Left) -> Turn:
        """Carry out what the agent said. Whatever it said, this is a turn.

        Raises:
            SandboxError: tests could not be started.
        """
        ...


class Toolkit(Protocol):
    """A set of tools with the words that explain it. `system` is empty where the model was trained on it."""

    @property
    def name(self) -> str:
        """Under which results name it."""
        ...

    @property
    def system(self) -> str:
        """What a model is told before its first turn."""
        ...

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What a server that knows tool calls is given; nothing where calls are text."""
        ...

    @property
    def digest(self) -> str:
        """Hash of all that a model is told about the tools, for the configuration of results."""
        ...

    def prompt(self, task: Task, recalled: Recalled) -> str:
        """The first message of an attempt: what was recalled for the task, and its issue."""
        ...

    def session(self, place: Workplace) -> Session:
        """A new attempt's session."""
        ...


class _TerseSession:
    def __init__(self, place: Workplace) -> None:
        self._place = place

    def take(self, said: str, left: Left) -> Turn:
        ran: list[TestRun] = []

        def tests(workspace: Workspace, targets: Sequence[str] = ()) -> TestRun:
            ran.append(self._place.test(targets))
            return ran[-1]

        try:
            call = parse_call(said)
            if call.tool == SUBMIT:
                return Turn(SUBMIT, "", submits=True)
            observation = execute(call, self._place.workspace, tests)
        except CallError as error:
            return Turn(MALFORMED, bounded(str(error)))
        return Turn(call.tool, observation, ran[-1].passed if ran else None)


@dataclass(frozen=True)
class Terse:
    """The five tools, in the words that the pocket model was trained on."""

    name: str = "terse"
    system: str = ""
    tools: tuple[Tool, ...] = ()

    @property
    def digest(self) -> str:
        """See `Toolkit`."""
        return content_hash([self.name, self.system])

    def prompt(self, task: Task, recalled: Recalled) -> str:
        """See `Toolkit`."""
        return terse_prompt(task, recalled)

    def session(self, place: Workplace) -> Session:
        """See `Toolkit`."""
        return _TerseSession(place)


TERSE = Terse()
