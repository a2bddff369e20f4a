"""Runs an experiment, cell by cell: what was lived is never lived again, and what ends is stored before the next thing is done.

It may be killed anywhere; run again, it goes on. At most the lives that were going on are lost.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import cast

from eval.experiments.claims import check_claims
from eval.experiments.crosschecks import crosscheck, other_code
from eval.experiments.ending import ended_by_sigterm
from eval.experiments.executor import Done, Executor, Job, Resources, Work
from eval.experiments.ledger import Ledger
from eval.experiments.ledger_records import CellRecord, Registration
from eval.experiments.life import LifeConfig
from eval.experiments.plan import Cell, Experiment, SizeName
from memory.errors import RecordError


@dataclass(frozen=True)
class Progress:
    """How far it is: `done` of `total` lives are there, `failed` more have ended without one. `remaining` are seconds, None
    while nothing is known. `cell` is the one that ended just now ("" at the start), `error` why it failed; `warning` is said at
    the start."""

    done: int
    failed: int
    total: int
    remaining: float | None
    cell: str = ""
    error: str = ""
    warning: str = ""


@dataclass(frozen=True)
class Ran:
    """What came of a run. `there` lives were there before, `lived` are new; `failed` says why cells have none, by name."""

    registration: Registration
    size: SizeName
    cells: tuple[Cell, ...]
    there: int
    lived: int
    failed: dict[str, str]
    warnings: tuple[str, ...]
    seconds: float


def run(
    experiment: Experiment,
    size: SizeName,
    *,
    lab: Path,
    executor: Executor,
    seeds: int | None = None,
    work: Work | None = None,
    model: Callable[[LifeConfig], str] | None = None,
    needs: Callable[[LifeConfig], Resources] | None = None,
    code: str | None = None,
    again: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Ran:
    """Live what of an experiment is not lived yet, failed cells included, and store it in the laboratory `lab`.

    `work` lives a life (for real where it is not said), `model` gives the fingerprint of its base, `needs` what it needs.
    `code` is the hash of the code that lives now: lives of other code are taken with a warning, or lived `again`. The
    registration is checked and locked first. SIGTERM ends a run as Ctrl-C does: workers too, within seconds.

    Raises:
        EvalError: the registration is wrong, another runner works in the laboratory, or the executor cannot be used.
        StoreError: the laboratory's file cannot be used.
    """
    if work is None or model is None:
        from eval.experiments import living

        code = living.code_hash() if code is None and work is None else code
        work, model = work or living.Living(lab), model or living.model_hash
    began = time.monotonic()
    check_claims(experiment, size)
    cells = experiment.cells(size, seeds)
    by_digest: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_digest[cell.life.digest(model(cell.life))].append(cell)
    with Ledger(lab) as ledger, ended_by_sigterm():
        registration = ledger.lock(experiment, now())
        moved = ledger.link(registration, size, by_digest)
        ledger.note(registration, size, "exploratory", exploratory(experiment, size, seeds, registration), now())
        ledger.note(registration, size, "warning", _moved(moved), now())
        if again and code is not None:
            ledger.reopen(digest for digest, its in ledger.codes(by_digest).items() if its != code)
        records = {record.digest: record for record in ledger.cells(registration, size).values()}
        running = _Running(ledger, registration, experiment, size, by_digest, records, now, on_progress, executor)
        jobs = [
            Job(digest, shared[0].life, (needs or needed)(shared[0].life))
            for digest, shared in by_digest.items()
            if records[digest].state != "lived"
        ]
        jobs.sort(key=lambda job: records[job.key].state == "failed")  # what failed once may take all day to fail again
        running.go(work, jobs, other_code(ledger.codes(by_digest), code) if code is not None else [])
        named = {cell.name: cell for cell in cells}
        _check(ledger, registration, size, named, code, now)
        records_now = ledger.cells(registration, size)
        return Ran(
            registration=registration,
            size=size,
            cells=tuple(cells),
            there=len(by_digest) - len(jobs),
            lived=sum(records_now[by_digest[job.key][0].name].state == "lived" for job in jobs),
            failed={name: why for name, why in ledger.failures(registration, size).items() if name in named},
            warnings=tuple(note.text for note in ledger.notes(registration, size)),
            seconds=time.monotonic() - began,
        )


def needed(config: LifeConfig) -> Resources:
    """What a life needs where nothing else is said: its threads."""
    return Resources(cpus=config.threads)


def exploratory(experiment: Experiment, size: SizeName, seeds: int | None, registration: Registration) -> list[str]:
    """What makes a run another one than was registered before anything was seen."""
    said = []
    if registration.seen:
        said.append(
            f"version {registration.version} was registered after {registration.seen} lives of earlier versions had ended: "
            "what it claims may have been read off them"
        )
    elif registration.version > 1:
        said.append(f"version {registration.version}: the registration was changed before anything was lived under it")
    planned = experiment.sized(size).seeds
    if seeds is not None and seeds != planned:
        said.append(f"run with {seeds} seeds instead of the {planned} that were registered")
    return said


@dataclass
class _Running:
    ledger: Ledger
    registration: Registration
    experiment: Experiment
    size: SizeName
    by_digest: Mapping[str, Sequence[Cell]]
    records: dict[str, CellRecord]
    now: Callable[[], datetime]
    on_progress: Callable[[Progress], None]
    executor: Executor

    def __post_init__(self) -> None:
        self.done = 0
        self.failed = 0
        self.took: dict[str, list[float]] = defaultdict(list)
        for digest, record in self.records.items():
            if digest in self.by_digest and record.state == "lived":
                self.done += 1
                self.took[self.by_digest[digest][0].variant].append(record.seconds or 0.0)

    def go(self, work: Work, jobs: Sequence[Job[LifeConfig]], warnings: Sequence[str] = ()) -> None:
        """Have the jobs done, and store each as it ends."""
        left = {job.key for job in jobs}
        self._tell(left, warning="; ".join(warnings))
        results = cast("_Closable", self.executor.map(work, jobs))
        with closing(results):
            for done in results:
                left.discard(done.key)
                cell = self.by_digest[done.key][0]
                if error := self._stored(done):
                    self.failed += 1
                else:
                    self.done += 1
                self._tell(left, cell.name, error)

    def _stored(self, done: Done) -> str:
        """Store what came of a cell; returns why it counts for nothing, if it does."""
        error = done.error
        if done.life is not None and done.life.digest != done.key:
            error = f"the life that came back is another one's ({done.life.digest}); its work gives what it was not asked for"
        elif done.life is not None:
            try:
                now = self.now()
                self.ledger.lived(done.life, self.registration, now, worker=done.worker, tries=done.tries)
                self.took[self.by_digest[done.key][0].variant].append(done.life.seconds)
                return "; ".join(done.life.problems)
            except (RecordError, OverflowError) as unfit:
                error = f"it cannot be stored: {unfit}"
        error = error or "nothing came back, and no reason"
        self.ledger.failed(done.key, error, self.registration, self.now(), worker=done.worker, tries=done.tries)
        return error

    def _tell(self, left: set[str], cell: str = "", error: str = "", warning: str = "") -> None:
        remaining = self._remaining(left)
        self.on_progress(Progress(self.done, self.failed, len(self.by_digest), remaining, cell, error, warning))

    def _remaining(self, left: set[str]) -> float | None:
        """Seconds: each cell takes what those of its variant took, or all, or what is registered."""
        known = [seconds for took in self.took.values() for seconds in took]
        usual = fmean(known) if known else self.experiment.sized(self.size).minutes * 60
        whole = 0.0
        for digest in left:
            took = self.took.get(self.by_digest[digest][0].variant)
            whole += fmean(took) if took else usual
        return whole / max(1, self.executor.workers)


class _Closable(Iterator[Done]):
    def close(self) -> None: ...


def _check(
    ledger: Ledger,
    registration: Registration,
    size: SizeName,
    cells: Mapping[str, Cell],
    code: str | None,
    now: Callable[[], datetime],
) -> None:
    """Compare all lives of the experiment that are there with one another."""
    lives = {name: life for name, life in ledger.lives(registration, size).items() if name in cells}
    records = ledger.cells(registration, size)
    found = crosscheck(cells, lives)
    for name, why in found.refused.items():
        ledger.refuse(records[name].digest, why)
    earlier = sum((records[name].ended_at or registration.locked_at) < registration.locked_at for name in lives)
    before = [f"{earlier} of {len(lives)} lives were there before this registration was locked: other experiments share them"]
    other = other_code({life.digest: life.code for life in lives.values()}, code) if code is not None else []
    ledger.note(registration, size, "check", [*other, *found.warnings, *before * bool(earlier)], now())


def _moved(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"the base model, or how lives are lived, changed under {len(names)} cells ({names[0]} ...): they are lived again"]
