"""Everything a daemon's life measures by, as one value that travels: matrices, measures, and how each day went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from agent.models.purse import Price
from eval.metrics import attempts, continual
from eval.metrics.continual import Measure
from eval.metrics.matrix import Cell, Matrix, Missing, matrix_of
from eval.metrics.stored import Cells, Life

UNITS: Mapping[str, str] = {
    "steps": "turns",
    "steps_all": "turns",
    "tokens": "tokens",
    "tokens_all": "tokens",
    "prompt_tokens_all": "tokens",
    "completion_tokens_all": "tokens",
    "median_steps_to_green": "turns",
    "cost": "dollars",
    "tue_time": "ratio",
    "cl_score": "score",
    "excluded": "attempts",
    "turnless": "attempts",
}
"""Of the measures that are no share of 1."""
FORGETTING = continual.forgetting_chaudhry
"""What `stability`, `clf_beta` and `cl_score` of a daemon's life are of. The paper's F needs the tasks of every day examined in
each row up to their own night, but days that are not lived yet cannot be examined: from the fourth night on it has no value."""
BY_DAY = ("resolve_rate", "steps_all", "tokens_all", "useful_calls", "useful_time", "median_steps_to_green", "cost")


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Value(_Told):
    """A value, or None and why there is none. `unit` is "share" where it is a share of 1."""

    value: float | None
    unit: str = "share"
    why: str = ""

    @property
    def shown(self) -> str:
        """For people: a share in %, "-" for none."""
        if self.value is None:
            return "-"
        if self.unit == "share":
            return f"{self.value:.1%}"
        return f"{self.value:.4g}" if self.unit in ("ratio", "score", "dollars") else f"{self.value:,.1f}".removesuffix(".0")


class MatrixShown(_Told):
    """Rows and columns by name, the first row the bare base; shares, of how many graded tasks, and why there is none."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    tasks: tuple[tuple[int, ...], ...]
    why: tuple[tuple[str, ...], ...]
    learnt: dict[str, int | None]


class DayShown(_Told):
    """A day of the live agent: its measures, and how it failed. `night` is the one that followed ("": none yet).

    `repeat_error_rate` is that of all days up to and with this one.
    """

    name: str
    night: str
    attempts: int
    resolved: int
    values: dict[str, Value]
    errors: dict[str, int]


class LifeMetrics(_Told):
    """Measures by name, the matrix of what was live and of the frozen control, and the days. `stability`, `clf_beta` and
    `cl_score` are of `forgetting_chaudhry`. `configs` are hashes of what the live agent ran with by day (adapters included),
    `fingerprints` of what the bare base ran with in examinations."""

    values: dict[str, Value]
    matrix: MatrixShown
    frozen: MatrixShown
    days: tuple[DayShown, ...]
    configs: dict[str, int]
    fingerprints: dict[str, int]


def matrix_from(life: Life, cells: Cells) -> Matrix:
    """The matrix of these cells; those without attempts are missing, each for its own reason."""
    columns = [f"day {number}" for number in range(1, len(life.nights) + 1)]
    rows = len(life.nights) + 1
    there = {(i, columns[j]): cell for (i, j), cell in cells.items() if not isinstance(cell, str)}
    counted = matrix_of(there, columns=columns, rows=rows, learnt=dict(zip(columns, life.learnt, strict=True)))

    def cell(i: int, j: int) -> Cell:
        why = cells[i, j]
        return Cell(Missing(why)) if isinstance(why, str) else counted.cells[i][j]

    table = tuple(tuple(cell(i, j) for j in range(len(columns))) for i in range(rows))
    return Matrix(counted.columns, table, counted.learnt)


def metrics_of(life: Life, price: Price | None = None) -> LifeMetrics:
    """Everything that is known of a life; `price` is of the agent's own tokens."""
    live, frozen = matrix_from(life, life.live), matrix_from(life, life.frozen)
    every = [row for day in life.attempts for row in day]
    found = {**continual.measures_of(live, frozen, FORGETTING), **attempts.measures_of(every, price)}
    values = {name: _value(name, measure) for name, measure in found.items()}
    values["excluded"] = Value(value=attempts.excluded(every), unit=UNITS["excluded"])
    values["turnless"] = Value(value=life.turnless, unit=UNITS["turnless"])
    return LifeMetrics(
        values=values,
        matrix=_shown(live),
        frozen=_shown(frozen),
        days=tuple(_day(life, number, price) for number in range(len(life.days)) if life.days[number].results),
        configs=_counts([row.config_hash for row in every]),
        fingerprints=dict(life.fingerprints),
    )


def _shown(matrix: Matrix) -> MatrixShown:
    rows = tuple("base" if number == 0 else f"night {number}" for number in range(matrix.last + 1))
    return MatrixShown(
        rows=rows,
        columns=matrix.columns,
        values=tuple(tuple(None if isinstance(c.value, Missing) else c.value for c in row) for row in matrix.cells),
        tasks=tuple(tuple(c.graded for c in row) for row in matrix.cells),
        why=tuple(tuple(c.value.reason if isinstance(c.value, Missing) else "" for c in row) for row in matrix.cells),
        learnt=dict(matrix.learnt),
    )


def _day(life: Life, number: int, price: Price | None) -> DayShown:
    rows = life.attempts[number]
    measured = attempts.measures_of(rows, price)
    values = {name: _value(name, measured[name]) for name in BY_DAY}
    so_far = [row for day in life.attempts[: number + 1] for row in day]
    values["repeat_error_rate"] = _value("repeat_error_rate", attempts.measures_of(so_far)["repeat_error_rate"])
    return DayShown(
        name=f"day {number + 1}",
        night=life.days[number].night,
        attempts=len(rows),
        resolved=sum(row.resolved for row in rows),
        values=values,
        errors=dict(attempts.error_distribution(rows).most_common()),
    )


def _value(name: str, measure: Measure) -> Value:
    return Value(value=measure.value, unit=UNITS.get(name, "share"), why=measure.why)


def _counts(hashes: Sequence[str]) -> dict[str, int]:
    return {one: hashes.count(one) for one in dict.fromkeys(hashes)}
