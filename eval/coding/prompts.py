"""What a chat model is asked: one function, in one fenced block."""

from __future__ import annotations

from agent.model import Message
from eval.coding.problems import Problem

_ANSWER = (
    "Answer with one Python code block, fenced by three backticks, that holds the whole function and whatever it needs to "
    "import or to call. Write nothing after the block."
)


def prompt(problem: Problem) -> list[Message]:
    """The conversation in which a problem is posed: one message of the user's."""
    if problem.stub:
        given = f"{problem.header}{problem.stub}".strip("\n")
        said = f"Complete the Python function `{problem.entry}`:\n\n```python\n{given}\n```"
    else:
        shown = "\n".join(problem.examples)
        said = f"{problem.text.strip()}\n\nIt is a Python function, and this must hold of it:\n\n```python\n{shown}\n```"
    return [Message("user", f"{said}\n\n{_ANSWER}")]
