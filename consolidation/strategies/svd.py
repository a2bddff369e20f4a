"""The segments of a growing adapter, one for each session, and how the oldest are compressed to stay within a budget."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from consolidation.errors import TrainingRefused

if TYPE_CHECKING:
    from agent.adapters import Lora

SEGMENTS = "segments.json"
"""The attachment: which of the adapter's ranks belong to which nights."""


class Segment(BaseModel):
    """Consecutive ranks of an adapter: the nights (numbered from 1) whose sessions they hold; 0 is what was there before.

    `energy` is the share of the squared Frobenius norm that the last compression left of what it was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    nights: tuple[int, ...] = Field(min_length=1)
    rank: int = Field(ge=1)
    energy: float = Field(default=1.0, ge=0, le=1)


class Segments(BaseModel):
    """All segments of an adapter, oldest first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    segments: tuple[Segment, ...]

    @property
    def rank(self) -> int:
        """Of the whole adapter."""
        return sum(segment.rank for segment in self.segments)


@dataclass(frozen=True)
class Part:
    """A segment with its factors."""

    segment: Segment
    lora: Lora


def parts_of(lora: Lora, attachment: Path | None) -> list[Part]:
    """An adapter in its segments; without the attachment it is a single one, of night 0.

    Raises:
        TrainingRefused: the attachment cannot be read, or is another adapter's.
    """
    from consolidation.lora_algebra import divided

    if attachment is None:
        return [Part(Segment(nights=(0,), rank=lora.rank), lora)]
    try:
        segments = Segments.model_validate_json(attachment.read_bytes()).segments
        loras = divided(lora, [segment.rank for segment in segments])
    except (OSError, ValidationError, ValueError) as error:
        raise TrainingRefused(f"{attachment}: not this adapter's segments ({str(error)[:300]}); use full replay") from error
    return [Part(segment, each) for segment, each in zip(segments, loras, strict=True)]


def within(parts: list[Part], room: int, merge: int, target: int) -> tuple[list[Part], list[float]]:
    """Segments of at most `room` ranks together, and the energy that each compression kept.

    While they are more, the oldest `merge` (at least 2) become one, compressed to rank `target` (at most `room`).
    """
    from consolidation.lora_algebra import concatenated, truncated

    energies: list[float] = []
    while sum(part.segment.rank for part in parts) > room:
        oldest, rest = parts[:merge], parts[merge:]
        cut = truncated(concatenated([part.lora for part in oldest]), target)
        nights = tuple(night for part in oldest for night in part.segment.nights)
        parts = [Part(Segment(nights=nights, rank=cut.lora.rank, energy=min(1.0, cut.energy)), cut.lora), *rest]
        energies.append(cut.energy)
    return parts, energies
