"""What the exam is made of: prompts with the real toolkit's words, on a stage where earlier calls really happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.model import Message
from agent.session import Left, Toolkit
from agent.tools import TestRun
from agent.workplace import tree_diff
from agent.workspace import Workspace, remove_tree, write_tree
from eval.errors import EvalError
from eval.tool_format.score import Right
from memory.trajectories import Outcome

CATEGORIES = ("text tools", "validation", "code intelligence", "git", "syntax trees", "domain", "multi-step")
_LEFT = Left(60, 10**9, 1e9)


@dataclass(frozen=True)
class Turn:
    """One turn that is asked for. `call` is a right answer as it is written, `rights` says which calls are right.

    If `becomes` is given (path, source), the call must also make that file this Python, whatever its spelling.
    """

    call: str
    rights: tuple[Right, ...]
    becomes: tuple[str, str] | None = None


@dataclass(frozen=True)
class Prompt:
    """A place in a conversation: the message it opens with, the calls made before, and the turns that are asked for.

    `tests` is what the tests say on this stage; they never run.
    """

    id: str
    category: str
    opening: str
    files: Mapping[str, str]
    turns: tuple[Turn, ...]
    tests: TestRun
    done: tuple[str, ...] = ()


class Stage:
    """A workplace for one prompt in the new folder `root`; nothing is ever run on it.

    Raises:
        EvalError: a call before the prompt's place cannot be carried out.
    """

    def __init__(self, prompt: Prompt, toolkit: Toolkit, root: Path) -> None:
        write_tree(root, prompt.files)
        self.workspace = Workspace(root)
        self._prompt = prompt
        self._before = dict(prompt.files)
        self._session = toolkit.session(self)
        system = [Message("system", toolkit.system)] if toolkit.system else []
        self.messages = [*system, Message("user", prompt.opening)]
        for call in prompt.done:
            if not self.take(call):
                raise EvalError(f"tool format, {prompt.id}: {self.messages[-1].content}")

    def take(self, said: str) -> bool:
        """Carry out a turn and add it, with what it shows, to the conversation; whether it was a call."""
        turn = self._session.take(said, _LEFT)
        self.messages += [Message("assistant", said), Message("tool", turn.observation)]
        return turn.tool != "malformed" and not turn.observation.startswith("not done: ")

    def test(self, targets: Sequence[str] = ()) -> TestRun:
        """See `Workplace`."""
        return self._prompt.tests

    def diff(self) -> str:
        """See `Workplace`."""
        return tree_diff(self._before, self.workspace.snapshot())

    def grade(self) -> tuple[Outcome, str]:
        """See `Workplace`; there is nothing to be graded."""
        return Outcome.GAVE_UP, "an exam of calls"

    def close(self) -> None:
        """See `Workplace`."""
        remove_tree(self.workspace.root)
