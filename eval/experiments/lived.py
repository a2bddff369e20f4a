"""A life as one arm lived it: what measures are computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from eval.experiments.life import Life, LifeConfig, NightRow
from eval.metrics.attempts import WHY
from eval.metrics.continual import Measure
from eval.metrics.matrix import Matrix, Missing, matrix_of, told
from eval.metrics.rows import Attempted
from memory.arms import Arm

SKILLS = ""
"""The block of the base's own skills."""
Behind = Literal["all", "learnt", "earlier", "gained", "never", "after", "skills"]
"""The tasks of which a value is a share: those of all blocks, of learnt ones, of those learnt before the last night, of the
latter those that their own night gained, of blocks never learnt (later than in the first night, where all were), of a changed
repository, the base's own skills."""


class Absent(Exception):
    """There is no value; the text says why. `at_least` is the least that it can be, where that is known."""

    def __init__(self, why: str, at_least: float | None = None) -> None:
        super().__init__(why)
        self.at_least = at_least


def value_of(measure: Measure) -> float:
    """The value of a measure.

    Raises:
        Absent: it has none.
    """
    if measure.value is None:
        raise Absent(measure.why)
    return measure.value


def counted(of: Callable[[Sequence[Attempted]], float | None], rows: Sequence[Attempted]) -> float:
    """A measure of `eval.metrics.attempts`.

    Raises:
        Absent: it has no value.
    """
    if (found := of(rows)) is None:
        raise Absent(WHY.get(of.__name__, "there is none"))
    return found


@dataclass(frozen=True)
class Lived:
    """One arm of a life, after each of its nights. With `kind`, only attempts at tasks of that kind count.

    Row 0 is the base's for every arm, unless the frozen control has one of its own: before the first night all of them are the
    base. The base has row 0 in the place of its last one where it was not examined again, because nothing changes it.
    """

    life: Life
    arm: Arm = Arm.SKILL
    kind: str = ""
    config: LifeConfig | None = None
    _sorted: dict[tuple[Arm, int], list[tuple[str, Attempted]]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def last(self) -> int:
        """The number of nights: the index of the last row."""
        return len(self.life.nights)

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that any arm was examined on. A block may only be lived, such as a recovery of a drifted repository."""
        examined = {row.block for row in self.life.exams}
        return tuple(block for block in self.life.blocks if block in examined)

    @cached_property
    def matrix(self) -> Matrix:
        """a[i, j] over the examined blocks; rows are nights from 0 on."""
        cells = {
            (night, block): [row for row in self.rows(night) if row[0] == block]
            for night in range(self.last + 1)
            for block in self.blocks
        }
        return matrix_of(
            {place: [attempt for _, attempt in rows] for place, rows in cells.items() if rows},
            columns=self.blocks,
            rows=self.last + 1,
            learnt={block: self.life.learnt.get(block) for block in self.blocks},
        )

    def rows(self, night: int) -> list[tuple[str, Attempted]]:
        """Blocks and attempts of the examination after a night, in their order; none where there was no examination."""
        if not self._sorted:
            for row in self.life.exams:
                self._sorted.setdefault((row.arm, row.night), []).append((row.block, row.attempt))
        arm = Arm.BASE if night == 0 and (self.arm, 0) not in self._sorted else self.arm
        at = 0 if arm is Arm.BASE and (arm, night) not in self._sorted else night
        return [row for row in self._sorted.get((arm, at), []) if self.kind in ("", row[1].kind)]

    def attempts(self, night: int | None = None, blocks: Iterable[str] | None = None) -> list[Attempted]:
        """Graded attempts at tasks of some blocks (all but the base's own skills) after a night (the last one).

        Raises:
            Absent: there are none.
        """
        night = self.last if night is None else night
        wanted = set(self.blocks if blocks is None else blocks)
        found = [attempt for block, attempt in self.rows(night) if block in wanted]
        if not found:
            raise Absent(f"arm {self.arm} was not examined after night {night}" + (f" on {self.kind}" if self.kind else ""))
        graded = [attempt for attempt in found if attempt.graded]
        if not graded:
            raise Absent(f"the infrastructure failed all {len(found)} attempts of arm {self.arm} after night {night}")
        return graded

    def rate(self, night: int, block: str) -> float:
        """a[night, block].

        Raises:
            Absent: there is none.
        """
        found = self.matrix.at(night, block)
        if isinstance(found, Missing):
            raise Absent(f"arm {self.arm}: {told((night, block))} is missing ({found.reason})")
        return found

    def skills(self, night: int) -> dict[str, bool]:
        """Whether each task of the base's own skills is resolved after a night.

        Raises:
            Absent: they were not asked for.
        """
        return {attempt.task_id: attempt.resolved for attempt in self.attempts(night, (SKILLS,))}

    @property
    def learnt(self) -> dict[str, int]:
        """The night after which each block was learnt, in the order of the nights; blocks never learnt are left out.

        Raises:
            Absent: no block was.
        """
        if not self.matrix.taught:
            raise Absent("no block was learnt")
        return self.matrix.taught

    @property
    def earlier(self) -> dict[str, int]:
        """The blocks learnt before the last night, with theirs."""
        return {block: night for block, night in self.matrix.taught.items() if night < self.last}

    @property
    def never(self) -> tuple[str, ...]:
        """Blocks that were never learnt."""
        return self.matrix.untaught

    def tasks(self, behind: Behind) -> set[str]:
        """Ids of the tasks, of all that it was examined on, of which a value is a share."""
        if behind == "gained":
            gained = (self._solved(night, block) - self._solved(0, block) for block, night in self.earlier.items())
            return set[str]().union(*gained)
        blocks: dict[Behind, Iterable[str]] = {
            "all": self.blocks,
            "learnt": self.matrix.taught,
            "earlier": self.earlier,
            "never": self.never or [block for block, night in self.matrix.taught.items() if night > 1],
            "after": ("after",),
            "skills": (SKILLS,),
        }
        rows = (row for night in range(self.last + 1) for row in self.rows(night))
        return {attempt.task_id for block, attempt in rows if block in blocks[behind] and attempt.graded}

    def _solved(self, night: int, block: str) -> set[str]:
        return {attempt.task_id for of, attempt in self.rows(night) if of == block and attempt.resolved}

    @property
    def nights(self) -> list[NightRow]:
        """Nights that trained something.

        Raises:
            Absent: none did, or the arm trains nothing.
        """
        if not self.arm.adapts:
            raise Absent(f"arm {self.arm} trains nothing")
        found = [night for night in self.life.nights if not night.refused]
        if not found:
            refused = [night.refused for night in self.life.nights]
            raise Absent(f"no night trained anything: {refused[0]}" if refused else "there was no night")
        return found

    def of(self, arm: Arm) -> Lived:
        """The same life of another arm."""
        return Lived(self.life, arm, self.kind, self.config, self._sorted)
