"""Attempts to distil: pocket tasks played by scripts in a real sandbox, and sessions of other agents."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from agent.loop import Budget
from agent.model import Completion, Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.sandbox.base import Sandbox
from agent.turns import Call, render_call, render_full
from eval.play import Player
from eval.pocket.stream import PocketStream
from memory.tasks import Task
from memory.trajectories import Outcome, Step, Trajectory

STREAM = PocketStream(seed=4, repos=("bank", "game", "farm"), count=4)
TASKS = {task.id: task for task in STREAM.tasks()}
WHEN = datetime(2024, 5, 1, tzinfo=UTC)


class Scripts(ScriptedModel):
    """Knows each task by its issue."""

    def __init__(self, calls: dict[str, list[Call]], speaks: Literal["terse", "text"]) -> None:
        super().__init__(speaks=speaks)
        self.lines = {
            issue: [(render_call if speaks == "terse" else render_full)(call) for call in said] for issue, said in calls.items()
        }

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        answers = []
        for messages in conversations:
            prompt = next(message.content for message in messages if message.role == "user")
            script = self.lines[prompt.partition("\n")[2]]
            turn = sum(message.role == "assistant" for message in messages)
            answers.append(Completion(script[turn] if turn < len(script) else render_call(Call("submit")), 0, 0))
        return answers


def played(sandbox: Sandbox, calls: dict[str, list[Call]], speaks: Literal["terse", "text"] = "terse") -> list[Trajectory]:
    tasks = [task for task in TASKS.values() if task.issue in calls]
    return list(Player(Scripts(calls, speaks), sandbox, budget=Budget(steps=14)).play(STREAM, tasks))


def said(name: str, **arguments: Any) -> str:
    return f"I do this.\n\n{json.dumps({'name': name, 'arguments': arguments})}"


def imported(
    *turns: tuple[str, str], reader: str = "claude-code/1", outcome: Outcome | None = Outcome.UNRESOLVED
) -> Trajectory:
    steps = [Step(number=n, said=text, observation=seen, tool="x", seconds=1.5) for n, (text, seen) in enumerate(turns)]
    fields: dict[str, Any] = {"id": "i", "task_id": "t", "repo": "own/shop", "prompt": ISSUE, "model": "m", "config_hash": "c"}
    return Trajectory(**fields, started_at=WHEN, steps=steps, outcome=outcome, imported=reader)


ISSUE = (
    "Fees are wrong at ten\n\nLong story.\nMore.\nMore.\n```\nTraceback (most recent call last):\nshop.FeeError: no fee\n```\n"
)
TASK = Task(id="t", repo="own/shop", issue=ISSUE, created_at=WHEN, position=0, difficulty="x")
HOME = "/home/somebody/shop"
CLAUDE = (
    (
        said("Read", file_path=f"{HOME}/shop/fees.py"),
        "     1→def fee(price):\n     2→    if price > 10:\n     3→        return 7",
    ),
    (said("Grep", pattern="fee"), "shop/fees.py:1:def fee(price):"),
    (said("Edit", file_path=f"{HOME}/shop/fees.py", old_string="price > 10", new_string="price > 9"), "has been updated"),
    (said("Bash", command=f"cd {HOME} && python -m pytest tests -q 2>&1 | tail -5"), "E   assert 0 == 7\n1 failed, 2 passed"),
    (
        said("Edit", file_path=f"{HOME}/shop/fees.py", old_string="absent", new_string="x"),
        "<tool_use_error>String to replace not found",
    ),
    (said("Edit", file_path=f"{HOME}/shop/fees.py", old_string="price > 9", new_string="price >= 10"), "has been updated"),
    (said("Write", file_path=f"{HOME}/tests/test_ten.py", content="def test_ten(): pass\n"), "created"),
    (said("Bash", command=f"cd {HOME} && python -m pytest tests -q 2>&1 | tail -5"), "3 passed in 0.1s"),
)
