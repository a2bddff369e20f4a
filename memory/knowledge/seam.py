"""The `KnowledgeLayer` seam: what may be asked for a task before an attempt begins."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from memory.knowledge.memories import Recalled
from memory.tasks import Task

SCRUB = "knowledge.scrub"
"""Note that something was forgotten which the index may still hold; the next opening makes the index anew without it."""


class KnowledgeLayer(Protocol):
    """What an attempt may ask before it begins, and what is told of it then."""

    @property
    def digest(self) -> str:
        """Hash of all that decides what is recalled, for the configuration of results; empty for none."""
        ...

    def recall(self, task: Task, now: datetime) -> Recalled:
        """What is known by `now` that fits the task: nothing of a task later than it, of itself, or held out."""
        ...

    def used(self, trajectory_id: str, recalled: Recalled) -> None:
        """An attempt began that was shown these memories."""
        ...


class NoKnowledge:
    """Knows nothing; for the arms without knowledge, and for examinations."""

    digest = ""

    def recall(self, task: Task, now: datetime) -> Recalled:
        """See `KnowledgeLayer`."""
        return Recalled()

    def used(self, trajectory_id: str, recalled: Recalled) -> None:
        """See `KnowledgeLayer`."""
