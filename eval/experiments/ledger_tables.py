"""How the laboratory's file came to be: its tables, by named changes, and the rows that a life becomes."""

from __future__ import annotations

import json
import math
from typing import Any

from sqlalchemy import Connection, Row, column, table

from eval.experiments.life import ExamRow, Life, NightRow
from eval.metrics.rows import Attempted
from memory.migrations import Migration


def _first(connection: Connection) -> None:
    for statement in (
        """
        CREATE TABLE registrations (
            experiment TEXT NOT NULL,
            version INTEGER NOT NULL CHECK (version >= 1),
            hash TEXT NOT NULL,
            text TEXT NOT NULL CHECK (json_valid(text)),
            locked_at TEXT NOT NULL,
            seen INTEGER NOT NULL,
            PRIMARY KEY (experiment, version),
            UNIQUE (experiment, hash)
        )
        """,
        """
        CREATE TRIGGER a_registration_never_changes BEFORE UPDATE ON registrations
        BEGIN SELECT RAISE(ABORT, 'a registration never changes'); END
        """,
        """
        CREATE TRIGGER a_registration_stays BEFORE DELETE ON registrations
        BEGIN SELECT RAISE(ABORT, 'a registration stays'); END
        """,
        """
        CREATE TABLE cells (
            digest TEXT PRIMARY KEY NOT NULL,
            body TEXT NOT NULL CHECK (json_valid(body)),
            state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'lived', 'failed')),
            tries INTEGER NOT NULL DEFAULT 0,
            error TEXT NOT NULL DEFAULT '',
            worker TEXT NOT NULL DEFAULT '',
            seconds REAL,
            ended_at TEXT,
            registration TEXT
        )
        """,
        """
        CREATE TRIGGER a_configuration_never_changes BEFORE UPDATE OF digest, body ON cells
        BEGIN SELECT RAISE(ABORT, 'the configuration of a life never changes'); END
        """,
        """
        CREATE TABLE links (
            experiment TEXT NOT NULL,
            version INTEGER NOT NULL,
            size TEXT NOT NULL,
            name TEXT NOT NULL,
            variant TEXT NOT NULL,
            digest TEXT NOT NULL REFERENCES cells (digest),
            PRIMARY KEY (experiment, version, size, name),
            FOREIGN KEY (experiment, version) REFERENCES registrations (experiment, version)
        )
        """,
        "CREATE INDEX links_by_digest ON links (digest)",
        """
        CREATE TABLE notes (
            experiment TEXT NOT NULL,
            version INTEGER NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('exploratory', 'warning', 'check')),
            text TEXT NOT NULL,
            size TEXT NOT NULL,
            at TEXT NOT NULL,
            PRIMARY KEY (experiment, version, size, kind, text),
            FOREIGN KEY (experiment, version) REFERENCES registrations (experiment, version)
        )
        """,
        """
        CREATE TABLE lives (
            digest TEXT PRIMARY KEY NOT NULL REFERENCES cells (digest),
            model TEXT NOT NULL,
            code TEXT NOT NULL,
            blocks TEXT NOT NULL,
            learnt TEXT NOT NULL,
            problems TEXT NOT NULL,
            seconds REAL NOT NULL,
            load REAL NOT NULL
        )
        """,
        """
        CREATE TABLE exams (
            digest TEXT NOT NULL REFERENCES lives (digest) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            arm TEXT NOT NULL,
            night INTEGER NOT NULL CHECK (night >= 0),
            block TEXT NOT NULL,
            task_id TEXT NOT NULL,
            repo TEXT NOT NULL,
            kind TEXT NOT NULL,
            outcome TEXT NOT NULL,
            steps INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            seconds REAL NOT NULL,
            useful_seconds REAL NOT NULL,
            calls INTEGER NOT NULL,
            useful_calls INTEGER NOT NULL,
            malformed INTEGER NOT NULL,
            conflicts INTEGER NOT NULL,
            tests INTEGER NOT NULL,
            edits INTEGER NOT NULL,
            green INTEGER,
            signature TEXT NOT NULL,
            errors TEXT NOT NULL,
            recalled BOOLEAN NOT NULL,
            adapter TEXT NOT NULL,
            config_hash TEXT NOT NULL,
            PRIMARY KEY (digest, number)
        )
        """,
        """
        CREATE TABLE nights (
            digest TEXT NOT NULL REFERENCES lives (digest) ON DELETE CASCADE,
            number INTEGER NOT NULL,
            night INTEGER NOT NULL CHECK (night >= 1),
            block TEXT NOT NULL,
            examples INTEGER NOT NULL,
            dropped TEXT NOT NULL,
            tokens INTEGER NOT NULL,
            seconds REAL NOT NULL,
            extra_seconds REAL NOT NULL,
            bytes INTEGER NOT NULL,
            rank INTEGER NOT NULL,
            loss_first REAL,
            loss_last REAL,
            losses TEXT NOT NULL,
            base_losses TEXT NOT NULL,
            adapters TEXT NOT NULL,
            notes TEXT NOT NULL,
            refused TEXT NOT NULL,
            PRIMARY KEY (digest, number)
        )
        """,
        *(
            f"""
            CREATE TRIGGER {name}_never_change BEFORE UPDATE ON {name}
            BEGIN SELECT RAISE(ABORT, 'a result never changes'); END
            """
            for name in ("lives", "exams", "nights")
        ),
    ):
        connection.exec_driver_sql(statement)


def _sources(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE nights ADD COLUMN sources TEXT NOT NULL DEFAULT '{}'")


MIGRATIONS: tuple[Migration, ...] = (("lab_0001_registrations_cells_lives", _first), ("lab_0002_sources", _sources))

# As in the store: the columns are the fields of the types, so that a field without a migration fails its first test.
REGISTRATIONS = table("registrations", *map(column, ("experiment", "version", "hash", "text", "locked_at", "seen")))
CELLS = table(
    "cells",
    *map(column, ("digest", "body", "state", "tries", "error", "worker", "seconds", "ended_at", "registration")),
)
LINKS = table("links", *map(column, ("experiment", "version", "size", "name", "variant", "digest")))
NOTES = table("notes", *map(column, ("experiment", "version", "size", "kind", "text", "at")))
_APART = ("exams", "nights")
LIVES = table("lives", *(column(name) for name in Life.model_fields if name not in _APART))
EXAMS = table(
    "exams",
    *map(column, ("digest", "number")),
    *(column(name) for name in ExamRow.model_fields if name != "attempt"),
    *(column(name) for name in Attempted.model_fields),
)
NIGHTS = table("nights", *map(column, ("digest", "number")), *(column(name) for name in NightRow.model_fields))


def rows_of(life: Life) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """A life as a row of `lives`, and rows of `exams` and of `nights` in their order."""
    place = {"digest": life.digest}
    exams = [
        place | {"number": number} | _flat(row.model_dump(exclude={"attempt"})) | _flat(row.attempt.model_dump())
        for number, row in enumerate(life.exams)
    ]
    nights = [place | {"number": number} | _flat(row.model_dump()) for number, row in enumerate(life.nights)]
    return _flat(life.model_dump(exclude=set(_APART))), exams, nights


def life_of(head: Row[Any], exams: list[Row[Any]], nights: list[Row[Any]]) -> Life:
    """What `rows_of` took apart. Raises `ValidationError` for rows that no life becomes."""
    body = dict(head._mapping)
    for name in ("blocks", "learnt", "problems"):
        body[name] = json.loads(body[name])
    return Life.model_validate(body | {"exams": [_exam(row) for row in exams], "nights": [_night(row) for row in nights]})


def _exam(row: Row[Any]) -> dict[str, Any]:
    body = dict(row._mapping)
    attempt = {name: body[name] for name in Attempted.model_fields} | {"errors": json.loads(body["errors"])}
    return {"attempt": attempt, **{name: body[name] for name in ExamRow.model_fields if name != "attempt"}}


def _night(row: Row[Any]) -> dict[str, Any]:
    body = {name: row._mapping[name] for name in NightRow.model_fields}
    return body | {
        name: json.loads(body[name]) for name in ("sources", "dropped", "losses", "base_losses", "adapters", "notes")
    }


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _storable(value) for name, value in fields.items()}


def _storable(value: Any) -> Any:
    if isinstance(value, dict | tuple | list):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and math.isnan(value):
        return "NaN"  # SQLite would make it NULL, which says that nothing was measured
    return value
