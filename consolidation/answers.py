"""What guards were answered, kept by guard, artefact and item: a killed examination goes on where it stood."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from consolidation.adapters import artefact_hash
from consolidation.errors import ConsolidationError
from consolidation.guards import Answer, Routes
from memory.hashing import content_hash

FILE = "answers.sqlite3"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS answers (guard TEXT, artefact TEXT, item TEXT, answer TEXT NOT NULL, "
    "PRIMARY KEY (guard, artefact, item)) WITHOUT ROWID"
)


def artefacts(routes: Routes) -> dict[str, str]:
    """The content hash of each repository's adapter, from its bytes as they are now.

    Raises:
        AdapterError: one of them is missing.
    """
    return {repo: artefact_hash(folder) for repo, folder in sorted(routes.items())}


def artefact_key(hashes: Mapping[str, str]) -> str:
    """One name for what these artefacts serve; that of no artefact is the bare base's."""
    return content_hash(dict(hashes))


class Answers:
    """Answers in one SQLite file below a folder. It can be deleted: everything is then asked again."""

    def __init__(self, root: Path) -> None:
        self.path = root / FILE

    def known(self, guard: str, artefact: str, items: Iterable[str]) -> dict[str, Answer]:
        """The kept answers to these items; what is not a valid answer (any more) is not known."""
        wanted = set(items)
        with self._open() as database:
            rows = database.execute("SELECT item, answer FROM answers WHERE guard = ? AND artefact = ?", (guard, artefact))
            found = {str(item): _read(text) for item, text in rows if item in wanted}
        return {item: answer for item, answer in found.items() if answer is not None}

    def keep(self, guard: str, artefact: str, answers: Mapping[str, Answer]) -> None:
        """Keep answers, all of them or none."""
        rows = [(guard, artefact, item, answer.model_dump_json()) for item, answer in answers.items()]
        with self._open() as database:
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)

    def forget(self, guards: Sequence[str]) -> int:
        """Drop the answers of all guards but these (digests); how many went."""
        marks = ", ".join("?" * len(guards))
        with self._open() as database:
            return database.execute(f"DELETE FROM answers WHERE guard NOT IN ({marks})", tuple(guards)).rowcount

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            with closing(sqlite3.connect(self.path, timeout=30)) as database, database:
                database.execute(_SCHEMA)
                yield database
        except (sqlite3.Error, OSError) as error:
            raise ConsolidationError(
                f"{self.path}: answers cannot be kept ({error}); free the disk, or delete the file and all is asked again"
            ) from error


def sound(answer: Answer) -> bool:
    """Whether all its numbers are finite and its score is a share."""
    return all(map(math.isfinite, (answer.score, answer.seconds, *answer.facts.values()))) and 0 <= answer.score <= 1


def _read(text: object) -> Answer | None:
    try:
        answer = Answer.model_validate_json(str(text))
    except ValueError:
        return None
    return answer if sound(answer) else None
