"""What comes next, computed from the store alone: which tasks, whether a night is worth it, and from what.

Nothing here needs a model, so that `status` and `sleep-now --dry-run` answer at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set

from pydantic import BaseModel

from daemon.config import Config
from daemon.home import Home
from eval.files import unfixed
from memory.store import Store
from memory.trajectories import Outcome, Result

SLEPT_UNTIL = "results.slept_until"
LEARNABLE_LATER = (Outcome.UNRESOLVED, Outcome.GAVE_UP, Outcome.OUT_OF_BUDGET)


class NightPlan(BaseModel):
    """What a night held now would learn from, and whether it would be held."""

    would_sleep: bool
    why: str
    new_results: int
    replayed: int
    own_successes: dict[str, int]
    merged_fixes: dict[str, int]


def own_tasks(store: Store, home: Home, done: Set[str]) -> list[str]:
    """Ids of the owner's own tasks that have no result yet, in the order in which they came."""
    there = {path.stem for path in home.tasks.glob("*.json")}
    return [task.id for task in store.tasks() if task.id in there and task.id not in done] if there else []


def replay(results: Sequence[Result], config: Config) -> list[Result]:
    """The results a night replays: the latest ones, oldest first."""
    usable = [r for r in results if r.outcome is not Outcome.INFRASTRUCTURE_FAILURE]
    return usable[-config.sleep.replay_tasks :]


def slept_until(store: Store) -> int:
    """How many results the last night knew."""
    return int(store.note(SLEPT_UNTIL) or 0)


def set_slept_until(store: Store, results: int) -> None:
    """A night begins that knows so many results."""
    store.set_note(SLEPT_UNTIL, str(results))


def plan_now(home: Home, store: Store, results: Sequence[Result], config: Config) -> NightPlan:
    """Whether a night would be held now, and why."""
    return plan_night(results, slept_until(store), config, unfixed(home.tasks, (r.task_id for r in replay(results, config))))


def plan_night(results: Sequence[Result], known: int, config: Config, unfixed: Set[str] = frozenset()) -> NightPlan:
    """Whether a night would be held now, and why.

    `known` is how many results the last night knew; for the tasks `unfixed` there is no merged fix to learn from.
    """
    chosen = replay(results, config)
    own = Counter(r.repo for r in chosen if r.outcome is Outcome.RESOLVED)
    fixed = (r for r in chosen if r.outcome in LEARNABLE_LATER and r.task_id not in unfixed)
    merged = Counter(r.repo for r in fixed if config.night.merged_fixes)
    new = sum(r.outcome is not Outcome.INFRASTRUCTURE_FAILURE for r in results[known:])
    learnable = own.total() + merged.total()
    if not config.arm.sleeps:
        would, why = False, f"the arm is {config.arm}: nothing is ever learnt"
    elif learnable < config.sleep.min_resolved:
        would = False
        why = f"too little verified data: {learnable} tasks can be learnt from, {config.sleep.min_resolved} are asked for"
    elif new <= 0:
        would, why = False, "no task has ended since the last night"
    else:
        would, why = True, f"{new} tasks have ended since the last night, {learnable} of {len(chosen)} can be learnt from"
    return NightPlan(
        would_sleep=would,
        why=why,
        new_results=new,
        replayed=len(chosen),
        own_successes=dict(sorted(own.items())),
        merged_fixes=dict(sorted(merged.items())),
    )
