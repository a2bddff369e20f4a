"""The guard of the base skills: held-out tasks of the pocket world, on which base and candidate are compared task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from agent.model import Sampling
from consolidation.gate import Paired, pair_up
from consolidation.guards import Answer, Role
from consolidation.skill import ALL, adapter_for
from eval.behaviour import facts_of
from eval.errors import EvalError
from eval.exams import at_seat, base_fingerprint, chosen, seat_of, seats, stratified
from eval.play import Player, Routes
from eval.pocket.names import Split
from eval.pocket.stream import PocketStream
from eval.pocket.world import CONVENTION_KIND
from memory.hashing import content_hash
from memory.tasks import Task
from memory.trajectories import Outcome, Trajectory

BASE_SKILLS = "base_skills"
EACH = 150
"""Tasks that one repository's adapter is examined on at least, however many repositories there are."""


def held_out_base_tasks(seed: int, repos: tuple[str, ...], count: int) -> tuple[PocketStream, list[Task]]:
    """A held-out stream and its base-skill tasks: `count` of them evenly over the repositories, but for each repository by
    itself no fewer than `EACH`, or than `count`."""
    per_repo = max(-(-count // len(repos)), min(count, EACH))
    stream = PocketStream(seed, repos, 2 * per_repo, split=Split.HELD_OUT)
    return stream, [task for task in stream.tasks() if stream.secret(task).kind != CONVENTION_KIND]


@dataclass
class BaseSkillGuard:
    """Held-out base-skill tasks in pocket repositories, one greedy attempt each.

    A candidate's adapter for one of these is examined there, one for any other repository in all of them; an item of the
    second kind is `served:task`. The base's results of `examine` are computed once and kept as long as the guard lives.
    """

    player: Player
    repos: tuple[str, ...]
    count: int = 120
    seed: int = 0
    name: str = field(default=BASE_SKILLS, init=False)
    claim: str = field(default=BASE_SKILLS, init=False)
    role: Role = field(default="capability", init=False)

    def __post_init__(self) -> None:
        self.stream, self.tasks = held_out_base_tasks(self.seed, self.repos, self.count)

    @property
    def held_out(self) -> frozenset[str]:
        """Task ids that no training pair may come from."""
        return frozenset(task.id for task in self.tasks)

    @cached_property
    def ordered(self) -> dict[str, Task]:
        """The tasks by id, in the seeded order in which they are asked; every beginning has all repositories and kinds."""
        kinds = {task.id: (task.repo, self.stream.secret(task).kind) for task in self.tasks}
        return {task.id: task for task in stratified(self.tasks, lambda task: kinds[task.id], self.seed)}

    @cached_property
    def digest(self) -> str:
        """See `Guard`."""
        base_fingerprint(self.player.model)  # the bare base is served from here on, and hashed
        sampling = Sampling(max_tokens=self.player.budget.turn_tokens, tools=self.player.toolkit.tools)
        return content_hash([self.name, self.seed, self.player.config_hash(self.stream, sampling)])

    def items(self, routes: Routes) -> Sequence[str]:
        """See `Guard`: at most `count` tasks of repositories that these routes serve, and for each adapter of a repository
        outside as many of all repositories, as if it were served there.
        """
        outside = {repo: folder for repo, folder in routes.items() if repo not in self.repos and repo != ALL}
        strangers = [seat for seat in seats(outside) if seat]
        inside = [name for name, task in self.ordered.items() if not routes or adapter_for(routes, task.repo) is not None]
        return inside[: self.count] + [at_seat(seat, name) for seat in strangers for name in list(self.ordered)[: self.count]]

    def category(self, item: str) -> str:
        """See `Guard`: the kind of the bug."""
        return self.stream.secret(self.ordered[seat_of(item)[1]]).kind

    def repo(self, item: str) -> str:
        """See `Guard`."""
        seat, question = seat_of(item)
        return seat or self.ordered[question].repo

    def answer(self, items: Sequence[str], routes: Routes) -> Mapping[str, Answer]:
        """See `Guard`."""
        asked: dict[str, list[str]] = {}
        for item in items:
            seat, question = seat_of(item)
            asked.setdefault(seat, []).append(question)
        found: dict[str, Answer] = {}
        played: dict[tuple[str, Path | None], Answer] = {}
        for seat, questions in asked.items():
            tasks = list(chosen(self.ordered, questions, self.name).values())
            served = {task.id: adapter_for(routes, seat or task.repo) for task in tasks}
            missing = [task for task in tasks if (task.id, served[task.id]) not in played]
            view = {task.repo: folder for task in missing if (folder := served[task.id]) is not None}
            for trajectory in self.player.play(self.stream, missing, view):
                played[trajectory.task_id, served[trajectory.task_id]] = answer_of(trajectory)
            found |= {at_seat(seat, task.id): played[task.id, served[task.id]] for task in tasks}
        return {item: found[item] for item in items}


def answer_of(trajectory: Trajectory) -> Answer:
    """An attempt as an answer: resolved or not, with what was counted of it.

    Raises:
        EvalError: the attempt was lost to the infrastructure, so that nothing is known.
    """
    if trajectory.outcome is Outcome.INFRASTRUCTURE_FAILURE:
        raise EvalError(f"{trajectory.task_id} could not be examined: {trajectory.reason}")
    return Answer(
        score=float(trajectory.resolved),
        said=content_hash([step.said for step in trajectory.steps]),
        facts=facts_of(trajectory),
        seconds=sum(max(0.0, step.seconds) for step in trajectory.steps),
    )


def results(trajectories: Sequence[Trajectory]) -> dict[str, bool]:
    """Resolved or not, by task id (one attempt per task)."""
    return {trajectory.task_id: trajectory.resolved for trajectory in trajectories}


def compare(base: Sequence[Trajectory], candidate: Sequence[Trajectory]) -> Paired:
    """Pair two plays of the same tasks."""
    return pair_up(results(base), results(candidate))
