"""A model that says again what was said: recorded trajectories, turn by turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.errors import ModelError
from agent.model import Completion, Message, Sampling, Speech
from agent.shown import opening, shown
from memory.hashing import content_hash
from memory.trajectories import Trajectory


class ReplayModel:
    """Answers with the turns of recorded attempts, found by their opening messages (and by key, if it is an attempt's id).

    `speaks` is how the recorded model called tools.
    `use` chooses among the records: those of the bare base, or those of the adapter folder of that name.
    """

    name = "replay"

    def __init__(self, trajectories: Iterable[Trajectory], speaks: Speech = "terse") -> None:
        self.speaks: Speech = speaks
        self.adapter: Path | None = None
        self._records = sorted((t for t in trajectories if t.steps), key=lambda t: (t.attempt, t.started_at, t.id))

    @property
    def fingerprint(self) -> str:
        """Hash of everything it may say."""
        told = [[t.id, t.adapter, t.system, t.prompt, [[s.said, s.observation] for s in t.steps]] for t in self._records]
        return content_hash([told, self.adapter and self.adapter.name, self.speaks])

    def use(self, adapter: Path | None) -> None:
        """Answer from the records of this adapter, or with None of the bare base.

        Raises:
            ModelError: there is no record of it.
        """
        if adapter is not None and all(record.adapter != adapter.name for record in self._records):
            raise ModelError(f"no recorded attempt was made with adapter {adapter.name}; replay without it")
        self.adapter = adapter

    def complete(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling, keys: Sequence[str] = ()
    ) -> list[Completion]:
        """The recorded turn that comes next in each conversation; sampling is the record's.

        Raises:
            ModelError: a conversation departs from the record; the text says where.
        """
        names = list(keys) or [""] * len(conversations)
        return [self._next(list(messages), name) for messages, name in zip(conversations, names, strict=True)]

    def unload(self) -> None:
        """It has no weights."""

    def forget(self, keys: Sequence[str]) -> None:
        """Nothing is kept."""

    def _next(self, messages: list[Message], key: str) -> Completion:
        name = self.adapter and self.adapter.name
        begun = [t for t in self._records if t.adapter == name and messages[: len(opening(t))] == opening(t)]
        begun = [t for t in begun if t.id == key] or begun
        if not begun:
            said = messages[-1].content[:80] if messages else ""
            raise ModelError(f"no attempt {f'with adapter {name} ' if name else ''}is recorded that begins like this: {said!r}")
        gaps = [_departure(t, messages) for t in begun]
        for record, gap in zip(begun, gaps, strict=True):
            if not gap:
                step = record.steps[(len(messages) - len(opening(record))) // 2]
                return Completion(step.said, step.prompt_tokens, step.completion_tokens)
        raise ModelError(f"the conversation departs from the record: {gaps[0]}")


def _departure(record: Trajectory, messages: list[Message]) -> str:
    """Where a conversation is not the recorded one, or cannot go on from it; nothing if it can."""
    turn, half = divmod(len(messages) - len(opening(record)), 2)
    if turn > len(record.steps) or (turn == len(record.steps) and not half):
        return f"{record.id} was recorded for {len(record.steps)} turns only"
    known = shown(record, turn)
    gap = next((at for at, (there, here) in enumerate(zip(known, messages, strict=False)) if there != here), None)
    if gap is not None:
        there, here, number = known[gap], messages[gap], (gap - len(opening(record))) // 2
        return (
            f"{record.id}, turn {number}: recorded {there.role} {there.content[:80]!r}, now {here.role} {here.content[:80]!r}"
        )
    return f"{record.id} stops in the middle of turn {turn}" if half else ""
