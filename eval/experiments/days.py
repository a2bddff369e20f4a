"""What the bare base does at a task, played once: the same for every life that has the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from agent.model import Sampling
from eval.experiments.worlds import World
from memory.files import write_whole
from memory.trajectories import Outcome, Trajectory


class Days:
    """The base's greedy attempts, kept in `folder` under the hash of all that they depend on. Several processes may use one
    folder: they write the same. What the infrastructure failed is played again."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self._known: dict[str, Trajectory] = {}
        self._kinds: dict[str, str] = {}

    def of(self, ids: Sequence[str]) -> list[Trajectory]:
        """One attempt at each of these tasks, in their order."""
        if not ids:
            return []
        stream, player = self.world.stream(ids), self.world.player
        tasks = {task.id: task for task in stream.tasks()}
        sampling = Sampling(max_tokens=player.budget.turn_tokens, tools=player.toolkit.tools)
        folder = self.folder / player.config_hash(stream, sampling)
        for identity in tasks:
            self._kinds.setdefault(identity, self.world.kind(stream, identity))
            if identity not in self._known and (kept := _read(folder / f"{identity}.json")) is not None:
                self._known[identity] = kept
        if missing := [task for identity, task in tasks.items() if identity not in self._known]:
            folder.mkdir(parents=True, exist_ok=True)
            for trajectory in player.play(stream, missing):
                self._known[trajectory.task_id] = trajectory
                if trajectory.outcome is not Outcome.INFRASTRUCTURE_FAILURE:
                    write_whole(folder / f"{trajectory.task_id}.json", trajectory.model_dump_json())
        return [self._known[identity] for identity in ids]

    def kind(self, task_id: str) -> str:
        """The group of a task; see `World.kind`."""
        if task_id not in self._kinds:
            self._kinds[task_id] = self.world.kind(self.world.stream([task_id]), task_id)
        return self._kinds[task_id]


def _read(path: Path) -> Trajectory | None:
    """A kept attempt; None where there is none, or it was damaged (and is played again)."""
    try:
        return Trajectory.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
