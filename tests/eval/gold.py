"""Known patches told as turns of the full protocol, and a model that plays them by the issue it is shown."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.model import Completion, Message, Sampling
from agent.models.scripted import ScriptedModel
from agent.repositories import Checkout, apply
from agent.turns import Call, render_full

LONGEST_BODY = 15_000


def edits(before: str, after: str, path: str) -> list[Call]:
    """Range edits that turn one text into the other, the last place first, so that line numbers hold."""
    old, new = before.removesuffix("\n").split("\n"), after.removesuffix("\n").split("\n")
    calls = []
    for kind, a, b, c, d in reversed(difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()):
        if kind == "equal":
            continue
        if a == b:  # a range is never empty: take a neighbour along
            a, b, c, d = (a - 1, b, c - 1, d) if a else (a, b + 1, c, d + 1)
        calls.append(Call("edit", path, a + 1, b, body="\n".join(new[c:d])))
    return calls


def gold_calls(opened: Checkout, patch: str) -> list[Call]:
    """What an agent would call that knows the patch; `opened` is a fresh checkout, and is patched."""
    root = opened.root
    apply(opened, patch)
    changed = [p.decode() for p in opened.git("ls-files", "-z", "--modified", "--deleted", "--others").split(b"\0")[:-1]]
    calls: list[Call] = []
    for path in dict.fromkeys(changed):
        base = opened.git("ls-files", "-z", "--", path)
        after = (root / path).read_text(encoding="utf-8") if (root / path).is_file() else None
        before = opened.git("cat-file", "blob", f"HEAD:{path}").decode() if base else None
        if before is None:
            assert after is not None
            calls.append(Call("create", path, body=after.removesuffix("\n")))
        elif after is None:
            calls.append(Call("delete", path))
        else:
            calls += edits(before, after, path)
    return calls


def gold_turns(opened: Checkout, patch: str) -> list[str]:
    """The whole attempt: look, change, test nothing, review, submit."""
    calls = gold_calls(opened, patch)
    first = next((call.target for call in calls if call.tool == "edit"), "")
    look = [Call("map"), *([Call("view", first, 1, 20)] if first else [])]
    return [render_full(call) for call in (*look, *calls, Call("diff"), Call("submit"), Call("submit"))]


class ByIssue(ScriptedModel):
    """Plays the script of the issue that its conversation ends on (earlier ones may be recalled); in the full protocol."""

    def __init__(self, scripts: Mapping[str, Sequence[str]]) -> None:
        super().__init__(speaks="text")
        self.issues = {" ".join(issue.split()): list(lines) for issue, lines in scripts.items()}
        self.seen: list[str] = []

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        answers = []
        for messages in conversations:
            told = " ".join(" ".join(m.content for m in messages if m.role == "user").split())
            last = max(self.issues, key=told.rfind, default="")
            script = self.issues[last] if last in told and last else []
            turn = sum(m.role == "assistant" for m in messages)
            self.seen += [m.content for m in messages]
            answers.append(Completion(script[turn] if turn < len(script) else render_full(Call("submit")), 0, 0))
        return answers


class Knowing:
    """The brain of a chat server that plays the script of the issue it is shown."""

    context = 10**6

    def __init__(self, scripts: Mapping[str, Sequence[str]]) -> None:
        self.model = ByIssue(scripts)

    def tokens(self, turns: Sequence[Mapping[str, Any]]) -> int:
        return sum(len(turn["content"]) // 4 for turn in turns)

    def answer(self, turns: Sequence[Mapping[str, Any]], sampling: Sampling, adapter: Path | None = None) -> Completion:
        # Over this API observations are messages of the user's; the first is the issue.
        messages = [Message(turn["role"], turn["content"]) for turn in turns]
        said = self.model.complete([messages], sampling)[0]
        return Completion(said.text, self.tokens(turns), len(said.text) // 4)
