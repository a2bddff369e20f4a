"""The lives of an experiment as replicates: values by cell, pairs across variants, intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev

from eval.experiments.findings import Interval, Summary, Unit
from eval.experiments.life import Life
from eval.experiments.lived import Lived
from eval.experiments.measures import asked
from eval.experiments.plan import Cell, Experiment, SizeName
from eval.metrics.continual import Measure
from memory.arms import Arm

Values = Mapping[str, Measure]
"""By the name of a cell."""
REPO = "design.repo"


@dataclass(frozen=True)
class Study:
    """The cells of an experiment at a size, and the lives that count, by cell. The others are `failed`, with a reason each."""

    experiment: Experiment
    size: SizeName
    cells: Sequence[Cell]
    lives: Mapping[str, Life]
    failed: Mapping[str, str]
    _found: dict[tuple[str, str], Measure] = field(default_factory=dict)
    _lived: dict[tuple[str, Arm, str], Lived] = field(default_factory=dict)

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """In the order of the registration."""
        return tuple(dict.fromkeys(cell.variant for cell in self.cells))

    @cached_property
    def candidates(self) -> tuple[str, ...]:
        """Variants that claims are about: levels of the factors, or all where there are no factors."""
        references = {variant.name for variant in self.experiment.references} if self.experiment.factors else set()
        return tuple(name for name in self.variants if name not in references)

    @cached_property
    def baselines(self) -> tuple[str, ...]:
        """What the others are compared with: the references; without factors the first variant, without references the centre
        or the first."""
        references = tuple(variant.name for variant in self.experiment.references if variant.name in self.variants)
        if self.experiment.factors and references:
            return references
        return ("centre",) if "centre" in self.variants else self.variants[:1]

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """Arms that any cell examines."""
        return tuple(arm for arm in Arm if any(arm in cell.life.arms for cell in self.cells))

    @cached_property
    def unit(self) -> Unit:
        """What replicates are: with several places, seeds where more than one is registered; with one seed, repositories where
        they are in several places each; otherwise lives."""
        places = [cell.place for cell in self.cells]
        if all(place == places[0] for place in places):
            return "lives"
        if max(self.experiment.sized(self.size).seeds, len({cell.seed for cell in self.cells})) > 1:
            return "seeds"
        repos = {place.get(REPO) for place in places}
        others = [{path: value for path, value in place.items() if path != REPO} for place in places]
        return "repositories" if len(repos) > 1 and any(other != others[0] for other in others) else "lives"

    def replicate(self, cell: Cell) -> str:
        """The replicate that a cell is of, by name."""
        if self.unit == "lives":
            return cell.name
        return f"seed {cell.seed}" if self.unit == "seeds" else str(cell.place[REPO])

    def of(self, variant: str) -> list[Cell]:
        """The cells of a variant."""
        return [cell for cell in self.cells if cell.variant == variant]

    def unlived(self, variants: Collection[str]) -> str:
        """How many cells of some variants have no life that counts, in words; "" where all have one."""
        cells = [cell for cell in self.cells if cell.variant in variants]
        missing = sum(cell.name not in self.lives for cell in cells)
        return f"{missing} of {len(cells)} cells have no life that counts, so nothing is decided" if missing else ""

    def value(self, cell: Cell, measure: str) -> Measure:
        """A measure of the life of a cell, or why there is none."""
        if (cell.name, measure) not in self._found:
            wanted = asked(measure)
            self._found[cell.name, measure] = (
                wanted.metric.measured(self.lived(cell, wanted.arm, wanted.kind))
                if cell.name in self.lives
                else Measure(None, self.failed.get(cell.name, "the cell has not been lived yet"))
            )
        return self._found[cell.name, measure]

    def at_least(self, cell: Cell, measure: str) -> float | None:
        """The least that a measure can be which a life has no value of, where that is known."""
        wanted = asked(measure)
        return wanted.metric.at_least(self.lived(cell, wanted.arm, wanted.kind)) if cell.name in self.lives else None

    def lived(self, cell: Cell, arm: Arm, kind: str = "") -> Lived:
        """An arm of the life of a cell that has one."""
        key = (cell.name, arm, kind)
        if key not in self._lived:
            self._lived[key] = Lived(self.lives[cell.name], arm, kind, cell.life)
        return self._lived[key]

    def beside(self, cell: Cell, variant: str) -> Cell | None:
        """The cell of another variant with the same seed, in the same place."""
        same = (other for other in self.of(variant) if other.seed == cell.seed and other.place == cell.place)
        return next(same, None)

    def interval(self, values: Values, within: Collection[str] | None = None) -> Interval | None:
        """The mean over replicates; None without values."""
        found = self.replicates(values, within)
        cells = [cell for cell in self.cells if cell.name in values and (within is None or cell.name in within)]
        alone = len({self.replicate(cell) for cell in cells}) == len(cells)
        return student(list(found.values()), "lives" if alone else self.unit) if found else None

    def replicates(self, values: Values, within: Collection[str] | None = None) -> dict[str, float]:
        """The means of replicates over their places. One that lacks a value in any place is left out: what is left of it would
        be compared with what others show elsewhere. `within` restricts it to some cells."""
        cells: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            if within is None or cell.name in within:
                cells.setdefault((cell.variant, self.replicate(cell)), []).append(cell.name)
        found: dict[str, float] = {}
        for (_, replicate), names in cells.items():
            here = [value for name in names if name in values and (value := values[name].value) is not None]
            if len(here) == len(names):
                found[replicate] = fmean(here)
        return found

    def widened(self, interval: Interval, measure: str, cells: Collection[str]) -> tuple[Interval, str] | None:
        """An interval of equal replicates, with the exact binomial bound of no event among the distinct tasks behind its values
        on either side, 1 - 0.025^(1/n) (Clopper & Pearson 1934), and that in words. None if it is no share of tasks."""
        wanted = asked(measure)
        if wanted.metric.unit != "share" or wanted.metric.behind is None:
            return None
        lives = (
            self.lived(cell, wanted.arm, wanted.kind) for cell in self.cells if cell.name in cells and cell.name in self.lives
        )
        tasks = len(set[str]().union(*(lived.tasks(wanted.metric.behind) for lived in lives)))
        if not tasks:
            return None
        most = 1 - 0.025 ** (1 / tasks)
        told = f"all {interval.n} {interval.unit} are equal: the interval is what no event among {tasks} distinct tasks allows"
        return interval.model_copy(update={"low": interval.mean - most, "high": interval.mean + most}), told

    def summary(self, variant: str, measure: str) -> Summary:
        """A measure of a variant."""
        values = {cell.name: self.value(cell, measure) for cell in self.of(variant)}
        return Summary(
            variant=variant,
            measure=measure,
            cells=tuple(values),
            values=tuple(value.value for value in values.values()),
            interval=self.interval(values),
            missing={name: value.why for name, value in values.items() if value.value is None},
        )

    def minus(self, variant: str, against: str, measure: str) -> dict[str, tuple[float, float]]:
        """Both values of each pair of cells that have them (against, variant), by the cell of the variant."""
        found: dict[str, tuple[float, float]] = {}
        for cell in self.of(variant):
            other = self.beside(cell, against)
            mine, theirs = self.value(cell, measure).value, self.value(other, measure).value if other else None
            if mine is not None and theirs is not None:
                found[cell.name] = (theirs, mine)
        return found


def student(values: Sequence[float], unit: Unit = "lives") -> Interval:
    """Mean and 95 % interval of Student's t with n - 1 degrees of freedom; without ends where there is one value."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean=mean, n=1, unit=unit)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=len(values), unit=unit)
