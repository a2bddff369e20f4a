"""A daemon's life as its store tells it: days between nights, and which attempts stand where in the matrix.

A column is the day before a night that came to a verdict, a row is what served after such a night (row 0: the bare base).
Nights that broke off are no rows, and their day goes on. In a cell stand the attempts at the tasks that were asked of that
day (`memory.exams`); in row i of the day after night i what the live agent did on that very day, at the same tasks. What was
measured under another configuration of the base is in no cell. The frozen matrix has the same shape: the bare base's answers,
played again in that night, or kept where it was found that they stay the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from eval.metrics.rows import Attempted, attempted
from eval.watch import is_control
from memory.arms import Arm
from memory.exams import Exam
from memory.nights import Night
from memory.store import Store
from memory.trajectories import Outcome, Result, Trajectory

NOT_LIVED = "the day was not lived yet"
OFF = "nothing was asked at this night's end (metrics.tasks)"
OTHER = "it was measured under another configuration of the base"
NOT_ASKED = "no task of this day was asked"
Cell: TypeAlias = tuple[Attempted, ...] | str
"""Attempts, or why there are none."""
Cells = Mapping[tuple[int, int], Cell]
"""By row and column, both from 0: column 0 is the first day, row 0 the bare base."""


@dataclass(frozen=True)
class Day:
    """What was decided between two nights: `night` is the id of the one that followed ("": none yet)."""

    night: str
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Life:
    """Days, the nights between them, the attempts of each day, and the cells of the two matrices.

    There is one day more than nights: the one that is going on. `learnt` says for each column after which night it was
    learnt (None: not yet). `turnless` counts attempts of days whose turns were forgotten before they were counted,
    `fingerprints` the exams by the configuration of the base.
    """

    days: tuple[Day, ...]
    nights: tuple[Night, ...]
    attempts: tuple[tuple[Attempted, ...], ...]
    live: Cells
    frozen: Cells
    learnt: tuple[int | None, ...]
    turnless: int
    fingerprints: Mapping[str, int]


def nights_of(store: Store, closing: str = "") -> list[Night]:
    """The nights that are rows: those with a gate's verdict, and the open one of the id `closing`."""
    return [night for night in store.nights() if night.id == closing or _judged(night)]


def _judged(night: Night) -> bool:
    ended = night.ended_at is not None and night.verdict is not None
    return ended and (not night.error or (night.verdict is not None and night.verdict.promoted))


def days_of(store: Store, closing: str = "") -> list[Day]:
    """The days that are columns; see `nights_of`."""
    return _days(store.results(), nights_of(store, closing))[:-1]


def _days(results: Sequence[Result], nights: Sequence[Night]) -> list[Day]:
    found, begin = [], 0
    for night in nights:
        end = begin + sum(result.started_at < night.started_at for result in results[begin:])
        found.append(Day(night.id, tuple(results[begin:end])))
        begin = end
    return [*found, Day("", tuple(results[begin:]))]


def is_counted(played: Trajectory) -> bool:
    """Whether an attempt can be counted: its turns are there, or it was lost before any."""
    return bool(played.steps) or played.outcome is Outcome.INFRASTRUCTURE_FAILURE


def read_life(store: Store, closing: str = "", control_share: float = 0.0) -> Life:
    """A life from its store alone. Tasks that the watch gave to the bare base (`control_share`) are no attempts of the live
    agent. `closing` is the id of the open night that is being closed with a verdict."""
    nights = nights_of(store, closing)
    days = _days(store.results(), nights)
    exams = store.exams()
    kept = {row.task_id: counted(row) for row in exams if row.arm == "day"}
    attempts: list[tuple[Attempted, ...]] = []
    turnless = 0
    for day in days:
        rows: list[Attempted] = []
        for result in day.results:
            if is_control(result.task_id, control_share):
                continue
            if result.task_id in kept:
                rows.append(kept[result.task_id])
            elif is_counted(played := store.trajectory(result.trajectory_id)):
                rows.append(attempted(played))
            else:
                turnless += 1
        attempts.append(tuple(rows))
    recalls = _recalls(store, days)
    exam = _Exams(exams)
    cells = [(row, column) for row in range(len(nights) + 1) for column in range(len(nights))]
    return Life(
        days=tuple(days),
        nights=tuple(nights),
        attempts=tuple(attempts),
        live={(i, j): exam.live(nights, attempts, i, j) for i, j in cells},
        frozen={(i, j): exam.frozen(nights, i, j) for i, j in cells},
        learnt=tuple(_learnt(nights, column, recalls) for column in range(len(nights))),
        turnless=turnless,
        fingerprints=Counter(row.fingerprint for row in exam.asked),
    )


def _recalls(store: Store, days: Sequence[Day]) -> bool:
    last = next((day.results[-1] for day in reversed(days) if day.results), None)
    arm = store.trajectory(last.trajectory_id).arm if last is not None else ""
    return bool(arm) and Arm(arm).recalls


def _learnt(nights: Sequence[Night], column: int, recalls: bool) -> int | None:
    """What is remembered is learnt by the next night; a skill is by the next one that was promoted."""
    if recalls:
        return column + 1
    promoted = (n for n, night in enumerate(nights, 1) if n > column and night.verdict is not None and night.verdict.promoted)
    return next(promoted, None)


class _Exams:
    """Rows by night, day and task; those in force: of the configuration under which their task was asked last."""

    def __init__(self, exams: Sequence[Exam]) -> None:
        self.asked = [row for row in exams if row.arm != "day"]
        prints = {row.task_id: row.fingerprint for row in self.asked}
        self.rows: dict[tuple[str, str, str], dict[str, Attempted]] = {}
        self.others: set[tuple[str, str, str]] = set()
        self.base: dict[str, dict[str, Attempted]] = {}
        for row in self.asked:
            key = (row.night_id, row.arm, row.experience)
            if row.fingerprint != prints[row.task_id]:
                self.others.add(key)
                continue
            self.rows.setdefault(key, {})[row.task_id] = counted(row)
            if row.arm == "base" and counted(row).graded:
                self.base.setdefault(row.experience, {})[row.task_id] = counted(row)

    def live(self, nights: Sequence[Night], attempts: Sequence[Sequence[Attempted]], i: int, j: int) -> Cell:
        """The cell of what was live."""
        if i > 0 and i < j:
            return NOT_LIVED
        if i == j and i > 0:  # the day after night i, as it was lived
            base = self.base.get(nights[j].id)
            return tuple(row for row in attempts[j] if base is None or row.task_id in base) or NOT_ASKED
        if i == 0:
            return tuple(self.base.get(nights[j].id, {}).values()) or NOT_ASKED
        return self._asked(nights[i - 1].id, "live", nights[j].id)

    def frozen(self, nights: Sequence[Night], i: int, j: int) -> Cell:
        """The cell of the bare base, as far as what was live has one."""
        if i > 0 and i < j:
            return NOT_LIVED
        base = self.base.get(nights[j].id)
        if not base:
            return NOT_ASKED
        if i == 0 or i == j:
            return tuple(base.values())
        live = self._asked(nights[i - 1].id, "live", nights[j].id)
        if isinstance(live, str):
            return live
        again = self.rows.get((nights[i - 1].id, "frozen", nights[j].id), {})
        now = base | {task: row for task, row in again.items() if row.graded}
        return tuple(now[row.task_id] for row in live if row.task_id in now) or NOT_ASKED

    def _asked(self, night: str, arm: str, day: str) -> Cell:
        found = self.rows.get((night, arm, day))
        if found:
            return tuple(found.values())
        return OTHER if (night, arm, day) in self.others else OFF


def counted(row: Exam) -> Attempted:
    """What a row counts. Fields that this version does not know are left out, those that it knew not yet are empty."""
    return Attempted.model_validate({name: value for name, value in row.body.items() if name in Attempted.model_fields})
