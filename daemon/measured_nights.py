"""A night that is measured before it closes, and knowledge that is asked without a trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from memory.knowledge.memories import Recalled
from memory.knowledge.seam import KnowledgeLayer
from memory.nights import Night
from memory.store import Store
from memory.tasks import Task


@dataclass(frozen=True)
class MeasuredNights:
    """A night's recorder that has what serves measured before a night with a verdict is closed."""

    store: Store
    measure: Callable[[Night], None]

    def open_night(self, night: Night) -> None:
        """See `NightRecorder`."""
        self.store.open_night(night)

    def close_night(self, night: Night) -> None:
        """See `NightRecorder`."""
        if not night.error:
            self.measure(night)
        self.store.close_night(night)

    def step_result(self, night_id: str, name: str) -> Mapping[str, Any] | None:
        """See `NightRecorder`."""
        return self.store.step_result(night_id, name)

    def record_step(self, night_id: str, name: str, result: Mapping[str, Any]) -> None:
        """See `NightRecorder`."""
        self.store.record_step(night_id, name, result)

    def steps_named(self, prefix: str) -> list[dict[str, Any]]:
        """See `NightRecorder`."""
        return self.store.steps_named(prefix)


@dataclass(frozen=True)
class Asking:
    """Knowledge that is asked, while what was shown is not written down: an examination is no experience."""

    layer: KnowledgeLayer

    @property
    def digest(self) -> str:
        """See `KnowledgeLayer`."""
        return self.layer.digest

    def recall(self, task: Task, now: datetime) -> Recalled:
        """See `KnowledgeLayer`."""
        return self.layer.recall(task, now)

    def used(self, trajectory_id: str, recalled: Recalled) -> None:
        """See `KnowledgeLayer`."""
