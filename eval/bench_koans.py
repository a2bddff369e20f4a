"""The koans' frozen evaluation set, played once: how many are resolved, how fast, and which errors come again."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel

from eval.koans.signatures import median_steps_to_green, repeat_error_rate
from eval.koans.stream import KoanStream
from eval.koans.toolchain import rust
from eval.play import Player, Tally
from memory.trajectories import Outcome, Trajectory


class KoanReport(BaseModel):
    """Results by family. `koans` is the hash of the evaluation set; `lost` tasks, which do not count, are failures
    of the infrastructure.

    `median_steps_to_green` is None where less than half ever got green, `repeat_error_rate` where no error could come again.
    """

    model: str
    adapter: str | None
    config_hash: str
    koans: str
    rustc: str
    tasks: int
    resolved: int
    lost: int
    families: dict[str, dict[str, int]]
    repeat_error_rate: float | None
    median_steps_to_green: float | None


def bench(player: Player, on_ended: Callable[[Trajectory], None] = lambda trajectory: None) -> KoanReport:
    """Play the evaluation set.

    Raises:
        EvalError: there is no Rust compiler here.
    """
    stream, version = KoanStream.evaluation(), rust().version
    played: list[Trajectory] = []
    for trajectory in player.play(stream, stream.tasks()):
        played.append(trajectory)
        on_ended(trajectory)
    order = {task.id: place for place, task in enumerate(stream.tasks())}
    played.sort(key=lambda trajectory: order[trajectory.task_id])
    counted = [t for t in played if t.outcome is not Outcome.INFRASTRUCTURE_FAILURE]
    families: dict[str, Tally] = {}
    for t in counted:
        old = families.get(t.repo, Tally())
        families[t.repo] = Tally(old.tasks + 1, old.resolved + t.resolved)
    return KoanReport(
        model=player.model.name,
        adapter=played[0].adapter,
        config_hash=played[0].config_hash,
        koans=stream.hash,
        rustc=version,
        tasks=len(counted),
        resolved=sum(t.resolved for t in counted),
        lost=len(played) - len(counted),
        families={name: {"tasks": tally.tasks, "resolved": tally.resolved} for name, tally in sorted(families.items())},
        repeat_error_rate=repeat_error_rate(counted),
        median_steps_to_green=median_steps_to_green(counted),
    )
