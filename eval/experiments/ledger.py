"""The laboratory's ledger: one SQLite file with what was registered, what was lived, and where it belongs.

A registration is locked before its first result and never changes; a life is stored once, by the digest of its configuration,
however many experiments share it. One process writes; others may read meanwhile.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import and_, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from eval.errors import EvalError
from eval.experiments.ledger_queries import end, know, linked, links_of, lives_of, record_of, registrations_of
from eval.experiments.ledger_records import REFUSED, CellRecord, Note, NoteKind, Registration, State, stamp, take
from eval.experiments.ledger_tables import CELLS, EXAMS, LINKS, LIVES, MIGRATIONS, NIGHTS, NOTES, REGISTRATIONS, rows_of
from eval.experiments.life import Life
from eval.experiments.plan import Cell, Experiment, SizeName
from memory.database import Database
from memory.errors import RecordError, StoreVersionError, translated
from memory.migrations import log_ahead, migrate, pending

FILE = "lab.db"


def has_results(lab: Path) -> bool:
    """Whether there is a ledger in a folder. Raises `EvalError` where that cannot be seen."""
    try:
        return (lab / FILE).is_file()
    except OSError as error:
        raise EvalError(f"{lab}: cannot be read ({error.strerror}); correct --lab") from error


class Ledger(Database):
    """The file `lab.db` in the folder `lab`; made, or brought up to date, on opening.

    Raises:
        EvalError: there is none to read, or another process writes to it.
        StoreError: the file cannot be used.
    """

    def __init__(self, lab: Path, read_only: bool = False) -> None:
        self._held: int | None = None
        if read_only and not has_results(lab):
            raise EvalError(f"{lab} holds no results; run an experiment there first, or correct --lab")
        if not read_only:
            self._held = take(lab)
        try:
            super().__init__(lab / FILE, read_only)
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Close the file, and let another process write to it; closing twice is harmless."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _prepare(self) -> None:
        with self.reading() as connection:
            lacking = pending(connection, self.path, MIGRATIONS)
        if self.read_only and lacking:
            raise StoreVersionError(f"{self.path} is empty or of an older version; run an experiment to bring it up to date")
        if not self.read_only:
            with translated(self.path):
                log_ahead(self._writer, self._busy_seconds)
                migrate(self._writer, self.path, MIGRATIONS)

    def lock(self, experiment: Experiment, now: datetime) -> Registration:
        """Lock a registration: as it is recorded if it is, else as a new version."""
        text = experiment.model_dump(mode="json")
        with self.writing(f"the registration of {experiment.id}") as connection:
            known = registrations_of(connection, experiment.id)
            for registration in known:
                if registration.hash == experiment.hash:
                    return registration
            mine = (LINKS.c.experiment == experiment.id) & (CELLS.c.ended_at.is_not(None))
            ended = select(func.count(LINKS.c.digest.distinct())).join_from(LINKS, CELLS, LINKS.c.digest == CELLS.c.digest)
            new = Registration(
                experiment=experiment.id,
                version=len(known) + 1,
                hash=experiment.hash,
                text=text,
                locked_at=now,
                seen=connection.execute(ended.where(mine)).scalar_one(),
            )
            row = new.model_dump() | {"text": json.dumps(text, ensure_ascii=False), "locked_at": stamp(now)}
            connection.execute(insert(REGISTRATIONS).values(row))
        return new

    def registrations(self, experiment: str) -> list[Registration]:
        """Every version of an experiment's registration, oldest first."""
        with self.reading() as connection:
            return registrations_of(connection, experiment)

    def link(self, registration: Registration, size: SizeName, cells: Mapping[str, Sequence[Cell]]) -> list[str]:
        """Say which life (by digest) each cell of an experiment is; lives that are not known yet wait.

        Returns the names of cells that were another life before: of another model, or before a change of format.

        Raises:
            RecordError: a digest is known, and of another configuration.
        """
        moved = []
        key = {"experiment": registration.experiment, "version": registration.version, "size": size}
        known = (LINKS.c.experiment == key["experiment"]) & (LINKS.c.version == key["version"]) & (LINKS.c.size == size)
        with self.writing(f"the cells of {registration.experiment}") as connection:
            before = {row.name: row.digest for row in connection.execute(select(LINKS.c.name, LINKS.c.digest).where(known))}
            for digest, sharing in cells.items():
                for cell in sharing:
                    know(connection, digest, cell.life)
                    row = key | {"name": cell.name, "variant": cell.variant, "digest": digest}
                    placed = upsert(LINKS).values(row)
                    names = ["experiment", "version", "size", "name"]
                    connection.execute(placed.on_conflict_do_update(index_elements=names, set_={"digest": digest}))
                    if before.get(cell.name, digest) != digest:
                        moved.append(cell.name)
        return moved

    def lived(self, life: Life, registration: Registration, now: datetime, *, worker: str = "", tries: int = 1) -> None:
        """Store a life. One with problems counts as failed, and can be lived again; any other stays for good.

        Raises:
            RecordError: it is there already, or its cell is not known.
        """
        head, exams, nights = rows_of(life)
        what = f"life {life.digest}"
        with self.writing(what) as connection:
            state = connection.execute(select(CELLS.c.state).where(CELLS.c.digest == life.digest)).scalar()
            if state in (None, "lived"):
                raise RecordError(f"{what} is lived already" if state else f"{what} is of no known cell; link it first")
            connection.execute(delete(LIVES).where(LIVES.c.digest == life.digest))
            connection.execute(insert(LIVES).values(head))
            for rows, into in ((exams, EXAMS), (nights, NIGHTS)):
                if rows:
                    connection.execute(insert(into), rows)
            error = REFUSED + "; ".join(life.problems) if life.problems else ""
            end(connection, life.digest, error, registration, now, worker=worker, tries=tries, seconds=life.seconds)

    def failed(self, digest: str, error: str, registration: Registration, now: datetime, *, worker: str, tries: int) -> None:
        """Record why there is no life."""
        with self.writing(f"the failure of {digest}") as connection:
            end(connection, digest, error, registration, now, worker=worker, tries=tries, seconds=None)

    def refuse(self, digest: str, why: str) -> None:
        """Have a stored life count for nothing: the checks over all lives found something wrong with it."""
        with self.writing() as connection:
            mine = CELLS.c.digest == digest
            connection.execute(update(CELLS).where(mine).values(state="failed", error=REFUSED + why))

    def codes(self, digests: Iterable[str]) -> dict[str, str]:
        """By which code lives that count were lived, by digest."""
        wanted = set(digests)
        joined = select(LIVES.c.digest, LIVES.c.code).join_from(LIVES, CELLS, LIVES.c.digest == CELLS.c.digest)
        with self.reading() as connection:
            rows = connection.execute(joined.where(CELLS.c.state == "lived")).all()
        return {row.digest: row.code for row in rows if row.digest in wanted}

    def reopen(self, digests: Iterable[str]) -> None:
        """Have lives wait to be lived anew. Until then they count for nothing; their rows stay until others replace them."""
        with self.writing("lives to be lived again") as connection:
            for digest in digests:
                connection.execute(update(CELLS).where(CELLS.c.digest == digest).values(state="waiting"))

    def life(self, digest: str) -> Life | None:
        """A life exactly as it was stored, also one that counts for nothing; None if there is none."""
        with self.reading() as connection:
            return next(iter(lives_of(connection, LIVES.c.digest == digest).values()), None)

    def lives(self, registration: Registration, size: SizeName) -> dict[str, Life]:
        """The lives that count, by the names of the experiment's cells."""
        with self.reading() as connection:
            names = linked(connection, registration, size, CELLS.c.state == "lived")
            wanted = LIVES.c.digest.in_(select(LINKS.c.digest).where(links_of(registration, size)))
            lives = lives_of(connection, wanted)
        return {name: lives[digest] for name, digest in names.items()}

    def failures(self, registration: Registration, size: SizeName) -> dict[str, str]:
        """Why cells failed, by name."""
        records = self.cells(registration, size)
        return {name: record.error for name, record in records.items() if record.state == "failed"}

    def cells(self, registration: Registration, size: SizeName) -> dict[str, CellRecord]:
        """What is known of an experiment's cells, by name, in the order in which they were first linked."""
        joined = select(LINKS.c.name, CELLS).join_from(LINKS, CELLS, LINKS.c.digest == CELLS.c.digest)
        with self.reading() as connection:
            rows = connection.execute(joined.where(links_of(registration, size)).order_by(LINKS.c.name)).mappings().all()
        return {row["name"]: record_of(row) for row in rows}

    def digests(self, state: State = "lived") -> set[str]:
        """Of all cells in a state, whatever they belong to."""
        with self.reading() as connection:
            return set(connection.execute(select(CELLS.c.digest).where(CELLS.c.state == state)).scalars())

    def note(self, registration: Registration, size: SizeName, kind: NoteKind, texts: Iterable[str], now: datetime) -> None:
        """Have reports carry sentences. Those of the checks replace what the checks said before; others stay."""
        key = {"experiment": registration.experiment, "version": registration.version, "size": size, "kind": kind}
        with self.writing() as connection:
            if kind == "check":
                connection.execute(delete(NOTES).where(and_(*(NOTES.c[name] == value for name, value in key.items()))))
            for text in texts:
                row = key | {"text": text, "at": stamp(now)}
                connection.execute(upsert(NOTES).values(row).on_conflict_do_nothing())

    def notes(self, registration: Registration, size: SizeName) -> list[Note]:
        """What reports must carry, oldest first."""
        mine = (NOTES.c.experiment == registration.experiment) & (NOTES.c.version == registration.version)
        chosen = select(*(NOTES.c[name] for name in Note.model_fields)).where(mine & (NOTES.c.size == size))
        with self.reading() as connection:
            rows = connection.execute(chosen.order_by(NOTES.c.at, NOTES.c.kind, NOTES.c.text)).mappings().all()
        return [Note.model_validate(dict(row)) for row in rows]
