"""What becomes of attempts as they happen: written to the store by day, by night only a chance to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.loop import NoRecorder
from daemon.events import Event
from memory.trajectories import Outcome, Step, Trajectory

if TYPE_CHECKING:
    from daemon.work import Work


class SafePoints(NoRecorder):
    """Records nothing, and makes every step a safe point."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def stepped(self, trajectory: Trajectory, step: Step) -> None:
        """See `Recorder`."""
        self.work.checkpoint()


class DayRecorder:
    """Writes attempts to the store as they happen; an attempt that was not lost to the infrastructure settles its task."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def began(self, trajectory: Trajectory) -> None:
        """See `Recorder`."""
        self.work.checkpoint()
        self.work.store.began(trajectory)
        self.work.emit(Event.TASK_STARTED, task=trajectory.task_id, trajectory=trajectory.id)

    def stepped(self, trajectory: Trajectory, step: Step) -> None:
        """See `Recorder`."""
        self.work.store.stepped(trajectory, step)
        self.work.checkpoint()

    def ended(self, trajectory: Trajectory) -> None:
        """See `Recorder`."""
        work = self.work
        lost = trajectory.outcome is Outcome.INFRASTRUCTURE_FAILURE
        again = lost and work.store.failures(trajectory.task_id) < work.config.day.retries
        work.store.ended(trajectory, settles=not again)
        fields = {
            "task": trajectory.task_id,
            "trajectory": trajectory.id,
            "outcome": trajectory.outcome,
            "why": trajectory.reason,
        }
        work.emit(Event.TASK_RETRIED if again else Event.TASK_ENDED, steps=len(trajectory.steps), **fields)
