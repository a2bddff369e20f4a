"""What a played day of the pocket world came to."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from eval.play import by_kind
from eval.pocket.stream import PocketStream
from eval.pocket.world import CONVENTION_KIND
from memory.trajectories import Trajectory


class KindTally(BaseModel):
    """Resolved of all tasks of one kind."""

    tasks: int
    resolved: int


class DayResult(BaseModel):
    """One played day: `by_kind` splits house conventions from base skills."""

    tasks: int
    resolved: int
    by_kind: dict[str, KindTally]


def day_result(stream: PocketStream, trajectories: Sequence[Trajectory]) -> DayResult:
    """Tallies of a played day."""
    kinds = {kind: KindTally(tasks=t.tasks, resolved=t.resolved) for kind, t in by_kind(stream, trajectories).items()}
    return DayResult(tasks=len(trajectories), resolved=sum(t.resolved for t in trajectories), by_kind=kinds)


def group(day: DayResult, convention: bool) -> KindTally:
    """The tally of the house conventions, or of the base skills."""
    chosen = [tally for kind, tally in day.by_kind.items() if (kind == CONVENTION_KIND) == convention]
    return KindTally(tasks=sum(t.tasks for t in chosen), resolved=sum(t.resolved for t in chosen))
