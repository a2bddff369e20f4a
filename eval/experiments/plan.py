"""A pre-registered experiment: a file that says what is claimed, how it is tested, and when the claim has failed."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from eval.errors import EvalError
from eval.experiments.life import LifeConfig
from memory.hashing import content_hash

SizeName = Literal["pocket", "full"]
Value = bool | int | float | str | tuple[Any, ...]
FOLDER = Path(__file__).parent / "registered"


class Factor(BaseModel):
    """What is varied: a setting of the life (`night.strategy.weight`), its levels, and the `centre` at which it stays while
    others vary."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    setting: str
    levels: tuple[Value, ...] = Field(min_length=2)
    centre: Value

    @model_validator(mode="after")
    def _central(self) -> Factor:
        if self.centre not in self.levels:
            raise ValueError(f"{self.name}: the centre {self.centre!r} is none of its levels")
        return self


class Variant(BaseModel):
    """One way to live: settings of the life, by their dotted paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    settings: dict[str, Any] = {}


class Criterion(BaseModel):
    """When a claim holds: `measure` of `variant`, minus that of `against` (or its ratio), compared with a threshold (see
    `findings.Verdict`). `text` is said in the report.

    `measure`: `NAME` is of the skill arm, `NAME@ARM` of another, `NAME[KIND]` and `NAME[KIND]@ARM` of tasks of one kind only
    (`eval.experiments.measures`). Of all lives together: `knee`, `knee:MEASURE` or `knee:MEASURE/FACTOR` (the level of a
    numeric factor at which the curve bends), `p_value` or `p_value@ARM` (arm against base on the same tasks), `p_variants` or
    `p_variants:MEASURE` (the smallest p of all pairs of variants, after Holm). Without MEASURE these are of the primary one.

    `variant`: a name; a pattern with `*`, `?` and `[...]` (`*`, `size=*`: each that matches must hold); `best`, or
    `best:MEASURE` for the best by another measure than its own (chosen on other seeds than it is judged on). Patterns, `best`
    and `p_variants` leave out references where there are factors, what it is `against`, and the names in `without`.

    `against`: a variant in the same seed and place; `@ARM`, another arm of the same lives; `VARIANT@ARM`; `others` (or
    `others@ARM`), the best of the other variants that `*` stands for in the same seed and place: "best" is what makes the claim
    hardest, the largest for `>` and `>=`, the smallest for `<` and `<=`, so that it is conservative.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    text: str
    measure: str
    variant: str = "*"
    against: str = ""
    without: tuple[str, ...] = ()
    compare: Literal["difference", "ratio"] = "difference"
    operator: Literal[">=", ">", "<=", "<"]
    threshold: float


class Size(BaseModel):
    """How large it is run. `design` holds what all cells share, `spread` the settings that make cells besides variant and seed
    (`design.split`, `design.repo`, `model.kind`), `factorial` whether all levels are crossed or each is varied by itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: int = Field(ge=1)
    first_seed: int = Field(default=0, ge=0)
    design: dict[str, Any]
    spread: dict[str, tuple[Any, ...]] = {}
    settings: dict[str, Any] = {}
    levels: dict[str, tuple[Value, ...]] = {}
    """Of factors (by name) that have others at this size; the middle one is the centre, unless the factor's own is there."""
    factorial: bool = False
    minutes: float = Field(gt=0)
    """Expected minutes of one cell, on the machine that `machine` names."""
    dollars: float = Field(default=0.0, ge=0)
    """Expected cost of one cell."""
    machine: str


class Experiment(BaseModel):
    """A registered experiment; `hash` is of everything in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z]+[0-9]*$")
    title: str
    hypothesis: str
    expected: str
    references: tuple[Variant, ...] = ()
    """Variants that are no level of a factor: what the others are compared with."""
    settings: dict[str, Any] = {}
    """Of every variant, unless it says otherwise."""
    factors: tuple[Factor, ...] = ()
    measures: tuple[str, ...] = Field(min_length=1)
    primary: str
    analysis: str
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    limits: str
    sizes: dict[SizeName, Size]

    @property
    def hash(self) -> str:
        """Content hash of the registration."""
        return content_hash(self)

    def factors_at(self, size: SizeName) -> tuple[Factor, ...]:
        """The factors with the levels that they have at a size.

        Raises:
            EvalError: the size names no factor of the experiment.
        """
        levels = self.sized(size).levels
        if unknown := sorted(set(levels) - {factor.name for factor in self.factors}):
            raise EvalError(
                f"{self.id}: sizes.{size}.levels names {unknown[0]!r}, which is no factor; correct its registration"
            )
        return tuple(_at_levels(factor, levels.get(factor.name, factor.levels)) for factor in self.factors)

    def variants(self, size: SizeName) -> list[Variant]:
        """References, then the centre and each level by itself; or all combinations where the size is factorial."""
        found = list(self.references)
        if self.factors:
            factors = self.factors_at(size)
            found += _crossed(factors) if self.sized(size).factorial else _one_by_one(factors)
        return found or [Variant(name="default")]

    def sized(self, size: SizeName) -> Size:
        """How it is run at a size.

        Raises:
            EvalError: it is not defined at this size.
        """
        if size not in self.sizes:
            raise EvalError(f"{self.id} is not defined at size {size!r}; it is at {', '.join(self.sizes)}")
        return self.sizes[size]

    def cells(self, size: SizeName, seeds: int | None = None) -> list[Cell]:
        """Every cell, in the order in which they are run: by seed first, so that what is broken off is balanced.

        Raises:
            EvalError: a setting does not exist or does not hold what it must; the text names it.
        """
        sized = self.sized(size)
        spread = [dict(zip(sized.spread, values, strict=True)) for values in itertools.product(*sized.spread.values())]
        return [
            self._cell(sized, variant, place, seed)
            for seed in range(sized.first_seed, sized.first_seed + (seeds or sized.seeds))
            for place in spread
            for variant in self.variants(size)
        ]

    def _cell(self, size: Size, variant: Variant, place: Mapping[str, Any], seed: int) -> Cell:
        body: dict[str, Any] = {"seed": seed, "design": dict(size.design)}
        body["night"] = {"seed": seed}
        for settings in (self.settings, size.settings, place, variant.settings):
            for path, value in settings.items():
                _set(body, path, value)
        name = "/".join([variant.name, *map(str, place.values()), f"seed {seed}"])
        try:
            life = LifeConfig.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise EvalError(f"{self.id}, cell {name}: {where}: {first['msg']}; correct its registration") from error
        return Cell(experiment=self.id, name=name, variant=variant.name, place=dict(place), seed=seed, life=life)


class Cell(BaseModel):
    """One life of an experiment; `place` are the settings that its `Size` spreads over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: str
    name: str
    variant: str
    place: dict[str, Any] = {}
    seed: int
    life: LifeConfig


def told(level: Value) -> str:
    """A level in a name."""
    return f"{level:g}" if isinstance(level, float) else str(level)


def read_experiment(path: Path) -> Experiment:
    """One registration.

    Raises:
        EvalError: it cannot be read or says something wrong; the text names file and place.
    """
    try:
        return Experiment.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EvalError(f"{path}: no TOML ({error}); correct it") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise EvalError(f"{path}: {where}: {first['msg']}; correct it") from error


def registered(folder: Path = FOLDER) -> dict[str, Experiment]:
    """All experiments, by id, in alphabetical order.

    Raises:
        EvalError: one cannot be read, or two have the same id.
    """
    found: dict[str, Experiment] = {}
    for path in sorted(folder.glob("*.toml")):
        experiment = read_experiment(path)
        if experiment.id in found or experiment.id != path.stem:
            raise EvalError(f"{path}: its id is {experiment.id!r}; it must be the file's name, and no other's")
        found[experiment.id] = experiment
    return found


def _at_levels(factor: Factor, levels: tuple[Value, ...]) -> Factor:
    centre = factor.centre if factor.centre in levels else levels[len(levels) // 2]
    return Factor(name=factor.name, setting=factor.setting, levels=levels, centre=centre)


def _one_by_one(factors: Sequence[Factor]) -> list[Variant]:
    centre = {factor.setting: factor.centre for factor in factors}
    found = [Variant(name="centre", settings=centre)]
    for factor in factors:
        for level in factor.levels:
            if level != factor.centre:
                found.append(Variant(name=f"{factor.name}={told(level)}", settings={**centre, factor.setting: level}))
    return found


def _crossed(factors: Sequence[Factor]) -> list[Variant]:
    found: list[Variant] = []
    for levels in itertools.product(*(factor.levels for factor in factors)):
        chosen = list(zip(factors, levels, strict=True))
        name = ",".join(f"{factor.name}={told(level)}" for factor, level in chosen)
        found.append(Variant(name=name, settings={factor.setting: level for factor, level in chosen}))
    return found


def _set(body: dict[str, Any], path: str, value: Any) -> None:
    *folders, last = path.split(".")
    for folder in folders:
        body = body.setdefault(folder, {})
    body[last] = deepcopy(value)  # what is set inside it later must not change the registration
