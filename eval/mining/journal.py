"""What mining found out so far: a line per commit, kept as it is found, for the owner alone."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eval.mining.schema import MinedTask


class Entry(BaseModel):
    """A line of the journal: a commit and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    sha: str
    reason: str = ""
    detail: str = ""
    ignored: tuple[str, ...] = ()
    task: MinedTask | None = Field(default=None, repr=False)


class Journal:
    """What was found out so far, one line per commit; a line that was cut off is forgotten."""

    def __init__(self, path: Path, same: str) -> None:
        self.path = path
        self.known: dict[str, Entry] = {}
        data = path.read_bytes() if path.exists() else b""
        header = f"{same}\n".encode()
        whole = len(header) if data.startswith(header) else 0
        for line in data[whole:].splitlines(keepends=True) if whole else []:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            with suppress(ValidationError):
                entry = Entry.model_validate_json(line)
                self.known[entry.sha] = entry
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+b") as file:
            file.truncate(whole)
            if not whole:
                file.write(header)

    def append(self, entry: Entry) -> None:
        """Keep an answer before the next question is asked."""
        self.known[entry.sha] = entry
        with self.path.open("ab") as file:
            file.write(entry.model_dump_json().encode() + b"\n")
