"""The lives of an experiment as replicates: values by cell, pairs across variants, intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, stdev

from eval.experiments.findings import Interval, Summary
from eval.experiments.life import Life
from eval.experiments.lived import Lived
from eval.experiments.measures import asked
from eval.experiments.plan import Cell, Experiment, SizeName
from eval.metrics.continual import Measure
from memory.arms import Arm

Values = Mapping[str, Measure]
"""By the name of a cell."""


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

    def of(self, variant: str) -> list[Cell]:
        """The cells of a variant."""
        return [cell for cell in self.cells if cell.variant == variant]

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
        unit, found = self.replicates(values, within)
        return student(list(found.values()), unit) if found else None

    def replicates(self, values: Values, within: Collection[str] | None = None) -> tuple[str, dict[str, float]]:
        """Values by replicate, and what these are. Seeds, with their means over places, where there are several places and at
        least two seeds that have a value in each; otherwise lives. `within` restricts it to some cells."""
        cells = [cell for cell in self.cells if cell.name in values and (within is None or cell.name in within)]
        found = {cell.name: value for cell in cells if (value := values[cell.name].value) is not None}
        by_seed: dict[int, list[Cell]] = {}
        for cell in cells:
            by_seed.setdefault(cell.seed, []).append(cell)
        complete = {
            f"seed {seed}": fmean(found[cell.name] for cell in group)
            for seed, group in by_seed.items()
            if all(cell.name in found for cell in group)
        }
        if len(complete) > 1 and any(len(group) > 1 for group in by_seed.values()):
            return "seeds", complete
        return "lives", found

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


def student(values: Sequence[float], unit: str = "lives") -> Interval:
    """Mean and 95 % interval of Student's t with n - 1 degrees of freedom; without ends where there is one value."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean=mean, n=1, unit=unit)
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=len(values), unit=unit)
