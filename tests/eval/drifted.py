"""The pocket stream after a repository drifted, and a model that keeps saying what it learnt before."""

from collections.abc import Sequence
from pathlib import Path

from agent.model import Completion, Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.turns import Call, render_call
from consolidation.synthesis.merged_fix import calls_for
from eval.grading import TreeWorkplace
from eval.pocket.stream import PocketStream
from eval.pocket.world import CONVENTION_KIND
from memory.tasks import Task, TaskSecret


class Drifted(PocketStream):
    """The same stream, but `old` is called `new` everywhere in the repository."""

    old, new = "cents", "pennies"

    def checkout(self, task: Task) -> dict[str, str]:
        return {name: text.replace(self.old, self.new) for name, text in super().checkout(task).items()}

    def secret(self, task: Task) -> TaskSecret:
        known = super().secret(task)
        tests = {name: text.replace(self.old, self.new) for name, text in known.tests.items()}
        return known.model_copy(update={"tests": tests})

    def open(self, task: Task, root: Path, sandbox):  # type: ignore[no-untyped-def]
        return TreeWorkplace(root, self.checkout(task), self.secret(task), sandbox)


def conventions(stream: PocketStream) -> list[Task]:
    return [task for task in stream.tasks() if PocketStream.secret(stream, task).kind == CONVENTION_KIND]


class Settled(ScriptedModel):
    """Looks the house symbol up, repairs each task as `stream` had it repaired, tests, and submits."""

    def __init__(self, stream: PocketStream, symbol: str = Drifted.old) -> None:
        super().__init__()
        look = render_call(Call("search", symbol))
        self._lines = {t.issue: [look, *map(render_call, calls_for(stream.merged_fix(t)))] for t in stream.tasks()}

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        answers = []
        for messages in conversations:
            script = self._lines[messages[0].content.partition("\n")[2]]
            turn = sum(message.role == "assistant" for message in messages)
            answers.append(Completion(script[turn] if turn < len(script) else "submit", 0, 0))
        return answers
