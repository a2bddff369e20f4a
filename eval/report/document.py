"""What a report is made of, whatever it is about. All text is plain: what would be markup is shown as it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Tone = Literal["good", "bad", "open", "none"]
Unit = Literal["share", "number"]


@dataclass(frozen=True)
class Missing:
    """A value that is not there, and why. The reason is printed below the table, once for all that share it."""

    why: str


@dataclass(frozen=True)
class Mark:
    """A word that is judged: a verdict. Its tone is colour to those who see it; the word says the same."""

    text: str
    tone: Tone = "none"


Value: TypeAlias = str | int | float | Missing | Mark
"""What stands in a table's cell. Floats are printed with three significant digits; write them out for more."""


@dataclass(frozen=True)
class Prose:
    """Paragraphs, parted by empty lines."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list. `tone` sets it off: what must not be overlooked."""

    items: tuple[str, ...]
    tone: Tone = "none"


@dataclass(frozen=True)
class Commands:
    """What is typed at a prompt, line by line."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names its row.

    Raises:
        ValueError: a row is not as wide as the columns.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.caption}: a row has {len(row)} cells under {len(self.columns)} columns")


@dataclass(frozen=True)
class Point:
    """A value at `x`, with its interval where there is one. None is missing, and `why` says so."""

    x: float
    y: float | None
    low: float | None = None
    high: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Series:
    """Points under one name, in the order of `x`."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Lines:
    """One or more series over a common x. `ticks` names whole x from 0 on; `logarithmic` is of x, `marks` are upright lines
    with a name (a knee), `levels` level ones (a threshold)."""

    x: str
    y: str
    series: tuple[Series, ...]
    unit: Unit = "number"
    ticks: tuple[str, ...] = ()
    logarithmic: bool = False
    marks: tuple[tuple[float, str], ...] = ()
    levels: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Bars:
    """Level bars: one for each label and series. `Point.x` is the label's place, from 0 on."""

    y: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    unit: Unit = "number"
    levels: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Panel:
    """One matrix of a heat map; `values` are its rows. None is missing, and is hatched."""

    name: str
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Heat:
    """Matrices side by side over the same rows and columns, from 0 to 1, with their numbers in points in the cells.

    Raises:
        ValueError: a panel has other rows or columns.
    """

    y: str
    x: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    panels: tuple[Panel, ...]
    why: str = "not measured"

    def __post_init__(self) -> None:
        for panel in self.panels:
            if [len(row) for row in panel.values] != [len(self.columns)] * len(self.rows):
                raise ValueError(f"{panel.name}: not {len(self.rows)} rows of {len(self.columns)}")


Plot: TypeAlias = Lines | Bars | Heat


@dataclass(frozen=True)
class Figure:
    """A plot under a caption. `name` becomes part of the file's name (letters, digits, dashes); `description` says what is
    to be seen to those who cannot see it."""

    name: str
    caption: str
    description: str
    plot: Plot


Block: TypeAlias = Prose | Bullets | Commands | Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A title, what stands above all sections, and the sections."""

    title: str
    sections: tuple[Section, ...]
    lead: tuple[Block, ...] = field(default=())

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures, in order."""
        blocks = (*self.lead, *(block for section in self.sections for block in section.blocks))
        return tuple(block for block in blocks if isinstance(block, Figure))
