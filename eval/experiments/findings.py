"""What was found of an experiment: values, intervals, contrasts, curves, and a verdict on each criterion."""

from __future__ import annotations

from math import isclose
from typing import Literal

from pydantic import BaseModel, ConfigDict

from eval.experiments.plan import Criterion, SizeName
from eval.statistics.anova import Anova
from eval.statistics.lives import Compared
from eval.statistics.tested import Tested

Verdict = Literal["met", "not met", "undecided", "not measured"]
"""On a measure: the whole 95 % interval is on the right side of the threshold (met), on the wrong one (not met), or neither
(undecided). On a p: met or not met by p alone, whatever its interval; not measured without p. On anything: undecided where a
cell that it looks at has no life that counts, because those that failed may be the ones that would have spoken otherwise."""
Unit = Literal["lives", "seeds", "repositories"]
Kind = Literal["learning", "steps", "repeated errors", "retention"]


class _Finding(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Finding):
    """A mean over `n` replicates, with the 95 % interval of Student's t; no ends where n is 1.

    A `knee` has the least and the largest over the replicates as ends, and a p has none. In a verdict, replicates that are all
    equal have the ends of `Study.widened`.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int
    unit: Unit = "lives"

    @property
    def flat(self) -> bool:
        """Whether its replicates are all equal, so that Student's t knows nothing of their spread."""
        if self.low is None or self.high is None:
            return False
        return isclose(self.low, self.high, rel_tol=1e-9, abs_tol=1e-12)


class Summary(_Finding):
    """A measure of a variant: `values` of its cells in their order, and why those that are None are `missing`, by cell.

    Where a size spreads over places and has several seeds, the replicates of `interval` are the seeds, always: each counts with
    the mean over its places, because lives of one seed share a world. With one seed, and repositories in several places each,
    they are the repositories; otherwise the lives. A replicate that lacks a place is left out.
    """

    variant: str
    measure: str
    cells: tuple[str, ...]
    values: tuple[float | None, ...]
    interval: Interval | None
    missing: dict[str, str] = {}


class Contrast(_Finding):
    """A measure of a variant minus that of another in cells of the same seed and place. `p_adjusted` is by Holm, over the
    contrasts of the same measure. `wilcoxon` is reported beside it from `contrasts.RANKED` replicates on, and decides nothing.
    `left_out` are replicates that lack a value on either side in any place."""

    variant: str
    against: str
    measure: str
    difference: Interval | None
    tested: Tested
    p_adjusted: float | None = None
    wilcoxon: Tested | None = None
    left_out: tuple[str, ...] = ()


class AgainstBase(_Finding):
    """An arm against the base on the same tasks, after the last night. `blocks` says on which: those never learnt, or all where
    every block was. Replicates are as in `Summary`; tasks are paired within them. `p_adjusted` is by Holm, over all of these;
    `wilcoxon` and `left_out` are as in `Contrast`.
    """

    variant: str
    arm: str
    blocks: str
    compared: Compared
    p_adjusted: float | None = None
    wilcoxon: Tested | None = None
    left_out: tuple[str, ...] = ()


class Placed(_Finding):
    """A criterion in one place (`design.split=A`)."""

    place: str
    verdict: Verdict
    value: Interval | None
    why: str


class Judged(_Finding):
    """What became of a criterion. `variant` is the one it was judged on; where the best was chosen, it was chosen on other
    seeds than those it is judged on, and `variant` is the one that all seeds choose."""

    criterion: Criterion
    verdict: Verdict
    value: Interval | None
    variant: str
    why: str
    places: tuple[Placed, ...] = ()


class Point(_Finding):
    """One point of a curve."""

    x: float
    interval: Interval


class Curve(_Finding):
    """A line of a plot: one variant's arm by night (`learning`: rate over all blocks, `steps`, `repeated errors`), or by the
    nights since (`retention`: rate on what a night taught, 0, 1, 2 ... nights after it)."""

    kind: Kind
    variant: str
    arm: str
    points: tuple[Point, ...]


class Levels(_Finding):
    """The primary measure by the levels of a numeric factor; the knee is where the curve is farthest above its chord
    (Satopää et al. 2011), or None with a reason."""

    factor: str
    measure: str
    points: tuple[Point, ...]
    knee: float | None
    why: str = ""


class Grid(_Finding):
    """Mean a[i,j] over the lives of a variant: rows are nights from 0 on, columns blocks. `learnt` is the night after which a
    block was learnt (None: never), `missing` the reasons of None by "row column"."""

    variant: str
    arm: str
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    learnt: dict[str, int | None]
    missing: dict[str, str] = {}


class Analysis(_Finding):
    """Everything a report says of an experiment. `failed` gives a reason for each cell that has no life which counts.

    `exploratory` holds measures that were not registered: nothing is concluded from them. `errors` counts how attempts of the
    last examination failed, by variant and signature. `variance` is of the primary measure over the first two settings that the
    size spreads over. `config_hashes` are the digests of the lives, `models` fingerprints of what lived them.
    """

    experiment: str
    title: str
    hash: str
    size: SizeName
    variants: tuple[str, ...]
    cells: int
    done: int
    failed: dict[str, str]
    primary: str
    summaries: tuple[Summary, ...]
    contrasts: tuple[Contrast, ...]
    against_base: tuple[AgainstBase, ...]
    judged: tuple[Judged, ...]
    curves: tuple[Curve, ...]
    levels: tuple[Levels, ...]
    grids: tuple[Grid, ...]
    errors: dict[str, dict[str, int]]
    variance: Anova | None
    exploratory: tuple[Summary, ...]
    warnings: tuple[str, ...]
    seeds: tuple[int, ...]
    config_hashes: tuple[str, ...]
    code_hashes: tuple[str, ...]
    models: tuple[str, ...]
    seconds: float
    load: float | None
