"""The matrix a[i, j]: the share of experience j that is resolved after row i, from counted attempts alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from eval.metrics.rows import Attempted

Place = tuple[int, str]
"""Row and column of a cell."""


@dataclass(frozen=True)
class Missing:
    """What stands in a cell that was not measured: never a 0."""

    reason: str


@dataclass(frozen=True)
class Cell:
    """One cell: its value, how many attempts it is the mean of, and how many the infrastructure failed besides."""

    value: float | Missing
    graded: int = 0
    excluded: int = 0


@dataclass(frozen=True)
class Matrix:
    """Rows 0 (before any learning) to `last`, columns named after experiences; values are shares of 1.

    `learnt` is the row after which a column was learnt, None if never. It generalises the square matrix of the SWE-Bench-CL
    paper (section 7), where task i is learnt in row i: a row may teach several columns, or none, and columns may never be
    learnt.

    Raises:
        ValueError: a row has not as many cells as there are columns, a column is there twice, a value is not between 0 and 1,
            or something is learnt that is no column, or in no row from 1 on.
    """

    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]
    learnt: Mapping[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"a column is there twice: {', '.join(self.columns)}")
        if not self.cells or any(len(row) != len(self.columns) for row in self.cells):
            raise ValueError(f"every row, and row 0, must have {len(self.columns)} cells")
        for column, row in self.learnt.items():
            if column not in self.columns or not (row is None or 1 <= row <= self.last):
                raise ValueError(f"{column!r} cannot have been learnt in row {row}: there are rows 1 to {self.last}")
        for place, cell in self:
            if not isinstance(cell.value, Missing) and not 0 <= cell.value <= 1:
                raise ValueError(f"{told(place)} is {cell.value}; it must be a share of 1")

    def __iter__(self) -> Iterator[tuple[Place, Cell]]:
        """Every cell with its place, row by row."""
        for number, row in enumerate(self.cells):
            for column, cell in zip(self.columns, row, strict=True):
                yield (number, column), cell

    @classmethod
    def from_values(
        cls,
        columns: Sequence[str],
        values: Sequence[Sequence[float | Missing]],
        learnt: Mapping[str, int | None] | None = None,
    ) -> Matrix:
        """A matrix of known values, row 0 first."""
        cells = tuple(tuple(Cell(value) for value in row) for row in values)
        return cls(tuple(columns), cells, dict(learnt or {}))

    @property
    def last(self) -> int:
        """Index of the last row."""
        return len(self.cells) - 1

    def cell(self, row: int, column: str) -> Cell:
        """The cell in a row.

        Raises:
            KeyError: there is no such row or column.
        """
        if column not in self.columns or not 0 <= row <= self.last:
            raise KeyError(f"no {told((row, column))}; rows are 0 to {self.last}, columns {', '.join(self.columns)}")
        return self.cells[row][self.columns.index(column)]

    def at(self, row: int, column: str) -> float | Missing:
        """a[row, column].

        Raises:
            KeyError: there is no such row or column.
        """
        return self.cell(row, column).value

    @property
    def taught(self) -> dict[str, int]:
        """Columns that were learnt and the row after which, by row, then in the order of the columns."""
        rows = {column: row for column in self.columns if (row := self.learnt.get(column)) is not None}
        return dict(sorted(rows.items(), key=lambda item: item[1]))

    @property
    def untaught(self) -> tuple[str, ...]:
        """Columns that were never learnt."""
        return tuple(column for column in self.columns if self.learnt.get(column) is None)


def matrix_of(
    attempts: Mapping[Place, Sequence[Attempted] | Missing],
    *,
    columns: Sequence[str],
    rows: int,
    learnt: Mapping[str, int | None],
) -> Matrix:
    """The matrix of `rows` rows (row 0 is one of them), each cell the share of its graded attempts that resolved their task.

    Attempts that the infrastructure failed say nothing about the agent: they are counted, and left out. A cell with none left
    is missing; so is one for which a reason is given in place of attempts.

    Raises:
        ValueError: an attempt is in no row or column, or see `Matrix`.
    """
    if odd := [place for place in attempts if place[1] not in columns or not 0 <= place[0] < rows]:
        raise ValueError(f"{told(odd[0])} is outside of the matrix: rows are 0 to {rows - 1}, columns {', '.join(columns)}")
    cells = tuple(tuple(_counted(attempts.get((row, column), ())) for column in columns) for row in range(rows))
    return Matrix(tuple(columns), cells, dict(learnt))


def told(place: Place) -> str:
    """A cell's place in words."""
    return f"a[{place[0]}, {place[1]}]"


def _counted(attempts: Sequence[Attempted] | Missing) -> Cell:
    if isinstance(attempts, Missing):
        return Cell(attempts)
    graded = [attempt.resolved for attempt in attempts if attempt.graded]
    excluded = len(attempts) - len(graded)
    if graded:
        return Cell(math.fsum(graded) / len(graded), len(graded), excluded)
    return Cell(Missing(f"the infrastructure failed all {excluded} attempts" if excluded else "not examined"), 0, excluded)
