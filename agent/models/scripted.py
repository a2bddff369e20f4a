"""A model that says what it is told: for tests, and for telling known fixes as turns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.model import Completion, Message, Sampling, Speech

SUBMIT = "submit"


class ScriptedModel:
    """Answers each conversation from its own script (by key, else by `default`), then submits."""

    name = "scripted"

    def __init__(
        self, default: Sequence[str] = (), scripts: Mapping[str, Sequence[str]] | None = None, speaks: Speech = "terse"
    ) -> None:
        self.speaks: Speech = speaks
        self._default = tuple(default)
        self._scripts = {key: tuple(lines) for key, lines in (scripts or {}).items()}

    @property
    def fingerprint(self) -> str:
        """Hash of everything it will say."""
        return hashlib.sha256(repr((self._default, sorted(self._scripts.items()), self.speaks)).encode()).hexdigest()[:16]

    def use(self, adapter: Path | None) -> None:
        """It says the same with every adapter."""

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """The next line of each script; how far a script is, the conversation itself tells."""
        answers: list[Completion] = []
        for number, messages in enumerate(conversations):
            script = self._scripts.get(keys[number], self._default) if keys else self._default
            turn = sum(message.role == "assistant" for message in messages)
            answers.append(Completion(script[turn] if turn < len(script) else SUBMIT, 0, 0))
        return answers

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept."""

    def unload(self) -> None:
        """It has no weights."""
