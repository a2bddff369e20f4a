"""`sleepyctl demo --arms`: the same second day, played with and without skill and knowledge, task by task the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel
from rich.table import Table

from daemon.config import Config
from daemon.days import DayResult, day_result, group
from daemon.knowing import open_knowledge
from eval.experience import lessons_of_day
from eval.guards import compare
from eval.play import Player, Routes
from eval.pocket.stream import PocketStream
from memory.arms import Arm
from memory.knowledge.consolidation import consolidate
from memory.knowledge.layer import Knowledge
from memory.store import Store
from memory.trajectories import Trajectory

Play = Callable[[str, Player, Routes], list[Trajectory]]
"""Play the second day: a name for the bar, who plays, what serves."""


class ArmResult(BaseModel):
    """One arm's second day. `change` is against the arm `base`, paired, with its 95 % interval; `told` counts the attempts
    that were shown anything recalled, `config_hash` is of these attempts (several where several adapters serve)."""

    arm: Arm
    day: DayResult
    told: int
    memories: int
    change: float
    change_low: float
    change_high: float
    config_hash: list[str]


def play_arms(
    player: Player,
    store: Store,
    home: Path,
    config: Config,
    first: PocketStream,
    lived: Sequence[Trajectory],
    second: PocketStream,
    routes: Routes,
    play: Play,
    base: Sequence[Trajectory],
) -> list[ArmResult]:
    """The arms after one day and one night, in the order of `Arm`. `base` is what the bare base did on the second day.

    All arms had the same first day. Each arm that remembers has memories of its own, consolidated as in a night, and adds
    none on the second day. `frozen` is the base once more: what it changes against `base` is chance.
    """
    found: list[ArmResult] = []
    for arm in Arm:
        if arm is Arm.BASE:
            found.append(_result(arm, second, base, base, 0))
            continue
        serving = routes if arm.adapts else {}
        if not arm.recalls:
            played = play(f"day 2, {arm}", replace(player, arm=arm), serving)
            found.append(_result(arm, second, base, played, 0))
            continue
        mine = config.model_copy(update={"arm": arm})
        with closing(_remembered(store, home, mine, first, lived)) as layer:
            played = play(f"day 2, {arm}", replace(player, arm=arm, knowledge=layer), serving)
            found.append(_result(arm, second, base, played, len(layer.shelf.active())))
    return found


def _remembered(store: Store, home: Path, config: Config, first: PocketStream, lived: Sequence[Trajectory]) -> Knowledge:
    layer, _ = open_knowledge(home / "chroma", config, store)
    try:
        layer.remember(lessons_of_day(first, lived, config.knowledge.merged_fixes))
        consolidate(layer.shelf, config.knowledge, layer.embedder.embed, datetime.now(UTC))
        layer.sync()
    except BaseException:
        layer.close()
        raise
    return layer


def _result(
    arm: Arm, stream: PocketStream, base: Sequence[Trajectory], played: Sequence[Trajectory], memories: int
) -> ArmResult:
    paired = compare(base, played)
    low, high = paired.interval()
    plain = {t.task_id: t.prompt for t in base}
    return ArmResult(
        arm=arm,
        day=day_result(stream, played),
        told=sum(t.prompt != plain[t.task_id] for t in played),
        memories=memories,
        change=round(-paired.drop, 4),
        change_low=round(low, 4),
        change_high=round(high, 4),
        config_hash=sorted({t.config_hash for t in played}),
    )


def arms_table(results: Sequence[ArmResult]) -> Table:
    """The table a person understands."""
    table = Table(title="the second day by arm: the same tasks for all", title_justify="left")
    for name in ("arm", "house conventions", "base skills", "all", "change", "95 % interval", "told", "memories"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for result in results:
        convention, skill = group(result.day, True), group(result.day, False)
        table.add_row(
            result.arm,
            f"{convention.resolved} of {convention.tasks}",
            f"{skill.resolved} of {skill.tasks}",
            f"{result.day.resolved} of {result.day.tasks}",
            f"{result.change:+.1%}",
            f"{result.change_low:+.1%} to {result.change_high:+.1%}",
            str(result.told),
            str(result.memories),
        )
    return table
