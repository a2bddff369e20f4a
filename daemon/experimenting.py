"""The experiments as commands see them: what is registered, what the laboratory's ledger knows of it, and what was found."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.home import Home
from eval.errors import EvalError
from eval.experiments.estimate import Estimate, estimate
from eval.experiments.ledger import Ledger, has_results
from eval.experiments.life import LifeConfig
from eval.experiments.plan import Experiment, SizeName, registered

if TYPE_CHECKING:
    from eval.experiments.analysis import Analysis
    from eval.experiments.ledger_records import CellRecord, Registration
    from eval.experiments.report import Locked

ALL = "all"


def lab_of(lab: Path | None, home: Path | None) -> Path:
    """The folder of the laboratory: as it is given, or that of the state directory."""
    return lab.expanduser().absolute() if lab else Home.at(home).lab


def named(which: str, size: SizeName | None = None) -> list[Experiment]:
    """The experiments that an id, or `all` (of those that are defined at a size), names.

    Raises:
        EvalError: there is none; the text names the nearest.
    """
    known = registered()
    if which == ALL:
        return [one for one in known.values() if size is None or size in one.sizes]
    if which not in known:
        near = difflib.get_close_matches(which, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise EvalError(f"no experiment {which!r}; {hint}")
    return [known[which]]


@contextmanager
def reading(lab: Path) -> Iterator[Ledger | None]:
    """The ledger of a laboratory, if there is one already."""
    if not has_results(lab):
        yield None
        return
    with Ledger(lab, read_only=True) as ledger:
        yield ledger


def locked(experiment: Experiment, ledger: Ledger | None) -> Registration | None:
    """The experiment as it was locked, if it is still the same."""
    versions = ledger.registrations(experiment.id) if ledger else []
    return next((version for version in versions if version.hash == experiment.hash), None)


def records(experiment: Experiment, size: SizeName, ledger: Ledger | None) -> dict[str, CellRecord]:
    """What is known of the cells of an experiment as it is registered now, by name."""
    mine = locked(experiment, ledger)
    return ledger.cells(mine, size) if ledger and mine else {}


def locking(experiment: Experiment, found: Analysis, ledger: Ledger) -> Locked | None:
    """Since when an experiment stands as it is registered now, and how many of the lives analysed had ended before."""
    from eval.experiments.report import Locked

    mine = locked(experiment, ledger)
    if mine is None:
        return None
    lived = [record for record in ledger.cells(mine, found.size).values() if record.digest in found.config_hashes]
    earlier = sum(record.ended_at is not None and record.ended_at < mine.locked_at for record in lived)
    return Locked(mine.version, mine.locked_at, mine.seen, earlier)


def row_of(experiment: Experiment, size: SizeName, ledger: Ledger | None) -> dict[str, Any]:
    """An experiment in one row. `changed`: it was locked, and is another one now."""
    mine = locked(experiment, ledger)
    names = {cell.name for cell in experiment.cells(size)}
    states = [record.state for name, record in records(experiment, size, ledger).items() if name in names]
    return {
        "id": experiment.id,
        "title": experiment.title,
        "hash": experiment.hash,
        "locked": mine.locked_at.isoformat() if mine else None,
        "version": mine.version if mine else None,
        "changed": mine is None and ledger is not None and bool(ledger.registrations(experiment.id)),
        "size": size,
        "cells": len(names),
        "done": states.count("lived"),
        "failed": states.count("failed"),
    }


def begun(experiment: Experiment, size: SizeName, ledger: Ledger | None) -> int | None:
    """With how many seeds an experiment was begun whose cells are not all lived; None where nothing is left."""
    known = records(experiment, size, ledger)
    if all(record.state == "lived" for record in known.values()):
        return None
    return len({int(record.body["seed"]) for record in known.values()})


def estimated(experiment: Experiment, size: SizeName, seeds: int | None, workers: int, ledger: Ledger | None) -> Estimate:
    """What is left to do, lives that other experiments share counted as done."""
    done = ledger.digests() if ledger else set()
    return estimate(experiment, size, seeds, workers=workers, done=done, model=_model)


def analysed(experiment: Experiment, size: SizeName, ledger: Ledger, seeds: int | None = None) -> Analysis:
    """What was found, from what the ledger holds; with as many seeds as were run where it is not said.

    Raises:
        EvalError: the experiment was not run at this size as it is registered now.
    """
    from eval.experiments.analysis import analyse

    mine, known = locked(experiment, ledger), records(experiment, size, ledger)
    if mine is None or not known:
        raise EvalError(
            f"{experiment.id} has no results at size {size} as it is registered now; run it first: "
            f"sleepyctl experiment run {experiment.id} --size {size}"
        )
    cells = experiment.cells(size, seeds or len({int(record.body["seed"]) for record in known.values()}))
    names = {cell.name for cell in cells}
    count, planned = len({cell.seed for cell in cells}), experiment.sized(size).seeds
    fewer = [f"{count} of {planned} registered seeds: the others are left out"] if count < planned else []
    return analyse(
        experiment,
        size,
        {name: life for name, life in ledger.lives(mine, size).items() if name in names},
        cells,
        {name: why for name, why in ledger.failures(mine, size).items() if name in names},
        [*fewer, *(note.text for note in ledger.notes(mine, size))],
    )


def _model(config: LifeConfig) -> str:
    folder = config.model.weights
    return _fingerprint(folder) if folder else ""


@cache
def _fingerprint(folder: Path) -> str:
    """As the runner takes it, or "" where the weights are not on this machine: then nothing was lived with them here."""
    from agent.errors import ModelError
    from agent.models.weights import folder_hash

    try:
        return folder_hash(folder)
    except ModelError:
        return ""
