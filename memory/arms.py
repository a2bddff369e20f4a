"""Arms: what an agent works with. Only results of the same arm are of one agent."""

from __future__ import annotations

from enum import StrEnum


class Arm(StrEnum):
    """The four conditions of the ablation, and the control that nothing ever changes."""

    BASE = "base"
    """The bare base model."""
    KNOWLEDGE = "knowledge"
    """The bare base model, told what it remembers."""
    SKILL = "skill"
    """The base model with the adapters of its nights."""
    BOTH = "both"
    """Adapters, and what it remembers."""
    FROZEN = "frozen"
    """The bare base model again: what changes here is chance, and is subtracted from what changes elsewhere."""

    @property
    def recalls(self) -> bool:
        """Whether it remembers, and is told of it."""
        return self in (Arm.KNOWLEDGE, Arm.BOTH)

    @property
    def adapts(self) -> bool:
        """Whether its nights train adapters, and they serve it."""
        return self in (Arm.SKILL, Arm.BOTH)

    @property
    def sleeps(self) -> bool:
        """Whether there is anything for it to do at night."""
        return self.recalls or self.adapts
