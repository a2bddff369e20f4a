"""Guards: fixed examinations on which base and candidate are compared task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from consolidation.gate import Paired, pair_up
from consolidation.night import Examination
from eval.play import Player, Routes
from eval.pocket.names import Split
from eval.pocket.stream import PocketStream
from eval.pocket.world import CONVENTION_KIND
from memory.hashing import content_hash
from memory.tasks import Task
from memory.trajectories import Trajectory

BASE_SKILLS = "base_skills"


def held_out_base_tasks(seed: int, repos: tuple[str, ...], count: int) -> tuple[PocketStream, list[Task]]:
    """A held-out stream and its first `count` base-skill tasks, evenly over the repositories."""
    per_repo = -(-count // len(repos))
    stream = PocketStream(seed, repos, 2 * per_repo, split=Split.HELD_OUT)
    tasks = [task for task in stream.tasks() if stream.secret(task).kind != CONVENTION_KIND]
    return stream, tasks[:count]


@dataclass
class BaseSkillGuard:
    """Held-out base-skill tasks in pocket repositories, one greedy attempt each.

    A candidate's adapter for one of these is examined there, one for any other repository in all of them.
    The base's results are computed once and kept as long as the guard lives.
    """

    player: Player
    repos: tuple[str, ...]
    count: int = 120
    seed: int = 0
    _base: tuple[dict[str, bool], str] | None = None

    def __post_init__(self) -> None:
        self.stream, self.tasks = held_out_base_tasks(self.seed, self.repos, self.count)

    @property
    def held_out(self) -> frozenset[str]:
        """Task ids that no training pair may come from."""
        return frozenset(task.id for task in self.tasks)

    def examine(self, routes: Mapping[str, Path]) -> Examination:
        """Compare a routed candidate with the bare base."""
        if self._base is None:
            self._base = self._run({})
        results, said = self._base
        views = {repo: dict.fromkeys(self.repos, folder) for repo, folder in sorted(routes.items()) if repo not in self.repos}
        if len(views) < len(routes) or not routes:
            views[""] = {repo: folder for repo, folder in routes.items() if repo in self.repos}
        base: dict[str, bool] = {}
        candidate: dict[str, bool] = {}
        differs = False
        for served, view in views.items():
            found, said_now = self._run(view)
            base |= {f"{served}:{task}": resolved for task, resolved in results.items()}
            candidate |= {f"{served}:{task}": resolved for task, resolved in found.items()}
            differs = differs or said != said_now
        return Examination({BASE_SKILLS: pair_up(base, candidate)}, differs)

    def _run(self, routes: Routes) -> tuple[dict[str, bool], str]:
        played = list(self.player.play(self.stream, self.tasks, routes))
        words = {t.task_id: [step.said for step in t.steps] for t in played}
        return results(played), content_hash(words)


def results(trajectories: Sequence[Trajectory]) -> dict[str, bool]:
    """Resolved or not, by task id (one attempt per task)."""
    return {trajectory.task_id: trajectory.resolved for trajectory in trajectories}


def compare(base: Sequence[Trajectory], candidate: Sequence[Trajectory]) -> Paired:
    """Pair two plays of the same tasks."""
    return pair_up(results(base), results(candidate))
