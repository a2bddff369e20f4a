"""What the arms that recall remember: each for itself, of the same experience."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from agent.recalled import cost, fact_cost
from agent.turns import render_issue
from eval.experience import lessons_of_day
from eval.experiments.worlds import World
from eval.streams import TaskStream
from memory.arms import Arm
from memory.knowledge.consolidation import consolidate
from memory.knowledge.embedders import open_embedder
from memory.knowledge.layer import Knowledge
from memory.knowledge.memories import Recalled
from memory.knowledge.seam import KnowledgeLayer
from memory.store import Store
from memory.tasks import Task
from memory.trajectories import Trajectory


class Asked:
    """A layer that notes by whom the store behind it was asked."""

    def __init__(self, layer: Knowledge, arm: Arm, log: dict[Path, set[Arm]]) -> None:
        self._layer, self._arm, self._log = layer, arm, log

    @property
    def digest(self) -> str:
        """See `KnowledgeLayer`."""
        return self._layer.digest

    def recall(self, task: Task, now: datetime) -> Recalled:
        """See `KnowledgeLayer`."""
        self._log.setdefault(self._layer.store.path, set()).add(self._arm)
        return self._layer.recall(task, now)

    def used(self, trajectory_id: str, recalled: Recalled) -> None:
        """See `KnowledgeLayer`."""
        self._layer.used(trajectory_id, recalled)


class Memories:
    """The memories of a life's arms. `asked` says which arms asked which store: it must be one each."""

    def __init__(self, world: World, work: Path, held_out: Sequence[str]) -> None:
        self.world, self.asked = world, dict[Path, set[Arm]]()
        self._open: dict[Arm, Knowledge] = {}
        self._plain: dict[str, str] = {}
        for arm in (arm for arm in world.config.arms if arm.recalls):
            if self._open and world.config.fault == "shared_memory":
                self._open[arm] = next(iter(self._open.values()))
                continue
            store = Store(work / f"{arm}.db")
            embedder, _ = open_embedder(world.config.knowledge.embedder)
            self._open[arm] = Knowledge(
                store, work / f"chroma-{arm}", embedder, world.config.knowledge, str(arm), frozenset(held_out), cost, fact_cost
            )

    def remember(self, stream: TaskStream, played: Sequence[Trajectory]) -> None:
        """Have every arm remember what was lived, and tidy up, as in a night."""
        config = self.world.config.knowledge
        for layer in set(self._open.values()):
            layer.remember(lessons_of_day(stream, played, config.merged_fixes))
            consolidate(layer.shelf, config, layer.embedder.embed, datetime.now(UTC))
            layer.sync()

    def layer(self, arm: Arm) -> KnowledgeLayer | None:
        """What an arm recalls from; None for one that does not."""
        return Asked(self._open[arm], arm, self.asked) if arm in self._open else None

    def told(self, trajectory: Trajectory) -> bool:
        """Whether an attempt was shown anything recalled."""
        if not trajectory.arm or not Arm(trajectory.arm).recalls:
            return False
        task = self.world.stream([trajectory.task_id]).tasks()[0]
        return trajectory.prompt.strip() != render_issue(task.repo, task.issue).strip()

    def close(self) -> None:
        """Let go of everything."""
        for layer in set(self._open.values()):
            layer.close()
            layer.store.close()
