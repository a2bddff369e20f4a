"""What the lives of an experiment say about one another: nothing may be shared that should be each one's own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from eval.experiments.life import DriftDesign, Life, LifeConfig, SequenceDesign, SplitDesign
from eval.experiments.plan import Cell
from memory.hashing import content_hash


@dataclass(frozen=True)
class Findings:
    """`refused`: which cells count for nothing, and why. `warnings`: what reports must carry."""

    refused: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def crosscheck(cells: Mapping[str, Cell], lives: Mapping[str, Life]) -> Findings:
    """Compare lives, by the names of their cells.

    Lives of different seeds, repositories or splits that trained the very same adapter shared its folder: both are refused.
    Lives of different code, of models that differ under one configuration, or of nights that differ without effect are warned
    of.
    """
    warnings = [*_code(cells, lives), *_models(cells, lives), *_without_effect(cells, lives)]
    return Findings(_shared(cells, lives), warnings)


def other_code(codes: Mapping[str, str], now: str) -> list[str]:
    """What to say where lives were lived by other code (by life: the hash of the code) than lives are lived by `now`."""
    others = Counter(code for code in codes.values() if code != now)
    if not others:
        return []
    told = ", ".join(f"{code}: {count}" for code, count in sorted(others.items()))
    return [
        f"{others.total()} of {len(codes)} lives were lived by other code ({told}) than this ({now}); --again lives them anew"
    ]


def taught(config: LifeConfig) -> str:
    """What decides the days of a life: two that differ here cannot train the same adapter."""
    design = config.design
    match design:
        case SplitDesign():
            place: object = (design.repo, design.split)
        case SequenceDesign():
            place = design.repos
        case DriftDesign():
            place = design.repo
    return content_hash([config.seed, design.kind, place, config.model])


def _shared(cells: Mapping[str, Cell], lives: Mapping[str, Life]) -> dict[str, str]:
    owners: dict[str, dict[str, str]] = defaultdict(dict)
    for name, life in lives.items():
        for night in life.nights:
            for adapter in night.adapters.values():
                if adapter:
                    owners[adapter].setdefault(taught(cells[name].life), name)
    refused: dict[str, str] = {}
    for adapter, found in owners.items():
        if len(found) > 1:
            first, second, *_ = found.values()
            why = f"adapter {adapter} is of {first} and of {second}, which trained on different days: they shared a folder"
            mine = [name for name, life in lives.items() if any(adapter in night.adapters.values() for night in life.nights)]
            refused |= dict.fromkeys(mine, why)
    return refused


def _code(cells: Mapping[str, Cell], lives: Mapping[str, Life]) -> list[str]:
    by_code: dict[str, list[str]] = defaultdict(list)
    compared: dict[str, set[str]] = defaultdict(set)
    for name, life in lives.items():
        by_code[life.code].append(name)
        compared[content_hash([cells[name].seed, cells[name].place])].add(life.code)
    if len(by_code) < 2:
        return []
    told = "; ".join(f"{code}: {len(names)}, as {names[0]}" for code, names in sorted(by_code.items()))
    mixed = sum(len(codes) > 1 for codes in compared.values())
    return [
        f"its lives were lived by {len(by_code)} different states of the code ({told}); in {mixed} of {len(compared)} seeds "
        "and places variants of different code are compared, whose differences may be the code's"
    ]


def _models(cells: Mapping[str, Cell], lives: Mapping[str, Life]) -> list[str]:
    seen: dict[str, set[str]] = defaultdict(set)
    for name, life in lives.items():
        seen[content_hash(cells[name].life.model)].add(life.model)
    return [
        f"one model configuration was {len(models)} different models ({', '.join(sorted(models))})"
        for models in seen.values()
        if len(models) > 1
    ]


def _without_effect(cells: Mapping[str, Cell], lives: Mapping[str, Life]) -> list[str]:
    by_adapters: dict[str, list[str]] = defaultdict(list)
    for name, life in lives.items():
        trained = [sorted(night.adapters.items()) for night in life.nights]
        if any(trained):
            by_adapters[content_hash([taught(cells[name].life), trained])].append(name)
    pairs: dict[tuple[str, str], int] = defaultdict(int)
    for names in by_adapters.values():
        first = cells[names[0]]
        for other in (cells[name] for name in names[1:]):
            if other.variant != first.variant and other.life.night != first.life.night:
                pairs[first.variant, other.variant] += 1
    return [
        f"variants {first} and {second} trained the same adapters in {count} of their cells: what tells them apart did nothing"
        for (first, second), count in sorted(pairs.items())
    ]
