"""What the ledger asks of its file, and writes to it, within one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select, update

from eval.experiments.ledger_records import CellRecord, Registration, stamp
from eval.experiments.ledger_tables import CELLS, EXAMS, LINKS, LIVES, NIGHTS, REGISTRATIONS, life_of
from eval.experiments.life import Life, LifeConfig
from eval.experiments.plan import SizeName
from memory.errors import RecordError, UnreadableStoreError
from memory.hashing import content_hash


def registrations_of(connection: Connection, experiment: str) -> list[Registration]:
    """Every version of an experiment's registration, oldest first. Raises `UnreadableStoreError` for one that was changed."""
    chosen = select(REGISTRATIONS).where(REGISTRATIONS.c.experiment == experiment).order_by(REGISTRATIONS.c.version)
    found = [
        Registration.model_validate(dict(row) | {"text": json.loads(row["text"])})
        for row in connection.execute(chosen).mappings()
    ]
    for registration in found:
        if content_hash(registration.text) != registration.hash:
            raise UnreadableStoreError(
                f"{experiment}, version {registration.version}: the registration was changed after it was locked; "
                "the results in this laboratory prove nothing: start again in another one"
            )
    return found


def know(connection: Connection, digest: str, life: LifeConfig) -> None:
    """Have a cell be known. Raises `RecordError` where its digest is another configuration's."""
    body = json.dumps(life.model_dump(mode="json"), ensure_ascii=False, sort_keys=True)
    known = connection.execute(select(CELLS.c.body).where(CELLS.c.digest == digest)).scalar()
    if known is None:
        connection.execute(insert(CELLS).values(digest=digest, body=body))
    elif json.loads(known) != json.loads(body):
        raise RecordError(f"two configurations have the digest {digest}; raise FORMAT in eval/experiments/life.py")


def end(
    connection: Connection,
    digest: str,
    error: str,
    registration: Registration,
    now: datetime,
    *,
    worker: str,
    tries: int,
    seconds: float | None,
) -> None:
    """Say how a cell ended: with a life, or with an error."""
    error = error.encode("utf-8", "backslashreplace").decode()  # what a model wrote may be no proper text
    ended = {"error": error, "worker": worker, "tries": CELLS.c.tries + tries, "seconds": seconds, "ended_at": stamp(now)}
    ended |= {"state": "failed" if error else "lived", "registration": registration.hash}
    if not connection.execute(update(CELLS).where(CELLS.c.digest == digest).values(ended)).rowcount:
        raise RecordError(f"{digest} is no known cell; link it first")


def links_of(registration: Registration, size: SizeName) -> ColumnElement[bool]:
    """Which links are those of a registration at a size."""
    columns = LINKS.c
    mine = (columns.experiment == registration.experiment) & (columns.version == registration.version)
    return mine & (columns.size == size)


def linked(connection: Connection, registration: Registration, size: SizeName, which: ColumnElement[bool]) -> dict[str, str]:
    """Digests of the cells of a registration, by name, as far as a condition on cells holds."""
    joined = select(LINKS.c.name, LINKS.c.digest).join_from(LINKS, CELLS, LINKS.c.digest == CELLS.c.digest)
    chosen = joined.where(links_of(registration, size) & which).order_by(LINKS.c.name)
    return {row.name: row.digest for row in connection.execute(chosen)}


def lives_of(connection: Connection, which: ColumnElement[bool]) -> dict[str, Life]:
    """Lives by digest, as far as a condition on their rows holds."""
    heads = connection.execute(select(LIVES).where(which)).all()
    found = {}
    for head in heads:
        exams = connection.execute(select(EXAMS).where(EXAMS.c.digest == head.digest).order_by(EXAMS.c.number)).all()
        nights = connection.execute(select(NIGHTS).where(NIGHTS.c.digest == head.digest).order_by(NIGHTS.c.number)).all()
        found[head.digest] = life_of(head, list(exams), list(nights))
    return found


def record_of(row: Mapping[Any, Any]) -> CellRecord:
    """A row of `cells`."""
    fields = {name: row[name] for name in CellRecord.model_fields}
    return CellRecord.model_validate(fields | {"body": json.loads(row["body"])})
