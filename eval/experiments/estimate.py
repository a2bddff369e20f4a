"""What an experiment will take, and what it can see, told before it is run."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

from pydantic import BaseModel, ConfigDict

from eval.experiments.life import LifeConfig, SequenceDesign, SplitDesign
from eval.experiments.plan import Cell, Experiment, SizeName
from eval.task_config import POCKET


class Estimate(BaseModel):
    """What is left to do of an experiment.

    `lives` are different ones among its `cells`, `there` those of them that were lived already, for this experiment or another.
    `minutes` and `dollars` are those of the remaining lives one after another, as they were registered for `machine`;
    `wall_minutes` with `workers` at a time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    size: SizeName
    seeds: int
    cells: int
    lives: int
    there: int
    minutes: float
    workers: int
    wall_minutes: float
    dollars: float
    machine: str

    @property
    def sentence(self) -> str:
        """In words."""
        left = f"{self.lives - self.there} to be lived in about {told(self.minutes)} ({self.machine})"
        shared = f", {self.there} of them are there" if self.there else ""
        cost = f", about {self.dollars:.2f} dollars" if self.dollars else ""
        wall = f"{told(self.wall_minutes)} with {self.workers} at a time"
        return f"{self.cells} cells, {self.lives} lives{shared}: {left}, {wall}{cost}"


def told(minutes: float) -> str:
    """A time, in minutes or hours."""
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.1f} hours"


def estimate(
    experiment: Experiment,
    size: SizeName,
    seeds: int | None = None,
    *,
    workers: int = 1,
    done: Collection[str] = (),
    model: Callable[[LifeConfig], str] = lambda config: "",
) -> Estimate:
    """What is left to do, with the digests of what is done; `model` gives the fingerprints that these were made with.

    Raises:
        EvalError: the registration is wrong, or not defined at this size.
    """
    sized, cells = experiment.sized(size), experiment.cells(size, seeds)
    digests = {cell.life.digest(model(cell.life)) for cell in cells}
    there = len(digests.intersection(done))
    left = len(digests) - there
    return Estimate(
        experiment=experiment.id,
        size=size,
        seeds=seeds or sized.seeds,
        cells=len(cells),
        lives=len(digests),
        there=there,
        minutes=left * sized.minutes,
        workers=max(1, workers),
        wall_minutes=math.ceil(left / max(1, workers)) * sized.minutes,
        dollars=round(left * sized.dollars, 2),
        machine=sized.machine,
    )


def power_sentence(experiment: Experiment, size: SizeName, seeds: int | None = None) -> str:
    """What the experiment can see, in a sentence; needs scipy.

    Replicates are seeds, each with the tasks of all its places; in the pocket world each seed has tasks of its own. Every
    variant is taken to be compared with every reference.

    Raises:
        EvalError: the registration is wrong, or not defined at this size.
    """
    from eval.statistics.power import Plan, power_of

    cells = experiment.cells(size, seeds)
    first = [cell for cell in cells if (cell.variant, cell.seed) == (cells[0].variant, cells[0].seed)]
    per_seed = [examined(cell) for cell in first]
    if None in per_seed:
        return "The source decides how many tasks each life is examined on: what the plan can see is not known before."
    tasks = sum(each or 0 for each in per_seed)
    lives = len({cell.seed for cell in cells})
    own = lives if cells[0].life.tasks.source == POCKET else 1
    variants = experiment.variants(size)
    references = len(experiment.references) if experiment.factors else 1
    comparisons = max(1, (len(variants) - references) * max(1, references))
    return power_of(Plan(tasks=tasks, lives=lives, distinct=own * _distinct(first), comparisons=comparisons))


def examined(cell: Cell) -> int | None:
    """Tasks on which a claim about a life rests: those of the test half, or of all blocks; None if the source decides."""
    design = cell.life.design
    if isinstance(design, SplitDesign):
        return design.tasks // 2 or None
    return design.examined * len(design.repos) if isinstance(design, SequenceDesign) else design.examined


def _distinct(cells: list[Cell]) -> int:
    """Different tasks among those of the places of a seed: the splits of a repository share theirs."""
    by_repo: dict[str, int] = {}
    for cell in cells:
        design, each = cell.life.design, examined(cell) or 0
        where = "" if isinstance(design, SequenceDesign) else design.repo
        most = design.tasks if isinstance(design, SplitDesign) else each
        by_repo[where] = min(by_repo.get(where, 0) + each, most)
    return sum(by_repo.values())
